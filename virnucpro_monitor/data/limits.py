"""What ESM-2 takes at once."""

MAX_RESIDUES = 1022
"""Residues that ESM-2 was trained to see at once: 1024 tokens less BOS and EOS."""

MAX_ID_CHARACTERS = 1000
"""Longer ones are whole records whose header has lost its line end."""

SPECIAL_TOKENS = 2
"""BOS and EOS: what a sequence has more tokens than residues."""

RESIDUE_LETTERS = "ACDEFGHIKLMNPQRSTVWYXBUZO"
"""The 25 letters of ESM-2's alphabet that stand for residues."""
