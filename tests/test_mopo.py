"""MOPO: the ensemble, its two doubts, rollouts that end, the penalty, who learns from what."""

import dataclasses

import numpy as np
import pytest
import torch

from offrl_nb import Batch, DataError, Streams, from_arrays, load
from offrl_nb.methods import mopo
from offrl_nb.methods.bc import TanhGaussian
from offrl_nb.methods.mopo import (
    TERMINATION,
    Config,
    Ensemble,
    batches,
    disagreement,
    ending_rule,
    largest_std,
    model_loss,
    outcome,
    penalised,
    predict,
    rollout_model,
    train,
    train_ensemble,
    train_in,
)


def line(rows=600, seed=0):
    """s' = s + 0.1 a (+ noise where s > 0); the reward is s; ends where s' > 0.3."""
    generator = np.random.default_rng(seed)
    s, a = generator.uniform(-1, 1, (2, rows, 1))
    following = s + 0.1 * a + np.where(s > 0, 0.05, 0.0) * generator.normal(size=(rows, 1))
    ends = following[:, 0] > 0.3
    return from_arrays(s, a, s[:, 0], following, ends, ~ends, np.arange(rows), id="line")


SMALL = Config(members=3, elites=2, model_updates=1.0, updates=300, hidden=(32, 32))


@pytest.fixture(scope="module")
def trained():
    return train_ensemble(line(), SMALL, Streams([0, 1]))


def rows(seeds=2, count=50):
    obs = torch.linspace(-0.9, 0.85, count)[:, None].expand(seeds, -1, -1)
    return obs, torch.zeros_like(obs)


# The model


def test_shapes_and_axes():
    ensemble = Ensemble(line(), 3, Streams([0, 1]), (16,))
    mean, log_var = ensemble(*rows())
    assert mean.shape == log_var.shape == (3, 2, 50, 2)
    assert all(p.shape[:2] == (3, 2) or p.shape[1:3] == (3, 2) for p in ensemble.parameters())


def test_log_variance_stays_between_its_bounds_and_keeps_a_gradient():
    ensemble = Ensemble(line(), 2, Streams([0]), (8,))
    last = ensemble.body.layers[-1]
    for push in (-1e3, 1e3):
        with torch.no_grad():
            last.bias[..., 2:] = push
        log_var = ensemble(*rows(1))[1]
        assert (log_var >= -10.001).all() and (log_var <= 0.501).all()
    with torch.no_grad():
        last.bias[..., 2:] = 3.0  # above the upper bound, but not far
    ensemble(*rows(1))[1].sum().backward()
    assert (last.bias.grad[..., 2:].abs() > 1e-3).all()


def test_the_loss_by_hand():
    ensemble = Ensemble(line(), 2, Streams([0, 1]), (8,))
    batch = line().rows(torch.arange(10).expand(2, -1))
    loss, error = model_loss(ensemble, batch)
    mean, log_var = ensemble(batch.obs, batch.action)
    y = (outcome(batch) - ensemble.scale.mean) / ensemble.scale.std
    squared = (mean - y) ** 2
    nll = (squared / log_var.exp() + log_var).mean((2, 3))
    ends = ensemble.ending(batch.next_obs).squeeze(-1)
    target = batch.terminated.expand_as(ends)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(ends, target, reduction="none")
    wanted = nll + 0.01 * 2 * 10.5 + entropy.mean(-1)  # two numbers, bounds 10.5 apart
    assert torch.allclose(loss, wanted, atol=1e-5)
    assert torch.allclose(error, squared.mean((2, 3))) and loss.shape == (2, 2)


def test_training_lowers_the_loss_and_elites_are_the_best_of_their_seed(trained):
    ensemble, table = trained
    by_step = table.groupby("step").loss.mean()
    assert by_step.iloc[-1] < by_step.iloc[0] - 1
    held_out = torch.as_tensor(table.attrs["held_out"])  # [M, S]
    assert torch.equal(ensemble.elites, held_out.argsort(0).T[:, :2])
    assert not any(p.requires_grad for p in ensemble.parameters())


def test_it_learns_steps_rewards_and_noise(trained):
    ensemble, _ = trained
    obs, action = rows()
    member, noise = torch.zeros(2, 50, dtype=torch.long), torch.zeros(2, 50, 2)
    next_obs, reward = predict(ensemble, obs, action, noise, member)
    assert (next_obs - obs).abs().mean() < 0.03 and (reward - obs[..., 0]).abs().mean() < 0.1
    std = torch.exp(ensemble(obs, action)[1][..., 0] / 2)
    quiet, loud = obs[0, :, 0] < -0.2, obs[0, :, 0] > 0.2
    assert std[..., loud].mean() > 1.5 * std[..., quiet].mean()


def test_a_row_is_answered_by_its_member_and_by_its_noise(trained):
    ensemble, _ = trained
    obs, action = rows(count=3)
    mean, log_var = ensemble(obs, action)
    member = torch.tensor([[0, 1, 2], [2, 2, 0]])
    noise = torch.randn(2, 3, 2)
    next_obs, reward = predict(ensemble, obs, action, noise, member)
    for s in range(2):
        for b in range(3):
            k = member[s, b]
            y = mean[k, s, b] + torch.exp(0.5 * log_var[k, s, b]) * noise[s, b]
            y = y * ensemble.scale.std + ensemble.scale.mean
            assert torch.allclose(next_obs[s, b], obs[s, b] + y[:1], atol=1e-5)
            assert torch.allclose(reward[s, b], y[1], atol=1e-5)


def test_the_two_doubts_by_hand(trained):
    ensemble, _ = trained
    obs, action = rows()
    mean, log_var = ensemble(obs, action)
    std = torch.exp(0.5 * log_var)
    wanted = torch.stack([(s**2).sum(-1).sqrt() for s in std]).max(0).values
    assert torch.allclose(largest_std(ensemble, obs, action), wanted)
    centre = mean[..., :1].mean(0)
    wanted = torch.stack([(m[..., :1] - centre).abs().squeeze(-1) for m in mean]).max(0).values
    assert torch.allclose(disagreement(ensemble, obs, action), wanted)


def test_disagreement_grows_off_the_log_and_vanishes_for_equal_members(trained):
    ensemble, _ = trained
    obs, action = rows()
    far = disagreement(ensemble, obs + 3 * obs.sign(), action)
    assert (far.mean(-1) > 2 * disagreement(ensemble, obs, action).mean(-1)).all()
    same = Ensemble(line(), 3, Streams([0]), (8,))
    with torch.no_grad():
        for parameter in same.body.parameters():
            parameter.copy_(parameter[:1].expand_as(parameter).clone())
    assert torch.allclose(disagreement(same, *rows(1)), torch.zeros(1, 50), atol=1e-6)


# Rollouts


def test_rollouts_begin_at_the_starts_and_follow_themselves(trained):
    ensemble, _ = trained
    streams = Streams([0, 1])
    policy = TanhGaussian(1, 1, streams)
    start = rows(count=7)[0]
    found = rollout_model(ensemble, policy, start, 4, streams, mopo.never)
    obs, following = (x.unflatten(1, (4, 7)) for x in (found.obs, found.next_obs))
    assert torch.equal(obs[:, 0], start) and torch.equal(obs[:, 1:], following[:, :-1])
    assert found.reward.shape == found.terminated.shape == (2, 28)
    assert not found.terminated.any() and found.action.abs().max() < 1


def test_nothing_comes_after_an_end(trained):
    ensemble, _ = trained
    streams = Streams([0, 1])
    policy = TanhGaussian(1, 1, streams)
    start = rows(count=40)[0]
    found = rollout_model(ensemble, policy, start, 6, streams, lambda x: x[..., 0] > 0.3)
    obs, ended = found.obs.unflatten(1, (6, 40)), found.terminated.bool().unflatten(1, (6, 40))
    assert torch.equal(found.terminated.bool(), found.next_obs[..., 0] > 0.3)
    assert 0 < ended.float().mean() < 1
    again = start[:, None].expand_as(obs[:, 1:])[ended[:, :-1]]
    assert torch.equal(obs[:, 1:][ended[:, :-1]], again)  # back at its start
    found = rollout_model(
        ensemble, policy, start, 3, streams, mopo.never, lambda obs, action: obs[..., 0] < 0
    )
    assert torch.equal(found.terminated.bool(), found.obs[..., 0] < 0)


def test_only_elites_play(trained, monkeypatch):
    ensemble, _ = trained
    seen = []

    def spy(ensemble, obs, action, noise, member):
        seen.append(member)
        return predict(ensemble, obs, action, noise, member)

    monkeypatch.setattr(mopo, "predict", spy)
    streams = Streams([0, 1])
    policy = TanhGaussian(1, 1, streams)
    rollout_model(ensemble, policy, rows()[0], 3, streams, mopo.never)
    for seed in range(2):
        used = torch.stack(seen)[:, seed].unique().tolist()
        assert used == sorted(ensemble.elites[seed].tolist())


def test_rules_of_termination():
    hopper = torch.zeros(4, 11)
    hopper[:, 0] = 1.25
    hopper[1, 0], hopper[2, 1], hopper[3, 1] = 0.6, 0.3, -0.3
    assert TERMINATION["hopper"](hopper).tolist() == [False, True, True, True]
    maze = torch.tensor([[1.4, 6.4], [6.0, 0.6], [1.0, 5.4], [5.4, 1.0]])
    assert TERMINATION["maze"](maze).tolist() == [True, True, False, False]


@pytest.mark.parametrize("name", ["hopper/medium-v0", "maze/stitch-v0", "pendulum/narrow-v0"])
def test_the_given_rules_agree_with_the_logs(name):
    dataset = load(name)
    rule = ending_rule(dataset, None, Config())
    assert torch.equal(rule(dataset.next_obs), dataset.terminated)


def test_the_classifier_learns_ends_and_serves_where_no_rule_is_known(trained):
    ensemble, _ = trained
    log = line()
    for termination in ("given", "learned"):
        rule = ending_rule(log, ensemble, Config(termination=termination))
        right = rule(log.next_obs.expand(2, -1, -1)) == log.terminated
        assert right.float().mean() > 0.97
    rule = ending_rule(load("maze/stitch-v0"), None, Config(termination="never"))
    assert not rule(torch.tensor([[1.0, 6.0]])).any()


# The penalty


def test_each_variant_charges_what_it_says(trained):
    ensemble, _ = trained
    obs, action = rows()
    batch = Batch(obs, action, obs[..., 0], obs, torch.zeros(2, 50))
    price = {"mopo": largest_std, "disagreement": disagreement}
    for variant, estimate in price.items():
        found, u = penalised(ensemble, batch, Config(variant, penalty_coef=3.0))
        assert torch.equal(u, estimate(ensemble, obs, action))
        assert torch.allclose(found.reward, batch.reward - 3 * u)
        assert found.obs is batch.obs and found.terminated is batch.terminated
    found, u = penalised(ensemble, batch, Config("unpenalised", penalty_coef=3.0))
    assert torch.equal(found.reward, batch.reward) and (u > 0).all()


def test_raw_units_by_hand(trained):
    ensemble, _ = trained
    obs, action = rows()
    mean, log_var = ensemble(obs, action)
    unit = outcome(line()).std(0, correction=0) + 1e-3  # of the step, of the reward
    batch = Batch(obs, action, obs[..., 0], obs, torch.zeros(2, 50))
    _, u = penalised(ensemble, batch, Config("mopo", raw_units=True))
    wanted = ((torch.exp(log_var / 2) * unit) ** 2).sum(-1).sqrt().amax(0)
    assert torch.allclose(u, wanted)
    _, u = penalised(ensemble, batch, Config("disagreement", raw_units=True))
    apart = (mean - mean.mean(0))[..., 0].abs().amax(0)
    assert torch.allclose(u, apart * unit[0])


def test_rows_of_the_log_keep_their_reward_and_their_share(trained):
    ensemble, _ = trained
    log, config = line(), dataclasses.replace(SMALL, penalty_coef=1e6, real_share=0.25)
    streams = Streams([0, 1])
    nets = mopo.Nets(1, 1, streams, mopo.OffPolicy(hidden=(8,)))
    nets.ensemble = ensemble
    batch, said = next(batches(log, nets, config, streams))
    assert batch.reward.shape == (2, 128) and said["penalty"].shape == (2,)
    assert (batch.reward[:, :32].abs() <= 1).all() and (batch.reward[:, 32:] < -1e3).all()
    assert torch.equal(batch.reward[:, :32], batch.obs[:, :32, 0])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_batch_may_come_from_one_side_alone(trained, share):
    config = dataclasses.replace(SMALL, penalty_coef=1e6, real_share=share)
    nets = mopo.make_nets(trained[0], line(), config, Streams([0, 1]))
    batch, _ = next(batches(line(), nets, config, Streams([0, 1])))
    assert batch.reward.shape == (2, 128) and ((batch.reward.abs() <= 1) == (share == 1)).all()


def test_a_rollout_serves_200_batches(trained, monkeypatch):
    played = []

    def spy(*given):
        played.append(given)
        return rollout_model(*given)

    monkeypatch.setattr(mopo, "rollout_model", spy)
    nets = mopo.make_nets(trained[0], line(), SMALL, Streams([0, 1]))
    drawn = batches(line(), nets, SMALL, Streams([0, 1]))
    for _ in range(201):
        next(drawn)
    assert len(played) == 2


# Training


def test_unpenalised_is_lambda_zero():
    log, config = load("pendulum/narrow-v0"), Config("unpenalised", updates=10)
    a, _ = train(log, config, [3])
    b, _ = train(log, Config("disagreement", penalty_coef=0.0, updates=10), [3])
    c, _ = train(log, Config("disagreement", penalty_coef=9.0, updates=10), [3])
    for name, value in a.named_parameters():
        assert torch.equal(value, b.get_parameter(name)), name
        same = torch.equal(value, c.get_parameter(name))
        assert same == name.startswith(("ensemble", "target_policy")), name


def test_the_policy_leaves_the_model_alone(trained):
    ensemble, _ = trained
    before = [p.clone() for p in ensemble.parameters()]
    nets, log = train_in(ensemble, line(), dataclasses.replace(SMALL, updates=5), Streams([0, 1]))
    assert all(torch.equal(a, b) for a, b in zip(before, ensemble.parameters(), strict=True))
    assert nets.ensemble is ensemble and np.isfinite(log[["penalty", "td_loss"]]).all(axis=None)


def test_discrete_actions_are_refused_in_one_sentence():
    with pytest.raises(DataError, match="continuous actions"):
        train(load("cartpole/mixed-v0"), Config(updates=1))


def test_a_model_stopped_by_hand_stops_the_run_and_seconds_add_up(trained, monkeypatch):
    ensemble, table = trained
    config = dataclasses.replace(SMALL, updates=3)
    _, alone = train_in(ensemble, line(), config, Streams([0, 1]))
    _, both = train_in(ensemble, line(), config, Streams([0, 1]), after=table)
    assert both.attrs["seconds"] > table.attrs["seconds"] > alone.attrs["seconds"]

    calls = []

    def stops(ensemble, batch):
        calls.append(batch)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return model_loss(ensemble, batch)

    monkeypatch.setattr(mopo, "model_loss", stops)
    _, table = train(line(), config, [0, 1])
    assert "by hand" in table.attrs["stopped"] and table.attrs["updates"] == 0 and not len(table)


@pytest.mark.parametrize(
    "settings",
    [
        {"penalty_coef": -1.0},
        {"real_share": 1.1},
        {"real_share": -0.1},
        {"model_updates": -0.5},
        {"model_learning_rate": 0.0},
        {"model_batch_size": 0},
        {"length": 0},
        {"members": 3, "elites": 4},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match=next(reversed(settings))):
        Config(**settings)
