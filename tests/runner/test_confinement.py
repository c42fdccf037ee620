"""What a commit's process cannot do: harmless stand-ins for the attacks, all of which must fail.

Asked where the kernel has Landlock of Linux 6.12 (see conftest.py).
"""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runner.conftest import MakePlan
from tests.runner.tiny_target import HEALTHY, MODEL_FILE, TinyRepository
from virnucpro_monitor.records import Outcome
from virnucpro_monitor.runner.commits import run_commits

# {outside} is a file that others own, {hidden} a folder, {port} one that somebody listens on, {pid}
# a process outside.
_ATTACKS = """
import ctypes, json, os, signal, socket, tempfile
from pathlib import Path
import torch

def overwrites(path):
    with open(path, "a") as file:
        file.write("changed")

def reaches(family, address):
    with socket.socket(family) as one:
        one.settimeout(2)
        one.connect(address)

def mounts():
    library = ctypes.CDLL(None, use_errno=True)
    if library.mount(b"none", b"/", None, 4096 | 32, None) != 0:
        raise OSError(ctypes.get_errno(), "mount")

def signals():
    os.kill({pid}, signal.SIGTERM)

def traces():
    with open("/proc/{pid}/mem", "rb"):
        pass

attacks = {{
    "change a file of others": lambda: overwrites({outside!r}),
    "make a file beside it": lambda: overwrites({outside!r} + ".new"),
    "remove it": lambda: os.unlink({outside!r}),
    "put a link in its place": lambda: os.replace("ours", {outside!r}),
    "change an installed package": lambda: overwrites(torch.__file__),
    "read what is hidden": lambda: os.listdir({hidden!r}),
    "reach a port of this machine": lambda: reaches(socket.AF_INET, ("127.0.0.1", {port})),
    "reach an abstract socket": lambda: reaches(socket.AF_UNIX, {abstract!r}),
    "end a process": signals,
    "look into a process": traces,
    "mount anew": mounts,
}}
done = []
os.symlink({outside!r}, "ours")
for name, attack in attacks.items():
    try:
        attack()
    except OSError:
        continue
    done.append(name)
with tempfile.TemporaryFile() as file:
    file.write(b"its own")
Path("own").write_text("its own")
print(json.dumps(["attacks that succeeded", done]), flush=True)
"""


@pytest.fixture
def attacks(tmp_path: Path, cache_folder: Path) -> Iterator[str]:
    """The stand-ins, with something to attack that is seen to be whole after them."""
    outside, hidden = tmp_path / "monitor.db", cache_folder / "oracle"
    outside.write_text("whole")
    hidden.mkdir(exist_ok=True)
    abstract = f"\0virnucpro-monitor-{os.getpid()}"
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as named:
        named.bind(abstract)
        named.listen()
        yield _ATTACKS.format(
            outside=str(outside),
            hidden=str(hidden),
            port=server.getsockname()[1],
            abstract=abstract,
            pid=bystander.pid,
        )
        assert bystander.poll() is None
    bystander.send_signal(signal.SIGKILL)
    bystander.wait()
    assert outside.read_text() == "whole"
    assert not outside.with_name("monitor.db.new").exists()


@pytest.mark.usefixtures("shared_workers")
def test_a_commit_reaches_nothing_but_its_own(
    tiny: TinyRepository, make_plan: MakePlan, attacks: str
) -> None:
    commit = tiny.commit({MODEL_FILE: attacks + HEALTHY[MODEL_FILE]})
    (report,) = run_commits(make_plan([commit]))
    assert report.run.outcome is Outcome.PASSED, report.failure
    assert '["attacks that succeeded", []]' in report.documents["output"]["text"]
    assert report.documents["isolation"] == {"files": True, "network": True, "processes": True}


_WITHOUT_NAMESPACE = """
import os, sys
from pathlib import Path
from virnucpro_monitor.runner.confinement import *
os.chdir(sys.argv[1])
give_up_capabilities()
assert confine_files(Territory((Path(sys.argv[1]),), (Path(sys.argv[2]),)), network=False)
os.environ["TMPDIR"] = sys.argv[1]
exec(sys.argv[3])
"""


def test_without_a_namespace_too(tmp_path: Path, cache_folder: Path, attacks: str) -> None:
    """As for CUDA, which starts in none."""
    own = tmp_path / "own"
    own.mkdir()
    done = subprocess.run(
        [
            sys.executable, "-c", textwrap.dedent(_WITHOUT_NAMESPACE),
            str(own), str(cache_folder / "oracle"), attacks,
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )  # fmt: skip
    assert json.loads(done.stdout) == ["attacks that succeeded", []]


@pytest.mark.usefixtures("shared_workers")
def test_the_network_can_be_left_open(tiny: TinyRepository, make_plan: MakePlan) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        asks = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), 60).close()\n"
        commit = tiny.commit({MODEL_FILE: asks + HEALTHY[MODEL_FILE]})
        (closed,) = run_commits(make_plan([commit]))
        (opened,) = run_commits(make_plan([commit], network=True, force=True))
    assert closed.run.outcome is Outcome.ERROR
    assert opened.run.outcome is Outcome.PASSED
    assert opened.documents["isolation"]["network"] is False


@pytest.mark.usefixtures("shared_workers")
def test_nothing_is_left_in_the_scratch_folder(
    tiny: TinyRepository, make_plan: MakePlan, cache_folder: Path
) -> None:
    leaves = "import os, pathlib\npathlib.Path(os.environ['TMPDIR'], 'left').mkdir()\n"
    commit = tiny.commit({MODEL_FILE: leaves + HEALTHY[MODEL_FILE]})
    (report,) = run_commits(make_plan([commit]))
    assert report.run.outcome is Outcome.PASSED
    end = time.monotonic() + 10
    while any((cache_folder / "scratch").iterdir()) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any((cache_folder / "scratch").iterdir())
