from urllib.parse import parse_qs, urlsplit

import pytest

from app.links import compare_link, link, run_link, sequence_link
from tests.app.samples import Step, sample_reports
from virnucpro_monitor.report.addresses import diff_address

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
    ("location", "address"),
    [
        ("https://github.com/me/repo.git", "https://github.com/me/repo/compare/a...b"),
        ("git@github.com:me/repo.git", "https://github.com/me/repo/compare/a...b"),
        ("https://me:secret@gitlab.com/g/s/repo", "https://gitlab.com/g/s/repo/-/compare/a...b"),
        ("/home/me/repo", None),
        ("file:///home/me/repo", None),
        ("javascript:alert(1)//x", None),
    ],
)
def test_a_known_host_has_a_page_of_the_difference(location: str, address: str | None) -> None:
    assert diff_address(location, "a", "b") == address
