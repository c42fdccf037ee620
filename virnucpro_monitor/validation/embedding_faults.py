"""What a wrong embedding layer looks like, told from its rows alone.

Every explanation is held against the very rows that it is about: `<mask>` tokens are blamed only in
a sequence that has some, and a factor only where it reproduces the rows.
"""

from collections.abc import Iterator

import torch

from virnucpro_monitor.data.limits import SPECIAL_TOKENS
from virnucpro_monitor.validation import measures
from virnucpro_monitor.validation.signature import Signature
from virnucpro_monitor.validation.tokens import alphabet

_RATIO = 0.88
_FACTOR_TOLERANCE = 0.004
# A `<mask>` row is zero; one of at least this share of the others' length was left in.
_LEFT_IN = 0.1
# Rows that a known factor leaves this far off are not explained by it.
_EXPLAINED = 0.02
_HALF = (torch.bfloat16, torch.float16)

SIGN = Signature("sign", "a flipped sign")
ZERO = Signature("zero", "an embedding that is all zero")
RESCALE_MISSING = Signature("rescale missing", "a missing 0.88 token-dropout rescale")
RESCALE_TWICE = Signature("rescale twice", "the 0.88 token-dropout rescale applied twice")
MASK_NOT_ZEROED = Signature("mask not zeroed", "<mask> tokens that are not zeroed")
MASK_RESCALE_MISSING = Signature(
    "mask rescale missing", "a missing rescale by the observed share of <mask> tokens"
)
MASK_RESCALE_OF_PACK = Signature(
    "mask rescale of the pack", "a rescale by the whole pack's share of <mask> tokens"
)
MASK_RESCALE_OF_RESIDUES = Signature(
    "mask rescale of residues",
    "a rescale by the share of <mask> among residues, without <cls>, <eos>",
)
OTHER_ROWS = Signature(
    "other tokens' rows", "rows of other tokens than the pack's, as a stale cache gives"
)
DROPOUT_OFF = Signature(
    "token dropout off", "token dropout switched off (no 0.88, and <mask> tokens not zeroed)"
)


def name_embedding_fault(
    seen: torch.Tensor,
    exact: torch.Tensor,
    tokens: torch.Tensor,
    *,
    pack_share: float | None = None,
    table: torch.Tensor | None = None,
) -> Signature | None:
    """What wrong rows [T, D] of the embedding layer look like, if known.

    Args:
        tokens: [T] int64 of the sequence.
        pack_share: of `<mask>` among all tokens of its pack.
        table: [33, D], the checkpoint's; letters read as others are told by it.
    """
    if not bool(torch.isfinite(seen).all()):
        return None
    masked = tokens == alphabet().mask_idx
    share = float(masked.double().mean())
    plain_seen, plain_exact = seen[~masked].double(), exact[~masked].double()
    found: list[Signature] = []
    factor = measures.scale_factor(plain_seen, plain_exact)
    error = measures.relative_l2(plain_seen, plain_exact)
    scaled = factor is not None and abs(factor - 1.0) >= _FACTOR_TOLERANCE
    if scaled and factor is not None and _explains(plain_seen, factor * plain_exact):
        named = _named_factor(factor, share, pack_share, len(tokens))
        found += [named] if named else []
    elif error and table is not None:
        kept = tokens[~masked]
        found += [one for one in _by_the_table(plain_seen, plain_exact, kept, table) if one]
    if share > 0 and float(seen[masked].double().norm()) > _LEFT_IN * float(plain_seen.norm()):
        read = None if table is None else _read_as(seen[masked], table)
        if read == {alphabet().mask_idx} or read is None:
            found.append(MASK_NOT_ZEROED)
        elif len(read) == 1:
            letter = alphabet().get_tok(read.pop())
            return Signature("letters", f"<mask> read as {letter}")
        else:
            return OTHER_ROWS
    if {RESCALE_MISSING.name, MASK_NOT_ZEROED.name} == {one.name for one in found}:
        return DROPOUT_OFF
    if not found:
        return None
    return Signature(found[-1].name, " and ".join(one.text for one in found))


def _named_factor(
    factor: float, share: float, pack_share: float | None, num_tokens: int
) -> Signature | None:
    """`share`: of the sequence's own `num_tokens` that are `<mask>`."""
    observed = 1.0 - share
    known = [(-1.0, SIGN), (0.0, ZERO), (1.0 / _RATIO, RESCALE_MISSING), (_RATIO, RESCALE_TWICE)]
    if share > 0:
        # Without token dropout neither the 0.88 nor the observed share is applied.
        known += [(observed / _RATIO, RESCALE_MISSING), (observed, MASK_RESCALE_MISSING)]
        of_residues = share * num_tokens / (num_tokens - SPECIAL_TOKENS)
        if of_residues < 1:
            known.append((observed / (1.0 - of_residues), MASK_RESCALE_OF_RESIDUES))
    if pack_share is not None and abs(pack_share - share) > 0.001:
        known.append((observed / (1.0 - pack_share), MASK_RESCALE_OF_PACK))
    distance, signature = min(
        ((abs(factor - value), named) for value, named in known), key=lambda pair: pair[0]
    )
    return signature if distance < _FACTOR_TOLERANCE else None


def _by_the_table(
    seen: torch.Tensor, exact: torch.Tensor, tokens: torch.Tensor, table: torch.Tensor
) -> Iterator[Signature | None]:
    named = _letters(seen, exact, tokens, table)
    yield named
    scale = measures.scale_factor(exact[:1], table[tokens[:1]])
    if named is not None or scale is None:
        return
    plain = measures.relative_l2(seen, exact)
    for dtype in _HALF:
        error = measures.relative_l2(seen, scale * table.to(dtype).double()[tokens])
        if error is not None and plain is not None and 4.0 * error < plain:
            name = str(dtype).removeprefix("torch.")
            yield Signature(f"weights {name}", f"weights rounded to {name} (embed_tokens.weight)")
            return


def _read_as(seen: torch.Tensor, table: torch.Tensor) -> set[int] | None:
    """The tokens whose rows these are, at whatever scale; None where they are no tokens' rows."""
    known = torch.nn.functional.normalize(table.double(), dim=-1)
    cosines = torch.nn.functional.normalize(seen.double(), dim=-1) @ known.T
    if not bool((cosines.max(-1).values > 1.0 - _EXPLAINED**2).all()):
        return None
    return set(cosines.argmax(-1).tolist())


def _letters(
    seen: torch.Tensor, exact: torch.Tensor, tokens: torch.Tensor, table: torch.Tensor
) -> Signature | None:
    """Letters whose rows are another letter's own, while all other rows are right."""
    off = (seen.double() - exact.double()).norm(dim=-1) > _EXPLAINED * exact.double().norm(dim=-1)
    scale = measures.scale_factor(exact[~off], table[tokens[~off]]) if bool((~off).any()) else None
    if scale is None or not bool(off.any()):
        return None
    pairs: dict[str, str] = {}
    known = scale * table.double()
    for place in off.nonzero().flatten().tolist():
        token = int(tokens[place])
        if not bool(seen[place].any()):
            pairs[alphabet().get_tok(token)] = "nothing"
            continue
        distances = (known - seen[place].double()).norm(dim=-1)
        read = int(distances.argmin())
        if float(distances[read]) > _EXPLAINED * float(known[read].norm()) or read == token:
            return None
        letter, other = alphabet().get_tok(token), alphabet().get_tok(read)
        if pairs.setdefault(letter, other) != other:
            return OTHER_ROWS
    if len(pairs) > len(set(tokens.tolist())) // 2:
        return OTHER_ROWS  # rows of another sequence
    said = ", ".join(
        f"{letter} set to zero" if other == "nothing" else f"{letter} read as {other}"
        for letter, other in sorted(pairs.items())
    )
    return Signature("letters", said)


def _explains(seen: torch.Tensor, wanted: torch.Tensor) -> bool:
    error = measures.relative_l2(seen, wanted)
    return (error is not None and error < _EXPLAINED) or not bool(seen.any())
