"""What chapters/morel.ipynb prints: the detector, its threshold, HALT, and the training around them."""

import dataclasses

import numpy as np
import pytest
import torch

from offrl_nb import Batch, DataError, Streams, from_arrays, load
from offrl_nb.methods import mopo, morel
from offrl_nb.methods.morel import (
    Config,
    batches,
    halted,
    halting_reward,
    pairwise,
    split,
    threshold,
    train,
    train_detector,
    train_in,
)


def line(rows=600, seed=0, ends=True):
    """Episodes of ten rows: s' = s + 0.1 a, the reward is s; may end where s' > 0.3."""
    generator = np.random.default_rng(seed)
    s, a = generator.uniform(-1, 1, (2, rows, 1))
    following = s + 0.1 * a
    done = (following[:, 0] > 0.3) & ends
    episode = np.arange(rows) // 10
    return from_arrays(s, a, s[:, 0], following, done, ~done, episode, id="line")


SMALL = Config(members=3, elites=2, model_updates=1.0, updates=300, hidden=(32, 32))


@pytest.fixture(scope="module")
def ensemble():
    return train_detector(line(), SMALL, Streams([0, 1]))[0]


def rows(seeds=2, count=50):
    obs = torch.linspace(-0.9, 0.85, count)[:, None].expand(seeds, -1, -1)
    return obs, torch.zeros_like(obs)


def model_rows():
    obs, action = rows(count=4)
    flags = torch.tensor([0.0, 1.0, 0.0, 1.0]).expand(2, -1)
    return Batch(obs, action, obs[..., 0], obs, flags)


UNKNOWN = torch.tensor([True, True, False, False]).expand(2, -1)


# The detector


def test_the_detector_by_hand(ensemble):
    mean = ensemble(*rows())[0][..., :1]
    pairs = [(mean[i] - mean[j]).norm(dim=-1) for i in range(3) for j in range(i)]
    assert torch.allclose(pairwise(ensemble, *rows()), torch.stack(pairs).amax(0))


def test_it_lies_between_its_bounds_around_mopos_disagreement(ensemble):
    disc, dis = pairwise(ensemble, *rows()), mopo.disagreement(ensemble, *rows())
    assert (dis <= 2 / 3 * disc + 1e-5).all() and (disc <= 2 * dis + 1e-5).all()


def test_it_grows_off_the_log(ensemble):
    obs, action = rows()
    far = pairwise(ensemble, obs + 3 * obs.sign(), action)
    assert (far.mean(-1) > 2 * pairwise(ensemble, obs, action).mean(-1)).all()


def test_the_split_keeps_episodes_whole_and_loses_no_row():
    log = line()
    seen, held_out = split(log)
    assert len(held_out.lengths()) == 6 and len(seen) + len(held_out) == len(log)
    assert not np.isin(held_out.obs, seen.obs).any()
    two = log.select([0, 1])
    assert [len(part.lengths()) for part in split(two)] == [1, 1]
    with pytest.raises(ValueError, match="no transition left"):
        split(log.select([0]))


def test_no_member_sees_the_held_out_episodes(monkeypatch):
    given = []

    def spy(dataset, config, streams):
        given.append(dataset)
        return mopo.train_ensemble(dataset, config, streams)

    monkeypatch.setattr(morel, "train_ensemble", spy)
    found, _ = train_detector(line(), dataclasses.replace(SMALL, updates=2), Streams([0, 1]))
    assert torch.equal(given[0].obs, split(line())[0].obs)
    held_out = split(line())[1]
    pair = (x.expand(2, -1, -1) for x in (held_out.obs, held_out.action))
    assert torch.equal(found.unseen, pairwise(found, *pair))


def test_the_threshold_calls_its_share_of_held_out_rows_known(ensemble):
    for share in (0.5, 0.9):
        alpha = threshold(ensemble, Config(quantile=share))
        known = (ensemble.unseen <= alpha).float().mean(-1)
        assert alpha.shape == (2, 1) and (abs(known - share) < 0.03).all()
    twice = threshold(ensemble, Config(looseness=2.0))
    assert torch.allclose(twice, 2 * threshold(ensemble, Config()))


# HALT


def test_the_halting_reward_lies_below_any_return():
    log = line(ends=False)
    low, high = log.reward.min().item(), log.reward.max().item()
    for discount in (0.9, 0.99):
        found = halting_reward(log, Config(discount=discount)).item()
        assert found == pytest.approx((low - 0.1 * (high - low)) / (1 - discount), rel=1e-4)
        assert found < low / (1 - discount)


def test_it_follows_a_shift_of_the_rewards():
    log, config = line(ends=False), Config(discount=0.9)
    shifted = dataclasses.replace(log, reward=log.reward + 3)
    difference = halting_reward(shifted, config) - halting_reward(log, config)
    assert difference.item() == pytest.approx(30, rel=1e-3)


def test_an_end_counts_as_rewards_of_zero():
    log = dataclasses.replace(line(), reward=line().reward + 5)  # all positive, and it ends
    span = log.reward.max() - log.reward.min()
    config = Config(discount=0.9, margin=0.0)
    assert halting_reward(log, config).item() == 0
    found = halting_reward(log, Config(discount=0.9)).item()
    assert found == pytest.approx(-span.item(), rel=1e-4)
    endless = dataclasses.replace(log, terminated=torch.zeros(len(log), dtype=torch.bool))
    assert halting_reward(endless, config).item() > 0


def test_each_variant_does_what_it_says():
    rows = model_rows()
    reward = torch.tensor(-7.0)
    found = halted(rows, UNKNOWN, reward, Config("halting"))
    assert torch.equal(found.terminated[0], torch.tensor([1.0, 1.0, 0.0, 1.0]))
    assert torch.equal(found.reward[:, :2], torch.full((2, 2), -7.0))
    assert torch.equal(found.reward[:, 2:], rows.reward[:, 2:])
    unpaid = halted(rows, UNKNOWN, reward, Config("unpaid"))
    assert torch.equal(unpaid.reward, rows.reward)
    assert torch.equal(unpaid.terminated, found.terminated)
    assert halted(rows, UNKNOWN, reward, Config("none")) is rows


def test_rollouts_stop_at_unknown_pairs_and_logged_rows_are_left_alone(ensemble):
    log = line()
    config = dataclasses.replace(SMALL, quantile=0.5, real_share=0.25, length=3)
    streams = Streams([0, 1])
    nets = mopo.make_nets(ensemble, log, config, streams)
    batch, said = next(batches(log, nets, config, streams))
    real, model = (Batch(*(x[:, part] for x in batch)) for part in (slice(32), slice(32, None)))
    assert torch.equal(real.reward, real.obs[..., 0])
    stops = pairwise(ensemble, model.obs, model.action) > threshold(ensemble, config)
    assert 0.2 < said["unknown"].mean() < 0.8 and stops.any()
    assert (model.reward[stops] == halting_reward(log, config)).all()
    assert (model.terminated[stops] == 1).all()
    assert (model.reward[~stops] > halting_reward(log, config)).all()


# Training


def test_an_infinite_threshold_is_no_halting():
    log = load("pendulum/narrow-v0")
    loose = Config("halting", looseness=float("inf"), updates=10)
    a, _ = train(log, loose, [3])
    b, _ = train(log, Config("none", updates=10), [3])
    c, _ = train(log, Config("halting", quantile=0.2, updates=10), [3])
    for name, value in a.named_parameters():
        assert torch.equal(value, b.get_parameter(name)), name
    assert any(not torch.equal(v, c.get_parameter(n)) for n, v in a.named_parameters())


def test_the_policy_leaves_the_model_alone(ensemble):
    before = [p.clone() for p in ensemble.parameters()]
    config = dataclasses.replace(SMALL, updates=5)
    nets, table = train_in(ensemble, line(), config, Streams([0, 1]), mix=batches)
    assert all(torch.equal(a, b) for a, b in zip(before, ensemble.parameters(), strict=True))
    assert nets.ensemble is ensemble and np.isfinite(table[["unknown", "td_loss"]]).all(axis=None)


def test_discrete_actions_are_refused_in_one_sentence():
    with pytest.raises(DataError, match="continuous actions"):
        train(load("cartpole/mixed-v0"), Config(updates=1))


def test_seconds_hold_the_models_training_and_its_stop_stops_the_run(monkeypatch):
    config, models = dataclasses.replace(SMALL, updates=3), []

    def spy(*given):
        models.append(mopo.train_ensemble(*given))
        return models[-1]

    monkeypatch.setattr(morel, "train_ensemble", spy)
    _, table = train(line(), config, [0, 1])
    assert table.attrs["seconds"] > models[0][1].attrs["seconds"]

    def stopped(*given):
        ensemble, table = mopo.train_ensemble(*given)
        table.attrs["stopped"] = "stopped by hand"
        return ensemble, table

    monkeypatch.setattr(morel, "train_ensemble", stopped)
    _, table = train(line(), config, [0, 1])
    assert table.attrs["updates"] == 0 and table.attrs["stopped"] == "stopped by hand"


@pytest.mark.parametrize(
    "settings",
    [
        {"discount": 1.0},  # H would be infinite
        {"members": 1},  # nobody to disagree with
        {"quantile": 1.5},
        {"looseness": 0.0},
        {"looseness": float("nan")},
        {"margin": -0.1},
        {"real_share": 2.0},
        {"members": 3, "elites": 4},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match=next(reversed(settings))):
        Config(**settings)
