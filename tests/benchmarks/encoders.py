"""The table of encoders: releases of public packages, each way of packing, judged on the CPU.

    python -m tests.benchmarks.encoders --folder FOLDER

Each row is a release of a package of the index, run through an adapter that comes with the monitor,
with synthetic weights of ESM-2 8M in FP32 on the set `seed`. Environments and results stay in the
folder: a second call measures what is new. Protocol 1 by default, whose probes are few.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from virnucpro_monitor.monitor.running import RunOptions, run_and_store
from virnucpro_monitor.monitor.targets import store_target
from virnucpro_monitor.records import Run, Target
from virnucpro_monitor.settings import Settings, load_settings

TRANSFORMERS = ("4.53.3", "4.55.4", "4.56.0", "5.2.0", "5.3.0", "5.24.0")


@dataclass(frozen=True, slots=True)
class Encoder:
    """A package's releases, run one way."""

    package: str
    releases: tuple[str, ...]
    adapter: str
    model: str
    layout: str


ENCODERS = (
    Encoder("transformers", TRANSFORMERS, "hf-esm", "EsmModel", "padded batch"),
    Encoder(
        "transformers",
        TRANSFORMERS[-1:],
        "hf-esm:way=kwargs,attention=sdpa",
        "EsmModel",
        "packed, `cu_seq_lens` arguments, sdpa",
    ),
    Encoder(
        "transformers", TRANSFORMERS[-1:], "hf-esm:way=mask", "EsmModel", "packed, 4-D block mask"
    ),
    Encoder("transformers", TRANSFORMERS[-1:], "hf-esmc", "EsmcModel", "packed, `sequence_id`"),
)


def measure(settings: Settings, encoder: Encoder) -> Iterator[Run]:
    """Run what of an encoder is not known yet; yields its runs in the order of its releases."""
    name = f"{encoder.package}-{encoder.adapter}".translate(str.maketrans(":=,", "---"))
    target = Target(
        name=name, location=f"pypi:{encoder.package}", adapter=encoder.adapter, branch=">=4.53"
    )
    store_target(settings, target, print)
    outcome = run_and_store(settings, target, RunOptions(revisions=encoder.releases))
    runs = {run.commit.hash: run for run in (*outcome.settled, *outcome.runs)}
    return (runs[release] for release in encoder.releases)


def row(encoder: Encoder, run: Run) -> str:
    """One line of the Markdown table."""
    failed = [gate.name for gate in run.gates if gate.passed is False]
    worst = run.figures.max_packed_relative_l2 if run.figures else None
    if run.outcome.has_verdict and worst is None:
        distance = "no oracle"
    else:
        distance = "-" if worst is None else f"{worst:.1e}"
    culprit = str(run.culprit) if failed else "-"
    why = ", ".join(failed) if failed else ("" if run.outcome.has_verdict else run.reason[:80])
    cells = (
        f"{encoder.package} {run.commit.hash}",
        encoder.model,
        encoder.layout,
        run.configuration.dtype,
        f"**{run.outcome}**" if run.outcome != "passed" else "passed",
        culprit,
        distance,
        why,
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--protocol", default="1")
    options = parser.parse_args()
    settings = load_settings(
        db=f"sqlite:///{(options.folder / 'encoders.db').resolve()}",
        model="esm2_t6_8M_UR50D",
        weights="synthetic",
        device="cpu",
        dtype="float32",
        protocol=options.protocol,
        cache_dir=options.folder / "cache",
    )
    rows = [row(encoder, run) for encoder in ENCODERS for run in measure(settings, encoder)]
    print("| release | model | layout | dtype | verdict | wrong side | packed to FP32 | gates |")
    print("|---|---|---|---|---|---|--:|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
