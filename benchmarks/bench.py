"""What this book's code costs, beside other ways of doing the same: `make bench`.

For: numbers measured side by side in one run, written to benchmarks/README.md. Everything that is compared
takes turns, one thread each, so that a slow minute of the machine hits all of it. Not for: tests; nothing
here fails because a machine is slow.
"""

import argparse
import importlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections import defaultdict
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
import single_seed
import torch
import torch.nn.functional as F
from torch import nn

from offrl_nb import Streams, adam, load
from offrl_nb.methods.bc import Config, bc_loss, make_policy, train

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
D3RLPY = "d3rlpy==2.8.1"
DATASET, BATCH = "pendulum/narrow-v0", 256
SEED_UPDATES = {64: 4000, 256: 1000}  # in one measurement of each width
SEEDS = (1, 5, 10)
# Method, seeds, width: updates in one measurement, and the ratio that we aim at.
BESIDE = {
    ("iql", 10, 64): (200, 4.0),
    ("td3bc", 10, 64): (200, 3.5),
    ("iql", 1, 64): (600, 1.6),
    ("td3bc", 1, 64): (600, 1.6),
    ("iql", 5, 256): (40, 1.5),
    ("td3bc", 5, 256): (40, 1.5),
}
OTHERS = {
    "plain": "a plain PyTorch loop, one seed",
    "update": "d3rlpy, one seed: its update on rows of tensors",
    "loop": "d3rlpy, one seed: its replay buffer and update",
}
REPORT = """# What it costs

Written by `make bench`; do not edit. {machine}.

Medians, with the quartiles in brackets. What is compared was measured in turns in one run. Differences smaller
than the quartiles' span say nothing. Seconds of training and of a step's parts are processor time: with one thread
that is the time on the clock, less what other programs took.

## Training

Behaviour cloning with a deterministic head on `{dataset}`: two hidden layers with ReLU, batch {batch}, Adam with
learning rate 0.001, {repetitions} repetitions. A seed-update is one update of one seed's network.

{training}

- **ours** is `offrl_nb.methods.bc.train` as a chapter calls it, set-up and log included, without evaluation.
- **a plain PyTorch loop** is `nn.Linear`, `torch.optim.Adam` and rows drawn from tensors: what a short
  single-seed script pays.
- **d3rlpy: its update** calls `impl.update` on batches taken from tensors that were normalised once beforehand: its
  fastest path, which its users do not take. **Its replay buffer and update** is what its `fit` does at every
  step, less log, progress bar and checkpoints. It trains one seed at a time.

## Beside one file a method

IQL and TD3+BC on `hopper/medium-v0`, batch {batch}, beside the same networks, batch and losses written as a collection
of single files does, CORL for instance (`benchmarks/single_seed.py`): a module for each network, `torch.optim.Adam` as
it comes, losses read out at every step, one seed at a time. In turns in one process.

{beside}

With one seed both pay for calling small operations, and the same arithmetic is little of it; with ten, ours calls
them once. At width 256 the time is that of the matrix products, which are the same in both.

## Where a step's time goes

Five seeds of `bc`, two hidden layers of width 64. The last column does the same with batch 1 and width 1: next to no
arithmetic, so what it shows is the price of Python, dispatch and bookkeeping.

{profile}

## Loading

A million transitions shaped like Hopper's (11 observed numbers, 3 action dimensions, 1000 episodes of 1000
steps, float32), in Minari's HDF5 packed as the shipped datasets are; each reading in a fresh process, the
file in the system's cache. `load` also checks every number, scales actions and numbers the episodes.

{loading}

## Chapters at full size

{chapters}

## Agreement

`benchmarks/agreement.py` computes d3rlpy's losses and gradients in float64 on fixed weights, batches and random numbers,
two seeds each, and stores them in `tests/fixtures`; `make test` holds ours against them, to a relative 1e-10. Compared
are behaviour cloning (deterministic and categorical), SAC, TD3, CQL (with the learned weight, and for discrete
actions), BCQ and its discrete form, TD3+BC and ReBRAC: every loss, the targets, and the gradients by all weights. Where
d3rlpy's definition is another one, the comparison converts:

| loss | here | in d3rlpy | compared |
|---|---|---|---|
| cloning, squared error | sum over action dimensions | mean over them | times their number |
| cloning, categorical | no penalty; discrete BCQ: 0.01 x mean squared logit | `beta` x mean squared log-probability | `beta = 0`, ours subtracted |
| SAC, CQL: temperature c | -log(c) (log pi - m) | -c (log pi - m) | times c |
| SAC, CQL: standard deviation | at least exp(-5) | at least exp(-20) | where neither is reached |
| CQL: next action of the target | a sample | tanh of the mean | a sample without noise |
| CQL: log-sum-exp of 3n samples | their mean is inside the logarithm | their sum | log(3n) off the threshold |
| CQL: threshold | in the weight's loss | in the critics' loss too | a constant, added |
| discrete CQL: error of the target | squared | Huber: half the square within 1 | times 2, errors within 1 |
| BCQ: decoder | ends in a tanh | does not: `with_squash` is inverted | a tanh added there |
| ReBRAC: critics | LayerNorm before the ReLU | none, or after the ReLU | without |

Steps differ, too: d3rlpy moves SAC's temperature and CQL's weight first and uses the new value in the same update, and it
drops the last step of a truncated episode. Discrete BCQ allows an action at exactly the threshold here, not there.
d3rlpy's stochastic head of behaviour cloning is left out: its loss is the squared error of a sample, not a likelihood.
"""


# The other side


def peer_python() -> Path:
    """Python of an environment with d3rlpy and the very PyTorch, NumPy and h5py of ours; made once."""
    folder = ROOT / "_build" / "bench-env"
    python, ready = folder / "bin" / "python", folder / ".ready"
    wanted = [D3RLPY] + [f"{name}=={version(name)}" for name in ("torch", "numpy", "h5py")]
    if not ready.exists() or ready.read_text() != " ".join(wanted):
        print(
            "Making _build/bench-env for d3rlpy, which pins other versions than the book",
            flush=True,
        )
        venv.create(folder, clear=True, with_pip=True)
        site = next(folder.glob("lib/python*/site-packages"))
        for part in Path(torch.__file__).parents[1].glob("torch*"):  # no second copy of PyTorch
            if re.fullmatch(r"torch(gen|-\d.*)?", part.name):
                (site / part.name).symlink_to(part)
        pip = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*pip, *wanted], check=True)
        ready.write_text(" ".join(wanted))
    return python


class Peer:
    """d3rlpy in a process of its own, waiting for requests."""

    def __init__(self, python: Path, dataset, folder: str):
        columns = ("obs", "action", "reward", "terminated", "truncated")
        file = Path(folder) / "columns.npz"
        np.savez(file, **{name: getattr(dataset, name).numpy() for name in columns})
        self.errors = Path(folder) / "stderr"
        pipes = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": self.errors.open("w"),
        }
        self.process = subprocess.Popen(
            [python, HERE / "peer.py", file], text=True, bufsize=1, **pipes
        )
        self.version = self.answer()["d3rlpy"]

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(self.errors.read_text())
        return json.loads(line)

    def rate(self, path: str, width: int, updates: int) -> float:
        request = {"path": path, "width": width, "updates": updates}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return updates / self.answer()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


# Training


def ours(dataset, width: int, seeds: int) -> float:
    """Seed-updates per second of `bc.train` as a chapter calls it, set-up and log included."""
    updates = SEED_UPDATES[width] // seeds
    config = Config(hidden=(width, width), batch_size=BATCH, updates=updates)
    began = time.process_time()
    train(dataset, config, range(seeds))
    return seeds * updates / (time.process_time() - began)


def plain(dataset, width: int) -> float:
    """Updates per second of the usual single-seed loop: nn.Linear, Adam, rows drawn from tensors."""
    sizes = (dataset.obs_dim, width, width, dataset.act_dim)
    first, second, third = (nn.Linear(a, b) for a, b in pairwise(sizes))
    net = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third, nn.Tanh())
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    obs = (dataset.obs - dataset.obs.mean(0)) / (dataset.obs.std(0) + 1e-3)

    def step():
        rows = torch.randint(len(obs), (BATCH,))
        loss = F.mse_loss(net(obs[rows]), dataset.action[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for _ in range(20):
        step()
    began = time.process_time()
    for _ in range(SEED_UPDATES[width]):
        step()
    return SEED_UPDATES[width] / (time.process_time() - began)


def training(dataset, peer: Peer, repetitions: int) -> str:
    """The table of training speed."""
    rates = defaultdict(list)
    for repetition in range(repetitions + 1):  # the first one warms up and is dropped
        for width, updates in SEED_UPDATES.items():
            row = {1: ours(dataset, width, 1), "plain": plain(dataset, width)}
            row |= {5: ours(dataset, width, 5), "update": peer.rate("update", width, updates)}
            row |= {10: ours(dataset, width, 10), "loop": peer.rate("loop", width, updates // 5)}
            for name, rate in row.items() if repetition else ():
                rates[width, name].append(rate)
        print(f"training: {repetition} of {repetitions} repetitions", flush=True)
    lines = [
        "| width | what | seed-updates/s | ours is faster by the factor, with 1; 5; 10 seeds |"
    ]
    lines.append("|---|---|---|---|")
    for width in SEED_UPDATES:
        for name in (*SEEDS, *OTHERS):
            against = [np.divide(rates[width, s], rates[width, name]) for s in SEEDS]
            ratios = "; ".join(spread(ratio, ".2f") for ratio in against) if name in OTHERS else ""
            what = OTHERS.get(name, f"ours, {name} seed{'s' * (name != 1)}")
            lines.append(f"| {width} | {what} | {spread(rates[width, name], ',.0f')} | {ratios} |")
    return "\n".join(lines)


def beside(repetitions: int) -> str:
    """The table of ours against a single-seed loop of the same method."""
    log = load("hopper/medium-v0")
    loops = {"iql": single_seed.IQL, "td3bc": single_seed.TD3BC}
    lines = ["| method | seeds | width | ours, seed-updates/s | one seed a loop | ratio | aim |"]
    lines.append("|---|---|---|---|---|---|---|")
    for (slug, seeds, width), (updates, aim) in BESIDE.items():
        method = importlib.import_module(f"offrl_nb.methods.{slug}")
        config = method.Config(hidden=(width, width), batch_size=BATCH, updates=updates)
        loop, rates = loops[slug](log, config), []
        for _ in range(repetitions + 1):
            began = time.process_time()
            method.train(log, config, range(seeds))
            between = time.process_time()
            for _ in range(updates):
                loop.update()
            ended = time.process_time()
            rates.append((seeds * updates / (between - began), updates / (ended - between)))
        mine, other = np.array(rates[1:]).T  # the first one warms up
        row = [slug, seeds, width, spread(mine, ",.0f"), spread(other, ",.0f")]
        row += [spread(mine / other, ".2f"), aim]
        lines.append(f"| {' | '.join(map(str, row))} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def spread(values, form: str) -> str:
    """Median and, in brackets, the quartiles."""
    low, middle, high = (format(q, form) for q in np.percentile(values, [25, 50, 75]))
    return f"{middle} ({low} to {high})"


# Where a step's time goes


def laps(dataset, batch_size: int, width: int, updates: int = 300) -> dict[str, float]:
    """Microseconds of each part of one update of `bc`, five seeds side by side."""
    streams = Streams(5)
    policy = make_policy(dataset, Config(hidden=(width, width)), streams)
    optimizer, spent = adam(policy, 1e-3), defaultdict(float)
    for step in range(-30, updates):
        times = [time.thread_time()]
        index = streams.integers(len(dataset), batch_size)
        times.append(time.thread_time())
        batch = dataset.rows(index)
        times.append(time.thread_time())
        loss, _ = bc_loss(policy, batch)
        times.append(time.thread_time())
        for parameter in policy.parameters():  # as `minimise` does
            parameter.grad = None
        times.append(time.thread_time())
        loss.sum().backward()
        times.append(time.thread_time())
        optimizer.step()
        times.append(time.thread_time())
        names = ("draw numbers", "gather rows", "loss", "clear gradients", "backward", "Adam")
        for name, a, b in zip(names, times, times[1:], strict=False):
            spent[name] += (b - a) * 1e6 / updates * (step >= 0)
    return {**spent, "all": sum(spent.values())}


def profile(dataset, repetitions: int) -> str:
    """The table of a step's parts; with next to no arithmetic, what is left is the price of calling."""
    cases = {"batch 128": (128, 64), "batch 256": (256, 64), "batch 1, width 1": (1, 1)}
    found = {case: defaultdict(list) for case in cases}
    for _ in range(repetitions):
        for case, (batch_size, width) in cases.items():
            for part, value in laps(dataset, batch_size, width).items():
                found[case][part].append(value)
    print("profile: done", flush=True)
    lines = [f"| part of a step, in µs | {' | '.join(cases)} |", "|---|---|---|---|"]
    for part in found["batch 256"]:
        cells = [f"{statistics.median(found[case][part]):.0f}" for case in cases]
        lines.append(f"| {part} | {' | '.join(cells)} |")
    return "\n".join(lines)


# Loading, and the chapters


def loading(repetitions: int) -> str:
    """The table of loading times and memory."""
    found = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, HERE / "loading.py"]
        subprocess.run([*command, "make", folder], check=True, stderr=subprocess.DEVNULL)
        for _ in range(repetitions):
            for how in ("load", "h5py"):
                run = subprocess.run([*command, how, folder], check=True, stdout=subprocess.PIPE)
                found[how].append(json.loads(run.stdout))
    print("loading: done", flush=True)
    names = {"load": "`offrl_nb.load`", "h5py": "h5py into arrays made beforehand"}
    lines = ["| what | seconds | memory on top, at the peak |", "|---|---|---|"]
    for how, values in found.items():
        seconds, megabytes = zip(*values, strict=True)
        memory = f"{statistics.median(megabytes):.0f} MB"
        lines.append(f"| {names[how]} | {spread(seconds, '.2f')} | {memory} |")
    ratio = np.divide([v[0] for v in found["load"]], [v[0] for v in found["h5py"]])
    return "\n".join([*lines, f"| ratio of the seconds | {spread(ratio, '.1f')} | |"])


def chapters(execute: bool) -> str:
    """Seconds of every chapter, executed as `make test` does; or how to ask for them."""
    if not execute:
        return "Not asked for: `make bench CHAPTERS=1`."
    sys.path.insert(0, str(ROOT / "scripts"))
    from reexecute import NBVAL, notebooks

    lines = ["| chapter | seconds |", "|---|---|"]
    for path in notebooks():
        began = time.perf_counter()
        command = [sys.executable, "-m", "pytest", *NBVAL, path]
        subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "OFFRL_SIZE": "book"})
        lines.append(f"| {path.stem} | {time.perf_counter() - began:.0f} |")
    return "\n".join(lines)


# The report


def machine(peer: Peer) -> str:
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    named = re.search(r"model name\s*:\s*(.*)", info)
    flags = " with AVX-512" if "avx512f" in info else ""
    versions = [f"{name} {version(name)}" for name in ("torch", "numpy")]
    return (
        f"{named[1] if named else platform.processor()}{flags}, {os.cpu_count()} cores, 1 thread used by each "
        f"side; {platform.system()}, Python {platform.python_version()}, {', '.join(versions)}, "
        f"d3rlpy {peer.version}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--chapters", action="store_true", help="execute the chapters as well")
    parser.add_argument("--repetitions", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    python, dataset = peer_python(), load(DATASET)
    agreed = subprocess.run([python, HERE / "agreement.py"], stderr=subprocess.PIPE, text=True)
    if agreed.returncode:
        sys.exit(agreed.stderr)
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(python, dataset, folder)
        tables = {
            "machine": machine(peer),
            "training": training(dataset, peer, options.repetitions),
            "beside": beside(options.repetitions),
            "profile": profile(dataset, options.repetitions),
        }
        peer.close()
    tables["loading"] = loading(5)
    tables["chapters"] = chapters(options.chapters)
    tables |= {"repetitions": options.repetitions, "batch": BATCH, "dataset": DATASET}
    text = REPORT.format(**tables)
    print(text)
    (HERE / "README.md").write_text(text)


if __name__ == "__main__":
    main()
