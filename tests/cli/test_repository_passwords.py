"""A repository's password: git gets it, and nobody else."""

import base64
import functools
import stat
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.runner.tiny_target import HEALTHY, TinyRepository
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.errors import ConfigurationError, RepositoryError
from virnucpro_monitor.monitor.running import find_run_target
from virnucpro_monitor.records import Target
from virnucpro_monitor.runner import passwords
from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.runner.passwords import password_file, password_of, public_address
from virnucpro_monitor.secrecy import masked
from virnucpro_monitor.settings import load_settings
from virnucpro_monitor.store.engine import open_engine
from virnucpro_monitor.store.reader import load_targets
from virnucpro_monitor.store.writer import Writer

SECRET = "S3cr3t%40w"  # an @, as an address has to spell it
HEADER = "Basic " + base64.b64encode(b"me:S3cr3t@w").decode()


class Guarded(SimpleHTTPRequestHandler):
    """Serves files to who knows the password."""

    def do_GET(self) -> None:
        if self.headers.get("Authorization") == HEADER:
            super().do_GET()
            return
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="test"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def place(tmp_path: Path) -> Iterator[str]:
    """Host, port and path of a repository that asks for a password."""
    tiny = TinyRepository(tmp_path / "tiny")
    tiny.commit(HEALTHY)
    tiny.git("update-server-info")
    handler = functools.partial(Guarded, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}/tiny/.git"
        server.shutdown()


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "DATA", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))
    monkeypatch.setattr(passwords, "_remembered", {})


def test_git_gets_it_and_nobody_else(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database, public = tmp_path / "monitor.db", f"http://me@{place}"
    options = ["--db", f"sqlite:///{database}"]
    assert run_command(["targets", "add", "tiny", f"http://me:{SECRET}@{place}", *options]) == 0
    assert run_command(["targets", "list", "--json", *options]) == 0
    assert run_command(["schedule", "print", "--target", "tiny", *options]) == 0
    said = capsys.readouterr()
    shown = [said.out, said.err]
    private = password_file()
    for path in tmp_path.rglob("*"):
        if path.is_file() and path != private:
            shown.append(path.read_bytes().decode(errors="replace"))
    assert [text for text in shown if "S3cr3t" in text] == []
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    # The next start has it, too, and after the target is removed nobody has.
    passwords._remembered.clear()
    cache = tmp_path / "another cache"
    assert len(Repository.open(public, cache).history("HEAD")) == 1
    assert run_command(["targets", "remove", "tiny", "--yes", *options]) == 0
    with pytest.raises(RepositoryError, match="asks for credentials"):
        Repository.open(public, cache)


def test_one_that_was_stored_with_its_address_is_taken_out(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    assert run_command(["db", "create", "--db", url]) == 0
    engine = open_engine(url)
    writer = Writer(engine)
    writer.save_target(Target(name="old", location=f"https://me:{SECRET}@example.org/a.git"))
    found = find_run_target(load_settings(db=url), "old")
    assert found.location == "https://me@example.org/a.git"
    writer.save_target(found)  # as each start does
    assert [one.location for one in load_targets(engine)] == [found.location]
    engine.dispose()
    passwords._remembered.clear()
    assert password_of(found.location) == "S3cr3t@w"


@pytest.mark.parametrize(
    ("address", "public", "password"),
    [
        ("https://me:pw@host/a.git", "https://me@host/a.git", "pw"),
        ("https://me:p%2Fw@x@host/a", "https://me@host/a", "p/w@x"),
        (f"https://ghp_{'a' * 20}@host/a", "https://token@host/a", f"ghp_{'a' * 20}"),
        ("https://me@host/a", "https://me@host/a", None),
        ("git@host:a.git", "git@host:a.git", None),
        ("ssh://git@host/a.git", "ssh://git@host/a.git", None),
    ],
)
def test_an_address_is_taken_apart(address: str, public: str, password: str | None) -> None:
    assert public_address(address) == public
    assert password_of(public) == password
    assert masked(public) == public


@pytest.mark.parametrize(
    "address", ["ssh://me:S3cr3t@host/a", "https://host/a.git?private_token=S3cr3t"]
)
def test_a_secret_elsewhere_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="credential helper") as refused:
        public_address(address)
    assert "S3cr3t" not in str(refused.value)
