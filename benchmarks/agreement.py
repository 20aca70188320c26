"""Behaviour cloning's losses and gradients as d3rlpy computes them, on fixed weights and a fixed batch.

For: making tests/fixtures/bc_d3rlpy.npz, which tests/test_agreement.py compares with ours. Runs in d3rlpy's
environment (`make bench` does it). Not for: the stochastic head; d3rlpy's loss there is the squared error of
a sample, no likelihood.
"""

from pathlib import Path

import d3rlpy
import numpy as np
import torch

FIXTURE = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "bc_d3rlpy.npz"
SEEDS, BATCH, OBS, HIDDEN, ACTIONS = 2, 8, 3, 16, 2


def inputs() -> dict[str, np.ndarray]:
    """A batch and the weights of three linear layers, for each of two seeds."""
    generator = np.random.default_rng(0)
    made = {
        "obs": generator.standard_normal((SEEDS, BATCH, OBS)),
        "action": generator.uniform(-1, 1, (SEEDS, BATCH, ACTIONS)),
        "label": generator.integers(ACTIONS, size=(SEEDS, BATCH)),
    }
    for i, (n_in, n_out) in enumerate([(OBS, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, ACTIONS)]):
        made[f"weight{i}"] = generator.standard_normal((SEEDS, n_in, n_out)) / n_in**0.5
        made[f"bias{i}"] = generator.standard_normal((SEEDS, n_out)) / 2
    return made


def losses(config, target: str, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """d3rlpy's loss of every seed, [S], and its gradient by every weight, [S, n_in, n_out]."""
    algo = config.create(device="cpu:0")
    algo.create_impl((OBS,), ACTIONS)
    net = algo.impl.modules.imitator.double()
    linear = [layer for layer in net.modules() if isinstance(layer, torch.nn.Linear)]
    found = {"loss": [], **{f"gradient{i}": [] for i in range(len(linear))}}
    for seed in range(SEEDS):
        with torch.no_grad():
            for i, layer in enumerate(linear):
                layer.weight.copy_(torch.from_numpy(given[f"weight{i}"][seed].T))
                layer.bias.copy_(torch.from_numpy(given[f"bias{i}"][seed]))
        obs, wanted = torch.from_numpy(given["obs"][seed]), torch.from_numpy(given[target][seed])
        loss = algo.impl.compute_loss(obs, wanted).loss
        gradients = torch.autograd.grad(loss, [layer.weight for layer in linear])
        found["loss"].append(loss.item())
        for i, gradient in enumerate(gradients):
            found[f"gradient{i}"].append(gradient.numpy().T)
    return {name: np.array(values) for name, values in found.items()}


def main() -> None:
    given, encoder = inputs(), d3rlpy.models.VectorEncoderFactory([HIDDEN, HIDDEN], "relu")
    continuous = d3rlpy.algos.BCConfig(encoder_factory=encoder)
    discrete = d3rlpy.algos.DiscreteBCConfig(
        encoder_factory=encoder, beta=0.0
    )  # no penalty on logits
    found = {"version": np.array(d3rlpy.__version__), **given}
    for name, config, target in [
        ("deterministic", continuous, "action"),
        ("categorical", discrete, "label"),
    ]:
        values = losses(config, target, given)
        found |= {f"{name}_{key}": value for key, value in values.items()}
    if FIXTURE.exists():
        stored = dict(np.load(FIXTURE))
        numbers = [key for key in found if key != "version"]
        if stored.keys() == found.keys() and all(
            np.allclose(stored[key], found[key], rtol=0, atol=1e-12) for key in numbers
        ):
            print(f"agreement: {FIXTURE.name} still holds what d3rlpy {found['version']} computes")
            return
    np.savez_compressed(FIXTURE, **found)
    print(f"agreement: {FIXTURE.name} written with d3rlpy {found['version']}")


if __name__ == "__main__":
    main()
