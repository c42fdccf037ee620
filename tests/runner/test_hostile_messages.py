"""Whatever arrives on the worker's channel is its commit's error, and the next commit runs."""

import json
import os
import re
import struct
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.runner.conftest import MODEL, SEQUENCES, SMALL, MakePlan
from tests.runner.tiny_target import (
    HEALTHY,
    MODEL_FILE,
    WAITS,
    TinyRepository,
    begun_notes,
    has_begun,
)
from virnucpro_monitor.records import (
    Culprit,
    Figures,
    GateResult,
    Outcome,
    SequenceResult,
    Verdict,
)
from virnucpro_monitor.records.messages import Judged, MessageError, decode_said, encode
from virnucpro_monitor.runner.accept import Acceptance
from virnucpro_monitor.runner.begun import Begun
from virnucpro_monitor.runner.commits import run_commits

VERDICT = Verdict(
    outcome=Outcome.PASSED,
    culprit=Culprit.NONE,
    reason="All is well.",
    figures=Figures(
        num_sequences=len(SEQUENCES),
        num_tokens=38,
        num_strict=len(SEQUENCES),
        num_failed=0,
        strict_pass_rate=1.0,
        min_similarity=1.0,
        p01_similarity=1.0,
        median_similarity=1.0,
        max_similarity=1.0,
        seed_passed=True,
    ),
    gates=(GateResult(name="seed", passed=True, value=1.0, limit=1.0, unit="sequences"),),
    sequences=tuple(
        SequenceResult(index=index, sequence_id=one.id, length=len(one.residues), similarity=1.0)
        for index, one in enumerate(SEQUENCES)
    ),
)
JUDGED = encode(
    Judged(
        benchmark=0,
        backend="own",
        verdict=VERDICT,
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        duration_s=1.0,
    )
).decode()

# Stands in for a target that finds its channel to the judge; what it writes is harmless.
_WRITES = """
import os, stat
for descriptor in range(3, 40):
    try:
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            os.write(descriptor, {data!r})
    except OSError:
        pass
"""
# Stands in for one that says of itself, in every place that it can reach, that all is well.
_CLAIMS = """
import os, stat, sys
for descriptor in range(1, 40):
    try:
        os.write(descriptor, {line!r})
    except OSError:
        pass
"""


def changed(**fields: object) -> str:
    return json.dumps(json.loads(JUDGED) | fields)


def with_verdict(**fields: object) -> str:
    content = json.loads(JUDGED)
    content["verdict"] |= fields
    return json.dumps(content)


def framed(content: object, rest: bytes = b"") -> bytes:
    header = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack(">I", len(header)) + header + rest


LOADED = {
    "kind": "Loaded",
    "model_name": MODEL,
    "num_layers": 6,
    "dtype": "float32",
    "device": "cpu",
    "backend": "own",
    "token_budget": 4096,
    "fills": False,
    "tensors": [],
}
ANSWERS = [
    (b"hello, this is no header", "longer than any message"),
    (framed(b"hello"), "it is not JSON"),
    (framed(b"[" * 100_000), "it is not JSON"),
    (framed({"kind": "Verdict", "tensors": []}), "of no kind that is known"),
    (framed({"kind": "Loaded", "tensors": []}), "missing"),
    (framed(LOADED | {"num_layers": 1e9}), "Loaded.num_layers is 1000000000.0"),
    (framed(LOADED | {"num_layers": -1}), "a number of layers or tokens that cannot be"),
    (framed(LOADED | {"device": "meta"}), "in no dtype or on no device"),
    (framed(LOADED | {"backend": "x" * 1000}), "no usable name"),
    (framed(LOADED | {"tensors": [["float32", [1 << 20, 1 << 20]]]}), "more than any answer holds"),
    (framed(LOADED | {"tensors": [["object", [1]]]}), "of no dtype that is known"),
    (framed({"kind": "Embedded", "layers": [], "tensors": []}), "came in place of Loaded"),
    (framed(json.dumps(LOADED).replace("4096", "NaN").encode()), "it holds NaN"),
    (
        framed(LOADED) + framed({"kind": "Packs", "packs": [], "tensors": [["int64", [-1]]]}),
        "shape",
    ),
]
VERDICTS = [
    (changed(benchmark=7), "after the last that was expected"),
    (changed(duration_s=-1), "a duration that cannot be"),
    (with_verdict(reason=0.5), "Judged.verdict.reason is 0.5, not a text"),
    (JUDGED.replace('"min_similarity": 1.0', '"min_similarity": NaN'), "it holds NaN"),
    (JUDGED.replace('"min_similarity": 1.0', '"min_similarity": 1e999'), "not finite"),
    (JUDGED.replace('"min_similarity": 1.0', '"min_similarity": 1.5'), "a cosine beyond 1"),
    (with_verdict(outcome="skipped"), "A verdict says skipped"),
    (with_verdict(sequences=[]), "not on the sequences of small@1"),
    (with_verdict(outcome="failed"), "does not follow from its own gates"),
]


@pytest.mark.usefixtures("shared_workers")
def test_strange_answers_cost_their_own_commit_alone(
    tiny: TinyRepository, make_plan: MakePlan
) -> None:
    hashes, healthy = [], HEALTHY[MODEL_FILE]
    for data, _ in ANSWERS:
        hashes.append(tiny.commit({MODEL_FILE: _WRITES.format(data=data) + healthy}))
    hashes.append(tiny.commit({MODEL_FILE: healthy + "\n# last\n"}))
    *strange, last = run_commits(make_plan(hashes))
    assert last.run.outcome is Outcome.PASSED
    assert len(strange) == len(ANSWERS)
    for report, (_, sentence) in zip(strange, ANSWERS, strict=True):
        assert report.run.outcome is Outcome.ERROR
        assert report.failure is not None
        assert report.failure.kind == "garbage", report.run.reason
        assert "wrote to the monitor's own channel" in report.run.reason
        assert sentence.lower() in report.run.reason.lower()
        assert report.run.figures is None


@pytest.mark.parametrize(("line", "sentence"), VERDICTS)
def test_a_verdict_that_cannot_be_is_refused(line: str, sentence: str) -> None:
    with pytest.raises(MessageError, match=re.escape(sentence)):
        Acceptance((SMALL,), 0)(decode_said(line.encode()))


@pytest.mark.usefixtures("shared_workers")
def test_no_target_speaks_for_itself(tiny: TinyRepository, make_plan: MakePlan) -> None:
    """It says "passed" wherever it can write, and replaces what would judge it, in its process."""
    broken = HEALTHY[MODEL_FILE].replace("PADDING = 1", "PADDING = 0")
    claims = _CLAIMS.format(line=JUDGED.encode() + b"\n")
    replaces = (
        "from virnucpro_monitor.validation import validate, verdict\n"
        "validate.validate_subject = verdict.judge = lambda *_, **__: None\n"
        "from virnucpro_monitor.runner import target_process\n"
        "_told = {'family': 'lenient', 'hides_residues': False}\n"
        "_loaded = target_process.Loaded\n"
        "target_process.Loaded = lambda **fields: _loaded(**{**fields, **_told})\n"
    )
    hashes = [tiny.commit({MODEL_FILE: one + broken}) for one in (claims, replaces, "")]
    claimed, replaced, plain = run_commits(make_plan(hashes))
    assert claimed.run.outcome is Outcome.ERROR
    assert plain.run.outcome is Outcome.FAILED
    assert (replaced.run.outcome, replaced.run.figures.min_similarity) == (
        Outcome.FAILED,
        plain.run.figures.min_similarity,
    )
    assert "limits" not in replaced.documents  # those of a family that it claims to be of


_RUNNER = """
import sys
from pathlib import Path
from virnucpro_monitor.data.benchmarks import load_benchmark
from virnucpro_monitor.records import Request, Target
from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.runner.commits import run_commits
from virnucpro_monitor.runner.plan import RunPlan
from virnucpro_monitor.validation.protocol import load_protocol
from tests.runner.conftest import SMALL

folder, cache, *hashes = sys.argv[1:]
repository = Repository.open(folder, Path(cache))
plan = RunPlan(
    target=Target(name="tiny", location=folder),
    repository=repository,
    commits=repository.commits(hashes, repository.history("HEAD")),
    benchmarks=(SMALL,),
    request=Request(model={model!r}, weights="synthetic"),
    protocol=load_protocol(),
    cache_folder=Path(cache),
    probes=False,
    workers=2,
)
for report in run_commits(plan):
    print(report.run.commit.hash, report.run.outcome, report.run.reason, flush=True)
"""


def test_a_commit_that_takes_the_runner_down_is_not_tried_for_ever(
    tiny: TinyRepository, cache_folder: Path
) -> None:
    healthy = HEALTHY[MODEL_FILE]
    # Stands in for one that has the runner killed: by the kernel for its memory, say.
    hashes = [tiny.commit({MODEL_FILE: WAITS + healthy}), tiny.commit({MODEL_FILE: healthy})]
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(_RUNNER.format(model=MODEL)),
        str(tiny.folder),
        str(cache_folder),
        *hashes,
    ]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    for killed in (1, 2):
        for note in begun_notes(cache_folder):
            note.unlink(missing_ok=True)
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as runner:
            end = time.monotonic() + 120
            try:
                while not has_begun(cache_folder) and runner.poll() is None:
                    assert time.monotonic() < end
                    time.sleep(0.05)
            finally:
                runner.kill()
        assert has_begun(cache_folder)
        (mark,) = cache_folder.glob(f"begun/*/{hashes[0]}")
        runners = json.loads(mark.read_text())
        assert len(runners) == killed
    # Eight more, each of which had left its name as these two have.
    mark.write_text(json.dumps([*runners, *(f"999999999 {number}" for number in range(8))]))
    last = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    first, second = last.stdout.splitlines()
    assert first.startswith(f"{hashes[0]} error The monitor itself was ended 10 times")
    assert second.startswith(f"{hashes[1]} passed")


def test_a_mark_goes_with_its_commit_and_counts_runners_that_are_gone(tmp_path: Path) -> None:
    begun = Begun(tmp_path / "begun")
    assert begun.times("a") == 0
    with begun.marking("a"):
        assert begun.times("a") == 0  # its runner lives
        (mark,) = (tmp_path / "begun").iterdir()
    assert not mark.exists()
    mark.write_text(json.dumps(["999999999 1", f"{os.getpid()} 1"]))
    assert begun.times("a") == 2
    mark.write_text("garbage")
    assert begun.times("a") == 0
