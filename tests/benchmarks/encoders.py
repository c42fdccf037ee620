"""The table of encoders: releases of public packages, each way of packing, judged on the CPU.

    python -m tests.benchmarks.encoders --folder FOLDER [--only WORD] [--fastplms REPOSITORY]

Each row is a release of a package of the index, or a commit of a repository, run through an
adapter that comes with the monitor, with synthetic weights of ESM-2 8M in FP32 on the set `seed`.
Environments and results stay in the folder: a second call measures what is new. Protocol 1 by
default, whose probes are few.
"""

import argparse
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from virnucpro_monitor.monitor.running import RunOptions, run_and_store
from virnucpro_monitor.monitor.targets import store_target
from virnucpro_monitor.records import Run, Target
from virnucpro_monitor.settings import Settings, load_settings

TRANSFORMERS = ("4.53.3", "4.55.4", "4.56.0", "5.2.0", "5.3.0", "5.24.0")
FASTPLMS = "1f782820f05a1b4a14bb78a310a8bc7838df3ba2"
NO_FLASH_ATTN = "flash-attn @ file://"


@dataclass(frozen=True, slots=True)
class Encoder:
    """A package's releases, or a repository's commits, run one way.

    Attributes:
        location: "pypi:NAME", or a repository's path.
        extra: requirements that are installed with a release, or a repository's own file of them.
    """

    location: str
    revisions: tuple[str, ...]
    adapter: str
    model: str
    layout: str
    extra: tuple[str, ...] = ()

    @property
    def package(self) -> str:
        released = self.location.startswith("pypi:")
        return self.location.removeprefix("pypi:") if released else self.adapter.partition("-")[0]


HF, NEWEST = "pypi:transformers", TRANSFORMERS[-1:]
ENCODERS = (
    Encoder(HF, TRANSFORMERS, "hf-esm", "EsmModel", "padded batch"),
    Encoder(
        HF,
        NEWEST,
        "hf-esm:way=kwargs,attention=sdpa",
        "EsmModel",
        "packed, `cu_seq_lens` arguments, sdpa",
    ),
    Encoder(HF, NEWEST, "hf-esm:way=mask", "EsmModel", "packed, 4-D block mask"),
    Encoder(HF, NEWEST, "hf-esmc", "EsmcModel", "packed, `sequence_id`"),
    Encoder(HF, NEWEST, "hf-t5", "T5EncoderModel", "padded batch"),
    *(
        Encoder("pypi:faesm", ("0.1.1",), "faesm", "FAEsmModel", "padded batch", (beside,))
        for beside in ("transformers==4.53.3", "transformers==5.24.0")
    ),
    Encoder(
        "pypi:esm-efficient",
        ("0.0.9",),
        "esm-efficient",
        "ESM2",
        "packed, `cu_lens`",
        (NO_FLASH_ATTN,),
    ),
    Encoder("pypi:esm-cpp", ("0.2.1",), "esm-cpp", "Model (logits)", "packed, `cu_seqlens`"),
)


def measure(settings: Settings, encoder: Encoder) -> Iterator[Run]:
    """Run what of an encoder is not known yet; yields its runs in the order of its revisions."""
    words = "-".join((encoder.package, encoder.adapter, *encoder.extra))
    target = Target(
        name="".join(one if one.isalnum() else "-" for one in words)[:80],
        location=encoder.location,
        adapter=encoder.adapter,
        requirements="\n".join(encoder.extra) or None,
    )
    store_target(settings, target, print)
    outcome = run_and_store(settings, target, RunOptions(revisions=encoder.revisions))
    runs = {run.commit.hash: run for run in (*outcome.settled, *outcome.runs)}
    return (runs[revision] for revision in encoder.revisions)


def without_flash_attn(folder: Path) -> str:
    """A requirement that lets what insists on flash-attn be installed where none can be built."""
    place = folder.resolve() / "flash-attn"
    place.mkdir(parents=True, exist_ok=True)
    (place / "flash_attn.py").write_text(
        '"""Nothing: the adapter has exact attention instead."""\n'
    )
    (place / "pyproject.toml").write_text(
        textwrap.dedent(
            """
            [build-system]
            requires = ["setuptools"]
            build-backend = "setuptools.build_meta"

            [project]
            name = "flash-attn"
            version = "2.8.3"

            [tool.setuptools]
            py-modules = ["flash_attn"]
            """
        )
    )
    return f"{NO_FLASH_ATTN}{place}"


def row(encoder: Encoder, run: Run) -> str:
    """One line of the Markdown table."""
    failed = [gate.name for gate in run.gates if gate.passed is False]
    worst = run.figures.max_packed_relative_l2 if run.figures else None
    if run.outcome.has_verdict and worst is None:
        distance = "no oracle"
    else:
        distance = "-" if worst is None else f"{worst:.1e}"
    culprit = str(run.culprit) if failed else "-"
    why = ", ".join(failed) if failed else ("" if run.outcome.has_verdict else run.reason[:120])
    beside = "".join(f", {one.replace('==', ' ')}" for one in encoder.extra if "==" in one)
    cells = (
        f"{encoder.package} {run.commit.short}{beside}",
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
    parser.add_argument("--only", default="", help="Rows of packages with this in their name.")
    parser.add_argument("--fastplms", help="A clone of its repository: two rows.")
    options = parser.parse_args()
    settings = load_settings(
        db=f"sqlite:///{(options.folder / 'encoders.db').resolve()}",
        benchmark=["seed"],
        model="esm2_t6_8M_UR50D",
        weights="synthetic",
        device="cpu",
        dtype="float32",
        protocol=options.protocol,
        cache_dir=options.folder / "cache",
    )
    wanted = [encoder for encoder in ENCODERS if options.only in encoder.package]
    if options.fastplms:
        wanted += (
            Encoder(
                options.fastplms,
                (FASTPLMS,),
                adapter,
                model,
                "padded batch",
                ("requirements/core.in",),
            )
            for adapter, model in (
                ("fastplms", "FAST_ESM_ENCODER"),
                ("fastplms-e1", "FAST_E1_ENCODER"),
            )
        )
    stub = without_flash_attn(options.folder)
    wanted = [
        replace(one, extra=tuple(stub if extra == NO_FLASH_ATTN else extra for extra in one.extra))
        for one in wanted
    ]
    rows = [row(encoder, run) for encoder in wanted for run in measure(settings, encoder)]
    print("| release | model | layout | dtype | verdict | wrong side | packed to FP32 | gates |")
    print("|---|---|---|---|---|---|--:|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
