"""Make weights: random ones of any family, and ESM-2's in another package's format."""

from pathlib import Path

from virnucpro_monitor.disks import writing
from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.models.weight_files import write_esm_efficient, write_hugging_face
from virnucpro_monitor.models.weights import load_checkpoint, resolve_weights
from virnucpro_monitor.runner.adapter_names import SHIPPED
from virnucpro_monitor.runner.loading import find_adapter
from virnucpro_monitor.settings import Settings

FORMATS = ("hugging-face", "esm-efficient")


def convert_weights(settings: Settings, output: Path, wanted: str) -> str:
    """Write the settings' ESM-2 weights in another package's format; returns their digest.

    Args:
        output: a folder for "hugging-face", a file for "esm-efficient".

    Raises:
        ConfigurationError: there is no such format.
        WeightsError: the weights cannot be read.
        DiskError: there is no room for them.
    """
    if wanted not in FORMATS:
        raise ConfigurationError(f"{wanted!r} is no format: use one of {', '.join(FORMATS)}.")
    found = resolve_weights(settings.model, settings.weights, cache_folder=settings.cache_folder)
    model, _ = load_checkpoint(settings.model, found.path)
    with writing("The weights", output):
        if wanted == "hugging-face":
            write_hugging_face(model, output)
        else:
            write_esm_efficient(model, output, settings.model)
    return found.digest


def synthesize_family(model_name: str, family: str, output: Path, seed: int) -> str:
    """Write random weights of another family as a Hugging Face folder; returns their digest.

    The shipped adapter of the family says what its models look like.

    Args:
        model_name: the ESM-2 whose depth and width it gets.

    Raises:
        ConfigurationError: no shipped adapter is of that family.
        TargetError: the package that the adapter needs is not installed.
    """
    made_by = {one.family: name for name, one in SHIPPED.items() if one.family != "esm2"}
    if family not in made_by:
        raise ConfigurationError(f"{family!r} is no family: use one of {', '.join(made_by)}.")
    model = find_adapter(made_by[family]).synthesize(model_name, seed)  # type: ignore[attr-defined]
    with writing("The weights", output):
        model.save_pretrained(output)
    return resolve_weights(model_name, str(output)).digest
