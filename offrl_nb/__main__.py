"""The command line: `python -m offrl_nb train bc --dataset pendulum/narrow-v0 --seeds 5`.

For: training a chapter's method on any dataset, outside a notebook. Not for: code of its own; it calls
the same `train` that the chapter prints.
"""

import importlib
import pkgutil
import sys
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

import offrl_nb.methods
from offrl_nb.data import load
from offrl_nb.evaluate import evaluator, summary


@dataclass
class Options:
    """What every method understands."""

    dataset: str  # Minari id: shipped (pendulum/narrow-v0), local, or on Minari's remote
    seeds: int = 5  # how many seeds to train side by side
    first_seed: int = 0  # the seeds are first_seed .. first_seed + seeds - 1
    device: str = "cpu"  # cpu, cuda, cuda:1, mps
    episodes: int = (
        10  # evaluation episodes for each seed; 0: no evaluation (a log without a simulator)
    )
    log: Path | None = None  # write the training log to this CSV file


def methods() -> list[str]:
    """Slugs of the methods that the chapters have written out."""
    return sorted(module.name for module in pkgutil.iter_modules(offrl_nb.methods.__path__))


def train(slug: str, arguments: list[str]) -> None:
    module = importlib.import_module(f"offrl_nb.methods.{slug}")
    config = (
        Annotated[module.Config, tyro.conf.arg(name="")],
        field(default_factory=module.Config),
    )
    both = make_dataclass("Train", [("config", *config)], bases=(Options,))
    options = tyro.cli(
        both, args=arguments, prog=f"offrl_nb train {slug}", description=module.__doc__
    )
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("There is no CUDA device here; leave --device out to use the CPU.")
    torch.set_num_threads(1)
    dataset = load(options.dataset, options.device)
    print(dataset)
    _, log = module.train(
        dataset,
        options.config,
        seeds=range(options.first_seed, options.first_seed + options.seeds),
        evaluate=evaluator(dataset, options.episodes) if options.episodes else None,
    )
    if options.log:
        log.to_csv(options.log, index=False)
    if options.episodes and len(log):
        print(summary({slug: log}).to_string())


def main(arguments: list[str]) -> int:
    usage = f"usage: python -m offrl_nb train {{{','.join(methods())}}} --dataset ID [options]; --help lists them"
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage)
        return 0
    if arguments[0] != "train" or len(arguments) < 2 or arguments[1] not in methods():
        print(f"{' '.join(arguments[:2])!r} is not a command. {usage}", file=sys.stderr)
        return 2
    try:
        train(arguments[1], arguments[2:])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
