"""A traceback as its reader wants it: what happened first, and the monitor's own frames folded."""

import re
from dataclasses import dataclass

_FRAME = re.compile(r'^(\s*)File "([^"]+)", line \d+')
_OWN = re.compile(
    r"virnucpro_monitor/(?:runner|validation|monitor|cli)/|^<frozen |/importlib/|/multiprocessing/"
)
_OWN_ERROR = re.compile(r"^virnucpro_monitor(?:\.\w+)+\.(?=\w+(?:: |$))")


@dataclass(frozen=True, slots=True)
class Traceback:
    """A traceback, folded.

    Attributes:
        last_line: what was raised; empty where the text is empty.
        text: the traceback with a line in place of each stretch of own frames.
        num_folded: frames that are not shown.
    """

    last_line: str
    text: str
    num_folded: int


def fold_traceback(text: str) -> Traceback:
    """Fold the frames of the monitor, of importlib and of multiprocessing."""
    lines = text.rstrip().splitlines()
    kept: list[str] = []
    waiting = 0
    num_folded = 0
    is_own = False
    indent = ""
    for line in lines:
        frame = _FRAME.match(line)
        if frame is not None:
            indent, path = frame[1], frame[2].replace("\\", "/")
            is_own = _OWN.search(path) is not None
            waiting += is_own
            num_folded += is_own
        elif is_own and _belongs_to_frame(line, indent):
            continue
        else:
            is_own = False
        if is_own:
            continue
        if waiting:
            kept.append(f"{indent}… {waiting} {_frames(waiting)} of the monitor")
            waiting = 0
        kept.append(line)
    if waiting:
        kept.append(f"{indent}… {waiting} {_frames(waiting)} of the monitor")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    last = _OWN_ERROR.sub("", last)
    return Traceback(last, "\n".join(kept), num_folded)


def _belongs_to_frame(line: str, indent: str) -> bool:
    """Source lines and their markers stand deeper than the frame that they belong to."""
    return line.startswith(f"{indent} ") or not line.strip()


def _frames(number: int) -> str:
    return "frame" if number == 1 else "frames"
