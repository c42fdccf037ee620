"""Pooled embeddings of a run, so that two runs can be asked how far they moved.

They are stored as two documents: `EMBEDDINGS` says what they are and counts in the run's digest;
`EMBEDDING_DATA` holds the bytes, which may be deleted later.
"""

import base64
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from virnucpro_monitor.records.runs import Json

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float32]]

EMBEDDINGS = "embeddings"
EMBEDDING_DATA = "embedding data"
MAX_EMBEDDING_BYTES = 32 * 1024**2  # of both sides; a message and a row of a database have limits


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledEmbeddings:
    """Mean over residues of each sequence, on both sides.

    Attributes:
        packed, unpacked: [n, D] float32 in the benchmark's order; NaN where there is none.
    """

    packed: "Array"
    unpacked: "Array"


def write_embeddings(pooled: PooledEmbeddings) -> dict[str, Json]:
    """The documents that hold these embeddings, exactly; none where they are too large.

    Packed is kept as its difference in bits from unpacked, and bytes of equal weight lie together:
    both compress better so.
    """
    import numpy as np

    packed = np.ascontiguousarray(pooled.packed, dtype="<f4")
    unpacked = np.ascontiguousarray(pooled.unpacked, dtype="<f4")
    if packed.nbytes + unpacked.nbytes > MAX_EMBEDDING_BYTES:
        return {}
    bits = np.stack([unpacked.view("<u4"), packed.view("<u4") ^ unpacked.view("<u4")])
    planes = bits.view(np.uint8).reshape(-1, 4).T.tobytes()
    return {
        EMBEDDINGS: {
            "num_sequences": packed.shape[0],
            "width": packed.shape[1],
            "sha256": hashlib.sha256(planes).hexdigest(),
        },
        EMBEDDING_DATA: {"zlib": base64.b64encode(zlib.compress(planes, 6)).decode("ascii")},
    }


def read_embeddings(documents: Mapping[str, Json]) -> PooledEmbeddings | None:
    """What `write_embeddings` wrote; None where it is not there, or not what was written."""
    import numpy as np

    about, data = documents.get(EMBEDDINGS), documents.get(EMBEDDING_DATA)
    if not about or not data:
        return None
    try:
        shape = (2, int(about["num_sequences"]), int(about["width"]))
        size = 4 * shape[0] * shape[1] * shape[2]
        if not 0 <= size <= MAX_EMBEDDING_BYTES:
            return None
        planes = zlib.decompressobj().decompress(base64.b64decode(data["zlib"]), size + 1)
    except (KeyError, TypeError, ValueError, zlib.error):
        return None
    if len(planes) != size or hashlib.sha256(planes).hexdigest() != about.get("sha256"):
        return None
    bits = np.frombuffer(planes, np.uint8).reshape(4, -1).T.copy().view("<u4").reshape(shape)
    return PooledEmbeddings(packed=(bits[0] ^ bits[1]).view("<f4"), unpacked=bits[0].view("<f4"))
