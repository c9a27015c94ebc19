"""What an abuser does first: purifiers by name, one method per file."""
