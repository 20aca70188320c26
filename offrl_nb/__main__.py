"""The command line: `python -m offrl_nb train bc --dataset pendulum/narrow-v0 --seeds 5`, and `results`.

For: training a chapter's method on any dataset, outside a notebook. Not for: code of its own; it calls
the same `train` that the chapter prints.
"""

import importlib
import pkgutil
import sys
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

import offrl_nb.methods
from offrl_nb.data import load, shipped_ids
from offrl_nb.evaluate import evaluator, summary
from offrl_nb.results import FOLDER, keys, run


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
    """Slugs of the chapters that have written out a method; some write only helpers, without `train`."""
    names = sorted(module.name for module in pkgutil.iter_modules(offrl_nb.methods.__path__))
    return [n for n in names if hasattr(importlib.import_module(f"offrl_nb.methods.{n}"), "train")]


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


@dataclass
class Wanted:
    """Which runs `results` makes; those that are stored already are left alone."""

    methods: tuple[str, ...] = ()  # keys such as bc bc-percent; none: every method and variant
    datasets: tuple[str, ...] = ()  # Minari ids; none: every shipped dataset
    size: Literal["fast", "book", "paper"] = "book"
    seeds: int = 10  # seeds 0 .. seeds - 1
    episodes: int = 20  # evaluation episodes for each seed
    evaluations: int = 10  # how often to evaluate; "best" is the best of them
    device: str = "cpu"
    folder: Path = FOLDER


def results(arguments: list[str]) -> None:
    wanted = tyro.cli(Wanted, args=arguments, prog="offrl_nb results")
    check_device(wanted.device)
    torch.set_num_threads(1)
    slug_of = {key: slug for slug in methods() for key in keys(slug)}
    if unknown := set(wanted.methods) - slug_of.keys():
        raise ValueError(
            f"There is no method {', '.join(sorted(unknown))}; there are {', '.join(slug_of)}."
        )
    for dataset_id in wanted.datasets or shipped_ids():
        for key in wanted.methods or slug_of:
            measured = (wanted.seeds, wanted.episodes, wanted.evaluations)
            where = (wanted.device, wanted.folder)
            line = run(slug_of[key], key, dataset_id, wanted.size, *measured, *where)
            print(line, flush=True)


def check_device(device: str) -> None:
    """Raises ValueError for a device that is not here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"There is no device {device!r} here; leave --device out to use the CPU."
        ) from error


def main(arguments: list[str]) -> int:
    known = ",".join(methods())
    usage = (
        f"usage: python -m offrl_nb train {{{known}}} --dataset ID [options], "
        "or python -m offrl_nb results [options]; --help lists the options"
    )
    try:
        match arguments:
            case [] | ["-h" | "--help"]:
                print(usage)
            case ["train", slug, *rest] if slug in methods():
                train(slug, rest)
            case ["results", *rest]:
                results(rest)
            case _:
                raise ValueError(f"{' '.join(arguments[:2])!r} is not a command. {usage}")
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; what was complete is stored.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
