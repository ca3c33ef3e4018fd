"""The drawn shop, run once for all tests of review."""

from __future__ import annotations

from pathlib import Path

import pytest
from review.shop import Shop, open_shop


@pytest.fixture(scope="session")
def shop_out(dummy_bundle: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUT of a run over the shop. For reading only: decisions go to a folder of the test's own."""
    return open_shop(tmp_path_factory.mktemp("shop"), dummy_bundle)


@pytest.fixture
def shop(shop_out: Path, dummy_bundle: str, tmp_path: Path) -> Shop:
    return Shop(shop_out.parent, dummy_bundle, shop_out, tmp_path / "ledger")
