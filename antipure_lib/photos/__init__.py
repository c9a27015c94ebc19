"""Picture files: any photo in, 8-bit files out."""
