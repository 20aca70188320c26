"""Losses and gradients as d3rlpy computes them, on fixed weights, batches and random numbers.

For: making tests/fixtures/*_d3rlpy.npz, a file for each algorithm, which tests/test_agreement.py
compares with ours. Runs in d3rlpy's environment (`make bench` does it). Not for: the stochastic
head of behaviour cloning; d3rlpy's loss there is the squared error of a sample, no likelihood.

A fixture holds d3rlpy's settings under its names, and for each seed the batch, the random numbers,
the weights and what d3rlpy made of them, in this book's layout: `critic.0` is the first layer of
the critics, [K, S, n_in + 1, n_out] with the bias as last row, and `critic.0.gradient` the gradient
of their loss by it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import d3rlpy
import numpy as np
import torch
from d3rlpy import algos
from d3rlpy.torch_utility import TorchMiniBatch
from torch import Tensor, nn

FIXTURES = Path(__file__).resolve().parents[1] / "tests" / "fixtures"
SEEDS, BATCH, OBS, ACTION, CHOICES, SAMPLES = 2, 16, 3, 2, 4, 3
ENCODER = d3rlpy.models.VectorEncoderFactory([8, 8], "relu")
NETS = {  # ours: d3rlpy's
    "policy": "policy",
    "target_policy": "targ_policy",
    "critic": "q_funcs",
    "target_critic": "targ_q_funcs",
    "imitator": "imitator",
    "encoder": "vae_encoder",
    "decoder": "vae_decoder",
    "state_value": "value_func",
}
torch.set_default_dtype(torch.float64)
torch.float32 = torch.float64  # d3rlpy sums its critics' losses in float32, by name
torch.Tensor.float = torch.Tensor.double  # and weighs IQL's expectile in it


class Case(NamedTuple):
    """An algorithm of d3rlpy, and what is asked of it."""

    config: type
    settings: dict[str, Any]
    losses: Callable[[Any, TorchMiniBatch, dict], dict]  # of one seed
    numbers: dict[str, tuple[int, ...]]  # random numbers that it draws: their shapes
    rewards: float = 1.0  # the largest
    weights: float = 1.3  # their spread

    @property
    def discrete(self) -> bool:
        return "Discrete" in self.config.__name__


# d3rlpy's networks, in this book's layout


def layers(net: nn.Module) -> list[list[nn.Linear]]:
    """A network's layers; the two that give a mean and a log-deviation are one layer here."""
    linear = [part for part in net.modules() if isinstance(part, nn.Linear)]
    heads = 2 if isinstance(getattr(net, "_logstd", None), nn.Linear) else 1
    return [*([part] for part in linear[:-heads]), linear[-heads:]]


def each_member(net: nn.Module) -> list[nn.Module]:
    """The critics of an ensemble, or the one network."""
    return list(net) if isinstance(net, nn.ModuleList) else [net]


def draw_weights(net: nn.Module, width: float, generator) -> list[np.ndarray]:
    """Numbers for every layer and seed, [(K,) S, n_in + 1, n_out]."""
    lead = (len(net), SEEDS) if isinstance(net, nn.ModuleList) else (SEEDS,)
    drawn = []
    for parts in layers(each_member(net)[0]):
        n_in, n_out = parts[0].in_features, sum(part.out_features for part in parts)
        drawn.append(width * generator.standard_normal((*lead, n_in + 1, n_out)) / n_in**0.5)
    return drawn


@torch.no_grad()
def put(net: nn.Module, weights: list[np.ndarray]) -> None:
    """Copy one seed's weights, [(K,) n_in + 1, n_out] a layer, into a network of d3rlpy."""
    for k, member in enumerate(each_member(net)):
        for parts, values in zip(layers(member), weights, strict=True):
            values = values[k] if isinstance(net, nn.ModuleList) else values
            for part, block in zip(parts, np.split(values, len(parts), axis=-1), strict=True):
                part.weight.copy_(torch.from_numpy(block[:-1].T))
                part.bias.copy_(torch.from_numpy(block[-1]))


def gradients(**nets: nn.Module) -> dict[str, np.ndarray]:
    """What d3rlpy's backward left in its networks, as `put` takes weights."""
    found = {}
    for name, net in nets.items():
        for i in range(len(layers(each_member(net)[0]))):
            each = [
                np.hstack([np.vstack([p.weight.grad.T, p.bias.grad]) for p in layers(member)[i]])
                for member in each_member(net)
            ]
            ensemble = isinstance(net, nn.ModuleList)
            found[f"{name}.{i}.gradient"] = np.array(each) if ensemble else each[0]
    return found


# d3rlpy's random numbers and optimisers


@contextmanager
def drawing(*numbers: np.ndarray) -> Iterator[None]:
    """In here d3rlpy draws these numbers, in this order, to the last one."""
    queue = [torch.from_numpy(number) for number in numbers]

    def normal(*shape, **where) -> Tensor:
        return queue.pop(0).reshape(*shape)

    def uniform(x: Tensor, low: float, high: float) -> Tensor:
        return x.copy_(low + (high - low) * queue.pop(0).reshape(x.shape))

    with (
        patch("torch.randn", normal),
        patch("torch.distributions.normal._standard_normal", normal),
        patch.object(torch.Tensor, "uniform_", uniform),
    ):
        yield
    assert not queue, "d3rlpy drew fewer numbers than it was given"


def held(optimizer: Any, factor: nn.Module) -> list[float]:
    """The gradients that a step inside another loss would use; it is not made."""
    seen: list[float] = []
    optimizer.step = lambda: seen.append(next(factor.parameters()).grad.item())
    return seen


# What is asked of each algorithm; all of it for one seed


def imitation(impl, batch, numbers) -> dict:
    loss = impl.compute_imitator_grad(batch).loss
    return {"loss": loss, **gradients(imitator=impl.modules.imitator)}


def actor_critic(impl, batch, for_target=(), for_critic=(), for_actor=()) -> dict:
    """Target, critics' loss and actor's loss, given the random numbers that each draws."""
    with drawing(*for_target):
        target = impl.compute_target(batch)
    with drawing(*for_target, *for_critic):
        critic_loss = impl.compute_critic_grad(batch).critic_loss
    found = {"future": target.squeeze(-1), "critic_loss": critic_loss}
    found |= gradients(critic=impl.modules.q_funcs)
    with drawing(*for_actor):
        actor_loss = impl.compute_actor_grad(batch).actor_loss
    return found | {"actor_loss": actor_loss, **gradients(policy=impl.modules.policy)}


def td3(impl, batch, numbers) -> dict:
    return actor_critic(impl, batch, [numbers["next_noise"]])


def sac(impl, batch, numbers) -> dict:
    seen = held(impl.modules.temp_optim, impl.modules.log_temp)
    found = actor_critic(impl, batch, [numbers["next_noise"]], for_actor=[numbers["noise"]])
    return found | {"log_temp_gradient": seen[-1]}


def awac(impl, batch, numbers) -> dict:
    found = actor_critic(impl, batch, [numbers["next_noise"]], for_actor=[numbers["noise"]])
    log_std = impl.modules.policy(batch.observations).logstd.flatten()
    return found | {"log_std": log_std}  # one a dimension, the same in every state


def iql(impl, batch, numbers) -> dict:
    found, losses = actor_critic(impl, batch), impl.compute_critic_grad(batch)
    found |= {**vars(losses), **gradients(state_value=impl.modules.value_func)}
    return found | {"log_std": impl.modules.policy(batch.observations).logstd.flatten()}


def cql(impl, batch, numbers) -> dict:
    temperature = held(impl.modules.temp_optim, impl.modules.log_temp)
    weight = held(impl.modules.alpha_optim, impl.modules.log_alpha)
    uniform = numbers["uniform"].swapaxes(0, 1)  # d3rlpy has the samples of a row side by side
    proposals = [*numbers["proposal_noise"], np.ascontiguousarray(uniform)]
    found = actor_critic(impl, batch, (), proposals, [numbers["noise"]])
    return found | {"log_temp_gradient": temperature[-1], "log_alpha_gradient": weight[-1]}


def discrete(impl, batch, numbers) -> dict:
    """Double Q-learning's value of the next state, and the loss of everything together."""
    future, loss = impl.compute_target(batch), impl.compute_grad(batch)
    nets = {"critic": impl.modules.q_funcs}
    if hasattr(impl.modules, "imitator"):
        nets["imitator"] = impl.modules.imitator
    return {"future": future.squeeze(-1), **vars(loss), **gradients(**nets)}


def bcq(impl, batch, numbers) -> dict:
    decoder = impl.modules.vae_decoder
    if isinstance(decoder._fc, nn.Linear):  # its tanh is left out when `with_squash` is true
        decoder._fc = nn.Sequential(decoder._fc, nn.Tanh())
    with drawing(numbers["posterior_noise"]):
        loss = impl.compute_imitator_grad(batch)["loss"]
    found = {"imitator_loss": loss}
    found |= gradients(encoder=impl.modules.vae_encoder, decoder=decoder)
    return found | actor_critic(impl, batch, [numbers["next_latent"]], (), [numbers["latent"]])


ROW = (BATCH, ACTION)
TD3 = {"gamma": 0.9, "target_smoothing_sigma": 0.2, "target_smoothing_clip": 0.5}
SAC = {"gamma": 0.9, "initial_temperature": 0.7}
CQL = {"initial_alpha": 0.6, "alpha_threshold": 1.5, "conservative_weight": 2.0}
CQL |= {"n_action_samples": SAMPLES}
BCQ = {"gamma": 0.9, "lam": 0.75, "n_action_samples": SAMPLES, "action_flexibility": 0.05}
CASES = {
    "bc": Case(algos.BCConfig, {}, imitation, {}),
    "discrete_bc": Case(algos.DiscreteBCConfig, {"beta": 0.0}, imitation, {}),
    "sac": Case(algos.SACConfig, SAC, sac, {"next_noise": ROW, "noise": ROW}),
    "td3": Case(algos.TD3Config, TD3, td3, {"next_noise": ROW}),
    "td3bc": Case(algos.TD3PlusBCConfig, TD3 | {"alpha": 2.5}, td3, {"next_noise": ROW}),
    "rebrac": Case(
        algos.ReBRACConfig, TD3 | {"actor_beta": 0.3, "critic_beta": 0.2}, td3, {"next_noise": ROW}
    ),
    "awac": Case(
        algos.AWACConfig,
        {"gamma": 0.9, "lam": 0.7, "n_action_samples": 1},
        awac,
        {"next_noise": ROW, "noise": ROW},
    ),
    "iql": Case(
        algos.IQLConfig,
        {"gamma": 0.9, "expectile": 0.8, "weight_temp": 1.5, "max_weight": 2.0},
        iql,
        {},
    ),
    "cql": Case(
        algos.CQLConfig,
        SAC | CQL,
        cql,
        {"proposal_noise": (2, SAMPLES, *ROW), "uniform": (SAMPLES, *ROW), "noise": ROW},
    ),
    "discrete_cql": Case(
        algos.DiscreteCQLConfig,
        {"gamma": 0.9, "alpha": 0.8},
        discrete,
        {},
        rewards=0.2,  # so that no error lies beyond the bend of the Huber loss
        weights=0.6,
    ),
    "bcq": Case(
        algos.BCQConfig,
        BCQ | {"beta": 0.5},
        bcq,
        {
            "posterior_noise": (BATCH, 2 * ACTION),
            "next_latent": (BATCH * SAMPLES, 2 * ACTION),
            "latent": (BATCH, 2 * ACTION),
        },
        weights=1.7,  # so that some log-deviations of the encoder lie below their limit
    ),
    "discrete_bcq": Case(
        algos.DiscreteBCQConfig,
        {"gamma": 0.9, "action_flexibility": 0.3, "beta": 0.0, "share_encoder": False},
        discrete,
        {},
        rewards=2.0,  # so that some errors lie beyond the bend of the Huber loss
    ),
}


# A fixture


def draw_batch(case: Case, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Transitions, [S, B, ...]."""
    size = (SEEDS, BATCH)
    drawn = {name: generator.standard_normal((*size, OBS)) for name in ("obs", "next_obs")}
    for name in ("action", "next_action"):
        if case.discrete:
            drawn[name] = generator.integers(CHOICES, size=size)
        else:
            drawn[name] = generator.uniform(-1, 1, (*size, ACTION))
    drawn["reward"] = generator.uniform(-case.rewards, case.rewards, size)
    return drawn | {"terminated": (generator.random(size) < 0.3).astype(float)}


def draw_numbers(case: Case, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Random numbers, [S, ...]; normal ones twice as wide, so that what clips has work to do."""
    drawn = {}
    for name, shape in case.numbers.items():
        size = (SEEDS, *shape)
        uniform = name == "uniform"
        drawn[name] = generator.random(size) if uniform else 2 * generator.standard_normal(size)
    return drawn


def as_theirs(given: dict[str, np.ndarray], seed: int) -> TorchMiniBatch:
    """One seed's batch as d3rlpy takes it: every column with two axes."""
    names = ("obs", "action", "reward", "next_obs", "next_action", "terminated")
    columns = [torch.from_numpy(given[name][seed].reshape(BATCH, -1)) for name in names]
    obs, action, reward, next_obs, next_action, terminated = columns
    unused, one_step = torch.zeros(BATCH, 1), torch.ones(BATCH, 1)
    rest = (next_action, unused, terminated, one_step)
    return TorchMiniBatch(obs, action, reward, next_obs, *rest, device="cpu:0")


def make_algorithm(case: Case):
    """d3rlpy's algorithm with every encoder that it has of the same two small layers."""
    fields = case.config.__dataclass_fields__
    encoders = {name: ENCODER for name in fields if name.endswith("encoder_factory")}
    algo = case.config(**case.settings, **encoders).create(device="cpu:0")
    algo.create_impl((OBS,), CHOICES if case.discrete else ACTION)
    return algo


def fixture(case: Case) -> dict[str, np.ndarray]:
    """Everything that went in and came out."""
    generator, impl = np.random.default_rng(0), make_algorithm(case).impl
    nets = {ours: getattr(impl.modules, theirs, None) for ours, theirs in NETS.items()}
    nets = {name: net for name, net in nets.items() if net is not None}
    given = draw_batch(case, generator) | draw_numbers(case, generator)
    weights = {name: draw_weights(net, case.weights, generator) for name, net in nets.items()}
    found = defaultdict(list)
    for seed in range(SEEDS):
        for name, net in nets.items():
            put(net, [layer[..., seed, :, :] for layer in weights[name]])
        numbers = {name: given[name][seed] for name in case.numbers}
        for name, value in case.losses(impl, as_theirs(given, seed), numbers).items():
            found[name].append(value.detach().numpy() if torch.is_tensor(value) else value)
    given |= {f"{name}.{i}": w for name in nets for i, w in enumerate(weights[name])}
    given |= {name: np.array(value) for name, value in case.settings.items()}
    # seeds come after members: [(K,) S, n_in + 1, n_out]
    stacked = {name: np.stack(v, axis=-3 if "." in name else 0) for name, v in found.items()}
    return given | stacked | {"version": np.array(d3rlpy.__version__)}


def store(name: str, found: dict[str, np.ndarray]) -> None:
    """Write a fixture, unless the stored one says the same."""
    file = FIXTURES / f"{name}_d3rlpy.npz"
    stored = dict(np.load(file)) if file.exists() else {}
    numbers = [key for key in found if key != "version"]
    same = stored.keys() == found.keys() and all(
        stored[key].shape == found[key].shape
        and np.allclose(stored[key], found[key], rtol=1e-10, atol=1e-12)
        for key in numbers
    )
    if not same:
        np.savez_compressed(file, **found)
    what = "still holds what" if same else "written with what"
    print(f"agreement: {file.name} {what} d3rlpy {found['version']} computes")


def main() -> None:
    for name, case in CASES.items():
        store(name, fixture(case))


if __name__ == "__main__":
    main()
