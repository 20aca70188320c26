"""Choose settings: one settled run of every method on every log, beside behaviour cloning (`make trials`).

Seeds 100-104, which no chapter reports. A run that ends clearly below cloning, or clearly below its own best
evaluation, is repeated with the one weight of its constraint smaller and larger; nothing else is varied.
Everything that was tried is stored in results/trials/<key>.csv, with what was chosen and why. Resumable, and
by several processes at once, each with methods of its own.
"""

import dataclasses
import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro

from offrl_nb import DataError, difference, evaluator, last, load
from offrl_nb.__main__ import methods
from offrl_nb.data import shipped_ids
from results import keys, settings, surroundings, written

SEEDS = range(100, 105)
EPISODES, EVALUATIONS = 10, 5
# Below cloning, and below its own best, in shares of the range between the references.
CLEARLY = 0.05, 0.10
# The weight that holds a method to the log, and what it is multiplied by.
SWEPT = {
    "awac": ("temperature", (0.2, 5)),
    "bcq": ("perturbation", (0, 4)),
    "bcq discrete": ("threshold", (0.3, 2)),
    "combo": ("push_weight", (0.2, 5)),
    "cql": ("cql_weight", (0.2, 5)),
    "dsrl": ("bound", (0.5, 2)),
    "finetune": ("cql_weight", (0.2, 5)),
    "fql": ("bc_weight", (0.2, 5)),
    "idql": ("samples", (0.25, 4)),
    "iql": ("inv_temp", (0.2, 5)),
    "mopo": ("penalty_coef", (0.2, 5)),
    "morel": ("looseness", (0.2, 5)),
    "td3bc": ("q_weight", (0.2, 5)),
    "td3bc-brac_v": ("kl_coef", (0.2, 5)),
    "td3bc-rebrac": ("bc_weight", (0.2, 5)),
}


@dataclass
class Wanted:
    """Which choices to make; where what is set now was chosen already, nothing is run."""

    methods: tuple[str, ...]  # keys, such as iql td3bc-rebrac; bc comes first
    datasets: tuple[str, ...] = ()  # Minari ids; none: every shipped dataset
    folder: Path = Path("results/trials")


def tried(key: str, slug: str, dataset, config) -> dict:
    """One run: a row of the table, with every seed's last return."""
    module = importlib.import_module(f"offrl_nb.methods.{slug}")
    measure = evaluator(dataset, EPISODES, discount=getattr(config, "discount", 0.99))
    _, table = module.train(dataset, config, SEEDS, measure, EVALUATIONS)
    if "by hand" in table.attrs["stopped"]:
        raise KeyboardInterrupt
    curve = table.groupby("step")["return"].mean().dropna()
    row = {"dataset": dataset.id, "method": key, "last": last(table).mean(), "best": curve.max()}
    row |= {"last_of_seeds": json.dumps(last(table).round(3).tolist())}
    row |= {"curve": json.dumps(curve.round(3).tolist())}
    for name in ("believed", "discounted"):
        row[name] = last(table, name).mean() if name in table else np.nan
    said = {"stopped": table.attrs["stopped"], "seconds": round(table.attrs["seconds"], 1)}
    return row | said | {"config": json.dumps(dataclasses.asdict(config))}


def seeds(row: dict) -> list[float]:
    """The last return of every seed."""
    return json.loads(row["last_of_seeds"])


def faults(row: dict, clones: list[float], reference: tuple[float, float]) -> str:
    """In what a run is clearly worse than cloning, or than it was itself; empty if in nothing."""
    unit, ends = reference[1] - reference[0], seeds(row)
    found = []
    gap = np.mean(ends) - np.mean(clones)
    if not np.isfinite(gap) or (gap < -CLEARLY[0] * unit and difference(ends, clones)[1] < 0):
        found.append(f"{-gap / unit:.0%} of the references' range below cloning")
    if not row["best"] - row["last"] < CLEARLY[1] * unit:
        found.append(f"{(row['best'] - row['last']) / unit:.0%} below its own best")
    return " and ".join(found)


def weights(key: str, slug: str, dataset, config) -> dict[str, object]:
    """The Configs to try besides, by the value of the weight that is swept."""
    kind = f"{key} discrete" if dataset.n_actions and f"{key} discrete" in SWEPT else key
    if kind not in SWEPT:
        return {}
    name, factors = SWEPT[kind]
    value = getattr(config, name)
    found = [type(value)(round(value * factor, 4)) for factor in factors]
    return {f"{name} {x:g}": dataclasses.replace(config, **{name: x}) for x in found}


def choose(key: str, slug: str, dataset, clones: list[float]) -> list[dict]:
    """All runs of a method on a log; one of them is chosen, and its row says why."""
    config = settings(slug, keys(slug)[key], "book", dataset.id)
    rows = [tried(key, slug, dataset, config) | {"change": ""}]
    wrong = faults(rows[0], clones, dataset.reference) if clones else ""
    reason = f"as set: {wrong or 'clearly below neither cloning nor its own best'}"
    for change, other in (weights(key, slug, dataset, config) if wrong else {}).items():
        rows.append(tried(key, slug, dataset, other) | {"change": change})
    best = max(rows, key=lambda row: np.nan_to_num(row["last"], nan=-np.inf))
    if np.isfinite(rows[0]["last"]) and not difference(seeds(best), seeds(rows[0]))[0] > 0:
        best = rows[0]
    if not clones:
        reason = "what the others are held against"
    elif len(rows) > 1 and best is rows[0]:
        reason += "; no other weight is clearly better"
    elif len(rows) > 1:
        still = faults(best, clones, dataset.reference)
        reason += "; the best weight is still " + still if still else "; cured by the weight"
    for row in rows:
        row |= {"chosen": row is best, "reason": reason if row is best else ""}
    return rows


def cloned(dataset_id: str, folder: Path) -> list[float]:
    """What every seed of behaviour cloning earned on a log, as stored."""
    try:
        rows = pd.read_csv(folder / "bc.csv").set_index("dataset")
        return json.loads(rows.last_of_seeds[dataset_id])
    except (OSError, KeyError) as error:
        raise ValueError(f"{folder}/bc.csv has no row of {dataset_id}; try bc first.") from error


def store(key: str, slug: str, dataset, folder: Path) -> str:
    """Choose for one method on one log, unless what is set now was chosen; returns a line that says so."""
    target = folder / f"{key}.csv"
    stored = pd.read_csv(target) if target.exists() else pd.DataFrame({"dataset": []})
    mine = stored[stored.dataset == dataset.id]
    config = settings(slug, keys(slug)[key], "book", dataset.id)
    if len(mine) and mine.config[mine.chosen].item() == json.dumps(dataclasses.asdict(config)):
        return f"{key} on {dataset.id}: stored already"
    others = stored.drop(mine.index)
    clones = [] if key == "bc" else cloned(dataset.id, folder)
    with written(target) as half:
        rows = pd.DataFrame(choose(key, slug, dataset, clones)).assign(**surroundings("cpu"))
        pd.concat([others, rows]).to_csv(half, index=False)
    row = rows[rows.chosen].iloc[0]
    return (
        f"{key} on {dataset.id}: {row['last']:.4g} with {row.change or 'what is set'}; {row.reason}"
    )


def main(arguments: list[str]) -> int:
    torch.set_num_threads(1)
    slugs = {key: slug for slug in methods() for key in keys(slug)}
    try:
        wanted = tyro.cli(Wanted, args=arguments, prog="make trials")
        if unknown := set(wanted.methods) - slugs.keys():
            raise ValueError(
                f"There is no method {', '.join(unknown)}; there are {', '.join(slugs)}."
            )
        for dataset_id in wanted.datasets or shipped_ids():
            dataset = load(dataset_id)
            for key in wanted.methods:
                try:
                    line = store(key, slugs[key], dataset, wanted.folder)
                except DataError as error:  # a method that cannot use this kind of data says so
                    line = f"{key} on {dataset_id}: left out. {error}"
                print(line, flush=True)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; what was complete is stored.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
