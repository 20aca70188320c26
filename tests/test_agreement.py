"""Losses and gradients equal an independent implementation's where the definitions agree.

The numbers in fixtures/bc_d3rlpy.npz are d3rlpy's, made by benchmarks/agreement.py in float64.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from offrl_nb.data import Batch
from offrl_nb.fit import Streams
from offrl_nb.methods.bc import bc_loss
from offrl_nb.nets import Categorical, Deterministic


@pytest.fixture
def peer():
    return dict(np.load(Path(__file__).parent / "fixtures" / "bc_d3rlpy.npz"))


@pytest.mark.parametrize(
    ("head", "name", "target"),
    [(Deterministic, "deterministic", "action"), (Categorical, "categorical", "label")],
)
def test_bc_agrees_with_d3rlpy(peer, head, name, target):
    obs, wanted = torch.from_numpy(peer["obs"]), torch.from_numpy(peer[target])
    policy = head(3, 2, Streams(2), hidden=(16, 16)).double()
    with torch.no_grad():
        for i, layer in enumerate(policy.body.layers):
            layer.weight.copy_(torch.from_numpy(peer[f"weight{i}"]))
            layer.bias.copy_(torch.from_numpy(peer[f"bias{i}"]).unsqueeze(1))
    loss, _ = bc_loss(policy, Batch(obs, wanted, None, None, None))
    # the squared error is summed over the action's dimensions here and averaged over them there
    factor = peer["action"].shape[-1] if name == "deterministic" else 1
    np.testing.assert_allclose(loss.detach(), factor * peer[f"{name}_loss"], rtol=1e-10)
    weights = [layer.weight for layer in policy.body.layers]
    for i, gradient in enumerate(torch.autograd.grad(loss.sum(), weights)):
        np.testing.assert_allclose(gradient, factor * peer[f"{name}_gradient{i}"], atol=1e-12)
