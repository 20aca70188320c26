"""Networks with a seed axis: seeds stay apart, densities are densities."""

import math

import pytest
import torch

from offrl_nb import Streams, adam, minimise
from offrl_nb.methods.bc import Categorical, Deterministic, Gaussian, TanhGaussian
from offrl_nb.nets import MLP, Critic, Normaliser, _LayerNorm, _Linear, frozen_copy, polyak


@pytest.fixture(autouse=True)
def double_precision():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


BUILD = {
    "mlp": lambda streams: MLP([3, 8, 2], streams),
    "members": lambda streams: MLP([3, 8, 2], streams, members=4, layer_norm=True),
    "deterministic": lambda streams: Deterministic(3, 2, streams, (8,)),
    "gaussian": lambda streams: Gaussian(3, 2, streams, (8,)),
    "tanh_gaussian": lambda streams: TanhGaussian(3, 2, streams, (8,)),
    "categorical": lambda streams: Categorical(3, 5, streams, (8,)),
}


def output(net, obs):
    return getattr(net, "mode", net)(obs) if not isinstance(net, Categorical) else net.body(obs)


@pytest.mark.parametrize("kind", BUILD)
def test_a_seed_computes_the_same_alone(kind):
    obs = torch.randn(3, 7, 3)
    together, alone = BUILD[kind](Streams([4, 5, 6])), BUILD[kind](Streams([5]))
    seed = (slice(None), 1) if kind == "members" else 1
    assert torch.allclose(
        output(together, obs)[seed], output(alone, obs[1:2])[..., 0, :, :], atol=1e-12
    )


@pytest.mark.parametrize("kind", BUILD)
def test_nan_in_one_seed_reaches_no_other(kind):
    clean, poisoned = BUILD[kind](Streams(3)), BUILD[kind](Streams(3))
    obs = torch.randn(3, 7, 3)
    bad = obs.clone()
    bad[0] = math.nan
    for net, data in ((clean, obs), (poisoned, bad)):
        optimizer = adam(net, 1e-2)
        for _ in range(20):
            minimise((output(net, data) ** 2).mean((-1, -2)), optimizer)
    for a, b in zip(clean.parameters(), poisoned.parameters(), strict=True):
        seeds = -3 if a.ndim >= 3 else 0
        a, b = a.movedim(seeds, 0), b.movedim(seeds, 0)
        assert torch.equal(a[1:], b[1:])
    assert output(poisoned, obs).isnan().any()


def test_linear_is_torch_linear():
    net = MLP([3, 4], Streams([0, 1]))
    layer, x = net.layers[0], torch.randn(2, 5, 3)
    for seed in range(2):
        expected = torch.nn.functional.linear(x[seed], layer.weight[seed].T, layer.bias[seed, 0])
        assert torch.allclose(net(x)[seed], expected)
    wide = _Linear(100, 50, Streams(3)).weight
    assert wide.abs().max() <= 0.1 and abs(wide.std() - 0.1 / 3**0.5) < 0.002


SHAPES = {  # sizes, members, leading axes of x
    "seeds": ([3, 8, 8, 1], None, (4,)),
    "members": ([3, 8, 5, 2], 2, (3,)),
    "members and their own inputs": ([3, 8, 2], 2, (2, 3)),
    "wide output": ([3, 8, 40], 2, (1,)),
    "one row for all": ([3, 8, 1], None, (1,)),
}


def layer_by_layer(net, x):
    for i, layer in enumerate(net.layers):
        x = (x.relu() if i else x) @ layer.weight + layer.bias
    return x


@pytest.mark.parametrize("sizes, members, lead", SHAPES.values(), ids=SHAPES)
def test_an_mlp_at_once_is_an_mlp_layer_by_layer(sizes, members, lead):
    """Outputs, first and second derivatives, in float64."""
    net = MLP(sizes, Streams(max(3, lead[-1])), members)
    x = torch.randn(*lead, 7, sizes[0], requires_grad=True)
    found, wanted = net(x), layer_by_layer(net, x)
    assert found.grad_fn is not None and torch.allclose(found, wanted, rtol=0, atol=1e-12)
    inputs, slope = [x, *net.parameters()], torch.randn_like(wanted)

    def derivatives(y):
        first = torch.autograd.grad((y * slope).sum(), inputs, create_graph=True)
        total = sum((g**2).sum() for g in first)
        second = torch.autograd.grad(total, inputs, allow_unused=True, retain_graph=True)
        once = torch.autograd.grad((y * slope).sum(), inputs)
        return [*first, *once, *(g for g in second if g is not None)]

    for a, b in zip(derivatives(found), derivatives(wanted), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


def products(backward) -> int:
    """How many matrix products a backward pass computes."""
    with torch.profiler.profile() as run:
        backward()
    return sum(e.count for e in run.key_averages() if e.key == "aten::bmm")


def test_to_a_policy_that_climbs_q_the_critic_is_constant():
    critic, x = MLP([3, 8, 8, 1], Streams(2), members=2), torch.randn(2, 5, 3, requires_grad=True)
    assert products(lambda: critic(x).sum().backward(inputs=[x])) == 2  # the last is no product
    weights = list(critic.parameters())
    assert products(lambda: critic(x).sum().backward(inputs=weights)) == 2 + 3
    assert all(w.grad is not None for w in weights)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_one_member_is_what_all_say_of_it(layer_norm):
    critic = Critic(3, 2, Streams(4), (8, 8), 3, layer_norm=layer_norm)
    obs, action = torch.randn(4, 7, 3), torch.randn(4, 7, 2)
    for member in range(3):
        assert torch.allclose(critic(obs, action)[member], critic(obs, action, member), atol=1e-12)


def test_layer_norm_is_torch_layer_norm_for_every_seed():
    x = torch.randn(2, 5, 6)
    assert torch.allclose(_LayerNorm(6, Streams(2))(x), torch.nn.functional.layer_norm(x, (6,)))


def test_members_and_shapes_of_a_critic():
    critic = Critic(3, 2, Streams(4), (8,), members=2)
    obs, action = torch.randn(4, 7, 3), torch.randn(4, 7, 2)
    value = critic(obs, action)
    assert value.shape == (2, 4, 7) and not torch.allclose(value[0], value[1])


def test_tanh_gaussian_density_integrates_to_one_and_matches_torch():
    policy = TanhGaussian(3, 1, Streams(1), (8,))
    obs = torch.randn(1, 1, 3)
    grid = torch.linspace(-0.999, 0.999, 200_001).view(1, -1, 1)
    log_prob = policy.log_prob(obs.expand(1, grid.shape[1], 3), grid)
    assert abs(torch.trapezoid(log_prob.exp()[0], grid[0, :, 0]).item() - 1) < 5e-3
    mean, std = policy.normal(obs)
    torch_policy = torch.distributions.TransformedDistribution(
        torch.distributions.Normal(mean, std), [torch.distributions.TanhTransform()]
    )
    actions = torch.tensor([-0.9, -0.1, 0.0, 0.5, 0.99]).view(1, -1, 1)
    ours = policy.log_prob(obs.expand(1, 5, 3), actions)
    assert torch.allclose(ours, torch_policy.log_prob(actions).squeeze(-1), atol=1e-8)


def test_tanh_gaussian_sample_has_the_density_it_reports():
    policy = TanhGaussian(3, 2, Streams(2), (8,))
    obs, noise = torch.randn(2, 50, 3), 0.5 * torch.randn(2, 50, 2)
    action, log_prob = policy.sample_with_log_prob(obs, noise)
    assert torch.allclose(log_prob, policy.log_prob(obs, action), atol=1e-6)
    assert policy.log_prob(obs, torch.ones(2, 50, 2)).isfinite().all()


def test_gaussian_log_prob_is_torch_normal():
    policy = Gaussian(3, 2, Streams(2), (8,))
    obs, action = torch.randn(2, 5, 3), torch.rand(2, 5, 2)
    expected = torch.distributions.Normal(policy.mode(obs), policy.std()).log_prob(action).sum(-1)
    assert torch.allclose(policy.log_prob(obs, action), expected)
    assert policy.sample(obs, torch.full((2, 5, 2), 9.0)).max() <= 1


def test_categorical_sampling_follows_its_probabilities():
    policy = Categorical(3, 4, Streams(1), (8,))
    obs = torch.randn(1, 1, 3).expand(1, 40_000, 3)
    counts = torch.bincount(policy.sample(obs, torch.rand(1, 40_000, 4)).flatten(), minlength=4)
    assert torch.allclose(counts / 40_000, policy.log_probs(obs)[0, 0].exp(), atol=0.01)
    assert torch.allclose(
        policy.log_prob(obs, torch.ones(1, 40_000).long()), policy.log_probs(obs)[..., 1]
    )


def test_an_action_that_is_not_allowed_is_never_played_and_its_loss_stays_finite():
    allowed = torch.tensor([True, False, True])
    policy = Categorical(3, 3, Streams(1), (8,), allowed=allowed)
    with torch.no_grad():
        policy.body.layers[-1].bias[..., 1] = 50.0  # it would be played everywhere
    obs = torch.randn(1, 500, 3)
    assert (policy.mode(obs) != 1).all()
    assert (policy.sample(obs, torch.rand(1, 500, 3)) != 1).all()
    log_probs = policy.log_probs(obs)
    assert torch.allclose(log_probs.exp().sum(-1), torch.ones(1, 500))
    assert ((log_probs.exp() * log_probs).sum(-1)).isfinite().all()


def test_normaliser_and_polyak():
    obs = torch.randn(1000, 3) * torch.tensor([1.0, 10.0, 0.0]) + 5
    out = Normaliser(obs)(obs)
    assert torch.allclose(out.mean(0), torch.zeros(3), atol=1e-9)
    assert torch.allclose(out.std(0), torch.tensor([1.0, 1.0, 0.0]), atol=2e-3)
    net = MLP([2, 3], Streams(1))
    target = frozen_copy(net)
    before = [p.clone() for p in target.parameters()]
    assert not any(p.requires_grad for p in target.parameters())
    with torch.no_grad():
        for p in net.parameters():
            p += 1
    polyak(target, net, 0.25)
    for old, new in zip(before, target.parameters(), strict=True):
        assert torch.allclose(new, old + 0.25)
