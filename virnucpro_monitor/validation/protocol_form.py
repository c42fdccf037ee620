"""What a protocol's JSON must look like: types, ranges and finiteness of all that is judged by.

A protocol comes from outside. A NaN compares as false with everything, so that one in a threshold
would let everything pass; an infinite limit is none.
"""

import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from virnucpro_monitor.data.limits import MAX_RESIDUES, RESIDUE_LETTERS
from virnucpro_monitor.records import Json
from virnucpro_monitor.validation.own_noise import FOLLOWING

MAX_CHARACTERS = 20_000_000
MAX_DEPTH = 20

_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Limit = Annotated[_Number, Field(ge=0)]
_Zero = Annotated[_Number, Field(ge=0, le=0)]
_Text = Annotated[str, Field(strict=True)]
_Name = Annotated[_Text, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
_Version = Annotated[
    _Text, Field(max_length=100, pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$")
]
_Residues = Annotated[_Text, Field(max_length=MAX_RESIDUES, pattern=rf"^[{RESIDUE_LETTERS}]+$")]
_Packable = Annotated[list[_Residues], Field(min_length=1)]
_Count = Annotated[int, Field(strict=True, ge=1, le=100_000)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class _Thresholds(_Part):
    strict: Annotated[_Number, Field(le=1)]
    lenient: Annotated[_Number, Field(le=1)]
    lenient_fraction: _Limit


class _Probes(_Part):
    class Shape(_Part):
        name: _Name
        sequences: _Packable
        times: _Count = 1

    class Collator(_Part):
        sequences: _Count
        per_call: _Count
        lengths: Annotated[list[Annotated[_Count, Field(le=MAX_RESIDUES)]], Field(min_length=1)]
        tokens: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = 0

    sequences: _Packable
    mask_fractions: list[Annotated[_Limit, Field(lt=1)]]
    long: _Packable | None = None
    longest: _Packable | None = None
    shapes: list[Shape] | None = None
    collator: Collator | None = None
    smallest: _Residues | None = None
    witness: _Residues | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """The probes since protocol 2 are asked together or not at all."""
        if self.long is not None:
            lacking = [
                name
                for name in ("longest", "shapes", "collator", "smallest", "witness")
                if getattr(self, name) is None
            ]
            if lacking:
                raise ValueError(f"lacks {', '.join(lacking)}")
        return self


class _Evidence(_Part):
    class Run(_Part):
        dtype: _Name
        device: _Name
        model: _Name
        num_runs: Annotated[int, Field(strict=True, ge=1)]
        worst: dict[_Name, _Number]

    runs: list[Run] = []


class _Rule(_Part):
    target: _Text = ""
    who: _Name
    why: Annotated[_Text, Field(min_length=1, max_length=1000)]
    since: _Text = ""


class _OwnNoise(_Part):
    least: _Limit
    factors: dict[Literal["float32", "half"], dict[_Name, _Limit]]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for kind in ("float32", "half"):
            lacking = [name for name in FOLLOWING if name not in self.factors.get(kind, {})]
            if lacking:
                raise ValueError(f"the factors for {kind} lack {', '.join(lacking)}")
        return self


class _Form(_Part):
    version: _Version
    thresholds: _Thresholds
    oracle_factor: Annotated[_Number, Field(gt=0)]
    limits: Annotated[dict[_Name, dict[_Name, _Limit]], Field(min_length=1)]
    exact: dict[_Name, _Zero] = {}
    probes: _Probes
    own_noise: _OwnNoise | None = None
    evidence: _Evidence = _Evidence()
    calibrated: dict[_Name, Any] = {}
    policy: dict[_Name, _Rule] = {}


def read_content(text: str) -> Json:
    """The content of a protocol's JSON text, checked.

    Raises:
        ValueError: with one sentence on the first thing that is wrong.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"it has more than {MAX_CHARACTERS} characters")
    try:
        content: Any = json.loads(
            text, parse_constant=_refuse_constant, object_pairs_hook=_refuse_doubled
        )
    except RecursionError as error:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep") from error
    _check_depth(content)
    try:
        _Form.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        said = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{place}: {said[:1].lower()}{said[1:]}") from error
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds {name}, which is no number")


def _refuse_doubled(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Two values under one name: whoever reads the file may see the one that does not count."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"it names {name[:100]!r} twice in one place")
        found[name] = value
    return found


def _check_depth(content: Any) -> None:
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return
    raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
