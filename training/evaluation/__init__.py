"""Measures what is served, on any labelled data: ``python -m training.evaluation``."""
