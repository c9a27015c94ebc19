"""Keeping, checking and running the notebooks."""
