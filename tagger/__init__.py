"""Attribute tags for shop catalogues, with confidences a shop can act on."""

__version__ = "0.1.0"
