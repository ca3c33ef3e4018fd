"""What can be wrong with a file besides what the operating system has words for. All are `OSError`s."""

from __future__ import annotations

import errno


class TooLarge(OSError):
    """A file above the caller's limit; nothing of it was returned."""


class Throttled(OSError):
    """The store asks for fewer requests, and asked for it again and again."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EBUSY, reason)


class CredentialsFault(PermissionError):
    """The store lets this process do nothing: its credentials are missing, expired or wrong.

    Of a photo that is *forbidden* to good credentials, a plain `PermissionError` tells.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EACCES, reason)


class ConditionFailed(OSError):
    """A conditional write was refused: the object is no longer what the writer took it for."""

    def __init__(self) -> None:
        super().__init__(errno.ESTALE, "another writer was there before")


class NoConditionalWrites(OSError):
    """The store lets a conditional write through whose condition is false, or refuses one whose condition is true."""

    def __init__(self) -> None:
        super().__init__(
            errno.ENOTSUP,
            "its store does not honour conditional writes, so two runs could share this OUT unseen; use another "
            "store, or --no-lock where nothing else writes to it",
        )


def reason(error: OSError) -> str:
    """What went wrong, in a person's words, without the path."""
    return error.strerror or str(error)
