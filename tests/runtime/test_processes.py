"""Two processes of `accelerate launch` leave the same files as one, bit for bit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from antipure_lib.photos.pictures import save_image
from antipure_lib.runtime.devices import pick_device
from antipure_lib.runtime.processes import processes

# On a machine without a GPU --multi_gpu starts processes that find each other on the CPU; --cpu starts one.
LAUNCH = (
    "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --main_process_port 0 "
    "--mixed_precision no --dynamo_backend no"
).split()


def run(*words, launcher=(), module=("-m", "antipure_lib")):
    """One command in a Python of its own, without GPUs, with as many threads as the launcher gives each."""
    command = [*launcher, *module, *map(str, words)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=600, env=environment
    )


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_one_process_alone_has_all_of_the_work():
    with processes() as group:
        assert list(range(7))[group.process_index :: group.num_processes] == list(range(7))
        assert group.is_main_process and group.device == pick_device()
        group.wait_for_everyone()


@pytest.fixture
def photos(pictures, tmp_path):
    """Three photos, two of one name."""
    names = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "sub" / "a.png"]
    for name, x in zip(names, pictures(3, 24, 24), strict=True):
        save_image(x, name)
    return names


def test_two_processes_protect_as_one_does_and_bad_photos_cost_none_its_others(photos, tiny_folder, tmp_path):
    """The first process fails at once; the second, still at work, isn't ended with it."""
    (tmp_path / "bad.png").write_text("no picture")
    names = [tmp_path / "bad.png", photos[0], tmp_path / "gone.png", *photos[1:]]
    model = ["--ddpm", tiny_folder, "--precision", "float32"]
    for name, launcher in (("one", ()), ("two", LAUNCH)):
        out = tmp_path / name
        done = run("protect", *names, *model, "--steps", 2, "--out", out, launcher=launcher)
        assert done.returncode != 0
        assert f"{out}: 3 made, 0 kept, 2 failed" in done.stdout.splitlines()
        errors = sorted(line for line in done.stderr.splitlines() if line.startswith("error: "))
        assert len(errors) == 2 and "bad.png" in errors[0] and "gone.png" in errors[1]
    assert len(files(tmp_path / "two")) == 6
    assert files(tmp_path / "two") == files(tmp_path / "one")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are listed in Linux's /proc")
def test_no_thread_of_the_group_outlives_it(tmp_path):
    """One that is still running when the interpreter closes can abort the process after all its work."""
    script = tmp_path / "script.py"
    script.write_text(
        "from contextlib import suppress\n"
        "from pathlib import Path\n"
        "from accelerate.utils import gather_object\n"
        "from antipure_lib.runtime.processes import processes\n"
        "def threads(): return [p.joinpath('comm').read_text() for p in Path('/proc/self/task').iterdir()]\n"
        "with suppress(OSError), processes() as group:\n"
        "    import diffusers.models.unets\n"
        "    assert sum(gather_object([1])) == group.num_processes == 2\n"
        "    there = threads()\n"
        "    raise OSError\n"
        "assert len(threads()) < len(there), (there, threads())\n"
        "assert not any('gloo' in name for name in threads()), threads()\n"  # torch 2.6 gives them no names
    )
    done = run(script, launcher=LAUNCH, module=())
    assert done.returncode == 0, done.stderr


def test_two_processes_fill_the_benchmarks_table_as_one_does(tmp_path):
    grid = "--protect none random --purify jpeg75 --customize lora --identities p01".split()
    settings = "--steps 2 --samples 2 --learning 2".split()
    for name, launcher in (("one", ()), ("two", LAUNCH)):
        out = ["--out", tmp_path / f"{name}.csv", "--cache", tmp_path / name]
        done = run("benchmark", *grid, *settings, *out, launcher=launcher)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    assert (tmp_path / "one.csv").read_text().count("\n") == 3
    assert sorted(p.name for p in tmp_path.glob("*two.csv*")) == ["two.csv"]
