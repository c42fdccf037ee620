"""ESM-2's tokens as other families have them, and whose row stands where."""

import pytest
import torch

from virnucpro_monitor.models.families import ESM2, FAMILIES
from virnucpro_monitor.runner.adapter_names import FAMILY_NAMES
from virnucpro_monitor.validation.tokens import encode

CLS, EOS, MASK = 0, 2, 32


def test_every_family_can_be_named() -> None:
    assert tuple(FAMILIES) == FAMILY_NAMES
    assert [name for name, one in FAMILIES.items() if one.is_esm2] == ["esm2", "esmc"]


@pytest.mark.parametrize(
    ("name", "words", "before", "after"),
    [
        # As the models' own tokenizers have them; letters that none has stay with X.
        ("e1", {"M": 20, "K": 18, "U": 28, "X": 31, "-": 31, "<mask>": 5}, [1, 6], [7, 2]),
        ("prott5", {"M": 19, "K": 14, "U": 23, "X": 23, "-": 23, "<mask>": 23}, [], [1]),
        ("esmc", {"M": 20, "K": 15, "U": 26, "X": 24, "-": 24, "<mask>": 32}, [0], [2]),
    ],
)
def test_a_pack_is_translated_sequence_by_sequence(
    name: str, words: dict[str, int], before: list[int], after: list[int]
) -> None:
    texts = ["MKX", "U", "K-M"]
    parts = [encode(text) for text in texts]
    parts[2][1] = MASK
    ids = torch.cat(parts)
    bounds = torch.tensor([0, *map(len, parts)]).cumsum(0).int()
    found, ends, places = FAMILIES[name].translated(ids, bounds)
    wanted = [["M", "K", "X"], ["U"], ["<mask>", "-", "M"]]
    expected = [before + [words[one] for one in text] + after for text in wanted]
    assert found.tolist() == [token for one in expected for token in one]
    assert ends.dtype is torch.int32
    assert ends.diff().tolist() == [len(one) for one in expected]
    # Each of ESM-2's tokens has the row of its own, the outer ones the outermost.
    assert len(places) == len(ids)
    for number, text in enumerate(wanted):
        rows = places[int(bounds[number]) : int(bounds[number + 1])].tolist()
        start, end = int(ends[number]), int(ends[number + 1])
        assert rows[-1] == end - 1
        assert rows[0] == (start if before else end - 1)
        assert found[rows[1:-1]].tolist() == [words[one] for one in text]


def test_esm2_stays_as_it_is() -> None:
    ids = encode("MKTAYIAKQRLAGVSERTIDPKQNFYMHWCX")
    found, ends, places = ESM2.translated(ids, torch.tensor([0, len(ids)]))
    assert torch.equal(found, ids)
    assert ends.tolist() == [0, len(ids)]
    assert places.tolist() == list(range(len(ids)))
