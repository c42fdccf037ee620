"""The fork server of a profiled start: it, and all that it forks, note what they do, and when.

`commit_profile` and `timeline` run it in place of the product's own; it does the same, and prints.
"""

import functools
import os
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.benchmarks.phases import Sums
from tests.benchmarks.timeline import Timeline, about_call
from virnucpro_monitor.records.calls import NamePackages

MARK = re.compile(r"@(\w+) ([0-9.]+)")
PROFILED = {"EmbedPack": 12, "EmbedAlone": 10}  # which of a watched target's passes


def mark(name: str) -> None:
    print(f"@{name} {time.monotonic()}", flush=True)


def marked(place: Any, function: str, begun: str, done: str) -> None:
    """Let a function note when it is entered and left."""
    original = getattr(place, function)

    @functools.wraps(original)
    def noted(*arguments: Any, **named: Any) -> Any:
        mark(begun)
        try:
            return original(*arguments, **named)
        finally:
            mark(done)

    setattr(place, function, noted)


def noted_functions() -> tuple[tuple[Any, str, str], ...]:
    """What is summed up wherever it runs: where it stands, its name there, and the row's name."""
    from virnucpro_monitor.runner import (
        first_passes,
        isolating,
        oracles,
        remote,
        reuse,
        server,
        standby,
        target_process,
        warm,
        worker,
    )
    from virnucpro_monitor.validation import (
        comparing,
        exact_model,
        fingerprints,
        hypotheses,
        oracle,
        probe_sides,
        probes,
        signatures,
        trace,
        validate,
    )

    return (
        (server, "map_checkpoints", "server.map_weights"),
        (server, "wait_for_trial", "server.wait_for_trial"),
        (server, "load_for", "server.load_for"),
        (worker, "_warm_up", "judge.start_device"),
        (worker, "_yardstick", "judge.open_yardstick"),
        (exact_model, "load_ahead", "judge.load_ahead"),
        (oracles, "open_oracle", "judge.open_yardstick.oracle"),
        (remote.RemoteSubject, "meet", "judge.wait_for_process"),
        (remote.RemoteSubject, "wait", "judge.wait_for_model"),
        (reuse, "_read", "judge.reuse.read"),
        (reuse, "_gives_the_same", "judge.reuse.sample"),
        (reuse, "_write", "judge.reuse.write"),
        (validate, "open_probes", "judge.open_probes"),
        (validate, "measure", "judge.passes"),
        (comparing, "_compare", "judge.passes.compare"),
        (comparing, "_result", "judge.passes.result"),
        (comparing, "compare_ahead", "judge.load_ahead.compare"),
        (reuse, "read_ahead", "judge.reuse.read_ahead"),
        (validate, "run_probes", "judge.probes"),
        (probes, "oracle_beside", "judge.probes.oracle"),
        (probes, "judge_weights", "judge.probes.weights"),
        (probes, "collator_probe", "judge.probes.collator"),
        (probes, "change_passes", "judge.probes.changes"),
        (probes, "ask_changes", "judge.probes.ask_changes"),
        (probes, "probe_mask", "judge.probes.mask"),
        (probes, "probe_embedding", "judge.probes.embedding"),
        (probes, "probe_positions", "judge.probes.position"),
        (probes, "probe_order", "judge.probes.order"),
        (probes, "shape_packs", "judge.probes.shapes"),
        (probe_sides.Disagreement, "add", "judge.probes.disagreement"),
        (validate, "judge_within_noise", "judge.verdict"),
        (validate, "trace", "judge.trace"),
        (validate, "probe_batches", "judge.trace.packs"),
        (exact_model, "_oracle_model", "judge.trace.oracle_model"),
        (exact_model, "load_checkpoint", "judge.trace.oracle_model.load"),
        (trace, "trace_leak", "judge.trace.leak"),
        (trace, "name_unsteady", "judge.trace.unsteady"),
        (trace._Tracer, "_pooled_errors", "judge.trace.which"),
        (trace._Tracer, "_trace_one", "judge.trace.one"),
        (trace._Tracer, "_group", "judge.trace.group"),
        (trace, "describe", "judge.trace.describe"),
        (signatures, "explain", "judge.trace.explain"),
        (hypotheses, "run_layer", "judge.trace.explain.layer"),
        (exact_model.ExactModel, "layers", "judge.trace.oracle_passes"),
        (validate, "trace_residues", "judge.trace_residues"),
        (validate, "write_embeddings", "judge.keep_embeddings"),
        (oracle, "load_checkpoint", "judge.oracle.load"),
        (fingerprints, "load_checkpoint", "judge.probes.weights.load"),
        (isolating, "confine_files", "target.confine"),
        (target_process, "get_ready", "target.get_ready"),
        (first_passes, "run_first_passes", "target.get_ready.first_passes"),
        (standby, "_populate", "target.get_ready.populate"),
        (target_process.Host, "_loaded", "target.load"),
        (warm, "build_model", "target.load.build"),
    )


def note_calls(timeline: Timeline) -> None:
    """Let the timeline have each call of what is noted, and of what they exchange."""
    import torch

    from virnucpro_monitor.runner import channel, environment, orders, packages, worker
    from virnucpro_monitor.validation import poison

    for place, function, name in noted_functions():
        timeline.note(place, function, name)
    for place, function, name in (
        (torch, "load", "torch.load"),
        (torch.nn.Module, "to", "module.to"),
        (torch.cuda, "memory_snapshot", "fill.snapshot"),
        (poison, "_fill_free_blocks", "fill"),
        (channel, "_plain", "fetch"),
        (channel.Channel, "send", "send"),
        (channel.Channel, "receive", "receive"),
        (worker, "_prepare", "worker.prepare"),
        (worker, "_measure", "worker.measure"),
        (worker, "_yardstick", "worker.yardstick"),
        (environment, "capture_environment", "prepare.environment"),
        (packages, "installed_packages", "prepare.packages"),
        (orders, "decode_job", "server.decode_job"),
    ):
        timeline.note(place, function, name)

    note_questions(timeline)


def note_questions(timeline: Timeline) -> None:
    """Let the timeline have what a judge asks, and what its target answers."""
    from virnucpro_monitor.runner import remote, target_process

    def asked(_: Any, call: Any, *__: Any) -> str:
        return f"ask.{type(call).__name__}"

    def about(subject: Any, call: Any, _: Any, tensors: Any = (), *__: Any) -> str:
        return about_call(subject, call, tensors)

    timeline.note(remote.RemoteSubject, "ask", asked, about)
    timeline.note(target_process.Host, "answer", asked, about_call)


def wait_for_card() -> None:
    import torch

    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


def synchronised(answer: Any) -> Any:
    """`Host.answer` of a watched target: it waits for the card, and some passes are profiled."""
    calls = dict.fromkeys(PROFILED, 0)

    def answered(host: Any, call: Any, tensors: Any) -> Any:
        import torch

        wait_for_card()
        kind = type(call).__name__
        calls[kind] = calls.get(kind, 0) + 1
        if calls[kind] != PROFILED.get(kind):
            found = answer(host, call, tensors)
            wait_for_card()
            return found
        with torch.profiler.profile() as profile:
            found = answer(host, call, tensors)
            wait_for_card()
        averages = profile.key_averages()
        for key in ("self_cpu_time_total", "self_device_time_total"):
            table = averages.table(sort_by=key, row_limit=16, max_name_column_width=50)
            host.timeline.tell(f"{kind}, by {key}\n{table}")
        return found

    return answered


def serve() -> None:
    """Be the fork server, and all that it forks, with notes from the moment that it has imported.

    Until then it is what it is elsewhere: some things pass beside the import.
    """
    from virnucpro_monitor.runner import server

    preload, start = server.preload, time.monotonic()

    def preload_and_note() -> None:
        preload()
        note_all(start)

    server.preload = preload_and_note
    server.main()


def note_all(start: float) -> None:
    """Let a fork server that has started then, and all that it forks, note what they do."""
    import torch

    from virnucpro_monitor.records.messages import decode_job
    from virnucpro_monitor.runner import (
        channel,
        confinement,
        orders,
        remote,
        server,
        standby,
        target_process,
        worker,
    )
    from virnucpro_monitor.runner.containment import Contained
    from virnucpro_monitor.runner.supervisor import supervise

    sums = Sums()
    marked(target_process.Host, "load", "load_begun", "load_done")
    marked(worker, "_judge", "judging_begun", "judging_done")
    role = "server"
    for place, function, name in noted_functions():
        sums.note(place, function, name)
    for place, function, name in (
        (torch, "load", "torch.load"),
        (torch.nn.Module, "load_state_dict", "load_state_dict"),
        (torch.nn.Module, "to", "module.to"),
    ):
        sums.note(place, function, lambda *_, name=name: f"{role}.{name}")
    sums.note(
        remote.RemoteSubject, "ask", lambda _subject, call, *_: f"judge.ask.{type(call).__name__}"
    )
    sums.note(
        target_process.Host,
        "answer",
        lambda _host, call, *_: f"target.answer.{type(call).__name__}",
    )
    sums.note(worker, "encode", "judge.encode")
    folder, watched = os.environ.get("VNPM_CALLS"), "VNPM_WATCHED" in os.environ
    timeline = None if folder is None else Timeline.open(Path(folder), "server")
    if timeline is not None:
        note_calls(timeline)
        timeline.add("server.imports", start)
    serving, judging, meeting = server._serve_target, worker.run_job, remote.RemoteSubject.meet
    going, answer, waiting = standby.wait_for_go, target_process.Host.answer, Contained.wait
    is_first, ends = True, dict[str, float]()

    def decoded(line: bytes) -> Any:
        nonlocal is_first
        if not is_first:  # what the server did for the job before it
            sums.clear()
        is_first = False
        if timeline is not None:
            timeline.write()
        return decode_job(line)

    def be_target(*arguments: Any, **named: Any) -> Any:
        nonlocal role
        role = "target"
        sums.note_imports("target.imports")
        sums.note(channel, "_plain", "target.fetch")
        sums.note(channel.Channel, "send", "target.send")
        sums.note(channel.Channel, "receive", "target.waits")
        sums.enter("target")
        if timeline is not None:
            timeline.restart("target")
            if watched:
                target_process.Host.timeline = timeline  # type: ignore[attr-defined]
                timeline.sample()
        return serving(*arguments, **named)

    def go(*arguments: Any) -> None:
        going(*arguments)
        sums.set_aside("standby.")

    def be_judge(*arguments: Any, held: bool = False, **named: Any) -> Any:
        def meet(subject: Any) -> None:
            meeting(subject)
            sums.set_aside("standby.")

        nonlocal role
        role = "judge"
        if held:
            remote.RemoteSubject.meet = meet  # type: ignore[method-assign,assignment]
        if timeline is None:
            sums.settle = wait_for_card
        else:
            timeline.restart(f"judge of {type(arguments[0]).__name__}")
            if watched:
                timeline.sample()
        sums.note_imports("judge.imports")
        sums.note(channel.Channel, "_take", "judge.read")
        sums.note(channel.Channel, "send", "judge.send")
        sums.enter("judge")
        try:
            return judging(*arguments, held=held, **named)
        finally:
            sums.tell()
            if timeline is not None:
                timeline.write()

    def answered(host: Any, call: Any, tensors: Any) -> Any:
        if isinstance(call, NamePackages):  # the last that is asked of a target
            sums.tell()
            if timeline is not None:
                timeline.write()
        return answer(host, call, tensors)

    def waited(child: Any, timeout_s: float) -> Any:
        ends["judge_gone"] = time.monotonic()
        status = waiting(child, timeout_s)
        ends["target_gone"] = time.monotonic()
        return status

    def supervised(*arguments: Any, **named: Any) -> Any:
        ending = supervise(*arguments, **named)
        ends["watched"] = time.monotonic()
        marks = "".join(f"@{name} {at}\n" for name, at in ends.items())
        return replace(ending, output=f"{ending.output}\n{marks}")

    def closed(*, but: set[int]) -> None:
        closing(but=but if timeline is None else {*but, timeline.descriptor})

    closing = confinement.close_descriptors
    if watched:
        answer = synchronised(answer)
    for place, function, ours in (
        (server, "close_descriptors", closed),
        (server, "_serve_target", be_target),
        (worker, "run_job", be_judge),
        (orders, "decode_job", decoded),
        (server, "supervise", supervised),
        (target_process, "wait_for_go", go),
        (Contained, "wait", waited),
        (target_process.Host, "answer", answered),
    ):
        setattr(place, function, ours)


if __name__ == "__main__":
    serve()
