"""What the evidence of a failed run names as its cause."""

from collections.abc import Mapping
from dataclasses import dataclass

from virnucpro_monitor.records.runs import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The faults that layer trace and probes recognised in one run.

    Attributes:
        signatures: short names ("rescale missing"), the trace's first; empty where nothing known
            fits.
        text: the trace's finding in words, else the probe's; empty where there is none.
    """

    signatures: tuple[str, ...] = ()
    text: str = ""

    @classmethod
    def of_documents(cls, trace: Json, embedding: Json) -> "Finding":
        """From the stored documents "trace" and "probes" -> "embedding"; each may be None."""
        trace = trace if isinstance(trace, Mapping) else {}
        embedding = embedding if isinstance(embedding, Mapping) else {}
        named = [document.get("signature") for document in (trace, embedding)]
        looks_like = embedding.get("looks_like")
        text = trace.get("finding") or (
            f"the embedding looks like {looks_like}" if looks_like else ""
        )
        return cls(signatures=tuple(dict.fromkeys(str(name) for name in named if name)), text=text)
