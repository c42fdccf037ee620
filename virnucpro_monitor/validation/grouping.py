"""Which sequences a packed fault strikes, found by trying: the wrong one is packed otherwise.

The same sequence is packed alone, first, last, beside a longer one, shorter, longer, with other
letters. What makes the error come and go names the group: "the longest of each pack".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from virnucpro_monitor.data.limits import MAX_RESIDUES, SPECIAL_TOKENS
from virnucpro_monitor.validation.departure import pooled_error
from virnucpro_monitor.validation.layer_noise import layer_limits
from virnucpro_monitor.validation.perturb import bounds_of
from virnucpro_monitor.validation.subject import PackedBatch, Subject, embed_slot_layers
from virnucpro_monitor.validation.tokens import alphabet, encode

Reference = Callable[[torch.Tensor], torch.Tensor]
"""Tokens [T] of a sequence -> its right last layer [T, D]."""

_PARTNER = "MKTAYIAKQRQISFVK"
_LENGTH_STEPS = 64
# Tokens of a sequence beside which a longer one can be packed.
_ROOM_FOR_LONGER = MAX_RESIDUES + SPECIAL_TOKENS - len(_PARTNER)
_MUCH_SHORTER = 16
_TILES = (128, 64, 32, 16)
# An error of less than this share of the one that is looked into is another matter.
_SHARE = 0.1
_STANDARD = "ACDEFGHIKLMNPQRSTVWY"
# Where the sequence lies in each of the packs that are tried: alone, first, last, longest.
_PLACES = (
    "alone", "first", "last", "middle", "third", "first short", "last short", "middle short",
)  # fmt: skip
_MOST_PLACED = 3  # sequences in the largest of them
_GROUPS: tuple[tuple[str, str, frozenset[str]], ...] = (
    ("longest", "the longest of each pack", frozenset(
        {"alone", "first", "last", "middle", "third"})),
    ("not longest", "all but the longest of each pack", frozenset(
        {"first short", "last short", "middle short"})),
    ("first", "the first of each pack", frozenset({"alone", "first", "first short"})),
    ("last", "the last of each pack", frozenset({"alone", "last", "third", "last short"})),
    ("second", "the second of each pack", frozenset(
        {"last", "middle", "last short", "middle short"})),
    ("not first", "all but the first of each pack", frozenset(
        {"last", "middle", "third", "last short", "middle short"})),
    ("not last", "all but the last of each pack", frozenset(
        {"first", "middle", "first short", "middle short"})),
    ("alone", "packs of one sequence", frozenset({"alone"})),
    ("not alone", "packs of more than one sequence", frozenset(_PLACES) - {"alone"}),
    ("inner", "sequences that are neither first nor last in their pack", frozenset(
        {"middle", "middle short"})),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Group:
    """The sequences that a fault strikes: a short name, and words for a person."""

    name: str
    text: str

    def told_in(self, finding: str) -> str:
        """A finding with whom it strikes: the packed one, which stands first."""
        packed, separator, of_unpacked = finding.partition("; unpacked ")
        return f"{packed} (strikes {self.text}){separator}{of_unpacked}"


class _Trials:
    """Packs of the sequence, other sequences of its kind, and whether they come out wrong."""

    def __init__(
        self, subject: Subject, reference: Reference, error: float | None, key: str
    ) -> None:
        self._subject, self._reference = subject, reference
        noise = layer_limits(key, subject.num_layers)[-1]
        self._limit = noise if error is None else max(noise, _SHARE * error)
        self._right: dict[tuple[int, ...], torch.Tensor] = {}
        self._noise = noise
        self._known: dict[tuple[int, tuple[tuple[int, ...], ...]], float] = {}

    def is_wrong(self, segments: Sequence[torch.Tensor], slot: int) -> bool:
        """Whether the sequence in `slot` of this pack is wrong; each pack is made once."""
        return self._error(segments, slot) > self._limit

    def is_right(self, tokens: torch.Tensor) -> bool:
        """Whether a sequence packed alone has no more than healthy runs have."""
        return self._error([tokens], 0) <= self._noise

    def _error(self, segments: Sequence[torch.Tensor], slot: int) -> float:
        asked = slot, tuple(tuple(segment.tolist()) for segment in segments)
        if asked not in self._known:
            self._known[asked] = self._try(segments, slot)
        return self._known[asked]

    def _try(self, segments: Sequence[torch.Tensor], slot: int) -> float:
        batch = make_pack(segments)
        start, end = bounds_of(batch)[slot : slot + 2]
        last = self._subject.num_layers
        rows = embed_slot_layers(self._subject, batch, (start, end), [last])[last]
        tokens = segments[slot]
        key = tuple(tokens.tolist())
        if key not in self._right:
            self._right[key] = self._reference(tokens)
        right = self._right[key].to(rows.device)
        error = pooled_error(rows, right)
        return float("inf") if error is None else error


def make_pack(segments: Sequence[torch.Tensor]) -> PackedBatch:
    """Tokens of sequences, end to end."""
    lengths = [len(segment) for segment in segments]
    return PackedBatch(
        input_ids=torch.cat(list(segments)),
        cu_seqlens=torch.tensor([0, *lengths]).cumsum(0).to(torch.int32),
        max_seqlen=max(lengths),
        sequence_ids=tuple(f"trial_{number}" for number in range(len(segments))),
    )


def find_group(
    subject: Subject,
    tokens: torch.Tensor,
    reference: Reference,
    error: float | None,
    key: str,
    *,
    num_tokens: int,
    num_sequences: int,
) -> Group | None:
    """What is common to the sequences that come out wrong; None where it strikes all alike.

    Args:
        tokens: [T] int64 of one that is wrong.
        error: its pooled relative L2; None where it is not finite.
        key: the name of the limits, from `protocol.limits_key`.
        num_tokens, num_sequences: of the pack where it is wrong.
    """
    if len(tokens) <= SPECIAL_TOKENS:
        return None
    tokens = tokens.cpu()
    trials = _Trials(subject, reference, error, key)
    # Asked first, since packs beside a long sequence cost most.
    half = _of_length(tokens, max(SPECIAL_TOKENS + 1, len(tokens) // 2))
    if trials.is_wrong([tokens], 0) and not trials.is_wrong([half], 0):
        return _by_letters(trials, tokens) or _by_length(trials, tokens)
    cut = _of_length(tokens, min(len(tokens), _ROOM_FOR_LONGER))
    tried, wrong = _wrong_places(trials, cut)
    if not wrong and len(cut) < len(tokens):
        tried, wrong = _wrong_places(trials, tokens)
    if not wrong:
        return _by_pack_size(trials, tokens, num_tokens, num_sequences)
    if wrong == tried:
        return _by_letters(trials, tokens) or _by_length(trials, tokens)
    return _named(tried).get(wrong)


def _named(tried: frozenset[str]) -> dict[frozenset[str], Group]:
    """The groups that can be told by these places, by those where the sequence is wrong."""
    named: dict[frozenset[str], Group] = {}
    if len(tried) == len(_PLACES):
        for name, text, places in _GROUPS:
            several = Group(f"{name} of several", f"{text} of more than one sequence")
            named.setdefault(places, Group(name, text))
            named.setdefault(places - {"alone"}, several)
        del named[frozenset()]  # of no place at all
    return named


def _wrong_places(trials: _Trials, tokens: torch.Tensor) -> tuple[frozenset[str], frozenset[str]]:
    """The places that are tried, and those where the sequence is wrong.

    Nothing more is asked once what was seen fits no group: then some of those are missing.
    """
    packs = _placements(tokens)
    tried = frozenset(packs)
    third = packs.pop("third")
    fitting = {frozenset[str](), tried, *_named(tried)}
    asked, wrong = set[str](), set[str]()
    for place, (pack, slot) in packs.items():
        asked.add(place)
        if trials.is_wrong(pack, slot):
            wrong.add(place)
        if not any(places & asked == wrong for places in fitting):
            return tried, frozenset(wrong)
    # Only of what strikes the second and not the first it tells more than "last" does.
    tells = "last" in wrong and "first" not in wrong
    if trials.is_wrong(*third) if tells else "last" in wrong:
        wrong.add("third")
    return tried, frozenset(wrong)


def _placements(tokens: torch.Tensor) -> dict[str, tuple[list[torch.Tensor], int]]:
    residues = tokens[1:-1]
    size = min(len(residues) - 1, len(_PARTNER))
    shorter = encode(_PARTNER[: max(1, size)])
    packs = {
        "alone": ([tokens], 0),
        "first": ([tokens, shorter], 0),
        "last": ([shorter, tokens], 1),
        "middle": ([shorter, tokens, shorter], 1),
        "third": ([shorter, shorter, tokens], 2),
    }
    if len(residues) + len(_PARTNER) > MAX_RESIDUES:
        return packs
    longer = torch.cat([tokens[:-1], encode(_PARTNER)[1:]])
    return packs | {
        "first short": ([tokens, longer], 0),
        "last short": ([longer, tokens], 1),
        "middle short": ([shorter, tokens, longer], 1),
    }


def _by_pack_size(
    trials: _Trials, tokens: torch.Tensor, num_tokens: int, num_sequences: int
) -> Group | None:
    """Right in small packs: from how many tokens, or sequences, of the pack on it is wrong."""
    filler, tiny = encode(_PARTNER), encode(_PARTNER[:1])

    def at_either_end(other: torch.Tensor, count: int) -> bool:
        return trials.is_wrong([tokens, *[other] * count], 0) or trials.is_wrong(
            [*[other] * count, tokens], count
        )

    def is_wrong(total: int) -> bool:
        return at_either_end(filler, max(0, total - len(tokens)) // len(filler))

    def is_wrong_among(count: int) -> bool:
        return at_either_end(tiny, count - 1)

    fewest = len(tokens) + 2 * len(filler)
    if num_tokens > fewest and is_wrong(num_tokens):
        found = _first_wrong(is_wrong, fewest, num_tokens, len(filler))
        as_many = 2 + (found - len(tokens)) // len(filler)
        if not is_wrong_among(as_many):  # of a few tokens each
            return Group("long packs", f"packs of more than about {_rounded(found)} tokens")
        num_sequences = as_many
    if num_sequences > _MOST_PLACED and is_wrong_among(num_sequences):
        found = _first_wrong(is_wrong_among, _MOST_PLACED, num_sequences, 1)
        return Group("many in a pack", f"packs of {found} sequences or more")
    return None


def _first_wrong(is_wrong: Callable[[int], bool], low: int, high: int, step: int) -> int:
    """The first count that is wrong, to `step`, between one that is right and one that is wrong."""
    while high - low > step:
        middle = (low + high) // 2
        low, high = (low, middle) if is_wrong(middle) else (middle, high)
    return high


def _by_letters(trials: _Trials, tokens: torch.Tensor) -> Group | None:
    standard = {alphabet().get_idx(letter) for letter in _STANDARD}
    inner = set(tokens[1:-1].tolist())
    other = sorted(inner - standard)
    if not other:
        return None
    replacement = alphabet().get_idx("A")

    def without(some: Sequence[int]) -> torch.Tensor:
        changed = tokens.clone()
        for token in some:
            changed[changed == token] = replacement
        return changed

    if trials.is_wrong([without(other)], 0):
        return None
    guilty = [
        token
        for token in other
        if trials.is_wrong([without([one for one in other if one != token])], 0)
    ]
    letters = [alphabet().get_tok(token) for token in guilty or other]
    return Group("letters", f"sequences with {' or '.join(letters)}")


def _by_length(trials: _Trials, tokens: torch.Tensor) -> Group | None:
    count = len(tokens)

    def is_wrong(length: int) -> bool:
        return trials.is_wrong([_of_length(tokens, length)], 0)

    shortest = SPECIAL_TOKENS + 1
    if count <= shortest + 1:
        return None
    if is_wrong(max(shortest, count // 2)):
        if is_wrong(max(shortest, count // _MUCH_SHORTER)):
            return None
        while is_wrong(max(shortest, count // 2)):
            count //= 2
    if count < len(tokens) and not trials.is_right(_of_length(tokens, max(shortest, count // 2))):
        return None  # it fades with the length, and strikes all
    longest = MAX_RESIDUES + SPECIAL_TOKENS
    if not is_wrong(count - 1) and count < longest and not is_wrong(count + 1):
        for tile in _TILES:
            if count % tile == 0 and (other := count + tile) <= longest and is_wrong(other):
                return Group("tile lengths", f"sequences of a multiple of {tile} tokens")
        return Group("one length", f"sequences of exactly {count} tokens")
    step = max(1, count // _LENGTH_STEPS)
    found = _first_wrong(is_wrong, count // 2, count, step)
    about = "" if step == 1 else "about "
    if trials.is_right(_of_length(tokens, count // 2)):
        # Just beyond a limit the error may be small, and yet none that healthy runs have.
        found = _first_wrong(
            lambda length: not trials.is_right(_of_length(tokens, length)), count // 2, found, 1
        )
        about = "" if is_wrong(found) else "about "
    letter = None if about else _by_letter(trials, tokens, int(tokens[found - SPECIAL_TOKENS]))
    return letter or Group("long sequences", f"sequences of {about}{found} tokens or more")


def _by_letter(trials: _Trials, tokens: torch.Tensor, token: int) -> Group | None:
    """What seems to strike from a length on may strike the letter that is there first."""
    alone, other = tokens[:3].clone(), tokens.clone()
    alone[1], alone[2] = token, tokens[-1]
    other[tokens == token] = alphabet().get_idx("G" if alphabet().get_tok(token) == "A" else "A")
    if trials.is_wrong([alone], 0) and not trials.is_wrong([other], 0):
        return Group("letters", f"sequences with {alphabet().get_tok(token)}")
    return None


def _of_length(tokens: torch.Tensor, count: int) -> torch.Tensor:
    """The sequence cut, or grown by its own residues, to `count` tokens."""
    residues = tokens[1:-1]
    times = -(-(count - SPECIAL_TOKENS) // len(residues))
    grown = residues.repeat(times)[: count - SPECIAL_TOKENS]
    return torch.cat([tokens[:1], grown, tokens[-1:]])


def _rounded(count: int) -> int:
    """To two digits: the packs that were tried are whole sequences apart."""
    return round(count, 2 - len(str(count)))
