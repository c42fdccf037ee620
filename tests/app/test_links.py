from urllib.parse import parse_qs, urlsplit

import pytest

from app.links import compare_link, link, run_link, sequence_link
from tests.app.samples import Step, sample_reports
from virnucpro_monitor.report.addresses import commit_address, diff_address

BASE, HEAD = (report.run for report in sample_reports((Step(), Step())))


def parameters(address: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


def test_an_address_is_relative_and_leaves_out_what_is_not_given() -> None:
    assert link("overview") == "./"
    assert link("overview", target="a b", benchmark=None) == "./?target=a%20b"
    assert link("run", run=0) == "run?run=0"
    assert run_link(BASE) == f"run?run={BASE.id}"


def test_a_value_cannot_add_a_parameter() -> None:
    hostile = "x&head=evil#frag?/../<b>"
    address = sequence_link(BASE, hostile)
    assert parameters(address)["sequence"] == hostile
    assert "head" not in parameters(address)
    assert "<" not in address


def test_a_comparison_names_both_commits_and_the_series() -> None:
    found = parameters(compare_link(BASE, HEAD))
    assert (found["base"], found["head"]) == (BASE.commit.hash, HEAD.commit.hash)
    assert (found["target"], found["benchmark"]) == (HEAD.target, HEAD.benchmark)
    assert HEAD.configuration.digest.startswith(found["config"])


@pytest.mark.parametrize(
    ("location", "commit", "difference"),
    [
        (
            "https://github.com/me/r.git",
            "github.com/me/r/commit/a",
            "github.com/me/r/compare/a...b",
        ),
        ("git@github.com:me/r.git", "github.com/me/r/commit/a", "github.com/me/r/compare/a...b"),
        (
            "https://me:secret@gitlab.com/g/s/r",
            "gitlab.com/g/s/r/-/commit/a",
            "gitlab.com/g/s/r/-/compare/a...b",
        ),
        (
            "https://bitbucket.org/me/r.git",
            "bitbucket.org/me/r/commits/a",
            "bitbucket.org/me/r/branches/compare/b%0Da",
        ),
        ("/home/me/repo", None, None),
        ("file:///home/me/repo", None, None),
        ("javascript:alert(1)//x", None, None),
    ],
)
def test_a_known_host_has_pages_of_a_commit_and_a_difference(
    location: str, commit: str | None, difference: str | None
) -> None:
    assert commit_address(location, "a") == (commit and f"https://{commit}")
    assert diff_address(location, "a", "b") == (difference and f"https://{difference}")
