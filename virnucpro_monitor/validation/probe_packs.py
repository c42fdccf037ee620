"""The packs that probes ask about, made by the target's own collator.

A benchmark set fixes lengths and letters; the probes' packs fix what no set does: a pack of one, of
two, of hundreds of tiny sequences, a full one, one beyond what 16-bit boundaries can count, and
more sequences than a collator buffers. Where the collator breaks a pack, that is noted, and a pack
of our own making takes its place, so that the model is probed all the same.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from virnucpro_monitor.data.limits import MAX_RESIDUES, RESIDUE_LETTERS, SPECIAL_TOKENS
from virnucpro_monitor.records import Json, ProbeDocument
from virnucpro_monitor.validation.outside import EXCHANGED, name_token_fault
from virnucpro_monitor.validation.signature import Signature
from virnucpro_monitor.validation.subject import PackedBatch, Subject
from virnucpro_monitor.validation.tokens import encode

# Beyond it 16-bit boundaries overflow.
_BEYOND_INT16 = 34_000
_MOST_KINDS = 3  # of problems, in the sentence
_SMALLEST_BUDGET = MAX_RESIDUES + SPECIAL_TOKENS


@dataclass(frozen=True, slots=True)
class ProbePack:
    """One pack of probe sequences.

    Attributes:
        shape: what is special about it, in a few words.
        batch: as the collator made it, or ours where that one is broken.
        texts: the residues of each slot.
    """

    shape: str
    batch: PackedBatch
    texts: tuple[str, ...]


@dataclass(slots=True)
class Problems:
    """What the collator did wrong, by sequence id, and how much it was asked.

    Attributes:
        named: of the sequences whose tokens are wrong in a known way, in which.
    """

    wrong: dict[str, str] = field(default_factory=dict)
    named: list[Signature] = field(default_factory=list)
    num_sequences: int = 0
    num_calls: int = 0
    letters: set[str] = field(default_factory=set)

    @property
    def signature(self) -> Signature | None:
        """The known way in which most tokens are wrong."""
        common = Counter(self.named).most_common(1)
        return common[0][0] if common else None

    def document(self) -> ProbeDocument:
        """The probe "collator": sequences lost, doubled or with other tokens."""
        kinds = Counter(self.wrong.values())
        first = next(iter(self.wrong), "")
        what = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(_MOST_KINDS))
        return ProbeDocument(
            value=float(len(self.wrong)),
            unit="sequences",
            covers=f"{self.num_sequences:,} sequences in {self.num_calls} calls, "
            f"{len(self.letters)} letters",
            detail=f"The collator returned probe sequences wrongly: {what} (first {first})."
            if self.wrong
            else "The collator gave every probe sequence back once, with its own tokens.",
        )


def collate(
    subject: Subject,
    pairs: Sequence[tuple[str, str]],
    shape: str,
    problems: Problems,
    *,
    per_call: int | None = None,
    budget: int | None = None,
) -> list[ProbePack]:
    """Pack (id, residues) pairs with one collator of the target's, and check what comes back.

    Args:
        budget: tokens in a pack; None for the subject's own.

    Raises:
        torch.OutOfMemoryError: the device has no room for a pack.
    """
    texts = dict(pairs)
    problems.num_sequences += len(pairs)
    problems.num_calls += -(-len(pairs) // (per_call or len(pairs)))
    problems.letters |= set().union(*texts.values()) & set(RESIDUE_LETTERS)
    seen: Counter[str] = Counter()
    wrong: dict[str, str] = {}
    packs: list[ProbePack] = []
    asked = subject.token_budget
    subject.token_budget = asked if budget is None else budget
    try:
        for batch in subject.pack(pairs, per_call=per_call):
            broken = _check(batch, texts, wrong, problems.named)
            seen.update(batch.sequence_ids)
            known = tuple(texts[name] for name in batch.sequence_ids if name in texts)
            packs.append(ProbePack(shape, own_pack(batch, texts) if broken else batch, known))
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # the target's own code: whatever it raises, it lost these
        reason = f"not packed ({type(error).__name__}: {str(error)[:80]})"
        wrong |= {name: reason for name in texts if name not in seen}
    finally:
        subject.token_budget = asked
    for name in texts:
        if seen[name] != 1 and name not in wrong:
            wrong[name] = "lost" if seen[name] == 0 else "doubled"
    problems.wrong |= wrong
    missing = [(name, text) for name, text in pairs if seen[name] == 0]
    if missing:
        packs.append(
            ProbePack(shape, own_pack(None, dict(missing)), tuple(text for _, text in missing))
        )
    return [pack for pack in packs if pack.texts]


def own_pack(batch: PackedBatch | None, texts: Mapping[str, str]) -> PackedBatch:
    """A right pack of the same sequences, from our own tokens."""
    names = list(texts) if batch is None else [n for n in batch.sequence_ids if n in texts]
    segments = [encode(texts[name]) for name in names]
    lengths = [0, *(len(segment) for segment in segments)]
    bounds = torch.tensor(lengths).cumsum(0).to(torch.int32)
    return PackedBatch(
        input_ids=torch.cat(segments) if segments else torch.zeros(0, dtype=torch.int64),
        cu_seqlens=bounds,
        max_seqlen=max(lengths),
        sequence_ids=tuple(names),
    )


def _check(
    batch: PackedBatch, texts: Mapping[str, str], wrong: dict[str, str], named: list[Signature]
) -> bool:
    """Note each slot that is not its sequence's own tokens; whether the pack is of no use."""
    bounds = [int(bound) for bound in batch.cu_seqlens.tolist()]
    rising = len(bounds) == len(batch.sequence_ids) + 1 and bounds[0] == 0
    if not rising or any(b < a for a, b in itertools.pairwise(bounds)):
        wrong |= dict.fromkeys(batch.sequence_ids, "with boundaries that do not rise from 0")
        return True
    broken = False
    held: set[tuple[int, ...]] = set()
    tokens = batch.input_ids.cpu()
    for name, (start, end) in zip(batch.sequence_ids, itertools.pairwise(bounds), strict=True):
        if name not in texts:
            wrong[name], broken = "unknown", True
        elif not torch.equal(tokens[start:end], own := encode(texts[name])):
            wrong[name], broken = "with other tokens", True
            found = tokens[start:end]
            held = held or {_key(encode(texts[one])) for one in batch.sequence_ids if one in texts}
            exchanged = _key(found) in held
            signature = EXCHANGED if exchanged else name_token_fault(own, found)
            if signature is not None:
                named.append(signature)
                wrong[name] += f" ({signature.text})"
    return broken


def _key(tokens: torch.Tensor) -> tuple[int, ...]:
    return tuple(tokens.tolist())


def collator_probe(subject: Subject, definition: Mapping[str, Json], problems: Problems) -> None:
    """More sequences than a collator buffers, in several calls, longer ones in later calls, and
    one pack of more tokens than 16 bits count.

    Only ids and tokens are looked at: nothing is embedded.
    """
    count, per_call = int(definition["sequences"]), int(definition["per_call"])
    lengths = [int(length) for length in definition["lengths"]]
    pairs = []
    for number in range(count):
        length = lengths[(number + number // per_call) % len(lengths)]
        shift = number % len(RESIDUE_LETTERS)
        text = (RESIDUE_LETTERS[shift:] + RESIDUE_LETTERS[:shift])[:length]
        pairs.append((f"tiny_{number}", text))
    # So small a budget that what is buffered takes more than one pack.
    collate(subject, pairs, "", problems, per_call=per_call, budget=_SMALLEST_BUDGET)
    tokens = int(definition.get("tokens", 0))
    if tokens and subject.device.type != "cuda":  # a card embeds such a pack, by `shape_packs`
        longest = (RESIDUE_LETTERS * MAX_RESIDUES)[:MAX_RESIDUES]
        wide = _filled("wide", [longest], tokens)
        collate(subject, wide, "", problems, budget=tokens)


def shape_packs(
    subject: Subject, definition: Mapping[str, Json], problems: Problems
) -> list[ProbePack]:
    """One pack or more of every shape that the protocol names, and on a GPU larger ones.

    On a CPU, where a token of the smallest model costs what a thousand cost on a card, the packs of
    the benchmark set are the largest.
    """
    packs: list[ProbePack] = []
    for shape in definition["shapes"]:
        texts = [str(text) for text in shape["sequences"]] * int(shape.get("times", 1))
        pairs = [(f"{shape['name']}_{number}", text) for number, text in enumerate(texts)]
        packs += collate(subject, pairs, str(shape["name"]), problems)
    if subject.device.type == "cuda":
        lengths = [
            str(text) for key in ("longest", "long", "sequences") for text in definition[key]
        ]
        asked = subject.token_budget
        packs += collate(subject, _filled("budget", lengths, asked), "token budget", problems)
        if asked < _BEYOND_INT16:
            pairs = _filled("huge", lengths, _BEYOND_INT16)
            packs += collate(subject, pairs, "huge", problems, budget=_BEYOND_INT16)
    return packs


def _filled(name: str, texts: Sequence[str], budget: int) -> list[tuple[str, str]]:
    """Every text once, and again from the first on until the packs' budget is filled."""
    pairs: list[tuple[str, str]] = []
    used = 0
    for number, text in enumerate(itertools.cycle(texts)):
        used += len(text) + SPECIAL_TOKENS
        if number >= len(texts) and used > budget:
            return pairs
        pairs.append((f"{name}_{number}", text))
    return pairs
