"""Small histories, written by hand: one letter for each commit.

`P` passed, `F` failed, `E` error, `N` not run, `p` and `f` skipped that inherit passed and failed.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from tests.store.builders import make_commit, make_configuration, make_environment, make_run
from tests.store.builders import make_gate as gate
from virnucpro_monitor.records import (
    Acknowledgement,
    Commit,
    Configuration,
    Culprit,
    Environment,
    Figures,
    Outcome,
    Run,
    SequenceResult,
    SequenceStatus,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
OUTCOMES = {
    "P": (Outcome.PASSED, None),
    "F": (Outcome.FAILED, None),
    "E": (Outcome.ERROR, None),
    "N": (Outcome.NOT_RUN, None),
    "p": (Outcome.SKIPPED, Outcome.PASSED),
    "f": (Outcome.SKIPPED, Outcome.FAILED),
}


def commit(place: int, subject: str = "Change something") -> Commit:
    moment = START + timedelta(days=place)
    return make_commit(
        place,
        hash=f"{place:040x}",
        parents=(),
        subject=subject,
        authored_at=moment,
        committed_at=moment,
    )


def configuration(**changes: object) -> Configuration:
    return make_configuration(**changes)


def environment(**changes: object) -> Environment:
    return make_environment(**changes)


def figures(similarity: float | None = 1.0 - 1e-6, **changes: object) -> Figures:
    values = {
        "num_sequences": 3,
        "num_tokens": 300,
        "num_strict": 3 if similarity is not None and similarity > 0.999 else 2,
        "num_failed": 0 if similarity is not None and similarity >= 0.995 else 1,
        "strict_pass_rate": 1.0,
        "min_similarity": similarity,
        "p01_similarity": similarity,
        "median_similarity": similarity,
        "max_similarity": similarity,
        "worst_sequence": "s0",
        "packed_s": 0.5,
    }
    return Figures(**{**values, **changes})  # type: ignore[arg-type]


def run(
    place: int,
    letter: str = "P",
    *,
    failing: Sequence[str] = ("seed",),
    similarity: float | None = None,
    **changes: object,
) -> Run:
    """A run of the commit at `place`; a failed one fails the gates `failing`, of seed and gain."""
    outcome, inherited = OUTCOMES[letter]
    counts = inherited or outcome
    bad = counts is Outcome.FAILED
    measured = counts in (Outcome.PASSED, Outcome.FAILED)
    if similarity is None:
        similarity = 0.99 if bad else 1.0 - 1e-6
    names = dict.fromkeys(["seed", "gain", *(failing if bad else ())])
    values = {
        "id": place + 1,
        "target": "project",
        "commit": commit(place),
        "protocol_digest": "ef" * 32,
        "outcome": outcome,
        "culprit": (Culprit.PACKED if bad else Culprit.NONE) if measured else None,
        "reason": "" if counts is Outcome.PASSED else f"A reason for {counts}.",
        "figures": figures(similarity) if measured else None,
        "gates": tuple(gate(name, not (bad and name in failing)) for name in names)
        if measured
        else (),
        "inherited_from": f"{place - 1:040x}" if inherited else None,
        "inherited_outcome": inherited,
        "started_at": START + timedelta(days=place, hours=1),
        "duration_s": 2.5,
    }
    return make_run(place, **{**values, **changes})


def history(letters: str, **changes: object) -> list[Run]:
    """One run for each letter; spaces skip a commit."""
    return [
        run(place, letter, **changes)  # type: ignore[arg-type]
        for place, letter in enumerate(letters)
        if letter != " "
    ]


def gate_history(rows: Sequence[Sequence[str] | str], **changes: object) -> list[Run]:
    """One run for each row: the gates that fail, or a letter for any other outcome."""
    return [
        run(place, row, **changes)  # type: ignore[arg-type]
        if isinstance(row, str)
        else run(place, "F" if row else "P", failing=row, **changes)  # type: ignore[arg-type]
        for place, row in enumerate(rows)
    ]


def sequences(similarities: Mapping[str, float | None], length: int = 100) -> list[SequenceResult]:
    return [
        SequenceResult(
            index=index,
            sequence_id=name,
            length=length,
            similarity=similarity,
            status=SequenceStatus.OK if similarity is not None else SequenceStatus.NOT_FINITE,
        )
        for index, (name, similarity) in enumerate(similarities.items())
    ]


def acknowledgement(incident: str, **changes: object) -> Acknowledgement:
    values = {
        "id": 1,
        "incident": incident,
        "who": "Ada",
        "why": "Known, being mended.",
        "created_at": START + timedelta(days=100),
    }
    return Acknowledgement(**{**values, **changes})  # type: ignore[arg-type]


def placed(
    lengths: Sequence[Sequence[int]], bad: Collection[tuple[int, int]]
) -> list[SequenceResult]:
    """Results of packs of sequences of these lengths; `bad` holds (pack, slot) of failing ones."""
    return [
        SequenceResult(
            index=10 * pack + slot,
            sequence_id=f"s{pack}{slot}",
            length=length,
            similarity=0.5 if (pack, slot) in bad else 1.0,
            pack=pack,
            slot=slot,
        )
        for pack, members in enumerate(lengths)
        for slot, length in enumerate(members)
    ]
