import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from virnucpro_monitor.runner.supervisor import (
    Ending,
    OutputKeeper,
    descendants,
)

# Runs in a process of its own: it adopts orphans and ends every child it has.
_HOST = """
import json, os, sys
from virnucpro_monitor.runner.supervisor import *
adopt_orphans()
limits = Limits(**json.loads(sys.argv[1]))
result_read, result_write = os.pipe()
output_read, output_write = os.pipe()
pid = os.fork()
if pid == 0:
    os.setsid()
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
lines = []
ending = supervise(pid, result_read, output_read, limits, lambda line: bool(lines.append(line)))
left = descendants(os.getpid())
print(json.dumps([ending.cause, ending.code, ending.output, [l.decode() for l in lines], left]))
"""


def supervised(code: str, **limits: float) -> tuple[Ending, list[str]]:
    import json

    limits.setdefault("timeout_s", 30.0)
    done = subprocess.run(
        [sys.executable, "-c", _HOST, json.dumps(limits), textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    cause, status, output, lines, left = json.loads(done.stdout)
    assert left == []
    return Ending(cause, status, output), lines


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


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


def test_children_left_behind_are_ended_even_in_sessions_of_their_own(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    ending, _ = supervised(f"""
        import subprocess, sys
        sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
        same = subprocess.Popen(sleeper)
        other = subprocess.Popen(sleeper, start_new_session=True)
        nested = subprocess.Popen(
            ["sh", "-c", "setsid sleep 600 & echo $! > {note}.nested; sleep 0.2"]
        )
        nested.wait()
        open({str(note)!r}, "w").write(f"{{same.pid}} {{other.pid}}")
    """)
    assert ending.cause == "exit"
    pids = [
        int(pid) for pid in (note.read_text() + " " + Path(f"{note}.nested").read_text()).split()
    ]
    assert len(pids) == 3
    assert not any(alive(pid) for pid in pids)


def test_an_allocation_beyond_the_limit_fails() -> None:
    ending, _ = supervised("block = bytearray(2 * 1024**3)", memory_limit_gib=0.5)
    assert ending.code == 7
    assert "MemoryError" in ending.output


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
