"""Where the data of a command goes: a file, whole or not at all, or standard output."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import IO

import click

from tagger import storage
from tagger.errors import UsageError


def check_page_output(page: str | None, as_json: bool) -> None:
    """Raises `UsageError` where a page and the figures of --json would both go to standard output."""
    if as_json and page == "-":
        raise UsageError("--json and --output - would mix on standard output; name a file for the page")


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
