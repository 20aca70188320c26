"""Small environments with a point to make, and exact solutions of tabular ones.

For: offrl/StitchMaze-v0, offrl/Fog-v0 and offrl/WindyGrid-v0, which gymnasium knows once offrl_nb is
imported; `tabular`, `exact_q`, `optimal_q`, for FrozenLake as well. Not for: learning from samples.
"""

import functools
from typing import ClassVar

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space


class Copies(VectorEnv):
    """n copies of an environment, moved together in NumPy.

    A seed fixes an episode's start and all its luck, for a copy as for a single environment. An episode that
    is over idles until its next reset: same observation, reward 0, no flags. Subclasses `draw` the first
    state [d] and the luck [max_episode_steps, k] of an episode, and `advance` all states [n, d] by a step.
    """

    metadata: ClassVar = {"autoreset_mode": AutoresetMode.DISABLED, "render_modes": []}

    def __init__(self, num_envs: int, max_episode_steps: int, obs_space, action_space):
        self.num_envs, self.max_episode_steps = num_envs, max_episode_steps
        self.single_observation_space, self.single_action_space = obs_space, action_space
        self.observation_space = batch_space(obs_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.generators = [np.random.default_rng() for _ in range(num_envs)]
        self.state, self.luck = (np.stack([x] * num_envs) for x in self.draw(self.generators[0]))
        self.steps, self.over = np.zeros(num_envs, int), np.ones(num_envs, bool)

    def reset(self, *, seed=None, options=None):
        """Begin new episodes in all copies, or where options["reset_mask"], booleans [n], is True.

        seed: n numbers; or one, counted on from copy to copy; or None, to go on drawing.
        """
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        seeds = [seed] * self.num_envs if seed is None else seed
        seeds = seeds + np.arange(self.num_envs) if np.ndim(seeds) == 0 else seeds
        for i, (begin, number) in enumerate(zip(mask, seeds, strict=True)):
            if begin and number is not None:
                self.generators[i] = np.random.default_rng(number)
            if begin:
                self.state[i], self.luck[i] = self.draw(self.generators[i])
                self.steps[i], self.over[i] = 0, False
        return self.observe(), {}

    def step(self, actions):
        """Actions [n, ...] -> observations, rewards, terminated, truncated [n], {}.

        Raises ValueError for actions of a wrong shape, NaN, or unknown discrete ones.
        """
        actions, discrete = np.asarray(actions), isinstance(self.single_action_space, Discrete)
        fits = self.action_space.contains(actions) if discrete else np.isfinite(actions).all()
        if actions.shape != self.action_space.shape or not fits:
            raise ValueError(f"{actions.dtype} actions {actions.shape}: not {self.action_space}.")
        active, now = ~self.over, np.minimum(self.steps, self.max_episode_steps - 1)
        luck = self.luck[np.arange(self.num_envs), now]
        state, reward, terminated = self.advance(self.state, actions, luck)
        self.state = np.where(active[:, None], state, self.state)
        self.steps += active
        terminated = active & terminated  # both flags may be up at the limit, as gymnasium has it
        truncated = active & (self.steps >= self.max_episode_steps)
        self.over |= terminated | truncated
        return self.observe(), np.where(active, reward, 0.0), terminated, truncated, {}

    def observe(self):
        return self.state.reshape(self.observation_space.shape).astype(self.observation_space.dtype)


class Single(gym.Env):
    """One episode at a time: the only copy of a vector environment."""

    metadata: ClassVar = {"render_modes": []}

    def __init__(self, vector: type[Copies], **options):
        self.copies = vector(1, **options)
        self.observation_space = self.copies.single_observation_space
        self.action_space = self.copies.single_action_space
        self.P = getattr(self.copies, "P", None)  # tabular ones
        self.initial_state_distrib = getattr(self.copies, "initial_state_distrib", None)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        obs, info = self.copies.reset(seed=[seed])
        return obs[0], info

    def step(self, action):
        obs, reward, terminated, truncated, info = self.copies.step(np.asarray(action)[None])
        return obs[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), info


class StitchMaze(Copies):
    """A point in a maze. The goal pays 1, the snack 0.5, and both end the episode; 60 steps.

    Observation: position (row, column) in cells; whole numbers are the cells' centres. Action [2] in [-1, 1]:
    a move of 0.35 cells, plus 0.03 N(0, 1); into a wall it is cancelled, each axis on its own.
    starts: cells (row, column), one of which is drawn, with a jitter of +-0.3.
    """

    # The map of PointMaze "medium" (D4RL, Fu et al. 2020; Apache 2.0). S starts, G goal, B snack (bait);
    # M, the junction, and D, a dead end, mean something to the data only.
    MAP = "######## #SS##.G# #S.#...# ##..M### #..#...# #.#..#.# #B..#.D# ########"
    CELLS = np.array([list(row) for row in MAP.split()])

    def __init__(self, num_envs: int = 1, max_episode_steps: int = 60, starts=None):
        self.starts = np.argwhere(self.CELLS == "S") if starts is None else np.array(starts)
        obs_space = Box(-0.5, len(self.CELLS) - 0.5, (2,))
        super().__init__(num_envs, max_episode_steps, obs_space, Box(-1.0, 1.0, (2,)))

    def draw(self, generator):
        jitter = generator.uniform(-0.3, 0.3, 2)
        luck = generator.standard_normal((self.max_episode_steps, 2))
        return self.starts[generator.integers(len(self.starts))] + jitter, luck

    def advance(self, state, actions, luck):
        move = 0.35 * np.clip(actions, -1, 1) + 0.03 * luck
        for axis in np.eye(2):  # rows, then columns: along a wall one slides
            tried = state + axis * move
            state = np.where((self.cell(tried) == "#")[:, None], state, tried)
        reward = np.select([self.cell(state) == "G", self.cell(state) == "B"], [1.0, 0.5])
        return state, reward, reward > 0

    def cell(self, position):
        """Positions [n, 2] -> the letters of their cells [n]."""
        return self.CELLS[tuple(np.floor(position + 0.5).astype(int).T)]


class Fog(Copies):
    """A flyer jumps sideways; at every third step a pillar stands in the middle: 4 pillars, 12 steps.

    Observation: y, distance to the pillar minus 1 (1, 0, -1), signal (-1, 0, 1). Action [1] in [-1, 1]:
    y += a + 0.02 N(0, 1). |y| > 1, and |y| < 0.2 at the pillar, is a crash, which ends the episode. A pillar
    passed pays 1 on the signal's side and 0.4 on the other; where the signal is 0, 1 on both.
    """

    def __init__(self, num_envs: int = 1, max_episode_steps: int = 12):
        high = np.array([3, 1, 1], np.float32)  # |y| is below 3 even in a crash
        super().__init__(num_envs, max_episode_steps, Box(-high, high), Box(-1.0, 1.0, (1,)))

    def draw(self, generator):
        noise = generator.standard_normal(self.max_episode_steps)
        signal = generator.integers(-1, 2, self.max_episode_steps + 1)
        return np.array([generator.uniform(-0.2, 0.2), 1, signal[0]]), np.c_[noise, signal[1:]]

    def advance(self, state, actions, luck):
        y, distance, signal = state.T
        y, at_pillar = y + np.clip(actions[:, 0], -1, 1) + 0.02 * luck[:, 0], distance == -1
        crash = (abs(y) > 1) | at_pillar & (abs(y) < 0.2)
        reward = np.where(y * signal >= 0, 1.0, 0.4) * (at_pillar & ~crash)
        following = np.where(at_pillar, [np.ones_like(y), luck[:, 1]], [distance - 1, signal])
        return np.c_[y, following.T], reward, crash


class WindyGrid(Copies):
    """5 x 7 cells; in columns 2 to 5 a wind blows one row up with probability `wind`. 100 steps of reward -1.

    After Sutton & Barto (2018), example 6.5: from (2, 0) to (4, 5), where the episode ends. The goal lies in
    the wind, so heading straight for it is slow; the best way comes from behind, where the air is still.
    States 0 .. 34 row by row; actions up, right, down, left. P[s][a] = [(probability, s', reward, done), ...]
    and initial_state_distrib as in gymnasium's toy-text environments.
    """

    SHAPE, START, GOAL = (5, 7), 14, 33

    def __init__(self, num_envs: int = 1, max_episode_steps: int = 100, wind: float = 0.7):
        self.wind = wind
        row, column = np.indices(self.SHAPE).reshape(2, -1, 1)  # [S, 1]
        gust = np.array([0, 1])[:, None, None] * ((column >= 2) & (column <= 5))
        to_row = np.clip(row - [1, 0, -1, 0] - gust, 0, self.SHAPE[0] - 1)
        to_column = np.clip(column + np.array([0, 1, 0, -1]), 0, self.SHAPE[1] - 1)
        self.next = to_row * self.SHAPE[1] + to_column  # [2, S, A]: without and with a gust
        self.next[:, self.GOAL] = self.GOAL
        self.P = {s: {a: self.outcomes(s, a) for a in range(4)} for s in range(row.size)}
        self.initial_state_distrib = np.eye(row.size)[self.START]
        super().__init__(num_envs, max_episode_steps, Discrete(row.size), Discrete(4))

    def outcomes(self, s, a):
        chances = zip((1 - self.wind, self.wind), self.next[:, s, a].tolist(), strict=True)
        return [(p, n, -float(s != self.GOAL), n == self.GOAL) for p, n in chances]

    def draw(self, generator):
        return np.array([self.START]), generator.random((self.max_episode_steps, 1))

    def advance(self, state, actions, luck):
        following = self.next[(luck < self.wind).astype(int)[:, 0], state[:, 0], actions]
        return following[:, None], -np.ones(self.num_envs), following == self.GOAL


SingleStitchMaze = functools.partial(Single, StitchMaze)
SingleFog = functools.partial(Single, Fog)
SingleWindyGrid = functools.partial(Single, WindyGrid)
for _name, _limit in (("StitchMaze", 60), ("Fog", 12), ("WindyGrid", 100)):
    gym.register(
        f"offrl/{_name}-v0",
        entry_point=f"offrl_nb.envs:Single{_name}",
        vector_entry_point=f"offrl_nb.envs:{_name}",
        max_episode_steps=_limit,
    )


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
