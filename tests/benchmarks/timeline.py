"""What each process did when: its calls one by one, and where its main thread stood.

    python -m tests.benchmarks.commit_profile … --calls FOLDER
    python -m tests.benchmarks.timeline --run FOLDER run --target … --commit …
    python -m tests.benchmarks.timeline FOLDER/calls.jsonl

The second form is the command line itself, watched from its first import on.
Each process appends its calls to one file as it ends: when one began (seconds of the monotonic
clock, which all processes of a host share), how long it took, and what it was about. Watched ones
add a sample of their main thread's stack every 10 ms, wait for the card before and after each
pass, and tell one packed and one unpacked pass by operation. The report has each process's calls,
their sums, and the functions that samples found.
"""

import functools
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

FILE = "calls.jsonl"
SAMPLE_S = 0.01
_DEPTH = 70
_SHOWN = 22
_LONG_S = 0.0005  # what the report lists one by one, but for parts of what it lists
_PARTS = ("send", "receive", "fetch", "fill.snapshot", "torch.load")


class Timeline:
    """Calls and samples of one process.

    Args:
        descriptor: of the file that all processes append to.
        role: of this process in the report.
    """

    def __init__(self, descriptor: int, role: str) -> None:
        self._descriptor, self.role = descriptor, role
        self._events: list[tuple[str, float, float, str]] = []
        self._stacks: dict[tuple[str, ...], int] = {}
        self._samples: list[tuple[float, int]] = []
        self._tables: list[str] = []

    @staticmethod
    def open(folder: Path, role: str) -> "Timeline":
        folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        return Timeline(os.open(folder / FILE, flags, 0o644), role)

    @property
    def descriptor(self) -> int:
        return self._descriptor

    def restart(self, role: str) -> None:
        """Be another process's from here on, which was forked."""
        self.role = role
        self._events, self._samples, self._tables, self._stacks = [], [], [], {}

    def tell(self, table: str) -> None:
        """Keep a text for the report."""
        self._tables.append(table)

    def note(
        self,
        place: Any,
        function: str,
        name: str | Callable[..., str],
        about: Callable[..., str] = lambda *_, **__: "",
    ) -> None:
        """Keep each call of a function from now on.

        Args:
            about: makes the call's detail of its arguments.
        """
        original = getattr(place, function)

        @functools.wraps(original)
        def noted(*arguments: Any, **named: Any) -> Any:
            told = name if isinstance(name, str) else name(*arguments, **named)
            detail = about(*arguments, **named)
            start = time.monotonic()
            try:
                return original(*arguments, **named)
            finally:
                self._events.append((told, start, time.monotonic() - start, detail))

        setattr(place, function, noted)

    def add(self, name: str, start: float) -> None:
        """Keep a call that ends now."""
        self._events.append((name, start, time.monotonic() - start, ""))

    def sample(self) -> None:
        """Look at the main thread every 10 ms from now on."""
        watched = threading.main_thread().ident

        def look() -> None:
            while True:
                time.sleep(SAMPLE_S)
                frame, lines = sys._current_frames().get(watched or 0), list[str]()
                while frame is not None and len(lines) < _DEPTH:
                    code = frame.f_code
                    place = "/".join(code.co_filename.rsplit("/", 2)[-2:])
                    lines.append(f"{place}:{frame.f_lineno} {code.co_qualname}")
                    frame = frame.f_back
                number = self._stacks.setdefault(tuple(lines), len(self._stacks))
                self._samples.append((time.monotonic(), number))

        threading.Thread(target=look, daemon=True).start()

    def write(self) -> None:
        """Append all that is not written yet."""
        content = {
            "role": self.role,
            "pid": os.getpid(),
            "events": self._events,
            "stacks": list(self._stacks),
            "samples": list(self._samples),
            "tables": self._tables,
        }
        self._events, self._samples, self._tables = [], [], []
        data = json.dumps(content).encode() + b"\n"
        while data:
            data = data[os.write(self._descriptor, data) :]


def about_call(_: Any, call: Any, tensors: Any = (), *__: Any) -> str:
    """What is asked of a target: its layers, tokens and the fill of its memory."""
    told = [f"{one.numel()} of {one.dtype}".replace("torch.", "") for one in list(tensors)[-2:]]
    for name in ("layers", "fill", "span", "sequences", "per_call"):
        value = getattr(call, name, None)
        if value not in (None, "", ()):
            told.append(f"{name} {len(value)}" if name in ("layers", "sequences") else str(value))
    return ", ".join(told)


def read(path: Path) -> list[dict[str, Any]]:
    """One entry a process, joined where it has written twice; by its first event's time."""
    joined: dict[tuple[str, int], dict[str, Any]] = {}
    for line in path.read_text().splitlines():
        one = json.loads(line)
        known = joined.setdefault(
            (one["role"], one["pid"]), {**one, "events": [], "samples": [], "tables": []}
        )
        known["tables"] += one["tables"]
        known["events"] += one["events"]
        stacks = one["stacks"]
        known["samples"] += [(at, tuple(stacks[number])) for at, number in one["samples"]]
    found = [one for one in joined.values() if one["events"] or one["samples"]]
    for one in found:
        one["events"].sort(key=lambda event: event[1])
        one["begun"] = min([*(e[1] for e in one["events"]), *(s[0] for s in one["samples"])])
    return sorted(found, key=lambda one: float(one["begun"]))


def report(path: Path, *, start: float | None = None) -> str:
    """All processes' calls and samples as text; times count from the first event."""
    found = read(path)
    if not found:
        return "no calls"
    zero = found[0]["begun"] if start is None else start
    lines: list[str] = []
    for one in found:
        lines += ["", f"{one['role']} {one['pid']}, from {one['begun'] - zero:.3f} s on"]
        last = one["begun"]
        for name, at, took, detail in one["events"]:
            if name in _PARTS and at < last:
                continue
            if took >= _LONG_S or at - last >= _LONG_S:
                gap = max(0.0, at - last)
                lines.append(f"{at - zero:9.3f} +{gap:6.3f} {took:8.4f}  {name}  {detail}")
            last = max(last, at + took)
        lines += _summed(one["events"]) + _sampled(one["samples"]) + one["tables"]
    return "\n".join(lines)


def _summed(events: list[Any]) -> list[str]:
    lines = ["   calls      sum    first   median     most"]
    by_name: dict[str, list[float]] = {}
    for name, _, took, _ in events:
        by_name.setdefault(name, []).append(took)
    for name, took in sorted(by_name.items(), key=lambda item: -sum(item[1])):
        middle = sorted(took)[len(took) // 2]
        figures = f"{sum(took):8.3f} {took[0]:8.3f} {middle:8.4f} {max(took):8.3f}"
        lines.append(f"{len(took):8} {figures}  {name}")
    return lines


def _sampled(samples: list[Any]) -> list[str]:
    if not samples:
        return []
    leaves: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for _, stack in samples:
        leaves[stack[0]] += 1
        within.update({line.partition(" ")[2] + "  " + line.split(":")[0] for line in stack})
    lines = [f"  {len(samples)} samples of {SAMPLE_S * 1000:.0f} ms; within each function"]
    lines += [f"{count:8}  {name}" for name, count in within.most_common(3 * _SHOWN)]
    lines.append("  at each line")
    lines += [f"{count:8}  {name}" for name, count in leaves.most_common(_SHOWN)]
    return lines


def run(folder: Path, arguments: list[str]) -> None:
    """Be the command line, watched."""
    timeline = Timeline.open(folder, "caller")
    timeline.sample()
    os.environ["VNPM_CALLS"] = str(folder)
    os.environ["PYTHONPATH"] = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
    start = time.monotonic()
    from virnucpro_monitor.cli.main import main
    from virnucpro_monitor.runner import client, gpu, prepare
    from virnucpro_monitor.runner.seats import Seats
    from virnucpro_monitor.runner.workers import Workers

    timeline.add("imports of the command line", start)
    client.SERVER_MODULE = "tests.benchmarks.commit_notes"
    timeline.note(client.WorkerPool, "_start", "start of the server")
    timeline.note(client.WorkerPool, "_connect", "hand a job over")
    timeline.note(Workers, "prepared", "prepare")
    timeline.note(Workers, "_check_out", "check out")
    timeline.note(Seats, "begin", "begin ahead")
    timeline.note(Seats, "keep_ready", "keep ready")
    timeline.note(prepare, "prepare", "prepare.prepare")
    timeline.note(gpu, "find_gpu", "find_gpu")
    sys.argv = ["virnucpro-monitor", *arguments]
    try:
        main()
    finally:
        timeline.add("command", start)
        timeline.write()


if __name__ == "__main__":
    if sys.argv[1] == "--run":
        run(Path(sys.argv[2]), sys.argv[3:])
    else:
        print(report(Path(sys.argv[1])))
