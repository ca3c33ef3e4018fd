"""What a product's labels leave open: its cloth, its pattern's inks and the colours of its small parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from tagger.demo.cloth import Cloth
from tagger.demo.colours import BRIGHT, DENIM, SHADES, Colour, luminance, tone
from tagger.demo.plan import Product


@dataclass(frozen=True)
class Look:
    """A product's labels with everything that a drawing of it needs."""

    labels: Mapping[str, str]
    cloth: Cloth
    accent: Colour  # of prints and drawstrings
    buttons: Colour
    quilted: bool  # a padded jacket
    rng: Random  # for what is left to chance in the drawing

    def __getitem__(self, attribute: str) -> str:
        """A label, or nothing where the attribute does not apply."""
        return self.labels.get(attribute, "")

    @property
    def kids(self) -> bool:
        return self["age_group"] == "kids"

    @property
    def seam(self) -> Colour:
        """Of lines on the cloth: darker than the cloth, or lighter where that could not be seen."""
        return tone(self.cloth.colour, 0.48 if luminance(self.cloth.colour) > 0.22 else 1.30)


def look_of(product: Product) -> Look:
    """Cloth and colours for a product's labels; the same for all its views."""
    labels, rng = product.labels, Random(f"look {product.seed}")
    category, multi, denim = labels["category"], labels["colour"] == "multi", labels.get("bottom_style") == "jeans"
    colour = rng.choice(SHADES[labels["colour"]])
    if denim:
        colour = DENIM[labels["colour"]]
    dark = luminance(colour) < 0.62
    if multi and labels["pattern"] in ("floral", "dots"):
        colour = rng.choice(((248, 246, 240), (250, 240, 214), (226, 238, 244)))
    light_ink = rng.choice(((250, 250, 248), (244, 236, 220)))
    dark_ink = rng.choice(((32, 42, 80), (40, 40, 44), (168, 40, 46)))
    contrast = light_ink if dark else dark_ink
    inks = _inks(labels, colour, contrast, rng)
    cloth = Cloth(
        colour,
        labels["pattern"],
        inks,
        trim=rng.choice(inks) if multi else None,
        weave="denim" if denim else "knit" if category == "longsleeve" else "smooth",
        upright=category in ("shirt", "blazer", "pants", "shorts")
        or (category in ("blouse", "dress", "tunic") and not multi),
        size=0.8 if labels["age_group"] == "kids" else rng.choice((0.85, 1.0, 1.15)),
        seed=product.seed,
    )
    buttons = rng.choice(((236, 232, 224), (176, 150, 108)) if dark else ((236, 232, 224), (70, 58, 50), (44, 44, 50)))
    padded = category == "outerwear" and labels["closure"] == "zip" and labels["pattern"] == "plain"
    return Look(labels, cloth, contrast, buttons, padded and rng.random() < 0.5, rng)


def _inks(labels: Mapping[str, str], colour: Colour, contrast: Colour, rng: Random) -> tuple[Colour, ...]:
    """The colours of a pattern: never so much of them that the label's colour would be wrong."""
    light, pattern = luminance(colour), labels["pattern"]
    if labels["colour"] == "multi":
        return tuple(rng.sample(BRIGHT, 5))
    if pattern == "floral":
        return (contrast, *rng.sample(((238, 150, 170), (250, 226, 150), (232, 96, 88), (196, 176, 226)), 2))
    if pattern == "check":
        return (tone(colour, 1.30 if light < 0.35 else 0.62), contrast)
    if pattern == "other":
        return (tone(colour, 0.62), tone(colour, 1.45)) if light > 0.2 else (tone(colour, 1.22), tone(colour, 1.10))
    if labels["category"] == "blazer":
        return (tone(colour, 1.35 if light < 0.6 else 0.75),)
    return (contrast,)
