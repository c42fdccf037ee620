"""The released benchmark sets, one folder a set: `<name>/<version>.fasta` and its `.json`."""
