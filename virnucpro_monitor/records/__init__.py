"""The frozen records that every room speaks.

They hold plain Python values, so that they cross process borders as JSON and outlive a database
session. A value that is not known is `None`, never NaN.
"""

from virnucpro_monitor.records.conversion import (
    from_json,
    to_json,
)
from virnucpro_monitor.records.monitoring import (
    Acknowledgement,
    Bisection,
    BisectStep,
    Coverage,
    DayUsage,
    Health,
    Heartbeat,
    Judgement,
    Lease,
    SequencePoint,
    Series,
)
from virnucpro_monitor.records.runs import (
    BenchmarkSet,
    Commit,
    Configuration,
    Culprit,
    Environment,
    Failure,
    Figures,
    GateResult,
    Json,
    Outcome,
    ProteinSequence,
    Protocol,
    Run,
    RunReport,
    SequenceResult,
    SequenceStatus,
    Target,
    Verdict,
    content_digest,
)

__all__ = [
    "Acknowledgement",
    "BenchmarkSet",
    "BisectStep",
    "Bisection",
    "Commit",
    "Configuration",
    "Coverage",
    "Culprit",
    "DayUsage",
    "Environment",
    "Failure",
    "Figures",
    "GateResult",
    "Health",
    "Heartbeat",
    "Json",
    "Judgement",
    "Lease",
    "Outcome",
    "ProteinSequence",
    "Protocol",
    "Run",
    "RunReport",
    "SequencePoint",
    "SequenceResult",
    "SequenceStatus",
    "Series",
    "Target",
    "Verdict",
    "content_digest",
    "from_json",
    "to_json",
]
