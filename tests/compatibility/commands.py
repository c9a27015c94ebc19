"""The command line: names of photos, words that mislead, a folder that moves."""

from pathlib import Path

import antipure_lib as ap

from .helpers import command, ddpm, picture
from .registry import check_message, refusal, situation

RANDOM = ("--method", "random", "--steps", 1)


def photo(name="a.png", seed=0) -> Path:
    """A photo on the disk."""
    return ap.save_image(picture(24, 32, seed), name)


def protect(*words, name="a.png"):
    """The plainest protection of a photo, into out/."""
    return command("protect", name, "--out", "out", *RANDOM, *words)


NAMES = [
    "brackets [1] (2).png",
    "%d{}.png",
    "emoji🙂.png",
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


@situation("own", "units", cases=["protect", "purify", "inspect", "benchmark", "doctor"])
def help_is_printed(name):
    """A command's help"""
    assert command(name, "--help").fine().out.startswith("usage")


@situation("own", "units")
def budget_of_the_library():
    """antipure(eta=8), in the command line's unit: the message says how to write it"""
    return refusal(lambda: ap.antipure(ddpm(), picture(16, 16), eta=8, steps=1), "/255")


@situation("own", "command line", cases={"unknown command": ("protct", "a.png")})
def wrong_words(words):
    """Words that can't be meant"""
    return check_message(command(*words).error(), words[:1])


@situation("own", "command line")
def no_command():
    """No command at all"""
    return command().error()


@situation("own", "everyday")
def moved_folder():
    """Photos and results move to another folder together, and the run goes on"""
    photo("old/a.png")
    command("protect", "old/a.png", "--out", "old/out", *RANDOM).fine()
    Path("old").rename("new")
    assert "1 kept" in command("protect", "new/a.png", "--out", "new/out", *RANDOM).fine().out
