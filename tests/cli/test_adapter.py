"""`adapter list/check`, `validate --adapter`, and the README's example of an adapter."""

import json
import re
import zipfile
from pathlib import Path

import pytest

from tests.runner.tiny_target import HEALTHY, TinyRepository
from virnucpro_monitor.cli.main import run_command
from virnucpro_monitor.monitor.trying import with_weights_to_spare
from virnucpro_monitor.settings import load_settings

README = (Path(__file__).parent.parent.parent / "README.md").read_text()
SECTION = README.partition("## Any other encoder\n")[2].partition("\n## ")[0]
EXAMPLES = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)

pytestmark = pytest.mark.usefixtures("quick_probes", "shared_workers")


def example(folder: Path) -> Path:
    path = folder / "my_adapter.py"
    path.write_text(EXAMPLES[0])
    return path


def test_the_readme_s_adapter_is_right_and_short(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = example(tmp_path)
    assert len([line for line in path.read_text().splitlines() if line.strip()]) <= 20
    monkeypatch.chdir(tmp_path)  # as a reader calls it
    assert run_command(["adapter", "check", "my_adapter.py:Padded", "--json"]) == 0
    trial = json.loads(capsys.readouterr().out)
    assert (trial["num_layers"], trial["width"], trial["num_packs"]) == (6, 320, 1)
    assert trial["lengths"] == [7, 25, 58]
    worst = [one["packed_relative_l2"] for one in trial["verdict"]["sequences"]]
    assert 0 < max(worst) < 1e-5  # it is fair-esm itself, in another batch

    wrong = path.read_text().replace("rows[mask] for", "rows[mask] * 0.88 for")
    path.write_text(wrong)
    Path("two.fasta").write_text(">a\nMKTAYIAKQR\n>b\nMVLSPADK\n")
    model = ["--model", "esm2_t6_8M_UR50D", "--weights", "synthetic", "--device", "cpu"]
    told = ["validate", "two.fasta", "--adapter", "my_adapter.py:Padded", "--dtype", "float32"]
    assert run_command([*told, *model]) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "FAILED: Packed is the wrong side" in said
    assert "gain FAILED packed" in said


def test_the_readme_s_model_of_one_s_own_packs_as_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_model.py").write_text(EXAMPLES[1])
    # Its own width is taken for a mistake, and the sentence says how another model is named.
    assert run_command(["adapter", "check", "my_model.py:Mine"]) == 1
    assert "name it with oracle=none" in capsys.readouterr().err
    assert run_command(["adapter", "check", "my_model.py:Mine:oracle=none", "--json"]) == 0
    trial = json.loads(capsys.readouterr().out)
    assert (trial["num_layers"], trial["width"]) == (4, 64)
    assert trial["verdict"]["reason"].startswith("Packed equals unpacked, correctness unknown")
    # The same tokens in ProtT5's words, by the name alone; and a pack that leaks is seen.
    told = "my_model.py:Mine:family=prott5,oracle=none"
    assert run_command(["adapter", "check", told, "--json"]) == 0
    assert "Provisional for prott5" in capsys.readouterr().out
    # It says what it was that was looked at, and what was not.
    assert run_command(["adapter", "check", told]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "model of the family prott5 (asked for in the size of esm2_t6_8M_UR50D), 4 layers" in said
    )
    assert "to oracle not judged: there is no oracle for this model" in said
    assert "looked at 3 sequences of 7 to 58 tokens; judged: coverage, finite" in said
    assert "not judged: oracle, ceiling, baseline not asked collator, weights" in said
    # What it is held against is named: the model itself in FP64 is not FP32.
    assert run_command(["adapter", "check", "my_model.py:Mine:oracle=self-fp64"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(r"to oracle [0-9.e-]+ packed, [0-9.e-]+ alone; it is self-fp64 ", said)
    # A family that the model itself names is judged like one of the list.
    named = "from dataclasses import replace\n"
    named += "from virnucpro_monitor.models.families import FAMILIES\n"
    named += "Mine.family = replace(FAMILIES['prott5'], name='ours')\n"
    Path("my_model.py").write_text(EXAMPLES[1] + named)
    assert run_command(["adapter", "check", "my_model.py:Mine:oracle=none"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "model of the family ours" in said
    assert said.endswith("limits are provisional for ours.")
    leaking = EXAMPLES[1].replace(", owner[:, None] != owner[None, :]", "")
    Path("my_model.py").write_text(leaking)
    assert run_command(["adapter", "check", "my_model.py:Mine:oracle=none", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["verdict"]["outcome"] == "failed"


def test_weights_of_esm_2_are_asked_for_where_something_needs_them() -> None:
    official = load_settings(weights=None)
    named = load_settings(weights="official")
    for adapter in ("m:Mine:oracle=none", "m:Mine:oracle=self-fp64", "m:Mine:oracle=file:a.npz"):
        assert with_weights_to_spare(official, adapter).weights == "synthetic"
        assert with_weights_to_spare(named, adapter).weights == "official"
    assert with_weights_to_spare(official, "hf-esmc").weights == "synthetic"
    for adapter in ("m:Mine", "hf-esm", "hf-esmc:oracle=hf:EsmModel@5.24.0"):
        assert with_weights_to_spare(official, adapter) is official


def test_a_deleted_working_folder_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for command in (["adapter", "check", "hf-esm"], ["adapter", "check", "my_adapter.py:Padded"]):
        assert run_command(command) == 1
        told = capsys.readouterr().err
        assert told.endswith(": The working folder has been deleted: go to one that is there.\n")


def test_an_adapter_and_what_it_imports_are_found_from_the_working_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tools").mkdir()
    Path("packer.py").write_text(EXAMPLES[1])
    Path("tools/watch.py").write_text("from packer import Mine\n")
    for place in ("tools/watch.py", "tools.watch"):
        assert run_command(["adapter", "check", f"{place}:Mine:oracle=none"]) == 0
        assert "together    [90, 64] in 1 pack" in capsys.readouterr().out
    Path("packer.py").unlink()
    assert run_command(["adapter", "check", "tools/watch.py:Mine:oracle=none"]) == 1
    assert f"(No module named 'packer'): it was looked for in {tmp_path} and" in (
        capsys.readouterr().err
    )


def test_the_list_names_what_is_there_and_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run_command(["adapter", "list", "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert {"seed-interface", "builtin", "hf-esm"} <= found.keys()
    assert found["hf-esm"]["options"]["way"][0] == "padded"
    assert found["hf-esm"]["missing"] == "transformers"
    assert run_command(["adapter", "list"]) == 0
    assert "not installed: pip install transformers" in capsys.readouterr().out


LOGITS = """
import torch

class Logits:
    def __init__(self, request): pass
    def alone(self, ids): return {6: torch.zeros(len(ids), 33)}
    def together(self, ids, cu_seqlens, max_seqlen): return {6: torch.zeros(len(ids), 33)}
"""


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("{file}:Logits:oracle=file:{file}.npz", "given.py.npz has the id 'a' more than once"),
        ("{file}:Logits", "gives 33 channels, and esm2_t6_8M_UR50D has 320"),
        ("gone.py:Model", "There is no file gone.py"),
        ("hf-esm:way=sideways", "'sideways' is no way of the adapter hf-esm: use one of padded"),
        ("hf-esm:speed=1", "The adapter hf-esm has no option 'speed' (it has way, attention)"),
        ("hf-esm:way=", "'way=' in the adapter 'hf-esm:way=' is not key=value"),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence(
    name: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "given.py"
    file.write_text(LOGITS)
    with zipfile.ZipFile(f"{file}.npz", "w") as archive:
        archive.writestr("a", "")
        archive.writestr("a.npy", "")
    assert run_command(["adapter", "check", name.replace("{file}", str(file))]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err
    assert captured.err.count("\n") == 1


def test_a_target_is_stored_once_its_adapter_can_be_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = TinyRepository(tmp_path / "tiny")
    text = example(tmp_path).read_text()
    repository.commit({**HEALTHY, "tools/adapter.py": text}, "Add packed inference")
    add = ["targets", "add", "mine", str(repository.folder), "--db", f"sqlite:///{tmp_path}/m.db"]
    assert run_command([*add, "--adapter", "tools/gone.py:Padded"]) == 1
    assert "mine is not stored: Adapter 'tools/gone.py:Padded' cannot" in capsys.readouterr().err
    torn = tmp_path / "torn.parquet"
    torn.write_bytes(b"PAR1")
    assert run_command([*add, "--no-check", "--oracle", f"file:{torn}"]) == 1
    assert "torn.parquet cannot be read (ArrowInvalid): give a .npz" in capsys.readouterr().err
    assert run_command([*add, "--adapter", "tools/adapter.py:Padded"]) == 0
    said = capsys.readouterr().err
    assert "together    [90, 320] in 1 pack" in said
    assert "Stored mine: 1 commit" in said
    assert run_command([*add, "--adapter", "tools/gone.py:Padded", "--no-check"]) == 0
