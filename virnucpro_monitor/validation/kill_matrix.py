"""The kill matrix as records: a row for each injected change, and the report of them all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from virnucpro_monitor.records import Culprit, Verdict
from virnucpro_monitor.validation.gates import over_limit

DEVICE = "device"
"""What a change is said to be killed by that brought the device down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultResult:
    """What the yardstick said of one injected change.

    Attributes:
        killed_by: the gates that failed.
        margin: the largest value / limit among them; None where they have no finite ratio (an
            exact gate, or a value that is missing).
        seed_killed: whether the seed's own rule alone fails.
        below_noise: an arithmetic fault that survives in half precision below the noise floor.
        effect: the largest value / limit over all gates with a limit but the seed's, at
            `effect_gate`.
        floor: the same gate's largest value / limit over healthy runs, these and those of the
            protocol's evidence: the measured noise.
        idle: parts of the change that never acted, which proves nothing of the yardstick.
        reason: the verdict's sentence.
        group: the short name of the sequences that it strikes, from the trace.
        signature: the recognised fault's short name, from the trace or, for `<mask>` tokens,
            from the probe of the embedding layer.
    """

    name: str
    kind: str
    killed_by: tuple[str, ...]
    margin: float | None
    culprit: Culprit
    seed_killed: bool
    below_noise: bool
    effect: float | None
    reason: str
    signature: str | None = None
    effect_gate: str | None = None
    floor: float | None = None
    idle: tuple[str, ...] = ()
    group: str | None = None

    @property
    def as_expected(self) -> bool:
        if self.idle:
            return self.kind == "range"
        if self.kind in ("control", "healthy"):
            return not self.killed_by
        return bool(self.killed_by) or self.below_noise


@dataclass(frozen=True, slots=True, kw_only=True)
class SelftestReport:
    """The kill matrix.

    Attributes:
        healthy: gate -> limit / worst value over the healthy runs, None where that value is 0.
        num_healthy_runs: with shuffled packs and several token budgets.
    """

    model: str
    dtype: str
    device: str
    backend: str
    protocol: str
    faults: tuple[FaultResult, ...]
    controls: tuple[FaultResult, ...]
    healthy: dict[str, float | None]
    healthy_failures: tuple[str, ...] = ()
    num_healthy_runs: int = 0
    gates: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        results = (*self.faults, *self.controls)
        return all(result.as_expected for result in results) and not self.healthy_failures

    @property
    def num_killed(self) -> int:
        return sum(bool(result.killed_by) for result in self.faults)

    @property
    def num_killed_by_seed(self) -> int:
        return sum(result.seed_killed for result in self.faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the matrix as it is made, maybe in another process.

    Attributes:
        headroom: gate -> limit / value, None where that is 0; of healthy runs alone.
    """

    result: FaultResult
    headroom: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The device failed at this change, and the process that asked can ask it nothing more."""

    reason: str


def narrowest(margins: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Gate -> its smallest margin of all; None, a worst value of 0, is the widest."""
    found: dict[str, float | None] = {}
    for gate in dict.fromkeys(gate for margin in margins for gate in margin):
        known = [value for margin in margins if (value := margin.get(gate)) is not None]
        found[gate] = min(known, default=None)
    return found


def headroom(verdicts: Sequence[Verdict]) -> dict[str, float | None]:
    """Gate -> limit / worst value over `verdicts`; None where the worst value is 0."""
    worst: dict[str, float] = {}
    for verdict in verdicts:
        for gate in verdict.gates:
            worst[gate.name] = max(worst.get(gate.name, 0.0), over_limit(gate) or 0.0)
    return {name: 1.0 / ratio if ratio > 0 else None for name, ratio in worst.items()}
