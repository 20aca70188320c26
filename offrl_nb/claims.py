"""Sentences that prove themselves (`claim`), checks of exercises (`check`), and the one switch of size.

For: statements in the text that a re-execution must confirm, and instant feedback on a reader's answer.
Not for: unit tests of the package (those live in `tests/`).
"""

import os

import numpy as np
import torch

SIZES = ("fast", "book", "paper")
_checks: dict[str, bool] = {}


def current_size() -> str:
    """The value of the environment variable OFFRL_SIZE: fast, book (the default) or paper."""
    name = os.environ.get("OFFRL_SIZE", "book")
    if name not in SIZES:
        raise ValueError(f"OFFRL_SIZE is {name!r}; set it to fast, book or paper.")
    return name


def size(fast, book, paper=None):
    """Choose a value by OFFRL_SIZE; `paper` falls back to `book` where a chapter has no larger setting."""
    return {"fast": fast, "book": book, "paper": book if paper is None else paper}[current_size()]


def claim(sentence: str, holds, evidence: str = "", kind: str = "measured") -> None:
    """Print a sentence of the text with a tick and its numbers, or raise when it is not true.

    holds: bool, or an array, list or tensor of bools that must all be true.
    evidence: the numbers behind the sentence.
    kind: "exact" (mathematics, raises at every size) or "measured" (a training run; judged at size
        book only, because other sizes train for another number of updates).
    Raises AssertionError when the claim is false.
    """
    if kind not in ("exact", "measured"):
        raise ValueError(f"kind is {kind!r}; a claim is 'exact' or 'measured'.")
    judged = kind == "exact" or current_size() == "book"
    holds = np.asarray(holds.cpu() if isinstance(holds, torch.Tensor) else holds)
    if holds.dtype != bool or not holds.size:
        raise ValueError(f"The claim {sentence!r} must be true or false, not {holds!r}.")
    true = bool(holds.all())
    numbers = f"  [{evidence}]" if evidence else ""
    if judged and not true:
        raise AssertionError(f"✗ {sentence}{numbers}")
    print(f"{'✓' if judged else '– not judged at this size:'} {sentence}{numbers}")


def check(exercise: str, passes, hint: str) -> None:
    """Check a reader's answer: a tick, or a cross and a hint.

    passes: function without arguments that returns True for a right answer. Whatever it raises counts
        as a wrong answer, NotImplementedError as one not yet given.
    Raises AssertionError for a wrong answer only where OFFRL_STRICT=1 is set, so that "Run all" on an
    unsolved notebook reaches its end.
    """
    note = hint
    try:
        passed = bool(passes())
    except NotImplementedError:
        passed, note = False, f"not answered yet. {hint}"
    except Exception as error:  # the reader's code may fail in any way
        passed, note = (False, f"{hint} (Your code raised {type(error).__name__}: {error})")
    _checks[exercise] = passed
    if not passed and os.environ.get("OFFRL_STRICT") == "1":
        raise AssertionError(f"✗ {exercise}: {note}")
    print(f"✓ {exercise}" if passed else f"✗ {exercise}: {note}")


def progress() -> None:
    """Say how many of this notebook's checks pass."""
    print(f"{sum(_checks.values())} of {len(_checks)} checks pass.")
