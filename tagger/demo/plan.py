"""What to draw: products as labels, before anything of them is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from tagger.demo.colours import DENIM, SHADES


@dataclass(frozen=True)
class Product:
    """One product before it is drawn."""

    item_id: str
    split: str
    labels: Mapping[str, str]
    seed: str  # of everything that is left to chance in the drawing

    @property
    def title(self) -> str:
        """A title as a shop would write it."""
        labels = self.labels
        owner = "Kids'" if labels["age_group"] == "kids" else f"{labels['gender'].capitalize()}'s"
        kind = {"other": "tote bag", "longsleeve": "sweater", "pants": labels.get("bottom_style", "")}.get(
            labels["category"], labels["category"]
        )
        sleeve = labels.get("sleeve_length", "")
        sleeve = f"{sleeve} sleeve" if sleeve in ("short", "long", "three-quarter") else sleeve
        colour = "multicolour" if labels["colour"] == "multi" else labels["colour"]
        pattern = _PATTERN_WORDS.get(labels["pattern"], labels["pattern"])
        return " ".join(word for word in (owner, colour, pattern, sleeve, kind) if word)


_PATTERN_WORDS = {"stripe": "striped", "check": "checked", "dots": "dotted", "other": "patterned", "plain": ""}


def plan_products(items: int, seed: int) -> list[Product]:
    """Products whose labels fit together, every value about as often as its weight says."""
    rng = Random(f"tagger demo {seed}")
    categories = _Deck([name for name, cut in _CUTS.items() for _ in range(cut.weight)], rng)
    patterns = _Deck([name for name, weight in _PATTERN_WEIGHTS.items() for _ in range(weight)], rng)
    colours = _Deck(list(SHADES), rng)
    splits = _Deck(["train"] * 14 + ["val"] * 3 + ["test"] * 3, rng)
    products = []
    for i in range(items):
        labels = _plan_labels(categories.draw(), patterns, colours, rng)
        # Leading zeros on purpose: ids are strings.
        products.append(Product(f"{1001 + i:06d}", splits.draw(), labels, f"{seed} {i}"))
    return products


def _plan_labels(category: str, patterns: _Deck, colours: _Deck, rng: Random) -> dict[str, str]:
    cut = _CUTS[category]
    labels = {"category": category}
    if cut.sleeves:
        labels["sleeve_length"] = rng.choice(cut.sleeves)
        labels["neckline"], labels["closure"] = rng.choice(cut.fronts)
        if labels["neckline"] == "other":
            labels["sleeve_length"] = "sleeveless"  # a square neckline on straps
    if cut.lengths:
        labels["length"] = rng.choice(cut.lengths)
    if cut.legs:
        labels["bottom_style"], labels["leg_shape"] = rng.choice(cut.legs)
    style = labels.get("bottom_style", "")
    allowed_patterns = _STYLE_PATTERNS.get(style, cut.patterns)
    if labels.get("closure", "none") != "none":
        allowed_patterns = tuple(card for card in allowed_patterns if card != "graphic")  # a zip would cut it in two
    labels["pattern"] = patterns.draw(lambda card: card in allowed_patterns)
    allowed_colours = tuple(DENIM) if style == "jeans" else cut.colours
    mixed = labels["pattern"] in ("stripe", "check", "floral", "dots") and category != "blazer"
    labels["colour"] = colours.draw(lambda card: card in allowed_colours and (card != "multi" or mixed))
    labels["gender"] = rng.choice(cut.genders)
    labels["age_group"] = "kids" if cut.kids and rng.random() < 0.12 else "adult"
    labels["occasion"] = {"slacks": "formal", "joggers": "sports", "leggings": "sports"}.get(style, cut.occasion)
    return labels


class _Deck:
    """Cards in random order, each drawn once before any comes again; what no one may take yet stays on top."""

    def __init__(self, cards: Sequence[str], rng: Random) -> None:
        self._cards = cards
        self._rng = rng
        self._pile: list[str] = []

    def draw(self, allowed: Callable[[str], bool] = lambda _: True) -> str:
        for i, card in enumerate(self._pile):
            if allowed(card):
                return self._pile.pop(i)
        fresh = list(self._cards)
        self._rng.shuffle(fresh)
        self._pile += fresh
        return self.draw(allowed)


@dataclass(frozen=True)
class _Cut:
    """What one category may look like; every combination of these can be drawn."""

    weight: int  # share of the catalogue, relative to the other categories
    patterns: tuple[str, ...] = ("plain",)
    sleeves: tuple[str, ...] = ()
    fronts: tuple[tuple[str, str], ...] = ()  # pairs of neckline and closure
    lengths: tuple[str, ...] = ()
    legs: tuple[tuple[str, str], ...] = ()  # pairs of bottom style and leg shape
    genders: tuple[str, ...] = ("women", "men")
    occasion: str = "casual"
    kids: bool = True
    colours: tuple[str, ...] = tuple(SHADES)


_ROUND_OR_V = (("round", "none"), ("v-neck", "none"))
_ALL_LENGTHS = ("mini", "knee", "midi", "full")

_CUTS: Mapping[str, _Cut] = {
    "t-shirt": _Cut(11, ("plain", "stripe", "graphic", "dots", "other"), sleeves=("short",), fronts=_ROUND_OR_V),
    "polo": _Cut(6, ("plain", "stripe", "check"), sleeves=("short", "long"), fronts=(("collar", "button"),)),
    "shirt": _Cut(
        9,
        ("plain", "stripe", "check", "floral", "dots"),
        sleeves=("long", "short"),
        fronts=(("collar", "button"),),
        genders=("men",),
    ),
    "blouse": _Cut(
        7,
        ("plain", "floral", "dots", "stripe"),
        sleeves=("three-quarter", "long", "short"),
        fronts=(("collar", "button"), ("v-neck", "none"), ("round", "none"), ("high", "button")),
        genders=("women",),
        kids=False,
    ),
    "top": _Cut(
        6,
        ("plain", "stripe", "check", "floral", "graphic", "dots", "other"),
        sleeves=("sleeveless", "short"),
        fronts=(*_ROUND_OR_V, ("other", "none")),
        genders=("women",),
        kids=False,
    ),
    "longsleeve": _Cut(
        8,
        ("plain", "stripe", "graphic", "other"),
        sleeves=("long",),
        fronts=(*_ROUND_OR_V, ("high", "none"), ("v-neck", "button"), ("v-neck", "open")),
    ),
    "sweatshirt": _Cut(
        8,
        ("plain", "graphic", "stripe", "other"),
        sleeves=("long",),
        fronts=(("hood", "none"), ("hood", "zip"), ("round", "none")),
    ),
    "outerwear": _Cut(
        9,
        ("plain", "check", "other"),
        sleeves=("long",),
        fronts=(("high", "zip"), ("hood", "zip"), ("collar", "button"), ("collar", "open")),
    ),
    "blazer": _Cut(
        6,
        ("plain", "check", "stripe"),
        sleeves=("long",),
        fronts=(("collar", "button"),),
        occasion="formal",
        kids=False,
    ),
    "dress": _Cut(
        12,
        ("plain", "stripe", "check", "floral", "dots"),
        sleeves=("sleeveless", "short", "three-quarter", "long"),
        fronts=(*_ROUND_OR_V, ("collar", "button"), ("high", "none"), ("other", "none")),
        lengths=_ALL_LENGTHS,
        genders=("women",),
    ),
    "tunic": _Cut(
        6,
        ("plain", "floral", "stripe"),
        sleeves=("three-quarter", "long", "sleeveless"),
        fronts=(("high", "button"), ("round", "none"), ("v-neck", "none")),
        occasion="ethnic",
        kids=False,
    ),
    "pants": _Cut(
        13,
        lengths=("full", "full", "midi"),
        legs=(
            *(("jeans", shape) for shape in ("skinny", "straight", "wide", "flare", "tapered")),
            *(("slacks", shape) for shape in ("straight", "wide", "tapered")),
            *(("chinos", shape) for shape in ("straight", "tapered")),
            ("joggers", "tapered"),
            ("leggings", "skinny"),
        ),
    ),
    "shorts": _Cut(
        7,
        ("plain", "stripe", "check", "floral", "dots"),
        lengths=("mini", "knee"),
        legs=(("jeans", "straight"), ("chinos", "straight"), ("chinos", "wide"), ("joggers", "straight")),
    ),
    "skirt": _Cut(8, ("plain", "stripe", "check", "floral", "dots", "other"), lengths=_ALL_LENGTHS, genders=("women",)),
    "bodysuit": _Cut(
        3,
        ("plain", "stripe", "dots"),
        sleeves=("short", "long", "sleeveless"),
        fronts=_ROUND_OR_V,
        genders=("women",),
    ),
    "undershirt": _Cut(
        4,
        ("plain", "stripe"),
        sleeves=("sleeveless",),
        fronts=(("round", "none"),),
        genders=("men",),
        colours=("white", "black", "grey", "navy", "beige"),
    ),
    "shoes": _Cut(5),
    "hat": _Cut(4, ("plain", "stripe")),
    "other": _Cut(3, ("plain", "stripe", "graphic", "dots"), genders=("women",), kids=False),
}

_STYLE_PATTERNS: Mapping[str, tuple[str, ...]] = {  # in place of the category's
    "jeans": ("plain",),
    "slacks": ("plain", "stripe", "check"),
    "joggers": ("plain", "other"),
    "leggings": ("plain", "floral", "other"),
}
_PATTERN_WEIGHTS = {"plain": 11, "stripe": 4, "check": 3, "floral": 3, "graphic": 2, "dots": 2, "other": 1}
