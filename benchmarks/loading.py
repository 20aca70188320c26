"""A million Hopper-shaped transitions, made and then read in two ways, each time in a fresh process.

For: bench.py, which calls `python benchmarks/loading.py make|load|h5py <folder>`; load and h5py print seconds
and the memory that came on top, in MB. Not for: starting by hand.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import torch

import offrl_nb

EPISODES, STEPS, OBS, ACTIONS = 1000, 1000, 11, 3
NAME = "bench/hopper-v0"


def make(folder: str) -> None:
    """Write the dataset as the shipped ones are written: Minari's HDF5, repacked without chunks."""
    import gymnasium as gym
    import minari

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
    from shipping import episode, repack

    generator, zeros = np.random.default_rng(0), np.zeros(STEPS, bool)
    buffers = [
        episode(
            generator.standard_normal((STEPS + 1, OBS)),
            generator.uniform(-1, 1, (STEPS, ACTIONS)).astype(np.float32),
            generator.standard_normal(STEPS),
            zeros,
            np.arange(STEPS) == STEPS - 1,
        )
        for _ in range(EPISODES)
    ]
    minari.create_dataset_from_buffers(
        NAME,
        buffers,
        observation_space=gym.spaces.Box(-np.inf, np.inf, (OBS,), np.float32),
        action_space=gym.spaces.Box(-1, 1, (ACTIONS,), np.float32),
    )
    repack(Path(folder) / NAME / "data" / "main_data.hdf5")


def read_plainly(folder: str) -> list[torch.Tensor]:
    """The same columns with h5py alone, into arrays of the right size: no check, no scaling."""
    rows = EPISODES * STEPS
    obs, following = np.empty((2, rows, OBS), np.float32)
    action, reward = np.empty((rows, ACTIONS), np.float32), np.empty(rows, np.float32)
    terminated, truncated = np.empty((2, rows), bool)
    number = np.repeat(np.arange(EPISODES), STEPS)
    with h5py.File(Path(folder) / NAME / "data" / "main_data.hdf5") as file:
        for i in range(EPISODES):
            group, at = file[f"episode_{i}"], slice(i * STEPS, (i + 1) * STEPS)
            seen = group["observations"][()]
            obs[at], following[at] = seen[:-1], seen[1:]
            action[at], reward[at] = group["actions"][()], group["rewards"][()]
            terminated[at], truncated[at] = group["terminations"][()], group["truncations"][()]
    columns = (obs, action, reward, following, terminated, truncated, number)
    return [torch.from_numpy(column) for column in columns]


def peak() -> float:
    """Most memory that this process has held so far, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux getrusage also counts the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    what, folder = sys.argv[1:]
    os.environ["MINARI_DATASETS_PATH"] = folder
    if what == "make":
        make(folder)
        return
    offrl_nb.load("pendulum/narrow-v0")  # whatever is set up once, at the first load
    before, began = peak(), time.perf_counter()
    found = offrl_nb.load(NAME) if what == "load" else read_plainly(folder)
    seconds = time.perf_counter() - began
    assert len(found[0] if what == "h5py" else found) == EPISODES * STEPS
    print(json.dumps([seconds, peak() - before]))


if __name__ == "__main__":
    main()
