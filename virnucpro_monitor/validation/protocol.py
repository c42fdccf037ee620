"""Protocols: thresholds, limits, metric definitions and probes, frozen under a version and digest.

A released protocol never changes; its digest is held here and in a test. Limits other than the
seed's are 3 x the worst value of at least 200 healthy runs, rounded up, and the evidence stands in
the protocol's own file.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from virnucpro_monitor.errors import ProtocolError
from virnucpro_monitor.records import Json, Protocol, content_digest

LATEST = "1"
RELEASED_DIGESTS: dict[str, str] = {
    "1": "9316aacbf2dabf538f88916c9774e17fadd4d0cb044e7b099e7b0fb1b8b87383",
}

# Names of the limits that each dtype must have, and what they bound.
LIMIT_NAMES = {
    "gain": "|‖packed‖ / ‖unpacked‖ - 1|, pooled",
    "residue": "1 - worst residue cosine, packed against unpacked",
    "floor": "packed error - 2 x unpacked error, relative L2 against the oracle, pooled",
    "ceiling": "packed error, relative L2 against the oracle, pooled",
    "baseline": "unpacked error, relative L2 against the oracle, pooled",
    "position": "relative L2 of a sequence at another place of the pack, all residues",
    "order": "relative L2 of a sequence in the reversed pack, all residues",
    "embedding": "relative L2 of the embedding layer against the checkpoint's own table",
    "mask": "packed-unpacked relative L2 with <mask> tokens - 2 x the same without, pooled",
}


@dataclass(frozen=True, slots=True)
class SeedRule:
    """The thresholds of the seed; never loosened."""

    strict: float
    lenient: float
    fraction: float

    def allowance(self, num_sequences: int) -> int:
        """Sequences that may lie at or below strict: floor(fraction * n)."""
        # The tiny addend undoes binary rounding: 0.29 * 100 is 28.999….
        return int(self.fraction * num_sequences + 1e-9)


def seed_rule(protocol: Protocol) -> SeedRule:
    thresholds = protocol.content["thresholds"]
    return SeedRule(thresholds["strict"], thresholds["lenient"], thresholds["lenient_fraction"])


def limits_key(dtype: str, device: str) -> str:
    """The name under which a protocol keeps its limits for `dtype` on `device` ("cpu", "cuda:0").

    Half precision is noisier on the CPU, where attention keeps its scores in it: one limit for both
    would either fire on a healthy CPU or let a GPU's pooled `<eos>` pass.
    """
    on_cpu = device.partition(":")[0] == "cpu"
    return f"{dtype} on cpu" if on_cpu and dtype != "float32" else dtype


def limits_for(protocol: Protocol, dtype: str) -> Mapping[str, float]:
    """The limits of one dtype ("float32", "float16", "bfloat16").

    Raises:
        ProtocolError: the protocol has none for it.
    """
    limits: Mapping[str, Mapping[str, float]] = protocol.content["limits"]
    if dtype not in limits:
        raise ProtocolError(
            f"Protocol {protocol.version} has no limits for {dtype}: use "
            f"{', '.join(sorted(limits))}."
        )
    return limits[dtype]


def load_protocol(version: str | None = None) -> Protocol:
    """Load a released protocol by version (None: the latest), or any from a `.json` file.

    Raises:
        ProtocolError: unknown version, a released file that was altered, or a malformed file.
    """
    version = version or LATEST
    if version.endswith(".json"):
        return parse_protocol(_read(Path(version)), version)
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


def parse_protocol(text: str, name: str) -> Protocol:
    """Check the JSON text of a protocol and make the record; `name` is used in messages.

    Raises:
        ProtocolError: not JSON, a part is missing, or the seed's thresholds are loosened.
    """
    try:
        content: Json = json.loads(text)
        protocol = Protocol(
            version=content["version"], digest=content_digest(content), content=content
        )
        rule = seed_rule(protocol)
        for dtype in content["limits"]:
            missing = LIMIT_NAMES.keys() - content["limits"][dtype].keys()
            if missing:
                raise ProtocolError(
                    f"{name}: the limits for {dtype} lack {', '.join(sorted(missing))}."
                )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"{name} is not a protocol file ({error!r}).") from error
    if rule.strict < 0.999 or rule.lenient < 0.995 or rule.fraction > 0.01:
        raise ProtocolError(
            f"{name} loosens the seed's thresholds (0.999, 0.995, 0.01), which no protocol may do."
        )
    return protocol


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProtocolError(f"The protocol file {path} cannot be read ({error}).") from error
