import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.runner.conftest import MODEL
from virnucpro_monitor.errors import WeightsError
from virnucpro_monitor.records import Request
from virnucpro_monitor.records.messages import Ended, PrepareJob, Ready, Refused, encode
from virnucpro_monitor.runner import client, orders
from virnucpro_monitor.runner.client import WorkerPool, raise_refused
from virnucpro_monitor.runner.supervisor import descendants


def prepare_job(cache_folder: Path, weights: str = "synthetic") -> PrepareJob:
    return PrepareJob(
        request=Request(model=MODEL, weights=weights),
        cache_folder=str(cache_folder),
        benchmarks=(),
        timeout_s=60.0,
        num_threads=1,
    )


@pytest.fixture(scope="module")
def pool() -> Any:
    with WorkerPool() as pool:
        pool.start()
        yield pool


def test_a_job_answers_and_ends(pool: WorkerPool, cache_folder: Path) -> None:
    started = pool._process
    ready, ended = pool.run(prepare_job(cache_folder))
    assert pool._process is started is not None
    assert isinstance(ready, Ready)
    assert len(ready.weights_digest) == 64
    assert Path(ready.torch_home, "hub", "checkpoints", f"{MODEL}.pt").exists()
    assert ended == Ended(cause="exit", code=0, log="")


def test_a_server_that_never_had_a_job_is_not_waited_for() -> None:
    with WorkerPool() as idle:
        idle.start()
        process = idle._process
    assert process is not None
    assert process.returncode == -signal.SIGKILL


def test_a_refusal_keeps_its_kind(pool: WorkerPool, cache_folder: Path) -> None:
    refused, _ = pool.run(prepare_job(cache_folder, weights="/nowhere.pt"))
    assert isinstance(refused, Refused)
    with pytest.raises(WeightsError, match=r"nowhere\.pt"):
        raise_refused(refused)


def test_jobs_of_several_threads_do_not_mix(pool: WorkerPool, cache_folder: Path) -> None:
    found: list[list[type]] = []

    def work() -> None:
        found.append([type(event) for event in pool.run(prepare_job(cache_folder))])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[Ready, Ended]] * 4


def test_a_server_that_died_is_replaced(cache_folder: Path) -> None:
    with WorkerPool() as pool:
        list(pool.run(prepare_job(cache_folder)))
        first = pool._process
        assert first is not None
        first.kill()
        first.wait()
        events = list(pool.run(prepare_job(cache_folder)))
        assert [type(event) for event in events] == [Ready, Ended]


def test_a_server_that_dies_on_the_way_ends_its_job(cache_folder: Path) -> None:
    with WorkerPool() as pool:
        list(pool.run(prepare_job(cache_folder)))
        server = pool._process
        assert server is not None
        os.kill(server.pid, signal.SIGSTOP)  # it takes the job, and never starts it
        threading.Timer(0.5, server.kill).start()
        (ended,) = pool.run(prepare_job(cache_folder))
        assert isinstance(ended, Ended)
        assert ended.cause == "lost"


def test_who_stops_the_server_gains_no_time(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "STUCK_GRACE_S", 1.0)
    with WorkerPool() as pool:
        list(pool.run(prepare_job(cache_folder)))
        server = pool._process
        assert server is not None
        os.kill(server.pid, signal.SIGSTOP)
        (ended,) = pool.run(replace(prepare_job(cache_folder), timeout_s=0.5))
        assert ended == Ended(cause="timeout", code=0, log="")
        assert server.poll() == -signal.SIGKILL
        events = list(pool.run(prepare_job(cache_folder)))
        assert [type(event) for event in events] == [Ready, Ended]


_STARTER = """
import sys
from tests.runner.test_server import prepare_job
from virnucpro_monitor.runner.client import WorkerPool
from pathlib import Path
pool = WorkerPool()
list(pool.run(prepare_job(Path(sys.argv[1]))))
print(pool._process.pid, flush=True)
import time
time.sleep(600)
"""


def test_the_server_ends_with_its_caller(cache_folder: Path) -> None:
    caller = subprocess.Popen(
        [sys.executable, "-c", _STARTER, str(cache_folder)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert caller.stdout is not None
    server = int(caller.stdout.readline())
    assert server in descendants(caller.pid)
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    caller.stdout.close()
    end = time.monotonic() + 20
    while Path(f"/proc/{server}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{server}").exists()


BEFORE_TORCH = """
import importlib.metadata, os, sys
from virnucpro_monitor.runner import packages, server

assert "torch" not in sys.modules  # else nothing would pass beside its import
take = packages.look_aside()
expected = importlib.metadata.packages_distributions()
packages._packages_distributions = None
take()
assert packages.known_distributions() == expected
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    sys.exit(0)
"""


def test_distributions_are_looked_for_in_a_process_of_its_own_before_torch_is_there() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BEFORE_TORCH], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


LATE = """
import ast, sys
from pathlib import Path
from virnucpro_monitor.runner import server
from virnucpro_monitor.runner.preloading import preload

preload()
for name in ("worker", "server", "standby", "target_process"):
    for function in ast.walk(ast.parse((Path(server.__file__).parent / f"{name}.py").read_text())):
        if isinstance(function, ast.FunctionDef):
            late = {one.module for one in ast.walk(function) if isinstance(one, ast.ImportFrom)}
            assert late <= set(sys.modules), (name, function.name, late - set(sys.modules))
"""


def test_no_process_of_a_job_imports_of_ours_what_the_server_could() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


FIRST_CALL = """
import sys, torch
from virnucpro_monitor.runner.preloading import leave_compiler_out

leave_compiler_out()
calls = []

@torch.library.custom_op("of_a_target::twice", mutates_args=(), device_types="cpu")
def twice(x: torch.Tensor) -> torch.Tensor:
    calls.append(torch.compiler.is_compiling())
    return 2 * x

twice.register_fake(torch.empty_like)
assert twice(torch.ones(1)).item() == 2.0
assert "torch._dynamo" not in sys.modules
# Of a target that compiles, the operator is left alone as ever.
compiled = torch.compile(lambda x: twice(x) + 1, backend="eager")
assert compiled(torch.ones(1)).item() == 3.0
assert "torch._dynamo" in sys.modules
assert calls == [False, False]
"""


def test_a_first_call_of_an_operator_imports_no_compiler() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIRST_CALL], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_a_card_takes_begins_with_the_first_order(
    monkeypatch: pytest.MonkeyPatch, cache_folder: Path
) -> None:
    begun: list[Any] = []
    monkeypatch.setattr(orders, "begin_trial", begun.append)
    (callers, control), (asking, answering) = socket.socketpair(), socket.socketpair()
    job = prepare_job(cache_folder)
    with control, asking:
        first = orders.First(control)
        first.hear()  # and the caller of this goes on to import torch
        assert not first.has_come(0.0)
        with callers, answering:
            socket.send_fds(callers, [b"j"], [answering.fileno()])
            asking.sendall(encode(job) + b"\n")
            assert first.has_come(10.0)
        assert begun == [job]
        order = first.take()
        assert order is not None
        assert order.job == job
        order.connection.close()
        assert first.has_come(0.0)  # the caller has gone
        assert first.take() is None
        assert orders.receive(control) is None
