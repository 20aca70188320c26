"""Make the stored runs: every method on every dataset, one small CSV file a run (`make results`).

Resumable, by several processes at once: a file appears when its run is complete, a run with other settings
replaces it, and one that fails is told and does not stop the others. `offrl_nb.results` reads them.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import platform
import sys
import time
import typing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import pandas as pd
import torch
import tyro

from offrl_nb import DataError, best, evaluator, last, load
from offrl_nb.__main__ import methods
from offrl_nb.data import shipped_ids

LENGTHS = ("updates", "online_steps")  # the settings that say how long a run is


@dataclass
class Wanted:
    """Which runs to make; those that are stored already are left alone."""

    methods: tuple[str, ...] = ()  # keys such as bc bc-percent; none: every method and variant
    datasets: tuple[str, ...] = ()  # Minari ids; none: every shipped dataset
    size: Literal["fast", "book", "paper"] = "book"
    seeds: int = 10  # seeds 0 .. seeds - 1
    episodes: int = 20  # evaluation episodes for each seed
    evaluations: int = 10  # how often to evaluate; "best" is the best of them
    device: str = "cpu"
    folder: Path = Path("results")

    def __post_init__(self):
        for name in ("seeds", "episodes", "evaluations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least 1.")


def keys(slug: str) -> dict[str, str]:
    """A method's keys: {"bc": "plain", "bc-percent": "percent"}; the default variant has no suffix."""
    module = importlib.import_module(f"offrl_nb.methods.{slug}")
    hint = typing.get_type_hints(module.Config).get("variant")
    default = getattr(module.Config(), "variant", "")
    variants = typing.get_args(hint) or (default,)
    return {slug if v == default else f"{slug}-{v}": v for v in variants}


def settings(slug: str, variant: str, size: str, dataset_id: str):
    """The Config of a run: a few updates (fast), the chapter's (book), the published ones (paper).

    A chapter may print what a task changes, or a log of it, for all variants or for one; not for paper:
    TASKS = {"all": {"updates": 9_000}, "pendulum": {"discount": 0.95}, "pendulum/mixed calql": {"samples": 4}}.
    """
    module = importlib.import_module(f"offrl_nb.methods.{slug}")
    config = module.PAPER if size == "paper" else module.Config()
    tasks, changes = getattr(module, "TASKS", {}), {}
    for key in ("all", dataset_id.split("/")[0], dataset_id.rsplit("-v", 1)[0]):
        if size != "paper":
            changes |= tasks.get(key, {}) | tasks.get(f"{key} {variant}", {})
    changes |= {"variant": variant} if variant else {}
    if size == "fast":
        changes |= {name: 50 for name in LENGTHS if hasattr(config, name)}
    return dataclasses.replace(config, **changes)


def run(slug: str, key: str, dataset_id: str, wanted: Wanted) -> str:
    """Train and store one run unless it is stored already; returns a line that says what happened.

    Raises OSError, naming the file, where it cannot be stored, before it is trained; and KeyboardInterrupt
    where it was stopped by hand: nothing is stored then.
    """
    config = settings(slug, keys(slug)[key], wanted.size, dataset_id)
    asked = {name: getattr(wanted, name) for name in ("seeds", "episodes", "evaluations")}
    described = json.dumps(dataclasses.asdict(config) | asked)
    target = wanted.folder / wanted.size / key / f"{dataset_id}.csv"
    if stored(target, described, wanted.seeds):
        return f"{key} on {dataset_id}: stored already"
    with written(target) as half:
        table, seconds = trained(slug, dataset_id, config, wanted)
        rows = summarised(table, load(dataset_id), hasattr(config, "online_steps"))
        for column, value in (("size", wanted.size), ("dataset", dataset_id), ("method", key)):
            rows.insert(0, column, value)
        rows = rows.assign(
            seconds=round(seconds, 1), config=described, **surroundings(wanted.device)
        )
        rows.to_csv(half, index=False)
    stopped = f" ({table.attrs['stopped']})" if table.attrs["stopped"] else ""
    return f"{key} on {dataset_id}: {rows['last'].mean():.4g} in {seconds:.0f} s{stopped}"


@contextlib.contextmanager
def written(target: Path):
    """A file to write to, of this process alone, that takes the target's place when all went well."""
    half = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        half.touch()  # fail now rather than after the training
        yield half
        os.replace(half, target)  # complete or absent, whenever the process is killed
    except OSError as error:
        raise OSError(f"{target} cannot be written ({error})") from error
    finally:
        if half.exists():
            half.unlink()


def trained(slug: str, dataset_id: str, config, wanted: Wanted) -> tuple[pd.DataFrame, float]:
    """The table of a run, and the seconds that all its stages took."""
    module = importlib.import_module(f"offrl_nb.methods.{slug}")
    dataset = load(dataset_id, wanted.device)
    evaluate = evaluator(dataset, wanted.episodes, discount=getattr(config, "discount", 0.99))
    began = time.perf_counter()
    _, table = module.train(dataset, config, range(wanted.seeds), evaluate, wanted.evaluations)
    if "by hand" in table.attrs["stopped"]:
        raise KeyboardInterrupt
    return table, time.perf_counter() - began


def stored(target: Path, described: str, seeds: int) -> bool:
    """Is this run in its file, whole? A file that cannot be read, or that lacks rows, is made again."""
    try:
        rows = pd.read_csv(target)
        return len(rows) == seeds and (rows.config == described).all()
    except (OSError, ValueError, AttributeError):
        return False


def summarised(table: pd.DataFrame, dataset, curve: bool) -> pd.DataFrame:
    """A row a seed: last and best return and score, what a critic believed, the curve of an online run."""
    rows = pd.DataFrame({"seed": sorted(table.seed.unique())})
    rows["last"], rows["best"] = last(table), best(table)
    for name in ("believed", "discounted"):  # what a critic says, and what followed
        if name in table:
            rows[name] = last(table, name)
    if curve:  # how fast it learned is the point
        measured = table[table.groupby("step")["return"].transform("count") > 0].groupby("seed")
        rows["curve"] = [json.dumps(x[["step", "return"]].to_numpy().tolist()) for _, x in measured]
    if dataset.reference:
        rows["last_score"], rows["best_score"] = map(dataset.score, (rows["last"], rows["best"]))
    return rows


def surroundings(device: str) -> dict[str, str]:
    """Versions and hardware that a number was measured with."""
    names = ("offrl_nb", "torch", "numpy", "gymnasium", "mujoco")
    pairs = [f"python {platform.python_version()}", *(f"{n} {version(n)}" for n in names)]
    if device.startswith("cuda"):
        return {"versions": " ".join(pairs), "hardware": torch.cuda.get_device_name(device)}
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":")[1].strip() for line in lines if "model name" in line]
    model = models[0] if models else platform.processor() or platform.machine()
    return {
        "versions": " ".join(pairs),
        "hardware": f"{model}, {torch.get_num_threads()} thread(s)",
    }


def main(arguments: list[str]) -> int:
    try:
        wanted = tyro.cli(Wanted, args=arguments, prog="make results")
        slug_of = {key: slug for slug in methods() for key in keys(slug)}
        if unknown := set(wanted.methods) - slug_of.keys():
            raise ValueError(
                f"There is no method {', '.join(sorted(unknown))}; there are {', '.join(slug_of)}."
            )
        for dataset_id in wanted.datasets or shipped_ids()[:1]:
            load(
                dataset_id, wanted.device
            )  # a wrong id or device is told before anything is trained
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    failed = 0
    try:
        for dataset_id in wanted.datasets or shipped_ids():
            for key in wanted.methods or slug_of:
                try:
                    line = run(slug_of[key], key, dataset_id, wanted)
                except DataError as error:  # a method that cannot use this kind of data says so
                    line = f"{key} on {dataset_id}: left out. {error}"
                except Exception as error:  # one bad run never stops the table
                    failed += 1
                    line = f"{key} on {dataset_id}: FAILED. {type(error).__name__}: {error}"
                print(line, flush=True)
    except KeyboardInterrupt:
        print("Stopped; what was complete is stored.", file=sys.stderr)
        return 130
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
