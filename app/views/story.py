"""The change itself: the commit's message and files, or the command that shows them."""

from app import data, markup, shell
from app.markup import Html, Value
from app.text import block, format_count, html_text, one_line
from virnucpro_monitor.records import Run
from virnucpro_monitor.report.addresses import folder_of

MAX_LISTED = 40


def put_story(run: Run) -> None:
    """Message below the subject and changed files, where the repository is on this machine."""
    shell.heading("The change", "change")
    story = data.load_story(run.target, run.commit.hash)
    outside = data.commit_address(run.target, run.commit.hash)
    if outside:
        shell.put(
            markup.paragraph(markup.anchor(outside, "The commit in its repository ↗", outside=True))
        )
    if story is None:
        if not outside:
            shell.put(markup.paragraph(_elsewhere(run), kind="quiet"))
        return
    if story.body:
        text = "\n".join(html_text(line) for line in block(story.body).splitlines())
        shell.put(Html(f'<div class="vm-story"><pre>{text}</pre></div>'))
    if not story.files:
        shell.put(markup.paragraph("It changes no file.", kind="quiet"))
        return
    columns = [
        markup.Column(name="File", kind="wide"),
        markup.Column(name="Added", kind="num"),
        markup.Column(name="Removed", kind="num"),
    ]
    rows: list[list[Value]] = [
        [
            markup.mono(one_line(one.path, 200)),
            "binary" if one.num_added is None else f"{one.num_added:,}",
            "" if one.num_removed is None else f"{one.num_removed:,}",
        ]
        for one in story.files[:MAX_LISTED]
    ]
    shell.put(markup.table(columns, rows, caption="Changed files", is_grid=True))
    if story.num_files > len(rows):
        shell.put(
            markup.paragraph(
                f"{len(rows)} of {format_count(story.num_files, 'file')}.", kind="quiet"
            )
        )


def _elsewhere(run: Run) -> Value:
    target = data.load_target(run.target)
    folder = folder_of(target.location) if target else None
    if folder is None:
        return "The repository is not on this machine."
    return markup.join(
        [
            "The repository is not on this machine. Where it is:",
            markup.mono(f"git -C {one_line(folder, 200)} show {run.commit.short}"),
        ]
    )
