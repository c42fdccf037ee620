"""Watch, commit by commit, that packed ESM-2 inference equals unpacked inference."""

__version__ = "0.1.0"
