"""Checkpoints by name, and the small models and photos that come with the package."""
