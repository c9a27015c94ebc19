"""What `protect --diagnose` does: it prints what is wrong with each protection and writes no file."""

import argparse

from ..photos.photo import read_photo
from ..runtime.processes import processes
from .protect import Protector


def run(args: argparse.Namespace) -> int:
    """Print the flags of each photo, a line each. Raises ValueError with the file's name."""
    with processes() as group:
        work = Protector(args, group.device, None if group.is_local_main_process else True)
        for path in args.photos[group.process_index :: group.num_processes]:
            photo = read_photo(path)
            try:
                flags = work.diagnosed(photo)
            except (ValueError, RuntimeError) as error:
                raise ValueError(f"{path}: {error}") from error
            for line in flags or ["nothing found that would make the protection weak"]:
                print(f"{path}: {line}", flush=True)
        group.wait_for_everyone()
    return 0
