"""summary.json, and the brakes that a finished run is held against."""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

from tagger.errors import IncompleteError
from tagger.results import ResultStore

UNKNOWN_WORDS = 10  # of the shop, listed in the summary of a comparison
PLACEHOLDER_SHARE = 0.01  # of all rows with the same bytes: named in the summary


def summarise(store: ResultStore, rows: int, inferred_before: int, seconds: float) -> dict[str, Any]:
    """summary.json: counts are of the whole OUT, seconds and speed of this call.

    Raises:
        IncompleteError: the commits do not add up to `rows`.
    """
    commits = store.commits()
    if sum(c.rows for c in commits.values()) != rows:
        raise IncompleteError(f"{store.out} holds fewer rows than the manifest; run the same command again")
    failed: Counter[str] = Counter()
    accepted: Counter[str] = Counter()
    flagged: Counter[str] = Counter()
    photos: Counter[str] = Counter()
    verdicts: dict[str, Counter[str]] = {}
    unknown: dict[str, Counter[str]] = {}
    for committed in commits.values():
        failed.update(committed.failed)
        accepted.update(committed.accepted)
        flagged.update(committed.flagged)
        photos.update(committed.photos)
        for name, counts in committed.compared.items():
            verdicts.setdefault(name, Counter()).update(counts)
            unknown.setdefault(name, Counter()).update(committed.unknown_words.get(name, {}))
    inferred = sum(c.inferred for c in commits.values())
    compared = sum(c.churn_total for c in commits.values())
    changed = sum(c.churn_changed for c in commits.values())
    return {
        "rows": rows,
        "ok": sum(c.ok for c in commits.values()),
        "failed": dict(failed.most_common()),
        "needs_review": sum(c.needs_review for c in commits.values()),
        "unfamiliar": sum(c.unfamiliar for c in commits.values()),
        "accepted": dict(accepted),
        "flagged": dict(flagged),
        "inferred": inferred,
        "reused": sum(c.reused for c in commits.values()),
        "churn": {"changed": changed, "compared": compared, "share": round(changed / compared, 6) if compared else 0},
        "compared": {
            name: {**counts, "unknown_words": dict(unknown[name].most_common(UNKNOWN_WORDS))}
            for name, counts in verdicts.items()
        },
        "repeated_photos": [
            {"image_sha256": sha256, "rows": n}
            for sha256, n in photos.most_common(10)
            if n > max(1, PLACEHOLDER_SHARE * rows)
        ],
        "seconds": round(seconds, 2),
        "images_per_second": round((inferred - inferred_before) / seconds, 2) if seconds else 0.0,
    }


class Brakes(Protocol):
    """The options that a finished run is held against."""

    @property
    def manifest(self) -> str: ...
    @property
    def reuse(self) -> str | None: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def min_rows(self) -> int: ...
    @property
    def max_failed(self) -> float: ...
    @property
    def max_churn(self) -> float | None: ...


def brake(summary: dict[str, Any], options: Brakes, out: str) -> str | None:
    """Why a complete run must not count: too few rows, too many failures or changes; None where it counts."""
    if summary["rows"] < options.min_rows:
        limited = f" with --limit {options.limit:,}" if options.limit is not None else ""
        return (
            f"{options.manifest} has {summary['rows']:,} rows{limited}, fewer than --min-rows {options.min_rows:,}: "
            f"a truncated feed? The rows are in {out}, _SUCCESS is not"
        )
    n_failed = summary["rows"] - summary["ok"]
    share = n_failed / summary["rows"]
    if share > options.max_failed:
        kinds = ", ".join(f"{kind} {n}" for kind, n in summary["failed"].items())
        return (
            f"{n_failed} of {summary['rows']} rows failed ({share:.1%}, above --max-failed {options.max_failed:.1%}: "
            f"{kinds}); the rows are in {out}, _SUCCESS is not"
        )
    churn = summary["churn"]
    if options.max_churn is not None and churn["share"] > options.max_churn:
        return (
            f"{churn['changed']} of {churn['compared']} tags differ from {options.reuse} ({churn['share']:.1%}, above "
            f"--max-churn {options.max_churn:.1%}); the rows are in {out}, _SUCCESS is not"
        )
    return None
