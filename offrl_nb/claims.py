"""Sentences that prove themselves (`claim`), checks of exercises (`check`), the one switch of size.

For: statements in the text that a re-execution must confirm, and instant feedback on a reader's answer.
Not for: unit tests of the package (those live in `tests/`).
"""

import os
from importlib import metadata

import numpy as np
import torch

from offrl_nb.streams import default_device

SIZES = ("fast", "book")
_checks: dict[str, bool] = {}


def current_size() -> str:
    """The value of the environment variable OFFRL_SIZE: fast or book (the default)."""
    name = os.environ.get("OFFRL_SIZE", "book")
    if name not in SIZES:
        raise ValueError(f"OFFRL_SIZE is {name!r}; set it to fast or book.")
    return name


def size(fast, book):
    """Choose a value by OFFRL_SIZE: fast while writing (seconds), book for what the text is about."""
    return {"fast": fast, "book": book}[current_size()]


def expect(version: str) -> None:
    """Say so where another version of offrl_nb is installed than a notebook was written for.

    Where OFFRL_DEVICE names a device, new tensors of the notebook go there as well.
    """
    if (installed := metadata.version("offrl_nb")) != version:
        print(f"This notebook was written for offrl_nb {version}; you have {installed}.")
        print("To change that: run `%pip install {source}` in a cell, then restart the kernel.")
    if default_device() != "cpu":
        torch.set_default_device(default_device())


def claim(sentence: str, holds, evidence: str = "", kind: str = "measured") -> None:
    """Print a sentence of the text with a tick and its numbers, or raise when it is not true.

    holds: bool, or an array, list or tensor of bools that must all be true.
    evidence: the numbers behind the sentence.
    kind: "exact" (mathematics), "computed" (a fixed draw), both judged at every size; or "measured" (a
        training run; judged at size book only, because fast trains for another number of updates).
    Raises AssertionError when the claim is false.
    """
    if kind not in ("exact", "computed", "measured"):
        raise ValueError(f"kind is {kind!r}; a claim is exact, computed or measured.")
    judged = kind != "measured" or current_size() == "book"
    holds = np.asarray(holds.cpu() if isinstance(holds, torch.Tensor) else holds)
    if holds.dtype != bool or not holds.size:
        raise ValueError(f"The claim {sentence!r} must be true or false, not {holds!r}.")
    numbers = f"  [{evidence}]" if evidence else ""
    if judged and not holds.all():
        raise AssertionError(f"✗ {sentence}{numbers}")
    print(f"{'✓' if judged else '– not judged at this size:'} {sentence}{numbers}")


def check(exercise: str, passes, hint: str) -> None:
    """Check a reader's answer: a tick, or a cross and a hint.

    passes: function without arguments that returns True for a right answer. Whatever it raises counts
        as a wrong answer, NotImplementedError as one not yet given, which gets no hint.
    Raises AssertionError for a wrong answer only where OFFRL_STRICT=1 is set, so that "Run all" on an
    unsolved notebook reaches its end.
    """
    note = hint
    try:
        passed = bool(passes())
    except NotImplementedError:
        passed, note = False, "not answered yet"
    except Exception as error:  # the reader's code may fail in any way
        passed, note = False, f"{hint} (Your code raised {type(error).__name__}: {error})"
    _checks[exercise] = passed
    if not passed and os.environ.get("OFFRL_STRICT") == "1":
        raise AssertionError(f"✗ {exercise}: {note}")
    print(f"✓ {exercise}" if passed else f"✗ {exercise}: {note}")


def progress() -> None:
    """Say how many of this notebook's checks pass."""
    print(f"{sum(_checks.values())} of {len(_checks)} checks pass.")
