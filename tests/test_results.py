"""Stored runs: complete files or none, resumed where they stopped, one sentence for what cannot be."""

import contextlib
import dataclasses
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import types

import pandas as pd
import pytest
import torch
from notebooks import ROOT

from offrl_nb import Streams, fit, validate
from offrl_nb.__main__ import methods
from offrl_nb.results import beside, read

sys.path.insert(0, str(ROOT / "scripts"))
from results import Wanted, keys, main, run, settings


def wanted(folder, **changes):
    return Wanted(**{"size": "fast", "seeds": 2, "episodes": 2, "folder": folder} | changes)


def test_a_run_is_stored_whole_and_not_repeated(tmp_path):
    first = run("bc", "bc-percent", "pendulum/narrow-v0", wanted(tmp_path))
    assert first.startswith("bc-percent on pendulum/narrow-v0: -")
    stored = tmp_path / "fast" / "bc-percent" / "pendulum" / "narrow-v0.csv"
    rows = pd.read_csv(stored)
    assert rows.seed.tolist() == [0, 1] and (rows.best >= rows["last"]).all()
    names = ["method", "dataset", "size", "last_score", "seconds", "config", "versions", "hardware"]
    assert set(names) <= set(rows.columns) and not rows.isna().any().any()
    before = stored.stat().st_mtime_ns
    again = run("bc", "bc-percent", "pendulum/narrow-v0", wanted(tmp_path))
    assert again.endswith("stored already") and stored.stat().st_mtime_ns == before
    run("bc", "bc-percent", "pendulum/narrow-v0", wanted(tmp_path, seeds=3))
    assert len(pd.read_csv(stored)) == 3  # other settings replace it
    assert len(read("fast", tmp_path)) == 3 and len(list(stored.parent.iterdir())) == 1
    with pytest.raises(ValueError, match="make them with `make results`"):
        read("book", tmp_path)


@pytest.mark.parametrize("harm", ["row missing", "cut", "empty", "binary", "header", "no config"])
def test_a_damaged_file_is_named_when_read_and_made_again(harm, tmp_path):
    run("bc", "bc", "pendulum/narrow-v0", wanted(tmp_path))
    file = tmp_path / "fast" / "bc" / "pendulum" / "narrow-v0.csv"
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    harmed = {
        "row missing": b"".join(lines[:2]),
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "binary": bytes(range(128, 256)),
        "header": lines[0],
        "no config": whole.replace(b"config", b"nothing"),
    }
    file.write_bytes(harmed[harm])
    if harm in ("empty", "binary", "header", "no config"):
        with pytest.raises(ValueError, match=r"narrow-v0.csv .*make it again"):
            read("fast", tmp_path)
    assert "stored already" not in run("bc", "bc", "pendulum/narrow-v0", wanted(tmp_path))
    assert len(read("fast", tmp_path)) == 2


def test_variants_have_keys_of_their_own():
    assert keys("bc") == {"bc": "plain", "bc-percent": "percent"}


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_killed_at_any_moment_it_loses_the_run_in_flight_only(tmp_path):
    command = [sys.executable, "scripts/results.py", "--size", "fast", "--seeds", "2"]
    command += ["--episodes", "10", "--methods", "bc", "--folder", str(tmp_path), "--datasets"]
    command += [f"pendulum/{k}-v0" for k in ("medium", "mixed", "narrow")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    lines = iter(process.stdout.readline, "")
    assert any("bc on" in line for line in lines)
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stored = list(tmp_path.rglob("*.csv"))
    assert stored
    for path in stored:
        assert pd.read_csv(path).seed.tolist() == [0, 1]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.count("stored already") >= len(stored)
    assert len(list(tmp_path.rglob("*.csv"))) == 3


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_told_before_training(toy, tmp_path):
    tmp_path.chmod(0o500)
    toy.train = lambda *_: pytest.fail("trained for nothing")
    with pytest.raises(OSError, match="cannot be written"):
        run("toy", "toy", "cartpole/mixed-v0", wanted(tmp_path))


def test_a_file_in_the_way_is_told_before_training(toy, tmp_path):
    (tmp_path / "fast").write_text("in the way")
    toy.train = lambda *_: pytest.fail("trained for nothing")
    with pytest.raises(OSError, match=r"cartpole/mixed-v0.csv cannot be written"):
        run("toy", "toy", "cartpole/mixed-v0", wanted(tmp_path))


@pytest.fixture
def toy(monkeypatch):
    """A method for discrete actions that its user stops by hand when `stop` is set."""
    module = types.ModuleType("offrl_nb.methods.toy")

    @dataclasses.dataclass(frozen=True)
    class Config:
        updates: int = 10

        def __post_init__(self):
            validate(self)

    def train(dataset, config, seeds, evaluate, evaluations):
        dataset.require("discrete", "toy")

        def update(step):
            if module.stop and step == 5:
                raise KeyboardInterrupt
            return {"loss": torch.full((len(seeds),), module.loss)}

        streams = Streams(seeds)
        return None, fit(
            update, config.updates, streams, lambda: {"return": torch.ones(len(seeds))}
        )

    module.Config, module.train, module.stop, module.loss = Config, train, False, 1.0
    monkeypatch.setitem(sys.modules, "offrl_nb.methods.toy", module)
    return module


def table(toy, folder, *datasets, code=0):
    """What `make results` prints for the toy on some datasets."""
    import results

    results.methods = lambda: ["toy"]
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            options = ["--size", "fast", "--seeds", "2", "--folder", str(folder)]
            assert main([*options, "--datasets", *datasets]) == code
    finally:
        results.methods = methods
    return "\n".join(x for x in printed.getvalue().splitlines() if x.startswith("toy on"))


def test_a_method_that_cannot_use_the_data_is_left_out_with_a_sentence(toy, tmp_path):
    line = table(toy, tmp_path, "pendulum/narrow-v0")
    assert line == (
        "toy on pendulum/narrow-v0: left out. toy needs discrete actions, pendulum/narrow-v0 has "
        "others; try cartpole/mixed-v0."
    )
    assert not list(tmp_path.rglob("*.csv"))
    run("toy", "toy", "cartpole/mixed-v0", wanted(tmp_path))
    assert len(list(tmp_path.rglob("*.csv"))) == 1


def test_a_run_that_diverged_is_stored_as_that_and_the_table_goes_on(toy, tmp_path):
    toy.loss = float("nan")
    line = table(toy, tmp_path, "cartpole/mixed-v0")
    assert line == "toy on cartpole/mixed-v0: nan in 0 s (diverged in every seed by update 1 of 50)"
    assert read("fast", tmp_path)["last"].isna().all()


def test_a_run_that_fails_does_not_stop_the_table(toy, tmp_path):
    toy.train = lambda *_: 1 / 0
    line = table(toy, tmp_path, "cartpole/mixed-v0", "frozenlake/mixed-v0", code=1)
    assert "toy on cartpole/mixed-v0: FAILED. ZeroDivisionError: division by zero" in line
    assert "toy on frozenlake/mixed-v0: FAILED" in line


def test_a_run_stopped_by_hand_is_not_stored(toy, tmp_path):
    toy.stop = True
    with pytest.raises(KeyboardInterrupt):
        run("toy", "toy", "cartpole/mixed-v0", wanted(tmp_path))
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
    run("cql", "cql", "pendulum/narrow-v0", wanted(tmp_path))
    at_95 = read("fast", tmp_path)
    assert '"discount": 0.95' in at_95.config[0] and '"evaluations": 10' in at_95.config[0]
    # 200 steps of costs of up to 16, discounted: at 0.95 no more than 20 of them count
    assert (at_95.discounted > -16.3 * 20).all() and (at_95["last"] < 2 * at_95.discounted).all()


def test_the_table_beside_cloning_holds_the_interval_of_the_difference(tmp_path, monkeypatch):
    for key, low in (("bc", 100.0), ("bc-percent", 130.0), ("cql", 200.0)):
        path = tmp_path / "book" / key / "a" / "b-v0.csv"
        path.parent.mkdir(parents=True)
        rows = {"method": key, "dataset": "a/b-v0", "seed": range(4), "best": 0.0, "config": "{}"}
        pd.DataFrame(rows | {"last": [low, low + 2, low + 4, low + 6]}).to_csv(path)
    monkeypatch.setattr(read, "__defaults__", ("book", tmp_path))
    table = beside("cql")
    assert table.index.tolist() == ["a/b"]
    assert table.loc["a/b", ["bc", "bc-percent"]].tolist() == ["103", "133"]
    mean, low, _, high = table.loc["a/b", "cql"].replace("(", "").replace(")", "").split()
    assert float(mean) == 203 and 95 < float(low) < 100 < float(high) < 105
    assert beside("cql", "dt").loc["a/b", "dt"] == "–"
    assert len(beside("dt")) == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--methods", "bc", "bcx"], "There is no method bcx; there are "),
        (["--device", "cuda:99"], "cannot go to cuda:99"),
        (["--datasets", "pendulum/narow"], "There is no dataset 'pendulum/narow'"),
    ],
)
def test_wrong_input_is_one_sentence(arguments, sentence, tmp_path, capsys):
    assert main(["--size", "fast", "--folder", str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert sentence in error and len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("option", ["--evaluations", "--episodes", "--seeds"])
def test_lengths_of_nothing_are_refused_before_training(option, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--folder", str(tmp_path), option, "0"])
    assert stop.value.code == 2
    assert f"{option.strip('-')} is 0; give at least 1" in capsys.readouterr().err


def test_a_method_that_goes_online_keeps_its_curve(toy, tmp_path):
    toy.Config = dataclasses.make_dataclass("Config", [("online_steps", int, 40)], frozen=True)
    assert settings("toy", "", "fast", "cartpole/mixed-v0").online_steps == 50

    def train(dataset, config, seeds, evaluate, evaluations):
        returns = iter(range(1, 99))
        nothing = {"loss": torch.zeros(len(seeds))}

        def measure():
            return {"return": next(returns) + 10.0 * torch.arange(len(seeds))}

        return None, fit(lambda _: nothing, config.online_steps, seeds, measure, evaluations)

    toy.train = train
    run("toy", "toy", "cartpole/mixed-v0", wanted(tmp_path, size="book", episodes=1, evaluations=4))
    curves = read("book", tmp_path).curve.map(json.loads)
    assert curves[0] == [[10, 1], [20, 2], [30, 3], [40, 4]]
    assert curves[1] == [[10, 11], [20, 12], [30, 13], [40, 14]]
