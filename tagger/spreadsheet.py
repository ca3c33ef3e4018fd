"""CSV that people open in a spreadsheet, and that comes back from one unchanged.

A spreadsheet runs a cell that begins with `=`, `+`, `-`, `@`, one of their full-width forms, a tab or a line end as a
formula, so such texts get a leading `'`, which `unquote` takes off again. A spreadsheet whose list separator is `;`
cuts a text there too, whatever quotes stand around it, so a formula behind a `;` gets a `'` as well. Everything else
stands as it is, leading zeros too: import the id columns as text, since a spreadsheet that guesses makes 123 of 00123
and 100000 of 1E5.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import IO

Cell = str | int | float | bool | None

_STARTS = r"[=+\-@＝＋－＠\t\r\n]"
_CUT = r"""(\A|[;\t\r\n][ "]*)"""  # where a cell begins, for one spreadsheet or another
_FORMULA = re.compile(rf"{_CUT}(?='*{_STARTS})")
_QUOTED = re.compile(rf"{_CUT}'(?='*{_STARTS})")
_FLUSH_AFTER = 1 << 16  # characters


def quote(text: str) -> str:
    """`text` as a cell that no spreadsheet runs; `unquote` gives it back for every text."""
    return _FORMULA.sub(r"\1'", text)


def unquote(cell: str) -> str:
    """The text of a cell that `quote` made; cells that it did not make stay as they are."""
    return _QUOTED.sub(r"\1", cell)


def write_csv(output: IO[bytes], header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> int:
    """Write a table as UTF-8 with a byte order mark, without which spreadsheets misread Korean.

    Texts are quoted as above; numbers stand plain, None is empty, truth values are true and false.

    Returns:
        The number of rows besides the header.
    """
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)  # its line ends, CR LF, also make it put fields with either of them in quotes
    buffer.write("\ufeff")
    writer.writerow(header)  # kept back until there are rows: what fails before them leaves nothing
    count = 0
    for row in rows:
        writer.writerow([_cell(value) for value in row])
        count += 1
        if buffer.tell() > _FLUSH_AFTER:
            output.write(buffer.getvalue().encode())
            buffer.seek(0)
            buffer.truncate()
    output.write(buffer.getvalue().encode())
    return count


def _cell(value: Cell) -> str | int | float | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return quote(value) if isinstance(value, str) else value
