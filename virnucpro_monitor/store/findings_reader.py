"""What trace and probes named in failed runs, for many runs at once."""

from collections import defaultdict

from sqlalchemy import Engine, select

from virnucpro_monitor.records import Finding, Json, Outcome
from virnucpro_monitor.store.connection import reading
from virnucpro_monitor.store.models import DocumentRow, RunRow, TargetRow


def load_findings(engine: Engine, *, target: str | None = None) -> dict[int, Finding]:
    """By run id, of the failed runs of a target or of all; those without a finding are left out."""
    query = (
        select(DocumentRow.run_id, DocumentRow.name, DocumentRow.content)
        .join(RunRow, RunRow.id == DocumentRow.run_id)
        .where(RunRow.outcome == Outcome.FAILED, DocumentRow.name.in_(("trace", "probes")))
    )
    if target is not None:
        query = query.where(
            RunRow.target_id.in_(select(TargetRow.id).where(TargetRow.name == target))
        )
    documents: dict[int, dict[str, Json]] = defaultdict(dict)
    with reading(engine) as connection:
        for row in connection.execute(query):
            documents[row.run_id][row.name] = row.content
    found = {
        run_id: Finding.of_documents(own.get("trace"), (own.get("probes") or {}).get("embedding"))
        for run_id, own in documents.items()
    }
    return {run_id: one for run_id, one in found.items() if one.signatures or one.text}
