"""How commits and benchmark sets are called, everywhere alike."""

SHORT_HASH_LENGTH = 10


def short_hash(commit: str) -> str:
    """The first ten digits of a commit's full hash."""
    return commit[:SHORT_HASH_LENGTH]


def benchmark_label(name: str, version: int) -> str:
    """What `--benchmark` takes: "seed@1"."""
    return f"{name}@{version}"
