"""What differs between two runs besides the commit, and whether they may be compared at all."""

import dataclasses
from dataclasses import dataclass

from virnucpro_monitor.records import Environment, Run

# A difference in one of these means that another thing was measured, or by another yardstick.
_NOT_COMPARABLE = {
    "target": "other targets",
    "benchmark": "other benchmark sets or versions",
    "protocol": "other protocols",
    "model": "other models",
    "weights": "other weights",
    "dtype": "other dtypes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that is not the same in two runs.

    Attributes:
        kind: "target", "benchmark", "protocol", "configuration" or "environment".
        base, head: None where not known.
    """

    kind: str
    name: str
    base: str | None
    head: str | None

    @property
    def prevents_comparison(self) -> bool:
        return self.name in _NOT_COMPARABLE and self.kind != "environment"

    def __str__(self) -> str:
        return f"{self.name}: {self.base or 'none'} → {self.head or 'none'}"


def find_differences(base: Run, head: Run) -> tuple[Difference, ...]:
    """Everything but the commit in which two runs differ; what prevents a comparison comes first.

    An environment, package or part that one of the runs does not know is no difference.
    """
    # The same commit of two targets is the same code, in another environment.
    of_target = "environment" if base.commit.hash == head.commit.hash else "target"
    pairs: list[tuple[str, str, object, object]] = [
        (of_target, "target", base.target, head.target),
        ("benchmark", "benchmark", _benchmark(base), _benchmark(head)),
        ("protocol", "protocol", _protocol(base), _protocol(head)),
        ("protocol", "policy", _policy(base), _policy(head)),
    ]
    same_configuration = base.configuration == head.configuration
    for field in () if same_configuration else dataclasses.fields(base.configuration):
        if field.name == "weights_digest":
            continue  # it stands in "weights"
        values = [
            _weights(run) if field.name == "weights" else getattr(run.configuration, field.name)
            for run in (base, head)
        ]
        pairs.append(("configuration", field.name, values[0], values[1]))
    pairs += _environments(base.environment, head.environment)
    found = [
        Difference(kind=kind, name=name, base=_text(old), head=_text(new))
        for kind, name, old, new in pairs
        if old != new
    ]
    return tuple(sorted(found, key=lambda difference: not difference.prevents_comparison))


def _environments(
    base: Environment | None, head: Environment | None
) -> list[tuple[str, str, object, object]]:
    """Facts of both environments, packages and parts one by one where both know them."""
    if base is None or head is None or base == head:
        return []
    pairs: list[tuple[str, str, object, object]] = []
    for field in dataclasses.fields(base):
        old, new = getattr(base, field.name), getattr(head, field.name)
        if field.name in ("packages", "parts"):
            shared = sorted((old or {}).keys() & (new or {}).keys())
            pairs += [("environment", name, old[name], new[name]) for name in shared]
        else:
            pairs.append(("environment", field.name, old, new))
    return _without_repeats(pairs)


def _without_repeats(
    pairs: list[tuple[str, str, object, object]],
) -> list[tuple[str, str, object, object]]:
    """Leave out packages that stand as facts of their own already, such as torch."""
    seen: set[str] = set()
    kept = []
    for pair in pairs:
        name = pair[1].replace("_", "-")
        if name not in seen:
            kept.append(pair)
        seen.add(name)
    return kept


def reasons_not_comparable(base: Run, head: Run) -> tuple[str, ...]:
    """Why two runs must not be compared, one sentence each; empty where they may be."""
    reasons = [
        f"The runs used {_NOT_COMPARABLE[difference.name]}: {difference.base} and "
        f"{difference.head}."
        for difference in find_differences(base, head)
        if difference.prevents_comparison
    ]
    for role, run in (("base", base), ("head", head)):
        if run.figures is None:
            because = f": {run.reason}" if run.reason else ""
            reasons.append(f"The {role} run holds no measures ({run.outcome}{because}).")
    return tuple(reasons)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _benchmark(run: Run) -> str:
    return f"{run.benchmark_label} ({run.benchmark_digest[:12]})"


def _protocol(run: Run) -> str:
    return f"{run.protocol_version} ({run.protocol_digest[:12]})"


def _policy(run: Run) -> str | None:
    """Who lets which gate inform only; None where every gate fails its run."""
    return "; ".join(f"{gate.name} by {gate.informs}" for gate in run.gates if gate.informs) or None


def _weights(run: Run) -> str:
    return f"{run.configuration.weights} ({run.configuration.weights_digest[:12]})"
