"""A commit's own words and files, read from a repository at hand."""

from pathlib import Path

from tests.runner.tiny_target import HEALTHY, TinyRepository
from virnucpro_monitor.runner.git import run_git
from virnucpro_monitor.runner.story import read_story


def test_a_story_has_the_message_below_the_subject_and_the_changed_files(
    tiny: TinyRepository, tmp_path: Path
) -> None:
    first = run_git("rev-parse", "HEAD", folder=tiny.folder).strip()
    message = "Scale twice\n\nIt is faster.\n\nSee <b>there</b>."
    second = tiny.commit(HEALTHY | {"tiny/new.py": "a = 1\nb = 2\n"}, message)
    story = read_story(str(tiny.folder), tmp_path / "cache", second)
    assert story is not None
    assert story.body == "It is faster.\n\nSee <b>there</b>."
    assert [(one.path, one.num_added, one.num_removed) for one in story.files] == [
        ("tiny/new.py", 2, 0)
    ]
    root = read_story(str(tiny.folder), tmp_path / "cache", first)
    assert root is not None
    assert root.num_files == len(HEALTHY)


def test_what_is_not_on_this_machine_has_no_story(tiny: TinyRepository, tmp_path: Path) -> None:
    assert read_story(str(tiny.folder), tmp_path, "0" * 40) is None
    assert read_story(str(tmp_path / "nowhere"), tmp_path, "0" * 40) is None
    assert read_story("https://example.org/r.git", tmp_path, "0" * 40) is None
