"""What a protocol's JSON must look like: types, ranges and finiteness of all that is judged by.

A protocol comes from outside. A NaN compares as false with everything, so that one in a threshold
would let everything pass; an infinite limit is none.
"""

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from virnucpro_monitor.records import Json

MAX_CHARACTERS = 20_000_000
MAX_DEPTH = 20

_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Limit = Annotated[_Number, Field(ge=0)]
_Zero = Annotated[_Number, Field(ge=0, le=0)]
_Text = Annotated[str, Field(strict=True)]
_Name = Annotated[_Text, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
_Residues = Annotated[_Text, Field(pattern=r"^[A-Z.\-]+$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class _Thresholds(_Part):
    strict: Annotated[_Number, Field(le=1)]
    lenient: Annotated[_Number, Field(le=1)]
    lenient_fraction: _Limit


class _Probes(_Part):
    sequences: Annotated[list[_Residues], Field(min_length=1)]
    mask_fractions: list[Annotated[_Limit, Field(lt=1)]]


class _Evidence(_Part):
    class Run(_Part):
        dtype: _Name
        device: _Name
        worst: dict[_Name, _Number]

    runs: list[Run] = []


class _Rule(_Part):
    target: _Text = ""
    who: _Name
    why: Annotated[_Text, Field(min_length=1, max_length=1000)]
    since: _Text = ""


class _Form(_Part):
    version: _Name
    thresholds: _Thresholds
    oracle_factor: Annotated[_Number, Field(gt=0)]
    limits: dict[_Name, dict[_Name, _Limit]]
    exact: dict[_Name, _Zero] = {}
    probes: _Probes
    evidence: _Evidence = _Evidence()
    policy: dict[_Name, _Rule] = {}


def read_content(text: str) -> Json:
    """The content of a protocol's JSON text, checked.

    Raises:
        ValueError: with one sentence on the first thing that is wrong.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"it has more than {MAX_CHARACTERS} characters")
    try:
        content: Any = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep") from error
    _check_depth(content)
    try:
        _Form.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ValueError(f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}") from error
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds {name}, which is no number")


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
