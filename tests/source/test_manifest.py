"""Manifests of every kind, read as streams; every fault is one sentence that names the file and the line."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
import os
import random
import tempfile
import uuid
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import DROP_ROOT, run_python, write_manifest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tagger.errors import ManifestError, UsageError
from tagger.records import Item, Shard
from tagger.source.manifest import Manifest, plan_shards, resolve_uri, scan_manifest

KINDS = ["csv", "tsv", "jsonl", "ndjson", "parquet"]


def put(tmp_path: Path, name: str, data: str | bytes) -> str:
    file = tmp_path / name
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(file)


def items(reference: str, keep: Sequence[str] = (), limit: int | None = None) -> list[Item]:
    return list(Manifest.open(reference).items(keep, limit))


def fault(reference: str, keep: Sequence[str] = ()) -> str:
    """What a manifest that cannot be read is told, less the folder."""
    with pytest.raises(ManifestError) as caught:
        scan_manifest(Manifest.open(reference), 10, keep, None)
    assert reference in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(os.path.dirname(reference) + "/", "")


# -- what is read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", ["", ".gz", ".GZ"])
@pytest.mark.parametrize("kind", [*KINDS, "CSV"])
def test_every_kind_gives_the_same_rows(tmp_path: Path, kind: str, packed: str) -> None:
    rows = [
        {"item_id": "00123", "image_uri": "a.jpg", "brand": "x"},
        {"item_id": "1E5", "image_uri": None, "brand": "한국"},
        {"item_id": "00123", "image_uri": "b c.jpg", "brand": "a\tb, \"c\"\nd"},
    ]  # fmt: skip
    written = write_manifest(tmp_path / f"m.{kind.lower()}{packed.lower()}", rows)
    file = written.rename(tmp_path / f"renamed.{kind}{packed}")
    assert items(str(file), keep=["brand", "item_id"]) == [
        Item(0, "00123", "a.jpg", ("x", "00123")),
        Item(1, "1E5", "", ("한국", "1E5")),
        Item(2, "00123", "b c.jpg", ('a\tb, "c"\nd', "00123")),
    ]


def test_the_manifest_may_be_a_file_uri(tmp_path: Path) -> None:
    put(tmp_path, "a b.csv", "item_id,image_uri\n1,a.jpg\n")
    manifest = Manifest.open(f"file://{tmp_path}/a%20b.csv")
    assert [item.item_id for item in manifest.items()] == ["1"]
    assert manifest.resolve("a.jpg") == str(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("columns", "item", "image"),
    [
        ("id,sku,product_id,item_id,image_path,image_url,image,image_uri", "item_id", "image_uri"),
        ("id,product_id,sku,image_path,image_url,image", "sku", "image"),
        ("id,product_id,image_path,image_url", "product_id", "image_url"),
        ("image_path,id", "id", "image_path"),
    ],
)
def test_aliases_and_which_of_them_wins(tmp_path: Path, columns: str, item: str, image: str) -> None:
    manifest = Manifest.open(put(tmp_path, "m.csv", columns + "\n" + columns + "\n"))
    assert (manifest.item_column, manifest.image_column) == (item, image)
    assert list(manifest.items()) == [Item(0, item, image)]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffitem_id,image_uri\n1,a.jpg\n2,b.jpg\n",
        '\ufeff"item_id","image_uri"\r\n"1","a.jpg"\r\n"2","b.jpg"\r\n',
        "item_id,image_uri\r1,a.jpg\r2,b.jpg\r",
        "item_id,image_uri\n1,a.jpg\n2,b.jpg",
        "\n\nitem_id,image_uri\n\n1,a.jpg\n\n\n2,b.jpg\n\n",
        "image_uri , item_id,,\na.jpg,1,,\nb.jpg,2,,\n",
    ],
    ids=["bom", "bom-quoted-crlf", "cr", "no-last-newline", "blank-lines", "padded-and-unnamed-columns"],
)
def test_the_forms_that_programs_write_csv_in(tmp_path: Path, text: str) -> None:
    assert items(put(tmp_path, "m.csv", text)) == [Item(0, "1", "a.jpg"), Item(1, "2", "b.jpg")]


def test_a_bom_and_blank_lines_in_json_lines(tmp_path: Path) -> None:
    text = '\ufeff{"id": "1", "image": "a"}\r\n\n  \n{"image": "b", "id": "2"}'
    assert items(put(tmp_path, "m.jsonl", text)) == [Item(0, "1", "a"), Item(1, "2", "b")]


def test_json_rows_may_leave_keys_out_even_the_first(tmp_path: Path) -> None:
    text = '{"item_id": "1"}\n{"item_id": "2", "image_uri": "b.jpg", "brand": "x"}\n'
    assert items(put(tmp_path, "m.jsonl", text), keep=["brand"]) == [
        Item(0, "1", "", (None,)),
        Item(1, "2", "b.jpg", ("x",)),
    ]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ('"00123"', "00123"),
        ('"1E5"', "1E5"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("7", "7"),
        ("7.0", "7"),
        ("1.5", "1.5"),
        ("1.2345678E7", "12345678"),
        ("true", "true"),
        ('["a", 1]', '["a", 1]'),
        ('{"가": null}', '{"가": null}'),
        ('"\\ud83d\\ude00"', "😀"),
    ],
)
def test_json_ids_are_strings(tmp_path: Path, written: str, read: str) -> None:
    assert items(put(tmp_path, "m.jsonl", f'{{"item_id": {written}, "image_uri": "a"}}\n')) == [Item(0, read, "a")]


@pytest.mark.parametrize(
    ("column", "read"),
    [
        (pa.array(["00123", "1E5"]), ["00123", "1E5"]),
        (pa.array(["00123", "1E5"], pa.large_string()), ["00123", "1E5"]),
        (pa.array(["00123", "1E5"], pa.string_view()), ["00123", "1E5"]),
        (pa.array(["00123", "1E5"]).dictionary_encode(), ["00123", "1E5"]),
        (pa.array([b"00123", "가".encode()]), ["00123", "가"]),
        (pa.array([7, 2**63 - 1]), ["7", "9223372036854775807"]),
        (pa.array([7, 2**64 - 1], pa.uint64()), ["7", "18446744073709551615"]),
        (pa.array([7.0, 1e16, 123456789012345.0]), ["7", "10000000000000000", "123456789012345"]),
        (pa.array([19.99, 7.0], pa.float32()), ["19.99", "7"]),
        (pa.array([1.5, 7.0], pa.float16()), ["1.5", "7"]),
        (pa.array([Decimal("1.10"), Decimal("2.00")]), ["1.10", "2.00"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array([datetime.datetime(2026, 1, 31, 4, 5, 6)], pa.timestamp("ns")), ["2026-01-31 04:05:06"]),
        (pa.array([datetime.datetime(2026, 1, 31, 4, 5, 6, 7)], pa.timestamp("us")), ["2026-01-31 04:05:06.000007"]),
        (pa.array([0], pa.timestamp("s", "Asia/Seoul")), ["1970-01-01 00:00:00Z"]),
        (pa.array([datetime.date(2026, 1, 31)]), ["2026-01-31"]),
        (pa.array([uuid.UUID(int=1).bytes], pa.uuid()), ["00000000-0000-0000-0000-000000000001"]),
        (pa.array([["a", 1 and "b"]]), ['["a", "b"]']),
        (pa.array([{"at": datetime.date(2026, 1, 31)}]), ['{"at": "2026-01-31"}']),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_parquet_ids_are_strings(tmp_path: Path, column: pa.Array, read: list[str]) -> None:
    file = tmp_path / "m.parquet"
    pq.write_table(pa.table({"item_id": column, "image_uri": pa.array(["a"] * len(column))}), file)
    assert [item.item_id for item in items(str(file))] == read


def test_a_missing_number_of_pandas_is_no_photo_and_no_id(tmp_path: Path) -> None:
    file = tmp_path / "m.parquet"
    nan = float("nan")
    pq.write_table(pa.table({"item_id": [1.0, 2.0], "image_uri": [nan, nan], "n": [nan, 3.0]}), file)
    assert items(str(file), keep=["n"]) == [Item(0, "1", "", (None,)), Item(1, "2", "", ("3",))]
    pq.write_table(pa.table({"item_id": [1.0, nan], "image_uri": ["a", "b"]}), file)
    assert fault(str(file)) == "m.parquet, row 2: the item_id is empty"


def test_a_photo_column_of_nulls_only(tmp_path: Path) -> None:
    file = tmp_path / "m.parquet"
    pq.write_table(pa.table({"item_id": ["1"], "image_uri": pa.nulls(1)}), file)
    assert items(str(file)) == [Item(0, "1", "")]


def test_rows_keep_the_numbers_over_parquet_row_groups(tmp_path: Path) -> None:
    file = tmp_path / "m.parquet"
    table = pa.table({"item_id": [str(i) for i in range(10_000)], "image_uri": ["a"] * 10_000})
    pq.write_table(table, file, row_group_size=999)
    read = items(str(file))
    assert [item.row for item in read] == list(range(10_000))
    assert [item.item_id for item in read] == [str(i) for i in range(10_000)]
    assert len(items(str(file), limit=5_000)) == 5_000


@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_looks_at_no_row_after_it(tmp_path: Path, kind: str) -> None:
    rows: list[dict[str, Any]] = [{"item_id": str(i), "image_uri": "a"} for i in range(700)]
    rows[600]["item_id"] = ""
    file = str(write_manifest(tmp_path / f"m.{kind}", rows))
    for limit in (1, 255, 256, 257, 600):
        assert [item.row for item in items(file, limit=limit)] == list(range(limit))
    with pytest.raises(ManifestError, match=r"(line|row) 60[12]: the item_id is empty"):
        items(file, limit=601)


def test_a_limit_does_not_read_the_bad_line_after_it(tmp_path: Path) -> None:
    file = put(tmp_path, "m.csv", "item_id,image_uri\n1,a\n\n2,b\n3\n")
    assert len(items(file, limit=2)) == 2


@pytest.mark.parametrize(
    ("folder", "uri", "place"),
    [
        ("feeds", "a.jpg", "feeds/a.jpg"),
        ("feeds", "../a.jpg", "feeds/../a.jpg"),
        (".", "a.jpg", "./a.jpg"),
        ("feeds", "/a.jpg", "/a.jpg"),
        ("feeds", "", ""),
        ("feeds", "  ", ""),
        ("feeds", " a.jpg ", "feeds/a.jpg"),
        ("feeds", "file:///a.jpg", "file:///a.jpg"),
        ("feeds", "s3://bucket/a.jpg", "s3://bucket/a.jpg"),
        ("feeds", "HTTPS://shop/a.jpg", "HTTPS://shop/a.jpg"),
        ("feeds", "a/b://c.jpg", "feeds/a/b://c.jpg"),
        ("s3://bucket/feeds", "a.jpg", "s3://bucket/feeds/a.jpg"),
        ("s3://bucket/feeds", "./photos/../a.jpg", "s3://bucket/feeds/a.jpg"),
        ("s3://bucket/feeds", "../photos/a.jpg", "s3://bucket/photos/a.jpg"),
        ("s3://bucket", "../../a.jpg", "s3://bucket/a.jpg"),
        ("s3://bucket/feeds", "photos//./a.jpg", "s3://bucket/feeds/photos//a.jpg"),  # a key of its own
    ],
)
def test_resolve_uri(folder: str, uri: str, place: str) -> None:
    assert resolve_uri(folder, uri) == place


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("m.csv", "", "m.csv is empty"),
        ("m.csv", "\n\n", "m.csv is empty"),
        ("m.jsonl", "", "m.jsonl is empty"),
        ("m.jsonl", "{}\n", "m.jsonl is empty"),
        ("m.csv", "item_id,image_uri\n", "m.csv has a header but no rows: nothing to tag"),
        ("m.csv", "name,image_uri\n1,a\n", "m.csv has no column item_id (or sku, product_id, id); it has name, "),
        ("m.csv", "item_id;image_uri\n1;a\n", "it has item_id;image_uri"),
        ("m.tsv", "id\tphoto\n1\ta\n", "m.tsv has no column image_uri (or image, image_url, image_path); it has"),
        ("m.jsonl", '{"id": "1", "\\ud800": "a"}\n', "it has id, '\\ud800'"),
        ("m.csv", "item_id,image_uri,item_id\n1,a,2\n", "m.csv, line 1: the column 'item_id' stands twice"),
        ("m.csv", "item_id,image_uri\n1,a\n,b\n", "m.csv, line 3: the item_id is empty"),
        ("m.csv", "sku,image_uri\n1,a\n  ,b\n", "m.csv, line 3: the sku is empty"),
        ("m.jsonl", '{"id": "1", "image": "a"}\n\n{"image": "b"}\n', "m.jsonl, line 3: the id is empty"),
        ("m.jsonl", '{"id": null, "image": "b"}\n', "m.jsonl, line 1: the id is empty"),
        ("m.csv", "item_id,image_uri\n1,a\n2\n", "m.csv, line 3: 1 fields where the header has 2"),
        ("m.csv", "item_id,image_uri\n1,a,b\n", "m.csv, line 2: 3 fields where the header has 2"),
        ("m.csv", 'item_id,image_uri\n"1\r\n2\n\n3",a\n\n4\n', "m.csv, line 7: 1 fields where the header has 2"),
        ("m.csv", 'item_id,image_uri\n1,a\n"2\n3,b\n', "m.csv, line 3: unexpected end of data"),
        ("m.csv", 'item_id,image_uri\n"1\n",a\n"2"x,b\n', "m.csv, line 4: ',' expected after '\"'"),
        ("m.csv", '"item_id,image_uri\n1,a\n', "m.csv, line 1: unexpected end of data"),
        ("m.csv", f"item_id,image_uri\n1,a\n{'x' * (1 << 20)}1,b\n", "m.csv, line 3: field larger than field limit"),
        ("m.csv", f"item_id,image_uri\n1,a\n{'x' * (1 << 25)}\n", "m.csv, line 3: longer than 16,777,216 bytes"),
        ("m.jsonl", f'{{"id": "1", "image": "{"x" * (1 << 25)}"}}\n', "m.jsonl, line 1: longer than 16,777,216 bytes"),
        ("m.csv", "item_id,image_uri\n1,a\n2,b\0\n", "m.csv, line 3: a NUL byte"),
        ("m.csv", "item_id,image_uri\n1,a\n".encode("utf-16-le"), "m.csv, line 1: a NUL byte"),
        ("m.csv", "item_id,image_uri\n1,a\n".encode("utf-16"), "m.csv, line 1: a NUL byte"),
        ("m.csv", b"item_id,image_uri\n1,a\n2,caf\xe9\n", "m.csv, line 3: the text is not UTF-8"),
        ("m.csv", b"item_id,caf\xe9\n1,a\n", "m.csv, line 1: the text is not UTF-8"),
        ("m.jsonl", b'{"id": "1", "image": "a"}\n{"image": "\xff"}\n', "m.jsonl, line 2: the text is not UTF-8"),
        ("m.jsonl", '{"id": "1", "image": "a"}\n{"id": \n', "m.jsonl, line 2: not valid JSON"),
        ("m.jsonl", '{"id": "1", "image": "a"}\n[1]\n', "m.jsonl, line 2: not a JSON object"),
        ("m.jsonl", '[{"id": "1", "image": "a"}]\n', "m.jsonl, line 1: not a JSON object"),
        ("m.jsonl", '{"id": "1", "image": "a"}\n' + "[" * 100_000, "m.jsonl, line 2: not valid JSON"),
        ("m.jsonl", '{"id": ' + "1" * 5_000 + ', "image": "a"}\n', "m.jsonl, line 1: not valid JSON"),
        ("m.jsonl", '{"id": "1", "image": "a\\ud83d"}\n', "m.jsonl, line 1: 'a\\ud83d' holds a NUL character or half"),
        ("m.jsonl", '{"id": "가\\udc00", "image": "a"}\n', "m.jsonl, line 1: '가\\udc00' holds a NUL"),
        ("m.jsonl", '{"id": "1\\u0000", "image": "a"}\n', "m.jsonl, line 1: '1\\x00' holds a NUL character or half a"),
        ("m.csv.gz", "item_id,image_uri\n1,a\n", "m.csv.gz is not a whole gzip file: Not a gzipped file"),
        ("m.csv.gz", gzip.compress(b"item_id,image_uri\n1,a\n")[:-9], "m.csv.gz is not a whole gzip file"),
        ("m.csv.gz", gzip.compress(b"item_id,image_uri\n1,a\n", mtime=0)[:12] + b"x" * 30, "m.csv.gz is not a whole"),
        ("m.parquet", "item_id,image_uri\n1,a\n", "cannot read m.parquet: "),
        ("m.parquet", "", "cannot read m.parquet: "),
        ("m.parquet.gz", gzip.compress(b"PAR1")[:-3], "m.parquet.gz is not a whole gzip file"),
        ("m.parquet.gz", "PAR1", "m.parquet.gz is not a whole gzip file"),
        ("m.xlsx", "", "m.xlsx: a manifest ends in .csv, .tsv, .jsonl, .ndjson, .parquet (or one of these with .gz)"),
        ("m", "", "m: a manifest ends in .csv"),
        ("m.gz", "", "m.gz: a manifest ends in .csv"),
    ],
)  # fmt: skip
def test_a_fault_is_named_with_its_file_and_line(tmp_path: Path, name: str, text: str | bytes, said: str) -> None:
    assert said in fault(put(tmp_path, name, text))


@pytest.mark.parametrize("seed", range(8))
def test_the_line_that_is_not_utf8_is_named_wherever_it_is(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    lines = [f'{i},"{"가나" * chance.randrange(40)}{chance.choice(["", chr(10)])}"' for i in range(3_000)]
    bad = chance.randrange(len(lines))
    raw = [line.encode() for line in ["item_id,image_uri", *lines]]
    raw[bad + 1] = raw[bad + 1][:-1] + b'\xed\xa0"'
    line = b"\n".join(raw[: bad + 2]).count(b"\n") + 1
    assert fault(put(tmp_path, "m.csv", b"\n".join(raw))) == f"m.csv, line {line}: the text is not UTF-8"
    json_lines = [json.dumps({"id": str(i), "image": "x" * chance.randrange(90)}).encode() for i in range(3_000)]
    json_lines[bad] = json_lines[bad][:-2] + b'\x80"}'
    assert fault(put(tmp_path, "m.jsonl", b"\n".join(json_lines))) == f"m.jsonl, line {bad + 1}: the text is not UTF-8"


@pytest.mark.parametrize("seed", range(8))
def test_the_line_of_a_ragged_row_is_named_wherever_it_is(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    ends = ["", "", "\n", "\r\n", "\r", "\n\n"]
    lines = [f'"{i}{chance.choice(ends)}","a{chance.choice(ends)}b"' + "\n" * chance.randrange(2) for i in range(1_500)]
    bad = chance.randrange(len(lines))
    lines[bad] += ",x" if lines[bad][-1] != "\n" else "y"
    before = "item_id,image_uri\n" + "".join(f"{line}\n" for line in lines[:bad])
    if lines[bad].endswith("y"):
        before += lines[bad][:-1]
    line = 1 + before.count("\n") + before.count("\r") - before.count("\r\n")
    said = fault(put(tmp_path, "m.csv", "item_id,image_uri\n" + "\n".join(lines) + "\n"))
    assert said.startswith(f"m.csv, line {line}: ")


def test_a_duplicate_column_of_parquet_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "m.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["1"])] * 3, names=["item_id", "image_uri", "item_id"]), file)
    assert "the column 'item_id' stands twice" in fault(str(file))


def test_parquet_text_that_is_not_utf8_names_its_rows(tmp_path: Path) -> None:
    file = tmp_path / "m.parquet"
    pq.write_table(pa.table({"item_id": [b"1"] * 5_000 + [b"\xff"], "image_uri": ["a"] * 5_001}), file)
    assert fault(str(file)).startswith("m.parquet, rows 4097 to 5001: ")


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    file = write_manifest(tmp_path / "m.parquet", [{"item_id": str(i), "image_uri": "a" * i} for i in range(500)])
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    assert fault(str(file)).startswith("cannot read m.parquet: ")
    file.write_bytes(whole[:100] + b"\0" * 200 + whole[300:])
    assert "m.parquet" in fault(str(file))


def test_a_column_to_keep_that_is_not_there(tmp_path: Path) -> None:
    manifest = Manifest.open(put(tmp_path, "m.csv", "id,image,brand\n1,a,x\n"))
    for read in (lambda: manifest.items(["colour"]), lambda: scan_manifest(manifest, 10, ["colour"], None)):
        with pytest.raises(UsageError, match="has no column colour; it has id, image, brand"):
            read()


def test_very_many_columns_are_not_all_listed(tmp_path: Path) -> None:
    said = fault(put(tmp_path, "m.csv", ",".join(f"c{i}" for i in range(3_000)) + "\n"))
    assert said.endswith("c19, and 2980 more")


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    assert "folder.csv is no file" in fault(str(tmp_path / "folder.csv"))
    assert "pipe.csv is no file" in fault(str(tmp_path / "pipe.csv"))
    assert fault(str(tmp_path / "none.csv")) == "there is no manifest none.csv"
    assert "Not a directory" in fault(put(tmp_path, "a.csv", "") + "/m.csv")


def test_a_manifest_that_may_not_be_read() -> None:
    code = (
        "import sys\nfrom tagger.source.manifest import Manifest\nfrom tagger.errors import ManifestError\n"
        f"{DROP_ROOT}\n"
        "try:\n    Manifest.open(sys.argv[1])\nexcept ManifestError as error:\n    print(error)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        file = put(Path(folder), "m.csv", "item_id,image_uri\n1,a\n")
        assert run_python(code, file).stdout == ""
        os.chmod(file, 0o000)
        assert run_python(code, file).stdout == f"cannot read {file}: Permission denied\n"


def test_a_scheme_without_a_driver_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"cannot read gopher://host/m\.csv: gopher:// is not supported here"):
        Manifest.open("gopher://host/m.csv")


# -- two passes ----------------------------------------------------------------------------------------------------


def both_passes(file: Path, change: bytes, shard_size: int = 10, keep: Sequence[str] = ()) -> list[Shard]:
    manifest = Manifest.open(str(file))
    scan = scan_manifest(manifest, shard_size, keep, None)
    file.write_bytes(change)
    return list(plan_shards(manifest, scan, shard_size, keep, None))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("rows", "shard_size", "limit"), [(25, 10, None), (20, 10, None), (600, 1, 9), (600, 10_000, None)]
)
def test_shards_hold_all_rows_in_order(
    tmp_path: Path, kind: str, rows: int, shard_size: int, limit: int | None
) -> None:
    table = [{"item_id": str(i), "image_uri": f"{i}.jpg", "n": None if i % 3 else str(i)} for i in range(rows)]
    manifest = Manifest.open(str(write_manifest(tmp_path / f"m.{kind}", table)))
    scan = scan_manifest(manifest, shard_size, ["n"], limit)
    shards = list(plan_shards(manifest, scan, shard_size, ["n"], limit))
    n = min(rows, limit or rows)
    assert scan.rows == n
    assert [shard.index for shard in shards] == list(range(-(-n // shard_size)))
    assert {len(shard.items) for shard in shards[:-1]} <= {shard_size}
    assert [item for shard in shards for item in shard.items] == list(manifest.items(["n"], limit))


HEADER = b"item_id,image_uri,brand\n"
ROWS = b"".join(b"%d,%d.jpg,x\n" % (i, i) for i in range(20))


@pytest.mark.parametrize(
    "change",
    [
        HEADER + ROWS + b"20,20.jpg,x\n",
        HEADER + ROWS[:-20],
        HEADER + b"".join(ROWS.splitlines(keepends=True)[:10]),
        HEADER + ROWS.replace(b"15.jpg", b"51.jpg"),
        HEADER + ROWS.replace(b"3,3.jpg", b"33,.jpg"),
        HEADER + ROWS.replace(b"15.jpg,x", b"15.jpg,y"),
        b"image_uri,item_id,brand\n" + ROWS,
        HEADER,
        b"",
    ],
    ids=["longer", "cut", "shorter", "edited", "moved", "kept-column", "header", "rows-gone", "emptied"],
)
def test_a_manifest_that_changes_between_the_passes_is_refused(tmp_path: Path, change: bytes) -> None:
    file = tmp_path / "m.csv"
    file.write_bytes(HEADER + ROWS)
    assert len(both_passes(file, HEADER + ROWS, keep=["brand"])) == 2
    with pytest.raises(ManifestError):
        both_passes(file, change, keep=["brand"])


def test_a_manifest_that_is_gone_at_the_second_pass(tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    file.write_bytes(HEADER + ROWS)
    manifest = Manifest.open(str(file))
    scan = scan_manifest(manifest, 10, (), None)
    file.unlink()
    with pytest.raises(ManifestError, match="there is no manifest"):
        list(plan_shards(manifest, scan, 10, (), None))


def test_a_manifest_that_grew_after_it_was_opened_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "m.csv"
    file.write_bytes(HEADER + ROWS)
    manifest = Manifest.open(str(file))
    manifest.digest()
    file.write_bytes(HEADER + ROWS + b"20,20.jpg,x\n")
    with pytest.raises(ManifestError, match="changed while the run was reading it"):
        scan_manifest(manifest, 10, (), None)


def test_a_parquet_file_with_other_columns_at_the_second_pass(tmp_path: Path) -> None:
    file = write_manifest(tmp_path / "m.parquet", [{"item_id": "1", "image_uri": "a"}])
    manifest = Manifest.open(str(file))
    write_manifest(file, [{"sku": "1", "image_uri": "a"}])
    with pytest.raises(ManifestError, match="changed while the run was reading it"):
        list(manifest.items())


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    one, two = put(tmp_path, "a.csv", HEADER + ROWS), put(tmp_path, "b.csv", HEADER + ROWS)
    assert Manifest.open(one).digest() == Manifest.open(two).digest()
    assert Manifest.open(one).digest() != Manifest.open(put(tmp_path, "b.csv", HEADER + ROWS + b"\n")).digest()


def test_a_long_manifest_does_not_fill_the_memory(tmp_path: Path) -> None:
    code = """
import resource, sys
from tagger.source.manifest import Manifest, plan_shards, scan_manifest
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
manifest = Manifest.open(sys.argv[1])
scan_manifest(manifest, 1_000, ["brand"], 5_000)
before = peak()
scan = scan_manifest(manifest, 1_000, ["brand"], None)
rows = sum(len(shard.items) for shard in plan_shards(manifest, scan, 1_000, ["brand"], None))
print(rows, peak() - before)
"""
    rows = b"".join(b"%08d,photos/%08d.jpg,%050d\n" % (i, i, i) for i in range(300_000))
    (tmp_path / "m.csv").write_bytes(HEADER + rows)
    (tmp_path / "m.csv.gz").write_bytes(gzip.compress(HEADER + rows, 1))
    numbers = pa.array(range(300_000)).cast(pa.string())
    columns = pa.table({"item_id": numbers, "image_uri": numbers, "brand": pa.array(["x" * 50] * 300_000)})
    pq.write_table(columns, tmp_path / "m.parquet", row_group_size=20_000, compression="none", use_dictionary=False)
    line = json.dumps({"item_id": "1", "image_uri": "photos/1.jpg", "brand": "x" * 50}) + "\n"
    (tmp_path / "m.jsonl").write_text(line * 100_000)
    for name, expected in (("m.csv", 300_000), ("m.csv.gz", 300_000), ("m.parquet", 300_000), ("m.jsonl", 100_000)):
        result = run_python(code, tmp_path / name)
        n, growth = map(int, result.stdout.split())
        assert n == expected
        assert growth < 12_000, name  # KiB; the rows themselves are 100 MB as Python objects


# -- any table, any bytes ------------------------------------------------------------------------------------------

cell = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
item_id = cell.filter(lambda text: text.strip())
table = st.lists(st.tuples(item_id, cell, cell), min_size=1, max_size=20)
hypothesis_settings = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def as_csv(rows: list[tuple[str, str, str]], delimiter: str, line_end: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_ALL)
    writer.writerows([("item_id", "image_uri", "kept"), *rows])
    return text.getvalue().encode()


@hypothesis_settings
@given(rows=table, line_end=st.sampled_from(["\n", "\r\n"]), shard_size=st.integers(1, 25))
def test_any_table_comes_back_as_it_was_written(
    tmp_path: Path, rows: list[tuple[str, str, str]], line_end: str, shard_size: int
) -> None:
    columns = ("item_id", "image_uri", "kept")
    sink = io.BytesIO()
    pq.write_table(pa.table(dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))), sink)
    escaped = random.Random(shard_size).random() < 0.5
    objects = [json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=escaped) for row in rows]
    written = {
        "m.csv": as_csv(rows, ",", line_end),
        "m.tsv": as_csv(rows, "\t", line_end),
        "m.jsonl": line_end.join(objects).encode(),
        "m.parquet": sink.getvalue(),
    }
    expected = [Item(i, *row[:2], (row[2],)) for i, row in enumerate(rows)]
    for name, data in written.items():
        manifest = Manifest.open(put(tmp_path, name, data))
        scan = scan_manifest(manifest, shard_size, ["kept"], None)
        shards = plan_shards(manifest, scan, shard_size, ["kept"], None)
        assert [item for shard in shards for item in shard.items] == expected


@hypothesis_settings
@given(data=st.binary(max_size=300), name=st.sampled_from(["csv", "tsv", "jsonl", "parquet", "csv.gz", "parquet.gz"]))
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes, name: str) -> None:
    head = {"c": b"item_id,image_uri\n", "t": b"item_id\timage_uri\n", "j": b'{"item_id": "1", "image_uri": ""}\n'}
    for start in (b"", head.get(name[0], b"PAR1")):
        body = gzip.compress(start + data) if name.endswith("gz") and start else start + data
        read_or_refused(put(tmp_path, f"m.{name}", body))


def read_or_refused(file: str) -> None:
    try:
        rows = items(file)
    except ManifestError as error:
        said = str(error)
    else:
        assert all(row.item_id.strip() for row in rows)
        return
    assert file in said


PARQUET = io.BytesIO()
pq.write_table(
    pa.table({"item_id": [str(i) for i in range(40)], "image_uri": [f"a{i}" * 5 for i in range(40)]}), PARQUET
)


@hypothesis_settings
@given(edits=st.lists(st.tuples(st.integers(0, len(PARQUET.getvalue()) - 1), st.integers(0, 255)), max_size=4))
def test_any_damage_to_a_parquet_file_is_read_or_refused(tmp_path: Path, edits: list[tuple[int, int]]) -> None:
    data = bytearray(PARQUET.getvalue())
    for position, byte in edits:
        data[position] = byte
    read_or_refused(put(tmp_path, "m.parquet", bytes(data)))


@hypothesis_settings
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    )
)
def test_any_json_value_is_an_id_or_refused(tmp_path: Path, value: Any) -> None:
    text = json.dumps({"item_id": value, "image_uri": value}) + "\n"
    read_or_refused(put(tmp_path, "m.jsonl", text))
