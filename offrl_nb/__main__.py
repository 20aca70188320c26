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
from offrl_nb.evaluate import compare, evaluator
from offrl_nb.streams import default_device


@dataclass
class Options:
    """What every method understands."""

    dataset: str  # Minari id: shipped (pendulum/narrow-v0), local, or on Minari's remote
    seeds: int = 5  # how many seeds to train side by side
    first_seed: int = 0  # the seeds are first_seed .. first_seed + seeds - 1
    device: str = default_device()  # cpu, cuda, cuda:1, mps
    episodes: int = 10  # evaluation episodes for each seed; 0: none (a log without a simulator)
    evaluations: int = 10  # how often to evaluate; "best" is the best of them
    log: Path | None = None  # write the table of the run to this CSV file


def methods() -> list[str]:
    """Slugs of the chapters that have written out a method; some write only helpers, without `train`."""
    names = sorted(module.name for module in pkgutil.iter_modules(offrl_nb.methods.__path__))
    return [n for n in names if hasattr(importlib.import_module(f"offrl_nb.methods.{n}"), "train")]


def train(slug: str, arguments: list[str]) -> None:
    """Train as the arguments say; print last and best, write --log.

    Raises ValueError (DataError) or OSError before training where it could not end well, and
    KeyboardInterrupt after a run that was stopped by hand, whose rows are printed and written.
    """
    module, flat = importlib.import_module(f"offrl_nb.methods.{slug}"), tyro.conf.arg(name="")
    fields = [  # flat: --seeds and --updates, not --options.seeds
        ("options", Annotated[Options, flat]),
        ("config", Annotated[module.Config, flat], field(default_factory=module.Config)),
    ]
    given = tyro.cli(make_dataclass("Train", fields), args=arguments, prog=f"offrl_nb train {slug}")
    options, config = given.options, given.config
    if options.evaluations < 1:
        raise ValueError(f"evaluations is {options.evaluations}; give at least 1.")
    torch.set_num_threads(1)
    dataset, discount = load(options.dataset, options.device), getattr(config, "discount", 0.99)
    evaluate = evaluator(dataset, options.episodes, discount=discount) if options.episodes else None
    if options.log:  # fail now rather than after the training
        options.log.open("a").close()
    print(dataset, flush=True)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    _, table = module.train(dataset, config, seeds, evaluate, options.evaluations)
    if options.log:
        table.to_csv(options.log, index=False)
    if "return" in table:
        print(compare({slug: table}).to_string())
    if "by hand" in table.attrs["stopped"]:
        raise KeyboardInterrupt


def main(arguments: list[str]) -> int:
    usage = f"python -m offrl_nb train {{{','.join(methods())}}} --dataset ID; --help lists more"
    try:
        match arguments:
            case [] | ["-h" | "--help"]:
                print(usage)
            case ["train", slug, *rest] if slug in methods():
                train(slug, rest)
            case _:
                raise ValueError(f"{' '.join(arguments[:2])!r} is not a command. Usage: {usage}")
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped by hand.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
