"""Make fog/two-route-v0 and fog/two-route-fumbles-v0. Some seconds.

The behaviour policy has no memory: at a pillar it tosses a fair coin for the side, elsewhere it drifts back
to the middle. In the fumbles set it jumps anywhere at one pillar in twenty.
"""

import numpy as np
from shipping import ON_STARTS, judged, play, write

ENV, EPISODES, FUMBLES = "offrl/Fog-v0", 800, 0.05


def logger(first: int, fumbles: float = 0.0):
    generator = np.random.default_rng(first)

    def act(obs):
        n, y = len(obs), obs[:, 0]
        side = generator.choice([-1, 1], n)
        jump = side * 0.68 - y + 0.09 * generator.standard_normal(n)
        anywhere = generator.uniform(-1, 1, n)
        jump = np.where(generator.random(n) < fumbles, anywhere, jump)
        drift = -0.6 * y + 0.12 * generator.standard_normal(n)
        return as_action(np.where(obs[:, 1] == -1, jump, drift))

    return act


def better_side(obs):
    """Flies on the signal's side; where the signal is 0, on the right."""
    side = np.where(obs[:, 2] < 0, -1, 1)
    return as_action(np.where(obs[:, 1] == -1, side * 0.68 - obs[:, 0], -0.6 * obs[:, 0]))


def random_actor(first: int):
    generator = np.random.default_rng(first)
    return lambda obs: as_action(generator.uniform(-1, 1, len(obs)))


def as_action(jump):
    return np.clip(jump, -1, 1).astype(np.float32)[:, None]


def main():
    low, high = judged(random_actor(900_000), ENV), judged(better_side, ENV)
    behaviour = (
        "At a pillar a fair coin picks the side, a = ±0.68 - y + 0.09 N(0, 1); elsewhere "
        "a = -0.6 y + 0.12 N(0, 1); clipped to [-1, 1]. The mean of the two good jumps is a crash. "
    )
    references = (
        " Score 0: uniformly random actions; score 100: a controller that takes the better side; "
        + ON_STARTS
    )
    for i, (name, fumbles) in enumerate((("two-route", 0.0), ("two-route-fumbles", FUMBLES))):
        first = 100_000 * (i + 1)
        log = play(logger(first, fumbles), ENV, EPISODES, first)
        safe = np.mean([not episode.terminations.any() for episode in log])
        fumbling = f"With probability {fumbles} the jump at a pillar is uniform in [-1, 1]. "
        story = behaviour + fumbling * bool(fumbles) + f"{safe:.1%} of the episodes are safe."
        write(f"fog/{name}-v0", log, ENV, (low, high), story + references, "make_fog.py")


if __name__ == "__main__":
    main()
