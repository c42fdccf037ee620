import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from virnucpro_monitor.runner.supervisor import (
    Ending,
    OutputKeeper,
    descendants,
    used_memory_bytes,
)

# Runs in a process of its own: it adopts orphans and ends every child it has.
_HOST = """
import json, os, sys
from virnucpro_monitor.runner.containment import *
from virnucpro_monitor.runner.supervisor import *
adopt_orphans()
limits = Limits(**json.loads(sys.argv[1]))
result_read, result_write = os.pipe()
output_read, output_write = os.pipe()
child = fork_contained(namespace=sys.argv[3] == "namespace")
if isinstance(child, Inside):
    os.dup2(output_write, 1)
    os.dup2(output_write, 2)
    limit_own_memory(limits)
    namespace = {"os": os, "result_fd": result_write}
    try:
        exec(sys.argv[2], namespace)
    except BaseException as error:
        os.write(1, repr(error).encode())
        os._exit(7)
    os._exit(0)
os.close(result_write)
os.close(output_write)
told = child.status_fd is not None
lines = []
ending = supervise(child, result_read, output_read, limits, lambda line: bool(lines.append(line)))
left = descendants(os.getpid())
lines = [line.decode() for line in lines]
print(json.dumps([ending.cause, ending.code, ending.output, lines, left, told]))
"""
WAYS = ("namespace", "session")


def host_command(code: str, way: str, **limits: float) -> list[str]:
    limits.setdefault("timeout_s", 30.0)
    return [sys.executable, "-c", _HOST, json.dumps(limits), textwrap.dedent(code), way]


def supervised(code: str, way: str = "namespace", **limits: float) -> tuple[Ending, list[str]]:
    done = subprocess.run(
        host_command(code, way, **limits), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    cause, status, output, lines, left, told = json.loads(done.stdout)
    assert left == []
    assert told is (way == "namespace")
    return Ending(cause, status, output), lines


def count_running(token: str) -> int:
    """How many processes of this machine bear a word on their command line."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found += token.encode() in path.read_bytes().split(b"\0")
    return found


def wait_until_gone(token: str, timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while count_running(token) and time.monotonic() < end:
        time.sleep(0.05)
    assert count_running(token) == 0


def test_results_and_output_are_kept_apart() -> None:
    ending, lines = supervised("""
        print("hello", flush=True)
        os.write(result_fd, b'one\\ntwo\\nunfinished')
    """)
    assert ending == Ending("exit", 0, "hello\n")
    assert lines == ["one", "two"]


def test_an_exit_code_and_a_signal_are_told() -> None:
    assert supervised("os._exit(3)")[0] == Ending("exit", 3, "")
    ending, _ = supervised("os.kill(os.getpid(), 11)")
    assert (ending.cause, ending.code) == ("signal", signal.SIGSEGV)


def test_a_hang_ends_at_the_time_limit() -> None:
    start = time.monotonic()
    ending, _ = supervised("import time; time.sleep(60)", timeout_s=0.5)
    assert ending.cause == "timeout"
    assert time.monotonic() - start < 15


LEAVES_CHILDREN = """
import subprocess, sys, time
def sleeper(token, **how):
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    return subprocess.Popen([sys.executable, "-c", code, token], **how)
sleeper("TOKEN")
sleeper("TOKEN", start_new_session=True)
nested = "import os, sys; os.setsid(); os.fork() and os._exit(0); os.setsid(); "
nested += "python, code = sys.executable, 'import time; time.sleep(600)'; "
nested += "os.execv(python, [python, '-c', code, 'TOKEN'])"
subprocess.Popen([sys.executable, "-c", nested]).wait()
def command(pid):
    try:
        return open(f"/proc/{pid}/cmdline", "rb").read().split(bytes(1))
    except OSError:
        return []
while sum(b"TOKEN" in command(one) for one in os.listdir("/proc") if one.isdigit()) < 3:
    time.sleep(0.05)
"""


@pytest.mark.parametrize("way", WAYS)
def test_children_left_behind_are_ended_even_in_sessions_of_their_own(way: str) -> None:
    token = f"left-{uuid.uuid4().hex}"
    ending, _ = supervised(LEAVES_CHILDREN.replace("TOKEN", token), way)
    assert ending == Ending("exit", 0, "")
    assert count_running(token) == 0


@pytest.mark.parametrize("way", WAYS)
def test_a_killed_supervisors_children_are_ended(way: str) -> None:
    """By the kernel, or by the server to which they come."""
    token = f"orphan-{uuid.uuid4().hex}"
    code = LEAVES_CHILDREN.replace("TOKEN", token) + "time.sleep(600)"
    server = (
        "import os, sys; from virnucpro_monitor.runner import server\n"
        "from virnucpro_monitor.runner.containment import adopt_orphans\n"
        "adopt_orphans(); pid = os.fork()\n"
        "if pid == 0: os.execv(sys.executable, sys.argv[1:])\n"
        "print(pid, flush=True); supervisors = {pid}\n"
        "while supervisors: server._tend(supervisors)\n"
        "print('tended', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", server, *host_command(code, way)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        supervisor = int(process.stdout.readline())
        end = time.monotonic() + 20
        while count_running(token) < 3 and time.monotonic() < end:
            time.sleep(0.05)
        assert count_running(token) == 3
        os.kill(supervisor, signal.SIGKILL)
        assert process.stdout.readline() == "tended\n"
        wait_until_gone(token)
        process.communicate("")


@pytest.mark.parametrize("number", ["SIGSTOP", "SIGKILL", "SIGINT", "SIGTERM"])
def test_a_target_cannot_stop_or_end_who_keeps_its_time(number: str) -> None:
    """Everything that it can name lies in its own namespace."""
    start = time.monotonic()
    ending, _ = supervised(
        f"""
        import signal, time
        for pid in (os.getppid(), 1):
            os.kill(pid, signal.{number})
        time.sleep(60)
        """,
        timeout_s=1.5,
    )
    assert ending.cause == "timeout"
    assert time.monotonic() - start < 20


def test_an_allocation_beyond_the_limit_fails() -> None:
    ending, _ = supervised("block = bytearray(2 * 1024**3)", memory_limit_gib=0.5)
    assert ending.code == 7
    assert "MemoryError" in ending.output


@pytest.mark.parametrize("way", WAYS)
def test_pages_that_children_share_count_once(way: str) -> None:
    """300 MiB and eight forked children: 2.7 GiB by each one's own account."""
    ending, _ = supervised(
        """
        import time
        block = bytearray(b"x") * (300 * 1024**2)
        for _ in range(8):
            if os.fork() == 0:
                time.sleep(60)
        time.sleep(3)
        """,
        way,
        memory_limit_gib=0.6,
    )
    assert ending == Ending("exit", 0, "")


def test_shared_memory_counts() -> None:
    ending, _ = supervised(
        """
        import mmap, time
        shared = mmap.mmap(-1, 400 * 1024**2)
        for _ in range(400):
            shared.write(b"x" * 1024**2)
        time.sleep(60)
        """,
        memory_limit_gib=0.3,
    )
    assert ending.cause == "memory"


def test_a_process_whose_pages_cannot_be_read_counts_by_its_own_account(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    block = bytearray(b"x") * (50 * 1024**2)
    read_text = Path.read_text

    def read(path: Path, **options: Any) -> str:
        if path.name == "smaps_rollup":
            raise PermissionError
        return read_text(path, **options)

    fair = used_memory_bytes(os.getpid())
    monkeypatch.setattr(Path, "read_text", read)
    own = used_memory_bytes(os.getpid())
    assert fair >= len(block)
    assert own >= len(block)


def test_memory_of_children_counts_too() -> None:
    ending, _ = supervised(
        """
        import subprocess, sys, time
        code = "import time; block = bytearray(b'x') * (200 * 1024**2); time.sleep(60)"
        children = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
        time.sleep(60)
        """,
        memory_limit_gib=0.4,
    )
    assert ending.cause == "memory"


def test_a_flood_of_output_is_bounded() -> None:
    ending, _ = supervised("""
        os.write(1, b"first\\n")
        for _ in range(200):
            os.write(1, b"x" * 65536)
        os.write(1, b"\\nlast")
    """)
    assert ending.output.startswith("first\n")
    assert ending.output.endswith("\nlast")
    assert "bytes left out" in ending.output
    assert len(ending.output) < 100_000


@pytest.mark.parametrize("sizes", [[3], [5, 5, 5], [1] * 40])
def test_the_keeper_keeps_both_ends(sizes: list[int]) -> None:
    keeper = OutputKeeper(head=4, tail=4)
    data = bytes(range(97, 97 + 26)) * 2
    place = 0
    for size in sizes:
        keeper.add(data[place : place + size])
        place += size
    whole = data[:place].decode()
    if place <= 8:
        assert keeper.text() == whole
    else:
        left_out = f"\n… {place - 8} bytes left out …\n"
        assert keeper.text() == whole[:4] + left_out + whole[-4:]


def test_descendants_are_found_at_any_depth() -> None:
    shell = subprocess.Popen(["sh", "-c", "sleep 60 & wait"])
    try:
        # A listing of /proc may miss an entry while other processes come and go.
        end = time.monotonic() + 10
        found: list[int] = []
        while time.monotonic() < end:
            found = descendants(shell.pid)
            if len(found) == 1 and {shell.pid, *found} <= set(descendants(os.getpid())):
                return
            time.sleep(0.02)
        pytest.fail(f"not found within 10 s: {found}")
    finally:
        for pid in (*descendants(shell.pid), shell.pid):
            os.kill(pid, signal.SIGKILL)
        shell.wait()


def test_a_target_sees_no_process_but_its_own(tmp_path: Path) -> None:
    """Nor, with that, their environment, command line, memory or open files."""
    ending, _ = supervised(
        """
        print(sorted(int(name) for name in os.listdir("/proc") if name.isdigit()))
        print(os.getpid() == int(os.readlink("/proc/self")))
        """
    )
    assert ending.output == "[1, 2]\nTrue\n"
