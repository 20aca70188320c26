"""The audit: finds planted faults, leaves clean logs alone, and says what is wrong with unusable input."""

import functools
import re
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import arrays

import offrl_nb
from offrl_nb.data import audit, load, shipped_ids

matplotlib.use("Agg")
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
    return found.table.set_index("check").verdict[check]


def finding(found, check) -> str:
    return found.table.set_index("check").finding[check]


def cut(log, keep) -> dict:
    """The given rows of a log (a mask or row numbers), flags and all."""
    return {name: column[keep] for name, column in log.items()}


# What ships


@pytest.mark.parametrize("dataset_id", shipped_ids())
def test_what_ships_has_no_fault(dataset_id):
    found = clean(dataset_id)
    assert found.faults == []
    assert len(found.table) == 11 and found.table.verdict.isin(["ok", "look"]).all()
    for text in found.table.finding:
        assert "\n" not in text and len(text) < 220 and text.endswith((".", "?")), text
    assert all(np.isfinite(value) for value in found.numbers.values())


def test_the_same_log_gets_the_same_findings():
    again = audit(load(PENDULUM))
    assert again.numbers == clean(PENDULUM).numbers
    assert again.table.equals(clean(PENDULUM).table)


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
    for check in ("teleports", "duplicates"):
        assert finding(clean("frozenlake/mixed-v0"), check).startswith("Not judged")


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
    assert "swapped" in finding(audit(log), "endings") and audit(log).faults == ["endings"]
    log = columns(PENDULUM)
    log |= {"terminated": log["truncated"], "truncated": log["terminated"]}
    assert verdict(audit(log), "endings") == "look"  # a game of 200 moves looks the same
    assert verdict(audit(log, time_limit=200), "endings") == "fault"


def test_time_outs_logged_as_terminations():
    log = load(CARTPOLE)
    found = planted(
        CARTPOLE, terminated=log.terminated | log.truncated, truncated=0 * log.truncated
    )
    assert found.faults == ["endings"]
    assert found.numbers["terminations_at_limit"] == 18


def test_recordings_cut_on_purpose_are_no_fault():
    log, length = columns(PENDULUM), np.random.default_rng(0).integers(50, 200, 80)
    kept = np.tile(np.arange(200), 80) < length[log["episode"]]
    last = np.tile(np.arange(200), 80) == length[log["episode"]] - 1
    found = audit(cut(log | {"truncated": last}, kept), time_limit=200)
    assert found.faults == [] and verdict(found, "endings") == "look"


def test_an_episode_beyond_the_limit():
    assert "exceeds the limit of 150" in finding(audit(columns(PENDULUM), 150), "endings")


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
    assert found.numbers["broken_links"] == joints.sum()
    assert f"first: row {joints.argmax()}" in finding(found, "chain")


@pytest.mark.parametrize("dataset_id", JOINED)
def test_joined_episodes_with_next_obs_from_the_row_below(dataset_id):
    log, joined, joints = merged(dataset_id)
    log["next_obs"][joints] = np.roll(log["obs"], -1, axis=0)[joints]
    found = planted(dataset_id, **joined, next_obs=log["next_obs"])
    assert found.faults == ["teleports"] and found.numbers["broken_links"] == 0
    assert 0.4 * joints.sum() < found.numbers["jumps"] <= joints.sum()
    assert clean(dataset_id).numbers["jumps"] == 0


def test_jumps_of_heavy_tailed_dynamics_are_no_fault():
    path = np.random.default_rng(0).standard_t(2, (20, 501, 4)).cumsum(1)
    log = arrays(10_000, 20)
    log |= {"obs": path[:, :-1].reshape(-1, 4), "next_obs": path[:, 1:].reshape(-1, 4)}
    assert verdict(audit(log), "teleports") == "look"


def test_missing_shuffled_and_scattered_rows():
    log = columns(PENDULUM)
    assert audit(cut(log, np.arange(16_000) != 77)).numbers["broken_links"] == 1
    order = np.random.default_rng(0).permutation(16_000)
    order = order[np.argsort(log["episode"][order], kind="stable")]
    assert audit(cut(log, order)).numbers["broken_links"] > 15_000
    scattered = audit(cut(log, np.argsort(np.arange(16_000) % 200, kind="stable")))
    assert "sort by episode" in finding(scattered, "chain") and "chain" in scattered.faults
    rounded = log | {"next_obs": log["next_obs"].round(5)}
    assert audit(rounded).numbers["broken_links"] == 0


def test_repeated_rows_and_episodes():
    log = columns(PENDULUM)
    twice = np.sort(np.append(np.arange(16_000), np.arange(0, 16_000, 40)))
    found = audit(cut(log, twice))
    assert "duplicates" in found.faults and found.numbers["repeated_rows"] == 400
    again = cut(log, log["episode"] < 3)
    again["episode"] = again["episode"] + 80
    found = audit({name: np.concatenate([log[name], again[name]]) for name in COLUMNS})
    assert found.faults == ["duplicates"] and found.numbers["repeated_episodes"] == 3
    trace = audit(cut(log, np.append(np.arange(16_000), 15_999)))
    assert verdict(trace, "duplicates") == "look"
    assert verdict(clean(PENDULUM), "duplicates") == "ok"


# Rewards


@pytest.mark.parametrize("dataset_id", [FOG, "hopper/medium-v0", "halfcheetah/medium-v0"])
@pytest.mark.parametrize(("shift", "word"), [(1, "late"), (-1, "early")])
def test_rewards_in_the_wrong_row(dataset_id, shift, word):
    log = load(dataset_id)
    for reward in (torch.roll(log.reward, shift), within_episodes(log, shift)):
        found = planted(dataset_id, reward=reward)
        assert found.faults == ["reward"] and f"one row too {word}" in finding(found, "reward")
    assert clean(dataset_id).numbers["reward_left_own"] < 0.01


def within_episodes(log, shift):
    """Shifted rewards; where nothing comes from the same episode, 0."""
    same = torch.roll(log.episode, shift) == log.episode
    same[0 if shift > 0 else -1] = False
    return torch.roll(log.reward, shift) * same


def test_a_shift_that_cannot_be_seen_is_not_denied():
    """A pendulum's state tells the rewards before and after nearly as well as its own."""
    assert "such a shift would not show" in finding(clean(PENDULUM), "reward")
    late = planted(PENDULUM, reward=torch.roll(load(PENDULUM).reward, 1))
    assert verdict(late, "reward") == "look"
    noise = np.random.default_rng(0).standard_normal(16_000)
    assert finding(planted(PENDULUM, reward=noise), "reward").startswith("Cannot be judged")
    assert finding(clean(CARTPOLE), "reward").startswith("Cannot be judged")


# Numbers and actions


@pytest.mark.parametrize("name", ["obs", "action", "reward", "next_obs"])
def test_nan_is_named_and_the_other_rows_are_judged(name):
    log = columns(PENDULUM)
    log[name][[4_017, 4_019]] = np.nan
    found = audit(log)
    assert found.faults == ["numbers"] and found.numbers["bad_rows"] == 2
    assert f"{name} in 2 rows (first: row 4017)" in finding(found, "numbers")
    assert "float16" not in finding(found, "numbers")
    assert found.numbers["links"] == 15_920 - 4 and found.numbers["truncations"] == 80
    log["truncated"][5_000] = True
    assert "first: row 5000" in finding(audit(log), "flags")  # as the rows were given


def test_a_cast_to_16_bits():
    log = columns(PENDULUM)
    log = log | {name: 1e4 * log[name] for name in ("obs", "next_obs")}  # speeds up to 80,000
    assert audit(log).faults == []
    with np.errstate(over="ignore"):
        short = {name: log[name].astype(np.float16) for name in ("obs", "next_obs")}
    found = audit(log | short)
    assert found.faults == ["numbers"] and "65,504" in finding(found, "numbers")


def test_lost_precision():
    log = columns(PENDULUM)
    found = audit(log | {"reward": log["reward"].astype(np.float16).astype(np.float32)})
    assert verdict(found, "numbers") == "look" and "reward" in finding(found, "numbers")
    assert verdict(clean(PENDULUM), "numbers") == "ok"
    quarters = log | {"reward": (4 * log["reward"]).round() / 4}  # exact in 16 bits by nature
    assert verdict(audit(quarters), "numbers") == "ok"


def test_clipped_actions():
    action = load(PENDULUM).action
    found = planted(PENDULUM, action=action.clamp(-0.5, 0.5))
    assert found.faults == ["actions"] and "-0.5 or 0.5" in finding(found, "actions")
    assert verdict(clean(PENDULUM), "actions") == "look"  # at -1 and 1: the limits of the motor
    assert verdict(clean("pendulum/covered-v0"), "actions") == "ok"
    raw = columns(PENDULUM) | {"action": action.clamp(-0.5, 0.5).numpy()}
    assert verdict(audit(raw), "actions") == "look"  # the bounds of a raw log are not known
    hopper = load("hopper/medium-replay-v0").action.clone()
    hopper[:, 0] = hopper[:, 0].clamp(-0.9, 0.9)  # a lesser share than dimension 2 has at -1 and 1
    assert "dimension 0" in finding(planted("hopper/medium-replay-v0", action=hopper), "actions")
    brake = planted(PENDULUM, action=action.clamp(0))
    assert verdict(brake, "actions") == "look"  # an idle brake is no fault
    assert "never changes" in finding(planted(PENDULUM, action=0 * action), "actions")


def test_actions_that_never_or_hardly_occur():
    log = columns(CARTPOLE)
    assert "1 of 3 actions never occur" in finding(
        audit(replace(load(CARTPOLE), n_actions=3)), "actions"
    )
    rare = np.where(np.arange(len(log["action"])) % 500 == 0, 2, log["action"])
    found = audit(log | {"action": rare})
    assert verdict(found, "actions") == "ok" and verdict(found, "balance") == "look"
    assert found.numbers["rarest_action"] == pytest.approx(1 / 500, rel=0.02)


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
        assert found.table.verdict.equals(wanted.table.verdict)


def test_states_may_be_numbers_or_one_hot():
    log = columns("windy/mixed-v0")
    number = {name: log[name].argmax(-1) for name in ("obs", "next_obs")}
    assert audit(log | number).numbers == pytest.approx(audit(log).numbers)


def test_short_logs_and_plain_lists():
    for rows in (1, 2, 7, 60):
        for discrete in (False, True):
            log = cut(arrays(discrete=discrete), np.arange(60) < rows)
            assert audit({name: column.tolist() for name, column in log.items()}).faults == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reward": None}, "no column reward"),
        ({"action": np.zeros((59, 2))}, "Every column needs a row for each transition.* action 59"),
        ({name: column[:0] for name, column in arrays().items()}, "the log has obs 0"),
        ({"reward": ["high"] * 60}, "Column reward needs numbers"),
        ({"reward": np.zeros((60, 2))}, "Column reward needs numbers, a row a transition"),
        ({"obs": [[0.0]] * 59 + [[0.0, 1.0]]}, "Column obs needs numbers"),
        ({"obs": np.zeros((60, 4))}, "differ in width"),
        ({"reward": np.full(60, np.nan)}, "Every row of the log holds a NaN"),
    ],
)
def test_unusable_input_is_refused_in_one_sentence(change, words):
    log = arrays() | change
    log = {name: column for name, column in log.items() if column is not None}
    with pytest.raises(ValueError, match=words) as error:
        audit(log)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_something_else_is_refused():
    with pytest.raises(ValueError, match="no column obs; it needs obs, action, reward"):
        audit(PENDULUM)


# How it shows


class Cells(HTMLParser):
    """The text of all cells of a table, row by row."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.tags = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.tags[-1] in ("td", "th"):
            self.rows[-1][-1] += data.strip()


def test_the_table_shows_whole_sentences_and_no_row_numbers():
    found = clean(PENDULUM)
    cells = Cells(found._repr_html_())
    assert cells.rows[0] == ["check", "verdict", "finding"]
    assert cells.rows[1:] == found.table.astype(str).values.tolist()
    assert cells.tags.count("th") == 3  # none in front of the rows


def test_the_text_fits_a_narrow_page():
    text = repr(planted(PENDULUM, action=load(PENDULUM).action.clamp(-0.5, 0.5)))
    assert text.startswith("pendulum/mixed-v0: 1 fault\n")
    assert max(map(len, text.splitlines())) <= 95
    for check in clean(PENDULUM).table.check:
        assert re.search(rf"^(ok|look|fault) +{check} +\S", text, re.M)
    assert repr(clean(PENDULUM)).startswith("pendulum/mixed-v0: no faults\n")


@pytest.mark.parametrize(
    "dataset_id", [PENDULUM, CARTPOLE, "hopper/medium-replay-v0", "windy/mixed-v0"]
)
def test_the_figure_has_four_labelled_panels(dataset_id):
    import matplotlib.pyplot as plt

    before = dict(plt.rcParams)
    figure = clean(dataset_id).draw()
    assert dict(plt.rcParams) == before
    panels = [ax for ax in figure.axes if ax.get_title(loc="left")]
    titles = [ax.get_title(loc="left") for ax in panels]
    assert titles == ["Returns", "Endings", "Actions", "States"]
    assert all(ax.get_xlabel() and ax.get_ylabel() and ax.has_data() for ax in panels)
    kinds = {text.get_text() for text in panels[1].get_legend().get_texts()}
    log = load(dataset_id)
    assert ("terminated" in kinds, "truncated" in kinds) == (
        bool(log.terminated.any()),
        bool((log.truncated & ~log.terminated).any()),
    )
    figure.canvas.draw()
    plt.close(figure)


def test_the_figure_can_be_drawn_into_given_axes():
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4)
    assert audit(arrays()).draw(axes) is figure and all(ax.has_data() for ax in axes)
    plt.close(figure)


def test_it_is_part_of_the_package():
    assert offrl_nb.audit is audit
