"""Imports point left only, SQLAlchemy stays in the store, and modules stay readable."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "virnucpro_monitor"
LEFT_OF: dict[str, set[str]] = {
    "errors": set(),
    "records": {"errors"},
    "scratch": {"errors"},
    "secrecy": set(),
    "heap": set(),
    "late_names": set(),
    "disks": {"errors"},
    "setting_forms": set(),
    "user_folders": set(),
    "bytecode": {"user_folders"},
    "settings": {"errors", "records", "setting_forms", "user_folders"},
    "analysis": {"errors", "records"},
}
for _room, _left in [
    (
        "models",
        [
            "errors",
            "settings",
            "bytecode",
            "user_folders",
            "records",
            "scratch",
            "secrecy",
            "disks",
        ],
    ),
    ("data", ["models", "late_names"]),
    ("validation", ["data"]),
    ("runner", ["validation", "heap"]),
    ("store", ["validation"]),
    ("host", ["runner"]),
    ("monitor", ["host", "store", "analysis"]),
    ("report", ["monitor"]),
    ("api", ["report"]),
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


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def find_circle(paths: list[Path], root: Path) -> list[str]:
    """Modules that import one another in a circle, lazy imports counted too; empty without one."""
    names = {module_name(path, root): path for path in paths}
    arrows = {name: _modules_imported(names[name], names) - {name} for name in names}
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        for following in sorted(arrows[name]):
            if circle := walk(following, [*trail, name]):
                return circle
        done.add(name)
        return []

    return next((circle for name in names if (circle := walk(name, []))), [])


def _modules_imported(path: Path, known: dict[str, Path]) -> set[str]:
    found = set()
    for name in imported_names(path):
        # `from package import module` names a module, `from module import name` its parent.
        for candidate in (name, name.rpartition(".")[0]):
            if candidate in known:
                found.add(candidate)
                break
    return found


def test_no_modules_import_one_another() -> None:
    # The package's front door hands names out when they are asked for, and is in no room.
    door = PACKAGE / "__init__.py"
    paths = [path for path in MODULES if "sample" not in path.parts and path != door]
    assert find_circle(paths, ROOT) == []


def test_the_check_sees_a_circle_inside_a_room(tmp_path: Path) -> None:
    room = tmp_path / "virnucpro_monitor" / "room"
    room.mkdir(parents=True)
    (room / "one.py").write_text("from virnucpro_monitor.room import two\n")
    (room / "two.py").write_text("def late():\n    from virnucpro_monitor.room.three import x\n")
    (room / "three.py").write_text("import virnucpro_monitor.room.four\n")
    (room / "four.py").write_text("")
    paths = sorted(room.glob("*.py"))
    assert find_circle(paths, tmp_path) == []
    (room / "three.py").write_text("from virnucpro_monitor.room.one import y\n")
    assert set(find_circle(paths, tmp_path)) == {
        f"virnucpro_monitor.room.{name}" for name in ("one", "two", "three")
    }


def test_the_check_sees_a_right_pointing_import(tmp_path: Path) -> None:
    module = tmp_path / "bad.py"
    module.write_text("from virnucpro_monitor.store.reader import load_runs\nimport app.data\n")
    assert imported_rooms(module) == {"store", "app"}
    assert "store" not in LEFT_OF["runner"]
    assert "monitor" not in LEFT_OF["store"] | LEFT_OF["runner"] | LEFT_OF["analysis"]


DOORS = {"api", "app", "cli", "report"}


def test_doors_ask_the_monitor_alone() -> None:
    """Command line, dashboard, Python and reports: none of them has a store or a runner."""
    paths = [path for path in MODULES if room_of(path) in DOORS]
    assert {room_of(path) for path in paths} == DOORS
    for path in paths:
        assert not imported_rooms(path) & {"store", "runner"}, path


def test_analysis_sees_records_only() -> None:
    paths = [path for path in MODULES if room_of(path) == "analysis"]
    seen = set().union(*(imported_rooms(path) for path in paths))
    assert seen <= {"analysis", "records", "errors"}


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


# Called by name from outside: pydantic's and SQLAlchemy's hooks, and the Python interface.
CALLED_FROM_OUTSIDE = {
    "settings_customise_sources", "process_bind_param", "process_result_value", "runs_frame",
}  # fmt: skip


def find_unused(paths: list[Path]) -> set[str]:
    """Public functions, classes and methods that no other code of the program names."""
    named = set(re.findall(r"\w+", (ROOT / "pyproject.toml").read_text()))  # entry points
    defined: set[str] = set()
    for path in paths:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                named.add(node.id)
            elif isinstance(node, ast.Attribute):
                named.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                # "module:name" and names for getattr, not the words of a sentence
                named.update(() if " " in node.value else re.findall(r"\w+", node.value))
        bodies = [tree.body, *(one.body for one in ast.walk(tree) if isinstance(one, ast.ClassDef))]
        defined |= {
            one.name
            for body in bodies
            for one in body
            if isinstance(one, ast.FunctionDef | ast.ClassDef) and not one.name.startswith("_")
            if isinstance(one, ast.ClassDef) or not one.decorator_list
        }
    return defined - named


def test_nothing_is_written_that_only_tests_use() -> None:
    paths = [path for path in MODULES if "sample" not in path.parts]
    assert find_unused(paths) <= CALLED_FROM_OUTSIDE


def test_the_check_sees_what_nobody_uses(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("def used(): ...\ndef unused(): ...\nclass A:\n    def idle(self): used()\n")
    assert find_unused([module]) == {"unused", "A", "idle"}
