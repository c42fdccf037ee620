"""Released sets never change, and a user's sets are frozen by their content."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from virnucpro_monitor.data.benchmark_sets.generate import (
    FREQUENCIES_PERCENT,
    GENERATORS,
    TILE_EDGES,
)
from virnucpro_monitor.data.benchmarks import (
    RELEASED_FOLDER,
    add_benchmark,
    benchmark_digest,
    list_benchmarks,
    load_benchmark,
    truncate,
    user_benchmark_folder,
)
from virnucpro_monitor.data.fasta import AMBIGUOUS_RESIDUES, format_fasta
from virnucpro_monitor.data.limits import MAX_RESIDUES
from virnucpro_monitor.errors import BenchmarkError
from virnucpro_monitor.settings import Settings

# Released for good: a line may be added here, none may be edited.
RELEASED_DIGESTS = {
    ("boundaries", 1): "4a8157bd145ca72c1b730d15c8f3f24a0051ca34d542aad3c76e3c2b376023fb",
    ("proteome", 1): "9c3dd41476df04b8caee8a4b09417b962d626239ace7e3cbd4fdbcb35ad8b87a",
    ("reach", 1): "f93260215badb315e499069c16994d82a8355e55e99ada8f4aea7c08a1c6d555",
    ("seed", 1): "4b8861d911115dc8b707d0f84fa766e83bdb409110b7b7d59a5aaefb48722870",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sets"


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "mine.fasta"
    path.write_text(">a\nMKT\n>b\nVLSP\n")
    return path


def test_released_sets_never_change(folder: Path) -> None:
    released = {(item.name, item.version): item.digest for item in list_benchmarks(folder)}
    assert released == RELEASED_DIGESTS


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_the_generator_makes_the_first_version_byte_for_byte(name: str) -> None:
    frozen = (RELEASED_FOLDER / name / "1.fasta").read_bytes()
    assert format_fasta(GENERATORS[name]()).encode() == frozen


def test_the_digest_is_the_files_own_sha256(folder: Path) -> None:
    loaded = load_benchmark("seed", folder=folder)
    frozen = (RELEASED_FOLDER / "seed" / "1.fasta").read_bytes()
    assert loaded.digest == benchmark_digest(loaded.sequences) == hashlib.sha256(frozen).hexdigest()


def test_the_seed_set_holds_the_original_sequences() -> None:
    residues = {item.id: item.residues for item in load_benchmark("seed").sequences}
    assert residues == {
        "short1": "MKTAYIAK",
        "short2": "VLSPADKTNV",
        "short3": "MVHLT",
        "medium1": "MKTAYIAK" * 10,
        "medium2": "VLSPADKTNV" * 15,
        "tiny": "MKT",
        "small": "MKTAYIAK",
        "medium": "MKTAYIAK" * 20,
        "large": "MKTAYIAK" * 50,
        "hydrophobic": "AILVFMWP" * 5,
        "charged": "DERKH" * 8,
    }


def test_the_boundaries_set_surrounds_each_tile_edge_in_residues_and_in_tokens() -> None:
    lengths = {len(item.residues) for item in load_benchmark("boundaries").sequences}
    for edge in TILE_EDGES:
        assert {edge - 1, edge, edge + 1} <= lengths
        assert {edge - 1, edge, edge + 1} <= {length + 2 for length in lengths}
    assert {1, 2, 1021, 1022, 1023} <= lengths
    assert len(lengths) == len(load_benchmark("boundaries").sequences) <= 60


def test_the_usual_set_reaches_what_no_single_pack_of_short_ones_does() -> None:
    (usual,) = Settings.model_fields["benchmark"].default
    sequences = load_benchmark(usual).sequences
    lengths = [len(one.residues) for one in sequences]
    assert min(lengths) == 1
    assert max(lengths) == MAX_RESIDUES  # nothing is cut
    assert sum(length + 2 > 514 for length in lengths) >= 4  # beyond a window of 512
    assert {65, 128, 129, 130, 257} <= {length + 2 for length in lengths}
    assert sum(length + 2 for length in lengths) > 4096  # two packs, whatever packs them
    assert set(AMBIGUOUS_RESIDUES) <= set("".join(one.residues for one in sequences))


def test_the_proteome_set_looks_like_a_proteome() -> None:
    sequences = load_benchmark("proteome").sequences
    lengths = sorted(len(item.residues) for item in sequences)
    assert len(sequences) == 200
    assert (lengths[0], lengths[-1]) == (20, 1022)
    assert 250 <= lengths[100] <= 330
    plain = "".join(item.residues for item in sequences if item.id.startswith("plain"))
    for residue, percent in FREQUENCIES_PERCENT.items():
        assert 100 * plain.count(residue) / len(plain) == pytest.approx(percent, abs=0.5)
    for item in sequences:
        if item.id.startswith("ambiguous"):
            assert set("BOUXZ") <= set(item.residues)
    assert sum(item.id.startswith("repeat") for item in sequences) == 20
    assert sum(item.id.startswith("lowcomplexity") for item in sequences) == 20


def test_equal_content_is_the_same_version_and_changed_content_a_new_one(
    folder: Path, fasta: Path
) -> None:
    first = add_benchmark(fasta, "mine", folder, "two peptides")
    assert (first.version, first.description) == (1, "two peptides")
    # Other line ends, case and header text are the same content.
    fasta.write_bytes(b">a note\r\nmk\r\nt\r\n>b\r\nVLSP\r\n")
    assert add_benchmark(fasta, "mine", folder) == first
    fasta.write_text(">a\nMKT\n>b\nVLSA\n")
    second = add_benchmark(fasta, "mine", folder)
    assert second.version == 2
    assert load_benchmark("mine", folder=folder) == second
    assert load_benchmark("mine@1", folder=folder) == first
    assert list_benchmarks(folder)[-2:] == (first, second)


def test_two_writers_at_once_get_two_versions(folder: Path, tmp_path: Path) -> None:
    paths = []
    for number in range(8):
        paths.append(tmp_path / f"{number}.fasta")
        paths[-1].write_text(f">a{number}\nMKT\n")
    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(lambda path: add_benchmark(path, "mine", folder), paths))
    assert sorted(item.version for item in added) == list(range(1, 9))
    assert len(list_benchmarks(folder)) == len(RELEASED_DIGESTS) + 8


def test_a_frozen_file_that_was_edited_is_refused(folder: Path, fasta: Path) -> None:
    add_benchmark(fasta, "mine", folder)
    frozen = folder / "mine" / "1.fasta"
    frozen.write_text(frozen.read_text().replace("MKT", "MKS"))
    with pytest.raises(BenchmarkError, match=r"1\.fasta was changed after it was frozen"):
        load_benchmark("mine", folder=folder)


def test_a_bad_file_freezes_nothing(folder: Path, fasta: Path) -> None:
    fasta.write_text(">a\nMK1\n")
    with pytest.raises(BenchmarkError, match="line 2"):
        add_benchmark(fasta, "mine", folder)
    assert not folder.exists()


@pytest.mark.parametrize("name", ["", "Mine", "../mine", "a@2", "a b", "x" * 65])
def test_unusable_names_are_refused(folder: Path, fasta: Path, name: str) -> None:
    with pytest.raises(BenchmarkError, match="cannot name a benchmark set"):
        add_benchmark(fasta, name, folder)


def test_a_released_name_is_refused(folder: Path, fasta: Path) -> None:
    with pytest.raises(BenchmarkError, match="never changes"):
        add_benchmark(fasta, "seed", folder)


def test_a_folder_that_cannot_be_written_is_refused(folder: Path, fasta: Path) -> None:
    folder.write_text("a file is in the way")
    with pytest.raises(BenchmarkError, match="cannot be written"):
        add_benchmark(fasta, "mine", folder)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "absent",
            "There is no benchmark set 'absent'; known are boundaries, proteome, reach, seed",
        ),
        ("seed@7", "has no version '7'; it has 1"),
        ("seed@one", "has no version 'one'"),
        ("../seed", r"There is no benchmark set '\.\./seed'"),
    ],
)
def test_an_unknown_set_is_named(folder: Path, name: str, sentence: str) -> None:
    with pytest.raises(BenchmarkError, match=sentence):
        load_benchmark(name, folder=folder)


def test_without_a_folder_the_users_own_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fasta: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    added = add_benchmark(fasta, "mine")
    assert load_benchmark("mine") == added
    assert user_benchmark_folder() == tmp_path / "data" / "virnucpro-monitor" / "benchmark_sets"


def test_truncation_keeps_the_n_terminal_residues() -> None:
    assert truncate("M" * 1022) == ("M" * 1022, False)
    assert truncate("M" * 1022 + "K") == ("M" * 1022, True)
