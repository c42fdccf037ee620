"""What is measured: sets, versions, digests, lengths, residues, and which series use which."""

import streamlit as st

from app import data, filters, links, markup, shell
from app.history_figures import lengths_figure, residues_figure
from app.markup import Value
from app.text import format_count, html_text, one_line, shortened
from virnucpro_monitor.records import BenchmarkSet

MAX_SEQUENCES = 500


def show() -> None:
    shell.title("Benchmark sets")
    sets = data.load_benchmarks()
    if not sets:
        shell.put(
            markup.empty(
                "No run has used a benchmark set yet.",
                "List the ones that come with the program: virnucpro-monitor benchmark list",
            )
        )
        return
    cards = data.load_series()
    users = {
        one.label: [
            card
            for card in cards
            if (card.key.benchmark, card.key.benchmark_version) == (one.name, one.version)
        ]
        for one in sets
    }
    columns = [
        markup.Column(name="Set", kind="nowrap"),
        markup.Column(name="Sequences", kind="num"),
        markup.Column(name="Residues", kind="num"),
        markup.Column(name="Lengths", kind="num"),
        markup.Column(name="Series", kind="num"),
        markup.Column(name="SHA-256", kind="nowrap"),
        markup.Column(name="Description", kind="wide"),
    ]
    rows: list[list[Value]] = []
    for one in sets:
        lengths = [len(sequence.residues) for sequence in one.sequences]
        rows.append(
            [
                markup.anchor(links.link("benchmarks", set=one.label), one_line(one.label, 60)),
                f"{len(lengths):,}",
                f"{sum(lengths):,}",
                f"{min(lengths):,} to {max(lengths):,}" if lengths else "",
                f"{len(users[one.label]):,}",
                markup.Html(
                    f'<span class="mono" title="{html_text(one.digest)}">'
                    f"{html_text(one.digest[:16])}</span>"
                ),
                one_line(one.description),
            ]
        )
    shell.put(
        markup.table(columns, rows, caption="Benchmark sets"),
        markup.paragraph(
            "The sets that runs have used. Those that come with the program:",
            markup.mono("virnucpro-monitor benchmark list"),
            kind="quiet",
        ),
    )
    options = {one.label: one_line(one.label, 60) for one in sets}
    chosen = filters.choose("Set", options, "set", default=next(iter(options)), width=320)
    one = next(one for one in sets if one.label == chosen)
    _details(one, users[chosen])


def _details(one: BenchmarkSet, users: list[data.SeriesCard]) -> None:
    shell.put(markup.facts([("SHA-256", markup.mono(one.digest))]))
    left, right = st.columns(2)
    with left:
        shell.chart(
            shell.prepared(lambda: lengths_figure(one), "lengths", one.digest),
            key="lengths",
            alt="Distribution of lengths",
        )
    with right:
        shell.chart(
            shell.prepared(lambda: residues_figure(one), "residues", one.digest),
            key="residues",
            alt="Share of each residue",
        )
    shell.heading("Used by")
    if not users:
        shell.put(markup.paragraph("No run has used it.", kind="quiet"))
    else:
        columns = [
            markup.Column(name="Series", kind="wide"),
            markup.Column(name="Latest run", kind="wide"),
            markup.Column(name="Outcome", kind="nowrap"),
        ]
        rows: list[list[Value]] = [
            [
                markup.anchor(
                    links.link("overview", **links.series_parameters(card.latest)),
                    f"{one_line(card.key.target, 60)} · {card.label}",
                ),
                markup.commit_label(
                    card.latest.commit.hash,
                    shortened(card.latest.commit.subject, 80),
                    links.run_link(card.latest),
                ),
                markup.outcome_label(card.latest),
            ]
            for card in users
        ]
        shell.put(markup.table(columns, rows, caption="Series that use the set"))
    _sequences(one)


def _sequences(one: BenchmarkSet) -> None:
    shell.heading("Sequences")
    words = filters.search("Find by id", "id", width=260).lower()
    fitting = [s for s in one.sequences if words in s.id.lower()]
    shell.put(
        markup.paragraph(
            f"{min(len(fitting), MAX_SEQUENCES):,} of "
            f"{format_count(len(one.sequences), 'sequence')}.",
            kind="quiet",
        )
    )
    shown = fitting[:MAX_SEQUENCES]
    st.dataframe(
        {
            "sequence": [one_line(s.id, 120) for s in shown],
            "length": [len(s.residues) for s in shown],
            "residues": [s.residues for s in shown],
        },
        hide_index=True,
        height=min(640, 37 + 35 * max(1, len(shown))),
        key="benchmark-sequences",
        alt="Sequences of the set",
    )
