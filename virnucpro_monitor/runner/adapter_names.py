"""How an adapter is named, and which ones come with the monitor.

NAME                    one of the monitor's, or an entry point of the group `ADAPTERS`
NAME:key=value,...      the same, with options
...:oracle=NAME         any of them, held against another oracle (`runner.oracle_names`)
...:family=prott5       any of them, for a model that reads another family's tokens
module:callable         anything that Python can import
file.py:callable        a file of the watched repository; with an absolute path, of this machine
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.records import NO_ORACLE
from virnucpro_monitor.runner.oracle_names import FAIR_ESM, oracle_here, parse_oracle

ADAPTERS = "virnucpro_monitor.adapters"
"""The group of entry points that name adapters."""

_ORACLE = "oracle"  # the options that every adapter has, and that are the monitor's affair
_FAMILY = "family"
FAMILY_NAMES = ("esm2", "esmc", "e1", "prott5")  # of models.families, which needs torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """An adapter that comes with the monitor.

    Attributes:
        place: `module:callable`.
        about: what it watches, in a few words.
        options: allowed values by option; the first is the default.
        needs: importable name of the package that it needs, None for none beyond the monitor's own.
        install: what `pip install` takes for it.
        oracle: what its model is held against, as `parse_oracle` takes it.
        family: whose tokens its model reads, a key of `models.families.FAMILIES`.
        loads: modules of other packages that its package imports, and that take long.
    """

    place: str
    about: str
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    needs: str | None = None
    install: str = ""
    oracle: str = FAIR_ESM
    family: str = "esm2"
    loads: tuple[str, ...] = ()


_ROOM = "virnucpro_monitor.runner"
_TRANSFORMERS_LOADS = (
    *("torch._dynamo", "torch.distributed.tensor", "torch.distributed.checkpoint"),
    *("scipy.optimize", "filelock", "httpcore", "httpcore2", "jinja2.sandbox", "psutil"),
    *("PIL.ImageOps", "regex", "requests", "rich.console", "safetensors.torch"),
    *("httpx", "httpx2", "tqdm.contrib.logging", "typer", "yaml"),
)
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
        loads=_TRANSFORMERS_LOADS,
    ),
    "hf-esmc": Shipped(
        place=f"{_ROOM}.encoders.hf_esmc:HfEsmcAdapter",
        about="Hugging Face EsmcModel (ESM C), its own weights or random ones, no oracle",
        options={"way": ("packed", "padded"), "attention": ("default", "sdpa", "eager")},
        needs="transformers",
        install="'transformers>=5.24'",
        oracle=NO_ORACLE,
        family="esmc",
        loads=_TRANSFORMERS_LOADS,
    ),
    "hf-t5": Shipped(
        place=f"{_ROOM}.encoders.hf_t5:HfT5Adapter",
        about="Hugging Face T5EncoderModel (ProtT5), its own weights or random ones, no oracle",
        needs="transformers",
        install="transformers",
        oracle=NO_ORACLE,
        family="prott5",
        loads=_TRANSFORMERS_LOADS,
    ),
    "fastplms-e1": Shipped(
        place=f"{_ROOM}.encoders.fastplms_e1:FastPlmsE1Adapter",
        about="FastPLMs' FAST_E1_ENCODER (E1), its own weights or random ones, no oracle",
        needs="fastplms",
        install="einops 'transformers>=5.13,<5.14' and watch its git repository",
        oracle=NO_ORACLE,
        family="e1",
    ),
    "esm-efficient": Shipped(
        place=f"{_ROOM}.encoders.esm_efficient:EsmEfficientAdapter",
        about="esm-efficient's ESM2, packed by cu_seqlens; without a GPU on exact attention",
        needs="esme",
        install="--no-deps esm-efficient (its flash-attn builds on a machine with CUDA alone)",
    ),
    "faesm": Shipped(
        place=f"{_ROOM}.encoders.faesm:FaesmAdapter",
        about="FAESM's FAEsmModel, a batch that flash-attn unpads inside where it is installed",
        needs="faesm",
        install="faesm 'transformers<4.54'",
    ),
    "fastplms": Shipped(
        place=f"{_ROOM}.encoders.fastplms:FastPlmsAdapter",
        about="FastPLMs' FAST_ESM_ENCODER at a commit of its repository, a padded batch",
        options={
            "attention": (
                "sdpa",
                "eager",
                "flex_attention",
                "flash_attention_2",
                "flash_attention_3",
            )
        },
        needs="fastplms",
        install="einops 'transformers>=5.13,<5.14' and watch its git repository",
    ),
    "esm-cpp": Shipped(
        place=f"{_ROOM}.encoders.esm_cpp:EsmCppAdapter",
        about="esm-cpp's packed logits (no torch inside, no oracle)",
        needs="esm_cpp",
        install="--no-deps esm-cpp",
        oracle=NO_ORACLE,
    ),
    "nv-esm-thd": Shipped(
        place=f"{_ROOM}.encoders.nv_esm:NvEsmAdapter",
        about="NVIDIA's NVEsmModel recipe at a commit of its repository, packed (THD)",
        needs="transformer_engine",
        install="--no-build-isolation 'transformer-engine[pytorch]' (it needs CUDA)",
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
        oracle: what the model is held against, as `parse_oracle` takes it.
        family: whose tokens the model reads, a key of `models.families.FAMILIES`.
    """

    name: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    place: str = ""
    attribute: str = ""
    oracle: str = FAIR_ESM
    family: str = "esm2"

    @property
    def file(self) -> str | None:
        """The path in `file.py:callable`."""
        return self.place if self.place.endswith(".py") else None


def parse_adapter(text: str) -> AdapterName:
    """Take an adapter's name apart; whether there is one of that name is not looked at.

    Raises:
        ConfigurationError: an option without a value, or one that the adapter does not have.
    """
    plain, oracle = _without_oracle(text)
    if oracle is not None:
        return replace(parse_adapter(plain), oracle=parse_oracle(oracle).text)
    before, colon, after = text.rpartition(":")
    if not colon:
        shipped = SHIPPED.get(text)
        if shipped is None:
            return AdapterName(name=text)
        return AdapterName(name=text, oracle=shipped.oracle, family=shipped.family)
    if "=" not in after:
        return AdapterName(place=before, attribute=after)
    options: dict[str, str] = {}
    for part in after.split(","):
        key, equals, value = part.partition("=")
        if not (key and equals and value):
            raise ConfigurationError(f"{part!r} in the adapter {text!r} is not key=value.")
        options[key] = value
    named = parse_adapter(before)
    family = options.pop(_FAMILY, named.family)
    if family not in FAMILY_NAMES:
        raise ConfigurationError(f"{family!r} is no family: use one of {', '.join(FAMILY_NAMES)}.")
    if named.place and options:
        raise ConfigurationError(
            f"{text!r} names a place, which takes no option but {_ORACLE} and {_FAMILY}: "
            f"{', '.join(options)}."
        )
    shipped = SHIPPED.get(before)
    if shipped is not None:
        for key, value in options.items():
            _check_option(before, shipped, key, value)
    return replace(named, options=options, family=family)


def _without_oracle(text: str) -> tuple[str, str | None]:
    """A name without its oracle, and that. A path or a model's name may hold any character: it is
    the last of all."""
    before, found, oracle = text.partition(f"{_ORACLE}=")
    if not found or before[-1:] not in (":", ","):
        return text, None
    if oracle.startswith(("file:", "hf:")):
        return before[:-1], oracle
    oracle, _, more = oracle.partition(",")
    return f"{before}{more}" if more else before[:-1], oracle


def with_oracle(text: str, oracle: str | None) -> str:
    """An adapter's name with another oracle, whose file is looked for from the working folder.

    Args:
        oracle: None for the one that the name has already.

    Raises:
        ConfigurationError: it is none, or its file is not there.
    """
    named = parse_adapter(text)
    plain, _ = _without_oracle(text)
    wanted = oracle_here(named.oracle if oracle is None else oracle)
    if wanted == parse_adapter(plain).oracle:
        return plain
    return f"{plain}{',' if '=' in plain.rpartition(':')[2] else ':'}{_ORACLE}={wanted}"


def without_file(text: str) -> str:
    """An adapter's name without an oracle that is a file: one that knows other sequences."""
    of_file = parse_oracle(parse_adapter(text).oracle).kind == "file"
    return with_oracle(text, NO_ORACLE) if of_file else text


def is_plain(text: str, name: str) -> bool:
    """Whether an adapter is the one of this name, whatever it is held against."""
    return parse_adapter(text).name == name


def _check_option(name: str, shipped: Shipped, key: str, value: str) -> None:
    if key not in shipped.options:
        known = ", ".join(shipped.options) or "no options"
        raise ConfigurationError(f"The adapter {name} has no option {key!r} (it has {known}).")
    if value not in shipped.options[key]:
        allowed = ", ".join(shipped.options[key])
        raise ConfigurationError(
            f"{value!r} is no {key} of the adapter {name}: use one of {allowed}."
        )
