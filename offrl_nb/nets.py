"""Networks that hold S independently seeded copies of themselves side by side.

For: layers, policies and critics whose first axes are the seeds (and, before them, ensemble members).
Not for: losses. A parameter of a network with S seeds is [S, ...]; with K members a seed, [K, S, ...].
Inputs are [S, B, dim]: B rows for each seed. Nothing in here mixes seeds: seed i of S trained together
is seed i trained alone.
"""

import copy
import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from offrl_nb.fit import Streams


class Linear(nn.Module):
    """y = x W + b with its own W and b for every seed and member; PyTorch's usual initial values.

    x: [S, B, n_in], or [K, S, B, n_in] -> [S, B, n_out] or [K, S, B, n_out]; K = members.
    """

    def __init__(self, n_in: int, n_out: int, streams: Streams, members: int | None = None):
        super().__init__()
        bound = 1 / math.sqrt(n_in)
        draw = (
            streams.initial(members or 1, n_in + 1, n_out) * 2 * bound - bound
        )  # [S, K, in+1, out]
        draw = draw.transpose(0, 1) if members else draw.squeeze(1)
        self.weight = nn.Parameter(draw[..., :-1, :].contiguous())  # [(K,) S, n_in, n_out]
        self.bias = nn.Parameter(draw[..., -1:, :].contiguous())  # [(K,) S, 1, n_out]

    def forward(self, x: Tensor) -> Tensor:
        lead = self.weight.shape[:-2]
        if len(lead) == 1 and x.shape[:-2] == lead:  # the usual case, without the views
            return torch.baddbmm(self.bias, x, self.weight)
        x = x.expand(*lead, *x.shape[-2:])
        y = torch.baddbmm(self.bias.flatten(0, -3), x.flatten(0, -3), self.weight.flatten(0, -3))
        return y.unflatten(0, lead)


class LayerNorm(nn.Module):
    """Layer normalisation over the features, with a gain and an offset for every seed and member."""

    def __init__(self, width: int, streams: Streams, members: int | None = None):
        super().__init__()
        lead = (members, len(streams)) if members else (len(streams),)
        self.gain = nn.Parameter(torch.ones(*lead, 1, width, device=streams.device))
        self.offset = nn.Parameter(torch.zeros(*lead, 1, width, device=streams.device))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:]) * self.gain + self.offset


class Normaliser(nn.Module):
    """(obs - mean) / std with the statistics of a dataset: part of the network, so a rollout cannot forget it."""

    def __init__(self, obs: Tensor, eps: float = 1e-3):
        super().__init__()
        self.register_buffer("mean", obs.mean(0))
        self.register_buffer("std", obs.std(0, correction=0) + eps)

    def forward(self, obs: Tensor) -> Tensor:
        return (obs - self.mean) / self.std


class MLP(nn.Module):
    """Linear layers of the given sizes with ReLU (and, if wanted, LayerNorm before it) in between."""

    def __init__(
        self,
        sizes: Sequence[int],
        streams: Streams,
        members: int | None = None,
        normaliser: nn.Module | None = None,
        layer_norm: bool = False,
    ):
        super().__init__()
        self.normaliser = normaliser or nn.Identity()
        self.layers = nn.ModuleList(
            Linear(n_in, n_out, streams, members) for n_in, n_out in pairwise(sizes)
        )
        self.norms = nn.ModuleList(
            LayerNorm(width, streams, members) if layer_norm else nn.Identity()
            for width in sizes[1:-1]
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.normaliser(x)
        for layer, norm in zip(self.layers, self.norms, strict=False):
            x = F.relu(norm(layer(x)))
        return self.layers[-1](x)


class Deterministic(nn.Module):
    """a = tanh(f(s)): one action in (-1, 1)^m for each state."""

    def __init__(self, obs_dim, act_dim, streams, hidden=(64, 64), normaliser=None):
        super().__init__()
        self.body = MLP([obs_dim, *hidden, act_dim], streams, normaliser=normaliser)

    def mode(self, obs: Tensor) -> Tensor:
        return torch.tanh(self.body(obs))  # [S, B, act_dim]


class Gaussian(nn.Module):
    """a ~ Normal(tanh(f(s)), sigma) with one learned sigma a dimension, the same in every state."""

    def __init__(self, obs_dim, act_dim, streams, hidden=(64, 64), normaliser=None):
        super().__init__()
        self.body = MLP([obs_dim, *hidden, act_dim], streams, normaliser=normaliser)
        self.log_std = nn.Parameter(torch.zeros(len(streams), 1, act_dim, device=streams.device))

    def mode(self, obs: Tensor) -> Tensor:
        return torch.tanh(self.body(obs))  # [S, B, act_dim]

    def std(self) -> Tensor:
        return self.log_std.clamp(-5, 2).exp()  # [S, 1, act_dim]

    def sample(self, obs: Tensor, noise: Tensor) -> Tensor:
        """noise: standard normal [S, B, act_dim]. The sample is clipped to what the environment accepts."""
        return (self.mode(obs) + self.std() * noise).clamp(-1, 1)

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        return normal_log_prob(action, self.mode(obs), self.std())  # [S, B]


class TanhGaussian(nn.Module):
    """a = tanh(u), u ~ Normal(mean(s), std(s)): a density that lives inside (-1, 1)^m (SAC's policy)."""

    CLIP = 0.999  # the density of an action at exactly +-1 is not defined: atanh(1) is infinite

    def __init__(self, obs_dim, act_dim, streams, hidden=(64, 64), normaliser=None):
        super().__init__()
        self.body = MLP([obs_dim, *hidden, 2 * act_dim], streams, normaliser=normaliser)

    def normal(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of u, before the tanh: [S, B, act_dim] each."""
        mean, log_std = self.body(obs).chunk(2, dim=-1)
        return mean, log_std.clamp(-5, 2).exp()

    def mode(self, obs: Tensor) -> Tensor:
        """tanh of the mean: the median, and what is called the mean action; not quite the density's peak."""
        return torch.tanh(self.normal(obs)[0])

    def sample(self, obs: Tensor, noise: Tensor) -> Tensor:
        return self.sample_with_log_prob(obs, noise)[0]

    def sample_with_log_prob(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Reparametrised sample [S, B, act_dim] and its log-density [S, B]; noise: standard normal."""
        mean, std = self.normal(obs)
        u = mean + std * noise
        return torch.tanh(u), normal_log_prob(u, mean, std) - log_tanh_slope(u).sum(-1)

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        u = torch.atanh(action.clamp(-self.CLIP, self.CLIP))
        return normal_log_prob(u, *self.normal(obs)) - log_tanh_slope(u).sum(-1)  # [S, B]


class Categorical(nn.Module):
    """Softmax over n actions, numbered 0 .. n-1."""

    def __init__(self, obs_dim, n_actions, streams, hidden=(64, 64), normaliser=None):
        super().__init__()
        self.body = MLP([obs_dim, *hidden, n_actions], streams, normaliser=normaliser)

    def log_probs(self, obs: Tensor) -> Tensor:
        return F.log_softmax(self.body(obs), dim=-1)  # [S, B, n_actions]

    def mode(self, obs: Tensor) -> Tensor:
        return self.body(obs).argmax(-1)  # [S, B]

    def sample(self, obs: Tensor, noise: Tensor) -> Tensor:
        """noise: uniform in [0, 1), [S, B, n_actions]; the Gumbel-max trick."""
        gumbel = -torch.log(-torch.log(noise.clamp(1e-12, 1 - 1e-7)))
        return (self.body(obs) + gumbel).argmax(-1)

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.log_probs(obs).gather(-1, action.unsqueeze(-1)).squeeze(-1)  # [S, B]


class Critic(nn.Module):
    """Q(s, a) of K members: [K, S, B]."""

    def __init__(
        self,
        obs_dim,
        act_dim,
        streams,
        hidden=(64, 64),
        members=2,
        normaliser=None,
        layer_norm=False,
    ):
        super().__init__()
        self.normaliser = normaliser or nn.Identity()
        self.body = MLP([obs_dim + act_dim, *hidden, 1], streams, members, layer_norm=layer_norm)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        return self.body(torch.cat([self.normaliser(obs), action], dim=-1)).squeeze(-1)


class DiscreteCritic(nn.Module):
    """Q of K members for n discrete actions: of all of them, [K, S, B, n_actions], or of given ones, [K, S, B]."""

    def __init__(self, obs_dim, n_actions, streams, hidden=(64, 64), members=2, normaliser=None):
        super().__init__()
        self.body = MLP([obs_dim, *hidden, n_actions], streams, members, normaliser)

    def forward(self, obs: Tensor, action: Tensor | None = None) -> Tensor:
        values = self.body(obs)
        return values if action is None else pick(values, action)


def pick(values: Tensor, action: Tensor) -> Tensor:
    """The entry of each row's action: [..., B, n_actions], whole numbers [S, B] -> [..., B]."""
    index = action.expand(values.shape[:-1]).unsqueeze(-1)
    return values.gather(-1, index).squeeze(-1)


def normal_log_prob(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Log-density of independent normals, summed over the last axis: [..., dim] -> [...]."""
    return (-0.5 * ((x - mean) / std) ** 2 - torch.log(std) - 0.5 * math.log(2 * math.pi)).sum(-1)


def log_tanh_slope(u: Tensor) -> Tensor:
    """log(1 - tanh(u)^2) in the form that neither overflows nor rounds to log 0 for large |u|."""
    return 2 * (math.log(2) - u - F.softplus(-2 * u))


def frozen_copy(net: nn.Module) -> nn.Module:
    """A target network: the same values, never touched by an optimiser."""
    return copy.deepcopy(net).requires_grad_(False)


@torch.no_grad()
def polyak(target: nn.Module, net: nn.Module, target_rate: float) -> None:
    """target <- (1 - target_rate) target + target_rate net, in place."""
    torch._foreach_lerp_(list(target.parameters()), list(net.parameters()), target_rate)
