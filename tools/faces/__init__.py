"""The rendered people: from the head's mesh to photos."""
