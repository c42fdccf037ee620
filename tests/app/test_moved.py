"""Whether the embeddings moved, on the page that compares two commits."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.app.conftest import PageRunner, shown_html
from tests.app.samples import Step, sample_reports
from virnucpro_monitor.records.embeddings import PooledEmbeddings, write_embeddings
from virnucpro_monitor.store.engine import create_database, open_engine
from virnucpro_monitor.store.writer import Writer

WIDTH = 8


@pytest.fixture(scope="module")
def embeddings() -> tuple[np.ndarray, np.ndarray]:
    """[n, D] of a base, and of a head in which two sequences moved."""
    draw = np.random.default_rng(5)
    base = draw.normal(size=(24, WIDTH)).astype(np.float32)
    head = base.copy()
    head[3] *= np.float32(1.5)
    head[7] += np.float32(1e-3)
    return base, head


def test_the_sequences_that_moved_most_are_named_with_their_distance(
    embeddings: tuple[np.ndarray, np.ndarray], run_page: PageRunner, tmp_path: Path
) -> None:
    base, head = embeddings
    url = f"sqlite:///{tmp_path / 'moved.db'}"
    create_database(url)
    engine = open_engine(url)
    writer = Writer(engine)
    commits = []
    for report, packed in zip(sample_reports((Step(), Step())), (base, head), strict=True):
        kept = write_embeddings(PooledEmbeddings(packed=packed, unpacked=base))
        writer.save_run(replace(report, documents={**report.documents, **kept}))
        commits.append(report.run.commit.hash)
    engine.dispose()
    app = run_page("compare", url, base=commits[0], head=commits[1])
    assert "Did the embeddings move?" in [one.value for one in app.header]
    (table,) = re.findall(r'aria-label="Moved embeddings">(.*?)</table>', shown_html(app))
    packed, unpacked = table.split("<tbody")[1].split("</tr>")[:2]
    distances = np.linalg.norm(head.astype(float) - base, axis=1)
    distances /= np.linalg.norm(base.astype(float), axis=1)
    assert "22 of 24" in packed
    assert "moved" in packed
    for place in (3, 7):
        mantissa, exponent = f"{distances[place]:.1e}".split("e")
        assert re.search(rf"seed_{place:03d}.*?{re.escape(mantissa)}e{int(exponent)}", packed)
    assert packed.index("seed_003") < packed.index("seed_007")
    assert "24 of 24" in unpacked
    assert "did not move" in unpacked


def test_it_is_said_where_embeddings_are_not_kept(run_page: PageRunner, sample_url: str) -> None:
    text = shown_html(run_page("compare", sample_url, target="sample"))
    assert "keep_embeddings" in text
