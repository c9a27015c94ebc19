"""The command line: results that the user edited, tables that aren't ours, names and options that mislead."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import antipure_lib as ap

from .helpers import ROOT, command, ddpm, picture, process
from .registry import check_message, refusal, situation

RANDOM = ("--method", "random", "--steps", 1)


def photo(name="a.png", seed=0) -> Path:
    """A photo on the disk."""
    return ap.save_image(picture(24, 32, seed), name)


def protect(*words, name="a.png"):
    """The plainest protection of a photo, into out/."""
    return command("protect", name, "--out", "out", *RANDOM, *words)


def edited(path="out/a.png") -> bytes:
    """The user paints into a result; returns the file's bytes."""
    x = ap.load_image(path)
    x[:, :8, :8] = 0
    ap.save_image(x, path)
    return Path(path).read_bytes()


RERUN = {
    "the same command": ("protect", ()),
    "another seed": ("protect", ("--seed", 1)),
    "another budget": ("protect", ("--eta", 4)),
    "purify": ("purify", ("--purifier", "jpeg75")),
}


@situation("own", "edited results", cases=RERUN)
def result_was_edited(case):
    """A result that the user edited is there when the command runs again"""
    name, words = case
    photo()
    first = RANDOM if name == "protect" else words
    command(name, "a.png", "--out", "out", *first).fine()
    mine = edited()
    done = command(name, "a.png", "--out", "out", *first, *(words if name == "protect" else ())).fine()
    assert Path("out/a.png").read_bytes() == mine, (
        f"the edit is gone; it says: {done.out.splitlines()[0][-60:]}"
    )
    assert "a.png" in done.out and re.search("edited|changed", done.out), f"it isn't said: {done.out}"
    assert len(list(Path("out").glob("*.png"))) == 2, "the new result isn't next to it"


@situation("own", "edited results")
def photo_and_result_changed():
    """Both the photo and its result have changed"""
    photo()
    protect().fine()
    mine = edited()
    photo(seed=1)
    protect().fine()
    assert Path("out/a.png").read_bytes() == mine, "the edit is gone"


@situation("own", "edited results")
def one_of_two_results_was_edited():
    """One of two results was edited: the other one is kept"""
    photo(), photo("b.png", 1)
    command("protect", "a.png", "b.png", "--out", "out", *RANDOM).fine()
    mine, other = edited(), Path("out/b.png").stat().st_mtime_ns
    command("protect", "a.png", "b.png", "--out", "out", *RANDOM).fine()
    assert Path("out/b.png").stat().st_mtime_ns == other, "the other one was made again"
    assert Path("out/a.png").read_bytes() == mine, "the edit is gone"


@situation("own", "edited results")
def result_was_replaced():
    """A result was replaced by a file of the user's own"""
    photo()
    protect().fine()
    Path("out/a.png").write_text("my notes")
    protect()
    assert Path("out/a.png").read_text(errors="replace") == "my notes", "it is gone"


@situation("own", "edited results")
def result_was_removed():
    """A result that was removed is made again"""
    photo()
    protect().fine()
    Path("out/a.png").unlink()
    protect().fine()
    assert Path("out/a.png").exists()


@situation("own", "edited results")
def file_of_the_users_own():
    """A file that the command didn't make has the result's name"""
    photo()
    Path("out").mkdir()
    mine = photo("out/a.png", 5).read_bytes()
    done = protect().fine()
    assert Path("out/a.png").read_bytes() == mine and "was taken" in done.out


@situation("own", "edited results")
def unchanged_settings_are_kept():
    """A finished photo isn't made again"""
    photo()
    protect().fine()
    assert "1 kept" in protect().fine().out


@situation("own", "units", cases=["protect", "purify", "inspect", "benchmark", "doctor"])
def help_is_printed(name):
    """A command's help"""
    assert command(name, "--help").fine().out.startswith("usage")


@situation("own", "units", cases={"0": "0", "16/255": "16/255", "0.03": "0.03", "300": "300", "nan": "nan"})
def budget_in_another_unit(value):
    """protect's --eta in another unit: the message says steps of 1/255"""
    photo()
    done = protect("--eta", value)
    return check_message(done.error(), ["eta", "255"])


@situation("own", "units")
def budget_of_the_library():
    """antipure(eta=8), in the command line's unit: the message says how to write it"""
    return refusal(lambda: ap.antipure(ddpm(), picture(16, 16), eta=8, steps=1), "/255")


BENCH = (
    "benchmark",
    "--protect",
    "none",
    "--purify",
    "none",
    "--identities",
    "p01",
    "--steps",
    1,
)
FOREIGN = {
    "one line of JSON": b'{"lr": 0.001}',
    "JSON": b'{\n "lr": 0.001\n}\n',
    "another CSV": b"a,b\n1,2\n",
    "another CSV of one line": b"a,b",
    "text": b"my notes",
    "a picture": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff\xfe\0",
    "UTF-16": "protect,purify\n".encode("utf-16"),
    "only line breaks": b"\n\n",
}


@situation(
    "own",
    "tables",
    cases={name: FOREIGN[name] for name in ("one line of JSON", "JSON", "a picture", "UTF-16")},
)
def out_is_a_foreign_file(content):
    """benchmark --out names a file of the user's own"""
    Path("config.json").write_bytes(content)
    done = command(*BENCH, "--learning", 1, "--samples", 1, "--out", "config.json")
    assert Path("config.json").read_bytes() == content, "the file is replaced"
    return check_message(done.error(), ["config.json"])


@situation("own", "tables", cases=FOREIGN)
def read_rows_of_a_foreign_file(content):
    """read_rows of a file of another kind"""
    Path("rows.csv").write_bytes(content)
    return refusal(lambda: ap.read_rows("rows.csv"), "rows.csv")


@situation("own", "tables")
def our_table_holds_no_row_yet():
    """An empty file as a table"""
    Path("rows.csv").write_bytes(b"")
    assert ap.read_rows("rows.csv") == []


@situation("own", "tables")
def half_of_a_header():
    """A table that ends in its first line"""
    Path("rows.csv").write_bytes(b"protect,purify,custom")
    return refusal(lambda: ap.read_rows("rows.csv"), "rows.csv")


def shipped() -> list[list[str]]:
    """The first rows of the shipped table."""
    with ap.data_path("results", "study.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[:4]


BROKEN_ROWS = {
    "a row too short": lambda rows: [*rows, rows[1][:5]],
    "a text for a figure": lambda rows: [*rows, [*rows[1][:-1], "much"]],
    "columns in another order": lambda rows: [row[::-1] for row in rows],
    "with Excel's semicolons": lambda rows: [[";".join(row)] for row in rows],
}


@situation("own", "tables", cases=BROKEN_ROWS)
def our_table_was_damaged(damage):
    """A table of ours that somebody has damaged"""
    with Path("rows.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(damage(shipped()))
    return refusal(lambda: ap.read_rows("rows.csv"), "rows.csv")


@situation("own", "tables", cases={"with a byte order mark": "utf-8-sig", "with Windows' line ends": "utf-8"})
def our_table_was_saved_by_an_editor(encoding):
    """A table of ours that another program has saved"""
    with Path("rows.csv").open("w", newline="", encoding=encoding) as file:
        csv.writer(file, lineterminator="\n" if encoding == "utf-8-sig" else "\r\n").writerows(shipped())
    assert len(ap.read_rows("rows.csv")) == 3


@situation("own", "tables")
def last_row_is_cut():
    """A table whose last line a crash has cut off"""
    text = "\n".join(",".join(row) for row in shipped())
    Path("rows.csv").write_text(text[:-20])
    assert len(ap.read_rows("rows.csv")) == 2


@situation("own", "tables", cases={"damaged record": "{", "foreign record": '["a"]', "binary record": "\0\1"})
def record_of_a_photo(text):
    """The record of a finished photo is damaged: the result is left alone"""
    photo()
    protect().fine()
    (record,) = Path("out/.manifest").glob("*.json")
    before = Path("out/a.png").read_bytes()
    record.write_text(text)
    protect().fine()
    assert Path("out/a.png").read_bytes() == before


NAMES = [
    "with space.png",
    "ünïcode-写真.png",
    "brackets [1] (2).png",
    "it's.png",
    "a=b&c;d.png",
    "%d{}.png",
    "emoji🙂.png",
    ".hidden.png",
    "two..dots.png",
]


@situation("jpylyzer 30", "everyday", cases=NAMES)
def unusual_file_name(name):
    """A photo with an unusual name"""
    photo(name)
    protect(name=name).fine()
    assert len([path for path in Path("out").iterdir() if path.suffix == ".png"]) == 1


@situation("bypy 301", "command line", cases=["-dash.png", "--out.png", "-1.png"])
def name_that_begins_with_a_dash(name):
    """A photo whose name begins with a dash: the message says how to write it"""
    photo("./" + name)
    done = command("protect", name, "--out", "out", *RANDOM)
    if done.status == 0:
        return None
    return check_message(done.error(), [name, "./"])


@situation("bypy 301", "command line", cases=["./-dash.png", "-- -dash.png"])
def way_to_write_a_dash(words):
    """A photo whose name begins with a dash, written so that it is taken"""
    photo("./-dash.png")
    command("protect", "--out", "out", *RANDOM, *words.split()).fine()


@situation("insights-core 1832", "command line", cases=["–steps", "—out", "−seed"])
def typographic_dash(option):
    """An option with a typographic dash, as web pages have it"""
    photo()
    done = command("protect", "a.png", "--out", "out", *RANDOM, option, "3")
    return check_message(done.error(), [option, "--" + option[1:]])


@situation(
    "own",
    "command line",
    fast=False,
    cases=[
        "doctor | head -1",
        "protect --help | head -1",
        "protect a.png --out out --method random --steps 1 | true",
    ],
)
def pipe_is_closed(line):
    """The reader of a pipe goes away"""
    photo()
    done = process(f"$PYTHON -m antipure_lib {line}")
    assert "Traceback" not in done.err and "BrokenPipe" not in done.err, (
        f"traceback: {done.err.splitlines()[-1]}"
    )


WORDS = {
    "no such photo": (("protect", "b.png", "--out", "out"), ["b.png"]),
    "a folder as a photo": (("protect", ".", "--out", "out"), ["folder"]),
    "unknown method": (("protect", "a.png", "--out", "out", "--method", "glaze"), ["glaze", "antipure"]),
    "unknown purifier": (("purify", "a.png", "--out", "out", "--purifier", "bm3d"), ["bm3d", "gridpure"]),
    "--out is a file": (("protect", "a.png", "--out", "a.png"), ["--out"]),
    "--steps 0": (("protect", "a.png", "--out", "out", "--steps", "0"), ["steps"]),
    "--steps 1.5": (("protect", "a.png", "--out", "out", "--steps", "1.5"), ["steps"]),
    "--seed -1": (("protect", "a.png", "--out", "out", "--seed", "-1"), ["seed"]),
    "--seed 2**64": (("protect", "a.png", "--out", "out", "--seed", str(2**64)), ["seed"]),
    "inspect of one photo twice": (("inspect", "a.png", "a.png", "--out", "c.png"), ["equal"]),
    "inspect of two sizes": (("inspect", "a.png", "wide.png", "--out", "c.png"), ["pixels"]),
    "unknown command": (("protct", "a.png"), ["protct"]),
    "benchmark, unknown person": (("benchmark", "--identities", "p99"), ["p99"]),
    "jpeg of 200": (("purify", "a.png", "--out", "out", "--purifier", "jpeg200"), ["quality"]),
}


@situation("own", "command line", cases=WORDS)
def wrong_words(case):
    """Words that can't be meant"""
    words, wanted = case
    photo(), ap.save_image(picture(24, 40), "wide.png")
    done = command(*words)
    return check_message(done.error(), wanted)


@situation("own", "command line")
def no_command():
    """No command at all"""
    return command().error()


@situation("own", "everyday")
def one_damaged_photo_among_many():
    """One damaged photo among many: the others are made"""
    photo(), photo("c.png")
    Path("b.png").write_bytes(b"noise")
    done = command("protect", "a.png", "b.png", "c.png", "--out", "out", *RANDOM)
    assert done.status == 1 and Path("out/a.png").exists() and Path("out/c.png").exists()


@situation("own", "everyday")
def same_name_in_two_folders():
    """Two photos of one name from two folders"""
    photo("x/a.png"), photo("y/a.png", 1)
    command("protect", "x/a.png", "y/a.png", "--out", "out", *RANDOM).fine()
    assert len(list(Path("out").glob("*.png"))) == 2


@situation("own", "everyday")
def moved_folder():
    """Photos and results move to another folder together, and the run goes on"""
    photo("old/a.png")
    command("protect", "old/a.png", "--out", "old/out", *RANDOM).fine()
    Path("old").rename("new")
    assert "1 kept" in command("protect", "new/a.png", "--out", "new/out", *RANDOM).fine().out


@situation("own", "everyday", fast=False)
def killed_run_goes_on():
    """A run that is killed leaves no half file and goes on"""
    for number in range(3):
        ap.save_image(picture(64, 64, number), f"{number}.png")
    words = ["-m", "antipure_lib", "protect", "0.png", "1.png", "2.png", "--out", "out", "--steps", "4"]
    run = subprocess.Popen(
        [sys.executable, *words],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(600):
        if list(Path("out").glob("*.png")):
            break
        try:
            run.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    run.kill()
    run.wait()
    done = command(*words[2:]).fine()
    assert "kept" in done.out and len(list(Path("out").glob("*.png"))) == 3
    assert not list(Path("out").glob(".*tmp")), "a half file is left"


@situation("own", "everyday")
def records_are_json():
    """A finished photo's record can be read by others"""
    photo()
    protect().fine()
    (record,) = Path("out/.manifest").glob("*.json")
    assert json.loads(record.read_text())["settings"]["method"] == "random"
