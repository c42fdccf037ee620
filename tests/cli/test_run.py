import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runner.tiny_target import (
    HEALTHY,
    MODEL_FILE,
    PADDED_WITH_CLS,
    WAITS,
    TinyRepository,
    has_begun,
)
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.monitor.running import RunOptions, RunOutcome, make_plan
from virnucpro_monitor.records import Outcome
from virnucpro_monitor.runner.builtin import builtin_target
from virnucpro_monitor.settings import load_settings
from virnucpro_monitor.store.engine import open_engine
from virnucpro_monitor.store.health_reader import load_heartbeats
from virnucpro_monitor.store.reader import load_commits, load_failure, load_runs

pytestmark = pytest.mark.usefixtures("quick_probes", "shared_workers")

FASTA = ">a\nMKTAYIAKQR\n>b\nVLSPADKTNVKAAWGKV\n"
MODEL = ("--model", "esm2_t6_demo", "--weights", "synthetic")
CPU = (*MODEL, "--device", "cpu", "--dtype", "float32")

Run = Callable[..., int]


@pytest.fixture
def tiny(tmp_path: Path) -> TinyRepository:
    repository = TinyRepository(tmp_path / "tiny")
    repository.commit(HEALTHY, "Add packed inference")
    return repository


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'monitor.db'}"


@pytest.fixture
def run(tmp_path: Path, database: str, private_folders: Path) -> Run:
    """Run on a small benchmark set of the user's."""
    fasta = tmp_path / "small.fasta"
    fasta.write_text(FASTA)
    if not list((private_folders / "data").rglob("*small*")):
        assert run_command(["benchmark", "add", str(fasta), "--name", "small"]) == 0

    def call(*arguments: str) -> int:
        return run_command(["run", *arguments, *CPU, "--benchmark", "small", "--db", database])

    return call


def outcomes(database: str) -> list[tuple[str, str]]:
    engine = open_engine(database, read_only=True)
    try:
        return [(run.commit.hash, str(run.outcome)) for run in load_runs(engine)]
    finally:
        engine.dispose()


def test_a_history_is_run_stored_and_not_run_twice(
    tiny: TinyRepository, database: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    healthy = tiny.git("rev-parse", "HEAD")
    faulty = tiny.commit({MODEL_FILE: PADDED_WITH_CLS})
    crashing = tiny.commit({MODEL_FILE: "raise RuntimeError('boom')\n" + HEALTHY[MODEL_FILE]})
    place = ("--target", str(tiny.folder))
    assert run(*place, "--commit", healthy) == 0
    assert "Created the database" in capsys.readouterr().err
    assert run(*place, "--new") == 2
    capsys.readouterr()
    expected = [(healthy, "passed"), (faulty, "failed"), (crashing, "error")]
    assert outcomes(database) == expected

    assert run(*place, "--new") == 0
    assert "Nothing new." in capsys.readouterr().err
    assert run(*place, "--commit", crashing) == 3
    assert run(*place, "--commits", f"{healthy}..HEAD") == 2
    assert outcomes(database) == expected

    engine = open_engine(database, read_only=True)
    last = load_runs(engine)[-1]
    assert last.id is not None
    failure = load_failure(engine, last.id)
    assert failure is not None
    assert "boom" in failure.traceback
    beat = load_heartbeats(engine)[0]
    # Of the last --new, which found nothing: what was started by hand since is no word of its own.
    assert (beat.target, beat.state, beat.message, beat.exit_code) == (
        "tiny",
        "finished",
        "Nothing new.",
        0,
    )
    engine.dispose()


def test_a_rewritten_branch_keeps_its_results(
    tiny: TinyRepository, database: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tiny.git("rev-parse", "HEAD")
    gone = tiny.commit({"a.txt": "1"})
    place = ("--target", str(tiny.folder))
    assert run(*place, "--commit", root, "--commit", gone) == 0
    tiny.git("reset", "--quiet", "--hard", root)
    rewritten = tiny.commit({"a.txt": "2"})
    capsys.readouterr()
    assert run(*place, "--new") == 0
    assert "The branch was rewritten: 1 commits" in capsys.readouterr().err
    assert {commit for commit, _ in outcomes(database)} == {root, gone, rewritten}
    engine = open_engine(database, read_only=True)
    on_branch = {commit.hash: commit.on_branch for commit in load_commits(engine, "tiny")}
    engine.dispose()
    assert on_branch == {root: True, gone: False, rewritten: True}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--target", "nowhere"], "targets add NAME REPOSITORY stores one."),
        (["--target", "{tiny}", "--commit", "nope"], "Revision 'nope' is not known"),
        (["--target", "{tiny}", "--commits", "HEAD"], "has no two dots"),
        (["--target", "{tiny}", "--new", "--commit", "HEAD"], "--new and --all pick the commits"),
        (["--target", "{tiny}", "--new", "--all"], "--new and --all pick the commits"),
        (["--all"], "measured as it is installed"),
        (["--target", "{tiny}", "--protocol", "9"], "There is no protocol '9'"),
        (["--target", "{tiny}", "--timeout", "0"], "0.0 is not a time limit"),
        (["--target", "{tiny}", "--timeout", "nan"], "'nan' is not a time"),
        (["--target", "{tiny}", "--wait", "-1"], "'-1' is not a time"),
        (["--target", "{tiny}", "--memory-limit", "inf"], "inf is not a memory limit"),
        (["--target", "{tiny}", "--token-budget", "2"], "2 is not a token budget"),
        (["--target", "{tiny}", "--order", "sideways"], "'sideways' is not an order"),
        (["--commit", "HEAD"], "measured as it is installed"),
        (["--target", "{tiny}", "--benchmark", "gone"], "gone"),
        (["--target", "{tiny}", "--model", "esm3"], "esm3"),
        (["--target", "{tiny}", "--dtype", "int8"], "'int8' is not a dtype"),
        (["--target", "{tiny}", "--device", "cuda:7"], "cuda:7"),
        (["--target", "{tiny}", "--weights", "gone.pt"], "gone.pt"),
        (["--target", "{tiny}", "--workers", "0"], "use a whole number from 1 to 1024 (--workers)"),
    ],
)
def test_bad_input_is_one_sentence_and_stores_nothing(
    tiny: TinyRepository,
    database: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    given = [argument.replace("{tiny}", str(tiny.folder)) for argument in arguments]
    defaults = [*MODEL, "--device", "cpu", "--dtype", "float32", "--benchmark", "seed"]
    for name in given:
        if name in defaults:
            place = defaults.index(name)
            del defaults[place : place + 2]
    assert run_command(["run", *given, *defaults, "--db", database]) == 1
    output = capsys.readouterr()
    lines = output.err.strip().splitlines()
    assert sentence in lines[-1]
    assert len(lines) == 1
    assert output.out == ""
    assert not (tmp_path / "monitor.db").exists()


def test_json_is_all_that_standard_output_gets(
    tiny: TinyRepository, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run("--target", str(tiny.folder), "--json") == 0
    runs = json.loads(capsys.readouterr().out)
    assert [one["outcome"] for one in runs] == ["passed"]
    assert runs[0]["id"] is not None


def test_the_builtin_target_is_measured_as_it_is_installed(database: str, run: Run) -> None:
    assert run() == 0
    engine = open_engine(database, read_only=True)
    (stored,) = load_runs(engine)
    engine.dispose()
    assert stored.target == "builtin"
    assert stored.configuration.backend == "sdpa"
    assert stored.outcome is Outcome.PASSED
    assert run() == 0  # known already


def test_limits_of_the_settings_reach_the_plan(tmp_path: Path) -> None:
    settings = load_settings(workers=2, memory_limit_gib=3.0, timeout_s=4.0, cache_dir=tmp_path)
    plan, _ = make_plan(settings, builtin_target(), [], RunOptions())
    assert (plan.workers, plan.memory_limit_gib, plan.timeout_s) == (2, 3.0, 4.0)


def test_a_log_gets_all_output(tiny: TinyRepository, database: str, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "run.log"
    for _ in range(2):
        done = subprocess.run(
            [
                sys.executable, "-m", "virnucpro_monitor", "run", "--target", str(tiny.folder),
                "--commit", "nope", "--log", str(log), "--db", database, *CPU,
            ],
            capture_output=True,
            check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
    assert log.read_text().count("Revision 'nope' is not known") == 2


def test_sigterm_ends_a_run_and_keeps_what_is_stored(
    tiny: TinyRepository, database: str, run: Run, private_folders: Path
) -> None:
    first = tiny.git("rev-parse", "HEAD")
    tiny.commit({MODEL_FILE: WAITS + HEALTHY[MODEL_FILE]})
    process = subprocess.Popen(
        [
            sys.executable, "-m", "virnucpro_monitor", "run", "--target", str(tiny.folder),
            "--commit", first, "--commit", "HEAD", "--benchmark", "small", "--db", database, *CPU,
        ],
        stderr=subprocess.PIPE,
    )  # fmt: skip
    end = time.monotonic() + 120
    stored = Path(database[10:])
    while not (has_begun(private_folders) and stored.exists()) and time.monotonic() < end:
        time.sleep(0.1)
    while not outcomes(database) and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert b"what was stored so far is kept" in said
    assert outcomes(database) == [(first, "passed")]


IMPATIENT = """
import os, signal, time
from virnucpro_monitor.cli.run import stopping_on_terminate
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs tests may ignore it
with stopping_on_terminate():
    try:
        os.kill(os.getpid(), signal.{first})
        time.sleep(60)
    finally:  # what still runs is being ended
        os.kill(os.getpid(), signal.{again})
        time.sleep(60)
"""


@pytest.mark.parametrize(("first", "again"), [("SIGINT", "SIGINT"), ("SIGTERM", "SIGINT")])
def test_who_asks_again_need_not_wait(first: str, again: str) -> None:
    command = [sys.executable, "-c", IMPATIENT.format(first=first, again=again)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 130
    assert done.stderr == "Ended at once; what was stored so far is kept.\n"


@pytest.mark.parametrize(
    ("stored", "code"),
    [
        ([], 0),
        ([Outcome.PASSED], 0),
        ([Outcome.PASSED, Outcome.ERROR], 3),
        ([Outcome.NOT_RUN], 3),
        ([Outcome.ERROR, Outcome.FAILED], 2),
    ],
)
def test_exit_codes(stored: list[Outcome], code: int) -> None:
    from tests.runner.test_plan import run as make_run

    runs = tuple(make_run(str(number), outcome) for number, outcome in enumerate(stored))
    assert RunOutcome(runs, ()).exit_code == code
    assert RunOutcome((), runs).exit_code == code


def test_an_inherited_failure_counts() -> None:
    from tests.runner.test_plan import run as make_run

    skipped = make_run("a", Outcome.SKIPPED, inherited_from="b", inherited_outcome=Outcome.FAILED)
    assert RunOutcome((skipped,), ()).exit_code == 2


def test_a_folder_that_is_broken_again_ends_by_that_content_s_verdict(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    for path, text in HEALTHY.items():
        folder.joinpath(path).parent.mkdir(parents=True, exist_ok=True)
        folder.joinpath(path).write_text(text)
    model = folder / MODEL_FILE
    ends = []
    for text in (PADDED_WITH_CLS, HEALTHY[MODEL_FILE], PADDED_WITH_CLS):
        model.write_text(text)
        ends.append(run("--target", f"folder:{folder}", "--new"))
    captured = capsys.readouterr()
    assert ends == [2, 0, 2]
    first = captured.err.split("The folder is back at ")[1].partition(".")[0]
    assert f"failed, as {first}" in captured.err
