"""CSV that people open in a spreadsheet, and that comes back from one unchanged.

A spreadsheet runs a cell that begins with `=`, `+`, `-`, `@`, a tab or a carriage return as a formula, so such texts
get a leading `'`, which `unquote` takes off again. Everything else stands as it is, leading zeros too: import the id
columns as text, since a spreadsheet that guesses makes 123 of 00123 and 100000 of 1E5.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import IO

Cell = str | int | float | bool | None

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_QUOTED = re.compile(r"'+[=+\-@\t\r]")
_FLUSH_AFTER = 1 << 16  # characters


def quote(text: str) -> str:
    """`text` as a cell that no spreadsheet runs; `unquote` gives it back for every text."""
    return f"'{text}" if _FORMULA.match(text) else text


def unquote(cell: str) -> str:
    """The text of a cell that `quote` made; cells that it did not make stay as they are."""
    return cell[1:] if _QUOTED.match(cell) else cell


def write_csv(output: IO[bytes], header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> int:
    """Write a table as UTF-8 with a byte order mark, without which spreadsheets misread Korean.

    Texts are quoted as above; numbers stand plain, None is empty, truth values are true and false.

    Returns:
        The number of rows besides the header.
    """
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)  # its line ends, CR LF, also make it put fields with either of them in quotes
    writer.writerow(header)
    output.write(codecs.BOM_UTF8)
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
