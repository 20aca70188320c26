"""The off-policy learner of chapter `problem`: targets, ensembles, the replay, the online loop."""

import dataclasses

import numpy as np
import pytest
import torch

from offrl_nb import Batch, DataError, Streams, evaluator, load
from offrl_nb.envs import make_envs
from offrl_nb.methods.problem import (
    Config,
    Nets,
    Replay,
    critic_loss,
    interact,
    sac_target,
    similarity,
    td3_target,
    train,
    train_online,
)


def random_batch(streams, rows=6, obs_dim=3, act_dim=2):
    return Batch(
        streams.normal(rows, obs_dim),
        streams.uniform(rows, act_dim) * 2 - 1,
        streams.normal(rows),
        streams.normal(rows, obs_dim),
        torch.tensor([1.0, 0, 0, 1, 0, 0]).expand(len(streams), -1),
    )


@pytest.mark.parametrize(("variant", "make"), [("sac", sac_target), ("td3", td3_target)])
def test_targets_bootstrap_unless_the_task_has_ended(variant, make):
    streams, config = Streams(2), Config(variant, discount=0.9)
    nets, batch = Nets(3, 2, streams, config), random_batch(streams)
    nets.log_coef.data.fill_(-2.0)
    noise = streams.normal(6, 2)
    if variant == "sac":
        action, log_prob = nets.policy.sample_with_log_prob(batch.next_obs, noise)
        bonus = -np.exp(-2.0) * log_prob
    else:
        action = (nets.policy.mode(batch.next_obs) + (0.2 * noise).clamp(-0.5, 0.5)).clamp(-1, 1)
        bonus = 0.0
    q = nets.critic(batch.next_obs, action)  # the slow copy still has the same weights
    wanted = batch.reward + 0.9 * (torch.minimum(q[0], q[1]) + bonus) * (1 - batch.terminated)
    target = make(nets, batch, config, noise)
    assert torch.allclose(target, wanted, atol=1e-6)
    assert torch.equal(target[:, [0, 3]], batch.reward[:, [0, 3]])
    loss, said = critic_loss(nets, batch, target)
    by_hand = ((nets.critic(batch.obs, batch.action) - wanted) ** 2).mean(-1)
    assert torch.allclose(loss, by_hand, atol=1e-5) and loss.shape == (2, 2)
    assert torch.allclose(said["td_loss"], by_hand.mean(0), atol=1e-5)


def test_similarity_is_the_mean_cosine_of_the_critics_slopes():
    streams, config = Streams(2), Config("edac", ensemble=4)
    nets, batch = Nets(3, 2, streams, config), random_batch(streams)
    action = batch.action.clone().requires_grad_()
    slopes = [
        torch.autograd.grad(nets.critic(batch.obs, action)[k].sum(), action)[0] for k in range(4)
    ]
    cosine = torch.nn.functional.cosine_similarity
    pairs = [cosine(slopes[i], slopes[j], -1) for i in range(4) for j in range(4) if i != j]
    wanted = torch.stack(pairs).sum(0).mean(-1) / 3
    assert torch.allclose(similarity(nets, batch), wanted, atol=1e-5)


def last_weights(config, dataset):
    nets, _ = train(dataset, dataclasses.replace(config, updates=15), [0, 1])
    return torch.cat([p.detach().flatten() for p in nets.parameters()])


def test_limits_two_critics_are_sac_and_no_diversity_is_sac_n():
    dataset = load("pendulum/narrow-v0")
    two = Config("sac_n", ensemble=2)
    assert torch.equal(last_weights(two, dataset), last_weights(Config("sac"), dataset))
    five, without = Config("sac_n", ensemble=5), Config("edac", ensemble=5, diversity_weight=0.0)
    assert torch.allclose(last_weights(five, dataset), last_weights(without, dataset), atol=1e-5)
    single = Nets(3, 1, Streams(2), Config("single"))
    assert single.critic(torch.zeros(2, 4, 3), torch.zeros(2, 4, 1)).shape == (1, 2, 4)


def test_without_a_slow_copy_the_target_is_the_critic():
    dataset = load("pendulum/narrow-v0")
    nets, _ = train(dataset, Config("no_target", updates=3), [0])
    pairs = zip(nets.critic.parameters(), nets.target_critic.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    nets, _ = train(dataset, Config("sac", updates=3), [0])
    pairs = zip(nets.critic.parameters(), nets.target_critic.parameters(), strict=True)
    assert not any(torch.equal(a, b) for a, b in pairs)


def test_discrete_actions_are_refused():
    with pytest.raises(DataError, match="needs continuous actions"):
        train(load("cartpole/mixed-v0"), Config(updates=1), [0])


def test_the_replay_gives_every_seed_its_own_rows():
    streams = Streams(3)
    replay = Replay(1, 1, streams, capacity=50)
    for step in range(20):
        own = 100.0 * torch.arange(3).view(3, 1, 1) + step
        zero = torch.zeros(3, 1, 1)
        replay.add(own, zero, own + 0.5, own + 1, zero, zero)
    batch = replay.sample(400)
    assert batch.obs.shape == (3, 400, 1) and batch.reward.shape == (3, 400)
    for seed in range(3):
        seen = batch.obs[seed, :, 0]
        assert set(seen.tolist()) == {100.0 * seed + step for step in range(20)}  # all, no others
        assert torch.equal(batch.reward[seed], seen + 0.5)
        assert torch.equal(batch.next_obs[seed, :, 0], seen + 1)


def hopper_rows(seeds, count, steps):
    """obs, action, reward, next_obs, ends of a few steps of interaction, each [S, count, steps, ...]."""
    streams, config = Streams(seeds), Config()
    envs = make_envs("Hopper-v5", len(seeds) * count, learn=True)
    nets = Nets(11, 3, streams, config)
    plays = interact(envs, nets, streams, steps * count, random_steps=20 * count)
    for _ in range(steps):
        replay = next(plays)
    rows = replay.rows.unflatten(1, (steps, count)).transpose(1, 2)
    return rows.split(replay.sizes, dim=-1)


def test_interaction_chains_within_episodes_and_resets_only_what_is_over():
    obs, action, _, next_obs, terminated, truncated = hopper_rows([0, 1], 3, 60)
    over = (terminated + truncated).squeeze(-1).bool()[:, :, :-1]
    chained = (next_obs[:, :, :-1] == obs[:, :, 1:]).all(-1)
    assert over.any() and torch.equal(chained, ~over)
    starts = obs[:, :, 1:][over]
    assert (starts[:, 0] > 1.2).all()  # a new episode begins upright
    assert action.abs().max() <= 1 and action.std() > 0.3


def test_interaction_of_a_seed_does_not_depend_on_the_others():
    together, alone = hopper_rows([4, 7], 2, 40), hopper_rows([7], 2, 40)
    for a, b in zip(together, alone, strict=True):
        assert torch.allclose(a[1], b[0], atol=1e-5)


def test_online_the_same_learner_learns():
    """200 steps are far too few to swing up, but the critic must follow what it sees."""
    evaluate = evaluator(load("pendulum/narrow-v0"), episodes=1)
    nets, log = train_online("Pendulum-v1", Config(updates=200), [0, 1], evaluate, evaluations=1)
    assert log.attrs["updates"] == 200 and log["return"].notna().sum() == 2
    assert (log[log.step == 200].q_data < -0.5).all()  # rewards are negative; values started at 0
    going_on, _ = train_online("Pendulum-v1", Config(updates=5), [0, 1], nets=nets)
    assert going_on is nets


def test_going_on_draws_no_number_a_second_time(monkeypatch):
    """`train` began with the streams of the same seeds; what is played online must not repeat them."""
    played = []

    def looked_at(self, obs, noise):
        played.append(noise)
        return explore(self, obs, noise)

    explore = Nets.explore
    monkeypatch.setattr(Nets, "explore", looked_at)
    nets, _ = train(load("pendulum/narrow-v0"), Config(updates=1), [0, 1])
    train_online("Pendulum-v1", Config(updates=1), [0, 1], nets=nets)
    first = Streams([0, 1]).normal(1, 1)
    assert played and not torch.isclose(played[0], first).any()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"ensemble": 1}, "ensemble"),
        ({"diversity_weight": -1.0}, "diversity_weight"),
        ({"discount": 1.5}, "discount"),
        ({"target_rate": 0.0}, "target_rate"),
        ({"variant": "ddpg"}, "one of sac, td3"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        Config(**wrong)
