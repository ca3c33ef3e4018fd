"""Where the data of a command goes: a file, whole or not at all, or standard output."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import IO

import click

from tagger import storage
from tagger.errors import UsageError


def check_outputs(outputs: Mapping[str, str | None]) -> None:
    """Raises `UsageError` where two of `outputs` would mix on standard output, or the second replace the first.

    Args:
        outputs: what is written, for a person → where to: a file, '-' for standard output, None for nowhere.
    """
    taken: dict[str, str] = {}
    for what, reference in outputs.items():
        if reference is None:
            continue
        is_path = reference != "-" and not storage.is_remote(reference)
        place = os.path.realpath(storage.local_path(reference)) if is_path else reference
        if place in taken:
            where = "would mix on standard output" if reference == "-" else f"would both be {reference}"
            raise UsageError(f"{taken[place]} and {what} {where}; name another file for one of them")
        taken[place] = what


def leave_output() -> None:
    """Let nothing more go to standard output: its reader is gone, and Python's last flush would fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def open_output(reference: str | None) -> Iterator[IO[bytes]]:
    """The file `reference`, which takes its name when the block ends well; standard output for None or '-'.

    Raises:
        UsageError: the file cannot be written.
    """
    if reference is None or reference == "-":
        sys.stdout.flush()
        try:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        except BrokenPipeError:  # the reader has seen enough, as in `| head`
            leave_output()
            raise click.exceptions.Exit(0) from None
        return
    try:
        with storage.writer(reference) as file:
            yield file
    except OSError as error:
        raise UsageError(f"cannot write {reference}: {storage.reason(error)}") from None
