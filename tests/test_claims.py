"""Claims, checks and the switch of size."""

import numpy as np
import pytest
import torch

import offrl_nb
from offrl_nb import check, claim, expect, progress, size


def test_size_follows_the_environment_variable(monkeypatch):
    monkeypatch.delenv("OFFRL_SIZE", raising=False)
    assert size(1, 2) == 2
    for name, value in {"fast": 1, "book": 2}.items():
        monkeypatch.setenv("OFFRL_SIZE", name)
        assert size(1, 2) == value
    monkeypatch.setenv("OFFRL_SIZE", "paper")
    with pytest.raises(ValueError, match="set it to fast or book"):
        size(1, 2)


def test_a_notebook_is_told_of_another_version_and_uses_the_device_asked_for(monkeypatch, capsys):
    expect(offrl_nb.__version__)
    assert capsys.readouterr().out == ""
    expect("0.0.1")
    assert "written for offrl_nb 0.0.1; you have" in capsys.readouterr().out
    monkeypatch.setenv("OFFRL_DEVICE", "meta")
    try:
        expect(offrl_nb.__version__)
        assert torch.zeros(2).is_meta
    finally:
        torch.set_default_device(None)


@pytest.mark.parametrize(
    "false", [False, np.array([True, False]), torch.tensor([False]), [True, False], np.bool_(False)]
)
def test_a_false_claim_raises(false, monkeypatch, capsys):
    monkeypatch.setenv("OFFRL_SIZE", "book")
    with pytest.raises(AssertionError, match="A beats B  \\[1 against 2\\]"):
        claim("A beats B", false, "1 against 2")
    monkeypatch.setenv("OFFRL_SIZE", "fast")
    for kind in ("exact", "computed"):
        with pytest.raises(AssertionError):
            claim("mathematics holds", false, kind=kind)
    claim("A beats B", false)
    assert capsys.readouterr().out == "– not judged at this size: A beats B\n"


def test_a_true_claim_prints_its_numbers(monkeypatch, capsys):
    monkeypatch.setenv("OFFRL_SIZE", "book")
    claim("A beats B", np.array([True, True]), "2 against 1")
    assert capsys.readouterr().out == "✓ A beats B  [2 against 1]\n"
    with pytest.raises(ValueError, match="exact, computed or measured"):
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
    assert out[2] == "✗ three: not answered yet"  # a hint comes after an answer
    assert out[3] == "1 of 3 checks pass."
    monkeypatch.setenv("OFFRL_STRICT", "1")
    check("one", lambda: True, "hint")
    for passes in (lambda: False, not_answered, lambda: 1 / 0):
        with pytest.raises(AssertionError):
            check("two", passes, "hint")
