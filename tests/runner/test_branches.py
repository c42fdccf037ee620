"""Which branches are kept with the runs of a commit that the followed branch lacks."""

from pathlib import Path

import pytest

from tests.runner.conftest import MakePlan
from tests.runner.tiny_target import HEALTHY, MODEL_FILE, TinyRepository
from virnucpro_monitor.runner.checkout import Repository
from virnucpro_monitor.runner.commits import run_commits


def test_a_commits_branches_are_named(tiny: TinyRepository, tmp_path: Path) -> None:
    root = tiny.git("rev-parse", "HEAD")
    followed = tiny.git("branch", "--show-current")
    tiny.git("checkout", "--quiet", "-b", "feature/heads")
    ahead = tiny.commit({"a.txt": "1"})
    repository = Repository.open(str(tiny.folder), tmp_path)
    assert repository.branches_with(ahead) == ("feature/heads",)
    assert repository.branches_with(root) == tuple(sorted([followed, "feature/heads"]))
    mirror = Repository.open(f"file://{tiny.folder}", tmp_path / "mirror")
    assert mirror.branches_with(ahead) == ("feature/heads",)
    clone = tmp_path / "clone"
    tiny.git("clone", "--quiet", str(tiny.folder), str(clone))
    # In a clone the other branches are known as origin's.
    assert Repository.open(str(clone), tmp_path).branches_with(root) == (
        *sorted([followed, "feature/heads"]),
    )


@pytest.mark.usefixtures("shared_workers")
def test_only_a_commit_off_the_followed_branch_keeps_its_branches(
    tiny: TinyRepository, make_plan: MakePlan
) -> None:
    root = tiny.git("rev-parse", "HEAD")
    followed = tiny.git("branch", "--show-current")
    tiny.git("checkout", "--quiet", "-b", "feature")
    broken = {MODEL_FILE: "raise RuntimeError('boom')\n" + HEALTHY[MODEL_FILE]}
    ahead = tiny.commit(broken)
    tiny.git("checkout", "--quiet", followed)
    reports = {r.run.commit.hash: r for r in run_commits(make_plan([root, ahead]))}
    assert "branches" not in reports[root].documents
    assert not reports[ahead].run.commit.on_branch
    assert reports[ahead].documents["branches"] == ["feature"]
