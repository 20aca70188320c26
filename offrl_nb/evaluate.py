"""Rollouts in vectorised environments, and intervals for what they measure.

For: running a policy of S seeds for a fixed number of episodes each, and saying how sure the result is.
Not for: estimating a policy's value from logged data alone (the chapter on off-policy evaluation).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from gymnasium.vector import VectorEnv

from offrl_nb.data import DataError, Dataset
from offrl_nb.envs import make_envs
from offrl_nb.streams import default_device

# Seed of the first evaluation episode; every training seed meets the same starts.
FIRST_START = 10_000


@dataclass(frozen=True)
class Rollouts:
    """E episodes for each of S seeds, T steps of the longest one."""

    returns: np.ndarray  # [S, E] undiscounted
    lengths: np.ndarray  # [S, E]
    discounted: np.ndarray  # [S, E] sum of discount^t r_t: what a critic predicts at the start
    starts: np.ndarray  # [S, E, obs_dim] the first observations
    obs: np.ndarray | None = None  # [T, S, E, obs_dim] what the policy saw, where recorded
    action: np.ndarray | None = None  # [T, S, E, act_dim] or [T, S, E] in the dataset's scale
    alive: np.ndarray | None = None  # [T, S, E] False after an episode's end


@torch.no_grad()
def rollout(act, envs, seeds, first_start=FIRST_START, device=None, record=False, discount=0.99):
    """`Rollouts` of one episode in each environment of `make_envs`; the first E belong to the first seed.

    act: observations [S, E, obs_dim] -> actions [S, E, act_dim] in [-1, 1], or [S, E] whole numbers.
    A policy with a memory has two methods more: begin(S, E), called before the first step, and
    receive(reward [S, E]), called after every step.
    Every episode counts: waiting for "the first K to finish" would favour short ones. A seed whose actions
    are not finite gets returns of NaN.
    """
    shape = seeds, envs.num_envs // seeds
    tensor = functools.partial(torch.as_tensor, device=device or default_device())
    obs, _ = envs.reset(seed=[first_start + i for i in range(shape[1])] * seeds)
    first = obs.reshape(*shape, -1).copy()
    alive, lost = np.ones(envs.num_envs, bool), np.zeros(envs.num_envs, bool)
    player = getattr(act, "__self__", act)  # of a method, the policy that it belongs to
    if hasattr(player, "begin"):
        player.begin(*shape)
    returns, discounted = np.zeros(envs.num_envs), np.zeros(envs.num_envs)
    lengths, history = np.zeros(envs.num_envs, int), []
    while alive.any():
        seen = tensor(obs, dtype=torch.get_default_dtype()).unflatten(0, shape)
        chosen = act(seen).cpu().numpy()
        if record:
            history.append((seen.cpu().numpy(), chosen, alive.reshape(shape)))
        action = np.nan_to_num(chosen, posinf=0, neginf=0).reshape(envs.action_space.shape)
        lost |= alive & ~np.isfinite(chosen.reshape(envs.num_envs, -1)).all(1)
        obs, reward, terminated, truncated, _ = envs.step(action)
        if hasattr(player, "receive"):
            player.receive(tensor(reward * alive).to(seen).unflatten(0, shape))
        discounted += discount**lengths * reward * alive
        returns, lengths = returns + reward * alive, lengths + alive
        alive = alive & ~(terminated | truncated)
    returns[lost], discounted[lost] = np.nan, np.nan
    recorded = [np.stack(column) for column in zip(*history, strict=True)] if record else []
    totals = [x.reshape(shape) for x in (returns, lengths, discounted)]
    return Rollouts(*totals, first, *recorded)


def evaluator(dataset: Dataset, episodes=10, first_start=FIRST_START, discount=0.99) -> Callable:
    """A function (act, S, value=None) -> {"return": [S]}: the mean return of `episodes` episodes a seed.

    The environment is the dataset's own; every seed meets the same starts. With `value`, (obs [S, E, d],
    action) -> Q [S, E], there are two entries more: "believed", Q at the first observations, and
    "discounted", the discounted return that followed. A critic without entropy in its targets is right on
    average where they agree, as far as episodes end by themselves.
    Raises DataError without an environment, or with one that does not fit the log.
    """
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}; evaluate at least one episode for each seed.")
    probe = make_envs(dataset.env, 1, dataset.action_space)  # fail now, not at the first evaluation
    width = probe.single_observation_space.shape[0]
    probe.close()
    if width != dataset.obs_dim:
        sizes = f"{probe.spec.id} shows {width} numbers, {dataset.id} has {dataset.obs_dim}"
        raise DataError(f"{sizes}; evaluate where it was logged, or pass observation_space.")

    @functools.cache
    def made(seeds: int) -> VectorEnv:
        return make_envs(dataset.env, seeds * episodes, dataset.action_space)

    device = dataset.obs.device

    @torch.no_grad()
    def evaluate(act: Callable, seeds: int, value: Callable | None = None) -> dict[str, np.ndarray]:
        played = rollout(act, made(seeds), seeds, first_start, device, discount=discount)
        measured = {"return": played.returns.mean(1)}
        if value is None:
            return measured
        starts = torch.as_tensor(played.starts, dtype=torch.get_default_dtype(), device=device)
        believed = value(starts, act(starts)).cpu().numpy()
        return measured | {"believed": believed.mean(1), "discounted": played.discounted.mean(1)}

    return evaluate


def interval(samples, draws: int = 10_000) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean of independent samples (Efron 1979).

    It varies what the samples vary, and nothing else: given one mean return a seed, it is about other seeds
    on the same starts. With 5 samples it is narrower than it should be: read it as a guide and look at the
    points. NaN for a single sample, which says nothing about spread.
    """
    if np.size(samples) < 2:
        return np.nan, np.nan
    return _middle(_means(samples, draws, np.random.default_rng(0)))


def difference(a, b) -> tuple[float, float]:
    """95 % bootstrap interval of mean(a) - mean(b) for independent samples; it varies what they vary."""
    generator = np.random.default_rng(0)
    return _middle(_means(a, 10_000, generator) - _means(b, 10_000, generator))


def _means(samples, draws: int, generator: np.random.Generator) -> np.ndarray:
    samples = np.asarray(samples, float)
    return samples[generator.integers(len(samples), size=(draws, len(samples)))].mean(1)


def _middle(values: np.ndarray) -> tuple[float, float]:
    return tuple(np.percentile(values, [2.5, 97.5]).tolist())


def last(table: pd.DataFrame, column: str = "return") -> np.ndarray:
    """The final measurement of every seed, [S]; NaN for a seed that has diverged.

    Raises ValueError where nothing was measured under that name.
    """
    if column not in table or not len(table):
        raise ValueError(f"It has no {column!r}, only {', '.join(table)}; returns need `evaluate`.")
    return table[table.step == table.step.max()].sort_values("seed")[column].to_numpy()


def best(table: pd.DataFrame, column: str = "return") -> np.ndarray:
    """The best measurement of every seed, [S]: chosen with the environment, so optimistic."""
    return table.groupby("seed")[column].max().to_numpy()


def compare(runs: dict, baseline: str | None = None, column: str = "return") -> pd.DataFrame:
    """A row a run: last and best, their differences to a baseline, and every seed's last value.

    runs: by name, tables of `fit`, or rows of stored results, which have `last` and `best` themselves.
    baseline: name of the run with which the others are compared. Intervals are 95 % bootstrap ones over
    seeds: of the mean of `last` where there is no baseline, else of the difference to it.
    A run that was stopped says so in its name.
    """
    ends, rows = {name: _ends(run, column) for name, run in runs.items()}, {}
    show = _shower([x for pair in ends.values() for x in pair.values()])
    for name, pair in ends.items():
        row, alone = {}, name == baseline or len(pair["last"]) < 2
        for kind, values in pair.items():
            row[kind] = show(np.mean(values))
            if baseline:
                apart = difference(values, ends[baseline][kind])
                row[f"{kind} − {baseline}"] = "–" if alone else " to ".join(map(show, apart))
            elif kind == "last":
                row["95 % over seeds"] = "–" if alone else " to ".join(map(show, interval(values)))
        row["last of each seed"] = "  ".join(map(show, pair["last"]))
        stopped = runs[name].attrs.get("stopped")
        rows[f"{name} ({stopped})" if stopped else name] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("run", axis="columns")


def _ends(run: pd.DataFrame, column: str) -> dict[str, np.ndarray]:
    if "step" in run:
        return {"last": last(run, column), "best": best(run, column)}
    return {kind: run[kind].to_numpy() for kind in ("last", "best")}


def _shower(values: list[np.ndarray]) -> Callable[[float], str]:
    """Writes numbers so that the largest of these values shows three digits: 500, 4.00, 0.830."""
    largest = np.nanmax(np.abs(np.concatenate(values)), initial=1e-6)
    digits = max(0, 2 - int(np.floor(np.log10(largest))))
    return lambda x: f"{x:z.{digits}f}"  # z: what rounds to zero has no sign
