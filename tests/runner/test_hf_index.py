"""One model of transformers without the index of all."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from virnucpro_monitor.runner.shared_environment import PACKAGE_ROOT

_IMPORTS = """
import sys
from pathlib import Path
from virnucpro_monitor.runner.encoders.hf_index import import_model
found = import_model("hf-esm", "esm")
"""
_LOOKS = """
print(Path(found.__file__).name, found.EsmModel.__name__)
import transformers
print(transformers.EsmModel is found.EsmModel, transformers.T5EncoderModel.__name__)
print(import_model("hf-esm", "esm") is transformers)
"""
_OTHER = {
    "__init__.py": "from .utils.import_utils import EsmModel",
    "utils/__init__.py": "",
    "utils/import_utils.py": "EsmModel = 5",
}


def said(code: str, *in_front: Path) -> list[str]:
    path = os.pathsep.join(map(str, (*in_front, PACKAGE_ROOT)))
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTS + code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_who_asks_for_another_model_later_finds_it_and_the_same_classes() -> None:
    if find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    assert said(_LOOKS) == ["modeling_esm.py", "EsmModel", "True", "T5EncoderModel", "True"]


def test_a_release_without_such_an_index_is_imported_as_users_do(tmp_path: Path) -> None:
    for name, text in _OTHER.items():
        file = tmp_path / "transformers" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert said("print(found.__name__, found.EsmModel)", tmp_path) == ["transformers", "5"]
