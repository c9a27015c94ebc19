"""Speed and memory, measured against what can't be avoided."""
