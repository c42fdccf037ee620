"""The demo's sample repository: a small packed ESM-2 (`base/`) and its history (`history/`)."""
