"""Feeds: golden files, the rules of each target one by one, hostile texts, and 10,000 products out and back."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from catalog.feed_shop import Thing, write_out
from review.shop import FORMULA, HOSTILE, command, read_csv
from review.small import word

from tagger.catalog.export.feeds import FeedOptions, Product, Report, fault_of_text
from tagger.catalog.export.google import Columns, fault_of_colour, fault_of_detail, write_google
from tagger.catalog.export.shopify import CATEGORIES, KEYS_OF_ATTRIBUTE, METAFIELDS, write_shopify
from tagger.errors import UsageError
from tagger.ledger import append
from tagger.schema import Schema, load_schema, parse_schema
from tagger.spreadsheet import quote

GOLDEN = Path(__file__).with_name("golden")
FORMATS = {"csv": "products.csv", "jsonl": "products.jsonl", "shopify": "shopify.csv", "google": "google.tsv"}

DRESS = {
    "category": "dress",
    "pattern": "floral",
    "colour": "navy",
    "sleeve_length": "three-quarter",
    "neckline": "v-neck",
    "closure": "none",
    "length": "full",
    "age_group": "adult",
    "gender": "women",
    "occasion": "formal",
}
THINGS = [
    Thing("dress-1", DRESS, kept={"Title": "Long dress, navy", "Tags": "summer, Sale"}),
    Thing(
        "jeans-2",
        {"category": "pants", "colour": "blue", "bottom_style": "jeans", "leg_shape": "flare", "length": "midi"},
        kept={"Title": 'The "Flare"', "Product Category": "Apparel & Accessories > Clothing > Pants > Jeans"},
    ),
    Thing(
        "tee-3", {"category": "t-shirt", "colour": "multi", "pattern": "other", "neckline": "high"}, kept={"Title": "T"}
    ),
    Thing("unsure-4", {}, {"category": "dress", "colour": "red"}, kept={"Title": "Unsure"}),
    Thing("top-5", {"colour": "grey"}, {"category": "top"}, kept={"Title": "무지 티셔츠", "Handle": "top-five"}),
    Thing(
        "kids-6", {"category": "shorts", "age_group": "kids", "gender": "men", "length": "knee"}, kept={"Title": "K"}
    ),
    Thing("no-title-7", {"category": "skirt", "colour": "red"}),
    Thing("A.1", {"category": "hat", "colour": "black"}, kept={"Title": "Hat"}),
    Thing("again-8", {"category": "hat", "colour": "black"}, kept={"Title": "Hat", "Handle": "DRESS-1"}),
]
KEEP = ("Title", "Tags", "Handle", "Product Category")


@pytest.fixture(scope="module")
def out(apparel: Schema, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_out(tmp_path_factory.mktemp("feeds") / "out", apparel, THINGS, KEEP)


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("language", ["en", "ko"])
def test_every_format_writes_its_golden_file(out: Path, tmp_path: Path, format_name: str, language: str) -> None:
    golden = GOLDEN / language / FORMATS[format_name]
    file, report = tmp_path / golden.name, tmp_path / "report.jsonl"
    options = ["--report", report] if format_name in ("shopify", "google") else []
    result = command("export", out, "--format", format_name, "--language", language, "--output", file, *options)
    assert (result.exit_code, result.stdout) == (0, "")
    assert file.read_bytes() == golden.read_bytes()
    shown = command("export", out, "--format", format_name, "--language", language)
    assert shown.stdout_bytes == golden.read_bytes()
    if options:
        assert report.read_bytes() == golden.with_suffix(".report.jsonl").read_bytes()


def test_standard_error_counts_what_the_report_lists(out: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    said = command("export", out, "--format", "shopify", "--report", report, "--output", tmp_path / "a.csv").stderr
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert sum(int(n.replace(",", "")) for n in re.findall(r"left out ([\d,]+) ×", said)) == len(lines)
    assert {line["reason"] for line in lines} == set(re.findall(r"left out [\d,]+ × [^:]+: (.*)", said))
    assert "5 products in" in said


def test_values_in_review_are_handed_on_only_when_asked_for(out: Path) -> None:
    sure = command("export", out, "--format", "google").stdout
    everything = command("export", out, "--format", "google", "--include-review").stdout
    assert "unsure-4\t" not in sure
    assert re.search(r"^unsure-4\tRed\t", everything, re.MULTILINE)


def test_a_persons_word_is_in_the_feed(out: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    photos = {"unsure-4": f"{3:064x}", "dress-1": f"{0:064x}"}
    words = [
        word("set", "colour", value, item, photos[item]) for item, value in (("unsure-4", "green"), ("dress-1", "pink"))
    ]
    append(str(ledger), words)
    lines = command("export", out, "--format", "google", "--decisions", ledger).stdout.splitlines()
    colours = {line.split("\t")[0]: line.split("\t")[1] for line in lines}
    assert (colours["unsure-4"], colours["dress-1"]) == ("Green", "Pink")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--format", "csv", "--report", "r"], "--report is for --format shopify and google; csv leaves nothing out"),
        (["--format", "google", "--report", "-"], "would mix on standard output"),
        (["--format", "google", "--output", "f.tsv", "--report", "./f.tsv"], "feed and --report would both be ./f.tsv"),
        (["--format", "google", "--limit", "3"], "--limit is for --format html"),
    ],
)
def test_options_that_do_not_go_together(
    out: Path, options: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=sentence):
        command("export", out, *options)
    assert list(tmp_path.iterdir()) == []


def test_shopify_is_told_of_a_missing_title(apparel: Schema, tmp_path: Path) -> None:
    out = write_out(tmp_path / "out", apparel, [Thing("a", {"category": "hat"})])
    result = command("export", out, "--format", "shopify")
    assert result.stdout.splitlines()[0].startswith("Handle,Product Category,Tags,")
    assert "no column Title" in result.stderr


def test_shopify_is_told_of_a_file_that_is_too_large(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "shopify.csv"
    assert "split it" not in command("export", out, "--format", "shopify", "--output", file).stderr
    monkeypatch.setattr("tagger.catalog.export.shopify.MAX_BYTES", file.stat().st_size - 1)
    said = command("export", out, "--format", "shopify", "--output", file).stderr
    assert "Shopify imports up to 15 MB: split it" in said
    assert "15 MB" not in command("export", out, "--format", "google", "--output", file).stderr


# -- the rules, one by one -------------------------------------------------------------------------------------------


def google(schema: Schema, item_id: str, tags: Mapping[str, str], language: str = "en") -> tuple[list[str], Report]:
    """(cells of the line, or nothing, what was left out)."""
    output, report = io.BytesIO(), Report()
    write_google([Product(item_id, tags, {})], schema, (), FeedOptions(language), output, report)
    lines = output.getvalue().decode().splitlines()
    return lines[1].split("\t") if len(lines) > 1 else [], report


def shopify(
    schema: Schema, item_id: str, tags: Mapping[str, str], kept: Mapping[str, str] | None = None
) -> tuple[dict[str, str], Report]:
    """(header → cell, or nothing, what was left out)."""
    output, report = io.BytesIO(), Report()
    columns = tuple(kept or ())
    write_shopify([Product(item_id, tags, kept or {})], schema, columns, FeedOptions(), output, report)
    lines = list(csv.DictReader(io.StringIO(output.getvalue().decode(), newline=""), strict=True))
    return lines[0] if lines else {}, report


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Black", None),
        ("Orange Mango Explosion", None),
        ("Red/Green/Black", None),
        ("검", None),
        ("x" * 40, None),
        ("x" * 41, "a colour has 1 to 40 characters"),
        ("/".join(["x" * 33] * 3), "longer than 100 characters"),
        ("Red/Green/Black/White", "more than 3 colours"),
        ("Red/", "a colour has 1 to 40 characters"),
        ("Red,Green", "colours are joined by '/', not by commas"),
        ("Multicoloured", "names no colour"),
        ("Red/various", "names no colour"),
        ("see image", "names no colour"),
        ("#fff000", "a number or a code is no colour"),
        ("42", "a number or a code is no colour"),
        ("R", "a single letter is no colour"),
        ('7" red', "holds a quote mark"),
        ("red\tblue", "holds control, direction or private characters"),
    ],
)
def test_google_colour(text: str, fault: str | None) -> None:
    assert fault_of_colour(text) == fault


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("Sleeve", "Short", None),
        ("n" * 140, "v" * 1000, None),
        ("n" * 141, "v", "longer than 140 characters"),
        ("n", "v" * 1001, "longer than 1000 characters"),
        ("a:b", "v", "holds a colon or a comma, which separate product details"),
        ("n", "a,b", "holds a colon or a comma, which separate product details"),
        ("n", 'a"b', "holds a quote mark"),
    ],
)
def test_google_product_detail(name: str, text: str, fault: str | None) -> None:
    assert fault_of_detail(name, text, "v") == fault


@pytest.mark.parametrize(("length", "taken"), [(1, True), (50, True), (51, False)])
def test_google_ids_have_at_most_50_characters(apparel: Schema, length: int, taken: bool) -> None:
    cells, report = google(apparel, "i" * length, {"colour": "red"})
    assert (bool(cells), bool(report.counts)) == (taken, not taken)


@pytest.mark.parametrize("item_id", [HOSTILE, FORMULA, "a\tb", "a\u202eb", "a\0b", " a", 'a"b', "a\ue000b", "a\nb"])
def test_google_ids_without_what_breaks_a_text_file(apparel: Schema, item_id: str) -> None:
    cells, report = google(apparel, item_id, {"colour": "red"})
    assert cells == []
    assert [field for field, _ in report.counts] == [""]


def test_google_gender_and_age_group_are_english_words_in_any_language(apparel: Schema) -> None:
    tags = {"gender": "women", "age_group": "kids", "colour": "red", "pattern": "stripe"}
    header = Columns.of(apparel).header
    cells, _ = google(apparel, "a", tags, "ko")
    line = dict(zip(header, cells, strict=True))
    assert (line["gender"], line["age_group"], line["color"], line["pattern"]) == ("female", "kids", "빨강", "줄무늬")


def test_google_values_of_any_schema() -> None:
    """A user's schema: words that Google knows by another name, and some that it does not know."""
    schema = parse_schema(
        """
name: own
attributes:
  - {name: kind, values: [shirt, socks]}
  - {name: color, values: [Red/White, {name: mix, names: {en: "Red, white"}}]}
  - {name: gender, values: [{name: f, names: {en: Women}}, {name: u, synonyms: {en: [unisex]}}, {name: other}]}
  - {name: age_group, values: [toddler, seniors]}
  - {name: material, values: [wool, silk]}
  - {name: cuff, names: {en: "Cuff: type"}, applies_to: {kind: [shirt]}, values: [plain, french]}
  - {name: collar, applies_to: {kind: [shirt]}, values: [button-down, other]}
""",
        "own",
    )
    assert Columns.of(schema).header == ("id", "color", "gender", "age_group", "product_detail")
    everything = {"kind": "shirt", "material": "wool", "cuff": "plain", "collar": "button-down"}
    cells, report = google(schema, "a", everything | {"color": "Red/White", "gender": "f", "age_group": "toddler"})
    assert cells == ["a", "Red/White", "female", "toddler", "General:collar:button-down"]
    assert [field for field, _ in report.counts] == ["product_detail cuff"]
    cells, report = google(schema, "a", {"color": "mix", "gender": "u", "age_group": "seniors", "collar": "other"})
    assert cells == ["a", "", "unisex", "", ""]
    assert sorted(field for field, _ in report.counts) == ["age_group", "color", "product_detail collar"]
    cells, _ = google(schema, "a", {"gender": "other", "kind": "socks"})
    assert cells == []


@pytest.mark.parametrize(
    ("handle", "taken"),
    [
        ("womens-snowboard", True),
        ("123", True),
        ("h" * 255, True),
        ("h" * 256, False),
        ("a b", False),
        ("a.b", False),
        ("a_b", False),
        ("é", False),
        ("검정", False),
        ("-x", False),
        (FORMULA, False),
        (HOSTILE, False),
        ("a\n", False),
    ],
)
def test_shopify_handles(apparel: Schema, handle: str, taken: bool) -> None:
    for item_id, kept in ((handle, {}), ("item", {"handle": handle})):
        line, report = shopify(apparel, item_id, {"category": "hat"}, kept)
        assert line.get("Handle") == (handle if taken else None)
        assert ("Handle" in {field for field, _ in report.counts}) != taken


@pytest.mark.parametrize(
    ("title", "taken"),
    [("Hat", True), ("t" * 255, True), ("t" * 256, False), ("", False), ("=1+1", False), ("a\u202eb", False)],
)
def test_shopify_titles(apparel: Schema, title: str, taken: bool) -> None:
    line, report = shopify(apparel, "a", {"category": "hat"}, {"title": title})
    assert line.get("Title") == (title if taken else None)
    assert ("Title" in {field for field, _ in report.counts}) != taken


def test_shopify_metafields_belong_to_a_category(apparel: Schema) -> None:
    line, report = shopify(apparel, "a", {"colour": "red", "sleeve_length": "short"})
    assert line["Product Category"] == line["Color (product.metafields.shopify.color-pattern)"] == ""
    assert line["Tags"] == "Red, Short sleeve"
    assert {reason for _, reason in report.counts} == {"a metafield needs a sure product category; it is a tag only"}
    line, report = shopify(apparel, "a", {"category": "skirt", "colour": "red", "sleeve_length": "short"})
    assert line["Color (product.metafields.shopify.color-pattern)"] == "red"
    assert line["Sleeve length type (product.metafields.shopify.sleeve-length-type)"] == ""
    assert [field for field, _ in report.counts] == ["sleeve_length"]


@pytest.mark.parametrize(
    ("category", "length", "key", "handle"),
    [
        ("dress", "full", "skirt-dress-length-type", "maxi"),
        ("skirt", "mini", "skirt-dress-length-type", "mini"),
        ("pants", "full", "pants-length-type", "long"),
        ("pants", "midi", "pants-length-type", "cropped"),
        ("shorts", "mini", None, None),
    ],
)
def test_shopify_lengths_go_where_the_category_has_them(
    apparel: Schema, category: str, length: str, key: str | None, handle: str | None
) -> None:
    line, report = shopify(apparel, "a", {"category": category, "length": length})
    headers = {METAFIELDS[k].header: k for k in KEYS_OF_ATTRIBUTE["length"]}
    assert {k: line[name] for name, k in headers.items() if line[name]} == ({key: handle} if key else {})
    assert bool(report.counts) == (key is None)


def test_shopify_the_shops_own_cells_stay_where_no_tag_fills_them(apparel: Schema) -> None:
    colour = "Color (product.metafields.shopify.color-pattern)"
    kept = {
        "TITLE": "T",
        "Tags": "Red,sale ,  new",
        "Product Category": "Apparel & Accessories > Shoes",
        colour: "gold",
    }
    line, _ = shopify(apparel, "a", {"category": "hat", "colour": "red"}, kept)
    assert (line["Title"], line["Tags"]) == ("T", "Red, sale, new, Hat")
    assert (line["Product Category"], line[colour]) == ("Apparel & Accessories > Shoes", "red")
    line, _ = shopify(apparel, "a", {"category": "hat"}, kept)
    assert line[colour] == "gold"


def test_shopify_metafields_follow_the_shops_own_category(apparel: Schema) -> None:
    kept = {"Product Category": "Apparel & Accessories > Clothing > Dresses > Wrap Dresses"}
    line, report = shopify(apparel, "a", {"sleeve_length": "short", "gender": "women"}, kept)
    assert line["Product Category"] == kept["Product Category"]
    assert line["Sleeve length type (product.metafields.shopify.sleeve-length-type)"] == "short"
    assert list(report.counts) == [("gender", "no such metafield is known of Wrap Dresses; it is a tag only")]
    line, report = shopify(apparel, "a", {"colour": "red"}, {"Product Category": "Home & Garden"})
    assert line["Color (product.metafields.shopify.color-pattern)"] == ""
    assert list(report.counts) == [("colour", "no such metafield is known of Home & Garden; it is a tag only")]


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("Tags", "sale, =1+1"),
        ("Tags", "t" * 256),
        ("Product Category", "Apparel\u202e"),
        ("Neckline (product.metafields.shopify.neckline)", "@crew"),
    ],
)
def test_shopify_a_product_whose_own_cells_the_file_cannot_hold_is_left_out(
    apparel: Schema, column: str, cell: str
) -> None:
    """Else the import would take them from the store."""
    line, report = shopify(apparel, "a", {"category": "dress"}, {column: cell})
    assert line == {}
    assert [field for field, _ in report.counts] == [column]


def test_shopify_tags(apparel: Schema) -> None:
    own = ",".join(f"tag {i}" for i in range(249))
    line, report = shopify(apparel, "a", {"category": "hat", "colour": "red"}, {"Tags": own})
    assert len(line["Tags"].split(", ")) == 250
    assert ("Tags colour", "more than 250 tags") in report.counts
    schema = parse_schema(
        f"name: own\nattributes: [{{name: use, values: ['a, b', '{'x' * 256}', '{'y' * 255}', other]}}]", "own"
    )
    for value, reason in (("a, b", "holds a comma, which separates tags"), ("x" * 256, "longer than 255 characters")):
        line, report = shopify(schema, "a", {"use": value})
        assert (line["Tags"], list(report.counts)) == ("", [("Tags use", reason)])
    assert shopify(schema, "a", {"use": "y" * 255})[0]["Tags"] == "y" * 255
    assert list(shopify(schema, "a", {"use": "other"})[1].counts) == [("Tags use", "says nothing")]


def test_shopify_the_womens_schema_has_categories_and_metafields_too() -> None:
    schema = load_schema("womens-32")
    line, _ = shopify(schema, "a", {"garment": "top", "top_type": "blouse", "neck_detail": "v-neck"})
    assert line["Product Category"] == "Apparel & Accessories > Clothing > Clothing Tops > Blouses"
    assert line["Neckline (product.metafields.shopify.neckline)"] == "v-neck"
    line, _ = shopify(schema, "a", {"garment": "bottom", "bottom_class": "trousers", "length": "full"})
    assert line["Product Category"] == "Apparel & Accessories > Clothing > Pants"
    assert line["Pants length type (product.metafields.shopify.pants-length-type)"] == "long"


def test_every_category_of_the_shipped_schema_but_two_is_in_the_taxonomy(apparel: Schema) -> None:
    """`other` says nothing; `undershirt` is found by its synonym, tank top."""
    missing = {value.name for value in apparel.by_name["category"].values if value.name not in CATEGORIES}
    assert missing == {"other", "undershirt"}
    line, _ = shopify(apparel, "a", {"category": "undershirt"})
    assert line["Product Category"].endswith("> Tank Tops")
    line, report = shopify(apparel, "a", {"category": "other", "colour": "red"})
    assert line["Product Category"] == ""
    assert ("Product Category", "no node of Shopify's taxonomy is known for it") in report.counts


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("plain", None),
        ("검정 원피스", None),
        ("\ud800", "holds control, direction or private characters"),
        ("a\u2028b", "holds control, direction or private characters"),
        ("a\u200fb", "holds control, direction or private characters"),
        ("a ", "begins or ends with a blank"),
        ("@a", "begins like a formula, which a spreadsheet would run"),
    ],
)
def test_texts_that_no_feed_can_hold(text: str, fault: str | None) -> None:
    assert fault_of_text(text, 10 if text != "plain" else 5) == fault


# -- out and back ----------------------------------------------------------------------------------------------------

IDS = [
    FORMULA,
    HOSTILE,
    "'=quoted",
    '"',
    '""",',
    "a\r\nb",
    "a\rb",
    "tab\there",
    "bidi \u202e\u2066",
    "line\u2028ends\x85",
    "long " + "x" * 40_000,
    "NaN",
    "null",
    "00123",
    "1E5",
    "\ufeffbom",
    "🧥👗",
]


def catalogue(schema: Schema, n: int) -> list[Thing]:
    """`n` products, every value of every attribute among them, the hostile ids in front."""
    things = []
    for i in range(n):
        tags = {a.name: a.value_names[i % len(a.values)] for a in schema.attributes if i % 3 or a.parent is None}
        item_id = IDS[i] if i < len(IDS) else f"item-{i}"
        things.append(Thing(item_id, tags, kept={"Title": f"Title {i}", "Tags": "own, tags"}))
    return things


@pytest.fixture(scope="module")
def large(apparel: Schema, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUT of 10,000 products, and every format of it beside."""
    folder = tmp_path_factory.mktemp("large")
    write_out(folder / "out", apparel, catalogue(apparel, 10_000), ("Title", "Tags"))
    for name in (*FORMATS, "parquet"):
        report = ["--report", folder / f"{name}.report"] if name in ("shopify", "google") else []
        result = command("export", folder / "out", "--format", name, "--output", folder / name, *report)
        assert result.exit_code == 0, result.stderr
    return folder


def test_ten_thousand_products_come_back_the_same_from_every_table(large: Path, apparel: Schema) -> None:
    rows = pq.read_table(large / "parquet").to_pylist()
    assert len(rows) == 10_000
    assert [row["item_id"] for row in rows[: len(IDS)]] == IDS
    things = catalogue(apparel, 10_000)
    for row, thing in zip(rows, things, strict=True):
        for attribute in apparel.attributes:
            if attribute.parent is None:
                assert row[attribute.name] == thing.tags[attribute.name]
            elif thing.tags["category"] not in attribute.parent_values:
                assert row[attribute.name] is None
            else:
                assert row[attribute.name] == thing.tags.get(attribute.name)
    lines = [json.loads(line) for line in (large / "jsonl").read_text("utf-8").splitlines()]
    listed = [line | {name: "; ".join(line[name]) for name in ("review_reasons", "search_words")} for line in lines]
    assert listed == rows

    def shown(cell: Any) -> str:
        return "" if cell is None else str(cell).lower() if isinstance(cell, bool) else str(cell)

    cells = read_csv((large / "csv").read_bytes())
    assert cells == [{name: shown(cell) for name, cell in row.items()} for row in rows]


def test_ten_thousand_products_come_back_from_the_feeds_or_are_in_the_report(large: Path) -> None:
    rows = {row["item_id"]: row for row in pq.read_table(large / "parquet").to_pylist()}
    for name, delimiter, key in (("shopify", ",", "Handle"), ("google", "\t", "id")):
        text = (large / name).read_bytes().decode()
        assert not text.startswith("\ufeff")
        assert "\r" not in text
        quoting = csv.QUOTE_MINIMAL if name == "shopify" else csv.QUOTE_NONE
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
        lines = {line[key]: line for line in reader}
        assert all(None not in line and None not in line.values() for line in lines.values())
        report = [json.loads(line) for line in (large / f"{name}.report").read_text().splitlines()]
        without = {line["item_id"] for line in report if line["field"] in ("", "Handle", "Title")}
        assert set(lines) | without == set(rows)
        assert not set(lines) & without
        assert without <= set(IDS)
        for item_id, line in lines.items():
            row = rows[item_id]
            if name == "google":
                assert line["gender"] == {"men": "male", "women": "female", None: ""}[row["gender"]]
                assert (line["color"] == "") == (row["colour"] in (None, "multi"))
            else:
                assert line["Title"].startswith("Title ")
                assert line["Tags"].startswith("own, tags, ")


def test_no_cell_of_any_feed_runs_as_a_formula_or_turns_the_line_round(large: Path) -> None:
    for name, delimiter in (("shopify", ","), ("google", "\t")):
        for line in csv.reader(io.StringIO((large / name).read_text("utf-8"), newline=""), delimiter=delimiter):
            for cell in line:
                assert quote(cell) == cell
                assert not any(unicodedata.category(character) in ("Cc", "Cf") for character in cell)
