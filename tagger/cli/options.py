"""Options that several commands share, and how data goes to standard output."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tagger.results import ResultStore, RunInfo

as_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable result on standard output.")
decisions = click.option(
    "--decisions",
    metavar="DIR",
    help="Ledger of what people decided, shared by many runs. Default: OUT/decisions.",
)


def web_photos(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options `--allow-http` and `--allow-private-http`."""
    public = click.option("--allow-http", is_flag=True, help="Fetch http(s) photos too, from public addresses only.")
    private = click.option(
        "--allow-private-http", is_flag=True, help="Fetch http(s) photos from private addresses as well."
    )
    return public(private(function))


class Share(click.FloatRange):
    """A number from 0 to 1. click's own range lets nan pass, which is above nothing and below nothing."""

    def __init__(self) -> None:
        super().__init__(0, 1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        share = super().convert(value, param, ctx)
        if math.isnan(share):
            self.fail(f"{value} is not from 0 to 1.", param, ctx)
        return share


def say_where_no_decisions(folder: str | None) -> None:
    """A line on standard error where `folder`, given by a person, is not there: a new ledger, or a slip of the pen."""
    from tagger import storage

    with contextlib.suppress(OSError):
        if folder is not None and not storage.exists(folder):
            click.echo(f"tagger: no decisions in {folder} yet", err=True)


def find_ledger(store: ResultStore, info: RunInfo, wanted: str | None) -> str:
    """Where the decisions on an OUT lie; says so where a folder that a person or the run named is not there."""
    from tagger.final import ledger_folder

    folder = ledger_folder(store, info, wanted)
    if folder != store.default_decisions:
        say_where_no_decisions(folder)
    return folder


def example(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Put a runnable example at the end of a command's help."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        lines = "\n".join(f"    {line}" for line in text.strip().splitlines())
        function.__doc__ = f"{(function.__doc__ or '').rstrip()}\n\n    \b\n    Example:\n{lines}\n"
        return function

    return add


def echo_json(data: object) -> None:
    """`data` as indented JSON on standard output."""
    click.echo(json.dumps(data, indent=1, ensure_ascii=False))
