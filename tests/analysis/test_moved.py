"""Did the embeddings move? Kept exactly, and compared side by side."""

import numpy as np
import pytest

from virnucpro_monitor.analysis.moved import compare_embeddings, moved_sentence
from virnucpro_monitor.records import (
    EMBEDDING_DATA,
    EMBEDDINGS,
    PooledEmbeddings,
    read_embeddings,
    write_embeddings,
)

IDS = ["a", "b", "c"]


def pooled(scale: float = 1.0) -> PooledEmbeddings:
    unpacked = np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)
    unpacked[2] = np.nan  # lost
    packed = unpacked.copy()
    packed[0, 0] = np.nextafter(packed[0, 0], np.float32(9))
    packed[1] *= np.float32(scale)
    return PooledEmbeddings(packed=packed, unpacked=unpacked)


def test_what_is_kept_comes_back_to_the_last_bit() -> None:
    written = write_embeddings(pooled())
    found = read_embeddings(written)
    assert found is not None
    assert found.packed.tobytes() == pooled().packed.tobytes()
    assert found.unpacked.tobytes() == pooled().unpacked.tobytes()
    # Sides that agree cost little more than one.
    assert len(written[EMBEDDING_DATA]["zlib"]) < 1.3 * 3 * 64 * 4
    assert read_embeddings({EMBEDDINGS: written[EMBEDDINGS]}) is None  # deleted since
    for name, value in (("width", 65), ("sha256", "0" * 64), ("num_sequences", -3)):
        about = {**written[EMBEDDINGS], name: value}
        assert read_embeddings({**written, EMBEDDINGS: about}) is None
    assert read_embeddings({**written, EMBEDDING_DATA: {"zlib": "AAAA"}}) is None
    large = np.broadcast_to(np.float32(0), (2**12, 2**12))
    assert write_embeddings(PooledEmbeddings(packed=large, unpacked=large)) == {}


def test_each_side_is_compared_with_itself() -> None:
    noise = [{"reordered": 1e-6}, {}]
    packed, unpacked = compare_embeddings(pooled(), IDS, pooled(1.25), ["c", "b", "a"], noise)
    # The head has the same rows under other names: only b lies at the same place.
    assert packed.num_compared == 1
    packed, unpacked = compare_embeddings(pooled(), IDS, pooled(1.25), IDS, noise)
    assert (packed.num_compared, packed.num_identical) == (2, 1)
    assert packed.worst == pytest.approx(0.25)
    assert [name for name, _ in packed.most] == ["b"]
    assert packed.beyond_noise is True
    assert "1 of 2 embeddings are bit-identical" in moved_sentence(packed)
    assert "the furthest moved by 2.5e-01 (relative L2), beyond the noise of 1.0e-06" in (
        moved_sentence(packed)
    )
    assert (unpacked.num_compared, unpacked.num_identical, unpacked.worst) == (2, 2, 0.0)
    assert moved_sentence(unpacked) == (
        "unpacked: all 2 embeddings are bit-identical; 1 more has none that is finite"
    )


def test_what_cannot_be_compared_is_left_out() -> None:
    narrow = PooledEmbeddings(
        packed=np.zeros((3, 2), np.float32), unpacked=np.zeros((3, 2), np.float32)
    )
    assert compare_embeddings(None, IDS, pooled(), IDS, []) == ()
    assert compare_embeddings(pooled(), IDS, narrow, IDS, []) == ()
    assert compare_embeddings(pooled(), IDS[:2], pooled(), IDS, []) == ()
    (packed, _) = compare_embeddings(narrow, IDS, narrow, ["x", "y", "z"], [])
    assert moved_sentence(packed) == "packed: no sequence has an embedding in both runs"
    assert packed.beyond_noise is None
