"""Adapters: how a target's model becomes a `Subject` that the yardstick can judge.

An adapter is any object with the method of the `Adapter` protocol; `runner.loading` finds it.
"""

import importlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast

import torch
from esm.rotary_embedding import RotaryEmbedding

from virnucpro_monitor.errors import TargetError
from virnucpro_monitor.runner.embedder import Embedder
from virnucpro_monitor.runner.hidden_rows import in_pack_order
from virnucpro_monitor.runner.interface import find_names
from virnucpro_monitor.validation.subject import Layers, PackedBatch, Subject, dtype_name


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """What a subject must be loaded with.

    Attributes:
        checkout: root of the commit's files.
        package: import root of the monitored package, None to find it.
        checkpoint, regression: fair-esm files of the weights; of another family's the folder.
        torch_home: a private `TORCH_HOME` whose hub holds these two files under fair-esm's names.
        device: "cpu" or "cuda:N"; a commit that is measured sees one card alone, as "cuda:0".
        backend: attention backend to ask for, where the target lets one choose.
    """

    checkout: Path
    package: str | None
    model_name: str
    weights: str
    checkpoint: Path
    regression: Path
    torch_home: Path
    device: str
    dtype: torch.dtype
    backend: str
    token_budget: int


class Adapter(Protocol):
    """Loads a model from a checkout."""

    def load(self, request: LoadRequest) -> Subject | Embedder:
        """Load the model of one commit.

        Raises:
            TargetError: the commit lacks the interface, or cannot run as asked.
            Exception: anything else is stored as the run's error, with its traceback.
        """
        ...


class BuiltinAdapter:
    """This package's own packed ESM-2."""

    def load(self, request: LoadRequest) -> Subject:
        from virnucpro_monitor.validation.builtin import load_builtin

        subject = load_builtin(
            request.model_name,
            weights=request.checkpoint,
            device=request.device,
            dtype=request.dtype,
            backend=request.backend,
            token_budget=request.token_budget,
        )
        return cast(Subject, subject)  # its attributes are read-only, which a Subject may be


class SeedInterfaceAdapter:
    """Any package with `load_esm2_model`, `forward_packed` and `VarlenCollator`.

    The commit's code is left as it is. Around it: `TORCH_HOME` is private and leads to the chosen
    checkpoint, fair-esm's loader gives the model from the mapped checkpoint without initialising
    it first (`runner.warm`), the dtype is asked for by whichever parameter the target's loader has,
    hidden layers are read at the layers themselves instead of by the target's own numbers, and a
    package's `__init__` is left out where it needs a third party's package that is not installed.
    """

    def load(self, request: LoadRequest) -> Subject:
        names = find_names(request.checkout, request.package)
        os.environ["TORCH_HOME"] = str(request.torch_home)
        sys.path.insert(0, str(names.import_root))
        loader = _import_name(names.import_root, names.loader_module, "load_esm2_model")
        collator = _import_name(names.import_root, names.collator_module, "VarlenCollator")
        options = _dtype_options(loader, request)
        loaded = loader(request.model_name, device=request.device, **options)
        if not isinstance(loaded, tuple) or len(loaded) != 2:
            raise TargetError(
                f"load_esm2_model of {names.loader_module} does not give (model, batch_converter)."
            )
        model, batch_converter = loaded
        model = _with_dtype(model, request.dtype)
        return ModelSubject(
            model,
            batch_converter,
            lambda converter, budget: collator(converter, max_tokens_per_batch=budget),
            request,
        )


class TargetImportError(TargetError):
    """A module of the target cannot be imported; the cause is chained."""


def _import_name(root: Path, module_name: str, name: str) -> Any:
    try:
        module = _import_module(root, module_name)
    except Exception as error:
        raise TargetImportError(
            f"{module_name} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        raise TargetError(f"{module_name} has no {name} at this commit.") from error


def _import_module(root: Path, module_name: str) -> ModuleType:
    """Import a module of the target, past an `__init__` that needs what is not installed.

    A package's `__init__` often imports everything, also what has nothing to do with the model. If
    that fails for a third party's package, the module is imported without it; what the module
    itself needs must still be there. The target's output says so.
    """
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        parents = module_name.split(".")[:-1]
        if not parents or missing in ("", parents[0]):
            raise
        for depth in range(1, len(parents) + 1):
            parent = ".".join(parents[:depth])
            if parent not in sys.modules:
                bare = ModuleType(parent)
                bare.__path__ = [str(root.joinpath(*parents[:depth]))]
                sys.modules[parent] = bare
        module = importlib.import_module(module_name)
        sys.stderr.write(
            f"{module_name} was imported without its package's __init__, which needs {missing!r}, "
            f"and that is not installed.\n"
        )
        return module


def _dtype_options(loader: Callable[..., Any], request: LoadRequest) -> dict[str, Any]:
    """The loader's own way to choose a dtype, if it has one."""
    code = getattr(loader, "__code__", None)
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] if code else ()
    if "dtype" in names:
        return {"dtype": request.dtype}
    if "enable_fp16" in names:
        return {"enable_fp16": request.dtype is torch.float16}
    return {}


def _with_dtype(model: Any, dtype: torch.dtype) -> Any:
    """Bring a loaded model to `dtype`; weights that were rounded on loading stay rounded."""
    loaded = _floating_dtype(model)
    if loaded is dtype:
        return model
    if loaded is not torch.float32:
        raise TargetError(
            f"This commit's loader gives {dtype_name(loaded)} and offers no other: run it with "
            f"--dtype {dtype_name(loaded)}."
        )
    return _cast(model, dtype)


def _cast(model: Any, dtype: torch.dtype) -> Any:
    """`model.to(dtype)`, but fair-esm's rotary frequencies and rotation stay in FP32.

    Rounded, they put the unpacked side off by more than its limit at 1,000 residues, and the target
    would be blamed for what this program did to it.
    """
    rotaries = [module for module in model.modules() if isinstance(module, RotaryEmbedding)]
    exact = [rotary.inv_freq.clone() for rotary in rotaries]
    model = model.to(dtype)
    for rotary, inv_freq in zip(rotaries, exact, strict=True):
        rotary.inv_freq = inv_freq
        if dtype is not torch.float64:
            rotary.forward = _in_float32(rotary.forward)
    return model


def _in_float32(rotate: Callable[..., Any]) -> Callable[..., Any]:
    # What else a commit gives it is for fair-esm to refuse, by the name that the commit called.
    def rotated(
        q: torch.Tensor, k: torch.Tensor, *others: Any, **named: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        turned_q, turned_k = rotate(q.float(), k.float(), *others, **named)
        return turned_q.to(q.dtype), turned_k.to(k.dtype)

    return rotated


def _floating_dtype(model: torch.nn.Module) -> torch.dtype:
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return parameter.dtype
    raise TargetError("The loaded model has no parameters.")


class ModelSubject:
    """A model with the seed's interface, as a `Subject`."""

    def __init__(
        self,
        model: Any,
        batch_converter: Any,
        make_collator: Callable[[Any, int], Any],
        request: LoadRequest,
    ) -> None:
        if not hasattr(model, "forward_packed"):
            raise TargetError(f"{type(model).__name__} has no forward_packed at this commit.")
        self._model = model.eval()
        self._converter = batch_converter
        self._make_collator = make_collator
        self.token_budget = request.token_budget
        self.model_name = request.model_name
        self.device = torch.device(request.device)
        self._trunk = _find_trunk(model)
        self.num_layers = (
            len(self._trunk.layers) if self._trunk is not None else int(model.num_layers)
        )
        self.dtype = _floating_dtype(model)
        self.backend = _backend_of(model)

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Parameters and buffers by name."""
        return dict([*self._model.named_parameters(), *self._model.named_buffers()])

    @torch.no_grad()
    def embed_unpacked_layers(self, tokens: torch.Tensor, layers: Sequence[int]) -> Layers:
        """tokens [T] int64 -> {layer: [T, D]}, in one pass."""
        batch = tokens.to(self.device)[None, :]  # [1, T]
        found = self._read_layers(
            layers, lambda asked: self._model(batch, repr_layers=asked), (1, tokens.numel())
        )
        return {
            layer: _checked(rows[0], tokens.numel(), "forward") for layer, rows in found.items()
        }

    @torch.no_grad()
    def embed_packed_layers(self, batch: PackedBatch, layers: Sequence[int]) -> Layers:
        """{layer: [tokens, D]} in one pass, rows in the order of `batch.input_ids`."""
        ids, bounds = batch.input_ids.to(self.device), batch.cu_seqlens.to(self.device)
        found = self._read_layers(
            layers,
            lambda asked: self._model.forward_packed(
                ids, bounds, batch.max_seqlen, repr_layers=asked
            ),
            (ids.numel(),),
            batch,
        )
        for layer, rows in found.items():
            # A padded fallback may give its last layer as it is.
            if isinstance(rows, torch.Tensor) and rows.dim() == 3:
                found[layer] = in_pack_order(rows, (), batch)
            _checked(found[layer], ids.numel(), "forward_packed")
        return found

    def _read_layers(
        self,
        layers: Sequence[int],
        run: Callable[[list[int]], Any],
        leading: tuple[int, ...],
        pack: PackedBatch | None = None,
    ) -> dict[int, torch.Tensor]:
        """Run the model and return layers, numbered as fair-esm numbers them.

        Args:
            pack: in whose order rows are wanted that the layers saw in another one.
        """
        entrances = {layer: self._entrance(layer) for layer in layers}
        caught: dict[int, list[torch.Tensor]] = {}
        embedded: list[torch.Tensor] = []
        num_tokens = math.prod(leading)
        with ExitStack() as hooks:
            table = getattr(self._trunk, "embed_tokens", None)
            if pack is not None and isinstance(table, torch.nn.Module):
                hook = table.register_forward_pre_hook(lambda _, seen: embedded.extend(seen[:1]))
                hooks.callback(hook.remove)
            for layer, entrance in entrances.items():
                if entrance is not None:
                    hook = entrance.register_forward_pre_hook(_catch(caught, layer, num_tokens))
                    hooks.callback(hook.remove)
            shown = any(entrance is not None for entrance in entrances.values())
            result = run([self.num_layers]) if shown or self.num_layers in layers else None
        found: dict[int, torch.Tensor] = {}
        for layer in layers:
            if layer in caught:
                rows = _joined(caught[layer], num_tokens)
                if rows.dim() == 3 and rows.shape[:2] != leading:
                    rows = rows.transpose(0, 1)  # fair-esm keeps time first: [T, B, D] -> [B, T, D]
                if pack is not None:
                    rows = in_pack_order(rows, embedded, pack)
                found[layer] = rows
            elif layer == self.num_layers:
                found[layer] = _representation(result, layer)
            else:
                found[layer] = _representation(run([layer]), layer)
        return found

    def _entrance(self, layer: int) -> torch.nn.Module | None:
        """The module that hidden layer `layer` enters first, where it can be watched.

        Packed paths often skip the layer's own forward but not its first LayerNorm.
        """
        if layer == self.num_layers or self._trunk is None:
            return None
        return getattr(self._trunk.layers[layer], "self_attn_layer_norm", None)

    def pack(
        self, sequences: Sequence[tuple[str, str]], *, per_call: int | None = None
    ) -> Iterator[PackedBatch]:
        """Pack (id, residues) pairs with one collator of the target's, to the last of them."""
        collator = self._make_collator(self._converter, self.token_budget)
        items = [{"id": name, "sequence": text, "file": "benchmark"} for name, text in sequences]
        # Some collators answer each call with one pack and drop what does not fit into it: they
        # are handed what fits. Those that buffer make their own packs, then or at the end.
        for part in _within_budget(items, self.token_budget, per_call or len(items)):
            if pack := collator(part):
                yield _packed_batch(pack)
        if hasattr(collator, "flush"):
            for pack in collator.flush() or ():
                if pack:
                    yield _packed_batch(pack)


def _catch(
    caught: dict[int, list[torch.Tensor]], layer: int, num_tokens: int
) -> Callable[[torch.nn.Module, Any], None]:
    def hook(_: torch.nn.Module, inputs: Any) -> None:
        pieces = caught.setdefault(layer, [])
        if sum(piece[..., 0].numel() for piece in pieces) < num_tokens:
            pieces.append(inputs[0].clone())  # a target may go on adding in place

    return hook


def _joined(pieces: Sequence[torch.Tensor], num_tokens: int) -> torch.Tensor:
    """What entered a layer in one pass; of a target that goes through it once for each sequence,
    [T, 1, D] or [1, T, D] each, all sequences in their order: [tokens, D]."""
    of_one = all(piece.dim() == 2 or 1 in piece.shape[:-1] for piece in pieces)
    rows = [piece.reshape(-1, piece.shape[-1]) for piece in pieces]
    if len(pieces) == 1 or not of_one or sum(map(len, rows)) != num_tokens:
        return pieces[0]
    return torch.cat(rows)


def _within_budget(
    items: list[dict[str, str]], budget: int, most: int
) -> Iterator[list[dict[str, str]]]:
    """The items in parts of at most `budget` tokens and `most` items."""
    part: list[dict[str, str]] = []
    used = 0
    for item in items:
        length = len(item["sequence"]) + 2  # BOS and EOS
        if part and (used + length > budget or len(part) >= most):
            yield part
            part, used = [], 0
        part.append(item)
        used += length
    if part:
        yield part


_WHOLE = (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8)


def _packed_batch(pack: Any) -> PackedBatch:
    try:
        ids, bounds = pack["input_ids"], pack["cu_seqlens"]
        batch = PackedBatch(
            input_ids=ids,
            cu_seqlens=bounds,
            max_seqlen=int(pack["max_seqlen"]),
            sequence_ids=tuple(pack["sequence_ids"]),
        )
        if not isinstance(ids, torch.Tensor) or not isinstance(bounds, torch.Tensor):
            raise TypeError("input_ids and cu_seqlens must be tensors")
        if any(one.dtype not in _WHOLE for one in (ids, bounds)):
            raise TypeError("input_ids and cu_seqlens must hold whole numbers")
        if not 0 <= batch.max_seqlen < 2**31:
            raise ValueError(f"max_seqlen is {batch.max_seqlen:.3g}")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise TargetError(f"VarlenCollator's pack is not as agreed: {error!r}.") from error
    if ids.dim() != 1 or bounds.dim() != 1 or bounds.numel() != len(batch.sequence_ids) + 1:
        raise TargetError(
            f"VarlenCollator's pack is not as agreed: input_ids {tuple(ids.shape)}, cu_seqlens "
            f"{tuple(bounds.shape)} for {len(batch.sequence_ids)} sequences."
        )
    return batch


def _representation(result: Any, layer: int) -> torch.Tensor:
    try:
        return cast(torch.Tensor, result["representations"][layer])
    except (KeyError, TypeError, IndexError) as error:
        raise TargetError(
            f"The model gives no representations[{layer}] although asked for it."
        ) from error


def _checked(rows: Any, length: int, where: str) -> torch.Tensor:
    if not isinstance(rows, torch.Tensor) or not rows.is_floating_point():
        raise TargetError(f"{where} gives {type(rows).__name__}, not embeddings of a float dtype.")
    if rows.dim() != 2 or rows.shape[0] != length:
        raise TargetError(
            f"{where} gives embeddings of shape {tuple(rows.shape)} for {length} tokens."
        )
    return rows


def _find_trunk(model: torch.nn.Module) -> Any:
    """The ESM-2 inside a wrapper: whatever holds `layers` and the final LayerNorm."""
    for module in model.modules():
        if isinstance(getattr(module, "layers", None), torch.nn.ModuleList) and hasattr(
            module, "emb_layer_norm_after"
        ):
            return module
    return None


def _backend_of(model: Any) -> str:
    """What the target says its attention runs on."""
    for name in ("backend", "attention_backend", "attention_impl"):
        value = getattr(model, name, None)
        if isinstance(value, str) and value:
            return value
    return "own"
