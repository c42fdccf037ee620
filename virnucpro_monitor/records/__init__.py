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
    RunMark,
    SequencePoint,
    Series,
)
from virnucpro_monitor.records.names import benchmark_label, short_hash
from virnucpro_monitor.records.outcome import VERDICTS, Culprit, Outcome, SequenceStatus
from virnucpro_monitor.records.runs import (
    BenchmarkSet,
    Commit,
    Configuration,
    Environment,
    Failure,
    Figures,
    GateResult,
    Json,
    ProteinSequence,
    Protocol,
    Run,
    RunReport,
    SequenceResult,
    Target,
    Verdict,
    content_digest,
)

__all__ = [
    "VERDICTS",
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
    "RunMark",
    "RunReport",
    "SequencePoint",
    "SequenceResult",
    "SequenceStatus",
    "Series",
    "Target",
    "Verdict",
    "benchmark_label",
    "content_digest",
    "from_json",
    "short_hash",
    "to_json",
]
