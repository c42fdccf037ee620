"""Is the monitor itself alive: runners, queue, failures, run time, database, coverage."""

from app import data, links, markup, shell
from app.history_figures import usage_figure
from app.marks import GREEN, GREY, VERMILION
from app.markup import Html, Value
from app.text import (
    UNKNOWN,
    format_age,
    format_bytes,
    format_count,
    format_duration,
    format_share,
    one_line,
    shortened,
)
from virnucpro_monitor.monitor.hosts import is_at_work
from virnucpro_monitor.records import Coverage, Health, HostCards, WorkHost

SILENT_AFTER_S = 26 * 3600.0  # a nightly runner may be late by two hours
MAX_MISSING = 15
EXIT_WORDS = {
    0: "all passed",
    1: "could not begin",
    2: "something failed",
    3: "something could not be run",
    130: "interrupted",
}


def show() -> None:
    health = data.load_health()
    shell.title("Health of the monitor")
    _headline(health)
    _runners(health)
    _coverage()
    _failures(health)
    _usage(health)
    _hosts()
    _database(health)


def _headline(health: Health) -> None:
    now = shell.now()
    by_hand = (
        markup.join(["The last run of any kind started", markup.age(health.last_run_at, now)])
        if health.last_run_at
        else "Nothing has been run yet."
    )
    if not health.heartbeats:
        shell.put(
            markup.banner(
                "No runner has ever reported: nothing is scheduled",
                by_hand,
                "Set up a schedule: virnucpro-monitor schedule install --target NAME",
                colour=GREY,
            )
        )
        return
    last = max(beat.at for beat in health.heartbeats)
    silent = (now - last).total_seconds() > SILENT_AFTER_S
    queued = sum(beat.num_queued or 0 for beat in health.heartbeats)
    shell.put(
        markup.banner(
            "The runner has fallen silent" if silent else "The runner reports",
            markup.join(["It was last heard", markup.age(last, now), "·", by_hand]),
            _queue_words(queued, any(is_at_work(beat) for beat in health.heartbeats)),
            colour=VERMILION if silent else GREEN,
        )
    )


def _queue_words(queued: int, is_measuring: bool) -> str:
    waiting = format_count(queued, "commit")
    if is_measuring:
        return f"It is measuring; {waiting} still to cover."
    if queued:
        return f"{waiting} left in the queue of its last start."
    return "Its last start left no commit in the queue."


def _runners(health: Health) -> None:
    shell.heading("Runners")
    if not health.heartbeats:
        shell.put(markup.empty("No runner has left a heartbeat."))
        return
    now = shell.now()
    columns = [
        markup.Column(name="Host", kind="nowrap"),
        markup.Column(name="Target", kind="nowrap"),
        markup.Column(name="State", kind="nowrap"),
        markup.Column(name="Last seen", kind="nowrap"),
        markup.Column(name="Waiting", kind="num"),
        markup.Column(name="Last exit", kind="nowrap"),
        markup.Column(name="Message", kind="wide"),
    ]
    rows: list[list[Value]] = [
        [
            one_line(beat.host, 60),
            one_line(beat.target, 60) or "all",
            one_line(beat.state, 40),
            markup.age(beat.at, now),
            UNKNOWN if beat.num_queued is None else f"{beat.num_queued:,}",
            UNKNOWN
            if beat.exit_code is None
            else f"{_ending(beat.exit_code)}, {format_age(beat.finished_at, now)}",
            one_line(beat.message),
        ]
        for beat in health.heartbeats
    ]
    shell.put(markup.table(columns, rows, caption="Runners"))
    for lease in health.leases:
        shell.put(
            markup.paragraph(
                f"Lock {one_line(lease.name, 60)} is held by {one_line(lease.owner, 80)} until",
                markup.when(lease.expires_at, shell.reader_zone()),
                kind="quiet",
            )
        )


def _ending(exit_code: int) -> str:
    return f"{EXIT_WORDS.get(exit_code, 'broken off')} (code {exit_code})"


def _coverage() -> None:
    shell.heading("Coverage")
    targets = data.load_targets()
    if not targets:
        shell.put(markup.empty("No target is known."))
        return
    coverages = [data.load_coverage(target.name) for target in targets]
    columns = [
        markup.Column(name="Target", kind="wide"),
        markup.Column(name="Measured", kind="num", help="Passed, failed or skipped"),
        markup.Column(
            name="Error or not run", kind="num", help="The commit's own doing, or the machine's"
        ),
        markup.Column(name="Without any run", kind="num"),
        markup.Column(name="Off the branch", kind="num"),
        markup.Column(
            name="Flipped", kind="num", help="Verdicts that changed with the same code and set-up"
        ),
    ]
    rows: list[list[Value]] = [
        [
            markup.anchor(links.link("overview", target=one.target), one_line(one.target, 80)),
            format_share(one.num_measured, one.num_on_branch),
            f"{one.num_unmeasured:,}",
            f"{one.num_missing:,}",
            f"{one.num_seen - one.num_on_branch:,}",
            f"{len(data.load_target_flips(one.target)):,}",
        ]
        for one in coverages
    ]
    shell.put(markup.table(columns, rows, caption="Coverage of each target's commits"))
    for one in coverages:
        if one.missing:
            shell.put(_missing(one))


def _missing(coverage: Coverage) -> Html:
    shown = [
        markup.join([markup.mono(commit.short), shortened(commit.subject, 60)])
        for commit in coverage.missing[:MAX_MISSING]
    ]
    more = coverage.num_missing - len(shown)
    return markup.paragraph(
        f"Without any run in {one_line(coverage.target, 80)}, newest first:",
        markup.join(shown, "; "),
        f"and {more:,} more." if more else "",
        kind="quiet",
    )


def _failures(health: Health) -> None:
    shell.heading("Failures by kind")
    if not health.failures:
        shell.put(markup.paragraph("No run has failed to start.", kind="quiet"))
        return
    columns = [
        markup.Column(name="Kind", kind="wide"),
        markup.Column(name="Runs", kind="num"),
    ]
    rows: list[list[Value]] = [
        [
            markup.anchor(
                links.link("incidents", state="all", find="could not be run"),
                one_line(kind, 60).replace("_", " "),
            ),
            f"{number:,}",
        ]
        for kind, number in sorted(health.failures.items(), key=lambda item: -item[1])
    ]
    shell.put(markup.table(columns, rows, caption="Failures by kind"))


def _usage(health: Health) -> None:
    shell.heading("Run time")
    if not health.usage:
        shell.put(markup.paragraph("No run in the last 90 days.", kind="quiet"))
        return
    shell.chart(usage_figure(health.usage), key="usage", alt="Minutes of run time per day")
    totals = {
        name: sum(day.run_s for day in health.usage if day.device == device)
        for device, name in (("cuda", "GPU"), ("cpu", "CPU"))
    }
    text = ", ".join(f"{name}: {format_duration(s)}" for name, s in totals.items() if s)
    shell.put(markup.paragraph(f"Over the last 90 days: {text}.", kind="quiet"))


def _hosts() -> None:
    """Where the work is: cards as they are now, what waits for them, what a commit cost."""
    shell.heading("Hosts and cards")
    hosts = data.load_hosts()
    if not hosts:
        shell.put(markup.paragraph("No run in the last 90 days.", kind="quiet"))
        return
    columns = [
        markup.Column(name="Host", kind="nowrap"),
        markup.Column(name="Card", kind="nowrap"),
        markup.Column(
            name="Seconds a commit",
            kind="num",
            help="The time in which it measured, several at once counted once, over its commits",
        ),
        markup.Column(name="Waiting", kind="num", help="Commits its runners have still to cover"),
        markup.Column(
            name="Busy now",
            kind="num",
            help="Of this server's own host, and of a cluster's hosts while one measures",
        ),
        markup.Column(
            name="Commits", kind="num", help="What a cluster measured counts for it as a whole"
        ),
        markup.Column(name="Last run", kind="nowrap"),
    ]
    rows = [_card_row(host, one) for host in hosts for one in host.cards or (None,)]
    shell.put(
        markup.table(columns, rows, caption="Hosts and cards"),
        markup.paragraph("Commits and their seconds are of the last 90 days.", kind="quiet"),
    )


def _card_row(host: WorkHost, one: HostCards | None) -> list[Value]:
    """One card of a host; None where nothing was measured there yet."""
    where = one_line(host.host, 60) + (" (here)" if host.is_here else "")
    waiting = UNKNOWN if host.num_queued is None else f"{host.num_queued:,}"
    if one is None:
        return [where, UNKNOWN, UNKNOWN, waiting, UNKNOWN, "0", "nothing measured"]
    name = one_line(one.card, 60) or "CPU"
    if (one.num_cards or 0) > 1:
        name = f"{one.num_cards} x {name}"
    elif one.num_cards == 0:
        name += " (not there now)"
    return [
        where,
        name,
        UNKNOWN if one.seconds_per_commit is None else f"{one.seconds_per_commit:,.1f} s",
        waiting,
        UNKNOWN if one.utilisation is None else f"{one.utilisation} %",
        f"{one.num_commits:,}" if one.last_at else UNKNOWN,
        markup.age(one.last_at, shell.now()) if one.last_at else UNKNOWN,
    ]


def _database(health: Health) -> None:
    shell.heading("Database")
    shell.put(
        markup.tiles(
            [
                ("Size", format_bytes(health.database_bytes), ""),
                ("Schema", health.schema_revision, "the one this program needs"),
                ("Runs", f"{health.row_counts.get('runs', 0):,}", "all attempts"),
                (
                    "Sequence results",
                    f"{health.row_counts.get('sequence_results', 0):,}",
                    "rows",
                ),
                ("Commits", f"{health.row_counts.get('commits', 0):,}", "known"),
            ]
        )
    )
