"""Photos from wherever they lie: files, stores, and the web where it is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tagger import storage
from tagger.source.fetch import Fetched, PhotoSource

if TYPE_CHECKING:
    from tagger.source.web import WebSource


class PhotoPlaces:
    """A `Fetcher` and `Prober` for photos from every kind of place that is allowed."""

    def __init__(self, root: str | None = None, allow_http: bool = False, allow_private_http: bool = False) -> None:
        """
        Args:
            root: local photos outside this folder are refused.
            allow_http: photos of public web addresses too.
            allow_private_http: and of private ones.

        Raises:
            UsageError: `root` is no folder.
        """
        self._files = PhotoSource(root)
        self._web: WebSource | None = None
        if allow_http or allow_private_http:
            from tagger.source.web import WebSource

            self._web = WebSource(allow_private=allow_private_http)

    def __call__(self, uri: str) -> Fetched:
        """The photo at `uri`; raises `ImageError`."""
        if self._web is not None and storage.scheme(uri) in ("http", "https"):
            return self._web(uri)
        return self._files(uri)

    def probe(self, uri: str) -> tuple[int, str]:
        """Size in bytes and change mark, without the photo."""
        if self._web is not None and storage.scheme(uri) in ("http", "https"):
            return self._web.probe(uri)
        return self._files.probe(uri)

    def close(self) -> None:
        """Close the connections to the web."""
        if self._web is not None:
            self._web.close()
