"""The model and its attention over packs."""
