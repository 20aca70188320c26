"""Values have settled in every run of the table of results, and what was tried is stored."""

import dataclasses
import importlib
import json
import re
import sys

import pandas as pd
import pytest
from notebooks import ROOT

from offrl_nb.__main__ import methods
from offrl_nb.data import load, shipped_ids

sys.path.insert(0, str(ROOT / "scripts"))
import trials

from results import keys, settings

TRIALS = sorted((ROOT / "results" / "trials").glob("*.csv"))
# Updates that move the slow copy of a value once; `rlpd` counts in steps of the environment.
DELAY = {"td3bc": 2, "td3bc-rebrac": 2, "problem-td3": 2, "dt-qdt": 1 / 3}
WITHOUT_VALUES = {"bc", "bc-percent", "dt", "dt-rvs", "idql-bc", "awac-awr"}  # or with no slow copy
DISCRETE = ("cartpole", "frozenlake", "windy")
CHOICES = {f"{slug}: {key}": (slug, key) for slug in methods() for key in keys(slug)}


def method(slug: str):
    return importlib.import_module(f"offrl_nb.methods.{slug}")


def time_constants(slug: str, key: str, config) -> float:
    """How many times 1 / (target_rate (1 - discount)) updates a run lets its slow copies move."""
    moves = getattr(config, "updates", 0) / DELAY.get(key, 1)
    if slug == "rlpd":
        config = dataclasses.replace(config, **method(slug).WITHOUT[config.variant])
        moves = config.online_steps * config.critic_updates
    return moves * config.target_rate * (1 - config.discount)


@pytest.mark.parametrize("slug, key", CHOICES.values(), ids=CHOICES)
def test_values_settle_on_every_task(slug, key):
    if key in WITHOUT_VALUES:
        pytest.skip("learns no value with a slow copy")
    refuses = re.search("DataError for (rebrac on )?discrete", method(slug).train.__doc__)
    for dataset_id in shipped_ids():
        if refuses and dataset_id.split("/")[0] in DISCRETE:
            continue
        config = settings(slug, keys(slug)[key], "book", dataset_id)
        reached = time_constants(slug, key, config)
        assert reached >= 2 - 1e-9, (
            f"{key} on {dataset_id}: {reached:.2f} time constants of its values, fewer than 2; in "
            "TASKS raise updates or target_rate: updates >= 2 / (target_rate (1 - discount))."
        )


def test_a_method_whose_slow_copy_waits_says_so_here():
    """What moves a slow copy only now and then is in DELAY; a new method is to be added to it."""
    for slug in methods():
        source = (ROOT / "offrl_nb" / "methods" / f"{slug}.py").read_text()
        waits = re.search(r"% delay|is_td3 and number % 2", source)
        assert bool(waits) == any(key.split("-")[0] == slug and x > 1 for key, x in DELAY.items())


@pytest.mark.parametrize("path", TRIALS, ids=[path.stem for path in TRIALS])
def test_what_was_tried_is_stored_with_what_was_chosen_and_why(path):
    rows = pd.read_csv(path, keep_default_na=False)
    for dataset_id, tried in rows.groupby("dataset"):
        assert dataset_id in shipped_ids() and (tried.method == path.stem).all()
        assert tried.chosen.sum() == 1 and tried[tried.chosen].reason.str.len().all(), dataset_id
        for row in tried.itertuples():
            assert len(json.loads(row.last_of_seeds)) == 5 and json.loads(row.config)


@pytest.mark.parametrize("path", TRIALS, ids=[path.stem for path in TRIALS])
def test_the_settings_of_the_table_are_those_that_were_chosen(path):
    slug = path.stem.split("-")[0]
    rows = pd.read_csv(path)
    for row in rows[rows.chosen].itertuples():
        config = settings(slug, keys(slug)[path.stem], "book", row.dataset)
        chosen, now = json.loads(row.config), json.loads(json.dumps(dataclasses.asdict(config)))
        apart = {k: (chosen.get(k), x) for k, x in now.items() if chosen.get(k) != x}
        assert not apart, (
            f"{path.stem} on {row.dataset}: chosen and set differ: {apart}; run `make trials`."
        )


RUN = {"last_of_seeds": "[1.0, 1.1, 0.9, 1.0, 1.0]", "last": 1.0, "best": 1.05}


@pytest.mark.parametrize(
    "clones, change, found",
    [
        ([1.0, 1.0, 1.1, 0.9, 1.0], {}, ""),
        ([1.2, 0.6, 1.4, 0.9, 1.0], {}, ""),  # below, but not clearly
        ([3.0, 3.1, 2.9, 3.0, 3.0], {}, "20% of the references' range below cloning"),
        ([1.0, 1.0, 1.1, 0.9, 1.0], {"best": 3.0}, "20% below its own best"),
    ],
)
def test_what_ends_clearly_below_cloning_or_its_own_best_is_swept(clones, change, found):
    assert trials.faults(RUN | change, clones, (0.0, 10.0)) == found


def test_a_sweep_varies_one_weight_and_the_best_is_chosen(monkeypatch):
    def tried(key, slug, dataset, config):
        last = {0.2: 1.0, 1.0: 2.0, 5.0: 9.0}[config.temperature]
        return RUN | {"last": last, "best": last, "last_of_seeds": json.dumps([last] * 5)}

    monkeypatch.setattr(trials, "tried", tried)
    monkeypatch.setattr(trials, "settings", lambda *_: method("awac").Config(temperature=1.0))
    rows = trials.choose("awac", "awac", load("pendulum/mixed-v0"), [200.0, 201.0, 202.0, 203.0])
    assert [row["change"] for row in rows] == ["", "temperature 0.2", "temperature 5"]
    assert [row["chosen"] for row in rows] == [False, False, True]
    assert "cloning; the best weight is still" in rows[2]["reason"] and not rows[0]["reason"]


def test_a_weight_that_is_not_clearly_better_is_not_chosen(monkeypatch):
    def tried(key, slug, dataset, config):
        last = {0.2: 1.0, 1.0: 2.0, 5.0: 2.1}[config.temperature]
        ends = json.dumps([last - 1, last + 1, last, last - 0.5, last + 0.5])
        return RUN | {"last": last, "best": last, "last_of_seeds": ends}

    monkeypatch.setattr(trials, "tried", tried)
    monkeypatch.setattr(trials, "settings", lambda *_: method("awac").Config(temperature=1.0))
    rows = trials.choose("awac", "awac", load("pendulum/mixed-v0"), [200.0, 201.0, 202.0, 203.0])
    assert [row["chosen"] for row in rows] == [True, False, False]
    assert rows[0]["reason"].endswith("; no other weight is clearly better")


def test_trials_say_in_a_sentence_what_they_cannot_do(tmp_path, capsys):
    wanted = ["--datasets", "pendulum/mixed-v0", "--folder", str(tmp_path)]
    assert trials.main(["--methods", "nobody", *wanted]) == 2
    assert capsys.readouterr().err.startswith("There is no method nobody; there are awac")
    assert trials.main(["--methods", "iql", *wanted]) == 2
    assert "has no row of pendulum/mixed-v0; try bc first" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_choice_is_made_again_only_where_other_settings_are_set(monkeypatch, tmp_path):
    def tried(key, slug, dataset, config):
        return RUN | {"dataset": dataset.id, "config": json.dumps(dataclasses.asdict(config))}

    monkeypatch.setattr(trials, "tried", tried)
    bc = {"dataset": ["pendulum/mixed-v0"], "last_of_seeds": ["[1.0, 1.0, 1.0, 1.0, 1.0]"]}
    pd.DataFrame(bc).to_csv(tmp_path / "bc.csv")
    log, lines = load("pendulum/mixed-v0"), []
    for discount in (0.9, 0.9, 0.8):
        config = method("iql").Config(discount=discount)
        monkeypatch.setattr(trials, "settings", lambda *_, config=config: config)
        lines.append(trials.store("iql", "iql", log, tmp_path))
    assert [line.endswith("stored already") for line in lines] == [False, True, False]
    (row,) = pd.read_csv(tmp_path / "iql.csv").itertuples()
    assert json.loads(row.config)["discount"] == 0.8
