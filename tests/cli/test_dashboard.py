import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.store.builders import make_report
from virnucpro_monitor.cli import dashboard
from virnucpro_monitor.cli.dashboard import (
    browser_address,
    find_port,
    server_command,
    server_environment,
)
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.writer import Writer


def test_the_command_serves_on_this_machine_and_sends_nothing_away() -> None:
    command = server_command("127.0.0.1", 8501)
    flags = dict(zip(command[5::2], command[6::2], strict=True))
    assert Path(command[4]).is_file()
    assert flags["--server.address"] == "127.0.0.1"
    assert flags["--browser.gatherUsageStats"] == "false"
    assert flags["--server.fileWatcherType"] == "none"
    assert flags["--client.showErrorDetails"] == "none"


def test_the_database_travels_in_the_environment_alone() -> None:
    url = "postgresql://me:secret@db/monitor"
    environment = server_environment({"PYTHONPATH": "/elsewhere"}, url, writable=False)
    assert environment["VIRNUCPRO_MONITOR_DB"] == url
    assert environment["VIRNUCPRO_MONITOR_WRITABLE_APP"] == "false"
    first, *others = environment["PYTHONPATH"].split(os.pathsep)
    assert (Path(first) / "app" / "streamlit_app.py").is_file()
    assert others == ["/elsewhere"]
    assert "secret" not in " ".join(server_command("127.0.0.1", 8501))


def test_a_taken_port_is_refused_if_asked_for_and_passed_over_if_not() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"Port {port} is taken"):
            find_port("127.0.0.1", port)
        assert find_port("127.0.0.1", None) != port


def test_a_foreign_address_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="cannot listen on"):
        find_port("192.0.2.1", 8999)
    with pytest.raises(ConfigurationError, match="is not an address"):
        find_port("no such host", 8999)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
    ],
)
def test_a_browser_finds_the_server(host: str, address: str) -> None:
    assert browser_address(host, 80) == address


def test_a_taken_port_is_one_sentence_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    create_database(url)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert run_command(["dashboard", "--no-open", "--port", port, "--db", url]) == 1
    assert "taken by another program" in capsys.readouterr().err


def test_what_is_no_database_is_one_sentence_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "notes.db"
    assert run_command(["dashboard", "--no-open", "--db", f"sqlite:///{text}"]) == 1
    assert "There is no virnucpro-monitor database" in capsys.readouterr().err
    text.write_text("not a database, but notes " * 100)
    for command in (["dashboard", "--no-open"], ["db", "create"]):
        assert run_command([*command, "--db", f"sqlite:///{text}"]) == 1
        assert "is not an SQLite database" in capsys.readouterr().err


STAND_IN = """
import http.server, os, sys

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(os.getpid()).encode())
        os._exit(0) if self.path == "/stop" else None

    def log_message(self, *_): pass

try:
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
except OSError:
    sys.exit("taken")
"""


def test_a_port_lost_meanwhile_is_left_for_the_next(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find, free = dashboard.find_port, dashboard.find_port("127.0.0.1", None)
    monkeypatch.setattr(
        dashboard, "server_command", lambda _, port: [sys.executable, "-c", STAND_IN, str(port)]
    )
    opened: list[str] = []

    def stop(address: str) -> None:
        opened.append(address)
        build_opener(ProxyHandler({})).open(f"{address}/stop", timeout=30).close()

    monkeypatch.setattr(dashboard.webbrowser, "open", stop)
    with subprocess.Popen([sys.executable, "-c", STAND_IN, str(free)]) as other:
        try:
            while find("127.0.0.1", None) == free:
                time.sleep(0.05)
            # As if it had been free when it was looked at: another program answers there.
            looks = iter([free])
            monkeypatch.setattr(
                dashboard, "find_port", lambda *asked: next(looks, 0) or find(*asked)
            )
            dashboard.serve("sqlite:///x.db")
            said = capsys.readouterr().err
            (address,) = opened
            assert said.startswith(f"Port {free} was taken meanwhile: trying ")
            assert f"The dashboard is at {address} (" in said
            assert not address.endswith(f":{free}")
            looks = iter([free])
            with pytest.raises(ConfigurationError, match=r"taken by another .* with --port\."):
                dashboard.serve("sqlite:///x.db", port=free)
            assert "The dashboard is at" not in capsys.readouterr().err
        finally:
            other.kill()


@pytest.fixture
def heeded_interrupts() -> Iterator[None]:
    """A shell's background jobs, and what they start, ignore SIGINT unless told otherwise."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded_interrupts")
@pytest.mark.parametrize(("stop", "below"), [(signal.SIGINT, ""), (signal.SIGTERM, "/watch")])
def test_the_server_answers_and_ends_with_the_command(
    tmp_path: Path, stop: signal.Signals, below: str
) -> None:
    port = find_port("127.0.0.1", None)
    log = tmp_path / "log"
    create_database(f"sqlite:///{tmp_path}/x.db")
    arguments = [
        "dashboard",
        "--no-open",
        "--port",
        str(port),
        "--db",
        f"sqlite:///{tmp_path}/x.db",
    ]
    engine = open_engine(f"sqlite:///{tmp_path}/x.db")
    Writer(engine).save_run(make_report(0))
    engine.dispose()
    with log.open("wb") as output:
        command = subprocess.Popen(
            [sys.executable, "-m", "virnucpro_monitor", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "STREAMLIT_SERVER_BASE_URL_PATH": below},
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 60
            while "The dashboard is at" not in log.read_text() and time.monotonic() < deadline:
                assert command.poll() is None, log.read_text()
                time.sleep(0.1)
            opener = build_opener(ProxyHandler({}))
            address = f"http://127.0.0.1:{port}{below}"
            assert f"The dashboard is at {address} (" in log.read_text()
            with opener.open(f"{address}/_stcore/health", timeout=30) as answer:
                assert answer.read() == b"ok"
            with opener.open(f"{address}/metrics", timeout=30) as answer:
                assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                families = list(text_string_to_metric_families(answer.read().decode()))
            assert "virnucpro_monitor_outcome" in [family.name for family in families]
            with opener.open(f"{address}/_stcore/host-config", timeout=30) as answer:
                assert json.load(answer)
        finally:
            if stop is signal.SIGINT:
                os.killpg(command.pid, stop)  # as a terminal sends it, to the server as well
            else:
                command.send_signal(stop)
            try:
                assert command.wait(timeout=120) == 0
            finally:
                command.kill()
    _, _, after = log.read_text().partition("(Ctrl-C stops it).")
    assert after.split() == ["The", "dashboard", "has", "stopped."]
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
