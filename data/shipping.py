"""Write a dataset that ships with the book: Minari files repacked small, and a card.

For: the `make_*.py` scripts beside this file. Not for: reading data (that is `offrl_nb.load`).
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import gymnasium as gym
import h5py
import minari
import numpy as np
from minari.data_collector import EpisodeBuffer

from offrl_nb.evaluate import FIRST_START  # importing the package registers our environments

HERE = Path(__file__).parent

# The references are measured on the first starts that `offrl_nb.rollout` meets: reset(seed=10_000 + i).
STARTS = 100
ON_STARTS = (
    f"{STARTS} episodes each on the evaluation starts, "
    f"seeds {FIRST_START:,} to {FIRST_START + STARTS - 1:,}."
)


def play(act: Callable, env_id: str, episodes: int, first_start: int) -> list[EpisodeBuffer]:
    """Play whole episodes side by side and log them.

    act: observations [n, obs_dim] of the n episodes still running -> actions in the environment's scale.
    """
    envs = [gym.make(env_id) for _ in range(episodes)]
    obs = [[env.reset(seed=first_start + i)[0]] for i, env in enumerate(envs)]
    steps: list[list] = [[] for _ in envs]
    running = np.arange(episodes)
    while len(running):
        actions = act(np.stack([obs[i][-1] for i in running]))
        ended = np.zeros(len(running), bool)
        for k, i in enumerate(running):
            following, reward, terminated, truncated, _ = envs[i].step(actions[k])
            obs[i].append(following)
            steps[i].append((actions[k], reward, terminated, truncated))
            ended[k] = terminated or truncated
        running = running[~ended]
    return [
        episode(obs[i], *zip(*steps[i], strict=True), seed=first_start + i) for i in range(episodes)
    ]


def episode(obs, action, reward, terminated, truncated, seed=None) -> EpisodeBuffer:
    """One Minari episode: T + 1 observations and T of everything else, numbers in 32 bits."""
    return EpisodeBuffer(
        seed=seed,  # env.reset(seed=...) leads to the same start
        observations=small(obs),
        actions=small(action),
        rewards=np.asarray(reward, np.float32),
        terminations=np.asarray(terminated, bool),
        truncations=np.asarray(truncated, bool),
    )


def small(values) -> np.ndarray:
    """As float32, or int32 for whole numbers."""
    values = np.asarray(values)
    return values.astype(np.int32 if values.dtype.kind == "i" else np.float32)


def total(buffers: list[EpisodeBuffer]) -> np.ndarray:
    """Undiscounted return of every episode."""
    return np.array([buffer.rewards.sum() for buffer in buffers])


def judged(act: Callable, env_id: str) -> float:
    """Mean return on the evaluation starts: of two policies, what scores 0 and 100."""
    return total(play(act, env_id, STARTS, FIRST_START)).mean()


def write(
    dataset_id: str,
    buffers: list[EpisodeBuffer],
    env_id: str,
    reference: tuple[float, float],
    story: str,
    script: str,
    exact: dict[str, np.ndarray] | None = None,
) -> None:
    """Store a dataset with its card in data/.

    reference: mean returns of the policies that score 0 and 100, see `judged`.
    exact: arrays for exact.npz beside the data, where the truth is known.
    """
    final = HERE / dataset_id
    with tempfile.TemporaryDirectory(dir=HERE, prefix=".making-") as folder:
        with mock.patch.dict(os.environ, MINARI_DATASETS_PATH=folder):
            minari.create_dataset_from_buffers(
                dataset_id,
                buffers,
                env=env_id,
                eval_env=env_id,
                author="The authors of Offline RL in Notebooks",
                algorithm_name=script,
                description=" ".join(story.split()),
                ref_min_score=float(reference[0]),
                ref_max_score=float(reference[1]),
            )
        made = Path(folder) / dataset_id
        repack(made / "data" / "main_data.hdf5")
        if exact:
            np.savez_compressed(made / "data" / "exact.npz", **exact)
        text = card(dataset_id, buffers, env_id, reference, story, script)
        (made / "README.md").write_text(text)
        shutil.rmtree(final, ignore_errors=True)
        final.parent.mkdir(exist_ok=True)
        made.rename(final)
    returns = total(buffers)
    d = decimals(returns)
    spread = f"{returns.mean():.{d}f} ± {returns.std():.{d}f}"
    print(f"{dataset_id}: {len(buffers)} episodes, return {spread}", flush=True)


def repack(file: Path) -> None:
    """Copy in a smaller layout: Minari's own costs 20 kB an episode, whatever its length, this one 1 kB.

    The compact groups of HDF5 1.8, equal arrays (such as flags) stored once, as hard links, long arrays
    compressed in one piece.
    """
    copied, stored = file.with_suffix(".copy"), {}
    layout = {"libver": ("v108", "v108"), "track_order": True}
    with h5py.File(file) as source, h5py.File(copied, "w", **layout) as target:
        no_infos = target.create_group(None)

        def copy(group, new):
            new.attrs.update(group.attrs)
            for name, item in group.items():
                if isinstance(item, h5py.Group):
                    copy(item, new.create_group(name))
                    continue
                values = item[()]
                key = (values.tobytes(), values.dtype.str, values.shape)
                if key not in stored:
                    long = {"chunks": values.shape, "compression": 9, "shuffle": True}
                    options = long if values.nbytes > 30_000 else {}
                    stored[key] = new.create_dataset(name, data=values, **options)
                else:
                    new[name] = stored[key]

        for number in range(len(source)):  # in the order of time, not of the alphabet
            part = target.create_group(f"episode_{number}")
            copy(source[f"episode_{number}"], part)
            if "infos" not in part:  # without it Minari cannot print the episode
                part["infos"] = no_infos
    copied.replace(file)


def decimals(returns: np.ndarray) -> int:
    """How many decimals of a return are worth printing."""
    return 1 if np.ptp(returns) > 10 else 3


def card(dataset_id, buffers, env_id, reference, story, script) -> str:
    """The dataset's README: what it is, how it was made, what is in it."""
    returns, lengths = (total(buffers), np.array([len(buffer.rewards) for buffer in buffers]))
    obs = np.concatenate([buffer.observations[:-1] for buffer in buffers])
    action = np.concatenate([buffer.actions for buffer in buffers])
    d = decimals(returns)
    quantiles = ", ".join(f"{q:.{d - 1}f}" for q in np.percentile(returns, [0, 10, 50, 90, 100]))
    counts, edges = np.histogram(returns, bins=10)
    bars = "\n".join(
        f"{low:8.{d - 1}f} .. {high:8.{d - 1}f}  {'#' * int(np.ceil(40 * n / counts.max()))} {n}"
        for low, high, n in zip(edges, edges[1:], counts, strict=False)
    )
    if action.ndim == 1:
        covered = "share of each action " + ", ".join(
            f"{share:.2f}" for share in np.bincount(action) / len(action)
        )
    else:
        covered = "standard deviation " + ", ".join(f"{std:.2f}" for std in action.std(0))
    if obs.ndim == 1:
        span = f"state numbers {obs.min()} to {obs.max()}, {len(np.unique(obs))} of them visited"
    else:
        span = ", ".join(
            f"[{low:.2f}, {high:.2f}]" for low, high in zip(obs.min(0), obs.max(0), strict=True)
        )
    seeded = sum(buffer.seed is not None for buffer in buffers)
    which = "each episode" if seeded == len(buffers) else f"{seeded} of the episodes"
    starts = f"`reset(seed)` with the seed stored in {which}" if seeded else "not stored"
    ends = sum(bool(buffer.terminations[-1]) for buffer in buffers)
    return f"""# {dataset_id}

{" ".join(story.split())}

| | |
|---|---|
| environment | `{env_id}` |
| episodes, transitions | {len(buffers)}, {len(action):,} |
| episode length | {lengths.min()} to {lengths.max()}, mean {lengths.mean():.1f} |
| episodes that end by termination, by truncation | {ends}, {len(buffers) - ends} |
| return: mean ± standard deviation between episodes | {returns.mean():.{d}f} ± {returns.std():.{d}f} |
| return: minimum, 10 %, median, 90 %, maximum | {quantiles} |
| observations span | {span} |
| actions | {covered} |
| reference returns (score 0, score 100), measured | {reference[0]:.{d}f}, {reference[1]:.{d}f} |
| starts | {starts} |
| made by | `data/{script}` |
| licence | CC BY 4.0 |

Returns, episodes per bin:

```
{bars}
```
"""
