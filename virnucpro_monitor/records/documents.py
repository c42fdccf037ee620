"""The evidence of a run, document by document.

A verdict carries its documents as JSON values by name, since that is how they are stored and sent.
Here is what each of them holds. Every field has a default, so that documents of older runs, which
lack what came later, can still be read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from virnucpro_monitor.records.conversion import from_json
from virnucpro_monitor.records.outcome import Culprit
from virnucpro_monitor.records.runs import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class NotFinite:
    """Ids of the sequences with NaN or infinity on a side."""

    packed: tuple[str, ...] = ()
    unpacked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PacksDocument:
    """ "packs": what a pass over a benchmark set found beside the sequences' measures.

    Attributes:
        num_layers, width: of the model, as it was embedded with; None in older runs.
        packed_s, unpacked_s: seconds spent in either path; None for an unpacked one that was not
            walked for every sequence, since an earlier commit's result stands for it.
        unknown_ids: ids that came back and are not the benchmark's.
        other_tokens: ids whose tokens in the pack are not the sequence's own.
        residue_errors: by id, [packed, unpacked]: relative L2 against the oracle at the residue
            where the sides disagree most; None where not finite.
    """

    num_packs: int = 0
    num_tokens: int = 0
    num_layers: int | None = None
    width: int | None = None
    packed_s: float | None = None
    unpacked_s: float | None = None
    unknown_ids: tuple[str, ...] = ()
    other_tokens: tuple[str, ...] = ()
    not_finite: NotFinite = field(default_factory=NotFinite)
    residue_errors: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)


NO_ORACLE = "none"
OWN_ORACLE = "self-fp64"
"""The target's own unpacked path in FP64."""
FAIR_ESM_ORACLE = "fair-esm FP32"


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleDocument:
    """ "oracle": what both sides were held against.

    Attributes:
        kind: `FAIR_ESM_ORACLE`, `OWN_ORACLE`, "hf:MODEL@VERSION", "file:PATH", or `NO_ORACLE`: then
            nobody can say whether equal sides are right.
        digest: of the model, weights, benchmark set and layer; empty without one.
    """

    kind: str = FAIR_ESM_ORACLE
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeDocument:
    """One entry of "probes": what a probe found, before any gate judges it.

    Attributes:
        value: the worst value seen, None where it is not finite or not judged.
        detail: one sentence for a person.
        covers: what was asked, in a few words ("29 lengths from 1 to 1,022").
        not_judged: why the probe could not run on this target.
        sides: the worst value of [packed, unpacked], where each has its own.
        culprit: the side at fault, where the probe knows it beyond its values.
        factor: least-squares factor between the worst rows and the right ones (embedding).
        looks_like, signature: what the worst rows look like, and its short name (embedding).
        spoils_unpacked: the packed side changes what the unpacked side gives, so that nothing that
            is measured later says anything against the latter.
        passes: packed passes that were made (leak).
        disagreement: pooled packed-unpacked relative L2 by share of `<mask>` tokens (mask).
    """

    value: float | None = None
    unit: str = "relative L2"
    detail: str = ""
    covers: str = ""
    not_judged: str | None = None
    sides: tuple[float | None, ...] | None = None
    culprit: Culprit | None = None
    factor: float | None = None
    looks_like: str | None = None
    signature: str | None = None
    spoils_unpacked: bool = False
    passes: int | None = None
    disagreement: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseDocument:
    """ "noise": the noise floor that the probes saw.

    Attributes:
        packed_repeat, unpacked_repeat: largest absolute difference of the same input twice.
        reordered: relative L2 of a sequence at another place of its pack, all residues.
    """

    packed_repeat: float | None = None
    unpacked_repeat: float | None = None
    reordered: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryDocument:
    """ "memory": packs were halved after the device ran out of memory."""

    asked_tokens: int
    used_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputDocument:
    """ "output": what the target printed."""

    text: str


_Document = TypeVar("_Document")


def read_document(
    kind: type[_Document], documents: Mapping[str, Json], name: str
) -> _Document | None:
    """One document of a run as a record; None where it has none.

    Raises:
        TypeError: it is not what `kind` describes.
    """
    value = documents.get(name)
    return None if value is None else from_json(kind, value)


def read_packs(documents: Mapping[str, Json]) -> PacksDocument:
    """The document "packs"; an empty one where there is none."""
    return read_document(PacksDocument, documents, "packs") or PacksDocument()


def read_oracle(documents: Mapping[str, Json]) -> str | None:
    """What kind of oracle the document "oracle" names; None where an older run has no such."""
    named = read_document(OracleDocument, documents, "oracle")
    return named.kind if named else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsDocument:
    """ "limits": that a run of another family than ESM-2 was judged by limits of its own.

    Attributes:
        family: as in `adapter:family=NAME`.
        factor: how many times the protocol's limits.
    """

    family: str
    factor: float


def read_limits(documents: Mapping[str, Json]) -> LimitsDocument | None:
    """The document "limits"; None where the protocol's own are meant."""
    return read_document(LimitsDocument, documents, "limits")


def read_probes(documents: Mapping[str, Json]) -> dict[str, ProbeDocument]:
    """The document "probes" by gate; empty where no probes ran."""
    return {
        name: from_json(ProbeDocument, value)
        for name, value in (documents.get("probes") or {}).items()
    }


def read_branches(documents: Mapping[str, Json]) -> tuple[str, ...]:
    """The document "branches": names of the branches that hold the run's commit."""
    return tuple(str(name) for name in documents.get("branches") or ())
