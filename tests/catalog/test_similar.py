"""Similar products over a drawn shop, through the library, the command and the page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from catalog.gallery_page import Page
from fakes import read_rows, read_tags, tag, write_manifest
from review.shop import FORMULA, HOSTILE, Shop, command, draw, open_shop

from tagger.catalog.similar import Answer, Catalogue
from tagger.errors import ImageError, SchemaError, UsageError
from tagger.model.bundle import load_bundle, save_dummy_bundle
from tagger.model.engine import EngineSpec, Scores
from tagger.results import Committed, ResultStore
from tagger.schema import Schema
from tagger.source.decode import decode

PRODUCTS = 150


@pytest.fixture(scope="module")
def out(dummy_bundle: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUT of a shop of `PRODUCTS` with two photos each, with embeddings; four parts."""
    folder = tmp_path_factory.mktemp("similar")
    rows = []
    for number in range(PRODUCTS):
        for side in ("front", "back"):
            seed = 2 * number + (side == "back")
            draw(folder / f"{seed}.png", seed)
            rows.append({"item_id": f"item {number}", "image_uri": f"{seed}.png"})
    rows.append({"item_id": "a copy of item 3", "image_uri": str(draw(folder / "copy.png", 6))})
    rows.append({"item_id": "no photo", "image_uri": ""})
    tag(write_manifest(folder / "shop.csv", rows), dummy_bundle, folder / "out", shard_size=80, embeddings=True)
    return folder / "out"


@pytest.fixture(scope="module")
def catalogue(out: Path) -> Catalogue:
    return Catalogue.load(str(out))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A photo that the shop does not have."""
    return draw(tmp_path_factory.mktemp("stranger") / "stranger.png", 99_999).read_bytes()


def photo(out: Path, seed: int) -> bytes:
    return (out.parent / f"{seed}.png").read_bytes()


def ids(answer: Answer) -> list[str]:
    return [item.item_id for item in answer.found]


def test_four_products_the_most_similar_first(catalogue: Catalogue, stranger: bytes) -> None:
    for by in ("profile", "embedding", "blend"):
        answer = catalogue.query(stranger, by=by)
        assert answer.by == by
        assert len(set(ids(answer))) == 4
        assert [i.similarity for i in answer.found] == sorted((i.similarity for i in answer.found), reverse=True)
    assert catalogue.query(stranger).by == "blend"
    assert len(catalogue.query(stranger, k=9).found) == 9
    assert len(catalogue.query(stranger, k=1_000).found) == PRODUCTS + 1  # all that have a photo


def test_it_is_the_nearest_of_all_rows(catalogue: Catalogue, out: Path, dummy_bundle: str, stranger: bytes) -> None:
    embeddings = np.concatenate([np.stack(t.column("embedding").drop_null().to_numpy()) for t in _parts(out)])
    engine = EngineSpec(dummy_bundle, "cpu", 1, 1).build()
    wanted = engine.predict(decode(stranger, engine.input_spec.size).pixels[None]).embedding[0]
    cosine = embeddings @ wanted / np.linalg.norm(embeddings, axis=1) / np.linalg.norm(wanted)
    best = catalogue.query(stranger, 1, by="embedding").found[0]
    assert best.row == int(cosine.argmax())
    assert best.similarity == pytest.approx(cosine.max(), abs=1e-4)


def _parts(out: Path) -> Iterator[object]:
    from tagger.results import ResultStore

    return ResultStore(str(out)).parts(["embedding"])


def test_products_with_the_very_photo_are_left_out_unless_asked_for(catalogue: Catalogue, out: Path) -> None:
    answer = catalogue.query(photo(out, 6), k=PRODUCTS)
    assert not {"item 3", "a copy of item 3"} & set(ids(answer))
    with_itself = catalogue.query(photo(out, 6), with_itself=True)
    assert ids(with_itself)[:2] == ["item 3", "a copy of item 3"]
    assert with_itself.found[0].likeness.differs == ()
    assert with_itself.found[0].tags == with_itself.tags == answer.tags


def test_filters(catalogue: Catalogue, stranger: bytes) -> None:
    answer = catalogue.query(stranger, k=PRODUCTS)
    shown = {name: {item.tags[name] for item in answer.found} - {None} for name in answer.tags}
    name, second = sorted(shown, key=lambda name: -len(shown[name]))[:2]
    value, *others = sorted(str(value) for value in shown[name])
    assert len(others) > 1
    one = catalogue.query(stranger, k=PRODUCTS, where={name: value})
    assert {item.tags[name] for item in one.found} == {value}
    assert len(one.found) >= sum(item.tags[name] == value for item in answer.found)
    two = catalogue.query(stranger, k=PRODUCTS, where={name: others[:2]})
    assert {item.tags[name] for item in two.found} == set(others[:2])
    also = next(str(item.tags[second]) for item in two.found if item.tags[second] is not None)
    both = catalogue.query(stranger, k=PRODUCTS, where={name: others[:2], second: also})
    assert {item.tags[name] for item in both.found} <= set(others[:2])
    assert {item.tags[second] for item in both.found} == {also}
    with pytest.raises(SchemaError, match="no attribute 'color'"):
        catalogue.query(stranger, where={"color": "red"})
    with pytest.raises(SchemaError, match="colour has no value 'crimson'"):
        catalogue.query(stranger, where={"colour": "crimson"})


def test_filters_and_tags_are_those_of_the_product_not_of_one_of_its_photos(
    catalogue: Catalogue, out: Path, stranger: bytes
) -> None:
    products = {row["item_id"]: row for row in read_rows(out / "products") if row["n_ok"]}
    photos = [row for row in read_tags(out) if row["status"] == "ok"]
    assert any(row["category"] != products[row["item_id"]]["category"] for row in photos)  # the two of an item differ
    for value in {row["category"] for row in photos}:
        found = catalogue.query(stranger, k=1_000, where={"category": value}).found
        assert {item.item_id for item in found} == {i for i, row in products.items() if row["category"] == value}
        assert all(tag == products[item.item_id][name] for item in found for name, tag in item.tags.items())


def test_what_a_run_commits_while_the_catalogue_is_read_does_not_show(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = ResultStore.commits
    calls: list[int] = []

    def growing(self: ResultStore) -> dict[int, Committed]:
        """Shard 3 is committed after the first look."""
        if self._taken is not None:
            return commits(self)
        calls.append(len(calls))
        return {i: c for i, c in commits(self).items() if i < 3 or calls[-1]}

    monkeypatch.setattr(ResultStore, "commits", growing)
    assert len(Catalogue.load(str(out))) == 240


def test_no_product_at_all_cannot_be_asked_for(catalogue: Catalogue, stranger: bytes) -> None:
    with pytest.raises(UsageError, match="k is 0: ask for one product or more"):
        catalogue.query(stranger, 0)


def test_scores_and_item_ids_can_be_asked_about(
    catalogue: Catalogue, out: Path, dummy_bundle: str, stranger: bytes
) -> None:
    engine = EngineSpec(dummy_bundle, "cpu", 1, 1).build()
    scores = engine.predict(decode(stranger, engine.input_spec.size).pixels[None])
    assert catalogue.query(scores) == catalogue.query(stranger)
    assert ids(catalogue.query_item("item 40")) == ids(catalogue.query(photo(out, 80)))
    with pytest.raises(UsageError, match="no tagged photo of the item 'no photo'"):
        catalogue.query_item("no photo")
    with pytest.raises(UsageError, match="3 scores, not the"):
        catalogue.query(Scores(np.zeros((1, 3), np.float32), scores.embedding))


def test_many_threads_get_the_answers_of_one(out: Path) -> None:
    photos = [photo(out, seed) for seed in range(40)]
    alone = ids(Catalogue.load(str(out)).query(photos[0]))
    catalogue = Catalogue.load(str(out))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(catalogue.query, photos))
    assert ids(answers[0]) == alone
    assert answers == [catalogue.query(data) for data in photos]


def test_a_person_s_word_counts_for_filters_and_reasons(shop: Shop, stranger: bytes) -> None:
    before = Catalogue.load(str(shop.out)).query(stranger, k=1_000)
    chosen = next(item for item in before.found if item.tags["category"] != "hat")
    word = {"item_id": chosen.item_id, "attribute": "category", "value": "hat"}
    applied = shop.apply([{**line_of(shop, chosen.item_id), **word}])
    assert applied.exit_code == 0, applied.stderr
    catalogue = Catalogue.load(str(shop.out), decisions=str(shop.ledger))
    found = {item.item_id: item for item in catalogue.query(stranger, k=1_000, where={"category": "hat"}).found}
    assert found[chosen.item_id].tags["category"] == "hat"
    assert found[chosen.item_id].tags["neckline"] is None  # a hat has none
    assert chosen.item_id not in [
        item.item_id for item in Catalogue.load(str(shop.out)).query(stranger, k=1_000, where={"category": "hat"}).found
    ]
    of_itself = catalogue.query_item(chosen.item_id)
    assert of_itself.tags["category"] == "hat"


def line_of(shop: Shop, item_id: str) -> dict[str, str]:
    """The columns that bind a decision to the photo's bytes."""
    row = next(row for row in shop.tags() if row["item_id"] == item_id and row["status"] == "ok")
    return {"item_id": item_id, "image_sha256": row["image_sha256"]}


@pytest.fixture(scope="module")
def shop_out(dummy_bundle: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return open_shop(tmp_path_factory.mktemp("shop"), dummy_bundle)


@pytest.fixture
def shop(shop_out: Path, dummy_bundle: str, tmp_path: Path) -> Shop:
    """Without embeddings, with hostile ids."""
    return Shop(shop_out.parent, dummy_bundle, shop_out, tmp_path / "ledger")


def test_without_embeddings_the_tags_are_compared(shop: Shop, stranger: bytes) -> None:
    catalogue = Catalogue.load(str(shop.out))
    assert catalogue.query(stranger).by == "profile"
    assert catalogue.query(stranger).world is None  # too few products to say what is unlike them
    for by in ("embedding", "blend"):
        with pytest.raises(UsageError, match=f"no embeddings for --by {by}"):
            catalogue.query(stranger, by=by)
    with pytest.raises(UsageError, match="--by looks: blend, profile, embedding"):
        catalogue.query(stranger, by="looks")


def test_a_photo_unlike_the_catalogue_is_said_to_be_so(catalogue: Catalogue, out: Path, stranger: bytes) -> None:
    inside = [catalogue.query(photo(out, seed)).world for seed in range(0, 200, 5)]
    assert sum(world is not None and world.is_outside for world in inside) <= 2
    known = catalogue.query(stranger)
    far = Scores(np.zeros((1, catalogue.schema.n_scores), np.float32), -np.ones((1, 12), np.float32))
    world = catalogue.query(far).world
    assert world is not None
    assert known.world is not None
    assert world.is_outside
    assert world.distance > 1 > world.usual == known.world.usual
    value = known.found[0].tags["colour"]
    assert value is not None
    filtered = catalogue.query(stranger, where={"colour": value}).world
    assert filtered is not None
    assert filtered.is_outside == known.world.is_outside  # whatever the filters


def test_another_bundle_than_the_catalogue_s_is_refused(
    out: Path, apparel: Schema, tmp_path: Path, stranger: bytes
) -> None:
    save_dummy_bundle(apparel, str(tmp_path / "other"), size=48)
    other = Catalogue.load(str(out), bundle=str(tmp_path / "other"))
    with pytest.raises(UsageError, match=f"is {load_bundle(str(tmp_path / 'other')).bundle_id}, but .* was made with"):
        other.query(stranger)


def test_what_is_no_photo_is_an_error(catalogue: Catalogue) -> None:
    with pytest.raises(ImageError) as caught:
        catalogue.query(b"no photo")
    assert caught.value.kind == "not_an_image"


def test_an_out_without_a_tagged_photo_is_refused(dummy_bundle: str, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "none.csv", [{"item_id": "1", "image_uri": ""}])
    tag(manifest, dummy_bundle, tmp_path / "out", embeddings=True)
    with pytest.raises(UsageError, match="no tagged photo to compare with"):
        Catalogue.load(str(tmp_path / "out"))
    with pytest.raises(UsageError, match="no result of tagger run"):
        Catalogue.load(str(tmp_path))


# -- the command ---------------------------------------------------------------------------------------------------


def test_the_command_says_what_is_similar_and_why(out: Path) -> None:
    done = command("similar", out, out.parent / "10.png", "-k", "3")
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all(re.match(r"\d\. (a copy of )?item \d+  \d\.\d\d  (same|differs|no tag)", line) for line in lines), lines
    assert done.stderr == ""


def test_json_for_machines(out: Path) -> None:
    done = command("similar", out, out.parent / "10.png", "--json", "--language", "ko")
    answer = json.loads(done.stdout)
    assert answer["by"] == "blend"
    assert answer["unlike_the_catalogue"] in (True, False)
    assert len(answer["found"]) == 4
    first = answer["found"][0]
    assert set(first["same"]) | set(first["differs"]) <= set(answer["tags"])
    for name, value in first["same"].items():
        assert answer["tags"][name] == first["tags"][name] == value
    for name, pair in first["differs"].items():
        assert pair == {"item": first["tags"][name], "query": answer["tags"][name]}


def test_the_command_filters(out: Path) -> None:
    found = json.loads(command("similar", out, out.parent / "10.png", "-k", "150", "--json").stdout)["found"]
    kind = found[0]["tags"]["category"]
    assert any(item["tags"]["category"] != kind for item in found)
    done = command("similar", out, out.parent / "10.png", "-k", "150", "--json", "--where", f"category={kind}")
    assert {item["tags"]["category"] for item in json.loads(done.stdout)["found"]} == {kind}
    with pytest.raises(UsageError, match="write ATTRIBUTE=VALUE"):
        command("similar", out, out.parent / "10.png", "--where", "dress")
    with pytest.raises(SchemaError, match="category has no value 'gown'"):
        command("similar", out, out.parent / "10.png", "--where", "category=gown")


@pytest.mark.parametrize("arguments", [("similar", "10.png"), ("map",)])
def test_a_page_and_figures_do_not_share_standard_output(out: Path, arguments: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="would mix on standard output"):
        command(arguments[0], out, *(out.parent / name for name in arguments[1:]), "--output", "-", "--json")


def test_a_photo_that_cannot_be_had_is_one_sentence(out: Path) -> None:
    with pytest.raises(UsageError, match=r"gone.png cannot be compared: not_found: (?!not_found)"):
        command("similar", out, out.parent / "gone.png")
    with pytest.raises(UsageError, match=r"https://shop.example/1.jpg cannot be compared: blocked_address"):
        command("similar", out, "https://shop.example/1.jpg")


def test_without_embeddings_the_command_says_so(shop: Shop) -> None:
    done = command("similar", shop.out, shop.folder / "photos" / "20.png")
    assert "OUT has no embeddings, so the tags alone are compared" in done.stderr
    asked = command("similar", shop.out, shop.folder / "photos" / "20.png", "--by", "profile")
    assert asked.stderr == ""


# -- the page ------------------------------------------------------------------------------------------------------


def test_the_page_shows_the_photo_and_what_was_found(out: Path, tmp_path: Path) -> None:
    page_file = tmp_path / "similar.html"
    done = command("similar", out, out.parent / "10.png", "--output", page_file, "--where", "age_group=adult")
    assert "4 products in" in done.stderr
    page = Page(page_file.read_text("utf-8"))
    assert len(page.all("li", "card")) == 4
    assert len(page.all("img")) == 5
    assert all((image["src"] or "").startswith("data:image/jpeg;base64,") for image in page.all("img"))
    assert "Age group: Adult" in page.texts
    assert len(page.all("span", "chip")) > 0


def test_nothing_from_the_catalogue_becomes_markup(shop: Shop, tmp_path: Path) -> None:
    query = tmp_path / '<img src=x onerror=alert(1)>"&.png'
    draw(query, 5_000)
    page_file = tmp_path / "similar.html"
    command("similar", shop.out, query, "-k", "100", "--output", page_file)
    text = page_file.read_text("utf-8")
    page = Page(text)
    assert {HOSTILE, FORMULA} <= {card["data-item"] for card in page.all("li", "card")}
    assert {name for name, _ in page.elements} & {"script", "b", "iframe", "link"} == set()
    assert all(set(image) <= {"src", "alt", "width", "height", "decoding"} for image in page.all("img"))
    (policy,) = [a["content"] or "" for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert not re.search(r"https?://|url\(", text)


def test_a_photo_that_is_gone_or_changed_leaves_its_place_empty(
    dummy_bundle: str, tmp_path: Path, stranger: bytes
) -> None:
    rows = [{"item_id": str(i), "image_uri": str(draw(tmp_path / f"{i}.png", i))} for i in range(4)]
    tag(write_manifest(tmp_path / "shop.csv", rows), dummy_bundle, tmp_path / "out")
    (tmp_path / "1.png").unlink()
    draw(tmp_path / "2.png", 77)
    (tmp_path / "query.png").write_bytes(stranger)
    command("similar", tmp_path / "out", tmp_path / "query.png", "--output", tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text("utf-8"))
    assert len(page.all("li", "card")) == 4
    assert len(page.all("div", "none")) == 2
