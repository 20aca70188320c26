"""Random streams and the training loop: what keeps seeds apart, what is logged, how it stops."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch

from offrl_nb import Streams, fit


@pytest.mark.parametrize("draw", ["normal", "uniform", "integers", "initial"])
def test_a_seeds_numbers_do_not_depend_on_its_company(draw):
    def numbers(seeds, times=300):  # more than one chunk
        streams = Streams(seeds)
        arguments = (7, 4, 3) if draw == "integers" else (4, 3)
        return torch.stack([getattr(streams, draw)(*arguments) for _ in range(times)])

    together, alone = numbers([5, 2, 9]), numbers([2])
    assert torch.equal(together[:, 1], alone[:, 0])
    assert not torch.equal(together[:, 0], together[:, 1])
    assert together.shape == (300, 3, 4, 3)
    assert len(together.flatten().unique()) > (6 if draw == "integers" else 5000)


def test_a_growing_buffer_uses_one_stream_of_whole_numbers():
    streams = Streams([0])
    drawn = [streams.integers(high, 8).max().item() < high for high in range(1, 200)]
    assert all(drawn) and len(streams._ready) == 1


def test_streams_have_the_distribution_they_say():
    streams = Streams([0, 1])
    normal, uniform = streams.normal(20_000), streams.uniform(20_000)
    assert (normal.mean(-1).abs() < 0.03).all() and ((normal.std(-1) - 1).abs() < 0.03).all()
    assert (
        uniform.min() >= 0 and uniform.max() < 1 and ((uniform.mean(-1) - 0.5).abs() < 0.02).all()
    )
    assert streams.integers(3, 20_000).unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize("seeds", [[], [1, 1]])
def test_seeds_must_be_different_numbers(seeds):
    with pytest.raises(ValueError, match="Seeds must be"):
        Streams(seeds)


def test_the_log_has_a_row_for_each_seed_and_record():
    def update(step):
        return {"loss": torch.tensor([float(step), 10.0 * step])}

    log = fit(
        update,
        100,
        [3, 4],
        evaluate=lambda: {"return": np.array([1.0, 2.0])},
        evaluations=4,
        records=10,
    )
    assert log.columns.tolist() == ["step", "seed", "loss", "return"]
    assert sorted(log.step.unique()) == [10, 20, 25, 30, 40, 50, 60, 70, 75, 80, 90, 100]
    assert (log.groupby("step").seed.apply(list).map(lambda s: s == [3, 4])).all()
    first = log[(log.step == 10) & (log.seed == 4)]
    assert first.loss.item() == 55.0  # mean of 10 .. 100
    assert sorted(log.dropna().step.unique()) == [25, 50, 75, 100]
    assert log.attrs["updates"] == 100 and log.attrs["seconds"] > 0


def test_ctrl_c_keeps_what_was_logged():
    def update(step):
        if step == 55:
            raise KeyboardInterrupt
        return {"loss": torch.zeros(1)}

    log = fit(update, 100, [0], records=10)
    assert log.step.tolist() == [10, 20, 30, 40, 50] and log.attrs["updates"] == 54

    def stopped_at_once(step):
        raise KeyboardInterrupt

    assert len(fit(stopped_at_once, 100, [0])) == 0


def test_other_errors_are_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        fit(lambda step: {"loss": torch.zeros(1) / (1 // 0)}, 10, [0])


def test_nothing_is_printed_where_stderr_is_a_file():
    code = "import torch, offrl_nb; offrl_nb.fit(lambda s: {'x': torch.zeros(1)}, 10, [0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "" and done.stderr == ""


def test_in_a_notebook_a_cell_has_one_output_with_a_line_for_each_run(monkeypatch):
    shown, loop = [], sys.modules["offrl_nb.fit"]

    class Handle:
        def update(self, data, raw):
            shown.append(data["text/plain"])

    cell = loop._CellOutput(lambda *args, **kwargs: Handle())
    monkeypatch.setattr(loop, "_cell_output", lambda: cell)
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    for name in ("first", "second"):
        fit(lambda step: {"loss": torch.zeros(2)}, 10, [0, 1], name=name)
    first, second = shown[-1].splitlines()
    assert first.startswith("first: 2 seeds x 10 updates in ") and second.startswith("second: ")
    assert stderr.getvalue() == ""
