"""jobs/airflow/tagger_nightly.py in a real Airflow: its own environment, its own home, SQLite."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import draw_photo, write_manifest
from services.environments import ROOT, TAGGER, make_environment, run_outside

DAG_FILE = ROOT / "jobs" / "airflow" / "tagger_nightly.py"

RunInAirflow = Callable[..., str]


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> RunInAirflow:
    """Runs a program of the Airflow environment; `settings` becomes the Variable `tagger_nightly`."""
    environment = make_environment("airflow", [["-r", "tests/services/airflow.txt"]])
    home = tmp_path_factory.mktemp("airflow")
    variables = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAG_FILE.parent),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "0",
    }

    def run(program: str, *arguments: str | Path, settings: dict[str, Any] | None = None) -> str:
        variable = {"AIRFLOW_VAR_TAGGER_NIGHTLY": json.dumps(settings)} if settings else {}
        return run_outside(environment / "bin" / program, *arguments, cwd=home, **variables, **variable)

    run("airflow", "db", "migrate")
    return run


def test_each_interval_is_tagged_once_and_builds_on_the_one_before_it(
    airflow: RunInAirflow, dummy_bundle: str, tmp_path: Path
) -> None:
    photos = [draw_photo(tmp_path / f"{i}.jpg", i) for i in range(4)]
    rows = [{"item_id": f"{i:05d}", "image_uri": str(photo)} for i, photo in enumerate(photos)]
    for date in ("2026-01-30", "2026-01-31"):
        write_manifest(tmp_path / f"feed {date}.csv", rows)
    results = tmp_path / "results"
    settings = {
        "tagger": str(TAGGER),
        "manifest": str(tmp_path / "feed {date}.csv"),
        "results": str(results),
        "options": ["--bundle", dummy_bundle, "--min-rows", "4"],
    }

    def night(end: str) -> None:
        airflow("airflow", "dags", "test", "tagger_nightly", end, settings=settings)

    night("2026-01-30T03:00:00")  # the interval from the 29th, 02:30, to the 30th
    first = results / "2026-01-30"
    assert json.loads((first / "summary.json").read_text())["inferred"] == 4
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*.parquet")}

    night("2026-01-30T03:00:00")
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*.parquet")} == before
    assert [path.name for path in results.iterdir()] == ["2026-01-30"]

    night("2026-01-31T03:00:00")
    second = results / "2026-01-31"
    assert json.loads((second / "run.json").read_text())["key"]["previous_out"] == str(first)
    summary = json.loads((second / "summary.json").read_text())
    assert (summary["inferred"], summary["reused"]) == (0, 4)


TRY_ALL = """
import importlib.util, json, os, sys, datetime

dag_file, cases = sys.argv[1], json.loads(sys.argv[2])
spec = importlib.util.spec_from_file_location("tagger_nightly", dag_file)
module = sys.modules["tagger_nightly"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)

for day, settings in enumerate(cases, 1):
    os.environ.pop("AIRFLOW_VAR_TAGGER_NIGHTLY", None)
    if settings is not None:
        os.environ["AIRFLOW_VAR_TAGGER_NIGHTLY"] = json.dumps(settings)
    end = datetime.datetime(2026, 3, day, 3, tzinfo=datetime.timezone.utc)
    run = module.dag.test(logical_date=end)
    (task,) = run.get_task_instances()
    print("CASE", json.dumps({"run": run.state, "task": task.state, "tries": task.try_number}))
"""


def test_exit_codes_decide_whether_there_is_another_try(airflow: RunInAirflow, tmp_path: Path) -> None:
    tries = [["2"], ["3"], ["70"], ["99"], ["1", "0"], ["4", "75", "0"], ["KILL", "0"], ["1", "1", "1", "1"]]
    expected = [1, 1, 1, 1, 2, 3, 2, 4]
    cases: list[dict[str, Any] | None] = [
        {"tagger": fake_tagger(tmp_path / str(i), codes), "manifest": "m.csv", "results": str(tmp_path / "results")}
        for i, codes in enumerate(tries)
    ]
    cases += [None, {"tagger": "/no/such/tagger", "manifest": "m.csv", "results": str(tmp_path / "results")}]
    said = airflow("python", "-c", TRY_ALL, DAG_FILE, json.dumps(cases))
    ends = [json.loads(line.removeprefix("CASE ")) for line in said.splitlines() if line.startswith("CASE ")]
    assert [end["tries"] for end in ends] == [*expected, 1, 1]
    states = [(end["run"], end["task"]) for end in ends]
    good, bad = ("success", "success"), ("failed", "failed")
    assert states == [bad, bad, bad, bad, good, good, good, bad, bad, bad]
    calls = [len((tmp_path / str(i) / "calls").read_text().splitlines()) for i in range(len(tries))]
    assert calls == expected


def test_settings_that_cannot_be_meant_fail_at_once_and_are_named(airflow: RunInAirflow, tmp_path: Path) -> None:
    good = {"tagger": fake_tagger(tmp_path / "0", ["0"]), "manifest": "m.csv", "results": str(tmp_path / "results")}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"options": "--min-rows 4"}, "options is '--min-rows 4', not a list of texts"),
        ({"options": ["--min-rows", 4]}, "options is ['--min-rows', 4], not a list of texts"),
        ({"results": "s3://shop/tags"}, "results is s3://shop/tags; it must be the absolute path of a folder"),
        ({"results": "tags"}, "results is tags; it must be the absolute path of a folder"),
        ({"manifest": None}, "manifest is None, not a text"),
        ({"decisions": ""}, "decisions is '', not a text"),
        ({"bundle": "b"}, "must be a JSON object with tagger, manifest and results"),
    ]
    said = airflow("python", "-c", TRY_ALL, DAG_FILE, json.dumps([good | change for change, _ in wrong]))
    ends = [json.loads(line.removeprefix("CASE ")) for line in said.splitlines() if line.startswith("CASE ")]
    assert ends == [{"run": "failed", "task": "failed", "tries": 1}] * len(wrong)
    for _, sentence in wrong:
        assert sentence in said
    assert not (tmp_path / "0" / "calls").exists()


def fake_tagger(folder: Path, codes: list[str]) -> str:
    """A stand-in that leaves with one exit code after the other, and counts its calls in `folder`/calls."""
    folder.mkdir()
    calls = shlex.quote(str(folder / "calls"))
    cases = "\n".join(
        f"  {i}) {'kill -9 $$' if code == 'KILL' else f'exit {code}'};;" for i, code in enumerate(codes, 1)
    )
    script = folder / "tagger"
    script.write_text(f'#!/bin/sh\necho "$*" >> {calls}\ncase $(wc -l < {calls}) in\n{cases}\nesac\nexit 111\n')
    script.chmod(0o755)
    return str(script)


PARSE_UNDER_WATCH = """
import sys
import pendulum
import airflow.providers.standard.hooks.subprocess, airflow.sdk.exceptions
from airflow.sdk import DAG, BaseOperator, Context, CronDataIntervalTimetable, Variable

with open(sys.argv[1]) as file:
    code = compile(file.read(), sys.argv[1], "exec")
libraries = (sys.prefix, sys.base_prefix, "/usr/share/zoneinfo", "/etc/localtime")
seen = []

def watch(event, arguments):
    if event == "open" and not str(arguments[0]).startswith(libraries):
        seen.append((event, str(arguments[0])))
    if event in ("subprocess.Popen", "os.system", "socket.connect", "sqlite3.connect", "os.listdir", "os.scandir"):
        if not str(arguments[0]).startswith(libraries):
            seen.append((event, str(arguments[0])))

Variable.get = lambda *a, **k: seen.append(("Variable.get", a))
sys.addaudithook(watch)
module = sys.modules["tagger_nightly"] = type(sys)("tagger_nightly")
exec(code, module.__dict__)
print("SEEN", list(seen))
"""


def test_parsing_the_dag_reads_nothing(airflow: RunInAirflow) -> None:
    said = airflow("python", "-c", PARSE_UNDER_WATCH, DAG_FILE)
    assert said.splitlines()[-1] == "SEEN []"
