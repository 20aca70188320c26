"""Make maze/stitch-v0: 500 episodes of a noisy waypoint controller, none from the start to the goal. Seconds.

220 episodes go from the start to the dead end D, 240 to the snack B, and 40, fewer than one in ten, from the
junction M to the goal G. The pieces to the dead end and to the goal meet at M and nowhere else.
"""

from collections import deque

import gymnasium as gym
import numpy as np
from shipping import FIRST_START, ON_STARTS, STARTS, episode, total, write

ENV, REACH, LINGER = "offrl/StitchMaze-v0", 0.6, 3
CELLS = gym.make_vec(ENV).unwrapped.world.CELLS  # shipping has registered it
STEPS = ((1, 0), (-1, 0), (0, 1), (0, -1))  # down, up, right, left: the first best path wins


def cell(letter: str) -> tuple[int, int]:
    return tuple(np.argwhere(letter == CELLS)[0].tolist())


def path(start, end) -> np.ndarray:
    """Cells [n, 2] of the shortest path, breadth first."""
    came_from, queue = {start: None}, deque([start])
    while end not in came_from:
        here = queue.popleft()
        for step in STEPS:
            there = here[0] + step[0], here[1] + step[1]
            if CELLS[there] != "#" and there not in came_from:
                came_from[there] = here
                queue.append(there)
    cells = [end]
    while came_from[cells[-1]] is not None:
        cells.append(came_from[cells[-1]])
    return np.array(cells[::-1])


class Waypoints:
    """A controller for n episodes: to the centre of each cell on the way, the next one from 0.35 away."""

    def __init__(self, target: tuple[int, int], noise: float, first: int):
        self.target, self.noise, self.generator = target, noise, np.random.default_rng(first)
        self.plan = None

    def __call__(self, obs):
        if self.plan is None:
            paths = [path(tuple(start), self.target) for start in np.rint(obs).astype(int).tolist()]
            longest = max(map(len, paths))
            paths = [np.pad(p, ((0, longest - len(p)), (0, 0)), mode="edge") for p in paths]
            self.plan, self.reached = (
                np.stack(paths),
                np.zeros(len(obs), int),
            )  # [n, longest, 2], [n]
        rows, last = np.arange(len(obs)), self.plan.shape[1] - 1
        near = np.linalg.norm(self.plan[rows, self.reached] - obs, axis=1) < 0.35
        self.reached = np.minimum(self.reached + near, last)
        towards = (self.plan[rows, self.reached] - obs) / 0.35
        noise = self.noise * self.generator.standard_normal(obs.shape)
        return np.clip(towards + noise, -1, 1).astype(np.float32)


def walk(act, episodes: int, first: int, seeded: bool = True, stop_at=None, **options):
    """Play and log episodes side by side.

    stop_at: a point; the recording ends, truncated, LINGER steps after coming within REACH of it.
    """
    envs = gym.make_vec(ENV, num_envs=episodes, **options)
    obs, steps = [envs.reset(seed=first)[0]], []
    while not envs.unwrapped.over.all():
        action = act(obs[-1])
        following, *rest, _ = envs.step(action)
        obs.append(following)
        steps.append((action, *rest))
    obs = np.stack(obs, 1)  # [n, T + 1, 2]
    action, reward, terminated, truncated = (
        np.stack(column, 1) for column in zip(*steps, strict=True)
    )
    length = (terminated | truncated).argmax(1) + 1
    if stop_at is not None:
        near = np.linalg.norm(obs - stop_at, axis=-1) < REACH
        stopped = np.where(near.any(1), near.argmax(1) + LINGER, length)
        length = np.minimum(length, stopped)
        truncated[np.arange(episodes), length - 1] |= ~terminated[np.arange(episodes), length - 1]
    return [
        episode(
            obs[i, : n + 1],
            action[i, :n],
            reward[i, :n],
            terminated[i, :n],
            truncated[i, :n],
            seed=first + i if seeded else None,
        )
        for i, n in enumerate(length)
    ]


def main():
    goal, snack, dead_end, junction = map(cell, "GBDM")
    log = [
        *walk(Waypoints(dead_end, 0.4, 100_000), 220, 100_000, stop_at=dead_end),
        *walk(Waypoints(snack, 0.4, 200_000), 240, 200_000),
        *walk(Waypoints(goal, 0.4, 300_000), 40, 300_000, seeded=False, starts=[junction]),
    ]
    generator = np.random.default_rng(900_000)
    random = walk(lambda obs: generator.uniform(-1, 1, obs.shape), STARTS, FIRST_START)
    planner = walk(Waypoints(goal, 0.0, 900_000), STARTS, FIRST_START)
    story = (
        f"220 episodes from the start to the dead end at {dead_end} (stopped, so truncated, 3 steps after "
        f"coming within 0.6 of it), 240 from the start to the snack at {snack}, 40 from the junction "
        f"{junction} to the goal {goal}. No episode leads from the start to the goal. A controller heads for "
        "the cell centres of a shortest path: a = (centre - position) / 0.35 + 0.4 N(0, 1), clipped. "
        "Score 0: uniformly random actions; score 100: the same controller from the start to the goal "
        f"without noise; {ON_STARTS}"
    )
    reference = (total(random).mean(), total(planner).mean())
    write("maze/stitch-v0", log, ENV, reference, story, "make_maze.py")


if __name__ == "__main__":
    main()
