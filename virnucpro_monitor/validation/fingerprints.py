"""Weights as they are: whether a pass changed them, and whether they are the checkpoint's.

A fingerprint is a few exact integer sums over a tensor's bits, so that a model of any size is
looked through on its own device without a second copy.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from virnucpro_monitor.models.weights import load_checkpoint
from virnucpro_monitor.records import Culprit, ProbeDocument
from virnucpro_monitor.validation.subject import Subject, dtype_name

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# Elements that are summed first: prime, so that a block does not end where a matrix's row does.
_BLOCK = 61
# Tensors of one size are summed together, in copies of no more than this: on a card a call costs
# more than a copy, on a CPU only for small ones.
_STACKED_BYTES = 32 * 1024**2
_STACKED_BYTES_ON_CPU = 64 * 1024
# Of what `_sums` computes; sums that another definition left beside a checkpoint are not compared.
_DEFINITION = 2
# Formats that weights may have been rounded to, the coarsest first: float16 holds most values of
# bfloat16 as well.
_ROUNDINGS = (torch.bfloat16, torch.float16)
_UNIT = "tensors"

Fingerprints = dict[str, tuple[int, ...]]


@runtime_checkable
class DistantTensors(Protocol):
    """Tensors by name that lie in another process, which takes their fingerprints itself."""

    def fingerprints(self) -> Fingerprints: ...

    def dtypes(self) -> Mapping[str, torch.dtype]: ...


def fingerprint(tensor: torch.Tensor) -> tuple[int, ...]:
    """(elements, sum, weighted sum) of a tensor's bits as integers, the same on any device."""
    return (tensor.numel(), *_sums([_bits(tensor)])[0].tolist())


def fingerprints(tensors: Mapping[str, torch.Tensor]) -> Fingerprints:
    """By name; what is not an ordinary dense tensor is left out. A device is waited for once."""
    if isinstance(tensors, DistantTensors):
        return tensors.fingerprints()
    names = [
        name
        for name, tensor in tensors.items()
        if tensor.layout is torch.strided
        and not tensor.is_meta
        and not tensor.is_complex()
        and not tensor.is_quantized
    ]
    found: Fingerprints = {}
    for device in {tensors[name].device for name in names}:
        alike: dict[tuple[int, int], list[str]] = {}
        most = _STACKED_BYTES_ON_CPU if device.type == "cpu" else _STACKED_BYTES
        for name in names:
            tensor = tensors[name]
            if tensor.device == device:
                alike.setdefault((tensor.element_size(), tensor.numel()), []).append(name)
        order, sums = [], []
        for (size, count), some in alike.items():
            at_once = max(1, most // max(1, size * count))
            for start in range(0, len(some), at_once):
                part = some[start : start + at_once]
                order += part
                sums.append(_sums([_bits(tensors[name]) for name in part]))
        found |= {
            name: (tensors[name].numel(), *two)
            for name, two in zip(order, torch.cat(sums).tolist(), strict=True)
        }
    return {name: found[name] for name in names}


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """[elements], as integers of their size."""
    bits = tensor.detach().reshape(-1)
    if bits.dtype is torch.bool:
        bits = bits.to(torch.int8)
    return bits.view(_INTEGERS[bits.element_size()])


def _sums(alike: Sequence[torch.Tensor]) -> torch.Tensor:
    """[n, 2] int64 of n tensors' bits, [elements] each.

    The first is their sum, the second their sum with each block's place as its weight.
    """
    bits = alike[0][None] if len(alike) == 1 else torch.stack(list(alike))
    whole = bits.shape[1] // _BLOCK * _BLOCK
    blocks = bits[:, :whole].reshape(len(bits), whole // _BLOCK, _BLOCK).sum(2, dtype=torch.int64)
    parts = torch.cat([blocks, bits[:, whole:].to(torch.int64)], dim=1)
    places = torch.arange(1, parts.shape[1] + 1, device=parts.device)
    return torch.stack([parts.sum(1), (parts * places).sum(1)], dim=1)


def changed(before: Fingerprints, after: Fingerprints) -> list[str]:
    """Names of tensors whose bits changed; new and vanished ones are caches, not weights."""
    return [name for name, one in before.items() if name in after and after[name] != one]


@dataclass(frozen=True, slots=True)
class WeightsWatch:
    """Fingerprints at three times: as loaded, after unpacked passes, after a packed one too."""

    loaded: Fingerprints
    after_unpacked: Fingerprints
    after_packed: Fingerprints


def judge_weights(
    subject: Subject, watch: WeightsWatch, checkpoint: tuple[str, str, Path] | None
) -> ProbeDocument:
    """Tensors that a pass changed, or that are not the checkpoint's.

    Args:
        checkpoint: model, digest and path of the weights; None to leave them out.
    """
    by_unpacked = changed(watch.loaded, watch.after_unpacked)
    by_packed = changed(watch.after_unpacked, watch.after_packed)
    by_packed = [name for name in by_packed if name in watch.loaded]  # others are work space
    tensors = subject.tensors()
    found = fingerprints(tensors)
    if not found and not watch.loaded:
        return ProbeDocument(
            unit=_UNIT, not_judged="The target shows no parameters or buffers (tensors)."
        )
    now = changed(watch.after_packed, found)
    # What came only later is the packed side's, unless an unpacked pass was seen to change weights.
    doer = by_unpacked if by_unpacked and not by_packed else by_packed
    doer += [name for name in now if name in watch.loaded and name not in doer]
    covers = f"{len(watch.loaded)} parameters and buffers before and after"
    if by_packed or by_unpacked:
        names = by_packed or by_unpacked
        both = bool(by_packed) and bool(by_unpacked)
        culprit = Culprit.PACKED if by_packed else Culprit.UNPACKED
        who = "A packed" if by_packed else "An unpacked"
        tensor = tensors[names[0]]
        return ProbeDocument(
            value=float(len(names)),
            unit=_UNIT,
            culprit=Culprit.BOTH if both else culprit,
            covers=covers,
            detail=f"{who} pass changed {len(names)} of {len(watch.loaded)} parameters and "
            f"buffers, first {names[0]}{_rounding_text(tensor)}.",
        )
    if checkpoint is None:
        return ProbeDocument(
            value=0.0, unit=_UNIT, covers=covers, detail="No pass changes the model's weights."
        )
    return _against_checkpoint(tensors, found, checkpoint, covers)


def _against_checkpoint(
    tensors: Mapping[str, torch.Tensor],
    found: Fingerprints,
    checkpoint: tuple[str, str, Path],
    covers: str,
) -> ProbeDocument:
    if isinstance(tensors, DistantTensors):
        dtypes = tensors.dtypes()
    else:
        dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    expected = _checkpoint_fingerprints(*checkpoint, set(dtypes.values()))
    pairs = _matched(found, {name for name, _ in expected})
    wrong = [
        name
        for name, ours in pairs.items()
        if found[name] != expected.get((ours, dtype_name(dtypes[name])), found[name])
    ]
    compared = f"{len(pairs)} of them with the checkpoint"
    if not wrong:
        return ProbeDocument(
            value=0.0,
            unit=_UNIT,
            covers=f"{covers}, {compared}",
            detail="No pass changes the model's weights, and they are the checkpoint's.",
        )
    return ProbeDocument(
        value=float(len(wrong)),
        unit=_UNIT,
        culprit=Culprit.BOTH,
        covers=f"{covers}, {compared}",
        detail=f"{len(wrong)} of {len(pairs)} parameters are not the checkpoint's, first "
        f"{wrong[0]}{_rounding_text(tensors[wrong[0]])}.",
    )


def _matched(names: Mapping[str, object], ours: set[str]) -> dict[str, str]:
    """Name in the model -> name in the checkpoint, by its end, where there is exactly one."""
    found: dict[str, list[str]] = {}
    for name in names:
        parts = name.split(".")
        ends = (".".join(parts[start:]) for start in range(len(parts)))
        known = next((end for end in ends if end in ours), None)
        if known is not None:
            found.setdefault(known, []).append(name)
    return {theirs[0]: known for known, theirs in found.items() if len(theirs) == 1}


def _checkpoint_fingerprints(
    model_name: str, digest: str, path: Path, dtypes: set[torch.dtype]
) -> dict[tuple[str, str], tuple[int, ...]]:
    """By (name, dtype), of the checkpoint cast to each floating dtype; kept beside the file."""
    wanted = {dtype for dtype in dtypes if dtype.is_floating_point}
    note = path.with_name(f"{path.name}.fingerprints.json")
    with suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads(note.read_text(encoding="utf-8"))
        known = (stored["digest"], stored["definition"]) == (digest, _DEFINITION)
        if known and {dtype_name(one) for one in wanted} <= set(stored["dtypes"]):
            return {(name, dtype): tuple(one) for name, dtype, one in stored["fingerprints"]}
    model, _ = load_checkpoint(model_name, path)
    parameters = dict(model.named_parameters())
    found = {
        (name, dtype_name(dtype)): fingerprint(parameter.to(dtype))
        for dtype in wanted
        for name, parameter in parameters.items()
    }
    content = {
        "digest": digest,
        "definition": _DEFINITION,
        "dtypes": sorted(dtype_name(one) for one in wanted),
        "fingerprints": [[name, dtype, list(one)] for (name, dtype), one in found.items()],
    }
    with suppress(OSError):  # a read-only folder: computed again next time
        partial = note.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(content), encoding="utf-8")
        partial.replace(note)
    return found


def _rounding_text(tensor: torch.Tensor) -> str:
    """ ", whose values are those of float16", where a narrower format holds them all."""
    if not tensor.is_floating_point():
        return ""
    for dtype in _ROUNDINGS:
        narrower = torch.finfo(dtype).eps > torch.finfo(tensor.dtype).eps
        rounded = tensor.detach().to(dtype).to(tensor.dtype)
        if narrower and bool(torch.equal(rounded, tensor.detach())) and bool(tensor.any()):
            return f", which is rounded to {dtype_name(dtype)}"
    return ""
