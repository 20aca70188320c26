"""`python -m offrl_nb train`: what it prints, what it writes, one sentence for what it cannot do."""

import pandas as pd
import pytest
import torch

from offrl_nb import __main__ as command_line
from offrl_nb import fast
from offrl_nb.__main__ import main, methods

PENDULUM = "--dataset pendulum/narrow-v0 --seeds 2 --episodes 2 --updates 20"


def train(text, *options):
    return main(["train", *text.split(), *map(str, options)])


def test_train_prints_a_table_and_writes_the_log(tmp_path, capsys):
    log = tmp_path / "log.csv"
    options = "--head gaussian --first-seed 5 --evaluations 4"
    assert train(f"bc {PENDULUM} {options}", "--log", log) == 0
    dataset, run, header, row = capsys.readouterr().out.splitlines()
    assert dataset.startswith("pendulum/narrow-v0: 10,000 transitions")
    assert run == "bc, 2 seeds: 20 updates."
    assert all(x in header for x in ("last", "95 % over seeds", "best", "last of each seed"))
    table = pd.read_csv(log)
    assert table.seed.unique().tolist() == [5, 6]
    assert table.dropna().step.unique().tolist() == [5, 10, 15, 20]
    last = table[table.step == 20]["return"].mean()
    assert row.startswith("bc ") and f"{last:.0f}" in row


def test_discrete_and_percent_and_no_evaluation(capsys):
    options = "--variant percent --top 0.1 --episodes 0"
    assert train(f"bc --dataset cartpole/mixed-v0 --seeds 1 --updates 5 {options}") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "bc, 1 seed: 5 updates."


def test_the_discount_reaches_the_evaluator(monkeypatch):
    given, evaluator = {}, command_line.evaluator

    def spy(dataset, episodes, **named):
        given.update(named)
        return evaluator(dataset, episodes, **named)

    monkeypatch.setattr(command_line, "evaluator", spy)
    assert train(f"iql {PENDULUM} --discount 0.5") == 0 and given == {"discount": 0.5}
    assert train(f"bc {PENDULUM}") == 0 and given == {"discount": 0.99}  # bc has none


def test_ctrl_c_keeps_what_there_is_and_says_so(tmp_path, capsys, monkeypatch):
    steps, step, log = [], fast.Adam.step, tmp_path / "log.csv"

    def interrupted(*given):
        steps.append(1)
        if len(steps) == 7:
            raise KeyboardInterrupt
        return step(*given)

    monkeypatch.setattr(fast.Adam, "step", interrupted)
    assert train(f"bc {PENDULUM}", "--log", log) == 130
    told = capsys.readouterr()
    assert told.err == "Stopped by hand.\n"
    assert "bc (stopped by hand in update 7 of 20)" in told.out.splitlines()[-1]
    assert pd.read_csv(log).groupby("step")["return"].count()[7] == 2


def test_a_run_that_diverges_says_so(capsys):
    assert train(f"bc {PENDULUM} --head gaussian --learning-rate 1e300") == 0
    out = capsys.readouterr().out
    assert "diverged in every seed by update" in out and "try a lower learning rate" in out


def test_help_names_the_settings_of_the_method(capsys):
    with pytest.raises(SystemExit) as stop:
        train("bc --help")
    assert stop.value.code == 0
    out = capsys.readouterr().out
    wanted = "how many seeds to train", "--learning-rate", "--dataset", "--top", "plain,percent"
    assert all(x in out for x in wanted)
    assert main([]) == 0 and {"bc", "iql", "rlpd"} <= set(methods()) and "data" not in methods()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("fly", "'fly' is not a command. Usage: python -m offrl_nb train"),
        ("results", "'results' is not a command"),
        ("train nothing", "'train nothing' is not a command"),
        ("train data", "'train data' is not a command"),
        ("train bc --dataset pendulum/narow", "did you mean pendulum/narrow-v0?"),
        ("train fql --dataset cartpole/mixed-v0", "needs continuous actions"),
        (f"train bc {PENDULUM} --episodes -1", "at least one"),
        (f"train bc {PENDULUM} --evaluations 0", "give at least 1"),
        (f"train mopo {PENDULUM} --evaluations 0", "give at least 1"),
        (f"train bc {PENDULUM} --evaluations -3", "give at least 1"),
        (f"train bc {PENDULUM} --log missing/log.csv", "No such file or directory: 'missing"),
        (f"train bc {PENDULUM} --log .", "Is a directory: '.'"),
        (f"train bc {PENDULUM} --device cuda:99", "cannot go to cuda:99"),
        (f"train bc {PENDULUM} --device meta", "cannot go to meta"),
        (f"train bc {PENDULUM} --seeds 0", "Seeds must be"),
        (f"train bc {PENDULUM} --first-seed -7", "Seeds must be"),
        (f"train bc {PENDULUM} --first-seed 99999999999999999999999", "Seeds must be"),
        (f"train bc {PENDULUM} --variant percent --top 2", "top is 2.0; it must be"),
        (f"train bc {PENDULUM} --updates 0", "updates is 0; it must be"),
        (f"train bc {PENDULUM} --batch-size 0", "batch_size is 0; it must be"),
        (f"train bc {PENDULUM} --hidden 0", "hidden is (0,); it must be"),
        (f"train bc {PENDULUM} --learning-rate nan", "learning_rate is nan; it must be"),
        (f"train iql {PENDULUM} --discount 1.5", "discount is 1.5; it must be"),
        (f"train mopo {PENDULUM} --real-share 2", "real_share is 2.0; it must be"),
        (f"train morel {PENDULUM} --discount 1.0", "discount is 1.0; it must be"),
        (f"train dt {PENDULUM} --heads 3", "heads is 3; it must divide width"),
    ],
)
def test_wrong_input_is_one_sentence(arguments, sentence, capsys, monkeypatch):
    monkeypatch.setattr(torch.optim.Adam, "step", lambda *_: pytest.fail("too late"))
    assert main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert sentence in error and len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("options", ["--variant precent", "--head normal", "--unknown 3"])
def test_a_misspelt_choice_or_option_is_named(options, capsys):
    with pytest.raises(SystemExit) as stop:
        train(f"bc {PENDULUM} {options}")
    error = capsys.readouterr().err
    assert stop.value.code == 2 and options.split()[-1] in error and "--help" in error


def test_what_is_refused_leaves_no_log_behind(tmp_path):
    assert train("bc --dataset pendulum/narow", "--log", tmp_path / "log.csv") == 2
    assert not list(tmp_path.glob("*.csv"))
