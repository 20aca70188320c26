"""Random streams and the training loop: what keeps seeds apart, what is recorded, how it stops."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from offrl_nb import Streams, adam, fit, last, minimise
from offrl_nb.loop import RECORDS
from offrl_nb.nets import MLP


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


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1], [2**63], [10**22]])
def test_seeds_must_be_different_numbers(seeds):
    with pytest.raises(ValueError, match="Seeds must be"):
        Streams(seeds)


def test_a_fork_has_the_same_seeds_and_other_numbers():
    streams = Streams([3, 4])
    acting, cloning = streams.fork("acting"), streams.fork("cloning")
    assert acting.seeds == streams.seeds
    drawn = [x.normal(100) for x in (streams, acting, cloning)]
    assert all(not torch.isclose(drawn[i], drawn[j]).any() for i, j in ((0, 1), (0, 2), (1, 2)))
    assert torch.equal(Streams([4]).fork("acting").normal(100)[0], drawn[1][1])


def test_the_device_is_that_of_the_environment_variable_and_numbers_come_from_the_cpu(monkeypatch):
    monkeypatch.setenv("OFFRL_DEVICE", "meta")  # any device that is not the CPU
    streams = Streams(2)
    assert streams.device.type == "meta" and streams.normal(3).is_meta
    assert streams._generators[0].device.type == "cpu"


def measured(*values):
    """An evaluation that returns the given rows of values in turn."""
    rows = iter(values)
    return lambda: {"return": np.array(next(rows))}


def test_the_table_has_a_row_for_each_seed_and_record():
    def update(step):
        return {"loss": torch.tensor([float(step), 10.0 * step])}

    table = fit(update, 500, [3, 4], measured(*[[1.0, 2.0]] * 3), evaluations=3)
    assert table.columns.tolist() == ["step", "seed", "loss", "return"]
    assert sorted(table.step.unique()) == sorted({*range(10, 501, 10), 166, 333})
    assert len(range(10, 501, 10)) == RECORDS
    assert (table.groupby("step").seed.apply(list).map(lambda s: s == [3, 4])).all()
    first = table[(table.step == 10) & (table.seed == 4)]
    assert first.loss.item() == 55.0  # mean of 10 .. 100
    assert sorted(table.dropna().step.unique()) == [166, 333, 500]
    assert table.attrs["updates"] == 500 and table.attrs["seconds"] > 0
    assert table.attrs["stopped"] == ""


def test_a_record_is_the_mean_of_what_was_said():
    """Of a diagnostic that only some updates report, too."""
    table = fit(lambda step: {"loss": torch.ones(1)} if step % 2 else {}, 50, [0])
    assert table.loss.dropna().eq(1).all() and table.loss.isna().sum() == 25


class Policy:
    def mode(self, obs):
        return obs


def test_an_evaluation_is_given_the_policy_and_a_value_where_there_is_one():
    given = []

    def evaluate(*arguments):
        given.append(arguments)
        return {"return": np.zeros(2)}

    nets = nn.Module()
    nets.policy = Policy()
    fit(lambda step: {}, 3, Streams([1, 2]), evaluate, 1, nets)
    nets.value = lambda obs, action: obs
    fit(lambda step: {}, 3, [1, 2], evaluate, 1, nets)
    assert given == [(nets.policy.mode, 2), (nets.policy.mode, 2, nets.value)]


@pytest.mark.parametrize("lengths", [(0, 1), (-5, 1), (10, 0), (10, -3)])
def test_a_run_without_updates_or_evaluations_is_refused(lengths):
    updates, evaluations = lengths
    with pytest.raises(ValueError, match="give at least 1 of each"):
        fit(lambda step: {}, updates, [0], evaluations=evaluations)


def interrupted(at):
    def update(step):
        if step == at:
            raise KeyboardInterrupt
        return {"loss": torch.full((2,), float(step))}

    return update


def test_ctrl_c_keeps_what_was_recorded_evaluates_and_says_so(capsys):
    evaluate = measured([1.0, 1.0], [7.0, 8.0])
    table = fit(interrupted(55), 100, [0, 1], evaluate, evaluations=2, name="toy")
    assert table.step.max() == 55 and table.attrs["updates"] == 55
    assert table.attrs["stopped"] == "stopped by hand in update 55 of 100"
    assert capsys.readouterr().out == "toy, 2 seeds: stopped by hand in update 55 of 100.\n"
    assert last(table).tolist() == [7.0, 8.0]
    at_once = fit(interrupted(1), 100, [0, 1])
    assert at_once.attrs["stopped"] and not at_once.drop(columns=["step", "seed"]).size


def test_a_stage_that_was_stopped_stops_the_run_and_seconds_add_up():
    model = fit(interrupted(3), 10, [0, 1])
    policy = fit(lambda step: pytest.fail("trained on half a model"), 10, [0, 1], after=model)
    assert policy.attrs["stopped"] == "stopped by hand in update 3 of 10" and len(policy) == 0
    whole = fit(interrupted(0), 10, [0, 1])
    whole.attrs["seconds"] = 100.0
    after = fit(interrupted(0), 10, [0, 1], after=whole)
    assert after.attrs["seconds"] > 100 and after.attrs["stopped"] == ""


def test_a_run_that_diverges_in_every_seed_stops_and_says_what_to_try(capsys):
    def update(step):
        return {"loss": torch.tensor([1.0, torch.nan if step > 20 else 1.0]) / (step < 40)}

    calls = []
    table = fit(
        update, 100, [0, 1], lambda: calls.append(1) or {"return": np.ones(2)}, 10, name="toy"
    )
    assert table.step.max() == 40 and len(calls) == 3  # one seed's NaN stops nobody
    assert table.attrs["stopped"] == "diverged in every seed by update 40 of 100"
    assert np.isnan(last(table)).all()
    assert "try a lower learning rate" in capsys.readouterr().out


def test_other_errors_are_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        fit(lambda step: {"loss": torch.zeros(1) / (1 // 0)}, 10, [0])


def test_a_run_prints_one_line_without_seconds_and_no_bar_into_files():
    code = "import torch, offrl_nb; offrl_nb.fit(lambda s: {'x': torch.zeros(1)}, 10, [0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "training, 1 seed: 10 updates.\n" and done.stderr == ""


@pytest.mark.parametrize("idle", [False, True])  # idle: some updates leave a layer without gradient
def test_adam_is_pytorchs_to_the_bit(idle):
    def trained(make):
        net, x = MLP([3, 8, 8, 2], Streams(4)), torch.linspace(-1, 1, 60).view(4, 5, 3)
        optimizer = make(net)
        for number in range(60):
            optimizer.param_groups[0]["lr"] = 1e-2 / (1 + number)
            first = net.layers[0]
            y = x @ first.weight + first.bias if idle and number % 3 == 0 else net(x)
            minimise((y**2).mean((-1, -2)), optimizer)
        return torch.cat([p.detach().flatten() for p in net.parameters()])

    ours = trained(lambda net: adam(net, 1e-3))
    theirs = trained(lambda net: torch.optim.Adam(net.parameters(), lr=1e-3, fused=True))
    assert torch.equal(ours, theirs)
    plain = trained(lambda net: torch.optim.Adam(net.parameters(), lr=1e-3))  # not fused: rounding
    assert torch.allclose(ours, plain, atol=1e-5)
