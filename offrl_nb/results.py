"""The wide tables: every method on every dataset, many seeds, one small CSV file a run.

For: `python -m offrl_nb results` (resumable), and `read` for the chapters that print from the files. Not
for: training code; it calls the `train` that a chapter prints.

A run is a method's variant on a dataset at a size. Its file is results/<size>/<key>/<dataset id>.csv with
key = slug or slug-variant; dataset ids are folders below the key, so no two runs share a file. A file
appears when its run is complete; a run with other settings replaces it.
"""

import dataclasses
import importlib
import json
import os
import platform
import typing
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from offrl_nb.claims import SIZES
from offrl_nb.data import DataError, load
from offrl_nb.evaluate import best, difference, evaluator, last

FOLDER = Path("results")
_PACKAGE = Path(__file__).parent
LENGTHS = ("updates", "online_steps")  # the settings that say how long a run is
SHIPPED = _PACKAGE / "_results" if (_PACKAGE / "_results").exists() else _PACKAGE.parent / "results"


def keys(slug: str) -> dict[str, str]:
    """A method's keys: {"bc": "plain", "bc-percent": "percent"}; the default variant has no suffix."""
    module = importlib.import_module(f"offrl_nb.methods.{slug}")
    hint = typing.get_type_hints(module.Config).get("variant")
    default = getattr(module.Config(), "variant", "")
    variants = typing.get_args(hint) or (default,)
    return {slug if v == default else f"{slug}-{v}": v for v in variants}


def settings(slug: str, variant: str, size: str, dataset_id: str):
    """The Config of a run: a few updates (fast), the chapter's (book), the published ones (paper).

    A chapter may print what a task changes, for all variants or for one; not for paper:
    TASKS = {"pendulum": {"discount": 0.95}, "pendulum calql": {"cql_weight": 1.0}}.
    """
    module = importlib.import_module(f"offrl_nb.methods.{slug}")
    config = module.PAPER if size == "paper" else module.Config()
    tasks, task = getattr(module, "TASKS", {}), dataset_id.split("/")[0]
    changes = tasks.get(task, {}) | tasks.get(f"{task} {variant}", {}) if size != "paper" else {}
    changes |= {"variant": variant} if variant else {}
    if size == "fast":
        changes |= {name: 50 for name in LENGTHS if hasattr(config, name)}
    return dataclasses.replace(config, **changes)


def file(folder: Path, size: str, key: str, dataset_id: str) -> Path:
    """Where a run's rows stand."""
    if size not in SIZES:
        raise ValueError(f"The size {size!r} is unknown; use fast, book or paper.")
    return folder / size / key / f"{dataset_id}.csv"


def run(slug, key, dataset_id, size, seeds, episodes, evaluations, device, folder=FOLDER) -> str:
    """Train and store one run unless it is stored already; returns a line that says what happened."""
    config = settings(slug, keys(slug)[key], size, dataset_id)
    asked = {"seeds": seeds, "episodes": episodes, "evaluations": evaluations}
    described = json.dumps(dataclasses.asdict(config) | asked)
    target = file(folder, size, key, dataset_id)
    if target.exists() and pd.read_csv(target).config.iloc[0] == described:
        return f"{key} on {dataset_id}: stored already"
    module = importlib.import_module(f"offrl_nb.methods.{slug}")
    dataset = load(dataset_id, device)
    try:
        discount = getattr(config, "discount", 0.99)
        evaluate = evaluator(dataset, episodes, discount=discount)
        _, log = module.train(dataset, config, range(seeds), evaluate, evaluations)
    except DataError as error:  # a method that cannot use this kind of data says so
        return f"{key} on {dataset_id}: left out. {error}"
    if log.attrs["updates"] < sum(getattr(config, name, 0) for name in LENGTHS):
        raise KeyboardInterrupt
    rows = pd.DataFrame({"method": key, "dataset": dataset_id, "size": size, "seed": range(seeds)})
    rows["last"], rows["best"] = last(log), best(log)
    for name in ("believed", "discounted"):  # what a critic says, and what followed
        if name in log:
            rows[name] = last(log, name)
    if hasattr(config, "online_steps"):  # how fast it learned is the point
        measured = log[log.groupby("step")["return"].transform("count") > 0].groupby("seed")
        rows["curve"] = [json.dumps(x[["step", "return"]].to_numpy().tolist()) for _, x in measured]
    if dataset.reference:
        rows["last_score"], rows["best_score"] = (
            dataset.score(rows["last"]),
            dataset.score(rows["best"]),
        )
    rows = rows.assign(
        seconds=round(log.attrs["seconds"], 1), config=described, **surroundings(device)
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_suffix(".part")
    rows.to_csv(half, index=False)
    os.replace(half, target)  # complete or absent, whenever the process is killed
    return f"{key} on {dataset_id}: {rows['last'].mean():.1f} in {log.attrs['seconds']:.0f} s"


def surroundings(device: str) -> dict[str, str]:
    """Versions and hardware that a number was measured with."""
    names = ("offrl_nb", "torch", "numpy", "gymnasium", "mujoco")
    versions = " ".join(
        [f"python {platform.python_version()}", *(f"{n} {version(n)}" for n in names)]
    )
    if device.startswith("cuda"):
        return {"versions": versions, "hardware": torch.cuda.get_device_name(device)}
    info = Path("/proc/cpuinfo")
    models = (
        [x for x in info.read_text().splitlines() if "model name" in x] if info.exists() else []
    )
    model = (
        models[0].split(":")[1].strip() if models else platform.processor() or platform.machine()
    )
    return {"versions": versions, "hardware": f"{model}, {torch.get_num_threads()} thread(s)"}


def read(folder: Path = SHIPPED, size: str = "book") -> pd.DataFrame:
    """All stored rows of a size, one a run and seed; by default those that come with the book."""
    files = sorted((folder / size).rglob("*.csv"))
    if not files:
        raise ValueError(f"No results of size {size} in {folder}; make them with `make results`.")
    return pd.concat(map(pd.read_csv, files), ignore_index=True)


def curves(key: str, dataset_id: str, folder: Path = SHIPPED, size: str = "book") -> pd.DataFrame:
    """The stored evaluations of a method that goes online: step, seed, return.

    Raises ValueError where that run is not stored.
    """
    target = file(folder, size, key, dataset_id)
    if not target.exists():
        raise ValueError(f"There is no run of {key} on {dataset_id} in {folder}; make it first.")
    stored = pd.read_csv(target)
    points = [
        {"step": step, "seed": seed, "return": value}
        for seed, curve in zip(stored.seed, stored.curve, strict=True)
        for step, value in json.loads(curve)
    ]
    return pd.DataFrame(points)


def beside(
    *keys: str, baselines=("bc", "bc-percent"), folder: Path = SHIPPED, size: str = "book"
) -> pd.DataFrame:
    """Mean last returns of methods on every dataset where one of them is stored, beside simpler ones.

    In brackets the 95 % interval of the difference to the first of the baselines; a dash where a run is not
    stored. Empty where no method is. Raises ValueError where nothing is stored.
    """
    stored = read(folder, size)
    last_of = {
        run: rows.set_index("seed")["last"] for run, rows in stored.groupby(["dataset", "method"])
    }
    rows = {}
    for dataset in sorted({dataset for dataset, method in last_of if method in keys}):
        shown = {m: last_of[dataset, m] for m in (*baselines, *keys) if (dataset, m) in last_of}
        d = 0 if max(x.abs().max() for x in shown.values()) > 20 else 2
        row = {m: f"{x.mean():.{d}f}" for m, x in shown.items()}
        for key in keys:
            if key in shown and baselines[0] in shown:
                low, high = difference(shown[key], shown[baselines[0]])
                row[key] += f" ({low:+.{d}f} to {high:+.{d}f})"
        rows[dataset.removesuffix("-v0")] = row
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[*baselines, *keys]).fillna("–")
    return table.rename_axis("dataset", axis="columns")
