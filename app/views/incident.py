"""One incident: its cause, its suspects, who mended it, and the searches that tried it."""

from collections.abc import Sequence

from app import data, links, markup, shell
from app.markup import Value
from app.text import format_count, format_error, one_line, shortened
from app.views.acknowledging import put_acknowledgement
from app.views.broken import reason_words, sequences_words, suspects_words
from app.views.incident_rows import STATES, incident_table, lasted, split_cause
from app.views.series_choice import series_words
from virnucpro_monitor.analysis.incidents import Incident
from virnucpro_monitor.analysis.series import commit_date
from virnucpro_monitor.monitor.questions import searches_of
from virnucpro_monitor.records import Bisection, BisectStep, Commit, short_hash
from virnucpro_monitor.report.sentences import before_words, incident_sentence
from virnucpro_monitor.report.words import deciding_words

MAX_SUSPECTS = 20
MAX_SEARCHES = 50


def show_incident(key: str) -> None:
    incidents = data.load_incidents()
    incident = next((i for i in incidents if i.key == key), None)
    if incident is None:
        shell.title("Incident not found")
        shell.put(
            markup.empty(
                f"There is no incident {one_line(key, 40)!r}.",
                "Incidents follow from the runs: it is gone if its runs are.",
                markup.anchor(links.link("incidents"), "All incidents"),
            )
        )
        return
    first = incident.first_bad
    cause = split_cause(incident)[1]
    shell.title(
        f"{cause[:1].upper()}{cause[1:]} since {first.commit.short}",
        markup.join(["Incident", markup.mono(incident.key)]),
    )
    mark = STATES[incident.state]
    lines: list[Value] = [incident_sentence(incident), series_words(incident.first_bad)]
    if incident.reopened_because:
        lines.append(f"Open again: {incident.reopened_because}")
    lines += [one_line(caveat, 600) for caveat in incident.caveats]
    title: list[Value] = [markup.mark_label(mark), f"— {one_line(first.commit.subject, 100)}"]
    title.append(markup.quiet(f"· {one_line(first.commit.author, 60) or 'unknown author'}"))
    shell.put(markup.banner(markup.join(title), *lines, colour=mark.colour))
    _place_in_history(incident)
    _suspects(incident)
    _together(incident, incidents)
    put_searches("Bisections that tried it", searches_of(data.load_bisections(), incident))
    put_acknowledgement(incident)


def _place_in_history(incident: Incident) -> None:
    first, good, fixed = incident.first_bad, incident.last_good, incident.fixed_by
    runs = [
        (before_words(incident).capitalize(), good),
        ("First bad", first),
        ("Last bad", incident.last_bad),
        ("Fixed by", fixed),
    ]
    facts: list[tuple[str, Value]] = [
        (
            name,
            markup.join(
                [
                    markup.outcome_label(run),
                    markup.commit_label(
                        run.commit.hash, shortened(run.commit.subject, 100), links.run_link(run)
                    ),
                    markup.quiet("·"),
                    one_line(run.commit.author, 60) or "unknown author",
                    markup.quiet(markup.when(commit_date(run), shell.reader_zone())),
                ]
            ),
        )
        for name, run in runs
        if run is not None
    ]
    facts += [
        (
            "Lasted",
            f"{lasted(incident)}, by commit dates; {format_count(incident.num_bad_runs, 'run')}",
        ),
        ("Side", split_cause(incident)[0] or "not known"),
        ("To blame", suspects_words(incident)),
        ("Sequences", sequences_words(incident)),
        ("Looks like", one_line(incident.finding, 400) or "nothing known"),
        ("Gates", ", ".join(one_line(gate, 40) for gate in incident.gates) or "none named"),
        ("Worst gate", deciding_words(incident.worst)),
        (
            "Worst 1 - cos",
            "no value" if incident.lacks_values else format_error(incident.worst_error),
        ),
        ("Reason", reason_words(first)),
    ]
    shell.put(markup.facts(facts))
    steps: list[Value] = []
    if good is not None:
        steps.append(
            markup.anchor(
                links.compare_link(good, first),
                f"compare {good.commit.short} with {first.commit.short}",
            )
        )
        outside = data.diff_address(first.target, good.commit.hash, first.commit.hash)
        if outside:
            steps.append(markup.anchor(outside, "changes in the repository ↗", outside=True))
    if fixed is not None:
        steps.append(
            markup.anchor(links.compare_link(incident.last_bad, fixed), "compare with its fix")
        )
    steps.append(
        markup.anchor(links.link("overview", **links.series_parameters(first)), "this series")
    )
    shell.put(markup.paragraph(*steps, kind="vm-steps"))


def _suspects(incident: Incident) -> None:
    """Each commit that can be to blame, with its author, where there are several."""
    good = incident.last_good
    if good is None or incident.num_suspects is None or incident.num_suspects <= 1:
        return
    commits = data.load_commits_between(good, incident.first_bad, MAX_SUSPECTS + 1)
    shell.heading(f"Suspects ({incident.num_suspects:,})")
    columns = [
        markup.Column(name="Commit", kind="wide"),
        markup.Column(name="Author", kind="nowrap"),
        markup.Column(name="Date", kind="nowrap"),
        markup.Column(name="Repository", kind="nowrap"),
    ]
    rows = [_suspect(commit, incident.series.target) for commit in commits[:MAX_SUSPECTS]]
    shell.put(markup.table(columns, rows, caption="Suspects"))
    shell.put(
        markup.paragraph(
            f"Those between {good.commit.short} and {incident.first_bad.commit.short} were not "
            "judged. To find the one:",
            markup.mono(
                f"virnucpro-monitor bisect {good.commit.short} {incident.first_bad.commit.short} "
                f"--target {one_line(incident.series.target, 60)}"
            ),
            kind="quiet",
        )
    )


def _suspect(commit: Commit, target: str) -> list[Value]:
    outside = data.commit_address(target, commit.hash)
    return [
        markup.commit_label(commit.hash, shortened(commit.subject, 100)),
        one_line(commit.author, 60) or "unknown author",
        markup.when(commit.committed_at or commit.authored_at, shell.reader_zone()),
        markup.anchor(outside, "commit ↗", outside=True) if outside else "",
    ]


def _together(incident: Incident, incidents: Sequence[Incident]) -> None:
    others = [other for other in incidents if other.key in incident.grouped_with]
    if others:
        shell.heading("Begun by the same commit")
        shell.put(incident_table(others, caption="Incidents begun by the same commit"))


def put_searches(title: str, bisections: Sequence[Bisection]) -> None:
    """Bisections, the latest first; nothing where there is none."""
    if not bisections:
        return
    shell.heading(title)
    columns = [
        markup.Column(name="State", kind="nowrap"),
        markup.Column(name="Commit found", kind="wide"),
        markup.Column(name="Good", kind="nowrap"),
        markup.Column(name="Bad", kind="nowrap"),
        markup.Column(name="Target", kind="wide"),
        markup.Column(name="Commits tried", kind="wide"),
        markup.Column(name="Started", kind="nowrap"),
    ]
    rows: list[list[Value]] = [
        [
            one.state,
            _found_by(one),
            markup.mono(short_hash(one.good)),
            markup.mono(short_hash(one.bad)),
            f"{one_line(one.target, 60)} · {one_line(one.benchmark, 40)}"
            + (f" · gate {one_line(one.gate, 40)}" if one.gate else ""),
            markup.join([_step(step) for step in one.steps], ", "),
            markup.when(one.started_at, shell.reader_zone()),
        ]
        for one in list(reversed(bisections))[:MAX_SEARCHES]
    ]
    shell.put(markup.table(columns, rows, caption=title))


def _found_by(one: Bisection) -> Value:
    if one.first_bad is None:
        return one_line(one.conclusion.partition("\n")[0], 200) or "not known yet"
    base = one.bad if one.brought == "good" else one.good
    address = links.link("compare", base=base, head=one.first_bad, target=one.target)
    found = markup.anchor(address, markup.mono(short_hash(one.first_bad)))
    return markup.join([found, f"first {one.brought}" if one.brought else ""])


def _step(step: BisectStep) -> Value:
    name = markup.mono(short_hash(step.commit))
    if step.run_id is not None:
        name = markup.anchor(links.link("run", run=step.run_id), name)
    return markup.join([name, step.verdict])
