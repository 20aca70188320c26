"""IDQL: the schedule, the sampler against closed forms, the choice among proposals, and N = 1."""

import math

import numpy as np
import pytest
import torch
from conftest import small_log

from offrl_nb import DataError, Streams, load
from offrl_nb.methods import idql, iql
from offrl_nb.methods.idql import (
    Config,
    Denoiser,
    Nets,
    choose,
    denoise_loss,
    implicit_weight,
    sample,
    schedule,
    train,
)

FOG = load("fog/two-route-v0")

# Noising


@pytest.mark.parametrize("steps", [1, 5, 20, 100])
def test_the_schedule_follows_one_curve_and_ends_in_noise(steps):
    betas, signal = schedule(steps)
    time = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    assert torch.allclose(signal, torch.exp(-0.1 * time - 4.95 * time**2))
    assert ((betas > 0) & (betas < 1)).all()
    assert math.isclose(signal[-1].item(), 0.0064, abs_tol=1e-4)


def test_the_published_five_steps():
    betas, signal = schedule(5)
    wanted = torch.tensor([0.1959, 0.4588, 0.6358, 0.7549, 0.8350], dtype=torch.float64)
    assert torch.allclose(betas, wanted, atol=5e-5)
    wanted = torch.tensor([0.8041, 0.4352, 0.1585, 0.0389, 0.0064], dtype=torch.float64)
    assert torch.allclose(signal, wanted, atol=5e-5)


def test_noising_step_by_step_equals_noising_at_once():
    betas, signal = schedule(7)
    mean, variance = 1.0, 0.0
    for beta, kept in zip(betas, signal, strict=True):
        mean, variance = (1 - beta) ** 0.5 * mean, (1 - beta) * variance + beta
        assert math.isclose(mean, kept**0.5) and math.isclose(variance, 1 - kept)


def test_the_loss_by_hand():
    dataset, signal = small_log(discrete=False), schedule(4)[1].float()
    denoiser = Denoiser(dataset, (8,), Streams([0, 1]))
    batch = dataset.rows(torch.arange(6).expand(2, -1))
    noise, step = torch.randn(batch.action.shape), torch.tensor([[0, 1, 2, 3, 3, 0]] * 2)
    loss = denoise_loss(denoiser, batch.obs, batch.action, noise, step, signal)
    for seed in (0, 1):
        errors = []
        for row in range(6):
            kept = signal[step[seed, row]]
            x = kept.sqrt() * batch.action + (1 - kept).sqrt() * noise
            time = torch.full((2, 6, 1), (step[seed, row] + 1) / 4)
            guess = denoiser(batch.obs, x, time)
            errors.append(((guess - noise) ** 2)[seed, row].mean())
        assert torch.allclose(loss[seed], torch.stack(errors).mean())


# Sampling


def gaussian(m, sigma):
    """The perfect denoiser where actions are normal with mean m and deviation sigma."""

    def denoise(obs, x, time):
        kept = torch.exp(-0.1 * time - 4.95 * time**2)
        return (1 - kept).sqrt() * (x - kept.sqrt() * m) / (kept * sigma**2 + 1 - kept)

    return denoise


@pytest.mark.parametrize(("m", "sigma"), [(0.3, 0.1), (-0.5, 0.15), (0.0, 0.25)])
def test_the_sampler_finds_a_gaussian_back(m, sigma):
    noise = torch.randn(1, 5_000, 200, 1, generator=torch.Generator().manual_seed(0))
    drawn = sample(gaussian(m, sigma), torch.zeros(1, 5_000, 1), noise)
    assert abs(drawn.mean() - m) < 0.01
    assert 0.85 * sigma < drawn.std() < 1.05 * sigma  # a little narrow: finitely many steps


def test_who_knows_the_action_samples_it_in_any_number_of_steps():
    noise = torch.randn(2, 50, 3, 1, generator=torch.Generator().manual_seed(0))
    drawn = sample(gaussian(0.4, 0.0), torch.zeros(2, 50, 1), noise)
    assert torch.allclose(drawn, torch.full_like(drawn, 0.4), atol=1e-5)


def test_samples_stay_in_the_box_and_the_same_noise_gives_the_same_action():
    denoiser = Denoiser(small_log(discrete=False), (8,), Streams([0, 1]))
    obs = torch.randn(2, 30, small_log(discrete=False).obs_dim)
    noise = 3 * torch.randn(2, 30, 5, small_log(discrete=False).act_dim)
    first, second = (sample(denoiser, obs, noise) for _ in range(2))
    assert first.abs().max() <= 1 + 1e-6
    assert torch.equal(first, second)


# Choosing


def test_implicit_weights_turn_the_mean_into_the_expectile():
    q, tau = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64), 0.8
    v = torch.tensor(0.0, dtype=torch.float64)
    for _ in range(200):
        weight = implicit_weight(q - v, tau)
        v = (weight * q).sum() / weight.sum()
    v.requires_grad_()
    (slope,) = torch.autograd.grad(iql.value_loss(q, v.expand(3), tau), v)
    assert abs(slope) < 1e-12
    assert 4 / 3 < v < 3  # above the mean, below the best


def test_resampling_follows_the_weights_and_argmax_the_values():
    q = torch.tensor([0.0, 2.0, 1.0, -1.0]).expand(1, 8_000, 4)
    v, uniform = torch.full((1, 8_000), 0.5), torch.arange(8_000).view(1, -1, 1) / 8_000
    assert (choose(q, v, 0.7) == 1).all()
    drawn = torch.bincount(choose(q, v, 0.7, uniform).flatten(), minlength=4) / 8_000
    assert torch.allclose(drawn, torch.tensor([0.15, 0.35, 0.35, 0.15]), atol=1e-3)


# Training and limits


def test_one_proposal_is_the_clone():
    obs, acted, weights = FOG.obs[:40].expand(2, -1, -1), [], []
    for variant in ("idql", "resample", "bc"):
        config = Config(variant, samples=1, steps=4, updates=10)
        nets, _ = train(FOG, config, [0, 1])
        acted.append(nets.policy.mode(obs))
        weights.append(torch.cat([p.flatten() for p in nets.denoiser.parameters()]))
    assert torch.equal(acted[0], acted[1]) and torch.equal(acted[0], acted[2])
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[0], weights[2])
    assert acted[0].shape == (2, 40, 1) and acted[0].std() > 0


def test_more_proposals_never_lower_the_critics_opinion():
    nets, _ = train(FOG, Config(steps=4, updates=10), [0, 1])
    obs = FOG.obs[:200].expand(2, -1, -1)
    with torch.no_grad():
        acted = [nets.policy.mode(obs, n) for n in (1, 4, 32)]
        q = [nets.target_critic(obs, action).amin(0).mean() for action in acted]
    assert q[0] < q[1] < q[2]


def test_proposals_of_a_state_differ_and_belong_to_it():
    dataset = small_log(discrete=False)
    nets = Nets(dataset, Config(steps=3), Streams([0, 1]))
    policy, obs = nets.policy, torch.randn(2, 5, dataset.obs_dim)
    proposals = policy.propose(obs, policy.noise(obs, 7))
    assert proposals.shape == (2, 5, 7, dataset.act_dim)
    assert proposals.std(2).min() > 0
    nets.denoiser.forward = lambda many, x, time: x * 0 + many[..., :1]  # the noise is the state
    many = policy.propose(obs, torch.zeros(2, 5, 3, 3, dataset.act_dim))
    assert torch.equal(many[:, :, 0], many[:, :, 2])
    assert torch.equal(many[:, :, 0].argsort(1), many[:, :, 1].argsort(1))


def test_the_policy_plays_the_best_of_the_proposals_that_its_noise_makes():
    dataset = small_log(discrete=False)
    nets = Nets(dataset, Config(steps=3), Streams([0, 1]))
    policy, obs = nets.policy, torch.randn(2, 5, dataset.obs_dim)
    noise = policy.noise(obs, 4)
    proposals, played = policy.propose(obs, noise), policy.sample(obs, noise)
    for seed in (0, 1):
        for row in range(5):
            q = [
                nets.target_critic(obs, proposals[:, :, k]).amin(0)[seed, row].item()
                for k in range(4)
            ]
            assert torch.equal(played[seed, row], proposals[seed, row, np.argmax(q)])
    lowest, highest = (torch.full((2, 5, 1), x) for x in (0.0, 1 - 1e-6))
    assert torch.equal(policy.sample(obs, noise, lowest), proposals[:, :, 0])
    assert torch.equal(policy.sample(obs, noise, highest), proposals[:, :, 3])


def test_acting_draws_other_numbers_than_training():
    dataset = small_log(discrete=False)
    policy = Nets(dataset, Config(steps=3), Streams([0, 1])).policy
    noise = policy.noise(dataset.obs.expand(2, -1, -1), 4)
    assert torch.equal(noise, Streams([0, 1]).fork("acting").normal(6, 4, 3, 2))


def test_evaluations_do_not_change_training():
    def look(act, seeds, value=None):
        act(FOG.obs[:10].expand(seeds, -1, -1))
        return {"return": np.zeros(seeds)}

    config = Config(steps=4, updates=12)
    runs = [train(FOG, config, [0, 1], evaluate)[0] for evaluate in (None, look)]
    for a, b in zip(runs[0].parameters(), runs[1].parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_clone_is_not_asked_for_values():
    def look(act, seeds, *value):
        return {"return": np.full(seeds, len(value))}

    asked = [
        train(FOG, Config(v, steps=4, updates=2), [0, 1], look, 1)[1]["return"].iloc[-1]
        for v in ("idql", "resample", "bc")
    ]
    assert asked == [1, 1, 0]


def test_discrete_actions_and_settings_outside_their_range_are_refused():
    with pytest.raises(DataError, match="IDQL needs continuous"):
        train(load("cartpole/mixed-v0"), Config(updates=1), [0])
    for wrong in ({"expectile": 0.3}, {"expectile": 1.0}, {"samples": 0}, {"reward_scale": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Config(**wrong)


def test_the_denoisers_learning_rate_ends_at_zero(monkeypatch):
    rates = []
    monkeypatch.setattr(
        idql, "minimise", lambda loss, adam: rates.append(adam.param_groups[0]["lr"])
    )
    train(FOG, Config(updates=4, steps=3), [0])
    of_value, of_critic, *of_denoiser = np.reshape(rates, (4, 4)).T
    assert (of_value == 1e-3).all() and (of_critic == 1e-3).all()
    for rate in of_denoiser:
        assert np.allclose(rate, 1e-3 * (1 + np.cos(np.pi * np.arange(1, 5) / 4)) / 2)


def test_a_task_changes_what_it_changes_for_iqls_critics():
    for task, changes in idql.TASKS.items():
        of_critics = {k: x for k, x in changes.items() if k != "samples"}
        of_iql = {k: x for k, x in iql.TASKS.get(task, {}).items() if k != "inv_temp"}
        assert of_critics == of_iql
