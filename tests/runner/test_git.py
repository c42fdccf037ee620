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
    environment = git_environment()
    assert "GIT_DIR" not in environment
    assert environment["GIT_SSH_COMMAND"] == "ssh -i key"
    assert environment["GIT_TERMINAL_PROMPT"] == "0"


def test_a_hanging_git_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_SSH_COMMAND", "sleep 60; :")
    with pytest.raises(GitError, match="did not end within 1 s"):
        run_git("ls-remote", "nobody@example.org:x", timeout_s=1.0)
