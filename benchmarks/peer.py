"""d3rlpy's behaviour cloning, timed on request: the other half of bench.py.

For: running in the environment of its own that d3rlpy needs. Reads requests from stdin and answers on stdout,
a JSON object a line, so that bench.py can take turns with it. Not for: starting by hand.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import cache

import d3rlpy
import numpy as np
import torch
from d3rlpy.torch_utility import TorchMiniBatch

BATCH = 256


def algorithm(width: int, columns: dict) -> d3rlpy.algos.BC:
    """Deterministic BC with two hidden layers of the given width, ReLU and Adam."""
    mean, std = columns["obs"].mean(0), columns["obs"].std(0)
    algo = d3rlpy.algos.BCConfig(
        batch_size=BATCH,
        learning_rate=1e-3,
        encoder_factory=d3rlpy.models.VectorEncoderFactory([width, width], "relu"),
        observation_scaler=d3rlpy.preprocessing.StandardObservationScaler(mean, std),
    ).create(device="cpu:0")
    algo.create_impl(columns["obs"].shape[1:], columns["action"].shape[1])
    return algo


def whole_loop(width: int, columns: dict, buffer) -> Callable[[], object]:
    """What `fit` does at every step, without its log, progress bar and checkpoints."""
    algo = algorithm(width, columns)
    return lambda: algo.update(buffer.sample_transition_batch(BATCH))


def update_only(width: int, columns: dict) -> Callable[[], object]:
    """The fastest path: d3rlpy's update on rows of tensors, normalised once beforehand."""
    algo = algorithm(width, columns)
    obs = algo.observation_scaler.transform(torch.from_numpy(columns["obs"]))
    action, unused = torch.from_numpy(columns["action"]), torch.zeros(BATCH, 1)

    def step():
        rows = torch.randint(len(obs), (BATCH,))
        seen, done = obs.index_select(0, rows), action.index_select(0, rows)
        rest = (unused, seen, done, unused, unused, unused, "cpu:0")
        algo.impl.update(TorchMiniBatch(seen, done, *rest), 0)

    return step


def main() -> None:
    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever d3rlpy prints is no answer
    columns = dict(np.load(sys.argv[1]))
    buffer = d3rlpy.dataset.MDPDataset(
        observations=columns["obs"],
        actions=columns["action"],
        rewards=columns["reward"],
        terminals=columns["terminated"].astype(np.float32),
        timeouts=columns["truncated"].astype(np.float32),
    )

    @cache
    def step(path: str, width: int):
        return (
            update_only(width, columns) if path == "update" else whole_loop(width, columns, buffer)
        )

    print(json.dumps({"d3rlpy": d3rlpy.__version__}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        run = step(request["path"], request["width"])
        for _ in range(20):
            run()
        began = time.process_time()
        for _ in range(request["updates"]):
            run()
        print(json.dumps(time.process_time() - began), file=answers, flush=True)


if __name__ == "__main__":
    main()
