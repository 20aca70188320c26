"""Reading the stored runs: every method on every dataset, many seeds, one small CSV file a run.

For: `read` and `beside`, for the chapters that print from the files. Not for: making them; that is
`make results` (scripts/results.py).

A run is a method's variant on a dataset at a size. Its file is results/<size>/<key>/<dataset id>.csv with
key = slug or slug-variant; dataset ids are folders below the key, so no two runs share a file.
"""

from pathlib import Path

import pandas as pd

from offrl_nb.evaluate import difference

_PACKAGE = Path(__file__).parent
_SHIPPED = next(x for x in (_PACKAGE / "_results", _PACKAGE.parent / "results") if x.exists())
_NEEDED = ["method", "dataset", "seed", "last", "best", "config"]


def read(size: str = "book", folder: Path = _SHIPPED) -> pd.DataFrame:
    """All stored rows of a size, one a run and seed; by default those that come with the book.

    Raises ValueError where nothing is stored, or where a file is damaged, which it names.
    """
    files = sorted((folder / size).rglob("*.csv"))
    if not files:
        raise ValueError(f"No results of size {size} in {folder}; make them with `make results`.")
    return pd.concat(map(_rows, files), ignore_index=True)


def _rows(file: Path) -> pd.DataFrame:
    try:
        rows = pd.read_csv(file)
        rows[_NEEDED].iloc[0]
    except (ValueError, OSError, LookupError) as error:  # pandas' own errors are ValueErrors
        raise ValueError(f"{file} is no stored run ({error}); make it again.") from error
    return rows


def beside(*keys: str, baselines=("bc", "bc-percent"), size: str = "book") -> pd.DataFrame:
    """Mean last returns of methods on every dataset where one of them is stored, beside simpler ones.

    In brackets the 95 % interval, over seeds, of the difference to the first of the baselines; a dash where
    a run is not stored. Empty where no method is. Raises ValueError where nothing is stored.
    """
    runs = read(size).set_index("seed").groupby(["dataset", "method"])["last"]
    last_of, rows = dict(list(runs)), {}
    for dataset in sorted({dataset for dataset, method in last_of if method in keys}):
        shown = {m: last_of[dataset, m] for m in (*baselines, *keys) if (dataset, m) in last_of}
        d = 0 if max(x.abs().max() for x in shown.values()) > 20 else 2
        row = {m: f"{x.mean():z.{d}f}" for m, x in shown.items()}
        for key in keys:
            if key in shown and baselines[0] in shown:
                low, high = difference(shown[key], shown[baselines[0]])
                row[key] += f" ({low:+z.{d}f} to {high:+z.{d}f})"
        rows[dataset.removesuffix("-v0")] = row
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[*baselines, *keys]).fillna("–")
    return table.rename_axis("dataset", axis="columns")


def trials(*methods: str, folder: Path = _SHIPPED) -> pd.DataFrame:
    """What was tried before settings were chosen, a row a run: seeds 100-104, see scripts/trials.py.

    `last_of_seeds` and `config` are JSON. Raises FileNotFoundError for a method without trials.
    """
    return pd.concat(pd.read_csv(folder / "trials" / f"{method}.csv") for method in methods)
