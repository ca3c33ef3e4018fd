"""What a stranger may send, and what must come of it: read, or refused in the way that is documented, and nothing else.

`test_fuzz_targets.py` tries some of every kind; `make fuzz` many more. A target takes a folder of its own and an
example; it returns 'read' or 'refused', and raises where something else happened.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fakes import draw_photo, read_tags, tag, write_manifest
from hypothesis import strategies as st
from source.image_corpus import corpus

from tagger.errors import DecisionsError, ImageError, ManifestError, SchemaError, UsageError
from tagger.ledger import Ledger
from tagger.model.bundle import load_bundle, save_dummy_bundle
from tagger.review.decisions import apply_decisions
from tagger.schema import Schema, load_schema, parse_schema, schema_from_dict
from tagger.source.decode import decode
from tagger.source.manifest import Manifest, plan_shards, scan_manifest
from tagger.tagging.run import RunOptions, run_tagging
from tagger.training.data import read_labels

Example = tuple[str, bytes]  # how a file's name ends, its bytes


@dataclass(frozen=True)
class Target:
    """One kind of input."""

    examples: st.SearchStrategy[Example]
    check: Callable[[Path, str, bytes], str]  # own folder, ending, bytes → 'read' or 'refused'


# -- bytes ------------------------------------------------------------------------------------------------------------

_TOKENS = [
    *(b'"', b",", b"\t", b"\r", b"\n", b"\r\n", b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\xc3", b"|"),
    *(b"{", b"}", b"[", b"]", b":", b"\\", b"\\u0000", b"\\ud800", b"null", b"NaN", b"1e999", b"-1", b"true", b"=1+1"),
    *(b"item_id", b"image_uri", b"sku", b"../", b"/", b"file://", b"s3://", b"http://", b"%00", b"*" * 300, b" "),
    *(b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4), b"9" * 40, b"\xe2\x80\xa8", b"0"),
]  # fmt: skip


def _damaged(random: Random, good: Sequence[Example]) -> Example:
    """A good file with some edits, or now and then anything at all."""
    ending, whole = random.choice(good)
    if random.random() < 0.05:
        return ending, random.randbytes(random.randrange(200))
    packed = ending.endswith(".gz") and random.random() < 0.5
    data = bytearray(gzip.decompress(whole) if packed else whole)
    for _ in range(random.choice((0, 1, 1, 1, 1, 2, 2, 3, 5))):
        _edit(data, random)
    return ending, gzip.compress(bytes(data), 1) if packed else bytes(data)


def _edit(data: bytearray, random: Random) -> None:
    """One edit, half of them near the start."""
    at = random.randint(0, min(len(data), 120) if random.random() < 0.5 else len(data))
    how = random.choice(("flip", "set", "token", "over", "cut", "double", "end"))
    if how == "flip" and at < len(data):
        data[at] ^= 1 << random.randrange(8)
    elif how == "set" and at < len(data):
        data[at] = random.randrange(256)
    elif how in ("token", "over"):
        token = random.choice(_TOKENS)
        data[at : at + (len(token) if how == "over" else 0)] = token
    elif how == "cut":
        del data[at : at + random.randint(1, 60)]
    elif how == "double":
        data[at:at] = data[at : at + random.randint(1, 60)]
    elif how == "end":
        del data[at:]


def _of(good: Callable[[], Sequence[Example]]) -> st.SearchStrategy[Example]:
    """Damaged ones of the good files. One number makes an example: drawing every edit costs more than trying it."""
    return st.integers(0, 2**63).map(lambda number: _damaged(Random(number), good()))


_ROWS = [
    {"item_id": "00123", "image_uri": "photos/1.jpg", "category": "top", "colour": "black|grey", "split": "train"},
    {"item_id": "1E5", "image_uri": 'https://shop/"a",b.jpg?sig=x', "category": "", "colour": "", "split": ""},
    {"item_id": "한글 줄", "image_uri": "", "category": "dress", "colour": "white", "split": "test"},
    {"item_id": "=1+1", "image_uri": "/no/such.png", "category": "shoes", "colour": "red", "split": "val"},
]


@cache
def _tables() -> list[Example]:
    examples = []
    for ending in ("csv", "tsv", "jsonl", "parquet", "csv.gz", "jsonl.gz"):
        examples.append((ending, _bytes_of(ending)))
    return examples


def _bytes_of(ending: str) -> bytes:
    plain, names = ending.removesuffix(".gz"), list(_ROWS[0])
    if plain == "parquet":
        sink = io.BytesIO()
        pq.write_table(pa.table({name: [row[name] for row in _ROWS] for name in names}), sink)
        return sink.getvalue()
    if plain == "jsonl":
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in _ROWS).encode()
    else:
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter="\t" if plain == "tsv" else ",")
        writer.writerows([names, *(list(row.values()) for row in _ROWS)])
        data = text.getvalue().encode()
    return gzip.compress(data, 1) if ending.endswith(".gz") else data


def _put(folder: Path, ending: str, data: bytes) -> str:
    path = folder / f"example.{ending}"
    path.write_bytes(data)
    return str(path)


def refused(error: Exception, name: str, nothing_at: Path | None = None) -> str:
    """'refused', for an error that says what it is about and left nothing behind."""
    assert name in str(error)
    assert nothing_at is None or not nothing_at.exists()
    return "refused"


def refused_photo(error: ImageError) -> str:
    """'refused', for an error that a decoder may give."""
    assert error.kind not in ("decoder_crashed", "io_error")
    assert 0 < len(error.detail) < 300
    return "refused"


# -- manifests and labels ---------------------------------------------------------------------------------------------

SHARD_SIZE = 3


def check_manifest(folder: Path, ending: str, data: bytes) -> str:
    """Both passes agree on every row, and an error names the file."""
    file = _put(folder, ending, data)
    try:
        manifest = Manifest.open(file)
        scan = scan_manifest(manifest, SHARD_SIZE, (), None)
    except ManifestError as error:
        return refused(error, file)
    items = [item for shard in plan_shards(manifest, scan, SHARD_SIZE, (), None) for item in shard.items]
    assert [item.row for item in items] == list(range(scan.rows))
    assert all(item.item_id.strip() for item in items)
    return "read"


def check_run(folder: Path, ending: str, data: bytes) -> str:
    """A whole run over the manifest: a row for every row, or exit code 2."""
    file, out = _put(folder, ending, data), folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    options = {"shard_size": SHARD_SIZE, "batch_size": 2, "root": str(folder)}
    try:
        rows = tag(file, _bundle(folder), out, **options).summary["rows"]
    except ManifestError as error:
        return refused(error, file, nothing_at=out)
    found = read_tags(out)
    assert [row["row"] for row in found] == list(range(rows))
    assert [row["item_id"] for row in found] == [item.item_id for item in Manifest.open(file).items()]
    assert (out / "_SUCCESS").exists()
    return "read"


def check_labels(folder: Path, ending: str, data: bytes) -> str:
    """Labels come whole, or an error says where they do not."""
    file = _put(folder, ending, data)
    try:
        labels = read_labels([file], _schema())
    except UsageError as error:
        return refused(error, file)
    assert len(labels) == len(labels.allowed) == len(labels.groups)
    return "read"


@cache
def _schema() -> Schema:
    return load_schema("apparel")


def _bundle(folder: Path) -> str:
    bundle = folder / "bundle"
    if not bundle.exists():
        save_dummy_bundle(_schema(), str(bundle), 16)
    return str(bundle)


# -- photos -----------------------------------------------------------------------------------------------------------


@cache
def _photos() -> list[Example]:
    return [("jpg", case.data) for case in corpus() if len(case.data) < 20_000]


def check_photo(folder: Path, ending: str, data: bytes) -> str:
    """Pixels of the right shape, or one of the contract's kinds."""
    try:
        decoded = decode(data, 32)
    except ImageError as error:
        return refused_photo(error)
    assert decoded.pixels.shape == (32, 32, 3)
    assert decoded.width > 0
    assert decoded.height > 0
    return "read"


def check_photos_of_a_run(folder: Path, photos: list[bytes]) -> dict[str, int]:
    """A run over all these photos: a row for each, in order, of the outcome that each has alone; outcome → rows."""
    shutil.rmtree(folder / "photos", ignore_errors=True)
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "photos").mkdir()
    expected, rows = [], []
    for number, data in enumerate(photos):
        (folder / "photos" / f"{number}.jpg").write_bytes(data)
        rows.append({"item_id": str(number), "image_uri": f"photos/{number}.jpg"})
        try:
            decode(data, 16)
            expected.append("ok")
        except ImageError as error:
            expected.append(error.kind)
    manifest = write_manifest(folder / "photos.csv", rows)
    tag(manifest, _bundle(folder), folder / "out", shard_size=200)
    found = read_tags(folder / "out")
    assert [row["item_id"] for row in found] == [row["item_id"] for row in rows]
    assert [row["error_kind"] or "ok" for row in found] == expected
    return {kind: expected.count(kind) for kind in sorted(set(expected))}


# -- schemas and bundles ----------------------------------------------------------------------------------------------

_SMALL = """name: small
attributes:
  - name: category
    names: {en: Category, ko: 종류}
    values: [trousers, shoes, {name: top, names: {en: Top}, synonyms: {en: [shirt, tee]}}]
  - name: sleeve
    applies_to: {category: [top]}
    values: [short, long]
"""


def check_schema(folder: Path, ending: str, data: bytes) -> str:
    """A schema that holds together, or one sentence."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    try:
        schema = parse_schema(text, "my.yaml")
    except SchemaError:
        return "refused"
    assert schema_from_dict(schema.to_dict(), "again") == schema
    return "read"


@cache
def _description() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        save_dummy_bundle(parse_schema(_SMALL, "small"), folder, 16)
        return Path(folder, "bundle.json").read_bytes()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def _descriptions(draw: st.DrawFn) -> Example:
    """bundle.json with a value somewhere in it exchanged for another, and now and then an edit of its bytes."""
    if draw(st.integers(0, 3)) == 0:
        return draw(_of(lambda: [("json", _description())]))
    whole: Any = json.loads(_description())
    place, key = whole, draw(st.sampled_from(sorted(whole)))
    while isinstance(place[key], dict | list) and place[key] and draw(st.booleans()):
        place = place[key]
        key = draw(st.sampled_from(sorted(place)) if isinstance(place, dict) else st.integers(0, len(place) - 1))
    place[key] = draw(_JSON)
    return "json", json.dumps(whole).encode()


def check_bundle(folder: Path, ending: str, data: bytes) -> str:
    """A bundle that a run can use, or one that is refused before anything is written."""
    bundle, out = folder / "damaged", folder / "out"
    bundle.mkdir(exist_ok=True)
    (bundle / "bundle.json").write_bytes(data)
    try:
        load_bundle(str(bundle))
    except UsageError as error:
        return refused(error, str(bundle))
    photo = folder / "photo.png"
    if not photo.exists():
        draw_photo(photo)
        write_manifest(folder / "photo.csv", [{"item_id": "1", "image_uri": "photo.png"}])
    shutil.rmtree(out, ignore_errors=True)
    options = RunOptions(str(folder / "photo.csv"), str(out), str(bundle), "cpu", 2, 1, max_failed=1.0)
    try:
        run_tagging(options, threading.Event())
    except UsageError:  # such as a bundle without the default target
        return "refused"
    (row,) = read_tags(out)
    assert row["status"] == "ok"
    return "read"


# -- decisions --------------------------------------------------------------------------------------------------------

_REVIEW = (
    "item_id,image_sha256,attribute,prediction,value,action,reviewer,decided_at,exported_at\r\n"
    '00123,,category,top,dress,,anna,2026-01-31T09:30:00Z,\r\n"\'=1+1",,colour,black,,reject,,,\r\n'
    "한글,,category,top,,not_applicable,,,\r\n1E5,,sleeve_length,long,,,,,\r\n00123,,colour,red,,clear,,,\r\n"
).encode("utf-8-sig")
_LEDGER = b"".join(
    json.dumps(
        {
            "decision_id": f"{n:024x}",
            "item_id": "00123",
            "image_sha256": "a" * 64,
            "attribute": "category",
            "action": action,
            "value": value,
            "model_value": None,
            "bundle_id": "b" * 16,
            "reviewer": "anna",
            "decided_at": "2026-01-31T09:30:00Z",
        }
    ).encode()
    + b"\n"
    for n, (action, value) in enumerate([("set", "top"), ("reject", "dress"), ("clear", None)])
)


def check_decisions(folder: Path, ending: str, data: bytes) -> str:
    """Applied whole, or nothing of it."""
    out, ledger = folder / "reviewed", folder / "ledger"
    if not out.exists():
        draw_photo(folder / "photo.png")
        rows = [{"item_id": name, "image_uri": "photo.png"} for name in ("00123", "=1+1", "한글", "1E5")]
        tag(write_manifest(folder / "reviewed.jsonl", rows), _bundle(folder), out)
    shutil.rmtree(ledger, ignore_errors=True)
    file = _put(folder, ending, data)
    try:
        applied = apply_decisions(str(out), file, "anna", str(ledger))
    except DecisionsError as error:
        return refused(error, file, nothing_at=ledger)
    assert len(list(ledger.glob("*"))) == (applied.file is not None)
    Ledger.read(str(ledger))
    return "read"


def check_ledger(folder: Path, ending: str, data: bytes) -> str:
    """Read whole, or an error that names the file."""
    ledger = folder / "read"
    ledger.mkdir(exist_ok=True)
    (ledger / "20260131T093000.000000Z-0123456789ab.jsonl").write_bytes(data)
    try:
        Ledger.read(str(ledger))
    except DecisionsError as error:
        return refused(error, "20260131T093000")
    return "read"


TARGETS = {
    "manifests": Target(_of(_tables), check_manifest),
    "runs": Target(_of(_tables), check_run),
    "labels": Target(_of(_tables), check_labels),
    "photos": Target(_of(_photos), check_photo),
    "schemas": Target(_of(lambda: [("yaml", _SMALL.encode())]), check_schema),
    "bundles": Target(_descriptions(), check_bundle),
    "decisions": Target(_of(lambda: [("csv", _REVIEW)]), check_decisions),
    "ledgers": Target(_of(lambda: [("jsonl", _LEDGER)]), check_ledger),
}
