"""The training loop, and the optimiser's step.

For: calling an update many times, with a progress bar, evaluations on a schedule and a table with a row
for every seed. Not for: deciding what an update does. Each chapter prints its own.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm import tqdm

from offrl_nb.fast import Adam

RECORDS = 50  # rows a seed in the table of a run, besides those of evaluations


def adam(net: nn.Module | list[nn.Parameter], learning_rate: float) -> torch.optim.Adam:
    """Adam for one network role; element by element, so it never mixes seeds."""
    parameters = net.parameters() if isinstance(net, nn.Module) else net
    return Adam(parameters, lr=learning_rate, fused=True)


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
    update, updates, seeds, evaluate=None, evaluations=10, nets=None, name="training", after=None
) -> pd.DataFrame:
    """Call `update(step)` for step = 1 .. updates and keep what it says.

    update: returns diagnostics, each a tensor [S]. A record holds their mean since the record before.
    seeds: `Streams`, or their seeds alone.
    evaluate: returns measurements, each an array [S]; called `evaluations` times, evenly spaced, the last
        time at the end, with (nets.policy.mode, S), and nets.value where there is one; without nets, bare.
    after: the table of an earlier stage of the same run (a model, a clone): its seconds are added here, and
        where it was stopped, nothing is trained.
    Returns a table with the columns step, seed, the diagnostics and the measurements (NaN where none was
    taken). Its `attrs` hold seconds, evaluation_seconds, updates (the last one begun) and stopped: empty,
    or a sentence. Ctrl-C stops a run, which is then evaluated and returned. So does a diagnostic that is
    finite in no seed; the measurements of its last row are NaN.
    Raises ValueError for a number of updates or evaluations below 1.
    """
    if updates < 1 or evaluations < 1:
        raise ValueError(f"{updates} updates, {evaluations} evaluations: give at least 1 of each.")
    seeds, began = list(getattr(seeds, "seeds", seeds)), time.perf_counter()
    given = () if nets is None else (nets.policy.mode, len(seeds))
    given += (nets.value,) if hasattr(nets, "value") else ()
    records = _Records(seeds, evaluate and (lambda: evaluate(*given)))
    evaluate_at = _spaced(updates, evaluations) if evaluate else set()
    record_at = _spaced(updates, RECORDS) | evaluate_at
    stopped, step = after.attrs["stopped"] if after is not None else "", 0
    try:
        for step in _progress(0 if stopped else updates, name):
            records.add(update(step))
            if step in record_at and not records.write(step, step in evaluate_at):
                stopped = f"diverged in every seed by update {step:,} of {updates:,}"
                break
    except KeyboardInterrupt:
        stopped = f"stopped by hand in update {step:,} of {updates:,}"
        records.write(step, bool(evaluate))
    advice = "; try a lower learning rate, or smaller rewards and observations"
    ended = stopped + advice * stopped.startswith("diverged") or f"{updates:,} updates"
    if step:  # not after a stage that was stopped
        print(f"{name}, {len(seeds)} seed{'s' * (len(seeds) > 1)}: {ended}.", flush=True)
    spent = {"seconds": time.perf_counter() - began, "evaluation_seconds": records.evaluating}
    if after is not None:
        spent = {key: seconds + after.attrs[key] for key, seconds in spent.items()}
    table = records.table()
    table.attrs |= spent | {"updates": step, "stopped": stopped}
    return table


class _Records:
    """The rows of a run's table, and what was said since the last of them."""

    def __init__(self, seeds: list[int], measure: Callable | None):
        self.seeds, self.measure, self.evaluating = seeds, measure, 0.0
        self.sums, self.counted, self.rows = defaultdict(float), defaultdict(int), {}

    def add(self, said: dict[str, Tensor]) -> None:
        for key, x in said.items():
            self.sums[key] = self.sums[key] + x.detach()
            self.counted[key] += 1

    def write(self, step: int, evaluate: bool) -> bool:
        """A row for each seed; False where a diagnostic is finite in none."""
        row = {key: (x / self.counted[key]).cpu().numpy() for key, x in self.sums.items()}
        self.sums, self.counted = defaultdict(float), defaultdict(int)
        healthy = all(np.isfinite(x).any() for x in row.values())
        if self.measure and not healthy:
            row["return"] = np.full(len(self.seeds), np.nan)
        elif evaluate:
            started = time.perf_counter()
            row |= {key: np.asarray(x) for key, x in self.measure().items()}
            self.evaluating += time.perf_counter() - started
        self.rows[step] = self.rows.get(step, {}) | row
        return healthy

    def table(self) -> pd.DataFrame:
        rows = [
            {"step": step, "seed": seed} | {key: x[i] for key, x in row.items()}
            for step, row in self.rows.items()
            for i, seed in enumerate(self.seeds)
        ]
        return pd.DataFrame(rows, columns=None if rows else ["step", "seed"])


def _progress(updates: int, name: str) -> tqdm:
    """Steps with a bar that goes when they are done; in a notebook, too, which is no terminal."""
    hidden = "ipykernel" not in type(sys.stdout).__module__ and not sys.stdout.isatty()
    steps, shown = range(1, updates + 1), {"file": sys.stdout, "leave": False, "mininterval": 0.5}
    return tqdm(steps, name, unit=" updates", disable=hidden, **shown)


def _spaced(total: int, count: int) -> set[int]:
    count = min(count, total)
    return {total * i // count for i in range(1, count + 1)}
