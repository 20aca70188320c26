"""Make pendulum/{random,replay,medium,narrow,mixed,covered}-v0 from our own online SAC. Three minutes on one core.

Five seeds of SAC (Haarnoja et al. 2018) train side by side on Pendulum-v1, each in its own environment.
Expert: the checkpoint, of all seeds and steps, with the best return of its mean action. Medium: of the
checkpoints from which a seed had not yet risen above -200, the one nearest to half-way between a random
policy and the expert.
"""

import copy

import gymnasium as gym
import numpy as np
import torch
from shipping import ON_STARTS, episode, judged, play, total, write

from offrl_nb import Batch, Streams, rollout
from offrl_nb.envs import make_envs
from offrl_nb.methods.problem import Config, Nets, make_update

ENV, SEEDS, STEPS, LENGTH = "Pendulum-v1", 5, 12_000, 200
RANDOM_STEPS, CHECK_EVERY = 400, 250
CONFIG = Config(hidden=(64, 64), learning_rate=1e-3, batch_size=128)
TORQUE = 2.0  # the environment's actions are [-2, 2], a policy's [-1, 1]


def train(streams: Streams):
    """Online training; returns every checkpoint's policy with its mean-action returns [S], and all rows."""
    nets = Nets(3, 1, streams, CONFIG)
    update = make_update(nets, streams, CONFIG)
    envs = gym.make_vec(ENV, SEEDS, vectorization_mode="sync")
    checks, never = make_envs(ENV, SEEDS * 20), torch.zeros(SEEDS, CONFIG.batch_size)
    rows, checkpoints = torch.zeros(SEEDS, STEPS, 8), []
    for step in range(STEPS):
        if (
            step % LENGTH == 0
        ):  # all episodes end together, by truncation: no step of an automatic reset
            obs, _ = envs.reset(seed=[1_000_000 * (seed + 1) + step for seed in streams.seeds])
        seen = torch.as_tensor(obs).unsqueeze(1)
        with torch.no_grad():
            action = nets.policy.sample(seen, streams.normal(1, 1))
        action = streams.uniform(1, 1) * 2 - 1 if step < RANDOM_STEPS else action
        next_obs, reward, *_ = envs.step(TORQUE * action[:, 0].numpy())
        columns = [
            seen[:, 0],
            action[:, 0],
            torch.as_tensor(reward)[:, None],
            torch.as_tensor(next_obs),
        ]
        rows[:, step], obs = torch.cat(columns, -1).float(), next_obs
        if step >= RANDOM_STEPS:
            picks = torch.floor(streams.uniform(CONFIG.batch_size) * (step + 1)).long()
            o, a, r, n = rows.gather(1, picks[..., None].expand(-1, -1, 8)).split([3, 1, 1, 3], -1)
            update(step, Batch(o, a, r.squeeze(-1), n, never))  # Pendulum never terminates
        if (step + 1) % CHECK_EVERY == 0 and step >= RANDOM_STEPS:
            returns = rollout(nets.policy.mode, checks, SEEDS, 50_000, "cpu").returns.mean(1)
            checkpoints.append((step + 1, copy.deepcopy(nets.policy), returns))
            print(step + 1, returns.round(), flush=True)
    return checkpoints, rows


def actor(policy, seed: int, noise: float | None, first: int):
    """An acting function for `play`: samples of the policy (noise None), or its mean action plus N(0, noise)."""
    generator = torch.Generator().manual_seed(first)

    @torch.no_grad()
    def act(obs):
        seen = torch.as_tensor(obs).expand(SEEDS, *obs.shape)
        draw = torch.randn(len(obs), 1, generator=generator)
        if noise is None:
            action = policy.sample(seen, draw.expand(SEEDS, -1, -1))[seed]
        else:
            action = (policy.mode(seen)[seed] + noise * draw).clamp(-1, 1)
        return TORQUE * action.numpy()

    return act


def random_actor(first: int):
    generator = np.random.default_rng(first)
    return lambda obs: generator.uniform(-TORQUE, TORQUE, (len(obs), 1)).astype(np.float32)


def main():
    torch.set_num_threads(1)
    checkpoints, rows = train(Streams(SEEDS, "cpu"))
    table = np.array([returns for _, _, returns in checkpoints])  # [checkpoints, S]
    best = np.unravel_index(table.argmax(), table.shape)
    random = play(random_actor(100_000), ENV, 100, 100_000)
    half_way = (total(random).mean() + table[best]) / 2
    rising = np.maximum.accumulate(table) < -200  # later dips of a good policy do not count
    middle = np.unravel_index(
        np.where(rising, np.abs(table - half_way), np.inf).argmin(), table.shape
    )
    name = {
        k: f"step {checkpoints[i[0]][0]:,} of seed {i[1]}"
        for k, i in {"e": best, "m": middle}.items()
    }
    expert, medium = [(checkpoints[i[0]][1], i[1]) for i in (best, middle)]
    random_mean = judged(random_actor(900_000), ENV)
    expert_mean, medium_mean = [judged(actor(*who, 0.0, 1), ENV) for who in (expert, medium)]
    print(
        f"expert: {name['e']}, mean action {expert_mean:.1f}; medium: {name['m']}, {medium_mean:.1f}"
    )

    def logged(policy, noise, episodes, first):
        return play(actor(*policy, noise, first), ENV, episodes, first)

    replay = [
        episode(
            np.concatenate([part[:, :3], part[-1:, 5:]]),
            TORQUE * part[:, 3:4],
            part[:, 4],
            np.zeros(LENGTH),
            np.arange(LENGTH) == LENGTH - 1,
        )
        for part in rows[0, :8000].numpy().reshape(-1, LENGTH, 8)
    ]
    who = (
        f"Expert: {name['e']} of our online SAC, mean action {expert_mean:.1f} on the "
        f"evaluation starts. Medium: {name['m']}, mean action {medium_mean:.1f} there."
    )
    sets = {
        "random": (random, "Torques drawn uniformly from [-2, 2]."),
        "replay": (
            replay,
            "The first 8,000 steps of one seed's own online training, beginning with 400 random ones.",
        ),
        "medium": (
            logged(medium, None, 100, 110_000),
            f"A half-trained stochastic policy, sampled. {who}",
        ),
        "narrow": (
            logged(expert, 0.05, 50, 120_000),
            f"The expert's mean action plus N(0, 0.05), clipped. {who}",
        ),
        "mixed": (
            logged(medium, 0.1, 60, 130_000) + logged(expert, 0.1, 20, 140_000),
            f"60 episodes of the medium and 20 of the expert policy, each mean action plus N(0, 0.1), clipped. {who}",
        ),
        "covered": (
            play(random_actor(150_000), ENV, 70, 150_000) + logged(expert, None, 30, 160_000),
            f"70 episodes of uniformly random torques and 30 of the expert, sampled. {who}",
        ),
    }
    for key, (buffers, story) in sets.items():
        story += (
            " Episodes last 200 steps and are truncated, never terminated. Score 0: uniformly random "
            f"torques; score 100: the expert's mean action; {ON_STARTS}"
        )
        reference = (random_mean, expert_mean)
        write(f"pendulum/{key}-v0", buffers, ENV, reference, story, "make_pendulum.py")


if __name__ == "__main__":
    main()
