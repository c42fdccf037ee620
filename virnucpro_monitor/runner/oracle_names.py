"""How an oracle is named: what both sides of a model are held against.

fair-esm                    unmodified fair-esm in FP32, with the run's weights
self-fp64                   the target's own unpacked path in FP64, blind to what both sides share
hf:EsmModel@VERSION         Hugging Face's ESM-2 of a pinned release, with the run's weights
hf:FOLDER@VERSION           another model of Hugging Face's format, in a folder
hf:NAME#REVISION@VERSION    and one of its hub, at one commit: 40 hexadecimal digits
file:PATH                   embeddings by sequence id, of a .npz or .parquet file
none                        nothing: its gates are not judged
"""

import re
from dataclasses import dataclass
from pathlib import Path

from packaging.version import InvalidVersion, Version

from virnucpro_monitor.disks import path_from, sha256_of
from virnucpro_monitor.errors import ConfigurationError
from virnucpro_monitor.records import NO_ORACLE, OWN_ORACLE

FAIR_ESM = "fair-esm"
HF_ESM = "EsmModel"
_REVISION = re.compile(r"(.+)#([0-9a-f]{40})")
_FILE_FORM = "file:PATH (a .npz or .parquet file)"
_FORMS = f"{FAIR_ESM}, {OWN_ORACLE}, hf:MODEL@VERSION, {_FILE_FORM} or {NO_ORACLE}"
_SUFFIXES = (".npz", ".parquet")


@dataclass(frozen=True, slots=True)
class OracleName:
    """An oracle's name taken apart.

    Attributes:
        kind: "fair-esm", "self-fp64", "hf", "file" or "none".
        place: of "hf" the model, of "file" the path.
        version: of "hf" the release of transformers.
        revision: of a hub's model the commit.
    """

    kind: str
    place: str = ""
    version: str = ""
    revision: str = ""

    @property
    def text(self) -> str:
        """As a user writes it, and as runs name it."""
        pinned = f"#{self.revision}" if self.revision else ""
        pinned += f"@{self.version}" if self.version else ""
        return f"{self.kind}:{self.place}{pinned}" if self.place else self.kind


def parse_oracle(text: str) -> OracleName:
    """Take an oracle's name apart; whether there is such a file or model is not looked at.

    Raises:
        ConfigurationError: it is none.
    """
    kind, colon, place = text.partition(":")
    if not colon and kind in (FAIR_ESM, OWN_ORACLE, NO_ORACLE):
        return OracleName(kind)
    if kind == "file" and Path(place).suffix in _SUFFIXES:
        return OracleName(kind, place)
    if kind == "hf":
        model, _, version = place.rpartition("@")
        of_hub = _REVISION.fullmatch(model)
        model, revision = of_hub.groups() if of_hub else (model or HF_ESM, "")
        try:
            return OracleName(kind, model, str(Version(version)), revision)
        except InvalidVersion as error:
            raise ConfigurationError(
                f"{text!r} names no release of transformers: pin one, as in hf:{HF_ESM}@5.24.0."
            ) from error
    raise ConfigurationError(f"{text!r} is no oracle: use {_FORMS}.")


def oracle_here(text: str) -> str:
    """An oracle's name with its file's or folder's path made absolute, from the working folder.

    Raises:
        ConfigurationError: it is none, there is no such file, or a hub's model has no revision.
    """
    named = parse_oracle(text)
    if named.kind == "hf":
        check_pinned(named)
        if (folder := model_folder(named)) is not None:
            return OracleName(named.kind, str(folder.resolve()), named.version).text
    if named.kind != "file":
        return named.text
    path = path_from(named.place).resolve()
    if not path.is_file():
        raise ConfigurationError(f"There is no file {path} for the oracle {text!r}.")
    return OracleName(named.kind, str(path)).text


def oracle_source(text: str) -> tuple[str, ...]:
    """Digest of an oracle's file or model folder; nothing for the others, which their names tell.

    Of what cannot be read neither: the run itself says so.
    """
    named = parse_oracle(text)
    path = Path(named.place)
    try:
        if named.kind == "hf" and (folder := model_folder(named)) is not None:
            from virnucpro_monitor.models.weight_digests import folder_digest

            return (folder_digest(folder),)
        if named.kind != "file" or not path.is_file():
            return ()
        return (sha256_of(path),)
    except OSError:
        return ()


def model_folder(named: OracleName) -> Path | None:
    """The folder that an oracle of Hugging Face's format is in; None for a model's name."""
    folder = path_from(named.place)
    own = named.place == HF_ESM or named.revision
    return folder if not own and folder.is_dir() else None


def check_pinned(named: OracleName) -> None:
    """Raise `ConfigurationError` where a model's name may mean other files tomorrow."""
    if named.place == HF_ESM or named.revision or model_folder(named) is not None:
        return
    if path_from(named.place).is_absolute():
        raise ConfigurationError(f"There is no folder {named.place} for the oracle {named.text!r}.")
    raise ConfigurationError(
        f"The oracle {named.text!r} names a model of the hub, whose files its authors may change: "
        f"pin the commit, as in hf:{named.place}#{'0123456789abcdef' * 2}01234567@{named.version} "
        f"(40 digits, from the model's history)."
    )
