"""The profile notes functions by name, in processes where a wrong one is found late."""

from tests.benchmarks.commit_profile import noted_functions


def test_every_noted_function_is_there() -> None:
    noted = noted_functions()
    assert len({name for *_, name in noted}) == len(noted)
    assert [(place, function) for place, function, _ in noted if not hasattr(place, function)] == []
