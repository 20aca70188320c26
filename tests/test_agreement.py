"""Losses and gradients equal an independent implementation's where the definitions agree.

The numbers in fixtures/*_d3rlpy.npz are d3rlpy's, made by benchmarks/agreement.py in float64: its
settings under its names, weights, a batch, random numbers, and the losses and gradients that it
found with them. Where a definition differs, the test converts and says how.
"""

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from offrl_nb import Batch, Streams
from offrl_nb.methods import awac, bcq, cql, iql, problem, td3bc
from offrl_nb.methods.bc import Categorical, Deterministic, TanhGaussian, bc_loss
from offrl_nb.nets import Normaliser

OBS, ACTION, CHOICES, HIDDEN = 3, 2, 4, (8, 8)
STREAMS = Streams(2)


def read(name):
    """d3rlpy's numbers as tensors, and its batch as ours."""
    file = dict(np.load(Path(__file__).parent / "fixtures" / f"{name}_d3rlpy.npz"))
    file.pop("version")
    peer = {key: torch.from_numpy(value) for key, value in file.items()}
    return peer, Batch(*(peer[column] for column in Batch._fields))


def put(peer, **bodies):
    """Copy weights [(K,) S, n_in + 1, n_out], the last row the bias, into layers of ours."""
    for name, body in bodies.items():
        for i, layer in enumerate(body.double().layers):
            weight, bias = peer[f"{name}.{i}"].split([layer.weight.shape[-2], 1], dim=-2)
            assert layer.weight.shape == weight.shape and layer.bias.shape == bias.shape
            layer.weight.data, layer.bias.data = weight.clone(), bias.clone()


def same(ours, theirs):
    np.testing.assert_allclose(ours.detach(), theirs, rtol=1e-10, atol=1e-12)


def same_gradients(peer, factor=1.0, **bodies):
    """Gradients that a backward left in our layers; ours are d3rlpy's times the factor."""
    for name, body in bodies.items():
        for i, layer in enumerate(body.layers):
            ours = torch.cat([layer.weight.grad, layer.bias.grad], dim=-2)
            same(ours, factor * peer[f"{name}.{i}.gradient"])


class Given:
    """Streams that hand out the numbers that d3rlpy drew, in turn."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def normal(self, *shape):
        number = self.numbers.pop(0)
        assert number.shape[1:] == shape
        return number

    uniform = normal


@pytest.fixture
def losses(monkeypatch):
    """The losses that updates hand to `minimise`; gradients are computed, nothing is stepped."""
    kept = []

    def keep(loss, optimizer):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for parameter in parameters:
            parameter.grad = None
        loss.sum().backward(inputs=parameters)
        kept.append(loss.detach())

    for module in (problem, cql, bcq):
        monkeypatch.setattr(module, "minimise", keep)
    return kept


def adams(**nets):
    return {name: torch.optim.Adam(net.parameters()) for name, net in nets.items()}


@pytest.mark.parametrize(("head", "name"), [(Deterministic, "bc"), (Categorical, "discrete_bc")])
def test_bc(head, name):
    peer, batch = read(name)
    policy = head(OBS, CHOICES if head is Categorical else ACTION, STREAMS, HIDDEN)
    put(peer, imitator=policy.body)
    loss, _ = bc_loss(policy, batch)
    loss.sum().backward()
    # the squared error is summed over the action's dimensions here and averaged over them there
    factor = 1 if head is Categorical else ACTION
    same(loss, factor * peer["loss"])
    same_gradients(peer, factor, imitator=policy.body)


def off_policy(variant, peer):
    """The networks of problem.ipynb with d3rlpy's weights, and their settings."""
    config = problem.Config(variant, discount=peer["gamma"].item(), hidden=HIDDEN)
    nets = problem.Nets(OBS, ACTION, STREAMS, config).double()
    put(peer, policy=nets.policy.body, critic=nets.critic.body)
    put(peer, target_critic=nets.target_critic.body)
    if "target_policy.0" in peer:
        put(peer, target_policy=nets.target_policy.body)
    if "initial_temperature" in peer:
        nets.log_coef.data.fill_(peer["initial_temperature"].log())
        # standard deviations are held above e^-5 here, above e^-20 there
        obs = torch.cat([peer["obs"], peer["next_obs"]], dim=1)
        assert nets.policy.normal(obs)[1].amin() > math.exp(-5)
    return nets, config


def target(peer, batch):
    """d3rlpy's target; what it calls so is the future value alone."""
    return batch.reward + peer["gamma"] * (1 - batch.terminated) * peer["future"]


def same_temperature_gradient(peer, nets):
    # with c = exp(log_coef): the loss is -log(c) (log pi - m) here and -c (log pi - m) there
    coef = nets.log_coef.detach().exp()
    same(coef * nets.log_coef.grad, peer["log_temp_gradient"].unsqueeze(-1))


def test_sac(losses):
    peer, batch = read("sac")
    nets, config = off_policy("sac", peer)
    same(problem.sac_target(nets, batch, config, peer["next_noise"]), target(peer, batch))
    noise = torch.stack([peer["next_noise"], peer["noise"]], dim=1)
    problem.make_update(nets, Given(noise), config)(1, batch)
    of_critics, of_policy, _ = losses
    same(of_critics.sum(0), peer["critic_loss"])
    same(of_policy, peer["actor_loss"])
    same_gradients(peer, critic=nets.critic.body, policy=nets.policy.body)
    same_temperature_gradient(peer, nets)


def test_td3(losses):
    peer, batch = read("td3")
    nets, config = off_policy("td3", peer)
    same(problem.td3_target(nets, batch, config, peer["next_noise"]), target(peer, batch))
    noise = torch.stack([peer["next_noise"]] * 2, dim=1)
    problem.make_update(nets, Given(noise), config)(2, batch)
    of_critics, of_policy = losses
    same(of_critics.sum(0), peer["critic_loss"])
    same(of_policy, peer["actor_loss"])
    same_gradients(peer, critic=nets.critic.body, policy=nets.policy.body)


@pytest.mark.parametrize("variant", ["td3bc", "rebrac"])
def test_td3bc(variant):
    peer, batch = read(variant)
    # LayerNorm, which ReBRAC's critics have, is before the ReLU here and after it there: left out
    nets, _ = off_policy("td3", peer)
    settings = {"discount": peer["gamma"].item()}
    if variant == "td3bc":
        config = td3bc.Config(variant, q_weight=peer["alpha"].item(), **settings)
        wanted = td3bc.td3_target(nets, batch, config, peer["next_noise"])
    else:
        settings["bc_weight"] = peer["actor_beta"].item()
        settings["next_weight"] = peer["critic_beta"].item()
        config = td3bc.Config(variant, **settings)
        # rows without a logged next action have known = 0 here; there they are dropped
        known, logged = torch.ones_like(batch.reward), peer["next_action"]
        wanted = td3bc.rebrac_target(nets, batch, (logged, known), config, peer["next_noise"])
    same(wanted, target(peer, batch))
    of_critics, _ = td3bc.critic_loss(nets, batch, wanted)
    of_critics.sum().backward()
    same(of_critics.sum(0), peer["critic_loss"])
    same_gradients(peer, critic=nets.critic.body)
    of_policy, _ = td3bc.policy_loss(nets, batch, config, None)
    of_policy.sum().backward()
    same(of_policy, peer["actor_loss"])
    same_gradients(peer, policy=nets.policy.body)


def test_cql(losses):
    peer, batch = read("cql")
    nets, _ = off_policy("sac", peer)
    members, samples = 2, peer["n_action_samples"].item()
    # the mean over all 3 n samples is inside the logarithm here, their sum is there
    sum_not_mean = math.log(3 * samples)
    config = cql.Config(
        "lagrange",
        cql_weight=peer["conservative_weight"].item(),
        gap=peer["alpha_threshold"].item() - sum_not_mean,
        samples=samples,
        discount=peer["gamma"].item(),
    )
    nets.log_factor = torch.nn.Parameter(peer["initial_alpha"].log().repeat(2))
    # the next action is a sample here and the tanh of the mean there: a sample without noise
    no_noise = torch.zeros_like(batch.action)
    same(cql.continuous_target(nets, batch, config, no_noise), target(peer, batch))
    numbers = Given(no_noise, peer["proposal_noise"], peer["uniform"], peer["noise"])
    parts = (nets.critic.parameters(), [nets.log_factor], nets.policy.parameters(), [nets.log_coef])
    adam_q, adam_factor, adam_pi, adam_coef = (torch.optim.Adam(part) for part in parts)
    terms = cql.continuous_terms(nets, batch, numbers, config)
    cql.critic_step(nets, *terms, adam_q, adam_factor, config)
    cql.policy_step(nets, batch, numbers, adam_pi, adam_coef)
    of_critics, _, of_policy, _ = losses
    # the threshold is part of the multiplier's loss alone here; there the critics' loss has it too
    weight = config.cql_weight * peer["initial_alpha"]
    same(of_critics.sum(0) - members * weight * config.gap, peer["critic_loss"])
    same(nets.log_factor.grad, peer["log_alpha_gradient"])
    same(of_policy, peer["actor_loss"])
    same_gradients(peer, critic=nets.critic.body, policy=nets.policy.body)
    same_temperature_gradient(peer, nets)


def test_discrete_cql(losses):
    peer, batch = read("discrete_cql")
    # the temporal-difference error is squared here; there it is Huber's, half the square within +-1
    huber = 2.0
    settings = {"discount": peer["gamma"].item(), "hidden": HIDDEN}
    config = cql.Config(cql_weight=huber * peer["alpha"].item(), **settings)
    nets = cql.DiscreteNets(OBS, CHOICES, STREAMS, config).double()
    put(peer, critic=nets.critic.body, target_critic=nets.target_critic.body)
    nets.log_factor = torch.nn.Parameter(torch.zeros(2).double())
    q, wanted, gap = cql.discrete_terms(nets, batch, None, config)
    assert (q - wanted).abs().amax() < 1
    same(wanted, target(peer, batch))
    same(gap[0], peer["conservative_loss"])
    cql.critic_step(nets, q, wanted, gap, torch.optim.Adam(nets.critic.parameters()), None, config)
    same(losses[0][0], huber * peer["loss"])
    same_gradients(peer, huber, critic=nets.critic.body)


def unnormalised(kind, config, n_actions=None):
    """Networks of bcq.ipynb without their normaliser: d3rlpy's have none unless asked."""
    sizes = {"obs_dim": OBS, "act_dim": ACTION, "n_actions": n_actions}
    nets = kind(
        SimpleNamespace(obs=torch.zeros(1, OBS), allowed=None, **sizes), config, STREAMS
    ).double()
    for part in nets.modules():
        if isinstance(part, Normaliser):
            part.mean.zero_()
            part.std.fill_(1.0)
    return nets


def test_bcq(losses):
    peer, batch = read("bcq")
    config = bcq.Config(
        samples=peer["n_action_samples"].item(),
        perturbation=peer["action_flexibility"].item(),
        mix=peer["lam"].item(),
        kl_weight=peer["beta"].item(),
        discount=peer["gamma"].item(),
        hidden=HIDDEN,
    )
    nets = unnormalised(bcq.ContinuousNets, config)
    # the decoder ends in a tanh here; there it does not, and benchmarks/agreement.py adds one
    trained = {"vae": nets.vae, "critic": nets.critic, "shift": nets.shift}
    bodies = {"encoder": nets.vae.encoder, "decoder": nets.vae.decoder}
    bodies |= {"policy": nets.shift, "critic": nets.critic.body}
    put(peer, **bodies)
    put(peer, target_policy=nets.target_shift, target_critic=nets.target_critic.body)
    same(bcq.continuous_target(nets, batch, config, peer["next_latent"]), target(peer, batch))
    latents = peer["next_latent"].unflatten(1, (config.samples, -1))  # [S, n, B, latent]
    noise = torch.cat([peer["posterior_noise"][:, None], latents, peer["latent"][:, None]], dim=1)
    bcq.continuous_update(nets, batch, config, Given(noise), adams(**trained))
    of_vae, of_critics, of_shift = losses
    same(of_vae, peer["imitator_loss"])
    same(of_critics.sum(0), peer["critic_loss"])
    same(of_shift, peer["actor_loss"])
    same_gradients(peer, **bodies)


def test_discrete_bcq(losses):
    peer, batch = read("discrete_bcq")
    settings = {"discount": peer["gamma"].item(), "hidden": HIDDEN}
    config = bcq.Config(threshold=peer["action_flexibility"].item(), **settings)
    nets = unnormalised(bcq.DiscreteNets, config, CHOICES)
    bodies = {"critic": nets.critic.body, "imitator": nets.clone.body}
    put(peer, **bodies, target_critic=nets.target_critic.body)
    errors = (nets.value(batch.obs, batch.action) - target(peer, batch)).abs()
    assert errors.amin() < 1 < errors.amax()  # both sides of the bend of the Huber loss
    bcq.discrete_update(nets, batch, config, None, adams(critic=nets.critic, clone=nets.clone))
    # the clone pays 0.01 times its mean squared logit here; there a penalty on log-probabilities is
    # switched off by beta = 0
    penalty = 0.01 * (nets.clone.body(batch.obs) ** 2).mean((-1, -2))
    (-penalty).sum().backward()
    of_critics, of_clone = losses
    same(of_critics, peer["td_loss"])
    same(of_clone - penalty, peer["imitator_loss"])
    same_gradients(peer, **bodies)


def test_awac():
    peer, batch = read("awac")
    settings = {"discount": peer["gamma"].item(), "hidden": HIDDEN}
    config = awac.Config(weights="softmax", temperature=peer["lam"].item(), **settings)
    nets = unnormalised(awac.Nets, config)
    put(peer, policy=nets.policy.body, critic=nets.critic.body)
    put(peer, target_critic=nets.target_critic.body)
    nets.policy.log_std.data = peer["log_std"].unsqueeze(1).clone()
    # d3rlpy 2.8.1 takes the target over from SAC: next actions are samples of a tanh-Gaussian, and
    # their log-density is subtracted, with weight 1
    head = TanhGaussian(OBS, ACTION, STREAMS, HIDDEN)
    head.normal = lambda obs: (nets.policy.body(obs), nets.policy.std())
    action, log_prob = head.sample_with_log_prob(batch.next_obs, peer["next_noise"])
    q = nets.target_critic(batch.next_obs, action).amin(0)
    same(q - log_prob, peer["future"])
    of_critics, _ = awac.critic_loss(nets, batch, target(peer, batch))
    of_critics.sum().backward()
    same(of_critics.sum(0), peer["critic_loss"])
    same_gradients(peer, critic=nets.critic.body)
    exponent = awac.awac_advantage(nets, batch, peer["noise"]) / config.temperature
    loss, _ = awac.policy_loss(nets, batch, exponent, config)
    loss.sum().backward()
    # the loss is averaged over the batch here and summed there
    rows = batch.reward.shape[-1]
    same(rows * loss, peer["actor_loss"])
    same_gradients(peer, 1 / rows, policy=nets.policy.body)


def test_iql():
    peer, batch = read("iql")
    config = iql.Config(
        expectile=peer["expectile"].item(),
        inv_temp=peer["weight_temp"].item(),
        weight_cap=peer["max_weight"].item(),
        discount=peer["gamma"].item(),
        hidden=HIDDEN,
    )
    nets = unnormalised(iql.Nets, config)
    nets.policy.log_std.data = peer["log_std"].unsqueeze(1)
    bodies = {"policy": nets.policy.body, "critic": nets.critic.body}
    bodies |= {"state_value": nets.v_net}
    put(peer, **bodies, target_critic=nets.target_critic.body)
    wanted = iql.q_target(nets, batch, config)
    same(wanted, target(peer, batch))
    q = iql.logged_q(nets, batch)
    of_value = iql.value_loss(q, nets.state_value(batch.obs), config.expectile)
    of_policy, said = iql.policy_loss(nets, batch, q, config)
    of_critics, _ = iql.critic_loss(nets, batch, wanted)
    assert 0 < said["capped"].mean() < 1
    (of_value + of_policy + of_critics.sum(0)).sum().backward()
    same(of_value, peer["v_loss"])
    same(of_critics.sum(0), peer["q_loss"])
    same(of_policy, peer["actor_loss"])
    same_gradients(peer, **bodies)
