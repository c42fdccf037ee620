"""Did the embeddings move from base to head, each side for itself, and which sequences' most?"""

from app import links, markup, shell
from app.markup import Value
from app.text import UNKNOWN, format_error, one_line
from virnucpro_monitor.analysis.comparison import Comparison
from virnucpro_monitor.analysis.moved import SideMoved

MAX_NAMED = 5


def put_moved(comparison: Comparison) -> None:
    """One row for each side; where embeddings were not kept it is said how to keep them."""
    if comparison.is_same_measurement:
        return
    shell.heading("Did the embeddings move?", "embeddings")
    if not comparison.moved:
        shell.put(
            markup.paragraph(
                "Not known: it takes the embeddings of both runs, of one benchmark set with the "
                "same weights. They are kept unless",
                markup.mono("keep_embeddings"),
                "is off, until they are pruned.",
                kind="quiet",
            )
        )
        return
    columns = [
        markup.Column(name="Side", kind="nowrap"),
        markup.Column(name="Embeddings", kind="nowrap"),
        markup.Column(name="Bit-identical", kind="num extra"),
        markup.Column(name="Furthest", kind="num", help="Relative L2 of the pooled embedding"),
        markup.Column(name="Noise", kind="num extra", help="What packing moves in healthy runs"),
        markup.Column(name="Moved most (relative L2)", kind="wide extra"),
    ]
    rows = [_row(side, comparison) for side in comparison.moved]
    shell.put(markup.table(columns, rows, caption="Moved embeddings", is_grid=True))


def _row(side: SideMoved, comparison: Comparison) -> list[Value]:
    head = comparison.head.measured
    most = [
        markup.join(
            [
                markup.anchor(links.sequence_link(head, name), markup.mono(one_line(name, 40))),
                format_error(distance),
            ]
        )
        for name, distance in side.most[:MAX_NAMED]
    ]
    return [
        side.side,
        moved_words(side),
        f"{side.num_identical:,} of {side.num_compared:,}",
        format_error(side.worst),
        UNKNOWN if side.noise is None else format_error(side.noise),
        markup.join(most, ", "),
    ]


def moved_words(side: SideMoved) -> str:
    """ "did not move", "moved within noise", "moved beyond noise" or "moved"."""
    if not side.num_compared:
        return "none in both runs"
    if side.num_identical == side.num_compared:
        return "did not move"
    return {True: "moved beyond noise", False: "moved within noise", None: "moved"}[
        side.beyond_noise
    ]
