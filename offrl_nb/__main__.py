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
    episodes: int = 10  # evaluation episodes for each seed; 0: none (a log without a simulator)
    log: Path | None = None  # write the training log to this CSV file


def methods() -> list[str]:
    """Slugs of the methods that the chapters have written out."""
    return sorted(module.name for module in pkgutil.iter_modules(offrl_nb.methods.__path__))


def train(slug: str, arguments: list[str]) -> None:
    module = importlib.import_module(f"offrl_nb.methods.{slug}")
    flat = tyro.conf.arg(name="")  # --seeds and --updates, not --options.seeds
    fields = [
        ("options", Annotated[Options, flat]),
        ("config", Annotated[module.Config, flat], field(default_factory=module.Config)),
    ]
    prog, description = f"offrl_nb train {slug}", module.__doc__.split(":")[0]
    both = make_dataclass("Train", fields)
    given = tyro.cli(both, args=arguments, prog=prog, description=description)
    options, config = given.options, given.config
    check_device(options.device)
    if options.log:  # fail now rather than after the training
        options.log.touch()
    torch.set_num_threads(1)
    dataset = load(options.dataset, options.device)
    evaluate = evaluator(dataset, options.episodes) if options.episodes else None
    print(dataset)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    _, log = module.train(dataset, config, seeds=seeds, evaluate=evaluate)
    if options.log:
        log.to_csv(options.log, index=False)
    if "return" in log:
        print(summary({slug: log}).to_string())


def check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"There is no device {device!r} here; leave --device out to use the CPU."
        ) from error


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
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
