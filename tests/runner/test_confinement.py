"""What a commit's process cannot do: harmless stand-ins for the attacks, all of which must fail.

Asked where the kernel has Landlock of Linux 6.12 (see conftest.py).
"""

import json
import os
import re
import signal
import site
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runner.conftest import MakePlan
from tests.runner.tiny_target import HEALTHY, MODEL_FILE, TinyRepository
from virnucpro_monitor.records import Outcome, RunReport
from virnucpro_monitor.runner import workers
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

def reads(path):
    with open(path) as file:
        if not file.read():
            raise OSError("there is nothing to read")

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
    "read the database": lambda: reads({outside!r}),
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
print(os.getcwd())
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
    tiny: TinyRepository, make_plan: MakePlan, attacks: str, tmp_path: Path
) -> None:
    """In a process of its own, and in one that stood by for it."""
    first = tiny.git("rev-parse", "HEAD")
    commit = tiny.commit({MODEL_FILE: attacks + HEALTHY[MODEL_FILE]})
    again = tiny.commit({MODEL_FILE: attacks + HEALTHY[MODEL_FILE] + "# again"})
    alone, waited_for = (
        list(
            run_commits(make_plan(hashes, workers=1, force=True, hidden=(tmp_path / "monitor.db",)))
        )[-1]
        for hashes in ([commit], [first, again])
    )
    for report, stood_by in ((alone, False), (waited_for, True)):
        assert ("seat-" in report.documents["output"]["text"]) is stood_by
        check_held_back(report)


def check_held_back(report: RunReport) -> None:
    assert report.run.outcome is Outcome.PASSED, report.failure
    assert '["attacks that succeeded", []]' in report.documents["output"]["text"]
    assert report.documents["isolation"] == {
        "files": True, "network": True, "processes": True, "chosen": False, "user": ""
    }  # fmt: skip


@pytest.mark.usefixtures("shared_workers")
def test_a_link_that_leads_out_of_a_commit_opens_nothing(
    tiny: TinyRepository, make_plan: MakePlan, tmp_path: Path
) -> None:
    """What others may read is read through it, what is hidden is not, and nothing is written."""
    open_file, hidden = tmp_path / "kernel.py", tmp_path / "monitor.db"
    for file in (open_file, hidden):
        file.write_text("SCALE = 1\n")
    link = tiny.folder / "tinytarget" / "kernel.py"
    uses = (
        "from pathlib import Path\n"
        "from tinytarget import kernel\n"
        "try:\n"
        "    Path(kernel.__file__).write_text('changed')\n"
        "except OSError as error:\n"
        "    print('not written:', error.strerror, flush=True)\n"
    )
    link.symlink_to(open_file)
    commits = [tiny.commit({MODEL_FILE: uses + HEALTHY[MODEL_FILE]})]
    link.unlink()
    link.symlink_to(hidden)
    commits.append(tiny.commit({"README.md": "another link"}))
    reads, refused = run_commits(make_plan(commits, workers=1, force=True, hidden=(hidden,)))
    assert reads.run.outcome is Outcome.PASSED, reads.failure
    assert "not written: " in reads.documents["output"]["text"]
    assert refused.run.outcome is Outcome.ERROR
    assert refused.failure is not None
    assert refused.failure.message == (
        "tinytarget.models.esm2_flash cannot be imported: PermissionError: [Errno 13] "
        "Permission denied: 'tinytarget/kernel.py'"
    )
    assert open_file.read_text() == hidden.read_text() == "SCALE = 1\n"


@pytest.mark.usefixtures("shared_workers")
def test_who_turns_it_off_is_told_so(
    tiny: TinyRepository, make_plan: MakePlan, tmp_path: Path
) -> None:
    writes = f"open({str(tmp_path / 'outside')!r}, 'w').close()\n"
    commit = tiny.commit({MODEL_FILE: writes + HEALTHY[MODEL_FILE]})
    (report,) = run_commits(make_plan([commit], confine=False))
    assert report.run.outcome is Outcome.PASSED, report.failure
    assert (tmp_path / "outside").exists()
    isolation = report.documents["isolation"]
    assert (isolation["files"], isolation["network"], isolation["chosen"]) == (False, False, True)
    assert "`confine = false` did not keep" in report.documents["output"]["text"]


_AS_NOBODY = """
import json, os, signal, sys
from pathlib import Path
from virnucpro_monitor.runner.confinement import Territory
from virnucpro_monitor.runner.dropped_user import become_nobody
own, others, private, far = map(Path, sys.argv[1:5])
territory = Territory((own,), (private,))
assert not become_nobody(territory, [far]) and os.geteuid() == 0  # what it needs is out of reach
assert become_nobody(territory, [others])
def works(act):
    try:
        act()
    except OSError:
        return False
    return True
print(json.dumps([
    works(lambda: (own / "made").write_text("its own")),
    works(lambda: (own / "there").write_text("its own")),
    works(lambda: (others / "made").write_text("not its own")),
    works(lambda: list(private.iterdir())),
    works(lambda: os.kill(os.getppid(), 0)),
    works(lambda: os.seteuid(0)),
]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_that_owns_nothing_is_the_last_resort() -> None:
    """Where the kernel has neither Landlock nor namespaces."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        places = [folder / one for one in ("own", "others", "private", "far/away")]
        for place in places:
            place.mkdir(parents=True)
            place.chmod(0o755)
        (folder / "far").chmod(0o700)
        (folder / "own" / "there").write_text("as it was checked out")
        done = subprocess.run(
            [sys.executable, "-c", _AS_NOBODY, *map(str, places)],
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
    assert json.loads(done.stdout) == [True, True, False, False, False, False]


@pytest.mark.usefixtures("shared_workers")
def test_a_private_environment_is_the_targets_alone(
    tiny: TinyRepository,
    make_plan: MakePlan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "environment"
    venv.create(folder, symlinks=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    packages.joinpath("ours.pth").write_text("\n".join(site.getsitepackages()))
    # Whatever process starts in this environment, runs this before anything of ours.
    packages.joinpath("sitecustomize.py").write_text(
        "print('role:', *open('/proc/self/cmdline').read().split(chr(0))[4:5])\n"
    )
    monkeypatch.setattr(workers, "target_python", lambda *_: folder / "bin" / "python")
    (report,) = run_commits(make_plan([tiny.git("rev-parse", "HEAD")]))
    assert report.run.outcome is Outcome.PASSED, report.failure
    assert re.findall(r"role: .*", report.documents["output"]["text"]) == ["role: --target"]
    assert report.run.environment is not None
    assert "fair-esm" in (report.run.environment.packages or {})


_WITHOUT_NAMESPACE = """
import os, sys
from pathlib import Path
from virnucpro_monitor.runner.confinement import *
os.chdir(sys.argv[1])
give_up_capabilities()
assert confine_files(Territory((Path(sys.argv[1]),), tuple(map(Path, sys.argv[3:]))), network=False)
os.environ["TMPDIR"] = sys.argv[1]
exec(sys.argv[2])
"""


def test_without_a_namespace_too(tmp_path: Path, cache_folder: Path, attacks: str) -> None:
    """As for CUDA, which starts in none."""
    own = tmp_path / "own"
    own.mkdir()
    done = subprocess.run(
        [
            sys.executable, "-c", textwrap.dedent(_WITHOUT_NAMESPACE),
            str(own), attacks, str(cache_folder / "oracle"), str(tmp_path / "monitor.db"),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1]) == ["attacks that succeeded", []]


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
