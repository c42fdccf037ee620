"""The process that runs a target: it loads the commit's model and embeds what it is asked to.

It judges nothing. Before any foreign code is imported, it gives up what that code has no use for
(`runner.confinement`).
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from virnucpro_monitor.errors import TargetError
from virnucpro_monitor.records.calls import (
    Answer,
    Call,
    Confined,
    EmbedAlone,
    Embedded,
    EmbedExactly,
    EmbedPack,
    Fingerprinted,
    Given,
    GiveTensor,
    Loaded,
    MakePacks,
    NamePackages,
    OnePack,
    Packages,
    Packs,
    Raised,
    TakeFingerprints,
)
from virnucpro_monitor.records.messages import MeasureJob, MessageError
from virnucpro_monitor.runner.channel import Channel, ChannelClosedError
from virnucpro_monitor.runner.standby import (
    NEEDS_FRESH,
    get_ready,
    read_at_start,
    wait_for_go,
)

# Where what a target uses keeps compiled code and other things that it can do without.
_CACHES = (
    "TMPDIR", "XDG_CACHE_HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR", "TORCH_EXTENSIONS_DIR",
)  # fmt: skip
_KERNELS = ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "CUDA_CACHE_PATH")


def serve(
    job: MeasureJob,
    channel: Channel,
    confined: Confined,
    scratch: Path | None,
    go_fd: int | None = None,
) -> None:
    """Load the job's commit, and answer until the judge has gone.

    Args:
        confined: what this process has given up.
        scratch: the folder that it may write; None where there is none.
        go_fd: told when the commit is there; None where it is there already.
    """
    _use(scratch, job.kernels)
    host = Host(job)
    before: dict[str, str] | None = None
    if go_fd is not None:
        get_ready(job, go_fd)
        if job.request.device.startswith("cuda"):
            channel.pin(job.request.device)
        wait_for_go(go_fd)
        before = read_at_start()
    channel.send(confined)
    call: Call | Answer | None = None
    tensors: list[Any] = []
    while True:
        try:
            answer, rows = host.load() if call is None else host.answer(call, tensors)
            if call is None and before not in (None, read_at_start()):
                os._exit(NEEDS_FRESH)
        except BaseException as error:
            answer, rows = host.raised(error), []
        try:
            channel.send(answer, rows)
        except MessageError as error:
            channel.send(host.raised(TargetError(str(error))))
        try:
            call, tensors = channel.receive()
        except ChannelClosedError:
            return


def _use(scratch: Path | None, kernels: str | None) -> None:
    """Let libraries keep their temporary files where this process may write."""
    if scratch is None:
        return
    for name in _CACHES:
        os.environ[name] = str(scratch)
    for name in _KERNELS:
        os.environ[name] = str(Path(kernels or scratch) / name.lower())
    tempfile.tempdir = None  # asked anew


class Host:
    """The target's model and what is done with it."""

    def __init__(self, job: MeasureJob) -> None:
        self._job = job
        self._checkout = Path(job.checkout)
        self._subject: Any = None
        self._exact: Any = None

    def load(self) -> tuple[Answer, Sequence[Any]]:
        import torch

        from virnucpro_monitor.models.families import FAMILIES
        from virnucpro_monitor.runner.adapter_names import parse_adapter
        from virnucpro_monitor.runner.embedder import EmbedderSubject
        from virnucpro_monitor.runner.warm import install_loader, install_tokenizer
        from virnucpro_monitor.validation.poison import poisoned
        from virnucpro_monitor.validation.subject import dtype_name

        job = self._job
        torch.set_num_threads(job.num_threads)
        request = job.request
        checkpoint, regression = Path(job.checkpoint), Path(job.regression)
        if job.warm:
            install_loader(request.model, checkpoint, regression)
            install_tokenizer()
        os.chdir(self._checkout)
        subject = self._loaded(request.device, request.dtype)
        self._subject = subject
        with poisoned(subject.device) as fills:
            pass
        family = FAMILIES[parse_adapter(job.adapter).family].facts
        if isinstance(subject, EmbedderSubject):
            family = subject.family  # which its model may have named
        loaded = Loaded(
            model_name=subject.model_name,
            num_layers=subject.num_layers,
            dtype=dtype_name(subject.dtype),
            device=str(subject.device),
            backend=str(subject.backend),
            token_budget=subject.token_budget,
            fills=fills,
            family=family.name,
            hides_residues=family.hides_residues,
        )
        return loaded, []

    def _loaded(self, device: str, dtype: str) -> Any:
        import torch

        from virnucpro_monitor.runner.adapters import LoadRequest
        from virnucpro_monitor.runner.loading import load_subject

        job = self._job
        request = job.request
        return load_subject(
            job.adapter,
            LoadRequest(
                checkout=self._checkout,
                package=job.package,
                model_name=request.model,
                weights=request.weights,
                checkpoint=Path(job.checkpoint),
                regression=Path(job.regression),
                torch_home=Path(job.torch_home),
                device=device,
                dtype=getattr(torch, dtype),
                backend=request.backend,
                token_budget=request.token_budget,
            ),
            job.adapter_paths,
        )

    def _exactly(self, tokens: Any) -> tuple[Answer, Sequence[Any]]:
        """By a second model, in FP64 and on the CPU: the first stays as it is."""
        if self._exact is None:
            try:
                self._exact = self._loaded("cpu", "float64")
            except TargetError as error:
                raise TargetError(
                    f"The oracle self-fp64 needs the model in FP64 as request.dtype asks: {error}"
                ) from error
        layer = self._exact.num_layers
        rows = self._exact.embed_unpacked_layers(tokens, [layer])[layer]
        return Embedded(layers=(layer,)), [rows]

    def answer(self, call: Any, tensors: list[Any]) -> tuple[Answer, Sequence[Any]]:
        if isinstance(call, (EmbedAlone, EmbedPack)):
            return self._embed(call, tensors)
        if isinstance(call, EmbedExactly):
            return self._exactly(tensors[0])
        if isinstance(call, MakePacks):
            return self._pack(call)
        if isinstance(call, TakeFingerprints):
            return self._fingerprints(), []
        if isinstance(call, GiveTensor):
            return Given(), [self._subject.tensors()[call.name]]
        if isinstance(call, NamePackages):
            from virnucpro_monitor.runner.packages import imported_packages

            return Packages(names=imported_packages()), []
        raise MessageError(f"{type(call).__name__} cannot be asked.")

    def raised(self, error: BaseException) -> Raised:
        import torch

        from virnucpro_monitor.runner.failures import describe_failure, is_ours

        out_of_memory = isinstance(error, torch.OutOfMemoryError)
        failure = describe_failure(error, self._checkout)
        raised = Raised(
            failure=failure,
            shown=repr(error)[:1000],
            ours=is_ours(error),
            out_of_memory=out_of_memory,
            ends=not isinstance(error, Exception),
        )
        if out_of_memory:
            error.__traceback__ = None  # it holds on to the tensors of the failed attempt
            torch.cuda.empty_cache()
        return raised

    def _embed(
        self, call: EmbedAlone | EmbedPack, tensors: list[Any]
    ) -> tuple[Answer, Sequence[Any]]:
        import torch

        from virnucpro_monitor.validation.poison import filled
        from virnucpro_monitor.validation.subject import PackedBatch

        subject, layers = self._subject, list(call.layers)
        kept = [tensor.clone() for tensor in tensors]
        with filled(subject.device, call.fill):
            if isinstance(call, EmbedPack):
                batch = PackedBatch(tensors[0], tensors[1], call.max_seqlen, call.sequence_ids)
                found = subject.embed_packed_layers(batch, layers)
                if call.span is not None:
                    found = {layer: found[layer][slice(*call.span)] for layer in layers}
            else:
                found = subject.embed_unpacked_layers(tensors[0].to(subject.device), layers)
        pairs = enumerate(zip(tensors, kept, strict=True))
        changed = tuple(place for place, (now, before) in pairs if not torch.equal(now, before))
        rows = [found[layer] for layer in layers]
        embedded = Embedded(layers=call.layers, changed=changed)
        return embedded, [*rows, *(tensors[place] for place in changed)]

    def _pack(self, call: MakePacks) -> tuple[Answer, Sequence[Any]]:
        self._subject.token_budget = call.token_budget
        packs = list(self._subject.pack(list(call.sequences), per_call=call.per_call))
        told = tuple(
            OnePack(
                max_seqlen=int(pack.max_seqlen),
                sequence_ids=tuple(map(str, pack.sequence_ids)),
            )
            for pack in packs
        )
        tensors = [rows for pack in packs for rows in (pack.input_ids, pack.cu_seqlens)]
        return Packs(packs=told), tensors

    def _fingerprints(self) -> Fingerprinted:
        from virnucpro_monitor.validation.fingerprints import fingerprints
        from virnucpro_monitor.validation.subject import dtype_name

        tensors = self._subject.tensors()
        return Fingerprinted(
            prints={
                name: " ".join([dtype_name(tensors[name].dtype), *map(str, one)])
                for name, one in fingerprints(tensors).items()
            }
        )
