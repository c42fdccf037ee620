"""The sequences that a protocol's probes ask about, as a set with an FP32 oracle of its own."""

from collections.abc import Iterator
from dataclasses import replace

from virnucpro_monitor.data.benchmarks import benchmark_digest
from virnucpro_monitor.records import BenchmarkSet, ProteinSequence, Protocol


def probe_benchmark(protocol: Protocol) -> BenchmarkSet:
    """Every probe sequence that is embedded both ways, each text once.

    Its ids are its own texts' places, not those that a pack carries.
    """
    texts = dict.fromkeys(_texts(protocol))
    sequences = tuple(
        ProteinSequence(id=f"probe_{number}", residues=text) for number, text in enumerate(texts)
    )
    return BenchmarkSet(
        name="probes",
        version=1,
        digest=benchmark_digest(sequences),
        description=f"Probe sequences of protocol {protocol.version}.",
        sequences=sequences,
    )


def with_light_probes(protocol: Protocol) -> Protocol:
    """The same protocol with a few short probe sequences, for many runs of one known model."""
    definition = protocol.content["probes"]
    if "long" not in definition:
        return protocol
    short = [text for text in definition["sequences"] if len(text) > 1]
    light = {
        "long": short[-2:],
        "longest": short[:1],
        "shapes": [{**shape, "times": 1} for shape in definition["shapes"][-1:]],
        "collator": {**definition["collator"], "sequences": 50, "per_call": 20},
    }
    return replace(protocol, content={**protocol.content, "probes": {**definition, **light}})


def _texts(protocol: Protocol) -> Iterator[str]:
    definition = protocol.content["probes"]
    yield from definition["sequences"]
    for name in ("longest", "long"):
        yield from definition.get(name, ())
    if "smallest" in definition:
        yield definition["smallest"]
    for shape in definition.get("shapes", ()):
        yield from shape["sequences"]


def fresh_texts(protocol: Protocol) -> tuple[str, ...]:
    """Sequences whose unpacked embedding must be made by the model at hand, and at once."""
    witness = protocol.content["probes"].get("witness")
    return () if witness is None else (str(witness),)
