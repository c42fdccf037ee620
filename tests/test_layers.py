"""Imports point left only, SQLAlchemy stays in the store, and modules stay readable."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "virnucpro_monitor"
LEFT_OF = {
    "errors": set(),
    "records": set(),
    "settings": {"errors", "records"},
}
for _room, _left in [
    ("models", ["errors", "settings", "records"]),
    ("data", ["models"]),
    ("validation", ["data"]),
    ("runner", ["validation"]),
    ("store", ["validation"]),
    ("analysis", ["store", "runner"]),
    ("host", ["runner"]),
    ("report", ["analysis", "host"]),
    ("cli", ["report"]),
    ("app", ["report"]),
]:
    LEFT_OF[_room] = set(_left).union(*(LEFT_OF[left] for left in _left))

MODULES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "app").rglob("*.py")])


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return "app" if parts[0] == "app" else parts[1].removesuffix(".py")


def imported_names(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for name in imported_names(path):
        first, _, rest = name.partition(".")
        if first == "virnucpro_monitor" and rest:
            rooms.add(rest.split(".")[0])
        elif first == "app":
            rooms.add("app")
    return rooms - {"__version__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_left(path: Path) -> None:
    room = room_of(path)
    if room in {"__init__", "__main__"} or "sample" in path.parts:
        return
    allowed = LEFT_OF[room] | {room}
    assert imported_rooms(path) <= allowed, f"{room} may import only {sorted(allowed)}"


def test_the_check_sees_a_right_pointing_import(tmp_path: Path) -> None:
    module = tmp_path / "bad.py"
    module.write_text("from virnucpro_monitor.store.reader import load_runs\nimport app.data\n")
    assert imported_rooms(module) == {"store", "app"}
    assert "store" not in LEFT_OF["runner"]


def test_only_the_store_imports_sqlalchemy() -> None:
    users = {
        room_of(path)
        for path in MODULES
        if any(name.split(".")[0] in {"sqlalchemy", "alembic"} for name in imported_names(path))
    }
    assert users == {"store"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_stay_below_450_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 450
