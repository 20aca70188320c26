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
from gymnasium.vector import AutoresetMode
from torch import Tensor

from offrl_nb.data import DataError, Dataset, flat_obs, unscale_action

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


class _OneEpisode(gym.Wrapper):
    """Plays one episode for each seeded reset, then idles: an episode that is over adds nothing."""

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


class _Flat(gym.ObservationWrapper):
    """Observations as a Dataset has them: flat, float32."""

    def __init__(self, env):
        super().__init__(env)
        width = flat_obs(env.observation_space.sample(), env.observation_space).size
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (width,), np.float32)

    def observation(self, obs):
        return flat_obs(obs, self.env.observation_space)


class _FlatCopies(gym.vector.VectorObservationWrapper):
    """`_Flat` for all copies of a vector environment at once."""

    def observations(self, obs):
        return flat_obs(obs, self.env.single_observation_space, lead=1)


def make_envs(env, count: int) -> gym.vector.VectorEnv:
    """`count` copies of an environment (id or spec), each playing one episode per seeded reset.

    Our own environments do that by themselves, vectorised; all others run one after the other.
    Raises ValueError for an environment that is not installed or whose episodes may never end.
    """
    try:
        if getattr(env, "id", env).startswith("offrl/"):
            envs = _FlatCopies(gym.make_vec(env, num_envs=count))
        else:
            envs = gym.make_vec(
                env, num_envs=count, vectorization_mode="sync", wrappers=[_Flat, _OneEpisode]
            )
    except gym.error.Error as error:
        raise ValueError(
            f"The environment {getattr(env, 'id', env)} cannot be made ({error}); "
            "install its package, or pass evaluate=None."
        ) from error
    if envs.spec.max_episode_steps is None:
        raise ValueError(f"{envs.spec.id} has no time limit; register it with max_episode_steps.")
    return envs


def playground(dataset: Dataset, count: int) -> gym.vector.VectorEnv:
    """`count` copies of the environment in which a log was written, to learn in; autoreset disabled.

    Raises DataError for a dataset without an environment.
    """
    if dataset.env is None:
        raise DataError(f"{dataset.id} has no environment, so nobody can go online.")
    if dataset.env.id.startswith("offrl/"):  # moves all copies at once, autoreset disabled
        return gym.make_vec(dataset.env, count)
    disabled = {"autoreset_mode": AutoresetMode.DISABLED}
    return gym.make_vec(dataset.env, count, "sync", vector_kwargs=disabled)


@torch.no_grad()
def rollout(
    act: Callable[[Tensor], Tensor],
    envs: gym.vector.VectorEnv,
    seeds: int,
    first_start: int = FIRST_START,
    device: str | torch.device = "cpu",
    record: bool = False,
    discount: float = 0.99,
) -> Rollouts:
    """Play exactly one episode in each environment; the first E belong to the first seed, and so on.

    act: observations [S, E, obs_dim] -> actions [S, E, act_dim] in [-1, 1], or [S, E] whole numbers.
    A policy with a memory is an object with two methods more: begin(S, E), called before the first step,
    and receive(reward [S, E]), called after every step.
    Every episode counts: waiting for "the first K to finish" would favour short ones.
    """
    episodes = envs.num_envs // seeds
    space = envs.single_action_space
    starts = [first_start + i for i in range(episodes)] * seeds
    obs, _ = envs.reset(seed=starts)
    first = np.asarray(obs).reshape(seeds, episodes, -1).copy()
    alive = np.ones(envs.num_envs, bool)
    if hasattr(act, "begin"):
        act.begin(seeds, episodes)
    returns, discounted = np.zeros(envs.num_envs), np.zeros(envs.num_envs)
    lengths, history = np.zeros(envs.num_envs, int), []
    while alive.any():
        seen = torch.as_tensor(obs, dtype=torch.get_default_dtype(), device=device)
        seen = seen.unflatten(0, (seeds, episodes))
        chosen = act(seen).cpu().numpy()
        if isinstance(space, gym.spaces.Discrete):
            action = chosen.reshape(-1) + space.start
        else:
            action = unscale_action(chosen, space).astype(space.dtype)
            action = action.reshape(envs.num_envs, *space.shape)
        if record:
            history.append((seen.cpu().numpy(), chosen, alive.reshape(seeds, episodes)))
        obs, reward, terminated, truncated, _ = envs.step(action)
        if hasattr(act, "receive"):
            act.receive(torch.as_tensor(reward * alive).to(seen).unflatten(0, (seeds, episodes)))
        discounted += discount**lengths * reward * alive
        returns, lengths = returns + reward * alive, lengths + alive
        alive = alive & ~(terminated | truncated)
    recorded = [np.stack(column) for column in zip(*history, strict=True)] if record else []
    totals = [x.reshape(seeds, -1) for x in (returns, lengths, discounted)]
    return Rollouts(*totals, first, *recorded)


def evaluator(
    dataset: Dataset, episodes: int = 10, first_start: int = FIRST_START, discount: float = 0.99
):
    """A function (act, S, value=None) -> {"return": [S]}: the mean return of `episodes` episodes a seed.

    The environment is the dataset's own. With `value`, (obs [S, E, d], action) -> Q [S, E], there are two
    entries more: "believed", Q at the first observations, and "discounted", the discounted return that
    followed; a critic is right on average where they agree. Raises ValueError without an environment.
    """
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}; evaluate at least one episode for each seed.")
    if dataset.env is None:
        raise ValueError(
            f"{dataset.id} has no environment; pass evaluate=None and judge it from data."
        )
    make_envs(dataset.env, 1).close()  # fail now rather than at the first evaluation
    made = functools.cache(lambda seeds: make_envs(dataset.env, seeds * episodes))
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


def interval(samples, level: float = 0.95, draws: int = 10_000) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of independent samples (Efron 1979).

    With 5 samples it is narrower than it should be: read it as a guide and look at the points.
    NaN for a single sample, which says nothing about spread.
    """
    if np.size(samples) < 2:
        return np.nan, np.nan
    return _middle(_means(samples, draws, np.random.default_rng(0)), level)


def difference(a, b, level: float = 0.95, draws: int = 10_000) -> tuple[float, float]:
    """Bootstrap interval of mean(a) - mean(b) for independent samples."""
    generator = np.random.default_rng(0)
    return _middle(_means(a, draws, generator) - _means(b, draws, generator), level)


def _means(samples, draws: int, generator: np.random.Generator) -> np.ndarray:
    samples = np.asarray(samples, float)
    return samples[generator.integers(len(samples), size=(draws, len(samples)))].mean(1)


def _middle(values: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.percentile(values, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def last(log: pd.DataFrame, column: str = "return") -> np.ndarray:
    """The final measurement of every seed, [S]; a seed that has diverged stays NaN."""
    final = log[log.step == log.step[log[column].notna()].max()]
    return final.sort_values("seed")[column].to_numpy()


def best(log: pd.DataFrame, column: str = "return") -> np.ndarray:
    """The best measurement of every seed, [S]: chosen with the environment, so optimistic."""
    return log.groupby("seed")[column].max().to_numpy()


def summary(logs: dict[str, pd.DataFrame], column: str = "return") -> pd.DataFrame:
    """Last and best of each run: mean over seeds, 95 % interval, and every seed's last value."""
    rows = {}
    for name, log in logs.items():
        values = last(log, column)
        low, high = interval(values)
        rows[name] = {
            "last": f"{values.mean():.0f}",
            "95 % interval": f"{low:.0f} to {high:.0f}" if len(values) > 1 else "–",
            "best": f"{best(log, column).mean():.0f}",
            "last, each seed": "  ".join(f"{value:.0f}" for value in values),
        }
    return pd.DataFrame.from_dict(rows, orient="index")
