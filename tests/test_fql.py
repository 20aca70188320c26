"""Flow matching and FQL: losses by hand, exact flows, and the limits that the method must reach."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import small_log

from offrl_nb import DataError, Streams, adam, load, minimise
from offrl_nb.methods.fql import (
    Config,
    Nets,
    Velocity,
    flow_action,
    flow_loss,
    gain,
    q_target,
    student_loss,
    train,
)

ENDS = torch.tensor([1.0, 0, 0, 1, 0, 0])


def setting(**changes):
    """Untrained networks of two seeds with slow critics of their own, and a batch."""
    data, config = small_log(), Config(discount=0.9, **changes)
    nets = Nets(data, config, Streams([0, 1]))
    other = Nets(data, config, Streams([5, 6]))
    nets.target_critic.load_state_dict(other.critic.state_dict())
    batch = data.rows(torch.arange(6).expand(2, -1))._replace(terminated=ENDS.expand(2, -1))
    return nets, batch, config


# The flow


def test_the_regression_is_on_the_straight_line_from_noise_to_action():
    obs, action, noise = torch.zeros(2, 3, 1), torch.full((2, 3, 2), 0.5), torch.ones(2, 3, 2)
    time = torch.tensor([0.0, 0.5, 1.0])[:, None].expand(2, 3, 1)

    def velocity(obs, x, time):
        assert torch.allclose(x[0, :, 0], torch.tensor([1.0, 0.75, 0.5]))  # noise, middle, action
        return torch.zeros_like(x)

    assert torch.allclose(flow_loss(velocity, obs, action, noise, time), torch.tensor([0.25, 0.25]))


def test_euler_begins_at_time_0_and_clips_at_the_end_only():
    seen = []

    def velocity(obs, x, time):
        seen.append((time.mean().item(), x.max().item()))
        return -2 * torch.ones_like(x)

    found = flow_action(velocity, None, torch.full((1, 4, 1), 2.5), 4)
    assert np.allclose(seen, [(0, 2.5), (0.25, 2.0), (0.5, 1.5), (0.75, 1.0)])
    assert torch.allclose(found, torch.full((1, 4, 1), 0.5))
    assert flow_action(velocity, None, torch.full((1, 1, 1), 9.0), 4).item() == 1


@pytest.mark.parametrize("steps", [1, 5])
def test_a_flow_with_two_modes_reaches_both_and_one_step_only_the_mean(steps):
    corners = torch.tensor([[-0.6, -0.6], [0.6, 0.6]])
    streams = Streams([3, 4])
    velocity = Velocity(small_log(), (64, 64), streams)
    optimizer, obs = adam(velocity, 3e-3), torch.zeros(2, 64, 3)
    for _ in range(400):
        action = corners[streams.integers(2, 64)]
        loss = flow_loss(velocity, obs, action, streams.normal(64, 2), streams.uniform(64, 1))
        minimise(loss, optimizer)
    with torch.no_grad():
        x = flow_action(velocity, obs, streams.normal(64, 2), 20 if steps > 1 else 1)
    if steps == 1:
        assert x.abs().mean() < 0.25
    else:
        near = (x.unsqueeze(-2) - corners).norm(dim=-1) < 0.35  # [S, B, 2]
        assert (near.float().mean(1) > 0.2).all() and near.any(-1).float().mean() > 0.75


# Losses by hand


def test_the_target_asks_the_student_and_averages_two_slow_critics():
    nets, batch, config = setting()
    noise = Streams([7, 8]).normal(6, 2)
    action = nets.one_step(batch.next_obs, noise).clamp(-1, 1)
    future = nets.target_critic(batch.next_obs, action).mean(0)
    wanted = batch.reward + 0.9 * (1 - ENDS) * future
    found = q_target(nets, batch, config, noise)
    assert torch.allclose(found, wanted) and not found.requires_grad
    assert torch.equal(found[:, [0, 3]], batch.reward[:, [0, 3]])


@pytest.mark.parametrize("normalise_q", [True, False])
def test_the_students_loss_by_hand_and_where_it_may_learn(normalise_q):
    nets, batch, config = setting(bc_weight=0.7, normalise_q=normalise_q)
    noise = 3 * Streams([7, 8]).normal(6, 2)
    with torch.no_grad():
        nets.one_step.body.layers[-1].weight.mul_(20)  # leaves the box
    loss, said = student_loss(nets, batch.obs, config, noise)
    action = nets.one_step(batch.obs, noise)
    teacher = flow_action(nets.velocity, batch.obs, noise, 10)
    q = nets.critic(batch.obs, action.clamp(-1, 1)).mean(0)
    unit = q.abs().mean(-1) if normalise_q else 1.0
    distance = ((action - teacher) ** 2).mean((1, 2))
    assert torch.allclose(loss, 0.7 * distance - q.mean(-1) / unit)
    assert (said["outside"] > 0).all() and (action.abs() > 1).any()
    parts = (nets.velocity, nets.one_step)
    slopes = [
        torch.autograd.grad(loss.sum(), list(p.parameters()), allow_unused=True, retain_graph=True)
        for p in parts
    ]
    assert all(g is None for g in slopes[0]) and all(g is not None for g in slopes[1])


def test_a_normalised_gain_does_not_know_the_unit_of_reward():
    nets, batch, config = setting()
    before = gain(nets, batch.obs, batch.action, config)
    with torch.no_grad():
        nets.critic.body.layers[-1].weight.mul_(10)
        nets.critic.body.layers[-1].bias.mul_(10)
    assert torch.allclose(gain(nets, batch.obs, batch.action, config), before, atol=1e-5)
    raw = dataclasses.replace(config, normalise_q=False)
    assert not torch.allclose(gain(nets, batch.obs, batch.action, raw), before, atol=1e-2)


# Limits


def distil(same_noise):
    """A student of an untrained flow at an overwhelming price, and the teacher, on new noise."""
    nets, batch, config = setting(bc_weight=1e6)
    streams, student = Streams([0, 1]), nets.one_step
    optimizer = adam(student, 3e-3)
    for _ in range(400):
        noise, other = streams.normal(2, 6, 2).unbind(1)
        if not same_noise:
            nets.one_step = torch.nn.Identity()
            nets.one_step.forward = lambda obs, _: student(obs, other)  # noqa: B023
        minimise(student_loss(nets, batch.obs, config, noise)[0], optimizer)
    noise = streams.normal(6, 2)
    with torch.no_grad():
        return student(batch.obs, noise), flow_action(nets.velocity, batch.obs, noise, 10)


def test_with_a_very_large_alpha_the_student_is_its_teacher_point_by_point():
    student, teacher = distil(same_noise=True)
    assert (student - teacher).abs().mean() < 0.1 * teacher.std()


def test_with_other_noise_the_student_ignores_its_own():
    student, teacher = distil(same_noise=False)
    assert (student - teacher).abs().mean() > 0.4 * teacher.std()


# Training


def test_discrete_actions_are_refused():
    with pytest.raises(DataError, match="continuous"):
        train(load("cartpole/mixed-v0"), Config(updates=1), [0])


@pytest.mark.parametrize("variant", ["fql", "flow_bc", "backprop"])
def test_the_table_says_what_was_learned(variant):
    _, table = train(small_log(), Config(variant, updates=10), [3, 4])
    assert np.isfinite(table.flow_loss).all() and table.step.max() == 10
    assert ("distance" in table) == (variant == "fql")
    assert ("td_loss" in table) == (variant != "flow_bc")


def test_a_negative_price_is_refused():
    for wrong in ({"bc_weight": -1.0}, {"flow_steps": 0}, {"flow_hidden": (0,)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Config(**wrong)
    assert Config(bc_weight=0.0).bc_weight == 0


def test_the_flow_of_fql_is_the_clone():
    dataset = load("maze/stitch-v0")
    flows = [train(dataset, Config(v, updates=5), [0])[0].velocity for v in ("fql", "flow_bc")]
    for a, b in zip(*(flow.parameters() for flow in flows), strict=True):
        assert a.shape == b.shape  # initial values and noise are drawn in the same order
        assert torch.equal(a, b)


@pytest.mark.parametrize("variant", ["fql", "flow_bc", "backprop"])
def test_the_policy_draws_fresh_noise_and_stays_in_the_box(variant):
    nets, batch, _ = setting(variant=variant)
    first, second = nets.policy.mode(batch.obs), nets.policy.mode(batch.obs)
    assert first.shape == (2, 6, 2) and not torch.equal(first, second)
    noise = 5 * Streams([7, 8]).normal(6, 2)
    found = nets.policy.sample(batch.obs, noise)
    by_hand = flow_action(nets.velocity, batch.obs, noise, 10)
    if variant == "fql":
        by_hand = nets.one_step(batch.obs, noise).clamp(-1, 1)
    assert torch.equal(found, by_hand) and found.abs().max() <= 1


def test_the_policy_does_not_draw_what_the_networks_were_made_of():
    nets, batch, _ = setting()
    luck = Streams([0, 1]).fork("acting").normal(6, 2)
    assert torch.equal(nets.policy.mode(batch.obs), nets.policy.sample(batch.obs, luck))
