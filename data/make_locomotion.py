"""Make hopper/* and halfcheetah/* from our own online SAC. 40 minutes for Hopper, 30 for HalfCheetah, one core each.

    python data/make_locomotion.py train hopper     # checkpoints and replay into data/.training/hopper
    python data/make_locomotion.py log hopper       # datasets from them, two minutes
    python data/make_locomotion.py                  # both, for both bodies

Training runs with noise N(0, 0.1) on every actuator, so that the policies learnt tolerate small errors: in
a pilot without it, the Hopper expert lost more than a third of its return under such noise.
"""

import copy
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from shipping import FIRST_START, STARTS, episode, judged, play, total, write

from offrl_nb import Streams, rollout
from offrl_nb.envs import make_envs
from offrl_nb.methods.problem import Config, Nets, interact, make_update

HERE = Path(__file__).parent
NOISE = 0.1  # standard deviation of the actuator noise, in the action's own range [-1, 1]
SEEDS = 2


@dataclass(frozen=True)
class Plan:
    """How one body is trained; steps, checks and random steps count environment steps of one seed."""

    env: str
    steps: int
    check_every: int
    episodes: int  # a check plays this many with the mean action, and as many with noise
    updates_per_round: int  # a round is one step in each of a seed's 8 environments
    random_steps: int
    rows: int  # transitions of each dataset
    config: Config


PLANS = {
    "hopper": Plan(
        env="Hopper-v5",
        steps=600_000,
        check_every=20_000,
        episodes=10,
        updates_per_round=4,
        random_steps=8_000,
        rows=40_000,
        config=Config(hidden=(128, 128), learning_rate=5e-4, batch_size=128, layer_norm=True),
    ),
    "halfcheetah": Plan(
        env="HalfCheetah-v5",
        steps=200_000,
        check_every=4_000,
        episodes=4,
        updates_per_round=8,
        random_steps=3_000,
        rows=36_000,
        config=Config(hidden=(128, 128), learning_rate=5e-4, batch_size=256),
    ),
}


class ActuatorNoise(gym.Wrapper):
    """Executes action + N(0, NOISE), clipped, and remembers what was executed."""

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.generator, self.executed = np.random.default_rng(seed), []
        return self.env.reset(seed=seed, options=options)

    def step(self, action):
        noisy = action + NOISE * self.generator.standard_normal(action.shape)
        self.executed.append(noisy.clip(-1, 1).astype(np.float32))
        return self.env.step(self.executed[-1])


def noisy(act, generator):
    """The same policy with action noise of the training's size."""
    return lambda obs: ((a := act(obs)) + NOISE * torch.randn(a.shape, generator=generator)).clamp(
        -1, 1
    )


def train(name: str) -> None:
    plan, folder = PLANS[name], HERE / ".training" / name
    folder.mkdir(parents=True, exist_ok=True)
    noisy_env = f"Noisy{plan.env}"
    limit = gym.spec(plan.env).max_episode_steps
    gym.register(noisy_env, lambda: ActuatorNoise(gym.make(plan.env)), max_episode_steps=limit)
    envs = make_envs(noisy_env, 8 * SEEDS, learn=True)
    checks = make_envs(plan.env, SEEDS * plan.episodes)
    streams = Streams(SEEDS, "cpu")
    obs_dim, act_dim = envs.single_observation_space.shape[0], envs.single_action_space.shape[0]
    nets = Nets(obs_dim, act_dim, streams, plan.config)
    update = make_update(nets, streams, plan.config)
    began, table = time.perf_counter(), []
    plays = interact(envs, nets, streams, plan.steps, plan.random_steps)
    for steps in range(8, plan.steps + 1, 8):
        replay = next(plays)
        if steps > plan.random_steps:
            for i in range(plan.updates_per_round):
                said = update(i, replay.sample(plan.config.batch_size))
        if steps % plan.check_every == 0:
            generator = torch.Generator().manual_seed(steps)
            modes = (nets.policy.mode, noisy(nets.policy.mode, generator))
            returns = [rollout(act, checks, SEEDS, 50_000, "cpu").returns.mean(1) for act in modes]
            table.append([steps, *returns[0], *returns[1]])
            torch.save(copy.deepcopy(nets.policy.state_dict()), folder / f"policy-{steps}.pt")
            np.savetxt(folder / "checks.csv", table, "%.1f", ",")
            q, coef = said["q_data"].round().tolist(), nets.log_coef.exp().flatten().tolist()
            shown = [row.round().astype(int).tolist() for row in returns]
            print(
                f"{steps} {shown} Q {q} coef {coef} {time.perf_counter() - began:.0f} s", flush=True
            )
        if steps % (10 * plan.check_every) == 0 or steps == plan.steps:
            executed = np.stack(envs.unwrapped.get_attr("executed"))
            np.savez(folder / "replay.npz", rows=replay.rows[:, : replay.filled], executed=executed)


def choose(name: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """(steps, seed) of the expert and of the medium policy, from the checks of the training.

    A policy counts for the smaller of its returns with and without noise: one that cannot bear noise
    cannot be cloned either. Expert: the best. Medium: the nearest to a third of it, of the checkpoints
    before a seed first rose above a half.
    """
    table = np.loadtxt(HERE / ".training" / name / "checks.csv", delimiter=",")
    steps, plain, with_noise = np.split(table, [1, 1 + SEEDS], axis=1)
    usable = np.minimum(plain, with_noise)
    row, seed = np.unravel_index(usable.argmax(), usable.shape)
    best = usable[row, seed]
    far = np.maximum(np.abs(plain - best / 3), np.abs(with_noise - best / 3))
    far[np.maximum.accumulate(plain) > best / 2] = np.inf
    middle = np.unravel_index(far.argmin(), far.shape)
    return (int(steps[row, 0]), int(seed)), (int(steps[middle[0], 0]), int(middle[1]))


def actor(name: str, checkpoint: tuple[int, int], mode: str, first: int):
    """An acting function for `play`; mode: mean, noise (mean plus N(0, NOISE)) or sample."""
    plan, (steps, seed) = PLANS[name], checkpoint
    space = gym.make(plan.env).action_space
    streams = Streams(SEEDS, "cpu")
    obs_dim = gym.make(plan.env).observation_space.shape[0]
    policy = Nets(obs_dim, space.shape[0], streams, plan.config).policy
    policy.load_state_dict(torch.load(HERE / ".training" / name / f"policy-{steps}.pt"))
    generator = torch.Generator().manual_seed(first)

    @torch.no_grad()
    def act(obs):
        seen = torch.as_tensor(obs, dtype=torch.float32).expand(SEEDS, *obs.shape)
        draw = torch.randn(len(obs), space.shape[0], generator=generator)
        if mode == "sample":
            return policy.sample(seen, draw.expand(SEEDS, -1, -1))[seed].numpy()
        scale = NOISE if mode == "noise" else 0.0
        return (policy.mode(seen)[seed] + scale * draw).clamp(-1, 1).numpy()

    return act


def random_actor(env: str, first: int):
    space, generator = gym.make(env).action_space, np.random.default_rng(first)
    return lambda obs: generator.uniform(space.low, space.high, (len(obs), space.shape[0])).astype(
        np.float32
    )


def rows_of(act, env: str, rows: int, first: int) -> list:
    """Whole episodes until they hold at least `rows` transitions."""
    buffers, held = [], 0
    while held < rows:
        buffers += play(act, env, 10, first + len(buffers))
        lengths = np.cumsum([len(buffer.rewards) for buffer in buffers])
        held = lengths[-1]
    return buffers[: int(np.searchsorted(lengths, rows)) + 1]


def replayed(name: str, checkpoint: tuple[int, int], rows: int) -> list:
    """Finished training episodes of a seed up to a checkpoint: every k-th, to make about `rows` rows."""
    steps, seed = checkpoint
    stored = np.load(HERE / ".training" / name / "replay.npz")
    obs_dim = (stored["rows"].shape[-1] - 3 - stored["executed"].shape[-1]) // 2
    table = stored["rows"][seed, :steps].reshape(-1, 8, stored["rows"].shape[-1])  # [time, env, D]
    executed = stored["executed"][8 * seed : 8 * (seed + 1)]  # [env, time, act_dim]
    episodes = []
    for env in range(8):
        part, ends = table[:, env], np.flatnonzero(table[:, env, -2:].any(-1))
        for begin, end in zip([0, *(ends[:-1] + 1)], ends + 1, strict=True):
            piece = part[begin:end]
            next_obs = piece[-1:, -2 - obs_dim : -2]
            obs = np.concatenate([piece[:, :obs_dim], next_obs])
            reward = piece[:, -3 - obs_dim]
            log = episode(obs, executed[env, begin:end], reward, piece[:, -2], piece[:, -1])
            episodes.append((end, log))
    logs = [log for _, log in sorted(episodes, key=lambda pair: pair[0])]  # in the order of time
    share = min(1, rows / sum(len(log.rewards) for log in logs))
    return [log for i, log in enumerate(logs) if int((i + 1) * share) > int(i * share)]


def log(name: str) -> None:
    plan, checkpoints = PLANS[name], dict(zip(("expert", "medium"), choose(name), strict=True))
    returns, lines = {}, []
    for who, (steps, seed) in checkpoints.items():
        for first, mode in enumerate(("mean", "noise", "sample")):
            act = actor(name, (steps, seed), mode, first)
            returns[who, mode] = total(play(act, plan.env, 50, 800_000))
        by_mode = [f"{returns[who, mode].mean():.0f}" for mode in ("mean", "noise", "sample")]
        lines.append(
            f"{who.capitalize()}: step {steps:,} of seed {seed} of our online SAC, which trained with "
            f"noise N(0, {NOISE}) on every actuator; over 50 episodes its mean action returns "
            f"{by_mode[0]}, with such noise {by_mode[1]}, sampled {by_mode[2]}."
        )
    # Score 100 is not on the evaluation starts: the shipped experts were not kept, so it stays as it was.
    reference = (
        judged(random_actor(plan.env, 700_000), plan.env),
        returns["expert", "mean"].mean(),
    )
    medium, expert = checkpoints["medium"], checkpoints["expert"]
    sets = {
        "medium": (
            rows_of(actor(name, medium, "sample", 1), plan.env, plan.rows, 710_000),
            f"The medium policy, sampled. {lines[1]}",
        ),
        "medium-replay": (
            replayed(name, medium, plan.rows),
            "Episodes of the online training up to the medium policy, evenly spaced in the order of "
            f"time, with the actions that were executed. {lines[1]}",
        ),
        "expert": (
            rows_of(actor(name, expert, "sample", 2), plan.env, plan.rows, 720_000),
            f"The best policy of the training, sampled. {lines[0]}",
        ),
    }
    if name == "hopper":  # a random cheetah neither falls nor moves
        few = rows_of(random_actor(plan.env, 730_000), plan.env, 10_000, 730_000)
        sets["random"] = (few, "Actions drawn uniformly.")
    for key, (buffers, story) in sets.items():
        story += (
            f" Score 0: uniform actions, {STARTS} episodes on the evaluation starts, seeds "
            f"{FIRST_START:,} to {FIRST_START + STARTS - 1:,}; score 100: the expert's mean action, "
            "50 episodes on other starts, seeds 800,000 to 800,049."
        )
        write(f"{name}/{key}-v0", buffers, plan.env, reference, story, "make_locomotion.py")


if __name__ == "__main__":
    torch.set_num_threads(1)
    match sys.argv[1:]:
        case []:  # `make data`: everything, from nothing
            for name in PLANS:
                train(name)
                log(name)
        case ["train", name] if name in PLANS:
            train(name)
        case ["log", name] if name in PLANS:
            log(name)
        case _:
            raise SystemExit(f"usage: make_locomotion.py [train|log {'|'.join(PLANS)}]")
