"""Explicit constraints: targets and losses by hand, the limits, the next logged action, discrete actions."""

import dataclasses
import math

import gymnasium
import numpy as np
import pytest
import torch
from conftest import arrays, small_log

from offrl_nb import DataError, Streams, from_arrays, load
from offrl_nb.data import Batch
from offrl_nb.methods import bc, td3bc
from offrl_nb.methods.problem import td3_target
from offrl_nb.methods.td3bc import (
    Config,
    Nets,
    brac_target,
    next_logged,
    outlook,
    policy_loss,
    rebrac_target,
    train,
)

ENDS = torch.tensor([1.0, 0, 0, 1, 0, 0])


def setting(variant, discrete=False, **changes):
    """A log, untrained networks of two seeds with a clone, a batch and noise."""
    data, streams = small_log(discrete), Streams(2)
    config = Config(variant, discount=0.9, **changes)
    clone = None
    if variant.startswith("brac"):
        clone = bc.make_policy(data, bc.Config("tanh_gaussian"), Streams([7, 8]))
    nets = Nets(data, config, streams, clone)
    batch = data.rows(torch.arange(6).expand(2, -1))._replace(terminated=ENDS.expand(2, -1))
    noise = streams.normal(4, *batch.action.shape[1:]).movedim(0, 1)
    return data, nets, batch, config, noise


def test_the_next_logged_action_stays_inside_its_episode():
    data = small_log()
    action, known = next_logged(data)
    assert known.tolist() == [1, 1, 0, 1, 1, 0]
    rows = torch.tensor([0, 1, 3, 4])
    assert torch.equal(action[rows], data.action[rows + 1])
    # where a log is recorded without gaps, that is the action taken in next_obs
    pendulum = load("pendulum/mixed-v0")
    _, known = next_logged(pendulum)
    inside = known[:-1].bool()
    assert torch.equal(pendulum.next_obs[:-1][inside], pendulum.obs[1:][inside])


def test_rebrac_target_by_hand_and_td3s_without_the_penalty():
    _, nets, batch, config, noise = setting("rebrac", next_weight=0.3)
    next_action, known = torch.rand(2, 6, 2), torch.tensor([1.0, 1, 0, 1, 1, 0]).expand(2, -1)
    smoothing = (0.2 * noise[0]).clamp(-0.5, 0.5)
    action = (nets.policy.mode(batch.next_obs) + smoothing).clamp(-1, 1)
    q = nets.critic(batch.next_obs, action).amin(0)
    far = ((action - next_action) ** 2).sum(-1)
    wanted = batch.reward + 0.9 * (1 - ENDS) * (q - 0.3 * known * far)
    target = rebrac_target(nets, batch, (next_action, known), config, noise[0])
    assert torch.allclose(target, wanted, atol=1e-6)
    free = dataclasses.replace(config, next_weight=0.0)
    without = rebrac_target(nets, batch, (next_action, known), free, noise[0])
    assert torch.allclose(without, td3_target(nets, batch, config, noise[0]), atol=1e-6)
    assert torch.allclose(without[:, [2, 5]], target[:, [2, 5]])  # nothing to compare with
    assert torch.equal(target[:, [0, 3]], batch.reward[:, [0, 3]])  # nothing follows


def test_rebrac_has_layer_norm_and_one_more_layer_in_the_critic_only():
    _, nets, *_ = setting("rebrac")
    names = dict(nets.named_parameters())
    assert "critic.body.norms.2.gain" in names and "critic.body.layers.3.weight" in names
    assert not any("policy" in n and ("gain" in n or "layers.3" in n) for n in names)


@pytest.mark.parametrize("variant", ["brac_v", "brac_p", "ac_bc"])
def test_only_brac_v_pays_in_the_target_and_with_a_minus(variant):
    _, nets, batch, config, noise = setting(variant, kl_coef=0.7)
    action, log_pi = nets.policy.sample_with_log_prob(batch.next_obs, noise)
    q = nets.critic(batch.next_obs, action[0]).amin(0)
    kl = torch.zeros_like(q)
    if nets.clone:
        kl = (log_pi - nets.clone.log_prob(batch.next_obs, action)).mean(0)
        assert kl.abs().min() > 1e-3
    wanted = batch.reward + 0.9 * (1 - ENDS) * (q - 0.7 * kl * (variant == "brac_v"))
    assert torch.allclose(brac_target(nets, batch, config, noise), wanted, atol=1e-5)


def test_the_divergence_of_two_equal_policies_is_zero_and_samples_estimate_it():
    _, nets, batch, *_ = setting("brac_p")
    noise = Streams(2).normal(20_000, 6, 2).movedim(0, 1)
    with torch.no_grad():
        _, kl = outlook(nets, nets.critic, batch.obs, noise)
        (m, s), (mean, std) = nets.policy.normal(batch.obs), nets.clone.normal(batch.obs)
        # the tanh is the same on both sides, so this is the KL of two normals
        normals = torch.distributions.kl_divergence(
            torch.distributions.Normal(m, s), torch.distributions.Normal(mean, std)
        ).sum(-1)
        nets.clone = nets.policy
        _, none = outlook(nets, nets.critic, batch.obs, noise[:4].clamp(-1, 1))
    assert torch.allclose(kl, normals, rtol=0.1, atol=0.02)
    assert none.abs().max() < 1e-3


@pytest.mark.parametrize("variant", ["brac_v", "brac_p", "td3bc", "ac_bc"])
def test_discrete_actions_are_summed_exactly(variant):
    _, nets, batch, config, noise = setting(variant, discrete=True)
    pi = nets.policy.log_probs(batch.obs).exp()
    q = nets.critic(batch.obs).amin(0)
    value, kl = outlook(nets, nets.critic, batch.obs, noise)
    assert torch.allclose(value, (pi * q).sum(-1), atol=1e-6)
    picked = nets.critic(batch.obs, batch.action).amin(0)
    assert torch.equal(picked, q.gather(-1, batch.action[..., None]).squeeze(-1))
    if variant.startswith("brac"):
        beta = nets.clone.log_probs(batch.obs).exp()
        wanted = (pi * (pi / beta).log()).sum(-1)
        loss, _ = policy_loss(nets, batch, config, noise)
        assert torch.allclose(kl, wanted, atol=1e-6)
        assert torch.allclose(loss, (wanted - value).mean(-1), atol=1e-5)
    else:
        assert torch.equal(kl, torch.zeros_like(kl))


def test_td3bc_loss_by_hand_one_critic_one_scale_a_seed():
    _, nets, batch, config, noise = setting("td3bc")
    action = nets.policy.mode(batch.obs)
    q = nets.critic(batch.obs, action)[0]
    scale = 2.5 / q.abs().mean(-1, keepdim=True)
    wanted = ((action - batch.action) ** 2).mean((-1, -2)) - (scale * q).mean(-1)
    loss, said = policy_loss(nets, batch, config, noise)
    assert torch.allclose(loss, wanted, atol=1e-6)
    assert torch.allclose(said["scale"], scale.flatten(), atol=1e-4)
    by_hand = ((action - batch.action) ** 2).mean((-1, -2)) - (scale.detach() * q).mean(-1)
    parameters = list(nets.policy.parameters())
    slopes = zip(
        torch.autograd.grad(loss.sum(), parameters),
        torch.autograd.grad(by_hand.sum(), parameters),
        strict=True,
    )
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in slopes)


def test_rebrac_loss_by_hand_both_critics_squares_summed():
    _, nets, batch, config, noise = setting("rebrac", bc_weight=0.2)
    action = nets.policy.mode(batch.obs)
    q = nets.critic(batch.obs, action).amin(0)
    wanted = 0.2 * ((action - batch.action) ** 2).sum(-1).mean(-1)
    wanted = wanted - q.mean(-1) / q.abs().mean(-1)
    loss, _ = policy_loss(nets, batch, config, noise)
    assert torch.allclose(loss, wanted, atol=1e-5)


def cloned(dataset, config, variant_head):
    """BC's weights after the batches that `train` draws, by chapter BC's loss."""
    streams = Streams([0, 1])
    policy = Nets(dataset, config, streams).policy
    optimizer = torch.optim.Adam(policy.parameters(), lr=config.learning_rate)
    delay = 2 if variant_head == "deterministic" else 1
    for number in range(config.updates):
        batch = dataset.rows(streams.integers(len(dataset), config.batch_size))
        streams.normal(2, config.samples, *batch.action.shape[1:])
        if number % delay == 0:
            optimizer.zero_grad()
            bc.bc_loss(policy, batch)[0].sum().backward()
            optimizer.step()
    return policy


@pytest.mark.parametrize("dataset_id", ["pendulum/mixed-v0", "cartpole/mixed-v0"])
@pytest.mark.parametrize("variant", ["td3bc", "ac_bc"])
def test_without_weight_on_the_value_it_is_bc(variant, dataset_id):
    dataset = load(dataset_id)
    config = Config(variant, q_weight=0.0, updates=20)
    nets, _ = train(dataset, config, [0, 1])
    deterministic = variant == "td3bc" and not dataset.n_actions
    other = dataclasses.replace(config, variant=variant if deterministic else "ac_bc")
    policy = cloned(dataset, other, "deterministic" if deterministic else "stochastic")
    pairs = zip(nets.policy.parameters(), policy.parameters(), strict=True)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)


@pytest.mark.parametrize("dataset_id", ["cartpole/mixed-v0", "windy/mixed-v0"])
@pytest.mark.parametrize("variant", ["td3bc", "ac_bc", "brac_v", "brac_p"])
def test_discrete_actions_train_and_seeds_stay_apart(variant, dataset_id):
    dataset, config = load(dataset_id), Config(variant, updates=15)
    together, log = train(dataset, config, [3, 4])
    alone, _ = train(dataset, config, [4])
    assert np.isfinite(log.td_loss).all()
    for a, b in zip(together.policy.parameters(), alone.policy.parameters(), strict=True):
        assert torch.allclose(a[1:], b, atol=1e-4)


def test_discrete_td3bc_is_ac_bc_and_rebrac_refuses():
    dataset = load("cartpole/mixed-v0")
    nets = [train(dataset, Config(v, updates=10), [0])[0] for v in ("td3bc", "ac_bc")]
    pairs = zip(nets[0].parameters(), nets[1].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    with pytest.raises(DataError, match="ReBRAC needs continuous actions"):
        train(dataset, Config("rebrac", updates=1), [0])


def test_the_clone_is_trained_first_and_then_left_alone():
    dataset = load("pendulum/narrow-v0")
    config = Config("brac_p", updates=10)
    nets, _ = train(dataset, config, [0, 1])
    like = bc.Config("tanh_gaussian", updates=10)
    clone, _ = bc.train(dataset, like, [0, 1])
    pairs = zip(nets.clone.parameters(), clone.policy.parameters(), strict=True)
    assert all(torch.equal(a, b) and not a.requires_grad for a, b in pairs)


def test_bracs_policy_and_clone_begin_with_different_weights(monkeypatch):
    """They were the same to the bit once: both come from the same seeds."""
    monkeypatch.setattr(bc, "fit", lambda *_: None)
    monkeypatch.setattr(td3bc, "fit", lambda *_: None)
    nets, _ = train(load("pendulum/narrow-v0"), Config("brac_v"), [0, 1])
    policy, clone = (net.body.layers[0].weight for net in (nets.policy, nets.clone))
    assert (policy == clone).float().mean() < 0.01


@pytest.mark.parametrize("variant", ["td3bc", "ac_bc", "brac_v", "brac_p"])
def test_an_action_that_no_row_contains_is_never_played(variant):
    """Negative rewards: the untouched guess for such an action would be the best value of all."""
    columns = arrays(200, 10, discrete=True)
    columns["action"] = np.where(columns["action"] == 1, 3, columns["action"])
    columns["reward"] = columns["reward"] - 5
    log = from_arrays(**columns, action_space=gymnasium.spaces.Discrete(4))
    config = Config(variant, discount=0.5, kl_coef=0.1, updates=300)
    nets, table = train(log, config, [0, 1])
    obs = log.obs.expand(2, -1, -1)
    assert (nets.critic(obs).amin(0).argmax(-1) == 1).float().mean() > 0.9  # the test can tell
    assert not (nets.policy.mode(obs) == 1).any()
    assert not (nets.policy.sample(obs, Streams(2).uniform(200, 4)) == 1).any()
    # nor does it count in a target
    noise = torch.zeros(config.samples, 2, 200)
    value, kl = outlook(nets, nets.critic, obs, noise)
    pi, q = nets.policy.log_probs(obs).exp(), nets.critic(obs).amin(0)
    assert (pi[..., 1] == 0).all() and torch.isfinite(kl).all()
    assert torch.allclose(value, (pi * q)[..., [0, 2, 3]].sum(-1), atol=1e-5)
    assert np.isfinite(table.select_dtypes("number")).all(None)
    if variant == "ac_bc":  # as it was before
        everything = dataclasses.replace(log, allowed=torch.ones(4, dtype=torch.bool))
        free, _ = train(everything, dataclasses.replace(config, q_weight=25.0), [0, 1])
        assert (free.policy.mode(obs) == 1).any()


@pytest.mark.parametrize("name", ["q_weight", "bc_weight", "next_weight", "kl_coef"])
def test_negative_prices_are_refused(name):
    for value in (-1.0, math.inf):
        with pytest.raises(ValueError, match=name):
            Config(**{name: value})


def test_a_high_price_keeps_brac_at_its_clone():
    dataset = load("cartpole/mixed-v0")
    config = Config("brac_v", kl_coef=1e4, updates=400)
    nets, log = train(dataset, config, [0, 1])
    obs = dataset.obs[::100].expand(2, -1, -1)
    gap = (nets.policy.log_probs(obs).exp() - nets.clone.log_probs(obs).exp()).abs()
    assert gap.mean() < 0.05 and log.kl.iloc[-1] < 0.05


def test_batches_are_named_tuples_of_one_log():
    """`next_logged` indexes the rows that `Dataset.rows` returns; both count from the same row."""
    data = small_log()
    index = torch.tensor([[4, 0], [1, 3]])
    batch, (action, _) = data.rows(index), next_logged(data)
    assert isinstance(batch, Batch)
    assert torch.equal(action[index], data.rows(index + 1).action)
