"""A recognised fault: a short name, which is stored, and the words for a person."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Signature:
    """A recognised fault: a short name, and the words for a person."""

    name: str
    text: str
