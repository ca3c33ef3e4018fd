"""Final values as tables for other programs and as a page for people."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from review.shop import FORMULA, HOSTILE, PHOTOS, Shop, command, draw, open_shop, read_csv

from tagger.schema import load_schema

SCHEMA = load_schema("apparel")
NAMES = tuple(attribute.name for attribute in SCHEMA.attributes)


@pytest.fixture(scope="module")
def out(dummy_bundle: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return open_shop(tmp_path_factory.mktemp("export"), dummy_bundle)


@pytest.fixture
def shop(out: Path, dummy_bundle: str, tmp_path: Path) -> Shop:
    return Shop(out.parent, dummy_bundle, out, tmp_path / "ledger")


def products(out: Path) -> dict[str, dict[str, object]]:
    return {row["item_id"]: row for row in pq.read_table(out / "products").to_pylist()}


def test_one_line_per_product_in_the_order_of_the_manifest(shop: Shop) -> None:
    lines = read_csv(command("export", shop.out).stdout_bytes)
    assert list(lines[0]) == ["item_id", *NAMES, "n_photos", "needs_review", "review_reasons", "search_words"]
    assert [line["item_id"] for line in lines] == [*PHOTOS, "no photo"]
    assert [lines[i]["n_photos"] for i in (0, 2, 3)] == ["1", "4", "2"]


def test_only_values_that_are_sure_unless_those_in_review_are_asked_for(shop: Shop) -> None:
    known, sure, everything = products(shop.out), shop.export(), shop.export("--include-review")
    decisions: Counter[object] = Counter()
    for item, row in known.items():
        for name in NAMES:
            decision = row[f"{name}_decision"]
            decisions[decision] += 1
            assert sure[item][name] == (row[name] if decision == "accepted" else "")
            assert everything[item][name] == (row[name] or "")
        assert sure[item]["needs_review"] == str(row["needs_review"]).lower()
        assert sure[item]["review_reasons"] == "; ".join(row["review_reasons"])  # type: ignore[arg-type]
    assert min(decisions[decision] for decision in ("accepted", "review", "not_applicable")) > 0


def test_a_product_whose_photos_failed_has_its_line(shop: Shop) -> None:
    line = shop.export()["no photo"]
    assert {line[name] for name in NAMES} == {""}
    assert (line["n_photos"], line["needs_review"]) == ("1", "false")


@pytest.mark.parametrize("language", ["en", "ko"])
def test_display_names_in_a_language(shop: Shop, language: str) -> None:
    plain, shown = shop.export("--include-review"), shop.export("--include-review", "--language", language)
    for item, line in plain.items():
        for attribute in SCHEMA.attributes:
            names = {value.name: value.display(language) for value in attribute.values} | {"": ""}
            assert shown[item][attribute.name] == names[line[attribute.name]]
    assert plain != shown


def test_a_value_that_only_people_know_is_shown_as_it_is(shop: Shop) -> None:
    shop.apply([{"item_id": "00123", "attribute": "colour", "value": "navy"}])
    (file,) = shop.ledger.iterdir()
    file.write_text(file.read_text().replace('"navy"', '"petrol"'))
    assert shop.export("--language", "ko")["00123"]["colour"] == "petrol"


def test_the_words_that_find_a_product_stand_beside_its_values(shop: Shop) -> None:
    shop.apply([{"item_id": "00123", "attribute": "category", "value": "shoes"}])
    both, korean = shop.export()["00123"], shop.export("--language", "ko")["00123"]
    assert {"Shoes", "sneakers", "신발", "운동화"} <= set(both["search_words"].split("; "))
    assert {"신발", "운동화"} <= set(korean["search_words"].split("; "))
    assert "sneakers" not in korean["search_words"]
    assert shop.export()["no photo"]["search_words"] == ""


def test_ids_of_every_kind_come_out_unharmed(shop: Shop) -> None:
    data = command("export", shop.out).stdout_bytes
    assert {"00123", "1E5", FORMULA, HOSTILE} <= {line["item_id"] for line in read_csv(data)}
    assert not re.search(rb"(^|[,\n])\"?[=+\-@\t\r]", data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n"))


def test_parquet_says_the_same_as_csv_with_plain_types(shop: Shop, tmp_path: Path) -> None:
    shop.apply([{"item_id": "00123", "attribute": "colour", "value": "남색"}])
    file = tmp_path / "new folder" / "products.parquet"
    result = command("export", shop.out, "--format", "parquet", "--output", file, "--decisions", shop.ledger)
    assert (result.exit_code, result.stdout) == (0, "")
    table = pq.read_table(file)
    assert table.schema.field("n_photos").type == pa.int32()
    assert table.schema.field("needs_review").type == pa.bool_()
    assert {table.schema.field(name).type for name in ("item_id", "review_reasons", "search_words", *NAMES)} == {
        pa.string()
    }
    csv = shop.export()
    for row in table.to_pylist():
        assert {name: row[name] or "" for name in NAMES} == {name: csv[row["item_id"]][name] for name in NAMES}
    assert duckdb.sql(f"select colour from '{file}' where item_id = '00123'").fetchall() == [("navy",)]
    assert [entry.name for entry in file.parent.iterdir()] == ["products.parquet"]


@pytest.mark.parametrize("format_name", ["csv", "parquet", "jsonl", "shopify", "google"])
def test_before_the_first_commit_there_is_an_empty_table(shop: Shop, tmp_path: Path, format_name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_bytes((shop.out / "run.json").read_bytes())
    file = tmp_path / f"products.{format_name}"
    result = command("export", tmp_path / "out", "--format", format_name, "--output", file)
    assert result.exit_code == 0
    assert "is not complete" in result.stderr
    if format_name in ("csv", "parquet"):
        assert (pq.read_table(file).to_pylist() if format_name == "parquet" else read_csv(file.read_bytes())) == []
    else:
        assert file.read_text().count("\n") == (0 if format_name == "jsonl" else 1)  # the header


def page(shop: Shop, tmp_path: Path, *options: str) -> str:
    file = tmp_path / "page.html"
    result = command("export", shop.out, "--format", "html", "--output", file, "--decisions", shop.ledger, *options)
    assert result.exit_code == 0, result.stderr
    return file.read_text("utf-8")


def test_the_page_has_a_card_for_every_row_with_its_photo(shop: Shop, tmp_path: Path) -> None:
    text = page(shop, tmp_path)
    assert text.count('class="card"') == len(shop.tags())
    assert text.count("data:image/jpeg") == sum(row["status"] == "ok" for row in shop.tags())
    assert "<b>줄" not in text
    assert "&lt;b&gt;" in text


def test_the_page_shows_a_persons_word_and_what_follows_from_it(shop: Shop, tmp_path: Path) -> None:
    before = page(shop, tmp_path)
    assert "set by a person" not in before.split("</style>")[1].split("<script>")[0]
    shop.apply([{"item_id": "00123", "attribute": "category", "value": "shoes"}])
    card = page(shop, tmp_path, "--limit", "1").split('class="card"')[1]
    assert 'data-attribute="category" data-value="shoes"' in card
    assert "set by a person" in card
    assert 'data-attribute="neckline"' not in card


def test_the_head_of_the_page_counts_as_its_cards_do(shop: Shop, tmp_path: Path) -> None:
    def counts() -> dict[str, int]:
        text = page(shop, tmp_path)
        head = {state: int(n) for state, n in re.findall(r'<li class="(\w+)"><b>(\d+)</b>', text)}
        assert head == {state: text.count(f'data-state="{state}"') for state in ("accepted", "review", "failed")}
        return head

    before, settled = counts(), 0
    for row in shop.tags():
        if row["needs_review"] and row["item_id"] in ("00123", "1E5"):
            open_tags = {"category", *(reason.split(":")[0] for reason in row["review_reasons"])}
            shop.apply([{"item_id": row["item_id"], "attribute": a, "value": row[a]} for a in sorted(open_tags)])
            settled += 1
    assert settled
    assert counts() == before | {"accepted": before["accepted"] + settled, "review": before["review"] - settled}


def test_the_page_in_korean_for_the_first_rows(shop: Shop, tmp_path: Path) -> None:
    text = page(shop, tmp_path, "--language", "ko", "--limit", "9")
    assert text.count('class="card"') == 9
    assert "종류" in text
    assert "first 9 rows" in text


def test_a_photo_with_other_bytes_by_now_is_not_shown_beside_the_old_tags(dummy_bundle: str, tmp_path: Path) -> None:
    out = open_shop(tmp_path, dummy_bundle)
    shop = Shop(tmp_path, dummy_bundle, out, tmp_path / "ledger")
    draw(tmp_path / "photos" / "1.png", 999)
    (tmp_path / "photos" / "2.png").unlink()
    assert page(shop, tmp_path, "--limit", "3").count("data:image/jpeg") == 1
