"""The oracle that a run names, for one benchmark set."""

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

import virnucpro_monitor
from virnucpro_monitor.data.benchmarks import truncate
from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.models.weight_digests import folder_digest
from virnucpro_monitor.models.weights import Weights
from virnucpro_monitor.records import BenchmarkSet, Target, content_digest
from virnucpro_monitor.runner.hub_models import pinned_folder
from virnucpro_monitor.runner.oracle_names import (
    FAIR_ESM,
    HF_ESM,
    OracleName,
    check_pinned,
    model_folder,
    parse_oracle,
)
from virnucpro_monitor.runner.venv import target_python
from virnucpro_monitor.scratch import scratch_folder
from virnucpro_monitor.secrecy import public_environment
from virnucpro_monitor.validation.oracle import Oracle, kept_oracle, prepare_oracle, write_oracle
from virnucpro_monitor.validation.other_oracles import file_oracle

HF_TIMEOUT_S = 3600.0


def open_oracle(
    name: str,
    model_name: str,
    weights: Weights,
    benchmark: BenchmarkSet,
    *,
    cache_folder: Path,
    device: str = "cpu",
    on_progress: Callable[[int, int], None] | None = None,
) -> Oracle | None:
    """Open the oracle of this name, computing it where the cache has none.

    Args:
        name: as `parse_oracle` takes it.
        device: where fair-esm's is computed.

    Returns:
        None where there is none, or only the target's own process can give it.

    Raises:
        MonitorError: it cannot be had.
    """
    named = parse_oracle(name)
    if named.kind == FAIR_ESM:
        return prepare_oracle(
            model_name,
            weights,
            benchmark,
            cache_folder=cache_folder,
            device=device,
            on_progress=on_progress,
        )
    if named.kind == "file":
        return file_oracle(Path(named.place), benchmark, cache_folder=cache_folder)
    if named.kind == "hf":
        return _hf_oracle(named, model_name, weights, benchmark, cache_folder, on_progress)
    return None


def _hf_oracle(
    named: OracleName,
    model_name: str,
    weights: Weights,
    benchmark: BenchmarkSet,
    cache_folder: Path,
    on_progress: Callable[[int, int], None] | None,
) -> Oracle:
    """Embeddings by a pinned release of transformers, in an environment of its own."""
    check_pinned(named)
    own, place = named.place == HF_ESM, named.place
    if named.revision:
        found, files = pinned_folder(named, cache_folder, lambda: _fetched(named, cache_folder))
        place = str(found)
    else:
        files = _digest_of(named)
    key = [named.text, files, weights.digest if own else "", benchmark.digest]

    def compute(folder: Path) -> None:
        python = _python(named, cache_folder)
        texts = [truncate(one.residues)[0] for one in benchmark.sequences]
        with scratch_folder(cache_folder / "oracle", ".hf-") as answers:
            answers.mkdir()
            job = {
                "model": model_name if own else "",
                "place": str(weights.path) if own else place,
                "texts": texts,
                "folder": str(answers),
            }
            _ask(python, job, named)
            places = {text: answers / f"{number}.npy" for number, text in enumerate(texts)}
            facts = {
                "digest": digest,
                "kind": named.text,
                "model": model_name if own else "",
                "weights_digest": weights.digest if own else "",
            }
            write_oracle(
                folder,
                benchmark,
                lambda text: torch.from_numpy(np.load(places[text])),
                facts,
                maker=f"The weights of {named.text}",
                on_progress=on_progress,
            )

    digest = content_digest(key)
    return kept_oracle(cache_folder, digest, compute)


def _python(named: OracleName, cache_folder: Path) -> Path:
    """The interpreter of an environment with the oracle's transformers."""
    asked = Target(name=named.text, location="", requirements=f"transformers=={named.version}\n")
    return Path(target_python(asked, cache_folder, cache_folder, lambda _: None) or "")


def _fetched(named: OracleName, cache_folder: Path) -> Path:
    """The folder of a hub's model in the hub's own cache, fetched where it is not there."""
    job = {"fetch": named.place, "revision": named.revision}
    return Path(_ask(_python(named, cache_folder), job, named).strip().splitlines()[-1])


def _digest_of(named: OracleName) -> str:
    """Of a model's folder; empty for a release's own."""
    folder = model_folder(named)
    try:
        return "" if folder is None else folder_digest(folder)
    except OSError as error:
        raise ConfigurationError(
            f"The oracle {named.text} cannot be read ({error}): see to the folder's files."
        ) from error


def _ask(python: Path, job: Mapping[str, object], named: OracleName) -> str:
    """Let the environment do a job; returns what it printed."""
    environment = public_environment(os.environ)
    environment["PYTHONPATH"] = str(Path(virnucpro_monitor.__file__).parent.parent)
    try:
        done = subprocess.run(
            [str(python), "-P", "-m", "virnucpro_monitor.runner.encoders.hf_reference"],
            input=json.dumps(job),
            env=environment,
            capture_output=True,
            text=True,
            timeout=HF_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"The oracle {named.text} cannot be run: {error}") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        why = lines[-1] if lines else f"status {done.returncode}"
        raise ConfigurationError(f"The oracle {named.text} cannot be run: {why}")
    return done.stdout
