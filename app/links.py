"""Addresses inside the app: every view is a link, and a link holds the whole state."""

from urllib.parse import quote, urlencode

from virnucpro_monitor.records import Run

CONFIGURATION_CHARACTERS = 12  # of a configuration's digest, in an address


def link(page: str, **parameters: str | int | None) -> str:
    """A relative address, so that it also holds behind a proxy's path prefix."""
    given = {name: str(value) for name, value in parameters.items() if value not in (None, "")}
    path = "./" if page == "overview" else page
    return f"{path}?{urlencode(given, quote_via=quote)}" if given else path


def run_link(run: Run) -> str:
    return link("run", run=run.id)


def series_parameters(run: Run) -> dict[str, str]:
    """What names the run's series in an address."""
    return {
        "target": run.target,
        "benchmark": run.benchmark,
        "config": run.configuration.digest[:CONFIGURATION_CHARACTERS],
    }


def compare_link(base: Run, head: Run) -> str:
    return link("compare", base=base.commit.hash, head=head.commit.hash, **series_parameters(head))


def sequence_link(run: Run, sequence_id: str, **more: str | int | None) -> str:
    return link("sequence", sequence=sequence_id, **series_parameters(run), **more)
