"""Weighted imitation: weights and returns by hand, targets, the limits, both kinds of actions."""

import dataclasses
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import small_log

from offrl_nb import Streams, from_arrays, load
from offrl_nb.methods import bc
from offrl_nb.methods.awac import (
    Config,
    Nets,
    awac_advantage,
    awac_target,
    judge_log,
    make_weights,
    policy_loss,
    policy_value,
    trace_returns,
    train,
)

ENDS = torch.tensor([1.0, 0, 0, 1, 0, 0])


def setting(discrete=False, **changes):
    """A log, untrained networks of two seeds, a batch and noise."""
    data, streams = small_log(discrete), Streams(2)
    config = Config(discount=0.9, **changes)
    nets = Nets(data, config, streams)
    batch = data.rows(torch.arange(6).expand(2, -1))._replace(terminated=ENDS.expand(2, -1))
    return data, nets, batch, config, streams.normal(*batch.action.shape[1:])


def test_clipped_weights_by_hand():
    exponent = torch.tensor([[0.0, 1.0, -2.0], [5.0, 200.0, math.log(100)]])
    weight = make_weights(exponent, Config(weight_cap=100.0))
    wanted = torch.tensor([[1.0, math.e, math.exp(-2)], [100.0, 100.0, 100.0]])
    assert torch.allclose(weight, wanted)


def test_softmax_weights_have_mean_one_in_every_seed_and_do_not_overflow():
    exponent = torch.tensor([[0.0, 1.0, -2.0], [5.0, 200.0, -1e4]])
    weight = make_weights(exponent, Config(weights="softmax"))
    e = exponent[0].exp()
    assert torch.allclose(weight[0], 3 * e / e.sum())
    assert torch.allclose(weight.mean(-1), torch.ones(2)) and torch.isfinite(weight).all()
    assert torch.allclose(make_weights(exponent + 7, Config(weights="softmax")), weight, atol=1e-6)


def test_policy_loss_by_hand_and_its_diagnostics():
    _, nets, batch, config, _ = setting(weight_cap=2.0)
    exponent = torch.tensor([[0.0, 0, 0, 0, 0, 0], [50, 50, -50, -50, -50, -50]])
    loss, said = policy_loss(nets, batch, exponent, config)
    log_prob = nets.policy.log_prob(batch.obs, batch.action)
    assert torch.allclose(loss[0], -log_prob[0].mean())
    assert torch.allclose(loss[1], -2 * log_prob[1, :2].sum() / 6)
    assert torch.allclose(said["effective"], torch.tensor([1.0, 2 / 6]))
    assert torch.allclose(said["capped"], torch.tensor([0.0, 2 / 6]))
    assert torch.allclose(said["weight"], torch.tensor([1.0, 4 / 6]))


def test_no_gradient_flows_through_the_weights():
    _, nets, batch, config, noise = setting()
    exponent = (nets.critic(batch.obs, batch.action).amin(0)).requires_grad_()
    policy_loss(nets, batch, exponent, config)[0].sum().backward()
    assert all(p.grad is None for p in nets.critic.parameters())
    assert not awac_advantage(nets, batch, noise).requires_grad


def test_weights_of_zero_give_numbers():
    _, nets, batch, config, _ = setting()
    loss, said = policy_loss(nets, batch, torch.full((2, 6), -1e5), config)
    assert not loss.any() and all(torch.isfinite(value).all() for value in said.values())


def test_target_and_advantage_by_hand():
    _, nets, batch, config, noise = setting()
    action = (nets.policy.mode(batch.next_obs) + nets.policy.std() * noise).clamp(-1, 1)
    future = nets.target_critic(batch.next_obs, action).amin(0)
    wanted = batch.reward + 0.9 * (1 - ENDS) * future
    assert torch.allclose(awac_target(nets, batch, config, noise), wanted, atol=1e-6)
    own = nets.policy.sample(batch.obs, noise)
    wanted = nets.critic(batch.obs, batch.action).amin(0) - nets.critic(batch.obs, own).amin(0)
    assert torch.allclose(awac_advantage(nets, batch, noise), wanted, atol=1e-6)
    believed = nets.value(batch.obs, batch.action)
    assert torch.allclose(believed, nets.critic(batch.obs, batch.action).amin(0), atol=1e-6)


def test_discrete_actions_are_summed_exactly():
    _, nets, batch, _, noise = setting(discrete=True)
    pi, q = nets.policy.log_probs(batch.obs).exp(), nets.critic(batch.obs).amin(0)
    value = policy_value(nets, nets.critic, batch.obs, noise)
    assert torch.allclose(value, (pi * q).sum(-1), atol=1e-6)
    advantage = awac_advantage(nets, batch, noise)
    picked = q.gather(-1, batch.action[..., None]).squeeze(-1)
    assert torch.allclose(advantage, picked - value, atol=1e-6)


@pytest.mark.parametrize("trace", [0.0, 0.7, 1.0])
def test_trace_returns_by_hand(trace):
    data = small_log()
    next_value = torch.tensor([[1.0, 2, 3, 4, 5, 6], [0.5, 0, -1, 2, 1, 0]])
    config = Config("awr", discount=0.9, trace=trace)
    returns = trace_returns(data, next_value, config)
    for seed in range(2):
        r, v = data.reward.numpy(), next_value[seed].numpy()
        wanted = np.zeros(6)
        wanted[2], wanted[5] = r[2], r[5] + 0.9 * v[5]  # a true end; a recording cut off
        for i in (1, 0, 4, 3):
            wanted[i] = r[i] + 0.9 * ((1 - trace) * v[i] + trace * wanted[i + 1])
        np.testing.assert_allclose(returns[seed], wanted, rtol=1e-6)


def test_trace_returns_of_episodes_of_different_lengths():
    data = load("maze/stitch-v0").select(range(0, 500, 25))
    zero = torch.zeros(1, len(data))
    config = Config("awr", discount=1.0, trace=1.0)
    returns = trace_returns(data, zero, config)[0]
    first = np.flatnonzero(np.diff(data.episode.numpy(), prepend=-1))
    np.testing.assert_allclose(returns[first], data.returns(), atol=1e-6)


def test_awrs_advantages_are_standardised_by_each_seed_over_the_whole_log():
    data, config = small_log(), Config("awr")
    nets = Nets(data, config, Streams(3))
    returns, advantage = judge_log(data, nets, config, 3)
    raw = returns - nets.values(data.obs.expand(3, -1, -1)).squeeze(-1)
    assert torch.allclose(advantage.mean(-1), torch.zeros(3), atol=1e-5)
    assert torch.allclose(advantage.std(-1), torch.ones(3), atol=1e-3)
    assert torch.equal(advantage.argsort(-1), raw.argsort(-1))


def cloned(dataset, config):
    """BC's weights after the batches that `train` draws, by chapter BC's loss."""
    streams = Streams([0, 1])
    policy = Nets(dataset, config, streams).policy
    optimizer = torch.optim.Adam(policy.parameters(), lr=config.learning_rate)
    for _ in range(config.updates):
        batch = dataset.rows(streams.integers(len(dataset), config.batch_size))
        optimizer.zero_grad()
        bc.bc_loss(policy, batch)[0].sum().backward()
        optimizer.step()
    return policy


@pytest.mark.parametrize("dataset_id", ["pendulum/mixed-v0", "cartpole/mixed-v0"])
@pytest.mark.parametrize("weights", ["exp", "softmax"])
@pytest.mark.parametrize("variant", ["awac", "awr"])
def test_an_infinite_temperature_is_bc(variant, weights, dataset_id):
    dataset = load(dataset_id)
    infinite = {"temperature": math.inf, "awr_temperature": math.inf}
    config = Config(variant, weights, updates=20, **infinite)
    nets, log = train(dataset, config, [0, 1])
    policy = cloned(dataset, config)
    pairs = zip(nets.policy.parameters(), policy.parameters(), strict=True)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)
    assert np.allclose(log.effective, 1)


@pytest.mark.parametrize("weights", ["exp", "softmax"])
def test_scaling_rewards_and_temperature_together_changes_no_weight(weights):
    _, nets, batch, config, noise = setting(weights=weights)
    exponent = awac_advantage(nets, batch, noise) / 0.5
    with torch.no_grad():
        for parameter in nets.critic.body.layers[-1].parameters():
            parameter *= 10  # what a critic of rewards times 10 would say
    scaled = awac_advantage(nets, batch, noise) / 5.0
    assert torch.allclose(make_weights(exponent, config), make_weights(scaled, config), atol=1e-4)


@pytest.mark.parametrize("variant", ["awac", "awr"])
def test_one_state_ends_at_the_closed_form(variant):
    generator = np.random.default_rng(0)
    action = generator.choice(3, 3_000, p=[0.6, 0.3, 0.1])
    zeros, ends = np.zeros((3_000, 1)), np.ones(3_000, bool)
    worth = np.array([0.0, 0.5, 1.0])
    data = from_arrays(zeros, action, worth[action], zeros, ends, ~ends, np.arange(3_000))
    config = Config(variant, temperature=0.5, updates=1_200, learning_rate=2e-3)
    nets, _ = train(data, config, [0, 1])
    beta = np.bincount(action) / 3_000
    # AWR divides the advantage by its standard deviation
    units = worth[action].std() if variant == "awr" else 0.5
    wanted = beta * np.exp(worth / units)
    with torch.no_grad():
        found = nets.policy.log_probs(torch.zeros(2, 1, 1)).exp().squeeze(1)
    np.testing.assert_allclose(found, np.tile(wanted / wanted.sum(), (2, 1)), atol=0.08)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("temperature", x) for x in (0.0, -1.0, math.nan, -math.inf)),
        *(("awr_temperature", x) for x in (0.0, math.nan)),
        *(("trace", x) for x in (-0.1, 1.1)),
        *(("refresh", 0), ("weight_cap", 0.0), ("weights", "sum")),
    ],
)
def test_settings_outside_their_range_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        Config(**{field: value})


@pytest.mark.parametrize("variant", ["awac", "awr"])
def test_an_action_that_the_log_does_not_hold_is_never_played_nor_asked_about(variant):
    data = small_log(discrete=True)
    data = from_arrays(**(data.arrays() | {"action_space": gym.spaces.Discrete(5)}))
    nets, table = train(data, Config(variant, updates=3), [0, 1])
    assert np.isfinite(table.effective).all()
    obs, noise = torch.randn(2, 200, 3), torch.rand(2, 200, 5)
    with torch.no_grad():
        nets.policy.body.layers[-1].bias[..., 3:] = 1e4  # the network would love to
        assert nets.policy.mode(obs).max() < 3 and nets.policy.sample(obs, noise).max() < 3
        if variant == "awac":
            before = policy_value(nets, nets.critic, obs, noise)
            nets.critic.body.layers[-1].bias[..., 3:] = 1e6
            assert torch.equal(policy_value(nets, nets.critic, obs, noise), before)


def test_only_awac_has_critics_and_slow_copies():
    data = small_log()
    names = {
        variant: {
            name.split(".")[0]
            for name, _ in Nets(data, Config(variant), Streams(1)).named_parameters()
        }
        for variant in ("awac", "awr")
    }
    assert names == {"awac": {"policy", "critic", "target_critic"}, "awr": {"policy", "values"}}
    assert dataclasses.replace(Config(), variant="awr") == Config("awr")
