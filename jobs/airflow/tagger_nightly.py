"""The nightly job as a DAG for Airflow 3: one `tagger run` for each data interval.

tagger runs as a process of its own, from its own virtual environment: Airflow's environment holds nothing of it. What
to run stands in the Airflow Variable `tagger_nightly`, which is read when the task runs, never when this file is
parsed; jobs/README.md tells its keys. The task returns OUT, for the tasks that come after it.

The exit codes of `tagger run` decide what happens next:

    0            done
    1, 4, 75     incomplete, OUT held by another run, interrupted: tried again, and the same command goes on
    by a signal  for example out of memory: tried again in the same way
    all others   2 bad input, 3 a brake held, 70 internal error: failed at once, another try would end the same way
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pendulum
from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import DAG, BaseOperator, Context, CronDataIntervalTimetable, Variable
from airflow.sdk.exceptions import AirflowException, AirflowFailException

VARIABLE = "tagger_nightly"
GOES_ON = frozenset({1, 4, 75})


@dataclass(frozen=True)
class Settings:
    """The Airflow Variable `tagger_nightly`, a JSON object."""

    tagger: str  # the executable, for example /opt/tagger/.venv/bin/tagger
    manifest: str  # {date} in it becomes the date of the interval's end
    results: str  # folder of the dated results on the worker's disk, an absolute path
    decisions: str | None = None  # None: RESULTS/decisions
    options: Sequence[str] = ()  # more options of `tagger run`, for example ["--max-churn", "0.1"]

    @classmethod
    def read(cls) -> Settings:
        """Raises `AirflowFailException` where the Variable is missing or of another shape."""
        try:
            settings = cls(**json.loads(Variable.get(VARIABLE, default="null")))
        except (ValueError, TypeError) as error:
            raise AirflowFailException(
                f"the Variable {VARIABLE} must be a JSON object with tagger, manifest and results: {error}"
            ) from None
        for name in ("tagger", "manifest", "results", "decisions"):
            value = getattr(settings, name)
            if not ((isinstance(value, str) and value) or (name, value) == ("decisions", None)):
                raise AirflowFailException(f"the Variable {VARIABLE}: {name} is {value!r}, not a text")
        if not (isinstance(settings.options, list | tuple) and all(isinstance(o, str) for o in settings.options)):
            raise AirflowFailException(
                f'the Variable {VARIABLE}: options is {settings.options!r}, not a list of texts as in ["--limit", "10"]'
            )
        if not Path(settings.results).is_absolute():
            raise AirflowFailException(
                f"the Variable {VARIABLE}: results is {settings.results}; it must be the absolute path of a folder, "
                "the same on every worker"
            )
        return settings


class TaggerRun(BaseOperator):
    """Tags the catalogue for one data interval; OUT is named by the date on which the interval ends."""

    def execute(self, context: Context) -> str:
        """Returns OUT."""
        settings = Settings.read()
        results = Path(settings.results)
        date = night_of(context)
        out = results / date
        command = [settings.tagger, "run", settings.manifest.replace("{date}", date), "--out", str(out)]
        command += ["--decisions", settings.decisions or str(results / "decisions"), *settings.options]
        if previous := previous_result(results, out):
            command += ["--reuse", previous]
        self.hook = SubprocessHook()  # not a BashOperator: no shell, and no exit code that means "skipped"
        try:
            results.mkdir(parents=True, exist_ok=True)
            code = self.hook.run_command(command, env=environment_of_the_job(), cwd=str(results)).exit_code
        except OSError as error:
            raise AirflowFailException(f"cannot start {settings.tagger} in {results}: {error}") from None
        if code == 0:
            return str(out)
        if code in GOES_ON or code < 0:
            raise AirflowException(f"tagger run left with exit code {code}; the next try goes on from what is there")
        raise AirflowFailException(f"tagger run left with exit code {code}; another try would end the same way")

    def on_kill(self) -> None:
        """SIGTERM: tagger keeps every finished shard and leaves with 75."""
        if hasattr(self, "hook"):
            self.hook.send_sigterm()


def night_of(context: Context) -> str:
    """The date on which the interval ends, in the DAG's time zone; a run without an interval: when it was due."""
    end = context.get("data_interval_end") or context["dag_run"].run_after
    return pendulum.instance(end).in_timezone(context["dag"].timezone).to_date_string()


def previous_result(results: Path, out: Path) -> str | None:
    """The newest good result before OUT; for an OUT that a try has begun, the one that it began with."""
    if (out / "run.json").exists():
        begun: dict[str, Any] = json.loads((out / "run.json").read_text())
        return begun["key"]["previous_out"]
    good = [folder for folder in results.glob("????-??-??") if (folder / "_SUCCESS").exists()]
    return max((str(folder) for folder in good if folder.name < out.name), default=None)


def environment_of_the_job() -> dict[str, str]:
    """This process's environment without what belongs to Airflow and its Python."""
    theirs = ("AIRFLOW", "_AIRFLOW", "PYTHON", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(theirs)}


with DAG(
    dag_id="tagger_nightly",
    description="Tag the catalogue, inferring only the photos that are new",
    schedule=CronDataIntervalTimetable("30 2 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,  # each night builds on the one before it
    tags=["catalogue"],
) as dag:
    TaggerRun(task_id="tag", retries=3)  # wait between tries: Airflow's core.default_task_retry_delay, 5 minutes
