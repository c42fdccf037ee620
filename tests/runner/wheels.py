"""Wheels made by hand, so that releases can be listed and installed without an index."""

import zipfile
from pathlib import Path


def make_wheel(folder: Path, name: str, version: str, module: str) -> Path:
    """Write a wheel of one module, named as the package, into `folder`."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": module,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as file:
        for place, text in (files | {f"{info}/RECORD": record}).items():
            file.writestr(place, text)
    return path
