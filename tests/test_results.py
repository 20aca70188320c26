"""`results`: complete files or none, resumed where it stopped, one sentence for what cannot be."""

import dataclasses
import importlib
import signal
import subprocess
import sys
import time
import types

import pandas as pd
import pytest
import torch

from offrl_nb import fit
from offrl_nb.__main__ import main
from offrl_nb.results import beside, curves, file, keys, read, run, settings

OPTIONS = {"seeds": 2, "episodes": 2, "evaluations": 10, "device": "cpu"}


def test_a_run_is_stored_whole_and_not_repeated(tmp_path):
    first = run("bc", "bc-percent", "pendulum/narrow-v0", "fast", **OPTIONS, folder=tmp_path)
    assert first.startswith("bc-percent on pendulum/narrow-v0: -")
    stored = tmp_path / "fast" / "bc-percent" / "pendulum" / "narrow-v0.csv"
    rows = pd.read_csv(stored)
    assert rows.seed.tolist() == [0, 1] and (rows.best >= rows["last"]).all()
    wanted = {
        "method",
        "dataset",
        "size",
        "last_score",
        "seconds",
        "config",
        "versions",
        "hardware",
    }
    assert wanted <= set(rows.columns) and not rows.isna().any().any()
    before = stored.stat().st_mtime_ns
    again = run("bc", "bc-percent", "pendulum/narrow-v0", "fast", **OPTIONS, folder=tmp_path)
    assert again.endswith("stored already") and stored.stat().st_mtime_ns == before
    more = OPTIONS | {"seeds": 3}
    run("bc", "bc-percent", "pendulum/narrow-v0", "fast", **more, folder=tmp_path)
    assert len(pd.read_csv(stored)) == 3  # other settings replace it
    assert len(read(tmp_path, "fast")) == 3
    with pytest.raises(ValueError, match="make them with `make results`"):
        read(tmp_path, "book")


def test_no_two_runs_share_a_file(tmp_path):
    runs = [
        (size, key, dataset)
        for size in ("fast", "book", "paper")
        for key in ("bc", "bc-percent", "bc-percent-x")
        for dataset in ("a/b-v0", "a-b/v-v0", "percent/a/b-v0", "a/b-v1", "fast/bc-v0")
    ]
    assert len({file(tmp_path, *run_) for run_ in runs}) == len(runs)
    with pytest.raises(ValueError, match="use fast, book or paper"):
        file(tmp_path, "huge", "bc", "a/b-v0")


def test_variants_have_keys_of_their_own():
    assert keys("bc") == {"bc": "plain", "bc-percent": "percent"}


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_killed_at_any_moment_it_loses_the_run_in_flight_only(tmp_path):
    command = [sys.executable, "-m", "offrl_nb", "results", "--size", "fast", "--seeds", "2"]
    command += ["--episodes", "10", "--methods", "bc", "--folder", str(tmp_path), "--datasets"]
    command += [f"pendulum/{k}-v0" for k in ("medium", "mixed", "narrow")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert "bc on" in process.stdout.readline()
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stored = list(tmp_path.rglob("*.csv"))
    assert stored
    for path in stored:
        assert pd.read_csv(path).seed.tolist() == [0, 1]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("stored already") >= len(stored)
    assert len(list(tmp_path.rglob("*.csv"))) == 3 and not list(tmp_path.rglob("*.part"))


@pytest.fixture
def toy(monkeypatch):
    """A method for discrete actions that its user stops by hand when `stop` is set."""
    module = types.ModuleType("offrl_nb.methods.toy")

    @dataclasses.dataclass(frozen=True)
    class Config:
        updates: int = 10
        stop: bool = False

    def train(dataset, config, seeds, evaluate, evaluations):
        dataset.require("discrete", "toy")

        def update(step):
            if module.stop and step == 5:
                raise KeyboardInterrupt
            return {"loss": torch.zeros(len(seeds))}

        return None, fit(update, config.updates, seeds, lambda: {"return": torch.ones(len(seeds))})

    module.Config, module.train, module.stop = Config, train, False
    monkeypatch.setitem(sys.modules, "offrl_nb.methods.toy", module)
    return module


def test_a_method_that_cannot_use_the_data_is_left_out_with_a_sentence(toy, tmp_path):
    line = run("toy", "toy", "pendulum/narrow-v0", "fast", **OPTIONS, folder=tmp_path)
    assert line == (
        "toy on pendulum/narrow-v0: left out. pendulum/narrow-v0 has continuous actions and toy "
        "needs discrete ones; try cartpole/mixed-v0."
    )
    assert not list(tmp_path.rglob("*.csv"))
    run("toy", "toy", "cartpole/mixed-v0", "fast", **OPTIONS, folder=tmp_path)
    assert len(list(tmp_path.rglob("*.csv"))) == 1


def test_a_run_stopped_by_hand_is_not_stored(toy, tmp_path):
    toy.stop = True
    with pytest.raises(KeyboardInterrupt):
        run("toy", "toy", "cartpole/mixed-v0", "fast", **OPTIONS, folder=tmp_path)
    assert not list(tmp_path.rglob("*.csv")) and not list(tmp_path.rglob("*.part"))


def test_a_chapter_may_print_what_a_task_changes(toy):
    toy.TASKS = {"pendulum": {"updates": 7}}
    toy.PAPER = dataclasses.replace(toy.Config(), updates=1000)
    book = [settings("toy", "", "book", f"{task}/x-v0").updates for task in ("pendulum", "maze")]
    assert book == [7, 10]
    assert settings("toy", "", "paper", "pendulum/x-v0").updates == 1000
    finetune = importlib.import_module("offrl_nb.methods.finetune")
    assert finetune.TASKS["maze calql"]["cql_weight"] != finetune.Config().cql_weight
    weights = [settings("finetune", v, "book", "maze/x-v0").cql_weight for v in ("calql", "cql")]
    assert weights == [finetune.TASKS["maze calql"]["cql_weight"], finetune.Config().cql_weight]
    assert settings("toy", "", "fast", "pendulum/x-v0").updates == 50


def test_what_is_believed_is_compared_with_the_same_discount(tmp_path):
    run("cql", "cql", "pendulum/narrow-v0", "fast", **OPTIONS, folder=tmp_path)
    at_95 = read(tmp_path, "fast")
    assert '"discount": 0.95' in at_95.config[0] and '"evaluations": 10' in at_95.config[0]
    # 200 steps of costs of up to 16, discounted: at 0.95 no more than 20 of them count
    assert (at_95.discounted > -16.3 * 20).all() and (at_95["last"] < 2 * at_95.discounted).all()


def test_the_table_beside_cloning_holds_the_interval_of_the_difference(tmp_path):
    for key, low in (("bc", 100.0), ("bc-percent", 130.0), ("cql", 200.0)):
        path = file(tmp_path, "book", key, "a/b-v0")
        path.parent.mkdir(parents=True)
        rows = {"method": key, "dataset": "a/b-v0", "seed": range(4)}
        pd.DataFrame(rows | {"last": [low, low + 2, low + 4, low + 6]}).to_csv(path)
    table = beside("cql", folder=tmp_path)
    assert table.index.tolist() == ["a/b"]
    assert table.loc["a/b", ["bc", "bc-percent"]].tolist() == ["103", "133"]
    mean, low, _, high = table.loc["a/b", "cql"].replace("(", "").replace(")", "").split()
    assert float(mean) == 203 and 95 < float(low) < 100 < float(high) < 105
    assert beside("cql", "dt", folder=tmp_path).loc["a/b", "dt"] == "–"
    assert len(beside("dt", folder=tmp_path)) == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--methods", "bc", "bcx"], "There is no method bcx; there are "),
        (["--device", "cuda:99"], "There is no device 'cuda:99' here"),
        (["--datasets", "pendulum/narow"], "is not a Minari id"),
    ],
)
def test_wrong_input_is_one_sentence(arguments, sentence, tmp_path, capsys):
    assert main(["results", "--size", "fast", "--folder", str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert sentence in error and len(error.strip().splitlines()) == 1


def test_a_method_that_goes_online_keeps_its_curve(toy, tmp_path):
    toy.Config = dataclasses.make_dataclass("Config", [("online_steps", int, 40)], frozen=True)
    assert settings("toy", "", "fast", "cartpole/mixed-v0").online_steps == 50

    def train(dataset, config, seeds, evaluate, evaluations):
        returns = iter(range(1, 99))
        nothing = {"loss": torch.zeros(len(seeds))}

        def measure():
            return {"return": next(returns) + 10.0 * torch.arange(len(seeds))}

        log = fit(lambda step: nothing, config.online_steps, seeds, measure, evaluations)
        return None, log

    toy.train = train
    with pytest.raises(ValueError, match="make it first"):
        curves("toy", "cartpole/mixed-v0", tmp_path)
    run("toy", "toy", "cartpole/mixed-v0", "book", 2, 1, 4, "cpu", tmp_path)
    curve = curves("toy", "cartpole/mixed-v0", tmp_path)
    assert curve.step.tolist() == [10, 20, 30, 40] * 2
    assert curve["return"].tolist() == [1, 2, 3, 4, 11, 12, 13, 14]
