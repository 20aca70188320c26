"""Chapter SLUG: its loss by hand, its limit, what it refuses. Replace these tests with the method."""

import pytest
import torch
from conftest import small_log

from offrl_nb import DataError, Streams
from offrl_nb.methods.SLUG import Config, Nets, clone_loss, train


def setting(**changes):
    """Untrained networks of two seeds, and a batch of all rows for each."""
    dataset, config = small_log(), Config(**changes)
    batch = dataset.rows(torch.arange(len(dataset)).expand(2, -1))
    return Nets(dataset, config, Streams(2)), batch, config


def test_the_loss_by_hand():
    nets, batch, config = setting(effort_weight=0.3)
    loss, said = clone_loss(nets.policy, batch, config)
    for seed, action in enumerate(nets.policy.mode(batch.obs)):
        rows = [
            ((a - b) ** 2).sum() + 0.3 * (a**2).sum()
            for a, b in zip(action, batch.action[seed], strict=True)
        ]
        assert torch.isclose(loss[seed], sum(rows) / len(rows))
    assert said["error"].shape == said["effort"].shape == (2,)


def test_without_a_price_it_is_the_squared_error():
    nets, batch, config = setting(effort_weight=0.0)
    loss, said = clone_loss(nets.policy, batch, config)
    assert torch.equal(loss, said["error"])


def test_a_negative_price_and_discrete_actions_are_refused():
    with pytest.raises(ValueError, match="effort_weight"):
        Config(effort_weight=-1.0)
    with pytest.raises(DataError, match="continuous"):
        train(small_log(discrete=True), Config(updates=1), [0])
