"""Oracles for behaviour cloning: the answers that the derivations promise."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

from offrl_nb import Streams, from_arrays, load
from offrl_nb.methods.bc import Categorical, Config, bc_loss, best_episodes, make_policy, train


def one_step_log(obs, action):
    """Every row an episode of its own."""
    n, zeros = len(obs), np.zeros(len(obs))
    done = np.ones(n, bool)
    return from_arrays(obs, action, zeros, obs, done, ~done, np.arange(n))


def test_categorical_head_recovers_action_frequencies():
    generator = np.random.default_rng(0)
    state = generator.integers(2, size=6000)
    frequencies = np.array([[0.7, 0.2, 0.1], [0.05, 0.05, 0.9]])
    action = np.array([generator.choice(3, p=frequencies[s]) for s in state])
    data = one_step_log(np.eye(2)[state], action)
    nets, _ = train(data, Config(batch_size=512, updates=1500, learning_rate=3e-3), range(2))
    learned = nets.policy.log_probs(torch.eye(2).expand(2, 2, 2)).exp().detach()
    counts = np.array(
        [np.bincount(action[state == s], minlength=3) / (state == s).sum() for s in (0, 1)]
    )
    assert np.allclose(learned, counts, atol=0.03)


@pytest.mark.parametrize("head", ["deterministic", "gaussian"])
def test_squared_error_and_gaussian_recover_the_conditional_mean(head):
    generator = np.random.default_rng(0)
    obs = generator.uniform(-1, 1, (4000, 1))
    action = 0.5 * obs + 0.1 * generator.standard_normal((4000, 1))
    nets, _ = train(
        one_step_log(obs, action), Config(head=head, updates=2000, learning_rate=3e-3), range(2)
    )
    grid = torch.linspace(-0.9, 0.9, 19).view(1, -1, 1).expand(2, -1, -1)
    assert (nets.policy.mode(grid) - 0.5 * grid).abs().max() < 0.05
    if head == "gaussian":
        assert (nets.policy.std().flatten() - 0.1).abs().max() < 0.01


def test_tanh_gaussian_recovers_the_gaussian_before_the_tanh():
    generator = np.random.default_rng(0)
    u = 0.8 + 0.5 * generator.standard_normal((6000, 1))
    data = one_step_log(np.zeros((6000, 1)), np.tanh(u))
    nets, _ = train(data, Config(head="tanh_gaussian", updates=1500, batch_size=512), range(2))
    mean, std = nets.policy.normal(torch.zeros(2, 1, 1))
    assert (mean - 0.8).abs().max() < 0.05 and (std - 0.5).abs().max() < 0.05


def test_the_loss_is_the_single_seed_loss_of_each_seed():
    data, streams = load("pendulum/mixed-v0"), Streams([0, 1, 2])
    batch = data.rows(streams.integers(len(data), 16))
    for head in ("deterministic", "gaussian", "tanh_gaussian"):
        policy = make_policy(data, Config(head=head), streams)
        loss, diagnostics = bc_loss(policy, batch)
        assert loss.shape == (3,) and torch.equal(loss, diagnostics["loss"])
        if head == "deterministic":
            assert torch.allclose(
                loss, ((policy.mode(batch.obs) - batch.action) ** 2).mean((-1, -2))
            )
        else:
            assert torch.allclose(loss, -policy.log_prob(batch.obs, batch.action).mean(-1))
        gradient = torch.autograd.grad(loss[1], list(policy.parameters()))
        for g in gradient:
            assert g[0].abs().sum() == 0 and g[2].abs().sum() == 0 and g[1].abs().sum() > 0


def test_best_episodes_keeps_whole_episodes_up_to_a_share_of_the_steps():
    lengths, returns = [10, 20, 30, 40], [4.0, 1.0, 3.0, 2.0]
    episode = np.repeat(np.arange(4), lengths)
    reward = np.repeat(np.array(returns) / lengths, lengths)
    ends = np.append(np.diff(episode) > 0, True)
    obs = np.zeros((100, 1))
    data = from_arrays(obs, np.zeros((100, 1)), reward, obs, ends, ~ends & False, episode)
    kept = {0.05: [10], 0.1: [10], 0.11: [10, 30], 0.4: [10, 30], 0.41: [10, 30, 40], 1.0: lengths}
    for top, wanted in kept.items():
        assert best_episodes(data, top).lengths().tolist() == wanted, top


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        *(
            ({"top": top}, r"top is .*; it must be a number in \(0, 1\]")
            for top in (0.0, -1.0, 1.1)
        ),
        ({"head": "mixture"}, "one of deterministic, gaussian, tanh_gaussian"),
        ({"hidden": (0,)}, "hidden"),
        ({"learning_rate": 0.0}, "learning_rate"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        Config(**wrong)


def test_an_action_that_nobody_took_is_never_played_nor_believed_in():
    obs, action = np.eye(3)[np.arange(60) % 3], np.array([0, 2] * 30)
    data = replace(one_step_log(obs, action), action_space=gym.spaces.Discrete(4))
    data = data.concatenate()  # which actions are allowed is counted anew
    nets, _ = train(data, Config(updates=20), range(2))
    anywhere = 100 * Streams(2).normal(500, 3)
    noise = Streams(2).uniform(500, 4)
    assert torch.equal(data.allowed, torch.tensor([True, False, True, False]))
    for played in (nets.policy.mode(anywhere), nets.policy.sample(anywhere, noise)):
        assert torch.isin(played, torch.tensor([0, 2])).all()
    assert (nets.policy.log_probs(anywhere).exp()[..., [1, 3]] == 0).all()
    everything = replace(data, allowed=torch.ones(4, dtype=torch.bool))
    free, _ = train(everything, Config(updates=1), range(2))
    assert (free.policy.log_probs(anywhere).exp()[..., [1, 3]] > 0).any()


def test_a_log_with_all_actions_restricts_nothing():
    masked, free = (
        Categorical(3, 2, Streams(2), allowed=allowed)
        for allowed in (torch.ones(2, dtype=torch.bool), None)
    )
    obs = Streams(2).normal(50, 3)
    assert torch.equal(masked.logits(obs), free.logits(obs))


def test_everything_kept_is_plain_cloning():
    data = load("pendulum/narrow-v0")
    plain, _ = train(data, Config(updates=20), range(2))
    all_kept, _ = train(data, Config(variant="percent", top=1.0, updates=20), range(2))
    for a, b in zip(plain.parameters(), all_kept.parameters(), strict=True):
        assert torch.equal(a, b)
    part, _ = train(data, Config(variant="percent", top=0.2, updates=1), range(2))
    wanted = best_episodes(data, 0.2).obs.mean(0)
    assert torch.allclose(part.policy.body.normaliser.mean, wanted)  # statistics of what is cloned
