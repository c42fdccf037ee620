"""Protein FASTA, read strictly: what cannot be embedded as it stands is refused, with its line.

Accepted: the 20 standard residues and the ambiguity codes B, Z, X, U, O; Unix, Windows and old Mac
line ends; a UTF-8 byte order mark; blank lines; gzip, told by its first bytes. Lower case counts as
upper case, because soft-masked FASTA is common and masking does not change the protein. Refused:
`*` (stop) and `-` or `.` (gap), which ESM-2 has no use for or would embed as residues.
"""

import gzip
import io
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from virnucpro_monitor.errors import BenchmarkError
from virnucpro_monitor.records import ProteinSequence

STANDARD_RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
AMBIGUOUS_RESIDUES = "BOUXZ"
ALPHABET = frozenset(STANDARD_RESIDUES + AMBIGUOUS_RESIDUES)

# Spelled out, because the long s (U+017F) upper-cases to "S".
_ACCEPTED = ALPHABET | {residue.lower() for residue in ALPHABET}
_GZIP_MAGIC = b"\x1f\x8b"
_HINTS = {
    "*": "cut the sequence at its stop codon",
    "-": "remove the alignment's gaps",
    ".": "remove the alignment's gaps",
}


def read_fasta(path: str | Path) -> tuple[ProteinSequence, ...]:
    """Read all sequences of a FASTA file, in file order.

    A sequence's id is the first word of its header line.

    Raises:
        BenchmarkError: the file is missing, unreadable, not text, empty, or breaks a rule of the
            module's docstring; the sentence names the file and the line.
    """
    path = Path(path)
    return parse_fasta(_read_text(path), source=path.name)


def parse_fasta(text: str, *, source: str) -> tuple[ProteinSequence, ...]:
    """Parse FASTA text; `source` is how errors name it. Raises as `read_fasta` does."""
    sequences: list[ProteinSequence] = []
    header_lines: dict[str, int] = {}
    current_id: str | None = None
    residues: list[str] = []

    def close_record() -> None:
        if current_id is None:
            return
        if not residues:
            raise BenchmarkError(
                f"{source}, line {header_lines[current_id]}: sequence {current_id!r} is empty; "
                f"remove its header or add its residues."
            )
        sequences.append(ProteinSequence(id=current_id, residues="".join(residues)))

    # io.StringIO with newline=None ends a line at \n, \r\n and \r, and nowhere else.
    for number, raw_line in enumerate(io.StringIO(text, newline=None), start=1):
        line = raw_line.strip(" \t\n")
        if not line:
            continue
        if line.startswith(">"):
            close_record()
            current_id = _parse_header(line, number, source)
            if current_id in header_lines:
                raise BenchmarkError(
                    f"{source}, line {number}: the id {current_id!r} was already used on line "
                    f"{header_lines[current_id]}; give every sequence its own id."
                )
            header_lines[current_id] = number
            residues = []
        elif current_id is None:
            raise BenchmarkError(
                f"{source}, line {number}: text before the first '>' header; "
                f"a FASTA file begins with '>' and an id."
            )
        else:
            residues.append(_parse_residues(line, number, source))
    close_record()
    if not sequences:
        raise BenchmarkError(
            f"{source} holds no sequences; a FASTA file begins with '>' and an id."
        )
    return tuple(sequences)


def format_fasta(sequences: Iterable[ProteinSequence]) -> str:
    """Canonical FASTA: `>id`, then all residues on one line, each line ended by a line feed."""
    return "".join(f">{sequence.id}\n{sequence.residues}\n" for sequence in sequences)


def as_pairs(sequences: Sequence[ProteinSequence]) -> list[tuple[str, str]]:
    """The (id, residues) pairs that `validate_packed_equivalence` takes."""
    return [(sequence.id, sequence.residues) for sequence in sequences]


def _read_text(path: Path) -> str:
    if path.is_dir():
        raise BenchmarkError(f"{path} is a folder; name a FASTA file.")
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP_MAGIC):
            content = gzip.decompress(content)
    except FileNotFoundError as error:
        raise BenchmarkError(f"There is no file {path}; name a FASTA file.") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BenchmarkError(
            f"{path} is damaged gzip ({error}); fetch or pack it again."
        ) from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BenchmarkError(f"{path} cannot be read: {reason}.") from error
    if not content.strip():
        raise BenchmarkError(f"{path} is empty; a FASTA file begins with '>' and an id.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BenchmarkError(f"{path} is not text; name a protein FASTA file in UTF-8.") from error
    if "\0" in text:
        raise BenchmarkError(f"{path} is not text; name a protein FASTA file in UTF-8.")
    return text


def _parse_header(line: str, number: int, source: str) -> str:
    words = line[1:].split(maxsplit=1)
    if not words:
        raise BenchmarkError(f"{source}, line {number}: the header has no id after '>'; add one.")
    return words[0]


def _parse_residues(line: str, number: int, source: str) -> str:
    for column, character in enumerate(line, start=1):
        if character not in _ACCEPTED:
            hint = _HINTS.get(character, "use the 20 standard residues or B, Z, X, U, O")
            raise BenchmarkError(
                f"{source}, line {number}, column {column}: {character!r} is not a residue; {hint}."
            )
    return line.upper()
