"""How an adapter is named, and which ones come with the monitor.

NAME                    one of the monitor's, or an entry point of the group `ADAPTERS`
NAME:key=value,...      the same, with options
...:oracle=none         any of them, for a model that fair-esm is no oracle for
module:callable         anything that Python can import
file.py:callable        a file of the watched repository; with an absolute path, of this machine
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.records import NO_ORACLE

ADAPTERS = "virnucpro_monitor.adapters"
"""The group of entry points that name adapters."""


FAIR_ESM = "fair-esm"
ORACLES = (FAIR_ESM, NO_ORACLE)
_ORACLE = "oracle"  # the option that every adapter has, and that is the monitor's affair


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """An adapter that comes with the monitor.

    Attributes:
        place: `module:callable`.
        about: what it watches, in a few words.
        options: allowed values by option; the first is the default.
        needs: importable name of the package that it needs, None for none beyond the monitor's own.
        install: what `pip install` takes for it.
        oracle: what its model is held against, one of `ORACLES`.
    """

    place: str
    about: str
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    needs: str | None = None
    install: str = ""
    oracle: str = FAIR_ESM


_ROOM = "virnucpro_monitor.runner"
SHIPPED = {
    "seed-interface": Shipped(
        place=f"{_ROOM}.adapters:SeedInterfaceAdapter",
        about="load_esm2_model, forward_packed and VarlenCollator of a repository",
    ),
    "builtin": Shipped(
        place=f"{_ROOM}.adapters:BuiltinAdapter", about="this package's own packed ESM-2"
    ),
    "hf-esm": Shipped(
        place=f"{_ROOM}.encoders.hf_esm:HfEsmAdapter",
        about="Hugging Face EsmModel: a padded batch, cu_seq_lens arguments, or a block mask",
        options={
            "way": ("padded", "kwargs", "mask"),
            "attention": ("default", "sdpa", "eager", "flash_attention_2"),
        },
        needs="transformers",
        install="transformers",
    ),
    "hf-esmc": Shipped(
        place=f"{_ROOM}.encoders.hf_esmc:HfEsmcAdapter",
        about="Hugging Face EsmcModel (ESM C), random weights, no oracle",
        options={"way": ("packed", "padded"), "attention": ("default", "sdpa", "eager")},
        needs="transformers",
        install="'transformers>=5.24'",
        oracle=NO_ORACLE,
    ),
}


@dataclass(frozen=True, slots=True)
class AdapterName:
    """An adapter's name taken apart.

    Attributes:
        name: of one of the monitor's or an entry point; empty where a place is given.
        options: by key.
        place: module or file, empty where a name is given.
        attribute: of the place.
        oracle: what the model is held against, one of `ORACLES`.
    """

    name: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    place: str = ""
    attribute: str = ""
    oracle: str = FAIR_ESM

    @property
    def file(self) -> str | None:
        """The path in `file.py:callable`."""
        return self.place if self.place.endswith(".py") else None


def parse_adapter(text: str) -> AdapterName:
    """Take an adapter's name apart; whether there is one of that name is not looked at.

    Raises:
        ConfigurationError: an option without a value, or one that the adapter does not have.
    """
    before, colon, after = text.rpartition(":")
    if not colon:
        return AdapterName(name=text, oracle=SHIPPED[text].oracle if text in SHIPPED else FAIR_ESM)
    if "=" not in after:
        return AdapterName(place=before, attribute=after)
    options: dict[str, str] = {}
    for part in after.split(","):
        key, equals, value = part.partition("=")
        if not (key and equals and value):
            raise ConfigurationError(f"{part!r} in the adapter {text!r} is not key=value.")
        options[key] = value
    named = parse_adapter(before)
    oracle = options.pop(_ORACLE, named.oracle)
    if oracle not in ORACLES:
        raise ConfigurationError(f"{oracle!r} is no oracle: use one of {', '.join(ORACLES)}.")
    if named.place and options:
        raise ConfigurationError(
            f"{text!r} names a place, which takes no option but {_ORACLE}: {', '.join(options)}."
        )
    shipped = SHIPPED.get(before)
    if shipped is not None:
        for key, value in options.items():
            _check_option(before, shipped, key, value)
    return replace(named, options=options, oracle=oracle)


def _check_option(name: str, shipped: Shipped, key: str, value: str) -> None:
    if key not in shipped.options:
        known = ", ".join(shipped.options) or "no options"
        raise ConfigurationError(f"The adapter {name} has no option {key!r} (it has {known}).")
    if value not in shipped.options[key]:
        allowed = ", ".join(shipped.options[key])
        raise ConfigurationError(
            f"{value!r} is no {key} of the adapter {name}: use one of {allowed}."
        )
