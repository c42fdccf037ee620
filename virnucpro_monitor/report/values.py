"""Runs, comparisons, incidents and regressions as JSON values: what `--json` prints.

Field names are part of the program's interface: they are added to, never renamed. What is not known
is null.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from virnucpro_monitor.analysis.comparison import Comparison, Mark, SequenceChange, Side
from virnucpro_monitor.analysis.incidents import Incident
from virnucpro_monitor.analysis.regressions import Bound, Regressions, SeriesMovement, SeriesNote
from virnucpro_monitor.analysis.series import SeriesKey, worst_error
from virnucpro_monitor.records import GateResult, Run, to_json
from virnucpro_monitor.report.sentences import (
    comparison_sentence,
    incident_sentence,
    movement_sentence,
    regressions_sentence,
    verdict_sentence,
)

Values = dict[str, Any]


def run_values(run: Run) -> Values:
    """One run without its per-sequence results."""
    figures, used, commit = run.figures, run.configuration, run.commit
    return {
        "id": run.id,
        "target": run.target,
        "commit": commit.hash,
        "subject": commit.subject,
        "author": commit.author,
        "committed_at": to_json(commit.committed_at),
        "position": commit.position,
        "on_branch": commit.on_branch,
        "benchmark": run.benchmark,
        "benchmark_version": run.benchmark_version,
        "model": used.model,
        "weights": used.weights,
        "weights_digest": used.weights_digest,
        "dtype": used.dtype,
        "device": used.device,
        "backend": used.backend,
        "token_budget": used.token_budget,
        "configuration_digest": used.digest,
        "protocol_version": run.protocol_version,
        "protocol_digest": run.protocol_digest,
        "outcome": run.outcome.value,
        "num_sequences": figures.num_sequences if figures else None,
        "num_strict": figures.num_strict if figures else None,
        "num_failed": figures.num_failed if figures else None,
        "strict_pass_rate": figures.strict_pass_rate if figures else None,
        "min_similarity": figures.min_similarity if figures else None,
        "p01_similarity": figures.p01_similarity if figures else None,
        "median_similarity": figures.median_similarity if figures else None,
        "worst_error": worst_error(run),
        "worst_sequence": figures.worst_sequence if figures else None,
        "gates": {gate.name: gate_values(gate) for gate in run.gates},
        "culprit": run.culprit.value if run.culprit else None,
        "packed_outcome": run.packed_outcome.value if run.packed_outcome else None,
        "unpacked_outcome": run.unpacked_outcome.value if run.unpacked_outcome else None,
        "reason": run.reason or None,
        "inherited_from": run.inherited_from,
        "inherited_outcome": run.inherited_outcome.value if run.inherited_outcome else None,
        "bridge": run.bridge,
        "started_at": to_json(run.started_at),
        "duration_s": run.duration_s,
    }


def gate_values(gate: GateResult) -> Values:
    values = {"passed": gate.passed, "value": gate.value, "limit": gate.limit, "unit": gate.unit}
    return values | {"informs": gate.informs} if gate.informs else values


def comparison_values(comparison: Comparison) -> Values:
    """Whole comparison, with every sequence that both runs have."""

    def names(mark: Mark) -> list[str]:
        return [change.sequence_id for change in comparison.marked(mark)]

    return {
        "sentence": comparison_sentence(comparison),
        "verdict": comparison.verdict,
        "comparable": comparison.comparable,
        "reasons": list(comparison.reasons),
        "differences": [to_json(difference) for difference in comparison.differences],
        "base": _side_values(comparison.base),
        "head": _side_values(comparison.head),
        "num_compared": comparison.num_common,
        "num_sequences": comparison.num_all,
        "newly_failing": names(Mark.NEWLY_FAILING),
        "newly_fixed": names(Mark.NEWLY_FIXED),
        "worse": names(Mark.WORSE),
        "better": names(Mark.BETTER),
        "closer_but_further": names(Mark.CLOSER_BUT_FURTHER),
        "within_noise": names(Mark.WITHIN_NOISE),
        "equal": names(Mark.EQUAL),
        "accuracy": {
            one.side.value: {
                "movement": one.movement.name.lower(),
                "base": one.base,
                "head": one.head,
                "num_further": one.num_further,
                "num_closer": one.num_closer,
            }
            for one in comparison.accuracy
        },
        "embeddings_moved": {
            one.side: {
                "num_compared": one.num_compared,
                "num_identical": one.num_identical,
                "worst": one.worst,
                "noise": one.noise,
                "most": dict(one.most),
            }
            for one in comparison.moved
        },
        "only_in_base": list(comparison.only_in_base),
        "only_in_head": list(comparison.only_in_head),
        "noise": to_json(comparison.noise),
        "thresholds": to_json(comparison.thresholds),
        "gates": [
            {
                "name": change.name,
                "mark": change.mark.value,
                "base": gate_values(change.base) if change.base else None,
                "head": gate_values(change.head) if change.head else None,
            }
            for change in comparison.gates
        ],
        "sequences": [_change_values(change) for change in comparison.sequences],
    }


def _side_values(side: Side) -> Values:
    return run_values(side.run) | {
        "measured_run": side.measured.id,
        "common_strict": side.num_strict,
        "common_failed": side.num_failed,
        "common_worst_error": side.worst_error,
    }


def _change_values(change: SequenceChange) -> Values:
    return {
        "sequence_id": change.sequence_id,
        "mark": change.mark.value,
        "length": change.head.length,
        "base_similarity": change.base.similarity,
        "head_similarity": change.head.similarity,
        "base_level": change.base_level.value,
        "head_level": change.head_level.value,
        "base_error": change.base_error,
        "head_error": change.head_error,
        "decades": change.decades,
        "base_packed_relative_l2": change.base.packed_relative_l2,
        "head_packed_relative_l2": change.head.packed_relative_l2,
        "base_unpacked_relative_l2": change.base.unpacked_relative_l2,
        "head_unpacked_relative_l2": change.head.unpacked_relative_l2,
    }


def incident_values(incident: Incident) -> Values:
    good, fixed = incident.last_good, incident.fixed_by
    return {
        "key": incident.key,
        "sentence": incident_sentence(incident),
        "state": incident.state.value,
        "target": incident.series.target,
        "benchmark": incident.series.benchmark,
        "benchmark_version": incident.series.benchmark_version,
        "configuration": to_json(incident.first_bad.configuration),
        "cause": incident.cause.value,
        "names": list(incident.names),
        "finding": incident.finding or None,
        "gates": list(incident.gates),
        "culprit": incident.culprit.value if incident.culprit else None,
        "first_bad": _place_values(incident.first_bad),
        "last_bad": _place_values(incident.last_bad),
        "last_good": _place_values(good) if good else None,
        "fixed_by": _place_values(fixed) if fixed else None,
        "num_bad_runs": incident.num_bad_runs,
        "num_suspects": incident.num_suspects,
        "duration_s": incident.duration.total_seconds(),
        "worst_error": incident.worst_error,
        "worst_run": incident.worst.id,
        "lacks_values": incident.lacks_values,
        "caveats": list(incident.caveats),
        "grouped_with": list(incident.grouped_with),
        "hidden_by": incident.hidden_by,
        "commits_since_seen": incident.commits_since_seen,
        "acknowledgement": to_json(incident.acknowledgement),
        "reopened_because": incident.reopened_because or None,
    }


def _place_values(run: Run) -> Values:
    return {
        "run": run.id,
        "commit": run.commit.hash,
        "subject": run.commit.subject,
        "committed_at": to_json(run.commit.committed_at),
        "position": run.commit.position,
        "outcome": run.outcome.value,
        "reason": run.reason or None,
    }


def regressions_values(found: Regressions) -> Values:
    return {
        "sentence": regressions_sentence(found),
        "since": _bound_values(found.since),
        "until": _bound_values(found.until),
        "broken": [incident_values(incident) for incident in found.broken],
        "recovered": [incident_values(incident) for incident in found.recovered],
        "fixed": [incident_values(incident) for incident in found.fixed],
        "num_judged": found.num_judged,
        "num_series": found.num_series,
        "judged": _keys(found.judged),
        "appeared": _keys(found.appeared),
        "vanished": [_note_values(note) for note in found.vanished],
        "unjudged": [_note_values(note) for note in found.unjudged],
        "moved": [_movement_values(one) for one in found.moved],
        "accuracy": [
            {
                "side": one.side.value,
                "movement": one.movement.name.lower(),
                "benchmark": one.after.benchmark_label,
                "before": _place_values(one.before),
                "after": _place_values(one.after),
                "base": one.base,
                "head": one.head,
            }
            for one in found.accuracy
        ],
    }


def _movement_values(found: SeriesMovement) -> Values:
    one = found.movement
    return {
        **to_json(found.key),
        "sentence": movement_sentence(one),
        "figure": one.figure.name.lower(),
        "kind": one.kind.value,
        "is_worse": one.is_worse,
        "before": one.before,
        "after": one.after,
        "num_runs": one.num_after,
        "first": _place_values(one.run),
        "until": _place_values(one.until),
    }


def _bound_values(bound: Bound | None) -> str | None:
    """A full hash, an ISO 8601 moment, or null for an open end."""
    if bound is None:
        return None
    return bound.isoformat() if isinstance(bound, datetime) else bound.hash


def _keys(keys: Iterable[SeriesKey]) -> list[Any]:
    return [to_json(key) for key in keys]


def _note_values(note: SeriesNote) -> Values:
    return {**to_json(note.key), "note": note.note, "latest": _place_values(note.latest)}


def run_detail_values(run: Run) -> Values:
    """`run_values` and what only one run's page needs."""
    return run_values(run) | {
        "sentence": verdict_sentence(run),
        "benchmark_digest": run.benchmark_digest,
        "code_digest": run.code_digest,
        "environment": to_json(run.environment),
        "figures": to_json(run.figures),
        "gate_details": [to_json(gate) for gate in run.gates],
    }
