"""What a setting looks like to a person, and how its value is read."""

from dataclasses import dataclass

from pydantic import BeforeValidator


@dataclass(frozen=True, slots=True)
class About:
    """What a person is told of a setting.

    Attributes:
        help: what it decides, without a full stop.
        form: what a value looks like, with its unit and range.
        noun: what a wrong value is not.
        default: in words, where the value itself tells nothing.
        flag_form: what the flag takes, where that is not `form`.
    """

    help: str
    form: str
    noun: str
    flag: str = ""
    metavar: str = ""
    default: str = ""
    flag_form: str = ""


def no_truth(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a truth value is not a number")
    return value


def split_names(value: object) -> object:
    """Names with commas between, or a list of names; one that stands twice counts once."""
    if isinstance(value, str):
        names = [name.strip() for name in value.split(",")]
    elif isinstance(value, list) and all(isinstance(name, str) for name in value):
        names = [name.strip() for name in value]
    else:
        return value
    if any(not name or set(name) & set("[]\"'") for name in names):
        raise ValueError("not names with commas between")
    return list(dict.fromkeys(names))


NotBool = BeforeValidator(no_truth)


def why_unreadable(error: Exception) -> str:
    """Why a settings file could not be read, in a few words."""
    if isinstance(error, UnicodeDecodeError):
        line = error.object[: error.start].count(b"\n") + 1
        return f"line {line} is not UTF-8; save it as that"
    if isinstance(error, RecursionError):
        return "its values are nested too deeply"
    return str(error).partition(";")[0]  # a number of thousands of digits comes with advice
