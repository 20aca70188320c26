"""What users bring and what they break: it works, or one sentence says what to do, before time is spent.

Cases come from public bug reports and from trying; each is named by what was brought. More of them are in
test_data, test_audit, test_loop, test_evaluate, test_results, test_contract and test_command_line.
"""

import dataclasses
import importlib
import json
import os
import shutil
import sys
from pathlib import Path

import gymnasium as gym
import minari
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import arrays
from gymnasium.spaces import Box, Dict, Discrete, Tuple
from minari.data_collector import EpisodeBuffer
from notebooks import ROOT

from offrl_nb import Streams, evaluator, from_arrays, load
from offrl_nb.__main__ import main
from offrl_nb.data import SHIPPED

sys.path.insert(0, str(ROOT / "scripts"))
import results

PENDULUM = "pendulum/narrow-v0"


def cases(table):
    """A parameter for each entry of {what a user brings: ...}."""
    return pytest.mark.parametrize("case", [pytest.param(v, id=k) for k, v in table.items()])


def refused(words, act, *given, **named):
    """It raises one sentence, one line, with these words."""
    with pytest.raises(ValueError, match=words) as error:
        act(*given, **named)
    assert "\n" not in str(error.value) and len(str(error.value)) < 700


def method(slug):
    return importlib.import_module(f"offrl_nb.methods.{slug}")


# Logs in arrays


FLAGS = arrays()["terminated"]
CLOCK = np.c_[arrays()["obs"], 1.7e9 + np.arange(60)]
HEATER = 12 * arrays()["action"] + 30


@cases(
    {
        "flags -1 and +1": ({"terminated": np.where(FLAGS, 1, -1)}, "terminated.* pass booleans"),
        "flags NaN for no": ({"terminated": np.where(FLAGS, 1, np.nan)}, "terminated is NaN"),
        "several discrete actions, no space": (
            {"action": np.ones((60, 3), int)},
            "whole numbers in two axes. Give discrete actions one axis",
        ),
        "discrete actions in a column": ({"action": np.ones((60, 1), int)}, "one axis"),
        "space without bounds": (
            {"action": HEATER, "action_space": Box(-np.inf, np.inf, (2,))},
            r"no bounds .* pass action_space=Box\(low, high\).* the log\W.*\[18.0",
        ),
        "space with one bound": (
            {"action": HEATER, "action_space": Box(0, np.inf, (2,))},
            r"pass action_space=Box\(low, high\)",
        ),
        "space of the float32 limits": (
            {"action": HEATER, "action_space": Box(np.float32(-3.4e38), np.float32(3.4e38), (2,))},
            r"pass action_space=Box\(low, high\)",
        ),
        "observations of 1e38": ({"obs": np.full((60, 3), 1e38)}, r"obs reaches 1e\+38; rescale"),
        "rewards of 1e19": ({"reward": np.full(60, 1e19)}, r"reward reaches 1e\+19; rescale it"),
        "rewards of 1e30": ({"reward": np.full(60, -1e30)}, r"reward reaches 1e\+30; rescale it"),
        "unix seconds": ({"obs": CLOCK, "next_obs": CLOCK}, "Unix times.* subtract"),
        "no episodes": ({"episode": None}, r"Where every row stands alone, it is np.arange\(N\)"),
        "state numbers in a column": (
            {"obs": np.ones((60, 1), int), "next_obs": np.ones((60, 1), int)},
            r"pass observation_space=Discrete\(n\)",
        ),
    }
)
def test_a_log_that_is_refused(case):
    changes, words = case
    refused(words, from_arrays, **(arrays() | changes))


def test_a_log_whose_episodes_are_left_out():
    columns = arrays()
    del columns["episode"]
    refused("np.arange", from_arrays, **columns)


@cases(
    {
        "tensors that require a gradient": {
            "obs": torch.tensor(arrays()["obs"], requires_grad=True)
        },
        "seconds since the first": {"obs": CLOCK - CLOCK.min(0), "next_obs": CLOCK - CLOCK.min(0)},
        "state numbers with their space": {
            "obs": np.arange(60) % 7,
            "next_obs": np.arange(60) % 7,
            "observation_space": Discrete(7),
        },
        "a heater's limits": {"action": HEATER, "action_space": Box(0, 50, (2,))},
    }
)
def test_a_log_that_is_taken(case):
    assert len(from_arrays(**(arrays() | case))) == 60


# Logs in Minari


def minari_log(action, action_space, observation=None, observation_space=None, steps=3):
    """Load three episodes that some other program stored, without an environment."""
    rows = np.zeros((steps + 1, 2)) if observation is None else observation
    episode = EpisodeBuffer(
        observations=rows,
        actions=action,
        rewards=[1.0] * steps,
        terminations=[False] * (steps - 1) + [True],
        truncations=[False] * steps,
    )
    observation_space = observation_space or Box(-1, 1, (2,), np.float64)
    minari.create_dataset_from_buffers(
        "mine/log-v0", [episode] * 3, action_space=action_space, observation_space=observation_space
    )
    return load("mine/log-v0")


ONE, UNIT = np.zeros((3, 1)), Box(-1.0, 1.0, (1,))
FRAMES = np.zeros((4, 2, 6, 6), np.uint8)


@pytest.mark.filterwarnings("ignore::UserWarning")
@cases(
    {
        "images": (
            (ONE, UNIT, FRAMES, Box(0, 255, FRAMES.shape[1:], np.uint8)),
            "no vectors of numbers; encode them",
        ),
        "stacked frames": (
            (ONE, UNIT, FRAMES[..., 0], Box(0, 255, (2, 6), np.uint8)),
            "no vectors of numbers; encode them",
        ),
        "dictionary of actions": (
            ({"a": ONE, "b": ONE}, Dict(a=UNIT, b=UNIT)),
            "use a Box or a Discrete",
        ),
        "as many keys as steps": (
            ({"a": ONE, "b": ONE, "c": ONE}, Dict(a=UNIT, b=UNIT, c=UNIT)),
            "use a Box or a Discrete",
        ),
        "tuple of actions": (((ONE, ONE), Tuple([UNIT, UNIT])), "use a Box or a Discrete"),
    }
)
def test_a_stored_log_that_is_refused(case):
    given, words = case
    refused(words, minari_log, *given)


def test_metadata_that_hides_episodes():
    folder = Path(os.environ["MINARI_DATASETS_PATH"]) / "mine/log-v0"
    shutil.copytree(SHIPPED / PENDULUM, folder)
    file = folder / "data" / "metadata.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"total_episodes": 5}))
    refused("cannot be read .*restore it, or update Minari", load, "mine/log-v0")


@pytest.mark.parametrize("remote", ["nonsense", "nowhere://bucket", ""])
def test_a_remote_that_is_none(remote, monkeypatch):
    monkeypatch.setenv("MINARI_REMOTE", remote)
    refused("MINARI_REMOTE", load, "D4RL/pen/human-v2")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta"])
def test_a_device_that_is_not_here(device):
    refused(f"cannot go to {device}", load, PENDULUM, device)


# Environments to evaluate in


gym.register("Lost-v0", entry_point="nomodule:Plant", max_episode_steps=5)


def pendulum(**changes):
    """A log with the pendulum's three numbers and one torque."""
    columns = arrays() | {"action": arrays()["action"][:, :1]}
    return from_arrays(**(columns | changes))


@cases(
    {
        "torques without their space": (
            lambda: pendulum(env="Pendulum-v1"),
            "takes actions in Box.* the log has them in Box.*pass the right action_space",
        ),
        "another width": (
            lambda: pendulum(env="MountainCarContinuous-v0"),
            "shows 2 numbers.* your log has 3; evaluate ",
        ),
        "another kind of action": (
            lambda: pendulum(env="CartPole-v1"),
            r"takes actions in Discrete\(2\)",
        ),
        "numbered states as a quantity": (
            lambda: from_arrays(
                **(arrays(discrete=True) | {"obs": np.ones((60, 1)), "next_obs": np.ones((60, 1))}),
                action_space=Discrete(4),
                env="FrozenLake8x8-v1",
            ),
            "shows 64 numbers.* observation_space",
        ),
        "package that is missing": (
            lambda: pendulum(env="Lost-v0"),
            "cannot be made .*install or import its package",
        ),
        "id that nobody registered": (
            lambda: pendulum(env="Nowhere-v0"),
            "Nowhere-v0 cannot be made .*install or import its package",
        ),
        "module that is missing": (
            lambda: pendulum(env="nomodule:Plant-v0"),
            "nomodule:Plant-v0 cannot be made .*install or import its package",
        ),
        "none": (pendulum, "evaluate=None.* --episodes 0 on the command line"),
    }
)
def test_an_environment_that_does_not_fit_is_told_before_training(case):
    log, words = case
    refused(words, lambda: evaluator(log(), 1))


TORQUES = Box(-2.0, 2.0, (1,))


@cases(
    {
        "an instance": lambda: pendulum(action_space=TORQUES, env=gym.make("Pendulum-v1")),
        "an instance, given later": lambda: dataclasses.replace(
            pendulum(action_space=TORQUES), env=gym.make("Pendulum-v1")
        ),
        "an id, given later": lambda: dataclasses.replace(
            pendulum(action_space=TORQUES), env="Pendulum-v1"
        ),
        "a module and an id": lambda: pendulum(
            action_space=TORQUES, env="gymnasium.envs.classic_control:Pendulum-v1"
        ),
        "numbered states with their space": lambda: from_arrays(
            **(arrays(discrete=True) | {"obs": np.arange(60), "next_obs": np.arange(60)}),
            action_space=Discrete(4),
            observation_space=Discrete(64),
            env="FrozenLake8x8-v1",
        ),
    }
)
def test_an_environment_that_fits(case):
    log = case()
    action = torch.zeros(1, 1, 1) if log.n_actions is None else torch.zeros(1, 1, dtype=int)
    assert np.isfinite(evaluator(log, 1)(lambda obs: action, 1)["return"]).all()


# Training, and after it


def test_a_model_of_one_episode():
    one, morel = load(PENDULUM).select([0]), method("morel")
    refused("two episodes", morel.train, one, morel.Config(updates=5), [0])


def test_seeds_that_are_none():
    refused("Seeds must be one or more", Streams, None)


SETTINGS = [
    ("bc", {"batch_size": 0}),
    ("bc", {"batch_size": -3}),
    ("bc", {"updates": 0}),
    ("bc", {"updates": -5}),
    ("bc", {"hidden": (0,)}),
    ("bc", {"hidden": (-4,)}),
    ("td3bc", {"hidden": (), "variant": "rebrac"}),
    ("mopo", {"length": 0}),
    ("mopo", {"real_share": 2}),
    ("dt", {"context": 0}),
    ("dt", {"heads": 3}),
    ("dt", {"expectile": 1.5, "variant": "qdt"}),
    ("dt", {"prompt": np.nan}),
    ("idql", {"samples": 0}),
    ("finetune", {"log_share": 2}),
    ("finetune", {"online_steps": 0}),
    ("rlpd", {"offline_share": 1.5}),
    ("rlpd", {"online_steps": 0}),
    ("iql", {"discount": 1.5}),
    ("iql", {"discount": -1}),
    ("iql", {"target_rate": 5}),
    ("iql", {"inv_temp": np.nan}),
    ("fql", {"flow_steps": 0}),
    ("morel", {"discount": 1.0}),
    ("awac", {"temperature": 0}),
    ("td3bc", {"q_weight": np.nan}),
]


@pytest.mark.parametrize(("slug", "changes"), SETTINGS, ids=str)
def test_a_setting_that_is_refused(slug, changes):
    refused(f"{next(iter(changes))} is ", method(slug).Config, **changes)


# Runs to store


def store(folder, *options):
    arguments = ["--size", "fast", "--seeds", "1", "--episodes", "1", "--methods", "bc"]
    return results.main([*arguments, "--folder", str(folder), *options])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_log_without_an_environment(tmp_path, capsys):
    minari_log(ONE, UNIT)
    folder = tmp_path / "results"
    assert store(folder, "--datasets", "mine/log-v0", "windy/mixed-v0") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("mine/log-v0: left out" in x and "no environment" in x for x in lines)
    assert [x.name for x in folder.rglob("*") if x.is_file()] == ["mixed-v0.csv"]
    command = ["train", "bc", "--dataset", "mine/log-v0", "--seeds", "1", "--updates", "2"]
    assert main(command) == 2
    assert "--episodes 0 on the command line" in capsys.readouterr().err
    assert main([*command, "--episodes", "0"]) == 0


def test_a_disk_that_is_full(tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    assert store(tmp_path, "--datasets", PENDULUM) == 1
    assert "narrow-v0.csv cannot be written ([Errno 28] No space" in capsys.readouterr().out
    assert not [x for x in tmp_path.rglob("*") if x.is_file()]


def test_two_processes_on_one_folder(tmp_path, monkeypatch):
    """Another process makes the same run, and is done first."""
    train, found = results.trained, []

    def overtaken(*given):
        found.extend(x for x in tmp_path.rglob("*") if x.is_file())
        with monkeypatch.context() as other:
            other.setattr(results, "trained", train)
            other.setattr(os, "getpid", lambda: 1)
            results.run("bc", "bc", PENDULUM, given[-1])
        return train(*given)

    monkeypatch.setattr(results, "trained", overtaken)
    assert store(tmp_path, "--datasets", PENDULUM) == 0
    assert len(found) == 1 and len([x for x in tmp_path.rglob("*") if x.is_file()]) == 1
