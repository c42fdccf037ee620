"""What a judge asks of the process that runs a target, and what that may answer.

Tensors travel beside these records (`runner.channel`), in the order that each record names. The
answers come from a process that runs foreign code: every field has its type, and the judge holds
each answer against what it asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from virnucpro_monitor.records.conversion import RecordError, from_json, to_json
from virnucpro_monitor.records.messages import MessageError
from virnucpro_monitor.records.runs import Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedAlone:
    """Embed one sequence by itself. Tensor: tokens [T] int64.

    Attributes:
        fill: what memory that nobody wrote is to hold: "nan", "zeros" or "" for whatever it does.
    """

    layers: tuple[int, ...]
    fill: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedPack:
    """Embed one pack. Tensors: input_ids [tokens] int64, cu_seqlens [n + 1].

    Attributes:
        span: the rows that are asked for, from the first to the one behind the last; None for all.
    """

    layers: tuple[int, ...]
    max_seqlen: int
    sequence_ids: tuple[str, ...]
    fill: str = ""
    span: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedExactly:
    """Embed one sequence by itself in FP64, last layer. Tensor: tokens [T] int64.

    It is answered by `Embedded` of that layer.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class MakePacks:
    """Pack (id, residues) pairs with the target's own collator."""

    sequences: tuple[tuple[str, str], ...]
    per_call: int | None
    token_budget: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeFingerprints:
    """Fingerprints of all parameters and buffers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveTensor:
    """One parameter or buffer itself."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NamePackages:
    """The distributions that have been imported so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confined:
    """The first message, before any foreign code runs: what this process can no longer do.

    Attributes:
        files: it writes nothing but its own folder, and reads no oracle.
        network: it reaches no network.
        processes: it sees, stops and ends no process but its own.
        chosen: what it can still do was left to it by a setting.
        user: who it was made, where that is what keeps it from files; empty for who we are.
    """

    files: bool
    network: bool
    processes: bool
    chosen: bool = False
    user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The target's model is there; see `Subject` for the attributes.

    Attributes:
        fills: whether memory that nobody wrote can be filled.
        family, hides_residues: of encoders; see `models.families.FamilyFacts`.
    """

    model_name: str
    num_layers: int
    dtype: str
    device: str
    backend: str
    token_budget: int
    fills: bool
    family: str = "esm2"
    hides_residues: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """Tensors: one for each layer [tokens, D]; then each input that the pass changed.

    Attributes:
        changed: which inputs those are, by their place in the call.
    """

    layers: tuple[int, ...]
    changed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OnePack:
    """Two tensors: input_ids [tokens], cu_seqlens [n + 1]."""

    max_seqlen: int
    sequence_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Packs:
    """The packs, to the last of them."""

    packs: tuple[OnePack, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprinted:
    """By name: the tensor's dtype and the numbers of its fingerprint, with spaces between.

    They are too large for JSON, and hundreds of short lists take longer to read than to compute.
    """

    prints: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packages:
    """Names of distributions."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """The target raised.

    Attributes:
        shown: the exception's repr.
        ours: the monitor or the machine failed, not the target.
        out_of_memory: the device has no room.
        ends: no `Exception` but something like SystemExit.
    """

    failure: Failure
    shown: str
    ours: bool = False
    out_of_memory: bool = False
    ends: bool = False


Call = (
    EmbedAlone | EmbedExactly | EmbedPack | MakePacks | TakeFingerprints | GiveTensor | NamePackages
)
Answer = Confined | Loaded | Embedded | Packs | Fingerprinted | Given | Packages | Raised

_KINDS: dict[str, type[Call | Answer]] = {
    kind.__name__: kind
    for kind in (
        EmbedAlone, EmbedExactly, EmbedPack, MakePacks, TakeFingerprints, GiveTensor, NamePackages,
        Confined, Loaded, Embedded, Packs, Fingerprinted, Given, Packages, Raised,
    )
}  # fmt: skip


def call_to_json(call: Call | Answer) -> dict[str, Any]:
    return {"kind": type(call).__name__, **to_json(call)}


def call_from_json(content: Any) -> Call | Answer:
    """Raises: MessageError."""
    fields = dict(content) if isinstance(content, dict) else {}
    kind = _KINDS.get(str(fields.pop("kind", None)))
    if kind is None:
        raise MessageError("An answer is of no kind that is known.")
    try:
        return from_json(kind, fields)
    except RecordError as error:
        raise MessageError(f"An answer is not as agreed: {error}") from None
