"""Implicit Q-learning: losses by hand, expectiles, and the limits that the method must reach."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import small_log

from offrl_nb import Streams, load
from offrl_nb.data import from_arrays
from offrl_nb.envs import exact_q
from offrl_nb.methods import bc, iql
from offrl_nb.methods.iql import Config, Nets, logged_q, policy_loss, q_target, train, value_loss

ENDS = torch.tensor([1.0, 0, 0, 1, 0, 0])


def setting(discrete=False, **changes):
    """Untrained networks of two seeds with slow critics of their own, and a batch."""
    data, config = small_log(discrete), Config(discount=0.9, **changes)
    nets = Nets(data, config, Streams([0, 1]))
    other = Nets(data, config, Streams([5, 6]))
    nets.target_critic.load_state_dict(other.critic.state_dict())
    batch = data.rows(torch.arange(6).expand(2, -1))._replace(terminated=ENDS.expand(2, -1))
    return nets, batch, config


def minimiser(x, p, tau):
    """Where the expected loss of values x with probabilities p is smallest, by bisection."""
    x, p = torch.as_tensor(x, dtype=torch.float64), torch.as_tensor(p, dtype=torch.float64)
    low, high = x.min().item(), x.max().item()
    for _ in range(80):
        v = torch.tensor((low + high) / 2, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad((p * value_loss(x[:, None], v, tau)).sum(), v)
        low, high = (low, v.item()) if slope > 0 else (v.item(), high)
    return low


# Expectiles


@pytest.mark.parametrize(("tau", "wanted"), [(0.5, 0.1), (0.7, 0.206), (0.9, 0.5), (0.99, 0.917)])
def test_two_values_have_the_closed_form(tau, wanted):
    found = minimiser([0.0, 1.0], [0.9, 0.1], tau)
    assert math.isclose(found, tau * 0.1 / (tau * 0.1 + (1 - tau) * 0.9), rel_tol=1e-9)
    assert math.isclose(found, wanted, abs_tol=5e-4)


def test_the_loss_weighs_what_is_above_with_tau():
    u = torch.tensor([-2.0, 0.0, 3.0])[:, None]  # batches of one row
    assert torch.allclose(value_loss(u, torch.zeros(1), 0.9), torch.tensor([0.4, 0.0, 8.1]))
    assert torch.allclose(value_loss(u + 5, torch.tensor([5.0]), 0.5), 0.5 * u[:, 0] ** 2)


def test_an_expectile_rises_from_the_mean_to_the_best_value():
    generator = np.random.default_rng(1)
    x, p = generator.normal(size=9), generator.dirichlet(np.ones(9))
    found = [minimiser(x, p, tau) for tau in (0.5, 0.6, 0.8, 0.95, 0.999, 0.9999999)]
    assert math.isclose(found[0], p @ x, abs_tol=1e-9)
    assert (np.diff(found) > 0).all() and found[-1] <= x.max()
    assert math.isclose(found[-1], x.max(), abs_tol=1e-4)
    # it moves with a constant and with a positive factor: what the contraction needs
    assert math.isclose(minimiser(2 * x + 1, p, 0.8), 2 * found[2] + 1, rel_tol=1e-9)


# Losses by hand


@pytest.mark.parametrize("discrete", [False, True])
def test_losses_by_hand(discrete):
    nets, batch, config = setting(
        discrete, expectile=0.8, inv_temp=4.0, weight_cap=0.8, reward_scale=5.0
    )
    q, v = logged_q(nets, batch), nets.state_value(batch.obs)
    assert torch.equal(q, nets.target_critic(batch.obs, batch.action).amin(0))
    assert not q.requires_grad
    u = q - v
    side = torch.where(u > 0, 0.8, 0.2)
    loss = value_loss(q, v, config.expectile)
    assert torch.allclose(loss, (side * u**2).mean(-1))
    target = q_target(nets, batch, config)
    following = nets.state_value(batch.next_obs)
    assert torch.allclose(target, 5 * batch.reward + 0.9 * (1 - ENDS) * following, atol=1e-6)
    assert torch.equal(target[:, [0, 3]], 5 * batch.reward[:, [0, 3]])  # nothing follows
    weight = torch.exp(4 * u).clamp(max=0.8).detach()
    assert (weight == 0.8).any() and (weight < 0.8).any()
    log_prob = nets.policy.log_prob(batch.obs, batch.action)
    loss, said = policy_loss(nets, batch, q, config)
    assert torch.allclose(loss, -(weight * log_prob).mean(-1))
    assert torch.allclose(said["capped"], (weight == 0.8).float().mean(-1))
    share = weight.sum(-1) ** 2 / (weight**2).sum(-1) / 6
    assert torch.allclose(said["effective"], share)


def test_who_learns_from_which_loss():
    nets, batch, config = setting()
    q = logged_q(nets, batch)
    losses = {
        "v_net": value_loss(q, nets.state_value(batch.obs), config.expectile),
        "policy": policy_loss(nets, batch, q, config)[0],
    }
    for role, loss in losses.items():
        nets.zero_grad(set_to_none=True)
        loss.sum().backward()
        moved = {name.split(".")[0] for name, p in nets.named_parameters() if p.grad is not None}
        assert moved == {role}
    assert not q_target(nets, batch, config).requires_grad


def test_values_are_reported_in_the_logs_own_reward():
    nets, batch, config = setting(reward_scale=5.0)
    raw = nets.critic(batch.obs, batch.action).amin(0)
    assert torch.allclose(nets.value(batch.obs, batch.action), raw / 5)
    _, said = policy_loss(nets, batch, logged_q(nets, batch), config)
    assert torch.allclose(said["v"], nets.state_value(batch.obs).mean(-1) / 5)


# Limits


@pytest.mark.parametrize("dataset_id", ["pendulum/mixed-v0", "cartpole/mixed-v0"])
def test_beta_zero_is_behaviour_cloning(dataset_id):
    dataset, seeds = load(dataset_id), [0, 1]
    config = Config(inv_temp=0.0, updates=20)
    nets, log = train(dataset, config, seeds)
    assert np.allclose(log.effective, 1)
    streams = Streams(seeds)
    clone = Nets(dataset, config, streams).policy
    optimizer = torch.optim.Adam(clone.parameters(), lr=config.learning_rate)
    batches = dataset.batches(config.batch_size, streams)
    for number in range(1, 21):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 + math.cos(math.pi * number / 20)) / 2
        optimizer.zero_grad()
        bc.bc_loss(clone, next(batches))[0].sum().backward()
        optimizer.step()
    for a, b in zip(nets.policy.parameters(), clone.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_the_policy_has_no_part_in_the_values():
    dataset = load("pendulum/mixed-v0")
    flat, steep = (train(dataset, Config(inv_temp=b, updates=15), [0, 1])[0] for b in (0.0, 30.0))
    for name, value in flat.named_parameters():
        same = torch.equal(value, steep.get_parameter(name))
        assert same != name.startswith("policy"), name


def test_onestep_is_iql_with_expectile_one_half():
    dataset = load("pendulum/narrow-v0")
    a, _ = train(dataset, Config("onestep", updates=10), [3])
    b, _ = train(dataset, Config(expectile=0.5, updates=10), [3])
    c, _ = train(dataset, Config(updates=10), [3])
    pairs = zip(a.parameters(), b.parameters(), c.parameters(), strict=True)
    assert all(torch.equal(x, y) for x, y, _ in pairs)
    assert not torch.equal(a.v_net.layers[0].weight, c.v_net.layers[0].weight)


def corridor(seed=0, episodes=300, length=4):
    """A tabular log: action 1 goes right, 0 stays; -1 a step, an end after the last cell."""
    generator, rows = np.random.default_rng(seed), []
    for episode in range(episodes):
        cell = 0
        while cell < length:
            action = int(generator.random() < 0.6)
            rows.append((cell, action, min(cell + action, length - 1), cell + action, episode))
            cell += action
    cell, action, following, reached, episode = np.array(rows).T
    eye, ends = np.eye(length), reached == length
    reward = -np.ones(len(rows))
    return from_arrays(
        eye[cell], action, reward, eye[following], ends, np.zeros_like(ends), episode
    )


def test_tau_one_half_finds_the_value_of_the_behaviour_and_more_finds_more():
    dataset, length, discount = corridor(), 4, 0.9
    leads_to = np.zeros((length, 2, length))
    leads_to[np.arange(length), 0, np.arange(length)] = 1
    leads_to[np.arange(length - 1), 1, np.arange(1, length)] = 1
    cells = dataset.obs.argmax(-1).numpy()
    right = np.bincount(cells, dataset.action.numpy()) / np.bincount(cells)
    behaviour = np.c_[1 - right, right]
    exact = (behaviour * exact_q(leads_to, -np.ones((length, 2)), behaviour, discount)).sum(-1)
    settled = {"discount": discount, "target_rate": 0.05, "updates": 600, "batch_size": 64}
    found = []
    for tau in (0.5, 0.95):
        nets, _ = train(dataset, Config(expectile=tau, learning_rate=3e-3, **settled), [0, 1])
        with torch.no_grad():
            found.append(nets.state_value(torch.eye(length).expand(2, -1, -1)).numpy())
    assert abs(found[0] - exact).max() < 0.25
    best = -(1 - discount ** np.arange(length, 0, -1)) / (1 - discount)
    assert (found[1] > found[0] + 0.1).all() and (found[1] < best + 0.25).all()


# Training


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("expectile", tau) for tau in (-0.7, 0.005, 1.0)),
        *(("inv_temp", beta) for beta in (-1.0, math.inf, math.nan)),
        *(("weight_cap", 0.0), ("reward_scale", 0.0), ("variant", "one step")),
    ],
)
def test_settings_outside_their_range_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        Config(**{field: value})


def test_an_action_that_the_log_does_not_hold_is_never_played():
    data = small_log(discrete=True)
    data = from_arrays(**(data.arrays() | {"action_space": gym.spaces.Discrete(5)}))
    nets, _ = train(data, Config(updates=3), [0, 1])
    obs, noise = torch.randn(2, 200, 3), torch.rand(2, 200, 5)
    with torch.no_grad():
        nets.policy.body.layers[-1].bias[..., 3:] = 1e4  # the network would love to
        assert nets.policy.mode(obs).max() < 3 and nets.policy.sample(obs, noise).max() < 3


def test_the_policys_learning_rate_ends_at_zero_and_the_others_stay(monkeypatch):
    rates = []

    def spy(loss, optimizer):
        rates.append(optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(iql, "minimise", spy)
    train(load("pendulum/narrow-v0"), Config(updates=4), [0])
    of_value, of_policy, of_critics = np.reshape(rates, (4, 3)).T
    assert (of_value == 1e-3).all() and (of_critics == 1e-3).all()
    assert np.allclose(of_policy, 1e-3 * (1 + np.cos(np.pi * np.arange(1, 5) / 4)) / 2)
