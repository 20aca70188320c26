"""Rollouts that count every episode once, and intervals that mean what they say."""

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch

import offrl_nb
from offrl_nb import best, compare, difference, evaluator, interval, last, rollout
from offrl_nb.envs import make_envs


class Countdown(gym.Env):
    """Episode length = 1 + seed % 7, reward 1 a step; an episode that goes on after its end pays 1000."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gym.spaces.Box(-3.0, 1.0, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 1 + (seed if seed is not None else 500) % 7
        self.over = False
        return np.array([self.left], np.float64), {}

    def step(self, action):
        reward, self.left = 1000.0 if self.over else 1.0, self.left - 1
        self.over, self.last_action = self.left == 0, action
        return np.array([self.left], np.float64), reward, self.over, False, {}


gym.register("Countdown-v0", Countdown, max_episode_steps=50, disable_env_checker=True)


def test_every_episode_is_played_once_whatever_its_length():
    envs = make_envs("Countdown-v0", 3 * 7)
    played = rollout(
        lambda obs: torch.zeros(*obs.shape[:2], 1), envs, 3, first_start=0, record=True
    )
    assert played.lengths.tolist() == [[1, 2, 3, 4, 5, 6, 7]] * 3
    assert (played.returns == played.lengths).all()  # no reward of a second episode, none twice
    assert played.alive.sum(0).tolist() == played.lengths.tolist()
    assert played.obs.shape == (7, 3, 7, 1) and played.action.shape == (7, 3, 7, 1)
    again = rollout(lambda obs: torch.zeros(*obs.shape[:2], 1), envs, 3, first_start=0)
    assert (again.returns == played.returns).all()


class Remembers:
    """A policy with a memory: it keeps what it was told."""

    def begin(self, seeds, episodes):
        self.paid = torch.zeros(seeds, episodes)

    def __call__(self, obs):
        return torch.zeros(*obs.shape[:2], 1)

    def receive(self, reward):
        self.paid += reward


def test_a_policy_with_a_memory_hears_every_reward_and_begins_anew():
    envs, policy = make_envs("Countdown-v0", 2 * 7), Remembers()
    for _ in range(2):
        played = rollout(policy, envs, 2, first_start=0)
        assert policy.paid.tolist() == played.returns.tolist() == [[1, 2, 3, 4, 5, 6, 7]] * 2


def test_actions_are_scaled_to_the_environment_and_seeds_get_their_own():
    envs = make_envs("Countdown-v0", 2)
    rollout(lambda obs: torch.tensor([[[-1.0]], [[1.0]]]), envs, 2, first_start=0)
    assert [env.unwrapped.last_action.item() for env in envs.unwrapped.envs] == [-3.0, 1.0]


def test_every_seed_meets_the_same_starts():
    envs = make_envs("Pendulum-v1", 6)
    played = rollout(lambda obs: torch.zeros(*obs.shape[:2], 1), envs, 3, record=True)
    assert (played.obs[0, 0] == played.obs[0, 1]).all() and (
        played.returns[0] == played.returns[2]
    ).all()
    assert (played.obs[0, 0, 0] != played.obs[0, 0, 1]).any()
    assert played.lengths.tolist() == [[200, 200]] * 3


def test_replaying_the_logged_actions_from_the_logged_starts_leads_through_the_logged_states():
    data = offrl_nb.load("pendulum/narrow-v0")
    envs = make_envs(data.env, 50)
    log, step = data.action.view(50, 200, 1), iter(range(200))
    played = rollout(
        lambda obs: log[:, next(step)][None], envs, 1, first_start=120_000, record=True
    )
    logged = data.obs.view(50, 200, 3).swapaxes(0, 1).numpy()
    assert np.allclose(played.obs[0, 0], logged[0], atol=1e-6)
    assert np.allclose(played.obs[:20, 0], logged[:20], atol=1e-3)  # later rounding grows, unstable


class Goal(gym.Env):
    """Gives the entries of its observation in another order than its space, and images in bytes."""

    observation_space = gym.spaces.Dict(
        place=gym.spaces.Box(0, 255, (4,), np.uint8), goal=gym.spaces.Discrete(7)
    )
    action_space = gym.spaces.Discrete(3, start=5)

    def reset(self, *, seed=None, options=None):
        return {"place": np.full(4, 9, np.uint8), "goal": 4}, {}

    def step(self, action):
        assert self.action_space.contains(action)
        return self.reset()[0], float(action), False, False, {}


gym.register("Goal-v0", Goal, max_episode_steps=3, disable_env_checker=True)


def test_observations_stand_by_name_and_discrete_actions_start_where_they_start():
    envs = make_envs("Goal-v0", 2)
    played = rollout(lambda obs: torch.full(obs.shape[:2], 2), envs, 1, record=True)
    goal, place = [0, 0, 0, 0, 1, 0, 0], [9, 9, 9, 9]
    assert played.obs[0, 0, 0].tolist() == goal + place  # by name
    assert played.returns.tolist() == [[21.0, 21.0]]


def test_environments_that_cannot_be_played_are_refused():
    gym.register("Endless-v0", Goal)
    with pytest.raises(ValueError, match="no time limit"):
        make_envs("Endless-v0", 1)
    with pytest.raises(ValueError, match="cannot be made"):
        make_envs("Missing-v0", 1)
    with pytest.raises(ValueError, match="at least one episode"):
        evaluator(offrl_nb.load("cartpole/mixed-v0"), episodes=-1)


def test_evaluator_needs_an_environment(continuous):
    with pytest.raises(ValueError, match="has no environment"):
        evaluator(continuous)
    result = evaluator(offrl_nb.load("cartpole/mixed-v0"), episodes=3)(
        lambda obs: torch.ones(obs.shape[:2], dtype=torch.int64), 2
    )
    assert result["return"].shape == (2,) and (result["return"] < 12).all()  # always right: falls


def test_intervals_cover_about_as_often_as_they_say():
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(300):
        low, high = interval(generator.standard_normal(30), draws=500)
        hits += low < 0 < high
    assert 0.88 < hits / 300 < 0.98
    low, high = difference([1.0, 2.0, 3.0], [11.0, 12.0, 13.0])
    assert -12 < low < -10 < high < -8
    assert interval([2.0, 2.0]) == (2.0, 2.0)
    assert np.isnan(interval([2.0])).all()  # one seed says nothing about spread


def measured(*rows):
    """The table of a run of two seeds, evaluated so often."""
    returns = iter(np.array(rows))
    said = {"loss": torch.zeros(2)}
    return offrl_nb.fit(lambda s: said, 10, [1, 0], lambda: {"return": next(returns)}, len(rows))


def test_last_best_and_compare():
    table = measured([1.0, 5.0], [3.0, 2.0])
    assert last(table).tolist() == [2.0, 3.0] and best(table).tolist() == [5.0, 3.0]  # by seed
    alone = compare({"run": table})
    assert alone.loc["run", ["last", "best"]].tolist() == ["2.50", "4.00"]
    assert alone.loc["run", "95 % over seeds"] == "2.00 to 3.00"
    assert alone.loc["run", "last of each seed"] == "2.00  3.00"
    stored = pd.DataFrame({"seed": [0, 1], "last": [1.0, 1.0], "best": [9.0, 9.0]})
    both = compare({"run": table, "stored": stored}, "stored")
    assert both.loc["run", ["last − stored", "best − stored"]].tolist() == [
        "1.00 to 2.00",
        "-6.00 to -4.00",
    ]
    assert both.loc["stored", "last − stored"] == "–"
    with pytest.raises(ValueError, match="has no 'return', only step, seed, loss"):
        last(offrl_nb.fit(lambda s: {"loss": torch.zeros(2)}, 10, [0, 1]))


@pytest.mark.parametrize(
    ("returns", "shown"), [([0.5, 0.0], "0.250"), ([4.0, 3.5], "3.75"), ([500.0, 17.0], "258")]
)
def test_digits_fit_the_scale(returns, shown):
    assert compare({"run": measured(returns)}).loc["run", "last"] == shown


def test_a_diverged_seed_is_not_left_out_and_one_alone_is_nan_too():
    table = measured([1.0, 5.0], [np.nan, 2.0])
    assert last(table)[0] == 2.0 and np.isnan(last(table)[1])
    assert "nan" in compare({"run": table}).loc["run", "last"]
    all_of_them = pd.DataFrame({"step": [100, 200], "seed": [0, 0], "return": [-50.0, np.nan]})
    assert np.isnan(last(all_of_them)).all()


def test_a_run_that_was_stopped_says_so_in_the_table():
    def update(step):
        if step == 5:
            raise KeyboardInterrupt
        return {}

    table = offrl_nb.fit(update, 10, [0], lambda: {"return": np.ones(1)})
    assert compare({"run": table}).index[0] == "run (stopped by hand in update 5 of 10)"


def test_actions_that_are_not_finite_cost_their_own_seed_only():
    envs = make_envs("offrl/StitchMaze-v0", 2 * 3)
    actions = torch.zeros(2, 3, 2)
    actions[0, 1, 0] = torch.nan
    played = rollout(lambda obs: actions, envs, 2)
    assert np.isnan(played.returns[0, 1]) and np.isfinite(played.returns[1]).all()


def test_a_policy_with_a_memory_may_be_given_by_its_method():
    class Player(Remembers):
        mode = Remembers.__call__

    envs, policy = make_envs("Countdown-v0", 2 * 7), Player()
    assert (rollout(policy.mode, envs, 2, first_start=0).returns == policy.paid.numpy()).all()
