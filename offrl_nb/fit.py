"""The training loop, and the random numbers of S seeds.

For: calling an update many times, with a progress bar, evaluations on a schedule and a log with a row
for every seed. Not for: deciding what an update does. Each chapter prints its own.
"""

import io
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

CHUNK = 2**18  # numbers drawn at once and handed out in slices: far fewer calls, the same stream


class Streams:
    """One random stream for each seed, with their draws stacked on a first axis: [S, ...].

    A seed's numbers depend on that seed alone, never on how many others train beside it.
    """

    def __init__(self, seeds: Iterable[int] | int, device: str | torch.device = "cpu"):
        self.seeds = list(range(seeds)) if isinstance(seeds, int) else [int(s) for s in seeds]
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"Seeds must be one or more different whole numbers, not {self.seeds}."
            )
        self.device = torch.device(device)
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in self.seeds]
        self._ready: dict[tuple, list] = {}

    def __len__(self) -> int:
        return len(self.seeds)

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
        size = (count, *shape)
        drawn = [draw(size, generator=g, device=self.device) for g in self.generators]
        return torch.stack(drawn, dim=1)  # [count, S, *shape]


def _whole(size: tuple[int, ...], **where) -> Tensor:
    return torch.randint(2**62, size, **where)


def adam(net: nn.Module, learning_rate: float) -> torch.optim.Adam:
    """Adam for one network role; element by element, so it never mixes seeds."""
    return torch.optim.Adam(net.parameters(), lr=learning_rate, fused=True)


def minimise(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """One step on a loss with an entry a seed ([S], or [K, S] for an ensemble).

    The entries are summed. Each depends on its own seed's weights only, so the gradient of the sum is
    every seed's own gradient.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter in parameters:
        parameter.grad = None  # optimizer.zero_grad() does the same, slower
    loss.sum().backward(inputs=parameters)  # nothing is computed for, or left in, other networks
    optimizer.step()


def fit(
    update: Callable[[int], dict[str, Tensor]],
    updates: int,
    seeds: Iterable[int],
    evaluate: Callable[[], dict[str, np.ndarray]] | None = None,
    evaluations: int = 10,
    records: int = 50,
    name: str = "training",
) -> pd.DataFrame:
    """Call `update(step)` for step = 1 .. updates and keep what it says.

    update: returns diagnostics, each a tensor [S]. A record holds their mean since the record before.
    evaluate: returns measurements, each an array [S]; called `evaluations` times, evenly spaced, the last
        time after the last update.
    Returns a table with the columns step, seed, the diagnostics and the measurements (NaN where none was
    taken); `log.attrs` holds seconds, evaluation_seconds and the updates done. Ctrl-C ends the loop and
    returns what was logged.
    """
    seeds = list(seeds)
    evaluate_at = _spaced(updates, evaluations) if evaluate else set()
    record_at = _spaced(updates, records) | evaluate_at
    sums, counted, rows, evaluating, done = defaultdict(float), 0, [], 0.0, 0
    began = time.perf_counter()
    with _Bar(updates, name) as bar:
        try:
            for step in range(1, updates + 1):
                for key, value in update(step).items():
                    sums[key] = sums[key] + value.detach()
                counted, done = counted + 1, step
                bar.advance()
                if step not in record_at:
                    continue
                row = {key: (value / counted).cpu().numpy() for key, value in sums.items()}
                sums, counted = defaultdict(float), 0
                if step in evaluate_at:
                    started = time.perf_counter()
                    measured = {key: np.asarray(value) for key, value in evaluate().items()}
                    evaluating += time.perf_counter() - started
                    row |= measured
                    bar.show(measured)
                rows.append(pd.DataFrame({"step": step, "seed": seeds, **row}))
        except KeyboardInterrupt:
            bar.note = "; stopped by hand, what was logged is kept"
        seconds = time.perf_counter() - began
        bar.finish(_summary(name, len(seeds), done, seconds, evaluating))
    log = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=["step", "seed"])
    log.attrs |= {"seconds": seconds, "evaluation_seconds": evaluating, "updates": done}
    return log


def _spaced(total: int, count: int) -> set[int]:
    count = min(count, total)
    return {total * i // count for i in range(1, count + 1)}


def _summary(name: str, seeds: int, updates: int, seconds: float, evaluating: float) -> str:
    rate = seeds * updates / max(seconds - evaluating, 1e-9)
    share = f", {evaluating / seconds:.0%} of the time evaluating" if evaluating else ""
    plural = "seed" if seeds == 1 else "seeds"
    return (
        f"{name}: {seeds} {plural} x {updates:,} updates in {seconds:.1f} s "
        f"({rate:,.0f} seed-updates/s{share})"
    )


class _Bar:
    """tqdm that reads well everywhere.

    In a notebook, one output a cell, updated in place, that ends as a line of text for each run; stderr
    in a terminal; silence where stderr is a file.
    """

    def __init__(self, total: int, name: str):
        self.cell = _cell_output()
        self.note = ""
        where = {"file": self.cell, "ncols": 80} if self.cell else {"disable": None, "leave": False}
        self.bar = tqdm(total=total, desc=name, unit=" updates", mininterval=0.5, **where)
        self.advance = self.bar.update

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.bar.close()

    def show(self, measured: dict[str, np.ndarray]) -> None:
        means = {key: f"{np.mean(value):.4g}" for key, value in measured.items()}
        self.bar.set_postfix(means, refresh=False)

    def finish(self, text: str) -> None:
        self.bar.close()
        if self.cell:
            self.cell.keep(text + self.note)
        elif not self.bar.disable:
            print(text + self.note)


class _CellOutput(io.TextIOBase):
    """The file that a notebook cell's bars write to: lines of finished runs, then the running bar."""

    def __init__(self, display: Callable):
        self.kept: list[str] = []
        self.handle = display({"text/plain": ""}, raw=True, display_id=True)

    def write(self, text: str) -> int:
        if text.strip():
            lines = "\n".join([*self.kept, text.strip()])
            self.handle.update({"text/plain": lines}, raw=True)
        return len(text)

    def keep(self, line: str) -> None:
        self.write(line)
        self.kept.append(line)


_latest: tuple[int, _CellOutput] | None = None  # execution count and output of the last cell


def _cell_output() -> _CellOutput | None:
    global _latest
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        return None
    shell = get_ipython()
    if not hasattr(shell, "kernel"):
        return None
    if _latest is None or _latest[0] != shell.execution_count:
        _latest = (shell.execution_count, _CellOutput(display))
    return _latest[1]
