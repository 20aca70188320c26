"""From offline to online: floors, the calibrated gap, which rows are seen, and what goes through the switch."""

import copy
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import small_log

from offrl_nb import DataError, Dataset, Streams, load
from offrl_nb.methods import cql
from offrl_nb.methods.cql import log_integral, proposals
from offrl_nb.methods.finetune import (
    Config,
    Learner,
    Rows,
    calibrated_maximum,
    make_offline,
    make_online,
    returns_to_go,
    train,
)
from offrl_nb.methods.problem import Replay

SMALL = Config(updates=5, online_steps=8, warm_up=3, discount=0.9, hidden=(16, 16), batch_size=16)


def narrow():
    return load("pendulum/narrow-v0")


# What followed a row


def slow_return(reward, terminated, stopped, discount, tail):
    """The definition, row by row, without any recursion."""
    returns = []
    for start in range(len(reward)):
        total = 0.0
        for i in range(start, len(reward)):
            total += discount ** (i - start) * reward[i]
            if terminated[i]:
                break
            if stopped[i]:
                total += discount ** (i + 1 - start) * tail
                break
        else:
            total = -np.inf
        returns.append(total)
    return returns


def test_returns_to_go_against_a_loop_for_several_seeds_at_once():
    draws = np.random.default_rng(0)
    reward = draws.normal(size=(3, 40))
    terminated, stopped = draws.random((3, 40)) < 0.1, draws.random((3, 40)) < 0.1
    given = [torch.tensor(x) for x in (reward, terminated, stopped)]
    ours = returns_to_go(*given, 0.9, -7.0)
    for seed in range(3):
        wanted = slow_return(reward[seed], terminated[seed], stopped[seed], 0.9, -7.0)
        assert np.allclose(ours[seed], wanted)
    assert torch.isinf(ours).any()


def test_a_time_out_is_continued_by_the_tail_and_an_end_by_nothing():
    data = small_log()  # rows 0-2 end the task, rows 3-5 only the recording
    config = replace(SMALL, variant="calql")
    rows = Rows(data, config, Streams(2))
    assert rows.tail == pytest.approx(min(0, data.reward.min().item() / 0.1))
    assert torch.isclose(rows.floor[2], data.reward[2])
    assert torch.isclose(rows.floor[5], data.reward[5] + 0.9 * rows.tail)
    assert torch.isfinite(rows.floor).all()


def test_an_episode_without_any_flag_counts_as_stopped_and_does_not_run_into_the_next():
    data = small_log()
    data = replace(data, truncated=torch.zeros_like(data.truncated))
    floor = Rows(data, replace(SMALL, variant="calql"), Streams(2)).floor
    whole = Rows(small_log(), replace(SMALL, variant="calql"), Streams(2)).floor
    assert torch.equal(floor, whole)


def test_the_floor_is_a_lower_bound_of_the_return_of_the_whole_episode():
    data = narrow()
    rows = Rows(data, Config(discount=0.95), Streams(1))
    cut = replace(data, episode=torch.arange(len(data)) // 20)  # the same rows, cut in pieces
    shorter = Rows(cut, Config(discount=0.95), Streams(1))
    assert (shorter.floor <= rows.floor + 1e-3).all()
    assert (shorter.floor < rows.floor - 1).any()


def test_positive_rewards_leave_no_tail():
    data = small_log()
    data = replace(data, reward=data.reward.abs() + 1)
    assert Rows(data, SMALL, Streams(1)).tail == 0


# The calibrated gap


def drawn(nets, data, seeds=2):
    batch = data.rows(torch.arange(6).expand(seeds, -1))
    draws = Streams(seeds)
    noise, uniform = draws.normal(2, 2, 6, 2), draws.uniform(2, 6, 2)
    return batch, proposals(nets.policy, batch, uniform, noise)


def test_a_floor_of_minus_infinity_is_cqls_integral():
    learner = Learner(small_log(), SMALL, Streams(2))
    batch, given = drawn(learner.nets, small_log())
    floor = torch.full((2, 6), -torch.inf)
    critic = learner.nets.critic
    ours, lifted = calibrated_maximum(critic, batch.obs, *given, floor, 0.7)
    assert torch.equal(ours, log_integral(critic, batch.obs, *given, 0.7))
    assert (lifted == 0).all()


def test_a_floor_above_everything_leaves_no_slope():
    learner = Learner(small_log(), SMALL, Streams(2))
    batch, given = drawn(learner.nets, small_log())
    top, lifted = calibrated_maximum(
        learner.nets.critic, batch.obs, *given, torch.full((2, 6), 1e4)
    )
    top.sum().backward()
    assert (lifted == 1).all()
    assert all((p.grad == 0).all() for p in learner.nets.critic.parameters())


def test_the_floor_lifts_the_policys_actions_and_not_the_uniform_ones():
    obs, action = torch.zeros(1, 1, 3), torch.arange(6.0).view(1, 6, 1, 1)
    density, floor = torch.zeros(1, 6, 1), torch.full((1, 1), 3.5)

    def critic(obs, action):  # Q is the action's number
        return action.squeeze(-1).unsqueeze(0)

    ours, lifted = calibrated_maximum(critic, obs, action, density, floor)
    values = torch.tensor([0.0, 1, 3.5, 3.5, 4, 5])  # two uniform, then four of the policy
    assert torch.isclose(ours.squeeze(), torch.logsumexp(values, 0) - np.log(6))
    assert lifted.item() == 0.5


@pytest.mark.parametrize("variant", ["cql", "calql"])
def test_offline_updates_without_a_floor_are_those_of_cql(variant):
    data, config = narrow(), replace(SMALL, variant=variant, cql_weight=5.0)
    learner = Learner(data, config, Streams([3, 4]))
    step = make_offline(data, learner, config)
    for number in range(1, 11):
        step(number)
    settings = {"discount": 0.9, "hidden": (16, 16), "batch_size": 16, "updates": 10}
    theirs, _ = cql.train(data, cql.Config(**settings), [3, 4])
    pairs = zip(learner.nets.parameters(), theirs.parameters(), strict=True)
    same = all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)
    assert same == (variant == "cql")


def test_weight_zero_asks_no_proposal_and_is_a_plain_td_step():
    data = narrow()
    learner = Learner(data, SMALL, Streams(2))
    batch, floor = Rows(data, SMALL, learner.streams).logged(16)
    with mock.patch("offrl_nb.methods.finetune.proposals", side_effect=AssertionError):
        said = learner.improve_critic(batch, floor, 0.0)
    assert said.keys() == {"td_loss", "q_data"}


# Which rows a batch holds


def filled_rows(config, steps=7):
    """Rows with a replay whose observations are 100 + seed; the log's are small."""
    data, streams = small_log(), Streams(2)
    replay = Replay(3, 2, streams, 20)
    for i in range(steps):
        seed = torch.arange(2.0).view(2, 1, 1)
        ends = torch.full((2, 1, 1), float(i == 3)), torch.zeros(2, 1, 1)
        obs = 100 + seed.expand(2, 1, 3)
        replay.add(obs, torch.zeros(2, 1, 2), seed + i, obs, *ends)
    rows = Rows(data, config, streams)
    rows.look_at(replay)
    return rows


def test_new_rows_are_each_seeds_own_and_know_what_followed_them():
    rows = filled_rows(replace(SMALL, variant="calql"))
    batch, floor = rows.new(16)
    assert torch.equal(batch.obs[..., 0], torch.tensor([[100.0], [101.0]]).expand(2, 16))
    played = rows.replay.rows[0, :7]
    wanted = slow_return(played[:, 5], played[:, -2] > 0, played[:, -1] > 0, 0.9, 0)
    assert np.allclose(rows.new_floor[0, :7], wanted)
    assert torch.isinf(rows.new_floor[0, 4:]).all()  # that episode is not over
    assert torch.equal(torch.isinf(floor), batch.reward - torch.arange(2.0)[:, None] > 3)


def test_looking_often_gives_the_floors_of_looking_once():
    """Two seeds whose episodes end at different times, looked at as they grow."""
    draws, steps = Streams([0, 1]), 60
    ends = torch.zeros(2, steps, 2)
    ends[0, [6, 20, 41], 0], ends[1, [13, 50], 1] = 1, 1
    columns = draws.normal(steps, 4)
    often, once = (
        Rows(narrow(), replace(SMALL, variant="calql", online_steps=60), Streams([0, 1]))
        for _ in range(2)
    )
    replay = Replay(1, 1, Streams([0, 1]), steps)
    for row in range(steps):
        replay.add(columns[:, row : row + 1], ends[:, row : row + 1])
        if row % 7 == 0 or row == steps - 1:
            often.look_at(replay)
    once.look_at(replay)
    assert torch.equal(often.new_floor, once.new_floor)
    assert torch.isinf(once.new_floor).sum(-1).tolist() == [steps - 42, steps - 51]


@pytest.mark.parametrize("count", [0, 5, 16])
def test_mixed_batches_hold_as_many_logged_rows_as_asked_for(count):
    rows = filled_rows(replace(SMALL, variant="calql"))
    batch, floor = rows.mixed(count)
    logged = batch.obs[..., 0] < 50
    assert logged.shape == (2, 16) and (logged.sum(-1) == count).all()
    assert torch.equal(logged, batch.next_obs[..., 0] < 50)
    assert torch.isin(floor[logged], rows.floor).all()
    assert torch.isin(floor[~logged], rows.new_floor).all()


@pytest.mark.parametrize("variant", ["wsrl", "sac", "cql", "calql"])
def test_only_wsrl_never_touches_the_log_again(variant):
    data, config = narrow(), replace(SMALL, variant=variant)
    step = make_online(data, Learner(data, config, Streams(2)), config)
    with mock.patch.object(Dataset, "rows", side_effect=RuntimeError("the log")):
        if variant != "wsrl":
            with pytest.raises(RuntimeError, match="the log"):
                step(1)
            return
        for number in range(1, 9):
            step(number)


# The switch


def test_nothing_is_learned_during_the_warm_up():
    data, config = narrow(), replace(SMALL, variant="wsrl")
    learner = Learner(data, config, Streams(2))
    before = copy.deepcopy(learner.nets.state_dict())
    step = make_online(data, learner, config)
    for number in range(1, 4):
        assert step(number) == {}
    assert all(torch.equal(a, before[name]) for name, a in learner.nets.state_dict().items())
    assert step(4)
    assert any(not torch.equal(a, before[name]) for name, a in learner.nets.state_dict().items())


@pytest.mark.parametrize(("updates", "wanted"), [(1, 6), (3, 18)])
def test_critic_updates_come_after_each_step_and_the_policy_gets_one(updates, wanted):
    data, config = narrow(), replace(SMALL, variant="sac", critic_updates=updates)
    learner = Learner(data, config, Streams(1))
    step = make_online(data, learner, config)
    critic = mock.patch.object(learner, "improve_critic", wraps=learner.improve_critic)
    policy = mock.patch.object(learner, "improve_policy", wraps=learner.improve_policy)
    with critic as critic, policy as policy:
        for number in range(1, 7):
            step(number)
    assert critic.call_count == wanted and policy.call_count == 6
    weight = 0.0 if config.variant == "sac" else config.cql_weight
    assert all(call.args[2] == weight for call in critic.call_args_list)


def test_the_optimisers_of_a_copied_learner_move_the_copy_and_not_the_original():
    data = narrow()
    learner = Learner(data, SMALL, Streams(2))
    step = make_offline(data, learner, SMALL)
    step(1)
    twin = copy.deepcopy(learner)
    before = copy.deepcopy(learner.nets.state_dict())
    moment = next(iter(twin.critic_adam.state.values()))["exp_avg"]
    assert moment.abs().sum() > 0  # running means came along
    make_offline(data, twin, SMALL)(2)
    assert all(torch.equal(a, before[name]) for name, a in learner.nets.state_dict().items())
    assert not torch.equal(
        twin.nets.critic.body.layers[0].weight, before["critic.body.layers.0.weight"]
    )


def test_train_says_how_far_it_came_and_counts_steps_through_the_switch():
    nets, log = train(narrow(), replace(SMALL, variant="calql"), [0, 1])
    assert log.attrs["updates"] == 13 and log.step.max() == 13
    assert {"td_loss", "gap", "lifted", "entropy"} <= set(log)
    assert torch.isfinite(nets.critic.body.layers[0].weight).all()


def test_learns_in_our_own_environments_and_with_an_evaluation():
    data = load("maze/stitch-v0")
    said = {"return": np.zeros(2)}
    _, log = train(data, SMALL, [0, 1], lambda *_: said, 1)
    assert (log["return"].dropna() == 0).all()


def test_clear_sentences_where_there_is_nothing_to_go_online_with():
    with pytest.raises(DataError, match="continuous"):
        train(load("cartpole/mixed-v0"), SMALL)
    with pytest.raises(DataError, match="no environment"):
        train(small_log(), SMALL)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"log_share": -0.1}, r"log_share is -0.1; it must be a number in \[0, 1\]"),
        ({"log_share": 0.01, "batch_size": 32}, "which is 0 of 32 rows"),
        ({"log_share": 0.99, "batch_size": 32}, "which is 32 of 32 rows"),
        ({"discount": 1.0}, "discount"),  # what follows a time-out would have no bound
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"cql_weight": -1.0}, "cql_weight"),
        ({"warm_up": -1}, "warm_up"),
        ({"samples": 0}, "samples"),
        ({"variant": "iql"}, "one of calql, cql, sac, wsrl"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        Config(**wrong)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_nothing_or_of_everything_is_a_share(share):
    _, log = train(narrow(), replace(SMALL, log_share=share), [0])
    assert np.isfinite(log.td_loss).all()
