"""Environments: copies to play in, and exact solutions of tabular ones.

For: `make_envs`, to evaluate or to learn in any Gymnasium environment;
offrl/StitchMaze-v0, offrl/Fog-v0 and offrl/WindyGrid-v0, which Gymnasium knows once offrl_nb is imported;
`tabular`, `exact_q`, `optimal_q`, for FrozenLake as well. Not for: playing (that is `evaluate.rollout`).
"""

import importlib
from functools import partial

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from offrl_nb.data import DataError, flat_obs, unscale_action

_WITHOUT = "To go without one: evaluate=None, or --episodes 0 on the command line."


def _printed(kind: str, world: str, **options):
    """An environment of ours, made when it is asked for: its code is printed in chapter data."""
    module = importlib.import_module("offrl_nb.methods.data")
    return getattr(module, kind)(getattr(module, f"{world}World"), **options)


_STEPS = {"StitchMaze": 60, "Fog": 12, "WindyGrid": 100}  # of an episode
# The stored logs know them by these names; num_envs copies side by side, or one alone.
StitchMaze, Fog, WindyGrid = (partial(_printed, "Copies", world) for world in _STEPS)
SingleStitchMaze, SingleFog, SingleWindyGrid = (partial(_printed, "Single", x) for x in _STEPS)
for _name, _steps in _STEPS.items():
    _one, _many = f"offrl_nb.envs:Single{_name}", f"offrl_nb.envs:{_name}"
    gym.register(f"offrl/{_name}-v0", _one, max_episode_steps=_steps, vector_entry_point=_many)


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


class _AsLogged(gym.vector.VectorWrapper):
    """Speaks as a Dataset does: flat float32 observations, actions in [-1, 1] or 0 .. n - 1."""

    def __init__(self, envs: VectorEnv, scale: Box | Discrete):
        super().__init__(envs)
        self.scale, obs = scale, envs.single_observation_space
        flat, box = flat_obs(obs.sample(), obs).shape, (int(np.prod(scale.shape)),)
        self.single_observation_space = Box(-np.inf, np.inf, flat)
        discrete = isinstance(scale, Discrete)
        self.single_action_space = Discrete(int(scale.n)) if discrete else Box(-1.0, 1.0, box)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def flat(self, obs):
        return flat_obs(obs, self.env.single_observation_space, lead=1)

    def reset(self, *, seed=None, options=None):
        obs, info = self.env.reset(seed=seed, options=options)
        return self.flat(obs), info

    def step(self, actions):
        space = self.env.single_action_space
        actions = unscale_action(np.asarray(actions), self.scale).astype(space.dtype)
        obs, *rest = self.env.step(actions.reshape(self.num_envs, *space.shape))
        return self.flat(obs), *rest


def make_envs(env, count: int, action_space: gym.Space | None = None, learn=False) -> VectorEnv:
    """`count` copies of an environment (id or spec) that speak as a Dataset does.

    Observations are flat, actions scaled from action_space (None: the environment's own). Each copy plays one
    episode per seeded reset; or, to learn in, goes on after reset(options={"reset_mask": ...}), autoreset
    disabled. Our own environments move side by side, all others one after the other.
    Raises DataError for an environment that cannot be made, whose actions are not those of action_space, or
    whose episodes may never end.
    """
    env = getattr(env, "spec", env)  # of an instance
    name, options = getattr(env, "id", env), {}
    if name is None:
        raise DataError(f"This log has no environment. {_WITHOUT}")
    if not name.startswith("offrl/"):  # ours are vectorised, and idle when an episode is over
        disabled = {"vector_kwargs": {"autoreset_mode": AutoresetMode.DISABLED}}
        options = disabled if learn else {"wrappers": [_OneEpisode]}
        options["vectorization_mode"] = "sync"
    try:
        envs = gym.make_vec(env, num_envs=count, **options)
    except (gym.error.Error, ImportError, AttributeError, TypeError) as error:
        hint = f"install or import its package. {_WITHOUT}"
        raise DataError(f"The environment {name} cannot be made ({error}); {hint}") from error
    own = envs.single_action_space
    if not _agree(own, action_space or own):
        spaces = f"{name} takes actions in {own}, the log has them in {action_space}"
        raise DataError(f"{spaces}; pass the right action_space.")
    if envs.spec.max_episode_steps is None:
        raise DataError(f"{name} has no time limit; register it with max_episode_steps.")
    return _AsLogged(envs, action_space or own)


def _agree(own: gym.Space, given: gym.Space) -> bool:
    """Do actions mean the same in both spaces? The environment's may lack bounds, or hold more actions."""
    if isinstance(own, Discrete) and isinstance(given, Discrete):
        return given.n <= own.n and given.start == own.start
    if not (isinstance(own, Box) and isinstance(given, Box)):
        return False
    ours, theirs = (np.ravel([space.low, space.high]) for space in (own, given))
    return ours.shape == theirs.shape and ((ours == theirs) | (abs(ours) > 1e9)).all()


def tabular(env_id: str, **options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """P [S, A, S], R [S, A] and start [S] of an environment with a table; options go to `gym.make`.

    P counts only transitions after which the episode goes on, so no value follows an end; time limits are
    not part of it. Raises ValueError for an environment without a table.
    """
    env = gym.make(env_id, **options).unwrapped
    if getattr(env, "P", None) is None:
        raise ValueError(f"{env_id} has no table P of transitions; it cannot be solved exactly.")
    R = np.zeros((len(env.P), len(env.P[0])))
    P = np.zeros((*R.shape, len(R)))
    for s, a in np.ndindex(R.shape):
        for probability, following, reward, done in env.P[s][a]:
            P[s, a, following] += probability * (not done)
            R[s, a] += probability * reward
    return P, R, np.asarray(env.initial_state_distrib)


def exact_q(P: np.ndarray, R: np.ndarray, policy: np.ndarray, discount: float) -> np.ndarray:
    """Q [S, A] of a policy [S, A], by solving V = R_pi + discount P_pi V (Sutton & Barto 2018, eq. 4.4)."""
    P_policy, R_policy = np.einsum("sax,sa->sx", P, policy), (R * policy).sum(-1)
    return R + discount * P @ np.linalg.solve(np.eye(len(R)) - discount * P_policy, R_policy)


def optimal_q(P: np.ndarray, R: np.ndarray, discount: float) -> np.ndarray:
    """Q* [S, A] by value iteration, until a sweep changes no entry by more than 1e-10."""
    q, change = np.zeros_like(R), np.inf
    while change > 1e-10:
        previous, q = q, R + discount * P @ q.max(-1)
        change = abs(q - previous).max()
    return q
