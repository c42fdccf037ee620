"""Digests of stored runs, and their chain: what makes a later change of a result visible.

A digest is taken over the values as they are stored, so that it can be taken again from the rows
of either database. `superseded` and `inherited_run_id` are left out: they rightly change.
"""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC
from typing import Any

from virnucpro_monitor.records import EMBEDDING_DATA
from virnucpro_monitor.store.results import Results

DIGESTED_TEXTS = (
    "target",
    "commit",
    "benchmark_digest",
    "configuration_digest",
    "environment_digest",
    "protocol_digest",
)
"""What stands behind a run's ids, by name."""
DIGESTED_COLUMNS = (
    "outcome",
    "culprit",
    "reason",
    "gates",
    "inherited_from",
    "inherited_outcome",
    "packed_outcome",
    "unpacked_outcome",
    "code_digest",
    "bridge",
    "started_at",
    "duration_s",
    "num_results",
    "num_sequences",
    "num_tokens",
    "num_strict",
    "num_failed",
    "strict_pass_rate",
    "min_similarity",
    "p01_similarity",
    "median_similarity",
    "max_similarity",
    "worst_sequence",
    "seed_passed",
    "max_packed_relative_l2",
    "max_unpacked_relative_l2",
    "unpacked_s",
    "packed_s",
)
"""Columns of `runs`, `gates` as its JSON text."""

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def digest_run(
    values: Mapping[str, Any],
    results: Results,
    documents: Mapping[str, str],
    failure: Mapping[str, str] | None,
) -> str:
    """SHA-256 (hex) of one run.

    Args:
        values: `DIGESTED_TEXTS` and `DIGESTED_COLUMNS`, as stored.
        documents: JSON text by name; `EMBEDDING_DATA` does not count, since it may be deleted, and
            `EMBEDDINGS` holds its own digest.
        failure: the columns of `failures` but `run_id`.
    """
    documents = {name: text for name, text in documents.items() if name != EMBEDDING_DATA}
    started_at = values["started_at"].astimezone(UTC).isoformat(timespec="microseconds")
    given = {**values, "started_at": started_at}
    content = [given[name] for name in (*DIGESTED_TEXTS, *DIGESTED_COLUMNS)]
    described = _ENCODER.encode(
        [content, sorted(documents.items()), failure and sorted(failure.items())]
    )
    digest = hashlib.sha256(described.encode())
    digest.update(b"\n")
    digest.update(results.digested)
    return digest.hexdigest()


def chain_digest(before: str, digest: str) -> str:
    """The chain after a run with `digest`; `before` is that of the run before, "" where none is."""
    return hashlib.sha256(f"{before}\n{digest}".encode()).hexdigest()
