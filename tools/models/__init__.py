"""Training the small models."""
