"""Make cartpole/mixed-v0 from three known policies on CartPole-v1. Some seconds.

Each policy pushes right with probability sigmoid(w . obs / 0.1), obs = (cart position, cart velocity, pole
angle, pole angular velocity). The good one steers the cart back to the middle; the mediocre one balances
the pole just as well but drives the cart away from the middle, until it leaves the track.
"""

import numpy as np
from shipping import ON_STARTS, judged, play, total, write

ENV, TEMPERATURE = "CartPole-v1", 0.1
WEIGHTS = {
    "random": (0.0, 0.0, 0.0, 0.0),
    "mediocre": (-0.1, -0.2, 1.0, 1.0),
    "good": (0.1, 0.3, 1.0, 1.0),
}
EPISODES = {"random": 100, "mediocre": 120, "good": 20}


def actor(weights, first: int):
    generator = np.random.default_rng(first)

    def act(obs):
        right = 1 / (1 + np.exp(-(obs @ np.array(weights)) / TEMPERATURE))
        return (generator.random(len(obs)) < right).astype(np.int64)

    return act


def main():
    log, lines = [], []
    for i, (name, weights) in enumerate(WEIGHTS.items()):
        first = 100_000 * (i + 1)
        buffers = play(actor(weights, first), ENV, EPISODES[name], first)
        log += buffers
        lines.append(
            f"{len(buffers)} episodes of the {name} policy, w = {weights}, return {total(buffers).mean():.0f}"
        )
    low, high = [judged(actor(WEIGHTS[k], 900_000), ENV) for k in ("random", "good")]
    story = (
        "Three known policies, in this order: "
        + "; ".join(lines)
        + ". Each pushes right with probability "
        "sigmoid(w . obs / 0.1); obs is cart position, cart velocity, pole angle, pole angular velocity. "
        f"Score 0: the random policy; score 100: the good one; {ON_STARTS}"
    )
    write("cartpole/mixed-v0", log, ENV, (low, high), story, "make_cartpole.py")


if __name__ == "__main__":
    main()
