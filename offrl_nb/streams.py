"""The random numbers of S seeds, one stream for each.

For: everything that is drawn while learning: initial weights, batches, noise. Not for: environments,
which have seeds of their own.
"""

import hashlib
import math
import os
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

CHUNK = 2**18  # numbers drawn at once and handed out in slices: far fewer calls, the same stream


def default_device() -> str:
    """The device of the environment variable OFFRL_DEVICE: cpu (the default), cuda, cuda:1, mps."""
    return os.environ.get("OFFRL_DEVICE", "cpu")


class Streams:
    """One random stream for each seed, with their draws stacked on a first axis: [S, ...].

    A seed's numbers depend on that seed alone, never on how many others train beside it. They are drawn on
    the CPU and then moved, so that a GPU sees the same ones.
    seeds: different whole numbers from 0 to 2^63 - 1, or how many: 5 is 0, 1, 2, 3, 4.
    device: where the draws go; None: `default_device()`.
    Raises ValueError for seeds that repeat or lie outside.
    """

    def __init__(self, seeds: Iterable[int] | int, device: str | torch.device | None = None):
        given = range(seeds) if isinstance(seeds, int) else () if seeds is None else seeds
        self.seeds = [int(seed) for seed in given]
        known = all(0 <= seed < 2**63 for seed in self.seeds)
        if not self.seeds or not known or len(set(self.seeds)) < len(self.seeds):
            wanted = "one or more different whole numbers from 0 to 2^63 - 1"
            raise ValueError(f"Seeds must be {wanted}, not {self.seeds}.")
        self.device = torch.device(device or default_device())
        self._generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        self._ready: dict[tuple, list] = {}

    def __len__(self) -> int:
        return len(self.seeds)

    def fork(self, use: str) -> "Streams":
        """Streams of the same seeds for another use, such as "acting", with numbers of their own."""
        hashes = [hashlib.sha256(f"{use} {seed}".encode()).digest() for seed in self.seeds]
        forked = Streams([int.from_bytes(x[:7]) for x in hashes], self.device)
        forked.seeds = self.seeds
        return forked

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, [S, *shape]."""
        return self._next(torch.randn, shape)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0, 1), [S, *shape]."""
        return self._next(torch.rand, shape)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Whole numbers 0 .. high - 1, each equally likely, [S, *shape]; `high` may change."""
        return self._next(_whole, shape) % high

    def initial(self, *shape: int) -> Tensor:
        """Uniform in [0, 1) for initial weights, [S, *shape]: drawn once, nothing kept."""
        return self._draw(torch.rand, shape).squeeze(0)

    def _next(self, draw: Callable, shape: tuple[int, ...]) -> Tensor:
        chunk = self._ready.get((draw, shape))
        if not chunk:
            count = max(1, min(256, CHUNK // max(1, math.prod(shape))))
            chunk = list(self._draw(draw, shape, count).flip(0))
            self._ready[draw, shape] = chunk
        return chunk.pop()

    def _draw(self, draw: Callable, shape: tuple[int, ...], count: int = 1) -> Tensor:
        drawn = [draw((count, *shape), generator=g, device="cpu") for g in self._generators]
        return torch.stack(drawn, dim=1).to(self.device)  # [count, S, *shape]


def _whole(size: tuple[int, ...], **where) -> Tensor:
    return torch.randint(2**62, size, **where)
