"""Conservative Q-learning: the gap, the estimate of the integral, the limits, the multiplier."""

import math

import gymnasium
import numpy as np
import pytest
import torch

from offrl_nb import Streams, adam, from_arrays, load, minimise
from offrl_nb.data import Batch
from offrl_nb.methods.bc import Config as Cloning
from offrl_nb.methods.bc import TanhGaussian
from offrl_nb.methods.bc import train as clone
from offrl_nb.methods.cql import (
    Config,
    continuous_target,
    discrete_gap,
    discrete_target,
    log_integral,
    make_nets,
    proposals,
    train,
)
from offrl_nb.nets import DiscreteCritic, Normaliser, frozen_copy, pick, polyak


def one_step_log(action, reward, obs=None, **more):
    """Every row an episode of its own that ends: no future."""
    n = len(action)
    obs = np.zeros((n, 1)) if obs is None else obs
    ends = np.ones(n, bool)
    return from_arrays(obs, action, reward, obs, ends, ~ends, np.arange(n), **more)


def test_the_gradient_of_the_gap_is_softmax_minus_one_hot():
    q = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    action = torch.randint(5, (3, 4))
    for temperature in (0.5, 1.0, 4.0):
        (gradient,) = torch.autograd.grad(discrete_gap(q, action, temperature).sum(), q)
        one_hot = torch.nn.functional.one_hot(action, 5)
        wanted = (torch.softmax(q.detach() / temperature, -1) - one_hot) / 4  # mean over 4 rows
        assert torch.allclose(gradient, wanted)


def test_the_gap_is_the_loss_of_a_clone_with_the_values_as_logits():
    q, action = torch.randn(1, 2, 6, 3), torch.randint(3, (2, 6))
    likelihood = torch.log_softmax(q[0], -1).gather(-1, action[..., None]).squeeze(-1)
    assert torch.allclose(discrete_gap(q, action)[0], -likelihood.mean(-1), atol=1e-6)


def test_proposals_come_with_the_density_that_they_were_drawn_from():
    streams = Streams(2)
    policy = TanhGaussian(3, 2, streams)
    batch = Batch(streams.normal(4, 3), None, None, streams.normal(4, 3), None)
    uniform, noise = streams.uniform(5, 4, 2), streams.normal(2, 5, 4, 2)
    action, log_density = proposals(policy, batch, uniform, noise)
    assert action.shape == (2, 15, 4, 2) and log_density.shape == (2, 15, 4)
    assert torch.allclose(log_density[:, :5], torch.tensor(-2 * math.log(2)))
    for i, obs in enumerate((batch.obs, batch.next_obs)):
        for sample in range(5):
            drawn, density = policy.sample_with_log_prob(obs, noise[:, i, sample])
            at = 5 + 5 * i + sample
            assert torch.allclose(action[:, at], drawn, atol=1e-6)
            assert torch.allclose(log_density[:, at], density, atol=1e-4)
    assert not action.requires_grad and not log_density.requires_grad


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_estimate_tends_to_the_integral_at_s(temperature):
    streams = Streams(50)
    policy = TanhGaussian(1, 1, streams)
    obs = torch.full((50, 2, 1), 0.5)
    obs[:, 1] = -1.0
    batch = Batch(obs, None, None, obs + 3, None)  # next states of quite another value

    def critic(obs, action):
        return (obs.squeeze(-1) + 3 * torch.cos(3 * action).sum(-1))[None]

    drawn = proposals(policy, batch, streams.uniform(3000, 2, 1), streams.normal(2, 3000, 2, 1))
    found = log_integral(critic, obs, *drawn, temperature)[0].double().mean(0)
    grid = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    inner = torch.trapezoid(torch.exp(3 * torch.cos(3 * grid) / temperature), grid).log()
    wanted = temperature * inner + torch.tensor([0.5, -1.0]).double()
    assert torch.allclose(found, wanted, atol=0.02)


def test_targets_bootstrap_unless_the_task_has_ended():
    streams, config = Streams(2), Config(discount=0.9)
    dataset = load("pendulum/narrow-v0")
    nets = make_nets(dataset, streams, config)
    batch = dataset.rows(streams.integers(len(dataset), 6))
    batch = batch._replace(terminated=torch.tensor([1.0, 0, 0, 1, 0, 0]).expand(2, -1))
    noise = streams.normal(6, 1)
    q = nets.critic(batch.next_obs, nets.policy.sample(batch.next_obs, noise)).amin(0)
    wanted = batch.reward + 0.9 * (1 - batch.terminated) * q  # no entropy
    assert torch.allclose(continuous_target(nets, batch, config, noise), wanted, atol=1e-6)


def test_the_discrete_target_is_double():
    streams, config = Streams(2), Config(discount=0.9)
    dataset = load("cartpole/mixed-v0")
    nets = make_nets(dataset, streams, config)
    for p in nets.target_critic.parameters():
        p.data += 0.3 * torch.randn_like(p)
    batch = dataset.rows(streams.integers(len(dataset), 64))
    chosen = nets.critic(batch.next_obs)[0].argmax(-1)
    slow = nets.target_critic(batch.next_obs)[0]
    wanted = batch.reward + 0.9 * (1 - batch.terminated) * pick(slow, chosen)
    assert torch.allclose(discrete_target(nets, batch, config), wanted)
    assert not torch.allclose(pick(slow, chosen), slow.amax(-1))  # the test can tell


def test_weight_zero_is_double_q_learning():
    dataset, config = load("cartpole/mixed-v0"), Config(cql_weight=0.0, updates=25)
    nets, _ = train(dataset, config, [4, 5])
    streams = Streams([4, 5])
    sizes = (dataset.obs_dim, 2, streams, config.hidden)
    q = DiscreteCritic(*sizes, 1, Normaliser(dataset.obs))
    slow, optimizer = frozen_copy(q), adam(q, config.learning_rate)
    batches = dataset.batches(config.batch_size, streams)
    for _ in range(25):
        batch = next(batches)
        future = pick(slow(batch.next_obs)[0], q(batch.next_obs)[0].argmax(-1)).detach()
        wanted = batch.reward + config.discount * (1 - batch.terminated) * future
        minimise(((pick(q(batch.obs), batch.action) - wanted) ** 2).mean(-1), optimizer)
        polyak(slow, q, config.target_rate)
    pairs = zip(nets.critic.parameters(), q.parameters(), strict=True)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)


def test_a_large_weight_makes_the_softmax_of_the_values_the_clone():
    generator = np.random.default_rng(0)
    state = generator.integers(2, size=4000)
    action = np.where(generator.random(4000) < np.where(state, 0.8, 0.3), 1, 0)
    log = one_step_log(action, 2.0 * action, np.eye(2)[state])
    frequencies = [action[state == s].mean() for s in (0, 1)]
    settings = {"batch_size": 512, "updates": 1500, "learning_rate": 3e-3}
    everywhere = torch.eye(2).expand(2, 2, 2)
    softmax = {}
    for weight in (0.1, 100.0):
        nets, _ = train(log, Config(cql_weight=weight, **settings), range(2))
        softmax[weight] = torch.softmax(nets.critic(everywhere)[0], -1)[..., 1].detach()
    cloned, _ = clone(log, Cloning(**settings), range(2))
    wanted = cloned.policy.log_probs(everywhere).exp()[..., 1].detach()
    assert torch.allclose(wanted, torch.tensor(frequencies).float().expand(2, -1), atol=0.05)
    assert torch.allclose(softmax[100.0], wanted, atol=0.05)
    assert not torch.allclose(softmax[0.1], wanted, atol=0.05)


def test_the_learned_weight_rises_while_the_gap_is_too_large_and_sinks_otherwise():
    dataset = load("pendulum/narrow-v0")
    for threshold, rises in ((-100.0, True), (100.0, False)):
        config = Config("lagrange", 1.0, threshold, updates=60)
        nets, log = train(dataset, config, [0, 1])
        assert ((nets.log_factor > 0) == rises).all()
        assert ((log[log.step == 60].weight > 1) == rises).all()
    fixed, _ = train(dataset, Config(updates=20), [0, 1])
    assert (fixed.log_factor == 0).all()


def test_the_gap_trains_the_critics_and_never_the_policy():
    dataset = load("pendulum/narrow-v0")
    weights = {}
    for weight in (0.0, 1000.0):
        # a rate so low that SAC's own steps change nothing
        config = Config(cql_weight=weight, policy_learning_rate=1e-30, updates=10)
        nets, _ = train(dataset, config, [0])
        weights[weight] = [p.detach().clone() for p in nets.policy.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(*weights.values(), strict=True))


def test_an_action_that_no_row_contains_is_never_played():
    """Its value stays near 0 where all rewards are negative and nothing presses it down."""
    generator = np.random.default_rng(0)
    action, space = generator.choice([0, 2], 400), gymnasium.spaces.Discrete(4)
    log = one_step_log(
        action, -3.0 + 0 * action, generator.normal(size=(400, 2)), action_space=space
    )
    nets, _ = train(log, Config(cql_weight=0.0, updates=300), [0, 1])
    obs = log.obs.expand(2, -1, -1)
    played = nets.policy.mode(obs)
    assert set(played.unique().tolist()) <= {0, 2}
    assert torch.equal(nets.policy.sample(obs, None), played)
    favourite = nets.critic(obs)[0].argmax(-1)
    assert torch.isin(favourite, torch.tensor([1, 3])).float().mean() > 0.9  # the test can tell
    batch = log.rows(torch.arange(400).expand(2, -1))._replace(terminated=torch.zeros(2, 400))
    wanted = batch.reward + 0.99 * pick(nets.target_critic(batch.next_obs)[0], played)
    assert torch.allclose(discrete_target(nets, batch, Config()), wanted)


@pytest.mark.parametrize(
    "wrong",
    [
        {"cql_weight": -1.0},
        {"temperature": 0.0},
        {"temperature": math.nan},
        {"samples": 0},
        {"gap": math.inf},
        {"variant": "lagrange", "cql_weight": 0.0},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=list(wrong)[-1]):
        Config(**wrong)
