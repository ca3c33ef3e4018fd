"""Draws a small labelled catalogue of garments: something to run the whole tool on, with no network and no data set.

The garments are drawings, and their labels are true by construction: a product is planned as labels first and drawn
from them. They show how the tool works and what its outputs look like; they are no evidence of accuracy. A classifier
that reads all of them right, or half of them wrong, says nothing about photos of real garments.

A folder gets ``manifest.csv``, ``labels.csv`` and ``images/``. A catalogue of 50 products or more has two oddities, so
that a newcomer sees how failures appear: the second to last product has no photo (an empty ``image_uri``, the row
becomes `no_image`), and the photo of the last one is cut off halfway (`truncated`). Both stand in the manifest and
not in the labels. Smaller catalogues have none: two failed rows would be above the share that a run accepts.

The way from labels to a folder: `plan` (labels) → `look` (cloth and colours for them) → `tops`, `bottoms` and
`accessories` (garments, drawn on a `sheet`) → `photo` (one JPEG) → `catalogue` (the folder).
"""

from tagger.demo.catalogue import MIN_ITEMS_WITH_ODDITIES, DemoCatalogue, draw_catalogue, draw_photos

__all__ = ["MIN_ITEMS_WITH_ODDITIES", "DemoCatalogue", "draw_catalogue", "draw_photos"]
