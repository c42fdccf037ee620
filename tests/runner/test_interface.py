from pathlib import Path

import pytest

from virnucpro_monitor.errors import TargetError
from virnucpro_monitor.runner.interface import find_names

LOADER = "def load_esm2_model(model_name, device):\n    pass\n"
COLLATOR = "class VarlenCollator:\n    pass\n"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_only_package_is_found_wherever_it_keeps_the_names(tmp_path: Path) -> None:
    write(tmp_path, {"pack/deep/loading.py": LOADER, "pack/packing.py": COLLATOR})
    names = find_names(tmp_path, None)
    assert names.package == "pack"
    assert names.import_root == tmp_path
    assert (names.loader_module, names.collator_module) == ("pack.deep.loading", "pack.packing")


def test_the_seeds_modules_come_first(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "pack/a.py": LOADER + COLLATOR,
            "pack/models/esm2_flash.py": LOADER,
            "pack/data/collators.py": COLLATOR,
        },
    )
    names = find_names(tmp_path, None)
    assert names.loader_module == "pack.models.esm2_flash"
    assert names.collator_module == "pack.data.collators"


def test_a_src_layout_and_a_single_module_work(tmp_path: Path) -> None:
    write(tmp_path / "one", {"src/pack/__init__.py": LOADER + COLLATOR})
    names = find_names(tmp_path / "one", None)
    assert names.import_root == tmp_path / "one" / "src"
    assert names.loader_module == "pack"
    write(tmp_path / "two", {"single.py": LOADER + COLLATOR})
    assert find_names(tmp_path / "two", None).loader_module == "single"


def test_tests_and_hidden_folders_are_not_packages(tmp_path: Path) -> None:
    write(tmp_path, {"tests/helper.py": LOADER + COLLATOR, ".old/x.py": LOADER + COLLATOR})
    with pytest.raises(TargetError, match="No package here has both"):
        find_names(tmp_path, None)


def test_of_several_packages_one_must_be_named(tmp_path: Path) -> None:
    write(tmp_path, {"one/x.py": LOADER + COLLATOR, "two/x.py": LOADER + COLLATOR})
    with pytest.raises(TargetError, match=r"Several packages fit \(one, two\)"):
        find_names(tmp_path, None)
    assert find_names(tmp_path, "two").loader_module == "two.x"


def test_a_named_package_without_the_names_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"one/x.py": LOADER + COLLATOR, "two/x.py": LOADER})
    with pytest.raises(TargetError, match="'two' has no VarlenCollator"):
        find_names(tmp_path, "two")
