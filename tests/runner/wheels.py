"""Wheels made by hand, so that releases can be listed and installed without an index."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest


def only_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let installers know nothing but the wheels in a folder."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # pip's settings are not uv's


def make_index(folder: Path, name: str, wheels: Sequence[Path], yanked: Sequence[str] = ()) -> str:
    """Write an index of one package into `folder`; returns its URL.

    Args:
        yanked: versions that their author took back.
    """
    page = folder / "simple" / name / "index.html"
    page.parent.mkdir(parents=True)
    lines = []
    for wheel in wheels:
        mark = ' data-yanked="gives NaN"' if wheel.name.split("-")[1] in yanked else ""
        lines.append(f'<a href="{wheel.as_uri()}"{mark}>{wheel.name}</a>\n')
    page.write_text("".join(lines))
    return page.parent.parent.as_uri()


def make_wheel(folder: Path, name: str, version: str, module: str, needs: str = "") -> Path:
    """Write a wheel of one module, named as the package, into `folder`.

    Args:
        needs: a requirement of its own.
    """
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": module,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + (f"Requires-Dist: {needs}\n" if needs else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as file:
        for place, text in (files | {f"{info}/RECORD": record}).items():
            file.writestr(place, text)
    return path
