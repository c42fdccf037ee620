"""Freeze limits for one's own weights, model and card, with evidence.

The released limits hold for every model of a dtype, so for one set-up they may be ten times wider
than its noise, with room for faults to hide. A calibration measures that noise in at least 200
healthy runs and writes a protocol whose limits for this model and dtype are 3 x the worst of them.
The seed's thresholds stay. Each finished part of the runs is kept beside the protocol's file, so
that a calibration that was stopped goes on where it was.
"""

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from virnucpro_monitor.errors import ProtocolError
from virnucpro_monitor.records import BenchmarkSet, Json, Protocol
from virnucpro_monitor.validation.builtin import BuiltinSubject
from virnucpro_monitor.validation.evidence import MIN_RUNS, collect_evidence, freeze_limits
from virnucpro_monitor.validation.oracle import Oracle
from virnucpro_monitor.validation.protocol import LATEST, limits_key, parse_protocol
from virnucpro_monitor.validation.subject import dtype_name

RUNS_OF_A_PART = 20


def calibrate(
    subject: BuiltinSubject,
    benchmark: BenchmarkSet,
    oracle: Oracle,
    base: Protocol,
    path: Path,
    *,
    num_runs: int = MIN_RUNS,
    reference: Any = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Protocol:
    """Measure healthy runs and write the protocol to `path`.

    Args:
        subject: the healthy model with the weights that the limits are for.
        base: gives the thresholds, the probes and the limits of all other dtypes.
        path: of the protocol's `.json` file; the evidence so far lies beside it until then.
        num_runs: at least `MIN_RUNS`.
        reference: fair-esm's model for every other run's unpacked side, as in `collect_evidence`.
        on_progress: called with (runs done, all runs).

    Raises:
        ProtocolError: too few runs, no `.json` file, evidence there of another set-up, or a base
            whose own limits were calibrated for another one, which nothing would guard any more.
    """
    if num_runs < MIN_RUNS:
        raise ProtocolError(
            f"{num_runs} healthy runs are too few for limits: ask for at least {MIN_RUNS}."
        )
    if path.suffix != ".json":
        raise ProtocolError(f"{path} cannot be a protocol's file: its name must end in .json.")
    setup = _setup(subject, benchmark, oracle, base)
    _check_base(base, _key(setup))
    kept = path.with_name(f"{path.name}.evidence")
    parts = _read_parts(kept, setup)
    starts = range(0, num_runs, RUNS_OF_A_PART)
    for part, start in enumerate(starts):
        if on_progress:
            on_progress(start, num_runs)
        if part < len(parts):
            continue
        try:
            record = collect_evidence(
                subject,
                benchmark,
                oracle,
                base,
                num_runs=min(RUNS_OF_A_PART, num_runs - start),
                seed=part,
                reference=reference,
                exact_probes=False,
            )
        except ValueError as error:
            raise ProtocolError(
                f"The model is not healthy with these weights ({error}): limits cannot be frozen "
                "from it."
            ) from error
        # How a run stands under the base's limits says nothing about the new ones.
        record.pop("failed")
        record.pop("margins")
        parts.append(record)
        _write(kept, {"setup": setup, "parts": parts})
    protocol = parse_protocol(json.dumps(_content(base, setup, parts)), path.name)
    _write(path, protocol.content)
    kept.unlink(missing_ok=True)
    return protocol


def _content(base: Protocol, setup: dict[str, Json], parts: list[dict[str, Json]]) -> Json:
    content = copy.deepcopy(dict(base.content))
    key = _key(setup)
    content["version"] = f"{base.version}-{setup['model']}-{setup['weights_digest'][:8]}"
    content["limits"][key] = freeze_limits(parts)[key]
    others = [
        record
        for record in content.get("evidence", {}).get("runs", ())
        if limits_key(record["dtype"], record["device"], record["model"]) != key
    ]
    content["evidence"] = {**content.get("evidence", {}), "runs": [*others, *parts]}
    content["calibrated"] = setup
    content.pop("own_noise", None)  # these limits are these weights' own
    return content


def _key(setup: Mapping[str, Json]) -> str:
    return limits_key(*(str(setup.get(name)) for name in ("dtype", "device", "model")))


def _check_base(base: Protocol, key: str) -> None:
    before = base.content.get("calibrated")
    if before and _key(before) != key:
        raise ProtocolError(
            f"Protocol {base.version} was calibrated for {before.get('model')} in "
            f"{before.get('dtype')} on {before.get('device')}, and a file holds the limits of one "
            "set-up: calibrate from a released protocol (--protocol "
            f"{LATEST}), each set-up into a file of its own."
        )


def _setup(
    subject: BuiltinSubject, benchmark: BenchmarkSet, oracle: Oracle, base: Protocol
) -> dict[str, Json]:
    """What limits are frozen for: evidence of another set-up is none."""
    on_gpu = subject.device.type == "cuda"
    return {
        "base": base.digest,
        "model": subject.model_name,
        "weights_digest": oracle.weights_digest,
        "dtype": dtype_name(subject.dtype),
        "device": subject.device.type,
        "gpu": torch.cuda.get_device_name(subject.device) if on_gpu else None,
        "backend": subject.backend,
        "torch": torch.__version__,
        "benchmark": f"{benchmark.label} ({benchmark.digest[:12]})",
    }


def _read_parts(path: Path, setup: dict[str, Json]) -> list[dict[str, Json]]:
    if not path.is_file():
        return []
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        found, parts = stored["setup"], list(stored["parts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProtocolError(f"{path} cannot be read ({error}): delete it to begin anew.") from error
    different = sorted(name for name in setup if found.get(name) != setup[name])
    if different:
        raise ProtocolError(
            f"{path} holds evidence of another set-up ({', '.join(different)}): write to another "
            "file, or delete it to begin anew."
        )
    return parts


def _write(path: Path, content: Json) -> None:
    """The whole file or none of it."""
    partial = path.with_name(f".{path.name}.part")
    try:
        partial.write_text(
            json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        partial.replace(path)
    except OSError as error:
        raise ProtocolError(
            f"{path} cannot be written ({error.strerror or error}): name a file in a folder that "
            "can be written to."
        ) from error
