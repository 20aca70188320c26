"""`python -m offrl_nb`: what it prints, what it writes, one sentence for what it cannot do."""

import pandas as pd
import pytest

from offrl_nb.__main__ import main, methods


def test_train_prints_a_summary_and_writes_the_log(tmp_path, capsys):
    log = tmp_path / "log.csv"
    arguments = [
        "train",
        "bc",
        "--dataset",
        "pendulum/narrow-v0",
        "--seeds",
        "2",
        "--episodes",
        "2",
    ]
    options = ["--updates", "20", "--head", "gaussian", "--first-seed", "5", "--log", str(log)]
    assert main([*arguments, *options]) == 0
    out = capsys.readouterr().out
    assert "pendulum/narrow-v0: 10,000 transitions" in out and "95 % interval" in out
    table = pd.read_csv(log)
    assert table.seed.unique().tolist() == [5, 6] and table.step.max() == 20


def test_discrete_and_percent_and_no_evaluation(capsys):
    dataset = ["--dataset", "cartpole/mixed-v0", "--seeds", "1", "--updates", "5"]
    assert (
        main(["train", "bc", *dataset, "--variant", "percent", "--top", "0.1", "--episodes", "0"])
        == 0
    )
    assert "95 % interval" not in capsys.readouterr().out


def test_help_names_the_settings_of_the_method(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "bc", "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert (
        "how many seeds to train" in out
        and "--learning-rate" in out
        and "--dataset" in out
        and "--top" in out
    )
    assert main([]) == 0 and "bc" in methods()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fly"], "'fly' is not a command"),
        (["train", "nothing"], "'train nothing' is not a command"),
        (["train", "bc", "--dataset", "pendulum/narow"], "is not a Minari id"),
        (["train", "bc", "--dataset", "pendulum/narrow-v0", "--episodes", "-1"], "at least one"),
        (
            ["train", "bc", "--dataset", "pendulum/narrow-v0", "--log", "missing/log.csv"],
            "No such file",
        ),
        (
            ["train", "bc", "--dataset", "pendulum/narrow-v0", "--device", "cuda:99"],
            "There is no device 'cuda:99' here",
        ),
        (["train", "bc", "--dataset", "pendulum/narrow-v0", "--seeds", "0"], "Seeds must be"),
        (
            [
                "train",
                "bc",
                "--dataset",
                "pendulum/narrow-v0",
                "--variant",
                "percent",
                "--top",
                "2",
            ],
            "above 0 and at most 1",
        ),
    ],
)
def test_wrong_input_is_one_sentence(arguments, sentence, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert sentence in error and len(error.strip().splitlines()) == 1
