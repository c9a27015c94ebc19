"""How things run: devices, memory, seeds, hashes. It knows no method."""
