"""Networks that hold S independently seeded copies of themselves side by side.

For: networks and critics whose first axes are the seeds (and, before them, ensemble members). Not for:
losses, nor the distributions of policies, which chapter bc prints. A parameter of a network with S seeds
is [S, ...]; with K members a seed, [K, S, ...]. Inputs are [S, B, dim]: B rows for each seed. Nothing in
here mixes seeds: seed i of S trained together is seed i trained alone.
"""

import copy
import math
import weakref
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from offrl_nb.fast import Layers, stacked
from offrl_nb.streams import Streams

HIDDEN = (64, 64)  # widths of the hidden layers, where nothing else is said
_LISTED = weakref.WeakKeyDictionary()  # of each network, its parameters


class _Linear(nn.Module):
    """y = x W + b with its own W and b for every seed and member; PyTorch's usual initial values.

    x: [S, B, n_in], or [K, S, B, n_in] -> [S, B, n_out] or [K, S, B, n_out]; K = members.
    """

    def __init__(self, n_in: int, n_out: int, streams: Streams, members: int | None = None):
        super().__init__()
        bound = 1 / math.sqrt(n_in)
        draw = streams.initial(members or 1, n_in + 1, n_out) * 2 * bound - bound
        draw = draw.transpose(0, 1) if members else draw.squeeze(1)
        self.weight = nn.Parameter(draw[..., :-1, :].contiguous())  # [(K,) S, n_in, n_out]
        self.bias = nn.Parameter(draw[..., -1:, :].contiguous())  # [(K,) S, 1, n_out]


def _affine(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """x W + b of all networks; x may lack the first axis, that of the members."""
    lead = w.shape[:-2]
    y = torch.baddbmm(b.flatten(0, -3), stacked(x, lead), w.flatten(0, -3))
    return y.unflatten(0, lead)


class _LayerNorm(nn.Module):
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

    def __init__(self, sizes, streams, members=None, normaliser=None, layer_norm=False):
        super().__init__()
        self.normaliser = normaliser or nn.Identity()
        pairs, widths = pairwise(sizes), sizes[1:-1] if layer_norm else ()
        self.layers = nn.ModuleList(_Linear(*pair, streams, members) for pair in pairs)
        self.norms = nn.ModuleList(_LayerNorm(width, streams, members) for width in widths)

    def forward(self, x: Tensor, member: int | None = None) -> Tensor:
        """Of all members, or of one: [K, S, B, n_out] or [S, B, n_out]."""
        x, params = self.normaliser(x), [p for f in self.layers for p in (f.weight, f.bias)]
        if member is not None and not self.norms:
            member, params = None, [p[member] for p in params]
        # the same, sooner, where there are several networks of several layers
        if len(params) > 2 and not self.norms and params[0].shape[:-2].numel() > 1:
            return Layers.apply(x, *params)
        for i in range(len(self.layers)):
            x = _affine(F.relu(x) if i else x, *params[2 * i : 2 * i + 2])
            x = self.norms[i](x) if i < len(self.norms) else x
        return x if member is None else x[member]


class Critic(nn.Module):
    """Q(s, a) of K members: [K, S, B]."""

    def __init__(
        self, obs_dim, act_dim, streams, hidden=HIDDEN, members=2, normaliser=None, layer_norm=False
    ):
        super().__init__()
        self.normaliser = normaliser or nn.Identity()
        self.body = MLP([obs_dim + act_dim, *hidden, 1], streams, members, layer_norm=layer_norm)

    def forward(self, obs: Tensor, action: Tensor, member: int | None = None) -> Tensor:
        """Of all members, [K, S, B], or of one, [S, B]."""
        x = torch.cat([self.normaliser(obs), action], dim=-1)
        return self.body(x, member).squeeze(-1)


class DiscreteCritic(nn.Module):
    """Q of K members for n discrete actions: of all of them, [K, S, B, n_actions], or of given ones, [K, S, B]."""

    def __init__(self, obs_dim, n_actions, streams, hidden=HIDDEN, members=2, normaliser=None):
        super().__init__()
        self.body = MLP([obs_dim, *hidden, n_actions], streams, members, normaliser)

    def forward(self, obs: Tensor, action: Tensor | None = None) -> Tensor:
        values = self.body(obs)
        return values if action is None else pick(values, action)


def pick(values: Tensor, action: Tensor) -> Tensor:
    """The entry of each row's action: [..., B, n_actions], whole numbers [S, B] -> [..., B]."""
    return values.gather(-1, action.expand(values.shape[:-1]).unsqueeze(-1)).squeeze(-1)


def frozen_copy(net: nn.Module) -> nn.Module:
    """A target network: the same values, never touched by an optimiser."""
    return copy.deepcopy(net).requires_grad_(False)


@torch.no_grad()
def polyak(target: nn.Module, net: nn.Module, target_rate: float) -> None:
    """target <- (1 - target_rate) target + target_rate net, in place."""
    torch._foreach_lerp_(_parameters(target), _parameters(net), target_rate)


def _parameters(net: nn.Module) -> list[Tensor]:
    """A network's parameters, listed once: looking for them costs as much as moving them."""
    if net not in _LISTED:
        _LISTED[net] = list(net.parameters())
    return _LISTED[net]
