"""What a situation is, and what comes of trying one."""

import contextlib
import io
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

KINDS: dict[str, str] = {  # in the table's order; what users expect of each
    "shared model": "no call changes the model that it is given, not even while it runs",
    "inference mode": "torch.inference_mode() leaves no traces in a model",
    "metadata": "--keep-metadata keeps every byte of a text",
    "training": "training that diverged is never returned or saved",
    "adapters": "LoRA adapters that a pipeline has stay what they are",
    "layouts": "any size, layout and precision is computed or refused",
    "units": "examples in helps and messages work as they stand",
    "transparency": "only photos that are really transparent count as transparent",
    "causes": "a message's remedy helps with its cause",
    "damaged checkpoints": "a damaged file is named in one line",
    "prompts": "a prompt is read whole or refused",
    "ranges": "rounding errors pass; what is refused is printed with enough digits",
    "parameters": "a notebook's parameter arrives as it was typed",
    "grey files": "grey levels are those of the file",
    "EXIF": "a photo stands upright, whatever else its EXIF block holds",
    "layers' names": "wrappers' prefixes in a checkpoint don't matter",
    "tokenizers": "a tokenizer without its own limit takes the text encoder's",
    "schedulers": "a scheduler's setting is honoured or refused",
    "panel": "every failure reaches the panel's status line",
    "arguments": "what is a number is taken, anything else refused by name",
    "command line": "errors are one line that says what is wrong",
    "grey photos": "a grey photo stays grey",
    "everyday": "what worked for other people's users works here",
}


class Situation(NamedTuple):
    """One row of the table."""

    name: str  # for the command line and the tests
    text: str
    source: str  # "diffusers 1606": that project's issue; "own": thought out here
    kind: str  # one of KINDS
    fast: bool
    call: Callable[[], str | None]


class Result(NamedTuple):
    """outcome: "fine", "refused" or "fault"; message: the refusal's, or what went wrong."""

    outcome: str
    message: str = ""


SITUATIONS: dict[str, Situation] = {}


def situation(
    source: str,
    kind: str,
    fast: bool = True,
    cases: Mapping[str, Any] | Iterable[str] = (),
    slow: Iterable[str] = (),
):
    """Register a function as a situation; its docstring's first line is the table's text.

    cases: one situation each, called with its value (or, for names alone, with the name). slow: cases that
    aren't fast.
    The function returns None where it worked, and the message where it was rightly refused (see `refusal`).
    """
    assert kind in KINDS, kind

    def register(function):
        text = (function.__doc__ or "").strip().partition("\n")[0].rstrip(".")
        named = cases if isinstance(cases, Mapping) else {case: case for case in cases}
        for case, value in named.items() or [("", None)]:
            name = f"{function.__name__}[{case}]" if case else function.__name__
            assert name not in SITUATIONS, name

            def call(value=value, case=case):
                return function(value) if case else function()

            told = f"{text}: {case}" if case else text
            quick = fast and case not in slow
            SITUATIONS[name] = Situation(name, told, source, kind, quick, call)
        return function

    return register


def attempt(found: Situation) -> Result:
    """Try a situation in an empty folder of its own, which is the current one."""
    with tempfile.TemporaryDirectory(prefix="compatibility-") as folder, contextlib.chdir(folder):
        printed = io.StringIO()
        try:
            with warnings.catch_warnings(), contextlib.redirect_stderr(printed), torch.enable_grad():
                warnings.simplefilter("ignore")
                refused = found.call()
        except Exception as error:
            return Result("fault", _short(error, folder))
        finally:
            torch.set_grad_enabled(True)  # whatever a situation has left behind
        return Result("refused", _short(refused, folder)) if refused else Result("fine")


def timed_attempt(name: str) -> tuple[Result, float]:
    """The result of a situation, and the seconds that it took."""
    began = time.monotonic()
    return attempt(SITUATIONS[name]), time.monotonic() - began


def refusal(call: Callable[[], object], *words: str, without: Iterable[str] = ()) -> str:
    """call() must raise a plain error whose one-line message holds the words; returns the message."""
    try:
        call()
    except (ValueError, TypeError, OSError, RuntimeError, ModuleNotFoundError) as error:
        return check_message(str(error), words, without)
    raise AssertionError(
        "passes in silence" + (f", no message with {', '.join(map(repr, words))}" if words else "")
    )


def check_message(message: str, words: Iterable[str], without: Iterable[str] = ()) -> str:
    """The message, if it is short, holds the words and none of those in `without`."""
    assert message and len(message.splitlines()) <= 2, f"message of many lines: {message[:120]}"
    for word in words:
        assert word.casefold() in message.casefold(), f"misleading message, {word!r} is missing: {message}"
    for word in without:
        assert word.casefold() not in message.casefold(), f"misleading message, {word!r} is wrong: {message}"
    return message


def _short(told: object, folder: str) -> str:
    text = str(told)
    if isinstance(told, Exception) and not isinstance(told, AssertionError):
        text = f"{type(told).__name__}: {text}"
    text = text.replace(str(Path(folder).resolve()), "…").replace(folder, "…")
    text = re.sub(r"/\S*?/(?=(data|site-packages)/)", "…/", text)  # where this copy happens to lie
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= 240 else text[:239] + "…"
