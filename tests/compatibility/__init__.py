"""Situations from public bug reports of this field, tried on this library: `python -m tests.compatibility`.

A situation does what a user did, through the public API alone. It returns when what users expect happens, and
raises otherwise.
"""

from . import checkpoints, commands, notebooks, pictures, threads, training  # noqa: F401  (situations)
