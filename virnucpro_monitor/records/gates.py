"""Every gate, declared once: verdict, noise, series, pages and the README read this table."""

from dataclasses import dataclass

from virnucpro_monitor.records.outcome import Culprit


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One gate, in the order in which gates are judged and shown.

    Attributes:
        asks: what it asks, in a few words for a table.
        unit: of its value and its limit.
        limit: name of its limit in a protocol; None where the limit is exactly 0, or is the seed's
            thresholds.
        side: the side that it is about, where it can only be about one.
        knows_side: whether it tells its side by itself; the others infer it from the sequence that
            is worst, and are outranked.
        rank: place among the failing gates that a verdict quotes first; None comes after them, the
            largest excess first.
        from_sequences: judged from the measures of the sequences, not from a probe.
        loses_values: fails only where sequences lack a value, which is worse than any number.
        since: first protocol version that has it.
        may_inform: whether a target's policy may let it inform only; what the seed asks always
            fails.
    """

    name: str
    asks: str
    unit: str
    limit: str | None = None
    side: Culprit | None = None
    knows_side: bool = True
    rank: int | None = None
    from_sequences: bool = False
    loses_values: bool = False
    since: int = 1
    may_inform: bool = True


GATES: tuple[Gate, ...] = (
    Gate(
        name="coverage",
        asks="every id comes back from the packed path once",
        unit="sequences",
        side=Culprit.PACKED,
        rank=0,
        from_sequences=True,
        loses_values=True,
        may_inform=False,
    ),
    Gate(
        name="finite",
        asks="no NaN or infinity on either side",
        unit="sequences",
        rank=1,
        from_sequences=True,
        loses_values=True,
        may_inform=False,
    ),
    Gate(
        name="tokens",
        asks="each pack holds the sequences' own tokens",
        unit="sequences",
        side=Culprit.PACKED,
        rank=2,
        from_sequences=True,
    ),
    Gate(
        name="collator",
        asks="more sequences than it buffers, all 25 letters, several calls: each comes back once",
        unit="sequences",
        side=Culprit.PACKED,
        rank=3,
        since=2,
    ),
    Gate(
        name="weights",
        asks="no pass changes the model, and its weights are the checkpoint's",
        unit="tensors",
        rank=4,
        since=2,
    ),
    Gate(
        name="unwritten",
        asks="nothing comes from memory that nobody wrote: it is poisoned with NaN",
        unit="max abs",
        side=Culprit.PACKED,
        rank=5,
        since=2,
    ),
    Gate(
        name="seed",
        asks="the rule above",
        unit="cosine",
        knows_side=False,
        rank=6,
        from_sequences=True,
        may_inform=False,
    ),
    Gate(
        name="gain",
        asks="the norms of the pooled embeddings agree",
        unit="norm ratio - 1",
        limit="gain",
        knows_side=False,
        from_sequences=True,
    ),
    Gate(
        name="residue",
        asks="the worst single residue agrees",
        unit="1 - cosine",
        limit="residue",
        knows_side=False,
        from_sequences=True,
    ),
    Gate(
        name="oracle",
        asks="packed is no further from FP32 fair-esm than twice unpacked",
        unit="relative L2",
        limit="floor",
        from_sequences=True,
    ),
    Gate(
        name="ceiling",
        asks="packed is near FP32 fair-esm",
        unit="relative L2",
        limit="ceiling",
        side=Culprit.PACKED,
        from_sequences=True,
    ),
    Gate(
        name="baseline",
        asks="unpacked is near FP32 fair-esm",
        unit="relative L2",
        limit="baseline",
        side=Culprit.UNPACKED,
        rank=8,
        from_sequences=True,
    ),
    Gate(
        name="probes",
        asks="packed, unpacked and FP32 agree at tile edges from 1 to 1,022, in every pack shape",
        unit="relative L2",
        limit="probes",
        since=2,
    ),
    Gate(
        name="state",
        asks="what ran before changes nothing, packed or alone",
        unit="max abs",
        side=Culprit.PACKED,
        since=2,
    ),
    Gate(
        name="repeat",
        asks="the same input twice gives the same bits",
        unit="max abs",
    ),
    Gate(
        name="leak",
        asks="other residues in a neighbour change *nothing*, bit for bit",
        unit="max abs",
        side=Culprit.PACKED,
        rank=7,
    ),
    Gate(
        name="position",
        asks="the same sequence elsewhere in the pack",
        unit="relative L2",
        limit="position",
        side=Culprit.PACKED,
    ),
    Gate(
        name="order",
        asks="the same sequence in the reversed pack",
        unit="relative L2",
        limit="order",
        side=Culprit.PACKED,
    ),
    Gate(
        name="embedding",
        asks="the embedding layer alone, against the checkpoint's table",
        unit="relative L2",
        limit="embedding",
    ),
    Gate(
        name="mask",
        asks="`<mask>` at 0, 15 and 50 %",
        unit="relative L2",
        limit="mask",
    ),
)

GATE: dict[str, Gate] = {gate.name: gate for gate in GATES}
"""The same by name."""

LIMIT_GATES: dict[str, Gate] = {gate.limit: gate for gate in GATES if gate.limit}
"""The gate that each limit of a protocol belongs to."""
