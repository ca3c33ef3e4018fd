"""`tagger status`: how far a run is."""

from __future__ import annotations

from typing import Any

from tagger import storage
from tagger.results import ResultStore


def read_status(out: str) -> dict[str, Any]:
    """State of the run in `out`: complete, running, or stopped; what is committed; the summary where there is one.

    Raises:
        UsageError: `out` is no result of a run.
    """
    store = ResultStore(out)
    info = store.require_run()
    commits = store.commits()
    if store.succeeded():
        state = "complete"
    elif storage.is_held(out):
        state = "running"
    else:
        state = "stopped"
    return {
        "out": out,
        "state": state,
        "manifest": info.manifest,
        "bundle": info.bundle_name,
        "bundle_id": info.key.bundle_id,
        "target_precision": info.key.target_precision,
        "started_at": info.started_at,
        "device": info.device,
        "shards_committed": len(commits),
        "rows": info.rows,
        "rows_committed": sum(c.rows for c in commits.values()),
        "rows_failed": sum(sum(c.failed.values()) for c in commits.values()),
        "summary": store.read_summary(),
    }
