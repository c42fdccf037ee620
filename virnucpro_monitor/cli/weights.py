"""`virnucpro-monitor weights list/synthesize/convert`: the checkpoints of this machine."""

from pathlib import Path
from typing import Annotated, Any

import typer

from virnucpro_monitor.cli.options import JsonOption, print_json, say, takes
from virnucpro_monitor.errors import WeightsError
from virnucpro_monitor.settings import Settings, load_settings


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Checkpoints: list, synthesize, convert.")
    group.command("list")(list_weights)
    group.command("synthesize")(synthesize)
    group.command("convert")(convert)
    app.add_typer(group, name="weights")


def list_weights(as_json: JsonOption = False) -> None:
    """List every ESM-2 size, and where its official and synthetic weights are on this machine.

    The last, esm2_t6_demo, is the demo's own and has synthetic weights alone.
    """
    from virnucpro_monitor.models.weights import DEMO_MODEL

    rows = find_weights(load_settings().cache_folder)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        typer.echo(
            f"{row['model']:<20}  {row['num_layers']} layers, width {row['embed_dim']}, "
            f"{row['num_heads']} heads"
        )
        missing = "not here, downloaded when first used"
        if row["model"] == DEMO_MODEL:
            missing = "none, this is the demo's encoder"
        typer.echo(f"  official   {row['official'] or missing}")
        for path in row["synthetic"] or ["not here, made when first used"]:
            typer.echo(f"  synthetic  {path}")


def synthesize(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Official name of an ESM-2 size.")],
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the random weights.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="FILE", help="Write MODEL.pt here instead of into the cache."
        ),
    ] = None,
    family: Annotated[
        str,
        typer.Option(
            "--family",
            metavar="NAME",
            help="Of another family, esmc, prott5 or e1: MODEL's depth and width, as a "
            "Hugging Face folder.",
        ),
    ] = "esm2",
    as_json: JsonOption = False,
) -> None:
    """Make deterministic random weights in fair-esm's own format, and print their digest."""
    from virnucpro_monitor.models.weights import checkpoint_digest, resolve_weights
    from virnucpro_monitor.models.weights import synthesize as write_weights
    from virnucpro_monitor.monitor.weight_making import synthesize_family

    if family != "esm2":
        path = output or load_settings().cache_folder / "weights" / f"{family}-{model}-seed{seed}"
        digest = synthesize_family(model, family, path, seed)
    elif output is None:
        cache_folder = load_settings().cache_folder
        weights = resolve_weights(model, "synthetic", cache_folder=cache_folder, seed=seed)
        path, digest = weights.path, weights.digest
    else:
        path = output
        try:
            write_weights(model, path, seed)
        except OSError as error:
            raise WeightsError(
                f"The weights cannot be written to {path}: {error.strerror or error}."
            ) from error
        digest = checkpoint_digest(path)
    kind = model if family == "esm2" else f"{family}, as deep and wide as {model}"
    say(f"{path} holds synthetic weights of {kind}, seed {seed}.")
    if as_json:
        print_json({"model": model, "seed": seed, "path": str(path), "digest": digest})
    else:
        typer.echo(digest)


@takes("model", "weights")
def convert(
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="A folder, or a file for esm-efficient.")
    ],
    settings: Settings,
    to: Annotated[
        str,
        typer.Option("--to", metavar="FORMAT", help="hugging-face or esm-efficient."),
    ] = "hugging-face",
    as_json: JsonOption = False,
) -> None:
    """Write ESM-2 weights as another package has them, and print their digest.

    Whatever the format, the same weights have the same digest.
    """
    from virnucpro_monitor.monitor.weight_making import convert_weights

    digest = convert_weights(settings, output, to)
    say(f"{output} holds {settings.weights} weights of {settings.model} for {to}.")
    if as_json:
        print_json({"model": settings.model, "path": str(output), "format": to, "digest": digest})
    else:
        typer.echo(digest)


def find_weights(cache_folder: Path) -> list[dict[str, Any]]:
    """One row a model: its shape, and the files that are here already.

    `official` is a path or None; `synthetic` lists the paths of every seed's file.
    """
    import torch

    from virnucpro_monitor.models.weights import MODEL_SHAPES

    official_folder = Path(torch.hub.get_dir()) / "checkpoints"
    rows: list[dict[str, Any]] = []
    for name, shape in MODEL_SHAPES.items():
        official = official_folder / f"{name}.pt"
        synthetic = sorted((cache_folder / "weights").glob(f"synthetic-*/{name}.pt"))
        rows.append(
            {
                "model": name,
                "num_layers": shape.num_layers,
                "embed_dim": shape.embed_dim,
                "num_heads": shape.num_heads,
                "official": str(official) if official.is_file() else None,
                "synthetic": [str(path) for path in synthetic],
            }
        )
    return rows
