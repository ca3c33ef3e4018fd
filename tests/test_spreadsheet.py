"""CSV that a spreadsheet opens without running anything, and that comes back unchanged."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagger.spreadsheet import quote, unquote, write_csv


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\tx",
        "\rx",
        "'=1",
        "''=1",
        "=cmd|' /C calc'!A0",
        "\nx",
        "＝1+1",
        "＠SUM(A1)",
        "'＋1",
    ],
)
def test_text_that_a_spreadsheet_would_run_is_quoted_and_comes_back(text: str) -> None:
    assert quote(text) == f"'{text}"
    assert unquote(quote(text)) == text


@pytest.mark.parametrize("text", ["", "00123", "1E5", "'quoted'", "it's", "한글", " =1", "a=b"])
def test_other_texts_stand_as_they_are(text: str) -> None:
    assert quote(text) == text
    assert unquote(text) == text


def test_a_formula_behind_a_semicolon_is_quoted_where_it_would_start() -> None:
    assert quote("red;=1+1; -2\n@x") == "red;'=1+1; '-2\n'@x"
    assert unquote("red;'=1+1; '-2\n'@x") == "red;=1+1; -2\n@x"
    assert quote("a; b;c-d") == "a; b;c-d"


@given(st.text(alphabet=st.sampled_from("'=+-@\t\r\nab0＝＠;"), max_size=6))
def test_quoting_can_always_be_undone(text: str) -> None:
    assert unquote(quote(text)) == text
    assert quote(text)[:1] not in ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＠")


@given(st.lists(st.text(alphabet=st.sampled_from("'=+-@\t\rab0＝ ;,\"\n"), max_size=8), min_size=1, max_size=4))
def test_no_cell_runs_whatever_separator_the_spreadsheet_takes_and_every_text_comes_back(texts: list[str]) -> None:
    output = io.BytesIO()
    write_csv(output, [f"c{i}" for i in range(len(texts))], [texts])
    for separator in (",", ";", "\t"):
        text = output.getvalue().decode("utf-8-sig")
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
            assert not [cell for cell in row if cell[:1] in tuple("=+-@＝")]
    (_, row) = csv.reader(io.StringIO(output.getvalue().decode("utf-8-sig"), newline=""))
    assert [unquote(cell) for cell in row] == texts


def test_csv_has_a_byte_order_mark_and_keeps_every_text() -> None:
    texts = ["00123", "1E5", 'a "b", c', "two\nlines", "two\r\nlines", "lone\rreturn", "한글", "\u2028", "=1"]
    output = io.BytesIO()
    assert write_csv(output, ["text", "n"], ([text, i] for i, text in enumerate(texts))) == len(texts)
    assert output.getvalue().startswith(b"\xef\xbb\xbftext,n\r\n")
    rows = list(csv.DictReader(io.StringIO(output.getvalue().decode("utf-8-sig"), newline=""), strict=True))
    assert [unquote(row["text"]) for row in rows] == texts


def test_numbers_truth_and_nothing_are_plain_cells() -> None:
    output = io.BytesIO()
    write_csv(output, ["a", "b", "c", "d"], [(-1, 0.5, True, None)])
    assert output.getvalue().decode("utf-8-sig").splitlines()[1] == "-1,0.5,true,"


def test_a_long_table_is_written_in_pieces() -> None:
    output = io.BytesIO()
    assert write_csv(output, ["n"], ((str(n),) for n in range(50_000))) == 50_000
    assert output.getvalue().decode("utf-8-sig").split() == ["n", *map(str, range(50_000))]


def test_rows_that_cannot_be_had_leave_nothing_behind() -> None:
    def rows() -> Iterator[list[str]]:
        raise ValueError("no such attribute")
        yield []

    output = io.BytesIO()
    with pytest.raises(ValueError, match="no such"):
        write_csv(output, ["a"], rows())
    assert output.getvalue() == b""
    write_csv(output, ["a"], [["1"]])
    assert output.getvalue() == b"\xef\xbb\xbfa\r\n1\r\n"
