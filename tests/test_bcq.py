"""BCQ of chapter `bcq`: the mask, the targets, the VAE's loss, and the limits of both kinds."""

import math
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from conftest import arrays

from offrl_nb import Streams, from_arrays, load
from offrl_nb.data import Batch
from offrl_nb.methods import bcq
from offrl_nb.methods.bcq import (
    VAE,
    Config,
    ContinuousNets,
    DiscreteNets,
    best_allowed,
    continuous_target,
    train,
)
from offrl_nb.nets import pick

CARTPOLE, PENDULUM = load("cartpole/mixed-v0"), load("pendulum/mixed-v0")


def a_batch(dataset, streams, rows=8):
    return next(dataset.batches(rows, streams))


def test_the_mask_is_relative_and_never_empty():
    q = torch.tensor([[[1.0, 2.0, 3.0, -9.0]]])
    prob = torch.tensor([[[0.25, 0.25, 0.25, 0.25]]])  # no action has probability 0.3
    assert best_allowed(q, prob.log(), 0.3) == 2
    prob = torch.tensor([[[0.6, 0.3, 0.1, 0.0]]])
    for threshold, chosen in ((0.0, 2), (0.1, 2), (0.2, 1), (0.49, 1), (0.6, 0), (1.0, 0)):
        assert best_allowed(q - 100, prob.log(), threshold) == chosen


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": -0.1},
        {"threshold": 1.01},
        {"huber": 0.0},
        {"perturbation": 3.0},
        {"mix": 1.5},
        {"kl_weight": math.nan},
        {"act_samples": 0},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Config(**wrong)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
def test_an_action_that_no_row_contains_is_never_played(threshold):
    """Where all rewards are negative, its value stays above those of the others."""
    columns = arrays(200, 10, discrete=True)
    columns |= {"action": np.where(columns["action"] == 1, 3, columns["action"])}
    columns["reward"] = columns["reward"] - 5
    log = from_arrays(**columns, action_space=gymnasium.spaces.Discrete(4))
    assert log.allowed.tolist() == [True, False, True, True]
    config = Config(threshold=threshold, discount=0.5, huber=1e6, updates=200)
    nets, _ = train(log, config, [0, 1])
    obs = log.obs.expand(2, -1, -1)
    assert (nets.critic(obs)[0].argmax(-1) == 1).float().mean() > 0.9  # the test can tell
    assert not (nets.policy.mode(obs) == 1).any()
    everything = replace(log, allowed=torch.ones(4, dtype=torch.bool))
    free, _ = train(everything, config, [0, 1])
    assert (free.policy.mode(obs) == 1).any() == (threshold == 0)


def test_the_discrete_target_masks_bootstraps_and_values_with_the_slow_copy(monkeypatch):
    """One update without learning: what the critic regresses on is found from the loss."""
    streams, config = Streams(2), Config(threshold=0.5, discount=0.9, huber=1e6)
    nets, batch = DiscreteNets(CARTPOLE, config, streams), a_batch(CARTPOLE, streams)
    batch = batch._replace(terminated=torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 1]).expand(2, -1))
    with torch.no_grad():
        for parameter in nets.target_critic.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    log_prob = nets.clone.log_probs(batch.next_obs)
    allowed = log_prob >= log_prob.amax(-1, keepdim=True) + math.log(0.5)
    chosen = torch.where(allowed, nets.critic(batch.next_obs)[0], torch.tensor(-1e9)).argmax(-1)
    next_q = pick(nets.target_critic(batch.next_obs)[0], chosen)
    target = batch.reward + 0.9 * (1 - batch.terminated) * next_q
    wanted = ((nets.value(batch.obs, batch.action) - target) ** 2).mean(-1) / 2

    monkeypatch.setattr(bcq, "minimise", lambda loss, optimizer: None)
    monkeypatch.setattr(bcq, "polyak", lambda *_: None)
    said = bcq.discrete_update(nets, batch, config, streams, {"critic": None, "clone": None})
    assert torch.allclose(said["td_loss"], wanted, atol=1e-5)


def test_the_kl_term_is_that_of_two_normals_and_the_means_run_over_dimensions():
    streams, act_dim = Streams(3), 2
    vae = VAE(4, act_dim, streams, (8,), torch.nn.Identity())
    obs, action = streams.normal(5, 4), streams.uniform(5, act_dim) * 2 - 1
    error, kl = vae(obs, action, torch.zeros(3, 5, 2 * act_dim))
    mean, log_std = vae.encoder(torch.cat([obs, action], -1)).chunk(2, -1)
    posterior = torch.distributions.Normal(mean, log_std.exp())
    exact = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    assert torch.allclose(kl, exact.mean(-1), atol=1e-5)
    assert torch.allclose(error, ((vae.decode(obs, mean) - action) ** 2).mean(-1), atol=1e-6)


def test_the_continuous_target_is_a_maximum_over_the_proposals_of_one_state():
    streams, config = Streams(2), Config(samples=3, discount=0.9)
    nets, batch = ContinuousNets(PENDULUM, config, streams), a_batch(PENDULUM, streams)
    batch = Batch(*batch[:-1], torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 1]).expand(2, -1))
    z = streams.normal(8 * 3, 2)
    target = continuous_target(nets, batch, config, z)
    for row in range(8):
        values = []
        for i in range(3):
            state = batch.next_obs[:, row : row + 1]
            part = z[:, 3 * row + i : 3 * row + i + 1]
            action = nets.policy.propose(state, part, nets.target_shift)
            q = nets.target_critic(state, action)[..., 0]
            values.append(0.75 * torch.minimum(q[0], q[1]) + 0.25 * torch.maximum(q[0], q[1]))
        best = torch.stack(values).amax(0)
        wanted = batch.reward[:, row] + 0.9 * (1 - batch.terminated[:, row]) * best
        assert torch.allclose(target[:, row], wanted, atol=1e-5)


def test_acting_plays_the_first_critics_favourite_of_each_state():
    streams = Streams(2)
    nets = ContinuousNets(PENDULUM, Config(act_samples=7), streams)
    obs = a_batch(PENDULUM, streams).obs
    with torch.no_grad():
        nets.shift.layers[-1].weight += 5.0
    played = nets.policy.mode(obs)
    for row in range(8):
        many = obs[:, row : row + 1].expand(-1, 7, -1)
        action = nets.policy.propose(many, nets.policy.z, nets.shift)
        favourite = nets.critic(many, action)[0].argmax(-1)
        for seed in range(2):
            assert torch.allclose(played[seed, row], action[seed, favourite[seed]], atol=1e-6)
    assert torch.equal(played, nets.policy.mode(obs))  # the latents are fixed
    alone = nets.policy.mode(obs[:, 2:3])
    assert torch.allclose(played[:, 2:3], alone, atol=1e-6)  # states stay apart
    assert torch.equal(played, nets.policy.sample(obs, nets.policy.z))
    assert not torch.equal(played, nets.policy.sample(obs, streams.normal(7, 2)))


def test_what_a_seed_plays_does_not_depend_on_the_others():
    config = Config(updates=3, samples=2, act_samples=5, batch_size=8)
    obs = PENDULUM.obs[:6]
    together = train(PENDULUM, config, [3, 5])[0].policy.mode(obs.expand(2, -1, -1))
    alone = train(PENDULUM, config, [5])[0].policy.mode(obs.expand(1, -1, -1))
    assert torch.allclose(together[1], alone[0], atol=1e-5)


def test_limits():
    obs = CARTPOLE.obs[:500].expand(2, -1, -1)
    nets, _ = train(CARTPOLE, Config(threshold=1.0, updates=20), [0, 1])
    assert torch.equal(nets.policy.mode(obs), nets.clone.mode(obs))
    nets, _ = train(CARTPOLE, Config(threshold=0.0, updates=20), [0, 1])
    assert torch.equal(nets.policy.mode(obs), nets.critic(obs)[0].argmax(-1))
    config = Config(perturbation=0.0, act_samples=1, updates=20, samples=1)
    nets, _ = train(PENDULUM, config, [0, 1])
    obs = PENDULUM.obs[:50].expand(2, -1, -1)
    clone = nets.vae.decode(obs, nets.policy.z.clamp(-0.5, 0.5).expand(-1, 50, -1))
    assert torch.allclose(nets.policy.mode(obs), clone, atol=1e-6)


def test_the_leash_holds():
    nets, _ = train(PENDULUM, Config(perturbation=0.05, updates=20, samples=2), [0])
    obs = PENDULUM.obs[:200].expand(1, -1, -1)
    z = Streams([0]).normal(200, 2)
    free = nets.vae.decode(obs, z.clamp(-0.5, 0.5))
    assert (nets.policy.propose(obs, z, nets.shift) - free).abs().max() <= 0.05 + 1e-6
