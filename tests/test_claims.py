"""Claims, checks and the switch of size."""

import numpy as np
import pytest
import torch

from offrl_nb import check, claim, progress, size


def test_size_follows_the_environment_variable(monkeypatch):
    monkeypatch.delenv("OFFRL_SIZE", raising=False)
    assert size(1, 2, 3) == 2
    for name, value in {"fast": 1, "book": 2, "paper": 3}.items():
        monkeypatch.setenv("OFFRL_SIZE", name)
        assert size(1, 2, 3) == value
    assert size(1, 2) == 2  # paper falls back to book
    monkeypatch.setenv("OFFRL_SIZE", "huge")
    with pytest.raises(ValueError, match="set it to fast, book or paper"):
        size(1, 2)


@pytest.mark.parametrize(
    "false", [False, np.array([True, False]), torch.tensor([False]), [True, False], np.bool_(False)]
)
def test_a_false_claim_raises(false, monkeypatch, capsys):
    monkeypatch.setenv("OFFRL_SIZE", "book")
    with pytest.raises(AssertionError, match="A beats B  \\[1 against 2\\]"):
        claim("A beats B", false, "1 against 2")
    monkeypatch.setenv("OFFRL_SIZE", "fast")
    with pytest.raises(AssertionError):
        claim("mathematics holds", false, kind="exact")
    claim("A beats B", false)
    assert capsys.readouterr().out == "– not judged at this size: A beats B\n"


def test_a_true_claim_prints_its_numbers(monkeypatch, capsys):
    monkeypatch.setenv("OFFRL_SIZE", "book")
    claim("A beats B", np.array([True, True]), "2 against 1")
    assert capsys.readouterr().out == "✓ A beats B  [2 against 1]\n"
    with pytest.raises(ValueError, match="'exact' or 'measured'"):
        claim("?", True, kind="sure")


@pytest.mark.parametrize("nothing", [[], np.array([]), 1.0, (x for x in [True]), None])
def test_a_claim_that_compares_nothing_is_refused(nothing):
    with pytest.raises(ValueError, match="must be true or false"):
        claim("A beats B", nothing)


def not_answered():
    raise NotImplementedError


def test_checks_print_and_raise_only_when_strict(monkeypatch, capsys):
    from offrl_nb import claims

    monkeypatch.setattr(claims, "_checks", {})
    monkeypatch.delenv("OFFRL_STRICT", raising=False)
    check("one", lambda: True, "hint")
    check("two", lambda: 1 / 0, "look at the axis")
    check("three", not_answered, "begin with E[a]")
    progress()
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "✓ one"
    assert out[1].startswith("✗ two: look at the axis (Your code raised ZeroDivisionError")
    assert out[2] == "✗ three: not answered yet. begin with E[a]"
    assert out[3] == "1 of 3 checks pass."
    monkeypatch.setenv("OFFRL_STRICT", "1")
    check("one", lambda: True, "hint")
    for passes in (lambda: False, not_answered, lambda: 1 / 0):
        with pytest.raises(AssertionError):
            check("two", passes, "hint")
