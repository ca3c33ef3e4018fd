"""The feeds there are. A new one is one function and one line here."""

from __future__ import annotations

from tagger.catalog.export.feeds import Feed
from tagger.catalog.export.google import write_google
from tagger.catalog.export.shopify import write_shopify

FEEDS: dict[str, Feed] = {"shopify": write_shopify, "google": write_google}
