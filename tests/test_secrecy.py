import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.errors import ConfigurationError, RepositoryError
from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.secrecy import masked, masked_url, public_environment
from virnucpro_monitor.store.connection import describe, option_for, parse_url

FORMS = [
    "postgresql://mon:S3cr3t@127.0.0.1:1/mon",
    "postgresql+psycopg://mon:S3cr3t@127.0.0.1:1/mon",
    "postgresql://127.0.0.1:1/mon?user=mon&password=S3cr3t",
    "postgresql://127.0.0.1:1/mon?password=S3cr3t&user=mon",
    "postgresql://mon@127.0.0.1:1/mon?sslpassword=S3cr3t",
    "postgresql://mon:S3cr3t@x@127.0.0.1:1/mon",
    "postgresql://mon:pw@S3cr3t@127.0.0.1:1/mon",
    "postgresql://mon:pa/S3cr3t:x@127.0.0.1:1/mon",
    "postgresql://mon:pa'S3cr3t\"x@127.0.0.1:1/mon",
    "postgresql://:S3cr3t@127.0.0.1:1/mon",
    "POSTGRESQL://mon:S3cr3t@127.0.0.1:1/mon",
    "https://me:S3cr3t@example.org/a.git",
]


@pytest.mark.parametrize("url", FORMS)
def test_a_password_is_masked_in_whatever_form(url: str) -> None:
    for text in (masked_url(url), masked(f"The database {url} cannot be used: ({url!r})")):
        assert "S3cr3t" not in text
        assert "***" in text
    assert "127.0.0.1:1/mon" in masked_url(url) or "example.org/a.git" in masked_url(url)


def test_a_password_with_spaces_is_masked_where_the_text_is_a_url() -> None:
    assert masked_url("postgresql://mon:my S3cr3t pw@host/db") == "postgresql://mon:***@host/db"


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////srv/a:b@c.db",
        "https://example.org:8080/a and x@example.org",
        "git@example.org:a/b.git",
        "http://localhost:8501/?run=7",
        "token = 5, tokens=7, max_tokens_per_batch=4096, author=A. Author, key=a",
        "postgresql://mon@host/db",
        "",
    ],
)
def test_what_holds_no_password_stays_as_it_is(text: str) -> None:
    assert masked(text) == text


@pytest.mark.parametrize("url", [url for url in FORMS if url.startswith("postgresql")])
@pytest.mark.parametrize("command", [["db", "check"], ["runs", "list"], ["doctor"]])
def test_no_message_shows_a_password(
    command: list[str], url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--device", "cpu", "--model", "esm2_t6_demo", "--weights", "synthetic"]
    options = small if command == ["doctor"] else []
    assert run_command([*command, *options, "--db", url]) == 1
    captured = capsys.readouterr()
    assert "S3cr3t" not in captured.out + captured.err
    assert "Unexpected" not in captured.err


@pytest.mark.parametrize("url", [url for url in FORMS if url.startswith("postgresql")])
def test_a_databases_name_shows_no_password(url: str) -> None:
    if "@x@" in url or "@S3cr3t@" in url:
        with pytest.raises(ConfigurationError, match="holds an @: write it there as %40") as caught:
            parse_url(url)
        assert "S3cr3t" not in str(caught.value)
        return
    parsed = parse_url(url)
    assert "S3cr3t" not in describe(parsed) + option_for(parsed)
    assert describe(parsed).startswith("postgresql://")  # as people write it
    assert parse_url(option_for(parsed).removeprefix("--db ").strip("'")).drivername == (
        parsed.drivername
    )


def test_a_foreign_program_sees_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = [
        "VIRNUCPRO_MONITOR_DB", "PGPASSWORD", "PGUSER", "PGSERVICE", "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_CLIENT_ID", "GITHUB_TOKEN",
        "HF_TOKEN", "WANDB_API_KEY", "SSH_AUTH_SOCK", "SSH_AGENT_PID", "KUBECONFIG", "VAULT_ADDR",
        "DATABASE_URL", "SOME_PASSWORD", "MY_SECRET", "SENTRY_DSN", "GIT_ASKPASS",
    ]  # fmt: skip
    needed = [
        "PATH", "HOME", "PWD", "LANG", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS",
        "TORCH_HOME", "XDG_CACHE_HOME", "TOKENIZERS_PARALLELISM", "PYTHONPATH", "KEYBOARD",
        "VIRTUAL_ENV", "TMPDIR",
    ]  # fmt: skip
    environment = dict.fromkeys([*secret, *needed], "x") | {"BROKER": "amqp://me:pw@host"}
    assert sorted(public_environment(environment)) == sorted(needed)


class _Refuses(http.server.BaseHTTPRequestHandler):
    seen: list[str | None] = []  # noqa: RUF012 (each test clears it)

    def do_GET(self) -> None:
        self.seen.append(self.headers.get("Authorization"))
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="x"')
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    _Refuses.seen.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_repositorys_password_reaches_the_server_and_no_list_of_processes(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import base64
    import shutil

    git = shutil.which("git")
    programs = tmp_path / "bin"
    programs.mkdir()
    # In git's place: note the arguments of each call, then do as git does.
    (programs / "git").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/seen\nexec {git} "$@"\n')
    (programs / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(RepositoryError, match="asks for credentials") as caught:
        Repository.open(f"http://me:p%40ss@word@{address}/a.git", tmp_path / "cache")
    assert "ss@word" not in str(caught.value)
    assert "http://me@127" in str(caught.value)
    calls = (tmp_path / "seen").read_text()
    assert f"http://me@{address}/a.git" in calls
    assert "ss@word" not in calls
    expected = "Basic " + base64.b64encode(b"me:p@ss@word").decode()
    assert _Refuses.seen[0] is None
    assert _Refuses.seen[-1] == expected
