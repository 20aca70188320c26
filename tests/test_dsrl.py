"""DSRL: the noise MDP, the bound, the three losses by hand, and who learns from which."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import small_log

from offrl_nb import DataError, Streams, load
from offrl_nb.envs import make_envs
from offrl_nb.methods import dsrl, problem
from offrl_nb.methods.dsrl import (
    Config,
    Nets,
    action_target,
    actor,
    clone,
    distil_loss,
    make_update,
    steering_loss,
    train,
    train_online,
)
from offrl_nb.methods.fql import Velocity, flow_action

ENDS = torch.tensor([1.0, 0, 0, 1, 0, 0])


def setting(**changes):
    """Untrained networks of two seeds, a batch, and the settings."""
    data, config = (
        small_log(),
        Config(discount=0.9, hidden=(16, 16), flow_hidden=(16, 16), **changes),
    )
    streams = Streams([0, 1])
    nets = Nets(data, config, streams, Velocity(data, config.flow_hidden, streams))
    other = Nets(data, config, Streams([5, 6]), nets.velocity)
    nets.target_critic.load_state_dict(other.critic.state_dict())
    batch = data.rows(torch.arange(6).expand(2, -1))._replace(terminated=ENDS.expand(2, -1))
    return nets, batch, config


def luck_for(batch, seed=3):
    return Streams([seed, seed + 1]).normal(*batch.action.shape[1:])


# The noise MDP


@pytest.mark.parametrize("bound", [0.3, 1.5, 4.0])
def test_no_noise_is_larger_than_the_bound_and_the_bound_is_reached(bound):
    nets, batch, _ = setting(bound=bound)
    noise, _ = nets.choose(batch.obs, 1e4 * luck_for(batch))
    assert noise.abs().max() <= bound
    assert torch.isclose(noise.abs().max(), torch.tensor(bound))


def test_the_same_noise_gives_the_same_action_and_it_is_the_flows():
    nets, batch, config = setting()
    noise = luck_for(batch)
    first, second = nets.decode(batch.obs, noise), nets.decode(batch.obs, noise)
    assert torch.equal(first, second)
    assert torch.equal(first, flow_action(nets.velocity, batch.obs, noise, config.flow_steps))
    assert first.abs().max() <= 1
    assert not torch.equal(first, nets.decode(batch.obs, noise + 0.5))
    luck = luck_for(batch)
    steered = nets.decode(batch.obs, nets.choose(batch.obs, luck)[0])
    assert torch.equal(nets.explore(batch.obs, luck), steered)
    assert torch.equal(nets.policy.sample(batch.obs, luck), steered)


# Losses by hand


def test_losses_by_hand():
    nets, batch, config = setting()
    luck = luck_for(batch)
    noise, log_prob = nets.choose(batch.next_obs, luck)
    u, log_prob_u = nets.noise_policy.sample_with_log_prob(batch.next_obs, luck)
    assert torch.allclose(noise, 1.5 * u) and torch.equal(log_prob, log_prob_u)
    action = nets.decode(batch.next_obs, noise)
    target = action_target(nets, batch, action, log_prob, config)
    q = nets.target_critic(batch.next_obs, action).amin(0) - 0.1 * log_prob
    assert torch.allclose(target, batch.reward + 0.9 * (1 - ENDS) * q, atol=1e-6)
    assert torch.equal(target[:, [0, 3]], batch.reward[:, [0, 3]])  # nothing follows
    prior = luck_for(batch, 8)
    here = nets.decode(batch.obs, prior)
    wanted = ((nets.noise_critic(batch.obs, prior) - nets.critic(batch.obs, here)) ** 2).mean(-1)
    assert torch.allclose(distil_loss(nets, batch.obs, prior, here), wanted)
    noise, log_prob = nets.choose(batch.obs, luck)
    loss, said = steering_loss(nets, batch.obs, luck, config)
    wanted = 0.1 * log_prob - nets.noise_critic(batch.obs, noise).amin(0)
    assert torch.allclose(loss, wanted.mean(-1)) and torch.equal(said, log_prob.detach())
    loss, _ = steering_loss(nets, batch.obs, luck, dataclasses.replace(config, distil=False))
    wanted = 0.1 * log_prob - nets.critic(batch.obs, nets.decode(batch.obs, noise)).amin(0)
    assert torch.allclose(loss, wanted.mean(-1))


@pytest.mark.parametrize("distil", [True, False])
def test_who_learns_from_which_loss(distil):
    nets, batch, config = setting(distil=distil)
    prior = luck_for(batch)

    def reached(loss):
        nets.zero_grad(set_to_none=True)
        loss.sum().backward()
        return {name.split(".")[0] for name, p in nets.named_parameters() if p.grad is not None}

    action = nets.decode(batch.obs, prior)
    assert reached(distil_loss(nets, batch.obs, prior, action)) == {"noise_critic"}
    through = {"noise_policy", "noise_critic" if distil else "critic"}
    assert reached(steering_loss(nets, batch.obs, prior, config)[0]) == through


@pytest.mark.parametrize("distil", [True, False])
def test_an_update_moves_everything_but_the_flow(distil):
    nets, batch, config = setting(distil=distil)
    before = {name: p.clone() for name, p in nets.named_parameters()}
    said = make_update(nets, Streams([0, 1]), config)(1, batch)
    moved = {n.split(".")[0] for n, p in nets.named_parameters() if not torch.equal(p, before[n])}
    wanted = {"critic", "target_critic", "noise_policy", "log_coef"} | (
        {"noise_critic"} if distil else set()
    )
    assert moved == wanted
    assert all(value.shape == (2,) for value in said.values())


def test_the_critic_of_noise_learns_a_linear_critic_of_actions():
    nets, batch, _ = setting()
    streams = Streams([0, 1])
    del nets.critic  # in its place Q(s, a) = 2 a_0, with f(s, w) = w / 2 inside the box
    nets.critic = lambda obs, action: 2 * action[..., 0].expand(2, -1, -1)
    nets.decode = lambda obs, noise: (noise / 2).clamp(-1, 1)
    adam = torch.optim.Adam(nets.noise_critic.parameters(), lr=5e-3)
    losses = []
    for _ in range(400):
        noise = streams.normal(64, batch.action.shape[-1])
        obs = batch.obs[:, streams.integers(6, 64)[0]]
        loss = distil_loss(nets, obs, noise, nets.decode(obs, noise))
        adam.zero_grad()
        loss.sum().backward()
        adam.step()
        losses.append(loss.max().item())
    assert np.mean(losses[-20:]) < 0.02 * np.mean(losses[:5])


# Training


def test_discrete_actions_are_refused():
    with pytest.raises(DataError, match="continuous"):
        train(load("cartpole/mixed-v0"), Config(updates=2), seeds=[0])


@pytest.mark.parametrize("wrong", [{"bound": 0.0}, {"entropy_coef": 0.0}, {"flow_share": 0}])
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Config(**wrong)


def test_a_given_flow_is_used_and_stays_as_it_is():
    data, config = small_log(), Config(updates=3, flow_hidden=(8,), hidden=(8,))
    flow, table = clone(data, config, [0, 1])
    assert table.step.max() == 6 and not any(p.requires_grad for p in flow.parameters())
    weights = [p.clone() for p in flow.parameters()]
    nets, _ = train(data, config, [0, 1], flow=flow)
    assert nets.velocity is flow
    assert all(torch.equal(a, b) for a, b in zip(weights, flow.parameters(), strict=True))


def test_a_flow_that_is_cloned_first_is_a_part_of_the_run(monkeypatch):
    data, config = small_log(), Config(updates=3, flow_hidden=(8,), hidden=(8,))

    def stopped(*given):
        flow, table = clone(*given)
        table.attrs |= {"seconds": 100.0, "stopped": "stopped by hand in update 5 of 6"}
        return flow, table

    monkeypatch.setattr(dsrl, "clone", stopped)
    _, table = train(data, config, [0, 1])
    assert table.attrs["seconds"] > 100 and table.attrs["stopped"].startswith("stopped by hand")
    assert not len(table)


def test_online_steps_and_updates_alternate_for_both_learners():
    fog, seeds = load("fog/two-route-v0"), [0, 1]
    config = Config(updates=5, flow_hidden=(8,), hidden=(8,), flow_steps=2, batch_size=8)
    flow, _ = clone(fog, config, seeds)
    nets = Nets(fog, config, Streams(seeds), flow)
    table, replay = train_online(make_envs(fog.env, 2, learn=True), nets, config, seeds)
    assert replay.filled == 205 and table.step.max() == 5
    sac = problem.Config(updates=5, hidden=(8,), batch_size=8)
    learner = problem.Nets(3, 1, Streams(seeds), sac)
    envs = make_envs(fog.env, 2, learn=True)
    _, replay = train_online(envs, learner, sac, seeds, problem.make_update)
    assert replay.filled == 205


def test_evaluating_online_changes_no_step_and_draws_other_noise():
    fog, seeds = load("fog/two-route-v0"), [0, 1]
    config = Config(updates=4, flow_hidden=(8,), hidden=(8,), flow_steps=2, batch_size=8)
    flow, _ = clone(fog, config, seeds)
    drawn, replays = [], []

    class Watched(Nets):
        def explore(self, obs, noise):
            drawn.append(noise[0].item())
            return super().explore(obs, noise)

    def look(act, count):
        act(torch.tensor([0.0, 1.0, 0.0]).expand(count, 1, -1))
        return {"return": np.zeros(count)}

    for evaluate in (None, look):
        drawn.clear()
        nets = Watched(fog, config, Streams(seeds), flow)
        envs = make_envs(fog.env, 2, learn=True)
        replays += [train_online(envs, nets, config, seeds, evaluate=evaluate)[1].rows]
    assert torch.equal(*replays)
    assert len(drawn) == len(set(drawn)) == 204 + 4  # steps and evaluations


def test_the_policy_draws_from_a_stream_of_its_own():
    nets, batch, _ = setting()
    first = nets.policy.mode(batch.obs)
    assert not torch.equal(first, nets.policy.mode(batch.obs))
    luck = Streams([0, 1]).fork("acting").normal(*batch.action.shape[1:])
    assert torch.equal(first, nets.policy.sample(batch.obs, luck))
    act = actor(nets, batch.action.shape[-1], Streams([0, 1]).fork("acting"))
    assert torch.equal(first, act(batch.obs))
