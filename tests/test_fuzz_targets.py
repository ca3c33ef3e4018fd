"""Some of what a stranger may send, the same examples every time; `make fuzz` tries many more."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_targets import TARGETS, check_photos_of_a_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = {"runs": 25, "bundles": 40, "decisions": 60}
quick = settings(deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_is_sent_is_read_or_refused(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    outcomes = set()

    @settings(quick, max_examples=EXAMPLES.get(name, 150))
    @given(target.examples)
    def attempt(example: tuple[str, bytes]) -> None:
        outcomes.add(target.check(tmp_path, *example))

    attempt()
    assert outcomes == {"read", "refused"}  # the examples are neither all sound nor all nonsense


@settings(quick, max_examples=2)
@given(st.lists(TARGETS["photos"].examples, min_size=40, max_size=40))
def test_a_run_has_a_row_for_every_photo_whatever_its_bytes(
    tmp_path_factory: pytest.TempPathFactory, photos: list[tuple[str, bytes]]
) -> None:
    outcomes = check_photos_of_a_run(tmp_path_factory.mktemp("run"), [data for _, data in photos])
    assert sum(outcomes.values()) == 40
