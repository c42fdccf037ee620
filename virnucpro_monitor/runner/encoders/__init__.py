"""Adapters for public packages that run ESM-2 or its kin; each needs its own package installed."""
