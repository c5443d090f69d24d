"""Figures against a raw loop."""
