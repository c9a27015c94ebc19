"""Training of the small models and their export as plain diffusers pipelines."""
