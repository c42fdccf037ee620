"""FASTA is read strictly, and every refusal names the place."""

import bz2
import gzip
import lzma
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_monitor.data import fasta
from virnucpro_monitor.data.benchmarks import list_benchmarks
from virnucpro_monitor.data.fasta import (
    ALPHABET,
    format_fasta,
    parse_fasta,
    read_fasta,
)
from virnucpro_monitor.errors import BenchmarkError
from virnucpro_monitor.records import ProteinSequence


def write(folder: Path, content: bytes) -> Path:
    path = folder / "set.fasta"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        b">a first protein\nMKT\nAYI\n\n>b\nVLS\n",
        b">a first protein\r\nMKT\r\nAYI\r\n\r\n>b\r\nVLS\r\n",
        b">a first protein\rMKT\rAYI\r>b\rVLS",
        b"\xef\xbb\xbf>a first protein\nMKTAYI\n>b\nVLS",
        b"\n> a first protein\n  MKT AYI\n".replace(b" AYI", b"\nAYI") + b">b\t\nVLS  \n",
        b">a \xc3\xa9\nmktayi\n>b\nvls\n",
        gzip.compress(b">a\nMKTAYI\n>b\nVLS\n", mtime=0),
        bz2.compress(b">a\nMKTAYI\n>b\nVLS\n"),
        lzma.compress(b">a\nMKTAYI\n>b\nVLS\n"),
        b";first\n>a\n;inside\nMKT\nAYI\n# and out\n>b\nVLS\n",
        b">a # 12 # 30 # 1 # ID=1_1;partial=00\nMKT\nAYI*\n>b\nVLS\n*\n",
        ">a\nMKT\nAYI\n>b\nVLS\n".encode("utf-16"),
    ],
    ids=[
        *("unix", "windows", "mac", "byte-order-mark", "spaces", "lower-case"),
        *("gzip", "bzip2", "xz", "comments", "terminal-stop", "utf-16"),
    ],
)
def test_the_same_sequences_are_read_from_every_accepted_form(
    tmp_path: Path, content: bytes
) -> None:
    sequences = read_fasta(write(tmp_path, content))
    assert [(one.id, one.residues) for one in sequences] == [("a", "MKTAYI"), ("b", "VLS")]


def test_what_is_not_taken_as_it_stands_is_said(tmp_path: Path) -> None:
    content = "# made by hand\n>a\nMKT*\n>b\nVLS\n>long\n" + "MKTAY" * 205
    said: list[str] = []
    read_fasta(write(tmp_path, content.encode("utf-16")), said.append)
    assert said == [
        "set.fasta: read as UTF-16.",
        "set.fasta: 1 comment line is left out.",
        "set.fasta: the '*' that ends 1 of 3 sequences is cut off.",
        "set.fasta: 1 of 3 sequences is longer than 1,022 residues, the limit of ESM-2: their "
        "first 1,022 are embedded (long: 1,025).",
    ]
    said.clear()
    read_fasta(write(tmp_path, b">a\nMKT\n>silk\nGAGAGSGAGAGSGAGAGSGAGAGS\n"), said.append)
    assert said == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b" \r\n\n", "is empty"),
        (b"MKT\n", "line 1: text before the first '>' header"),
        (b">a\nMKT\n>a\nVLS\n", "line 3: the id 'a' was already used on line 1"),
        (b">a\nMKT\n>b\n>c\nVLS\n", "line 3: sequence 'b' is empty"),
        (b">a\nMKT\n>b\n", "line 3: sequence 'b' is empty"),
        (b">a\nMKT\n>\nVLS\n", "line 3: the header has no id"),
        (b">a\nMKT\r\n\r\nVL1S\r\n", "line 4, column 3: '1' is not a residue"),
        (b">a\nMK*T\n", "line 2, column 3: '*' is not a residue; cut the sequence"),
        (b">a\nMK**\n", "line 2, column 3: '*' is not a residue; cut the sequence"),
        (b">a\nMKT*\nMKT\n>b\nVLS\n", "line 2: '*' stands inside sequence 'a'"),
        (b">a\n*\n", "line 1: sequence 'a' is empty"),
        (b">a\nMKT\n>b\nACGTACGTAC\nGTNNACGUACG\n", "line 3: sequence 'b' is made of nucl"),
        (b">a\nacgtacgtacgtacgtacgta\n", "translate it first"),
        (b">a\nACGTRYACGTACGTACGTAACGTACGTACGTA\n", "line 1: sequence 'a' is made of nucl"),
        (b">" + b"MKTAY" * 300 + b"\n", "line 1: the id 'MKTAYMKTAYMKTAYMKTAY'… has 1,500 char"),
        (b">a\x07\nMKT\n", "line 1: the id 'a\\x07' holds a control character"),
        (b">a\nMK-T\n", "line 2, column 3: '-' is not a residue; remove the alignment's gaps"),
        (b">a\nMKJ\n", "line 2, column 3: 'J' is not a residue"),
        (b">a\nMK T\n", "line 2, column 3: ' ' is not a residue"),
        (">a\nMK\u017fT\n".encode(), "line 2, column 3: '\u017f' is not a residue"),
        (b">a\nMKT\xff\n", "line 2: byte 0xff is not UTF-8, as in text saved in Latin-1"),
        (">a caf\u00e9\nMKT\n".encode("latin-1"), "line 1: byte 0xe9 is not UTF-8"),
        (b">a\nM\x00KT\n", "line 2: a zero byte, so this is not text"),
        (b"\xff\xfe>\x00a", "begins as UTF-16 and breaks off"),
        (b"\x28\xb5\x2f\xfd\x00", "is compressed with zstd, which cannot be read here; unpack it"),
        (b"\x50\x2a\x4d\x18\x00\x00\x00\x00\x28\xb5\x2f\xfd", "is compressed with zstd"),
        (b"PK\x03\x04\x14\x00\xb8", "is a zip archive, which cannot be read here; unpack it, as"),
        (b"7z\xbc\xaf\x27\x1c\x00", "is a 7-Zip archive"),
        (b"\x1f\x9d\x90>a", "is compressed with compress"),
        (lzma.compress(b">a\nMKT\n", format=lzma.FORMAT_ALONE), "is compressed with lzma"),
        (gzip.compress(bytes(257) + b"ustar", mtime=0), "is a tar archive"),
        (
            gzip.compress(gzip.compress(b">a\nMKT\n", mtime=0), mtime=0),
            "is packed twice, inside with gzip",
        ),
        (b"%PDF-1.4\n%\xe2\xe3\x0e", "is not text: line 2 holds the byte 0xe2"),
        (">a\nMKT\n".encode("utf-32"), "is not text: line 1 holds the byte 0xff"),
        (b">a\nACGTTGCAAC\n>b\nTTGACCATGA\n>c\nA\n", "all 3 sequences are made of nucleotides"),
        (bz2.compress(b">a\nMKT\n")[:-6], "is damaged bzip2"),
        (lzma.compress(b">a\nMKT\n")[:-6], "is damaged xz"),
        (gzip.compress(b">a\nMKT\n", mtime=0)[:-6], "is damaged gzip"),
        (b"\x1f\x8b\x08\x00garbage", "is damaged gzip"),
        (gzip.compress(b"", mtime=0), "is empty"),
    ],
)
def test_bad_input_is_refused_in_one_sentence_that_names_the_place(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    with pytest.raises(BenchmarkError) as caught:
        read_fasta(write(tmp_path, content))
    assert sentence in str(caught.value)
    assert "set.fasta" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_may_be_nucleotides_is_said(tmp_path: Path) -> None:
    """Two letters alone are a protein's too, and so are ambiguity codes beyond a few."""
    content = b">a\nATTATAATTTAATATTTATAATA\n>b\nACGTRYSWACGTKMBDACGTHVACGT\n>c\nMKTAYIAKQ\n"
    said: list[str] = []
    assert len(read_fasta(write(tmp_path, content), said.append)) == 3
    assert said == [
        "set.fasta: sequence 'a' and 1 more may be of nucleotides (ATTATAATTTAA…): taken as "
        "residues; if it is none, translate it first, as with `esl-translate` or Prodigal."
    ]
    for one in list_benchmarks():
        told: list[str] = []
        parse_fasta(format_fasta(one.sequences), source=one.label, say=told.append)
        assert not [line for line in told if "nucleotides" in line]


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="There is no file"):
        read_fasta(tmp_path / "absent.fasta")
    with pytest.raises(BenchmarkError, match="is a folder"):
        read_fasta(tmp_path)
    with pytest.raises(BenchmarkError, match="cannot be read: not a directory"):
        read_fasta(write(tmp_path, b">a\nM\n") / "inner.fasta")


def test_more_sequences_than_a_verdict_can_tell_of_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after hours of measuring, and not as the commit's doing."""
    content = "".join(f">s{number}\nMKT\n" for number in range(40)).encode()
    assert len(read_fasta(write(tmp_path, content))) == 40
    monkeypatch.setattr(fasta, "MAX_MESSAGE_BYTES", 20_000)
    with pytest.raises(BenchmarkError, match="holds 40 sequences, and one run can tell of some 30"):
        read_fasta(write(tmp_path, content))


def test_what_needs_too_much_memory_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unpack(content: bytes) -> bytes:
        raise MemoryError

    monkeypatch.setitem(fasta._PACKINGS, b"BZh", ("bzip2", unpack))
    with pytest.raises(BenchmarkError, match="needs more memory than there is once it is unpacked"):
        read_fasta(write(tmp_path, bz2.compress(b">a\nMKT\n")))


identifiers = st.from_regex(r"[A-Za-z0-9_.|:-]{1,20}", fullmatch=True)
records = st.lists(
    st.builds(
        ProteinSequence,
        id=identifiers,
        residues=st.text(sorted(ALPHABET), min_size=1, max_size=80),
    ),
    min_size=1,
    unique_by=lambda sequence: sequence.id,
)


@given(records)
def test_what_is_formatted_is_read_back(sequences: list[ProteinSequence]) -> None:
    assert parse_fasta(format_fasta(sequences), source="set") == tuple(sequences)


def test_short_peptides_of_four_letters_are_proteins(tmp_path: Path) -> None:
    sequences = read_fasta(write(tmp_path, b">a\nGATTACAGATTACAGATTAC\n"))
    assert [(one.id, one.residues) for one in sequences] == [("a", "GATTACAGATTACAGATTAC")]
