"""Protein FASTA, read strictly: what cannot be embedded as it stands is refused, with its line.

Accepted: the 20 standard residues and the ambiguity codes B, Z, X, U, O; Unix, Windows and old Mac
line ends; UTF-8, and UTF-16 with a byte order mark; blank lines; comment lines that begin with `;`
or `#`; gzip, bzip2 and xz, told by their first bytes. Lower case counts as upper case, because
soft-masked FASTA is common and masking does not change the protein. One `*` that ends a sequence is
cut off: gene finders mark the stop codon so. What is left out or cut is said. Refused: any other
`*`, `-` and `.` (gap), which ESM-2 has no use for or would embed as residues, and nucleotides,
which it would embed as if they were alanine, cysteine, glycine and threonine.
"""

import bz2
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from virnucpro_monitor.data.limits import MAX_ID_CHARACTERS, MAX_RESIDUES
from virnucpro_monitor.errors import BenchmarkError
from virnucpro_monitor.records import ProteinSequence
from virnucpro_monitor.records.messages import MAX_MESSAGE_BYTES

STANDARD_RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
AMBIGUOUS_RESIDUES = "BOUXZ"
ALPHABET = frozenset(STANDARD_RESIDUES + AMBIGUOUS_RESIDUES)

# Spelled out, because the long s (U+017F) upper-cases to "S".
_ACCEPTED = ALPHABET | {residue.lower() for residue in ALPHABET}
# First bytes -> what they are of, and what unpacks it.
_ZSTD = ("compressed with zstd", "zstd -d")
_FOREIGN = {
    b"\x28\xb5\x2f\xfd": _ZSTD,
    b"PK\x03\x04": ("a zip archive", "unzip"),
    b"7z\xbc\xaf\x27\x1c": ("a 7-Zip archive", "7z x"),
    b"\x1f\x9d": ("compressed with compress", "gzip -d"),
    b"\x04\x22\x4d\x18": ("compressed with lz4", "lz4 -d"),
    b"LZIP\x01": ("compressed with lzip", "lzip -d"),
    b"\x5d\x00\x00": ("compressed with lzma", "xz -d"),
}
_ZSTD_SKIPPED = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")  # a frame without data comes first
_TAR_MARK, _TAR_MARK_AT = b"ustar", 257
_PACKINGS: dict[bytes, tuple[str, Callable[[bytes], bytes]]] = {
    b"\x1f\x8b": ("gzip", gzip.decompress),
    b"BZh": ("bzip2", bz2.decompress),
    b"\xfd7zXZ\x00": ("xz", lzma.decompress),
}
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_UTF32_MARKS = (b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")
# What text has in no encoding that begins with ASCII's characters.
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_COMMENTS = (";", "#")
_NUCLEOTIDES = frozenset("ACGTUN")
_AMBIGUOUS_NUCLEOTIDES = frozenset("RYSWKMBDHV")
# A protein of that many residues that is made of these letters alone, or nearly so, does not occur:
# low-complexity ones, such as of silk, lack most of the bases.
_MIN_NUCLEOTIDES = 21
_MIN_SHARE_OF_NUCLEOTIDES = 0.9
_MIN_BASES = 3
# Below these, what looks like nucleotides is said and taken as residues: repeats of two letters
# occur in proteins (AAT in those against freezing).
_MIN_SHARE_IN_DOUBT = 0.6
# What a verdict says of each sequence, and how often it names it.
_RESULT_BYTES, _TIMES_NAMED = 650, 2
_TRANSLATE = "translate it first, as with `esl-translate` or Prodigal"
_HINTS = {
    "*": "cut the sequence at its stop codon",
    "-": "remove the alignment's gaps",
    ".": "remove the alignment's gaps",
}


Say = Callable[[str], object]


def _unheard(_: str) -> None:
    return None


def read_fasta(path: str | Path, say: Say = _unheard) -> tuple[ProteinSequence, ...]:
    """Read all sequences of a FASTA file, in file order.

    A sequence's id is the first word of its header line.

    Args:
        say: receives a sentence for each thing that was not taken as it stands.

    Raises:
        BenchmarkError: the file is missing, unreadable, not text, empty, or breaks a rule of the
            module's docstring; the sentence names the file and the line.
    """
    path = Path(path)
    sequences = parse_fasta(_read_text(path, say), source=path.name, say=say)
    if _is_made_of_nucleotides("".join(sequence.residues for sequence in sequences)):
        raise BenchmarkError(
            f"{path.name}: all {len(sequences)} sequences are made of nucleotides, as primers are, "
            f"not of residues; {_TRANSLATE}."
        )
    size = sum(_RESULT_BYTES + _TIMES_NAMED * len(json.dumps(one.id)) for one in sequences)
    if size > MAX_MESSAGE_BYTES:
        most = len(sequences) * MAX_MESSAGE_BYTES // size
        raise BenchmarkError(
            f"{path.name} holds {len(sequences):,} sequences, and one run can tell of some "
            f"{most:,} such; cut it into smaller files."
        )
    return sequences


def parse_fasta(text: str, *, source: str, say: Say = _unheard) -> tuple[ProteinSequence, ...]:
    """Parse FASTA text; `source` is how errors name it. Raises as `read_fasta` does."""
    num_comments = num_stops = 0
    sequences: list[ProteinSequence] = []
    header_lines: dict[str, int] = {}
    current_id: str | None = None
    residues: list[str] = []
    stopped = 0  # line of the `*` that ended the current sequence

    def close_record() -> None:
        if current_id is None:
            return
        if not residues:
            raise BenchmarkError(
                f"{source}, line {header_lines[current_id]}: sequence {current_id!r} is empty; "
                f"remove its header or add its residues."
            )
        text = "".join(residues)
        if _is_made_of_nucleotides(text):
            raise BenchmarkError(
                f"{source}, line {header_lines[current_id]}: sequence {current_id!r} is made of "
                f"nucleotides ({text[:12]}…), not of residues; {_TRANSLATE}."
            )
        sequences.append(ProteinSequence(id=current_id, residues=text))

    # io.StringIO with newline=None ends a line at \n, \r\n and \r, and nowhere else.
    for number, raw_line in enumerate(io.StringIO(text, newline=None), start=1):
        line = raw_line.strip(" \t\n")
        if not line or line.startswith(_COMMENTS):
            num_comments += bool(line)
            continue
        if stopped and not line.startswith(">"):
            raise BenchmarkError(
                f"{source}, line {stopped}: '*' stands inside sequence {current_id!r}, which goes "
                "on in the next line; cut the sequence at its stop codon."
            )
        if line.startswith(">"):
            close_record()
            current_id = _parse_header(line, number, source)
            if current_id in header_lines:
                raise BenchmarkError(
                    f"{source}, line {number}: the id {current_id!r} was already used on line "
                    f"{header_lines[current_id]}; give every sequence its own id."
                )
            header_lines[current_id] = number
            residues, stopped = [], 0
        elif current_id is None:
            raise BenchmarkError(
                f"{source}, line {number}: text before the first '>' header; "
                f"a FASTA file begins with '>' and an id."
            )
        else:
            if line.endswith("*"):
                line, stopped = line[:-1], number
                num_stops += 1
            residues += [_parse_residues(line, number, source)] if line else []
    close_record()
    if not sequences:
        raise BenchmarkError(
            f"{source} holds no sequences; a FASTA file begins with '>' and an id."
        )
    _say_changes(sequences, num_comments, num_stops, source, say)
    return tuple(sequences)


def _say_changes(
    sequences: Sequence[ProteinSequence], num_comments: int, num_stops: int, source: str, say: Say
) -> None:
    total = len(sequences)
    if num_comments:
        lines = "line is" if num_comments == 1 else "lines are"
        say(f"{source}: {num_comments} comment {lines} left out.")
    if num_stops:
        say(f"{source}: the '*' that ends {num_stops} of {total} sequences is cut off.")
    doubtful = [one for one in sequences if _may_be_of_nucleotides(one.residues)]
    if doubtful:
        others = f" and {len(doubtful) - 1} more" if len(doubtful) > 1 else ""
        say(
            f"{source}: sequence {doubtful[0].id!r}{others} may be of nucleotides "
            f"({doubtful[0].residues[:12]}…): taken as residues; if it is none, {_TRANSLATE}."
        )
    long = [sequence for sequence in sequences if len(sequence.residues) > MAX_RESIDUES]
    if long:
        verb = "is" if len(long) == 1 else "are"
        say(
            f"{source}: {len(long)} of {total} sequences {verb} longer than {MAX_RESIDUES:,} "
            f"residues, the limit of ESM-2: their first {MAX_RESIDUES:,} are embedded "
            f"({long[0].id}: {len(long[0].residues):,})."
        )


def format_fasta(sequences: Iterable[ProteinSequence]) -> str:
    """Canonical FASTA: `>id`, then all residues on one line, each line ended by a line feed."""
    return "".join(f">{sequence.id}\n{sequence.residues}\n" for sequence in sequences)


def _read_text(path: Path, say: Say) -> str:
    if path.is_dir():
        raise BenchmarkError(f"{path} is a folder; name a FASTA file.")
    try:
        content = _unpacked(path, path.read_bytes())
    except FileNotFoundError as error:
        raise BenchmarkError(f"There is no file {path}; name a FASTA file.") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BenchmarkError(f"{path} cannot be read: {reason}.") from error
    if not content.strip():
        raise BenchmarkError(f"{path} is empty; a FASTA file begins with '>' and an id.")
    utf16 = content.startswith(_UTF16_MARKS) and not content.startswith(_UTF32_MARKS)
    try:
        text = content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        if utf16:
            raise BenchmarkError(
                f"{path} begins as UTF-16 and breaks off; save it as UTF-8."
            ) from error
        if _CONTROLS.search(content):
            raise BenchmarkError(
                f"{path} is not text: line {line} holds the byte 0x{content[error.start]:02x}; "
                "name a protein FASTA file in UTF-8."
            ) from error
        raise BenchmarkError(
            f"{path}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8, as in text "
            "saved in Latin-1; convert it, as with `iconv -f latin1 -t utf-8`, or name a protein "
            "FASTA file."
        ) from error
    if utf16:
        say(f"{path.name}: read as UTF-16.")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise BenchmarkError(
            f"{path}, line {line}: a zero byte, so this is not text; name a protein FASTA file in "
            "UTF-8."
        )
    return text


def _unpacked(path: Path, content: bytes) -> bytes:
    """The content, decompressed where it begins like a format that Python can read."""
    for magic, (name, unpack) in _PACKINGS.items():
        if content.startswith(magic):
            try:
                content = unpack(content)
            except MemoryError as error:
                raise BenchmarkError(
                    f"{path} needs more memory than there is once it is unpacked; cut it into "
                    "smaller files."
                ) from error
            except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
                raise BenchmarkError(
                    f"{path} is damaged {name} ({error}); fetch or pack it again."
                ) from error
            break
    foreign = _foreign_format(content)
    if foreign is not None:
        what, tool = foreign
        raise BenchmarkError(
            f"{path} is {what}, which cannot be read here; unpack it, as with `{tool}`, or pack it "
            "with gzip, bzip2 or xz."
        )
    return content


def _foreign_format(content: bytes) -> tuple[str, str] | None:
    """What content that cannot be read is, and what unpacks it; None where that is not known."""
    if _ZSTD_SKIPPED.match(content):
        return _ZSTD
    if content[_TAR_MARK_AT : _TAR_MARK_AT + len(_TAR_MARK)] == _TAR_MARK:
        return "a tar archive", "tar -xf"
    for magic, (name, _) in _PACKINGS.items():
        if content.startswith(magic):  # once unpacked
            return f"packed twice, inside with {name}", f"{name} -d"
    return next((found for magic, found in _FOREIGN.items() if content.startswith(magic)), None)


def _is_made_of_nucleotides(text: str) -> bool:
    letters = set(text)
    if len(text) < _MIN_NUCLEOTIDES or not letters <= _NUCLEOTIDES | _AMBIGUOUS_NUCLEOTIDES:
        return False
    share = sum(map(text.count, _NUCLEOTIDES)) / len(text)
    return share >= _MIN_SHARE_OF_NUCLEOTIDES and len(letters & set("ACGTU")) >= _MIN_BASES


def _may_be_of_nucleotides(text: str) -> bool:
    letters = set(text)
    if len(text) < _MIN_NUCLEOTIDES or not letters <= _NUCLEOTIDES | _AMBIGUOUS_NUCLEOTIDES:
        return False
    bases = letters & set("ACGTU")
    if len(bases) < _MIN_BASES:  # silk repeats G and A, and S
        return len(bases) > 1 and letters <= _NUCLEOTIDES and bases != {"A", "G"}
    return sum(map(text.count, _NUCLEOTIDES)) / len(text) >= _MIN_SHARE_IN_DOUBT


def _parse_header(line: str, number: int, source: str) -> str:
    words = line[1:].split(maxsplit=1)
    if not words:
        raise BenchmarkError(f"{source}, line {number}: the header has no id after '>'; add one.")
    if len(words[0]) > MAX_ID_CHARACTERS:
        raise BenchmarkError(
            f"{source}, line {number}: the id {words[0][:20]!r}… has {len(words[0]):,} characters, "
            f"where {MAX_ID_CHARACTERS:,} may be; give it a short one, and residues their own line."
        )
    if not words[0].isprintable():
        raise BenchmarkError(
            f"{source}, line {number}: the id {words[0]!r} holds a control character; remove it."
        )
    return words[0]


def _parse_residues(line: str, number: int, source: str) -> str:
    for column, character in enumerate(line, start=1):
        if character not in _ACCEPTED:
            hint = _HINTS.get(character, "use the 20 standard residues or B, Z, X, U, O")
            raise BenchmarkError(
                f"{source}, line {number}, column {column}: {character!r} is not a residue; {hint}."
            )
    return line.upper()
