"""COMBO: what is pressed and what is lifted, who rolls out, the mixed batch, the limits."""

import dataclasses

import numpy as np
import pytest
import torch

from offrl_nb import Batch, DataError, Streams, from_arrays, load
from offrl_nb.methods import combo, cql
from offrl_nb.methods.combo import (
    Config,
    Uniform,
    critic_loss,
    model_batches,
    pushed_down,
    train,
    train_in,
)
from offrl_nb.methods.mopo import make_nets as made
from offrl_nb.methods.mopo import train_ensemble


def line(rows=600, seed=0):
    """s' = s + 0.1 a; the reward is s; one-step episodes."""
    generator = np.random.default_rng(seed)
    s, a = generator.uniform(-1, 1, (2, rows, 1))
    ends = np.zeros(rows, bool)
    return from_arrays(s, a, s[:, 0], s + 0.1 * a, ends, ~ends, np.arange(rows), id="line")


SMALL = Config(members=3, elites=2, model_updates=1.0, updates=100, hidden=(16,), batch_size=32)


@pytest.fixture(scope="module")
def ensemble():
    return train_ensemble(line(), SMALL, Streams([0, 1]))[0]


def make_nets(ensemble, seeds=(0, 1)):
    return made(ensemble, line(), SMALL, Streams(seeds))


def rows(count, seed=0, seeds=2):
    generator = torch.Generator().manual_seed(seed)
    s, a, r = torch.rand(3, seeds, count, 1, generator=generator) * 2 - 1
    return Batch(s, a, r[..., 0], s + 0.1 * a, torch.zeros(seeds, count))


class Table(torch.nn.Module):
    """A critic with one free number for each row that the test looks at: obs holds its index."""

    def __init__(self, entries):
        super().__init__()
        self.entries = torch.nn.Parameter(torch.zeros(2, 2, entries))  # [K, S, entries]

    def forward(self, obs, action):
        index = obs[..., 0].long().expand(2, *obs.shape[:-1])
        return self.entries.gather(-1, index)


# The sign test


@pytest.mark.parametrize("variant", ["combo", "mean"])
def test_at_zero_error_a_step_lowers_model_entries_and_raises_logged_ones(variant, monkeypatch):
    nets = make_nets(None)
    nets.critic = Table(8)
    index = torch.arange(8.0).expand(2, 8)[..., None]
    whole = Batch(index, torch.zeros(2, 8, 1), torch.zeros(2, 8), index, torch.zeros(2, 8))
    logged = Batch(*(x[:, :4] for x in whole))
    model = Batch(*(x[:, 4:] for x in whole))
    monkeypatch.setattr(combo, "continuous_target", lambda *_: torch.zeros(2, 8))
    loss, _ = critic_loss(nets, logged, model, Streams([0, 1]), Config(variant))
    loss.sum().backward()
    step = -nets.critic.entries.grad
    assert (step[..., :4] > 0).all() and (step[..., 4:] < 0).all()
    assert torch.allclose(step.sum(-1), torch.zeros(2, 2), atol=1e-6)  # the two forces are equal


def test_naive_is_a_push_of_zero(ensemble):
    nets, both = make_nets(ensemble), (rows(8, 1), rows(8, 2))
    naive, _ = critic_loss(nets, *both, Streams([0, 1]), Config("naive", 7.0))
    zero, _ = critic_loss(nets, *both, Streams([0, 1]), Config("combo", 0.0))
    pressed, said = critic_loss(nets, *both, Streams([0, 1]), Config("combo", 7.0))
    assert torch.equal(naive, zero)
    assert torch.allclose((pressed - naive).mean(0), 7 * said["gap"], atol=1e-5)


# What is pressed


def test_the_plain_mean_by_hand(ensemble):
    nets, batch = make_nets(ensemble), rows(8)
    found = pushed_down(nets, batch, Streams([0, 1]), Config("mean"))
    action = nets.policy.sample(batch.obs, Streams([0, 1]).normal(8, 1))
    assert torch.allclose(found, nets.critic(batch.obs, action).mean(-1))
    found.sum().backward()
    assert all(p.grad is None for p in nets.policy.parameters())  # the critic's loss alone


def test_the_log_sum_exp_is_cqls(ensemble):
    nets, batch = make_nets(ensemble), rows(8)
    found = pushed_down(nets, batch, Streams([0, 1]), Config(samples=3, temperature=0.5))
    streams = Streams([0, 1])
    noise = streams.normal(2, 3, 8, 1)
    drawn = cql.proposals(nets.policy, batch, streams.uniform(3, 8, 1), noise)
    wanted = cql.log_integral(nets.critic, batch.obs, *drawn, 0.5).mean(-1)
    assert torch.allclose(found, wanted) and found.shape == (2, 2)


def test_states_of_the_push(ensemble, monkeypatch):
    nets, logged, model = make_nets(ensemble), rows(5, 1), rows(7, 2)
    seen = []

    def spy(nets, batch, streams, config):
        seen.append(batch.obs)
        return torch.zeros(2, 2)

    monkeypatch.setattr(combo, "pushed_down", spy)
    for at_log in (False, True):
        config = Config(push_at_log=at_log)
        critic_loss(nets, logged, model, Streams([0, 1]), config)
    assert torch.equal(seen[0], model.obs)
    assert torch.equal(seen[1], torch.cat([logged.obs, model.obs], 1))


def test_logged_actions_alone_are_lifted_and_both_have_targets(ensemble):
    nets, logged, model = make_nets(ensemble), rows(5, 1), rows(7, 2)
    _, said = critic_loss(nets, logged, model, Streams([0, 1]), Config())
    assert torch.allclose(said["q_log"], nets.critic(logged.obs, logged.action).mean((0, 2)))
    assert torch.allclose(said["q_model"], nets.critic(model.obs, model.action).mean((0, 2)))
    before, _ = critic_loss(nets, logged, model, Streams([0, 1]), Config("naive"))
    dearer = model._replace(reward=model.reward + 100)
    after, _ = critic_loss(nets, logged, dearer, Streams([0, 1]), Config("naive"))
    assert (after > before + 1_000).all()


# Who rolls out


def test_the_uniform_player_is_uniform():
    obs, noise = torch.zeros(1, 100_000, 3), torch.randn(1, 100_000, 1)
    action = Uniform.sample(obs, noise)
    assert action.shape == noise.shape and action.abs().max() <= 1
    shares = torch.histc(action, 10, -1, 1) / action.numel()
    assert (shares - 0.1).abs().max() < 0.01


@pytest.mark.parametrize("player", ["policy", "uniform"])
def test_rollouts_are_the_players_and_count_is_kept(ensemble, player):
    nets = make_nets(ensemble)
    with torch.no_grad():
        nets.policy.body.layers[-1].weight.zero_()
        nets.policy.body.layers[-1].bias[..., 0] = 3.0  # always nearly 1
        nets.policy.body.layers[-1].bias[..., 1] = -4.0
    config = dataclasses.replace(SMALL, rollout_by=player)
    batch = next(model_batches(line(), nets, config, Streams([0, 1]), 20))
    assert batch.obs.shape == (2, 20, 1) and batch.reward.shape == (2, 20)
    assert (batch.action.min() > 0.9) == (player == "policy")


def test_the_batch_is_mixed_as_asked(ensemble, monkeypatch):
    counts = []

    def spy(nets, logged, model, streams, config):
        counts.append((logged.reward.shape[1], model.reward.shape[1]))
        return critic_loss(nets, logged, model, streams, config)

    monkeypatch.setattr(combo, "critic_loss", spy)
    config = dataclasses.replace(SMALL, real_share=0.75, updates=2)
    train_in(ensemble, line(), config, Streams([0, 1]))
    assert counts == [(24, 8)] * 2


# Training


def test_the_ensemble_is_left_alone_and_everything_is_finite(ensemble):
    before = [p.clone() for p in ensemble.parameters()]
    for variant in ("combo", "mean", "naive"):
        config = dataclasses.replace(SMALL, variant=variant, updates=5)
        nets, log = train_in(ensemble, line(), config, Streams([0, 1]))
        columns = ["td_loss", "gap", "q_log", "q_model", "entropy"]
        assert np.isfinite(log[columns]).all(axis=None) and nets.ensemble is ensemble
    assert all(torch.equal(a, b) for a, b in zip(before, ensemble.parameters(), strict=True))


def test_a_stronger_push_lowers_the_models_rows_against_the_logs(ensemble):
    config = dataclasses.replace(SMALL, updates=400)
    apart = []
    for weight in (0.0, 20.0):
        _, log = train_in(
            ensemble, line(), dataclasses.replace(config, push_weight=weight), Streams([0, 1])
        )
        end = log[log.step == log.step.max()]
        apart.append(end.gap.to_numpy())
    assert (apart[1] < apart[0]).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"real_share": 0.0},  # no row of the log
        {"real_share": 1.0},
        {"real_share": 0.001},
        {"temperature": 0.0},
        {"push_weight": -1.0},
        {"samples": 0},
        {"policy_learning_rate": 0.0},
        {"members": 3, "elites": 4},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match=next(reversed(settings))):
        Config(**settings)


def test_seconds_hold_the_models_training_and_its_stop_stops_the_run(monkeypatch):
    config, models = dataclasses.replace(SMALL, updates=3, model_updates=30.0), []

    def spy(*given):
        models.append(train_ensemble(*given))
        return models[-1]

    monkeypatch.setattr(combo, "train_ensemble", spy)
    _, table = train(line(), config, [0, 1])
    assert table.attrs["seconds"] > models[0][1].attrs["seconds"]

    def stopped(*given):
        ensemble, table = train_ensemble(*given)
        table.attrs["stopped"] = "stopped by hand"
        return ensemble, table

    monkeypatch.setattr(combo, "train_ensemble", stopped)
    _, table = train(line(), config, [0, 1])
    assert table.attrs["updates"] == 0 and table.attrs["stopped"] == "stopped by hand"


def test_discrete_actions_are_refused_in_one_sentence():
    with pytest.raises(DataError, match="continuous actions"):
        train(load("cartpole/mixed-v0"), Config(updates=1))
