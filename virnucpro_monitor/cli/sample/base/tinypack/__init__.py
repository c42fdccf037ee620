"""ESM-2 embeddings of packed protein sequences."""
