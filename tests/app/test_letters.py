"""Residues with their error as a colour along the letters."""

import re

from app.letters import is_coloured, letters, letters_legend


def test_letters_stay_readable_in_blocks_and_say_place_and_error() -> None:
    residues = "MKTAYIAKQRQ"
    errors = [0.0, 2e-9, 3e-6, 4e-5, 5e-4, 6e-3, 7e-2, 0.5, 1.2, None, 1e-12]
    code = letters(residues, errors, name="a, packed", worst=9).code
    assert re.sub("<[^>]*>", "", code) == residues
    assert re.findall(r'class="block" data-n="(\d+)"', code) == ["1", "11"]
    found = re.findall(r'<i class="([^"]*)" title="([^"]*)">', code)
    assert [kind for kind, _ in found] == [
        "e0", "e0", "e1", "e2", "e3", "e4", "e5", "e6", "e6", "ex w", "e0",
    ]  # fmt: skip
    assert found[2][1] == "T3 3.0e-6"
    assert found[9][1] == "R10 not finite the worst residue"


def test_without_errors_only_the_worst_residue_is_marked() -> None:
    code = letters("MKT", None, name="base", worst=1).code
    assert re.findall(r'class="([^"]*)" title', code) == ["", "w", ""]
    code = letters("MKT", None, name="base", worst=1, worst_error=2e-4).code
    found = re.findall(r'<i class="([^"]*)" title="([^"]*)">', code)
    assert found == [
        ("", "M1 at most 2.0e-4"),
        ("e3 w", "K2 2.0e-4 the worst residue"),
        ("", "T3 at most 2.0e-4"),
    ]
    assert not is_coloured([0.0, 1e-9])
    assert is_coloured([0.0, None])


def test_the_legend_names_each_colour_that_letters_take() -> None:
    code = letters_legend().code
    assert all(f'class="e{step}"' in code for step in range(7))
    assert 'class="ex"' in code
