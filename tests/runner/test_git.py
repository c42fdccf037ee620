from pathlib import Path

import pytest

from virnucpro_monitor.runner.git import GitError, explain, git_environment, run_git


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            "fatal: could not read Username for 'https://example.org': terminal prompts disabled",
            "asks for credentials",
        ),
        ("git@example.org: Permission denied (publickey).", "asks for credentials"),
        ("fatal: unable to access 'https://x/': Could not resolve host: x", "cannot be reached"),
        ("ERROR: Repository not found\nfatal: repository 'x' not found", "cannot be reached"),
        (
            "error: unable to create file a: No space left on device\nfatal: cannot write",
            "The disk is full",
        ),
        ("fatal: something else", r"git fetch failed \(something else\)"),
        ("", "it said nothing"),
    ],
)
def test_what_git_says_becomes_one_sentence(said: str, sentence: str) -> None:
    with pytest.raises(GitError, match=sentence):
        raise GitError(explain("fetch", said), said)
    assert "\n" not in explain("fetch", said)


def test_the_callers_repository_does_not_leak_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/somewhere/.git")
    monkeypatch.setenv("GIT_SSH_COMMAND", "ssh -i key")
    monkeypatch.setenv("GIT_REPLACE_REF_BASE", "refs/elsewhere")
    quick, network = git_environment(), git_environment(network=True)
    for environment in (quick, network):
        assert "GIT_DIR" not in environment
        assert "GIT_REPLACE_REF_BASE" not in environment
        assert environment["GIT_TERMINAL_PROMPT"] == "0"
        assert environment["GIT_NO_REPLACE_OBJECTS"] == "1"
    assert network["GIT_SSH_COMMAND"] == "ssh -i key"


def test_only_a_remote_is_spoken_to_with_the_users_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configuration = tmp_path / "gitconfig"
    configuration.write_text("[http]\n\tproxy = http://proxy.example.org\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(configuration))
    ask = ("config", "--get", "--default", "none", "http.proxy")
    assert run_git(*ask, folder=tmp_path).strip() == "none"
    assert run_git(*ask, folder=tmp_path, network=True).strip() == "http://proxy.example.org"


def test_a_hanging_git_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_SSH_COMMAND", "sleep 60; :")
    with pytest.raises(GitError, match="did not end within 1 s"):
        run_git("ls-remote", "nobody@example.org:x", timeout_s=1.0, network=True)


def test_a_nul_character_is_one_sentence() -> None:
    with pytest.raises(GitError, match="NUL character"):
        run_git("rev-parse", "a\0b")
