"""From sequences to packs."""
