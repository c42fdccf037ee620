"""Protocols: thresholds, limits, metric definitions and probes, frozen under a version and digest.

A released protocol never changes; its digest is held here and in a test. Limits other than the
seed's are 3 x the worst value of at least 200 healthy runs, rounded up, and the evidence stands in
the protocol's own file.
"""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from virnucpro_monitor.errors import ConfigurationError, ProtocolError
from virnucpro_monitor.records import (
    LIMIT_GATES,
    Configuration,
    Json,
    Protocol,
    Thresholds,
    content_digest,
)
from virnucpro_monitor.validation.policy import check_rule
from virnucpro_monitor.validation.protocol_form import read_content

LATEST = "2"
_OF_MODEL = ", "
RELEASED_DIGESTS: dict[str, str] = {
    "1": "9316aacbf2dabf538f88916c9774e17fadd4d0cb044e7b099e7b0fb1b8b87383",
    "2": "9742f8f43261b5672cc7e8637e123708f9045cc91ba269d1c06ffccca5fa039d",
}


def limit_names(version: str) -> tuple[str, ...]:
    """The limits that a protocol must have; one of a user's own counts as the latest."""
    number = int(version) if version in RELEASED_DIGESTS else int(LATEST)
    return tuple(name for name, gate in LIMIT_GATES.items() if gate.since <= number)


def seed_rule(protocol: Protocol) -> Thresholds:
    """The seed's thresholds; never loosened."""
    return Thresholds.of_protocol(protocol.content)


def limits_key(dtype: str, device: str, model: str = "") -> str:
    """The name under which a protocol keeps its limits for `dtype` on `device` ("cpu", "cuda:0").

    Half precision is noisier on the CPU, where attention keeps its scores in it: one limit for both
    would either fire on a healthy CPU or let a GPU's pooled `<eos>` pass. A narrow model is noisier
    than a wide one (in bfloat16, 8M differs from itself in length by five times as much as 650M),
    so a model may have limits of its own.

    Args:
        model: "esm2_t6_8M_UR50D"; without it, the name of what holds for every model.
    """
    on_cpu = device.partition(":")[0] == "cpu"
    name = f"{dtype} on cpu" if on_cpu and dtype != "float32" else dtype
    return f"{name}{_OF_MODEL}{model}" if model else name


def limits_of(configuration: Configuration) -> str:
    """The name of the limits that a run of this configuration is judged by."""
    return limits_key(configuration.dtype, configuration.device, configuration.model)


def limits_named(content: Mapping[str, Json], limits_name: str) -> str:
    """Which of a protocol's limits a name means: a model's own, otherwise those of every model."""
    return limits_name if limits_name in content["limits"] else limits_name.partition(_OF_MODEL)[0]


def limits_for(protocol: Protocol, limits_name: str) -> Mapping[str, float]:
    """The limits of one name, as `limits_key` gives it ("float32", "float16 on cpu", …);
    a model that has none of its own is held to those of every model.

    Raises:
        ProtocolError: the protocol has none of that name.
    """
    limits: Mapping[str, Mapping[str, float]] = protocol.content["limits"]
    name = limits_named(protocol.content, limits_name)
    if name not in limits:
        raise ProtocolError(
            f"Protocol {protocol.version} has no limits for {name}: use "
            f"{', '.join(sorted(name for name in limits if _OF_MODEL not in name))}."
        )
    return limits[name]


def load_protocol(version: str | None = None) -> Protocol:
    """Load a released protocol by version (None: the latest), or any from a `.json` file.

    Raises:
        ProtocolError: unknown version, a released file that was altered, or a malformed file.
    """
    version = version or LATEST
    if version.endswith(".json"):
        own = parse_protocol(_read(Path(version)), version)
        _refuse_a_released_name(own, version)
        return own
    folder = resources.files("virnucpro_monitor.validation") / "protocols"
    file = folder / f"{version}.json"
    if version not in RELEASED_DIGESTS or not file.is_file():
        raise ProtocolError(
            f"There is no protocol {version!r}: use one of {', '.join(sorted(RELEASED_DIGESTS))}, "
            "or give the path of a .json file."
        )
    protocol = parse_protocol(file.read_text(encoding="utf-8"), f"protocol {version}")
    if protocol.digest != RELEASED_DIGESTS[version]:
        raise ProtocolError(
            f"Protocol {version} has been altered since its release (its digest is "
            f"{protocol.digest[:12]}, not {RELEASED_DIGESTS[version][:12]}): reinstall the package."
        )
    return protocol


def check_calibrated_for(
    protocol: Protocol, model: str, dtype: str, device: str, weights_digest: str
) -> None:
    """Refuse limits that were frozen from other weights of the model in this dtype and place.

    Such limits are as far from the noise of these weights as chance has it: a fault may hide
    below them, or a healthy run fail.

    Raises:
        ProtocolError: `protocol calibrate` made the file for other weights.
    """
    frozen = protocol.content.get("calibrated") or {}
    of, place = (str(frozen.get(name)) for name in ("weights_digest", "device"))
    theirs = limits_key(str(frozen.get("dtype")), place, str(frozen.get("model")))
    if frozen and of != weights_digest and theirs == limits_key(dtype, device, model):
        raise ProtocolError(
            f"Protocol {protocol.version} was calibrated for other weights of {model} (digest "
            f"{of[:8]}, not {weights_digest[:8]}): 'protocol calibrate' freezes limits for these, "
            "or take a released protocol."
        )


def parse_protocol(text: str, name: str) -> Protocol:
    """Check the JSON text of a protocol and make the record; `name` is used in messages.

    Raises:
        ProtocolError: not JSON, a part is missing, or the seed's thresholds are loosened.
    """
    try:
        content = read_content(text)
        protocol = Protocol(
            version=content["version"], digest=content_digest(content), content=content
        )
        thresholds = content["thresholds"]
        rule = Thresholds(
            thresholds["strict"], thresholds["lenient"], thresholds["lenient_fraction"]
        )
        # A user's own protocol needs the limits of the probes that it asks.
        probes_version = "2" if "long" in content["probes"] else "1"
        for limits_name, limits in content["limits"].items():
            missing = set(limit_names(probes_version)) - limits.keys()
            if missing:
                raise ProtocolError(
                    f"{name}: the limits for {limits_name} lack {', '.join(sorted(missing))}."
                )
        for gate, of_gate in content.get("policy", {}).items():
            check_rule(gate, of_gate["who"], of_gate["why"])
    except ConfigurationError as error:
        raise ProtocolError(f"{name} has a policy that it may not have: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"{name} is not a protocol file ({error}).") from error
    # Told by what must hold, since with a NaN nothing does.
    if not (rule.strict >= 0.999 and rule.lenient >= 0.995 and rule.fraction <= 0.01):
        raise ProtocolError(
            f"{name} loosens the seed's thresholds (0.999, 0.995, 0.01), which no protocol may do."
        )
    return protocol


def _refuse_a_released_name(own: Protocol, name: str) -> None:
    """Lists and charts show a protocol by its version: an edited one must not look released.

    Raises:
        ProtocolError: its version is a released one's, and its content is another.
    """
    released = RELEASED_DIGESTS.get(own.version)
    plain = {part: value for part, value in own.content.items() if part != "policy"}
    if released is not None and content_digest(plain) != released:
        raise ProtocolError(
            f"{name} calls itself protocol {own.version}, but differs from the released one: give "
            "it a version of its own."
        )


def _read(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():  # a pipe would keep us waiting
            raise ProtocolError(f"The protocol file {path} cannot be read (it is no plain file).")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ProtocolError(f"The protocol file {path} cannot be read ({error}).") from error
