"""Rollouts in vectorised environments, and intervals for what they measure.

For: running a policy of S seeds for a fixed number of episodes each, and saying how sure the result is.
Not for: estimating a policy's value from logged data alone (the chapter on off-policy evaluation).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from offrl_nb.data import Dataset, unscale_action

FIRST_START = (
    10_000  # seed of the first evaluation episode; every training seed meets the same starts
)


@dataclass(frozen=True)
class Rollouts:
    """E episodes for each of S seeds, T steps of the longest one."""

    returns: np.ndarray  # [S, E] undiscounted
    lengths: np.ndarray  # [S, E]
    obs: np.ndarray | None = None  # [T, S, E, obs_dim] what the policy saw, where recorded
    action: np.ndarray | None = (
        None  # [T, S, E, act_dim] or [T, S, E] what it did, in the dataset's scale
    )
    alive: np.ndarray | None = None  # [T, S, E] False after an episode's end


class _OneEpisode(gym.Wrapper):
    """Plays one episode for each seeded reset, then idles: an episode that is over costs and adds nothing."""

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.over, self.last = False, self.env.reset(seed=seed, options=options)
        return self.last

    def step(self, action):
        if self.over:
            return self.last[0], 0.0, False, False, {}
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.over, self.last = terminated or truncated, (obs, {})
        return obs, reward, terminated, truncated, info


class _Floats(gym.ObservationWrapper):
    """Flat float32 observations, as a Dataset has them."""

    def __init__(self, env):
        super().__init__(env)
        self.parts = isinstance(env.observation_space, gym.spaces.Dict)
        size = gym.spaces.utils.flatdim(env.observation_space)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)

    def observation(self, obs):
        parts = obs.values() if self.parts else [obs]
        return np.concatenate([np.asarray(part, np.float32).reshape(-1) for part in parts])


def make_envs(env, count: int) -> gym.vector.VectorEnv:
    """`count` copies of an environment (id or spec), each playing one episode per seeded reset."""
    return gym.make_vec(
        env, num_envs=count, vectorization_mode="sync", wrappers=[_Floats, _OneEpisode]
    )


@torch.no_grad()
def rollout(
    act: Callable[[Tensor], Tensor],
    envs: gym.vector.VectorEnv,
    seeds: int,
    first_start: int = FIRST_START,
    device: str | torch.device = "cpu",
    record: bool = False,
) -> Rollouts:
    """Play exactly one episode in each environment; the first E belong to the first seed, and so on.

    act: observations [S, E, obs_dim] -> actions [S, E, act_dim] in [-1, 1], or [S, E] whole numbers.
    Every episode counts: waiting for "the first K to finish" would favour short ones.
    """
    episodes = envs.num_envs // seeds
    space, discrete = (
        envs.single_action_space,
        isinstance(envs.single_action_space, gym.spaces.Discrete),
    )
    starts = [first_start + i for i in range(episodes)] * seeds
    obs, _ = envs.reset(seed=starts)
    alive = np.ones(envs.num_envs, bool)
    returns, lengths, history = (np.zeros(envs.num_envs), np.zeros(envs.num_envs, int), [])
    while alive.any():
        seen = torch.as_tensor(obs, dtype=torch.get_default_dtype(), device=device).unflatten(
            0, (seeds, episodes)
        )
        chosen = act(seen).cpu().numpy()
        flat = chosen.reshape(envs.num_envs, *chosen.shape[2:])
        action = flat + space.start if discrete else unscale_action(flat, space).astype(space.dtype)
        if record:
            history.append((seen.cpu().numpy(), chosen, alive.reshape(seeds, episodes)))
        obs, reward, terminated, truncated, _ = envs.step(action)
        returns, lengths = returns + reward * alive, lengths + alive
        alive = alive & ~(terminated | truncated)
    recorded = [np.stack(column) for column in zip(*history, strict=True)] if record else []
    return Rollouts(returns.reshape(seeds, -1), lengths.reshape(seeds, -1), *recorded)


def evaluator(dataset: Dataset, episodes: int = 10, first_start: int = FIRST_START):
    """A function (act, S) -> {"return": [S]}: the mean return of `episodes` episodes for each seed.

    The environment is the dataset's own. Raises ValueError where the dataset has none.
    """
    if dataset.env is None:
        raise ValueError(
            f"{dataset.id} has no environment; pass evaluate=None and judge it from data."
        )
    made = functools.cache(lambda seeds: make_envs(dataset.env, seeds * episodes))

    def evaluate(act: Callable[[Tensor], Tensor], seeds: int) -> dict[str, np.ndarray]:
        played = rollout(act, made(seeds), seeds, first_start, dataset.obs.device)
        return {"return": played.returns.mean(1)}

    return evaluate


def interval(
    samples, statistic=np.mean, level: float = 0.95, draws: int = 10_000
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of independent samples (Efron 1979).

    With 5 samples it is narrower than it should be: read it as a guide and look at the points.
    """
    samples = np.asarray(samples, float)
    picks = np.random.default_rng(0).integers(len(samples), size=(draws, len(samples)))
    tail = 50 * (1 - level)
    low, high = np.percentile(statistic(samples[picks], axis=1), [tail, 100 - tail])
    return float(low), float(high)


def difference(a, b, level: float = 0.95, draws: int = 10_000) -> tuple[float, float]:
    """Bootstrap interval of mean(a) - mean(b) for independent samples."""
    generator, means = np.random.default_rng(0), []
    for samples in (np.asarray(a, float), np.asarray(b, float)):
        picks = generator.integers(len(samples), size=(draws, len(samples)))
        means.append(samples[picks].mean(1))
    tail = 50 * (1 - level)
    low, high = np.percentile(means[0] - means[1], [tail, 100 - tail])
    return float(low), float(high)


def last(log: pd.DataFrame, column: str = "return") -> np.ndarray:
    """The final measurement of every seed, [S]."""
    measured = log.dropna(subset=[column])
    return measured[measured.step == measured.step.max()].sort_values("seed")[column].to_numpy()


def best(log: pd.DataFrame, column: str = "return") -> np.ndarray:
    """The best measurement of every seed during training, [S]: chosen with the environment, so optimistic."""
    return log.dropna(subset=[column]).groupby("seed")[column].max().sort_index().to_numpy()


def summary(logs: dict[str, pd.DataFrame], column: str = "return") -> pd.DataFrame:
    """Last and best of each run: mean over seeds, 95 % interval, and every seed's last value."""
    rows = {}
    for name, log in logs.items():
        values = last(log, column)
        low, high = interval(values)
        rows[name] = {
            "last": f"{values.mean():.0f}",
            "95 % interval": f"{low:.0f} to {high:.0f}",
            "best": f"{best(log, column).mean():.0f}",
            "last, each seed": "  ".join(f"{value:.0f}" for value in values),
        }
    return pd.DataFrame.from_dict(rows, orient="index")
