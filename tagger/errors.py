"""The errors of the package.

::

    TaggerError                  one clear sentence for a person; `exit_code` says how the command ends
    ├── UsageError         2     options, manifest, bundle, schema or OUT that cannot be used as they are
    │   ├── ManifestError        names the file and the line
    │   ├── SchemaError          names the attribute or the value
    │   ├── BundleError          a bundle that is missing, damaged or of another format
    │   ├── RunKeyError          OUT belongs to another run
    │   └── DecisionsError       a decisions file with a bad line; nothing of it was applied
    ├── IncompleteError    1     some shard could not be finished; the same command goes on
    ├── BrakeError         3     too many failed rows, too much churn, too few rows
    ├── LockedError        4     another live run holds OUT
    └── Interrupted       75     SIGTERM or SIGINT; the work so far is kept
    ImageError                   one photo that cannot be had or read: a row, never the end of a run

An item's failure is a row, a shard's failure a value, a run's failure an exit code.
"""

from __future__ import annotations

ERROR_KINDS = (
    "no_image",
    "not_found",
    "forbidden",
    "timeout",
    "throttled",
    "too_large",
    "not_an_image",
    "truncated",
    "corrupt",
    "unsupported_format",
    "missing_codec",
    "too_many_pixels",
    "decoder_crashed",
    "blocked_address",
    "outside_root",
    "io_error",
)

PASSING_KINDS = frozenset({"timeout", "throttled", "forbidden", "io_error"})
"""Kinds that may mend by themselves: the same command tries these rows again."""

UNSEEN_KINDS = PASSING_KINDS | {"not_found", "blocked_address", "outside_root", "missing_codec", "decoder_crashed"}
"""Kinds that say nothing of the photo's bytes: it may be the one of the night before."""

LEFTOVER_KINDS = PASSING_KINDS - {"forbidden"}
"""Those of them that a run itself tries once more before it ends: a burst of failures is over by then."""


class TaggerError(Exception):
    """Base of every error that is meant for a person: its text is one sentence."""

    exit_code = 70


class UsageError(TaggerError):
    """Options or inputs that cannot be used as they are."""

    exit_code = 2


class ManifestError(UsageError):
    """A manifest or labels file that cannot be read; the text names the file and the line."""


class EmptyManifestError(ManifestError):
    """A manifest without a row."""


class SchemaError(UsageError):
    """A schema that does not hold together, or a value it does not know."""


class BundleError(UsageError):
    """A bundle that is missing, damaged or of another format."""


class RunKeyError(UsageError):
    """OUT was made by a run with another run key."""


class DecisionsError(UsageError):
    """A decisions file with a bad line; nothing of it was applied."""


class IncompleteError(TaggerError):
    """Some shard could not be finished; the same command goes on."""

    exit_code = 1


class BrakeError(TaggerError):
    """Results are there, but too many rows failed, too many tags changed or too few rows came."""

    exit_code = 3


class LockedError(TaggerError):
    """Another live run holds OUT."""

    exit_code = 4


class Interrupted(TaggerError):
    """SIGTERM or SIGINT arrived; every committed shard is kept."""

    exit_code = 75


class ImageError(Exception):
    """One photo that cannot be fetched or decoded.

    Attributes:
        kind: one of `ERROR_KINDS`.
        detail: one short sentence for the `error` column.
    """

    def __init__(self, kind: str, detail: str) -> None:
        if kind not in ERROR_KINDS:
            raise ValueError(f"unknown error kind {kind!r}")
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail
