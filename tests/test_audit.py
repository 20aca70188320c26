"""The audit of chapter data: it finds planted faults, leaves clean logs alone, says what is wrong with unusable input."""

import functools
import re
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import arrays
from test_data import CARDS

from offrl_nb import from_arrays, load
from offrl_nb.methods.data import CHECKS, as_rows, audit, check_reward, table_to_columns

COLUMNS = ("obs", "action", "reward", "next_obs", "terminated", "truncated", "episode")
load = functools.cache(load)
PENDULUM, CARTPOLE, FOG = "pendulum/mixed-v0", "cartpole/mixed-v0", "fog/two-route-v0"


@functools.cache
def clean(dataset_id):
    return audit(load(dataset_id))


def columns(dataset_id) -> dict:
    return {name: getattr(load(dataset_id), name).numpy().copy() for name in COLUMNS}


def planted(dataset_id, **changed):
    """Audit of a shipped dataset with some columns changed, all of them as long as the changed ones."""
    changed = {name: torch.as_tensor(np.asarray(value)) for name, value in changed.items()}
    return audit(replace(load(dataset_id), **changed))


def verdict(found, check) -> str:
    return found.findings[check][0]


def finding(found, check) -> str:
    return found.findings[check][1]


def cut(log, keep) -> dict:
    """The given rows of a log (a mask or row numbers), flags and all."""
    return {name: column[keep] for name, column in log.items()}


# What ships


@pytest.mark.parametrize("dataset_id", CARDS)
def test_what_ships_has_no_fault(dataset_id):
    found = clean(dataset_id)
    assert found.faults == []
    assert len(found.findings) == len(CHECKS) == 11
    for said, text in found.findings.values():
        assert said in ("ok", "look", "–")
        assert "\n" not in text and len(text) < 220 and text.endswith((".", "?")), text
    assert all(np.isfinite(value) for value in found.numbers.values())


def test_the_same_log_gets_the_same_findings():
    again = audit(load(PENDULUM))
    assert again.numbers == clean(PENDULUM).numbers
    assert again.findings == clean(PENDULUM).findings


def test_what_a_log_is_known_for():
    assert verdict(clean("pendulum/narrow-v0"), "narrowness") == "look"
    spread = [
        clean(f"pendulum/{k}-v0").numbers["narrowness"] for k in ("narrow", "mixed", "random")
    ]
    assert spread == sorted(spread) and spread[0] < 0.1 and 0.9 < spread[2] < 1.05
    assert verdict(clean(FOG), "modes") == "look" and verdict(clean(PENDULUM), "modes") == "ok"
    assert abs(clean(FOG).numbers["modes"] - 1 / 3) < 0.06  # two routes at every third step
    assert verdict(clean("frozenlake/mixed-v0"), "balance") == "look"
    assert verdict(clean("maze/stitch-v0"), "endings") == "look"  # recordings stopped on purpose
    for check in ("teleports", "duplicates", "reward", "modes"):
        assert verdict(clean("frozenlake/mixed-v0"), check) == "–"


# Flags and endings


@pytest.mark.parametrize("dataset_id", [PENDULUM, CARTPOLE, "windy/mixed-v0"])
def test_swapped_flags(dataset_id):
    log = load(dataset_id)
    found = planted(dataset_id, terminated=log.truncated, truncated=log.terminated)
    assert found.faults == ["endings"]
    assert verdict(clean(dataset_id), "endings") == "ok"


def test_swapped_flags_without_a_known_limit():
    log = columns(CARTPOLE)
    log |= {"terminated": log["truncated"], "truncated": log["terminated"]}
    assert "Swapped" in finding(audit(log), "endings") and audit(log).faults == ["endings"]
    log = columns(PENDULUM)
    log |= {"terminated": log["truncated"], "truncated": log["terminated"]}
    assert verdict(audit(log), "endings") == "look"  # a game of 200 moves looks the same
    assert verdict(audit(log, time_limit=200), "endings") == "fault"


def test_time_outs_logged_as_terminations():
    log = load(CARTPOLE)
    ends = log.terminated | log.truncated
    found = planted(CARTPOLE, terminated=ends, truncated=0 * log.truncated)
    assert found.faults == ["endings"]
    assert finding(found, "endings").startswith("18 of 240 terminations")


def test_recordings_cut_on_purpose_are_no_fault():
    log, length = columns(PENDULUM), np.random.default_rng(0).integers(50, 200, 80)
    kept = np.tile(np.arange(200), 80) < length[log["episode"]]
    last = np.tile(np.arange(200), 80) == length[log["episode"]] - 1
    found = audit(cut(log | {"truncated": last}, kept), time_limit=200)
    assert found.faults == [] and verdict(found, "endings") == "look"


def test_an_episode_beyond_the_limit():
    assert "200 steps exceed the limit of 150" in finding(audit(columns(PENDULUM), 150), "endings")


def test_flags_inside_missing_and_copied():
    log = load(CARTPOLE)
    inside = log.truncated.clone()
    inside[3] = True
    found = planted(CARTPOLE, truncated=inside)
    assert found.faults == ["flags"] and "first: row 3" in finding(found, "flags")
    lost = log.terminated & (log.episode % 3 > 0)
    assert planted(CARTPOLE, terminated=lost).faults == ["flags"]
    last = log.truncated & (torch.arange(len(log)) < len(log) - 1)
    assert verdict(planted(CARTPOLE, truncated=last), "flags") == "look"  # one may be cut
    done = log.terminated | log.truncated
    assert "copied" in finding(planted(CARTPOLE, terminated=done, truncated=done), "flags")


# The order of rows


def merged(dataset_id, every=2):
    """Labels that join episodes, flags lost at the joints, and where the joints are."""
    log = columns(dataset_id)
    label = log["episode"] // every
    ends = np.append(label[1:] != label[:-1], True)
    flags = {name: log[name] & ends for name in ("terminated", "truncated")}
    joints = np.append(log["episode"][1:] != log["episode"][:-1], False) & ~ends
    return log, flags | {"episode": label}, joints


JOINED = [PENDULUM, CARTPOLE, "maze/stitch-v0", "hopper/medium-v0"]


@pytest.mark.parametrize("dataset_id", JOINED)
def test_joined_episodes_with_their_own_next_obs(dataset_id):
    _, joined, joints = merged(dataset_id)
    found = planted(dataset_id, **joined)
    assert found.faults == ["chain"]
    assert f"in {joints.sum()} of" in finding(found, "chain")
    assert f"first: row {joints.argmax()}" in finding(found, "chain")


@pytest.mark.parametrize("dataset_id", JOINED)
def test_joined_episodes_with_next_obs_from_the_row_below(dataset_id):
    log, joined, joints = merged(dataset_id)
    log["next_obs"][joints] = np.roll(log["obs"], -1, axis=0)[joints]
    found = planted(dataset_id, **joined, next_obs=log["next_obs"])
    assert found.faults == ["teleports"]
    jumps = int(re.match(r"[\d,]+", finding(found, "teleports"))[0].replace(",", ""))
    assert 0.4 * joints.sum() < jumps <= joints.sum()


def test_jumps_of_heavy_tailed_dynamics_are_no_fault():
    path = np.random.default_rng(0).standard_t(2, (20, 501, 4)).cumsum(1)
    log = arrays(10_000, 20)
    log |= {"obs": path[:, :-1].reshape(-1, 4), "next_obs": path[:, 1:].reshape(-1, 4)}
    assert verdict(audit(log), "teleports") == "look"


def test_missing_shuffled_and_scattered_rows():
    log = columns(PENDULUM)
    assert "in 1 of" in finding(audit(cut(log, np.arange(16_000) != 77)), "chain")
    order = np.random.default_rng(0).permutation(16_000)
    order = order[np.argsort(log["episode"][order], kind="stable")]
    assert "in 15," in finding(audit(cut(log, order)), "chain")
    scattered = audit(cut(log, np.argsort(np.arange(16_000) % 200, kind="stable")))
    assert scattered.faults == ["columns"]
    assert "sort by episode" in finding(scattered, "columns")
    rounded = log | {"next_obs": log["next_obs"].round(5)}
    assert verdict(audit(rounded), "chain") == "ok"


def test_repeated_rows_and_episodes():
    log = columns(PENDULUM)
    twice = np.sort(np.append(np.arange(16_000), np.arange(0, 16_000, 40)))
    found = audit(cut(log, twice))
    assert "duplicates" in found.faults and "400 rows" in finding(found, "duplicates")
    again = cut(log, log["episode"] < 3)
    again["episode"] = again["episode"] + 80
    found = audit({name: np.concatenate([log[name], again[name]]) for name in COLUMNS})
    assert found.faults == ["duplicates"] and "3 whole episodes" in finding(found, "duplicates")
    trace = audit(cut(log, np.append(np.arange(16_000), 15_999)))
    assert verdict(trace, "duplicates") == "look"
    assert verdict(clean(PENDULUM), "duplicates") == "ok"


# Rewards


def within_episodes(log, shift):
    """Shifted rewards; where nothing comes from the same episode, 0."""
    same = torch.roll(log.episode, shift) == log.episode
    same[0 if shift > 0 else -1] = False
    return torch.roll(log.reward, shift) * same


@pytest.mark.parametrize("dataset_id", [FOG, "hopper/medium-v0", "halfcheetah/medium-v0"])
@pytest.mark.parametrize(("shift", "word"), [(1, "late"), (-1, "early")])
def test_rewards_in_the_wrong_row(dataset_id, shift, word):
    log = load(dataset_id)
    for reward in (torch.roll(log.reward, shift), within_episodes(log, shift)):
        found = planted(dataset_id, reward=reward)
        assert found.faults == ["reward"] and f"one row too {word}" in finding(found, "reward")
    assert verdict(clean(dataset_id), "reward") == "ok"


def test_a_shift_that_cannot_be_seen_is_not_denied():
    """A pendulum's state tells the rewards before and after nearly as well as its own."""
    assert finding(clean(PENDULUM), "reward").endswith("a shift would not show.")
    late = planted(PENDULUM, reward=torch.roll(load(PENDULUM).reward, 1))
    assert verdict(late, "reward") == "look"
    noise = np.random.default_rng(0).standard_normal(16_000)
    assert verdict(planted(PENDULUM, reward=noise), "reward") == "–"
    assert finding(clean(CARTPOLE), "reward").startswith("Too few different rewards")


def walk(episodes, seed, reward="reached", actions="continuous"):
    """A noisy walk towards 0, in which every reward stands in its own row."""
    generator, rows = np.random.default_rng(seed), []
    for episode in range(episodes):
        x = generator.normal(size=3)
        for t in range(25):
            a = np.clip(-0.3 * x[:2] + 0.3 * generator.normal(size=2), -1, 1)
            k = int(generator.integers(3)) if actions == "discrete" else 0
            push = np.eye(3)[k] * 0.2 - 0.1 if actions == "discrete" else np.append(0.3 * a, 0)
            y = 0.95 * x + push + 0.02 * generator.normal(size=3)
            end = bool(abs(y).max() < 0.25)
            pays = {"reached": -(y**2).sum(), "left": -(x**2).sum(), "both": x @ x - y @ y}
            action = {"continuous": a, "discrete": k, "unrelated": len(rows) % 2}[actions]
            rows.append((x, action, pays[reward], y, end, t == 24 and not end, episode))
            x = y
            if end:
                break
    return {name: np.array(c) for name, c in zip(COLUMNS, zip(*rows, strict=True), strict=True)}


@pytest.mark.parametrize("actions", ["continuous", "discrete", "unrelated"])
@pytest.mark.parametrize("episodes", [20, 100])
def test_rewards_in_the_right_row_are_never_moved(episodes, actions):
    """A cost on the state reached is explained by both rows; which one leaves less is chance."""
    for seed in range(4):
        for reward in ("reached", "left", "both")[: 1 if seed else 3]:
            log = walk(episodes, seed, reward, actions)
            assert check_reward(as_rows(log, None))[0] in ("ok", "–"), (seed, reward)


# Numbers and actions


@pytest.mark.parametrize("name", ["obs", "action", "reward", "next_obs", "truncated"])
def test_nan_is_named_with_its_row(name):
    log = columns(PENDULUM)
    log[name] = log[name].astype(float)
    log[name][[4_017, 4_019]] = np.nan
    for given in (log, pd.DataFrame({k: list(v) for k, v in log.items()})):
        found = audit(given)
        assert found.faults == ["columns"] and list(found.findings) == ["columns"]
        assert name in finding(found, "columns") and "row 4017" in finding(found, "columns")
    if name != "truncated":
        value = load(PENDULUM).reward * torch.nan
        assert planted(PENDULUM, reward=value).faults == ["columns"]


@pytest.mark.parametrize("flags", [(-1, 1), (0, 2), (0.0, 0.4), (np.nan, 1.0)])
def test_flags_other_than_0_and_1(flags):
    log = columns(PENDULUM)
    found = audit(log | {"truncated": np.where(log["truncated"], flags[1], flags[0])})
    assert found.faults == ["columns"] and "truncated" in finding(found, "columns")


def test_a_cast_to_16_bits():
    log = columns(PENDULUM)
    log = log | {name: 1e4 * log[name] for name in ("obs", "next_obs")}  # speeds up to 80,000
    assert audit(log).faults == []
    with np.errstate(over="ignore"):
        short = {name: log[name].astype(np.float16) for name in ("obs", "next_obs")}
    found = audit(log | short)
    assert found.faults == ["columns"] and "65,504" in finding(found, "columns")


def test_lost_precision():
    log = columns(PENDULUM)
    found = audit(log | {"reward": log["reward"].astype(np.float16).astype(np.float32)})
    assert verdict(found, "columns") == "look" and "reward" in finding(found, "columns")
    assert verdict(clean(PENDULUM), "columns") == "ok"
    quarters = log | {"reward": (4 * log["reward"]).round() / 4}  # exact in 16 bits by nature
    assert verdict(audit(quarters), "columns") == "ok"


def test_unix_times_need_more_than_32_bits():
    log = arrays(400, 4)
    time = 1.7e9 + np.arange(400.0)
    log |= {"obs": np.c_[log["obs"], time], "next_obs": np.c_[log["next_obs"], time + 1]}
    found = audit(log)
    assert found.faults == ["columns"] and "32 bits" in finding(found, "columns")
    log["obs"][:, 3] -= 1.7e9
    log["next_obs"][:, 3] -= 1.7e9
    assert "columns" not in audit(log).faults


@pytest.mark.parametrize("high", [np.inf, 3.4e38])
def test_an_action_space_without_bounds(high):
    low = 0 if np.isinf(high) else -high
    space = gym.spaces.Box(np.float32(low), np.float32(high), (2,))
    log = arrays() | {"action_space": space}
    found = audit(log | {"action": abs(log["action"])})
    assert found.faults == ["columns"] and "bounds" in finding(found, "columns")
    dataset = replace(from_arrays(**arrays()), action_space=space)
    assert "columns" in audit(dataset).faults


def test_actions_in_the_units_of_their_space():
    log = load(PENDULUM)
    torque = log.arrays()  # -2 to 2
    assert audit(torque, time_limit=200).findings == clean(PENDULUM).findings
    torque["action"] = torque["action"].clip(-1, 1)
    assert audit(torque, time_limit=200).faults == ["actions"]
    del torque["action_space"]
    assert (
        "actions" not in audit(torque, time_limit=200).faults
    )  # fits [-1, 1]: taken as its bounds


def test_clipped_actions():
    action = load(PENDULUM).action
    found = planted(PENDULUM, action=action.clamp(-0.5, 0.5))
    assert found.faults == ["actions"] and "-0.5 or 0.5" in finding(found, "actions")
    assert verdict(clean(PENDULUM), "actions") == "look"  # at -1 and 1: the limits of the motor
    assert verdict(clean("pendulum/covered-v0"), "actions") == "ok"
    hopper = load("hopper/medium-replay-v0").action.clone()
    hopper[:, 0] = hopper[:, 0].clamp(-0.9, 0.9)  # a lesser share than dimension 2 has at -1 and 1
    assert "dimension 0" in finding(planted("hopper/medium-replay-v0", action=hopper), "actions")
    brake = planted(PENDULUM, action=action.clamp(0))
    assert verdict(brake, "actions") == "look"  # an idle brake is no fault
    assert "never changes" in finding(planted(PENDULUM, action=0 * action), "actions")


def test_actions_that_never_or_hardly_occur():
    log = columns(CARTPOLE)
    unused = audit(log | {"action_space": gym.spaces.Discrete(3)})
    assert verdict(unused, "actions") == "look"
    assert "1 of 3 actions never occur" in finding(unused, "actions")
    rare = np.where(np.arange(len(log["action"])) % 500 == 0, 2, log["action"])
    found = audit(log | {"action": rare})
    assert verdict(found, "actions") == "ok" and verdict(found, "balance") == "look"
    assert found.numbers["rarest_action"] == pytest.approx(1 / 500, rel=0.02)


def test_item_ids_need_no_room():
    log = arrays(5_000, 50)
    item = np.random.default_rng(0).zipf(1.3, 5_000) % 65_623
    found = audit(log | {"action": item, "action_space": gym.spaces.Discrete(65_624)})
    assert found.faults == [] and "of 65,624 actions never occur" in finding(found, "actions")
    assert 0 < found.numbers["narrowness"] < 1


def test_numbered_states():
    log = columns("windy/mixed-v0")
    number = {name: log[name].argmax(-1) for name in ("obs", "next_obs")}
    known = number | {"observation_space": gym.spaces.Discrete(log["obs"].shape[1])}
    assert audit(log | known).findings == audit(log).findings
    column = {name: values[:, None].astype(float) for name, values in number.items()}
    found = audit(log | column)
    assert verdict(found, "columns") == "look" and "one-hot" in finding(found, "columns")
    assert {k: v for k, v in found.findings.items() if k != "columns"} == {
        k: v for k, v in audit(log).findings.items() if k != "columns"
    }


# What it takes, and what it refuses


@pytest.mark.parametrize("dataset_id", [PENDULUM, CARTPOLE, "windy/mixed-v0"])
def test_a_mapping_or_a_frame_is_judged_like_the_dataset(dataset_id):
    log, wanted = columns(dataset_id), clean(dataset_id)
    limit = load(dataset_id).env.max_episode_steps
    frame = {name: list(column) if column.ndim > 1 else column for name, column in log.items()}
    frame["episode"] = [f"day {label}" for label in log["episode"]]
    frame |= {"id": 7, "env": "mine", "n_actions": 9}  # columns of no concern
    for given in (log, pd.DataFrame(frame, index=np.arange(len(log["reward"])) + 7)):
        found = audit(given, time_limit=limit)
        assert found.numbers == pytest.approx(wanted.numbers)
        assert found.findings == wanted.findings


def test_short_logs_and_plain_lists():
    for rows in (1, 2, 7, 60):
        for discrete in (False, True):
            log = cut(arrays(discrete=discrete), np.arange(60) < rows)
            assert audit({name: column.tolist() for name, column in log.items()}).faults == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reward": None}, "no column reward"),
        ({"action": np.zeros((59, 2))}, "^action has shape .59, 2"),
        ({name: column[:0] for name, column in arrays().items()}, "^obs has shape .0"),
        ({"reward": ["high"] * 60}, "^reward .*numbers"),
        ({"reward": np.zeros((60, 2))}, "^reward has shape"),
        ({"obs": [[0.0]] * 59 + [[0.0, 1.0]]}, "."),
        ({"obs": np.zeros((60, 4))}, "next_obs"),
        ({"reward": np.full(60, np.nan)}, "^reward is NaN or infinite in 60 rows"),
        ({"action": np.full((60, 2), 7.0)}, "60 actions"),
    ],
)
def test_unusable_input_is_named_on_one_line(change, words):
    log = {name: column for name, column in (arrays() | change).items() if column is not None}
    found = audit(log)
    assert found.faults == ["columns"] and re.search(words, finding(found, "columns"))
    assert "\n" not in finding(found, "columns") and len(finding(found, "columns")) < 400


def test_something_else_is_refused():
    assert "no column obs; it needs obs, action, reward" in finding(audit(PENDULUM), "columns")


def test_the_text_fits_a_narrow_page():
    text = repr(planted(PENDULUM, action=load(PENDULUM).action.clamp(-0.5, 0.5)))
    assert text.startswith("pendulum/mixed-v0: 1 fault\n")
    assert max(map(len, text.splitlines())) <= 95
    for check in clean(PENDULUM).findings:
        assert re.search(rf"^(ok|look|fault|–) +{check} +\S", text, re.M)
    assert repr(clean(PENDULUM)).startswith("pendulum/mixed-v0: no faults\n")


# From lines to columns


def lines(**changed):
    """Two sessions of three lines: the first ends the task, the second loses its connection."""
    return {
        "session": ["a"] * 3 + ["b"] * 3,
        "time": np.array([0, 1, 2, 0, 1, 2]),
        "obs": np.arange(6.0)[:, None],
        "action": np.array([0, 1, -1, 0, 1, 1]),
        "reward": np.ones(6),
        "ended": np.array([0, 0, 1, 0, 0, 0], bool),
        "max_step": 1,
    } | changed


def test_lines_become_transitions():
    columns = table_to_columns(**lines())
    assert columns["obs"][:, 0].tolist() == [0, 1, 3, 4]
    assert columns["next_obs"][:, 0].tolist() == [1, 2, 4, 5]
    assert columns["action"].tolist() == [0, 1, 0, 1]
    assert columns["terminated"].tolist() == [False, True, False, False]
    assert columns["truncated"].tolist() == [False, False, False, True]
    assert audit(columns).faults == []
    numbers = table_to_columns(**lines(ended=[0, 0, 1, 0, 0, 0]))
    assert all(np.array_equal(numbers[name], columns[name]) for name in columns)


def test_times_may_be_dates_and_text_is_refused():
    dates = pd.Series(pd.to_datetime([10**9 * t for t in (0, 1, 2, 0, 1, 2)]))
    for time in (dates, dates.values):
        columns = table_to_columns(**lines(time=time))
        assert columns["obs"][:, 0].tolist() == [0, 1, 3, 4]
    for time in (dates.astype(str), dates.dt.tz_localize("UTC")):
        with pytest.raises(ValueError, match=r"pass pd.to_datetime\(time, utc=True\)"):
            table_to_columns(**lines(time=time))
        values = pd.to_datetime(time, utc=True).values
        assert len(table_to_columns(**lines(time=values))["obs"]) == 4


def test_no_end_vanishes_silently(capsys):
    table_to_columns(**lines())
    assert capsys.readouterr().out == ""
    late = table_to_columns(**lines(time=np.array([0, 1, 9, 0, 1, 2])))
    assert (
        not late["terminated"].any()
        and "lost, with no line within 1 before them: 1." in capsys.readouterr().out
    )
    with pytest.raises(ValueError, match=r"episode=np.arange\(N\)"):
        table_to_columns(**lines(session=np.arange(6)))
