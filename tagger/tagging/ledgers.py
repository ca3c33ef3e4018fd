"""Which decisions a run reads: those that are named, else those of the result that it goes on from."""

from __future__ import annotations

from dataclasses import dataclass

from tagger import storage
from tagger.errors import DecisionsError
from tagger.final import ledger_folder
from tagger.ledger import Ledger, ledger_files
from tagger.results import ResultStore
from tagger.tagging.identity import absolute, plain


@dataclass(frozen=True)
class RunLedger:
    """The ledger of one run."""

    folder: str  # what this OUT reads from now on
    inherited: str | None = None  # the ledger inside the previous OUT, copied since that OUT may be gone one day
    shared: bool = False  # `folder` is that of an earlier run

    @classmethod
    def of(cls, decisions: str | None, reuse: str | None, store: ResultStore) -> RunLedger:
        """The ledger of a run into `store`.

        Args:
            decisions: the folder that is named. The one in OUT has one spelling, so that OUT can be moved with it.
            reuse: the previous OUT. A person's word does not end with the result that it was given on: where no
                folder is named, a ledger that the previous run shared with others is shared, and one of its own is
                copied.
        """
        if decisions is not None and plain(decisions) != plain(store.default_decisions):
            return cls(absolute(decisions))
        if decisions is not None or reuse is None:
            return cls(store.default_decisions)
        own, previous = store.read_run(), ResultStore(reuse)
        before = previous.read_run()
        folder = ledger_folder(previous, before) if before is not None else previous.default_decisions
        if own is not None and plain(ledger_folder(store, own)) != plain(store.default_decisions):
            return cls(absolute(ledger_folder(store, own)), shared=True)  # as it began
        if folder == previous.default_decisions:
            return cls(store.default_decisions, None if plain(folder) == plain(store.default_decisions) else folder)
        if own is not None or plain(folder) == plain(store.default_decisions):
            return cls(store.default_decisions)
        return cls(absolute(folder), shared=True)

    def read(self) -> Ledger:
        """All that people decided, also what was not copied yet."""
        return Ledger.read(*([self.inherited] if self.inherited is not None else []), self.folder)

    def taken_over(self, decisions: str | None) -> str | None:
        """The folder of decisions that hold here though the command names none; None where there are none."""
        folder = self.inherited or (self.folder if self.shared else None)
        return folder if decisions is None and folder is not None and Ledger.read(folder).ids else None

    def copy_inherited(self) -> None:
        """Copy what the folder lacks; files of a ledger never change, and their names hold a digest."""
        if self.inherited is None:
            return
        try:
            there = set(ledger_files(self.folder))
            for name in ledger_files(self.inherited):
                if name not in there:
                    data = storage.read_bytes(storage.join(self.inherited, name))
                    storage.write_bytes(storage.join(self.folder, name), data)
        except OSError as error:
            raise DecisionsError(
                f"cannot copy the ledger {self.inherited} to {self.folder}: {storage.reason(error)}"
            ) from None
