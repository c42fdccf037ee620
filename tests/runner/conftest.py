from pathlib import Path

import pytest

from tests.runner.tiny_target import HEALTHY, TinyRepository


@pytest.fixture
def tiny(tmp_path: Path) -> TinyRepository:
    """A repository whose one commit is healthy."""
    repository = TinyRepository(tmp_path / "tiny")
    repository.commit(HEALTHY, "Add packed inference")
    return repository
