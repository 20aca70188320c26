"""The small environments, the exact solvers, and what the datasets made with them are there to show."""

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from offrl_nb import DataError, Streams, load, rollout
from offrl_nb.data import SHIPPED, flat_obs
from offrl_nb.envs import _AsLogged, _OneEpisode, exact_q, make_envs, optimal_q, tabular
from offrl_nb.methods.bc import Config, train

IDS = ["offrl/StitchMaze-v0", "offrl/Fog-v0", "offrl/WindyGrid-v0"]
CELLS = gym.make_vec("offrl/StitchMaze-v0", num_envs=1).world.CELLS
TABLES = {"frozenlake/mixed-v0": "FrozenLake8x8-v1", "windy/mixed-v0": "offrl/WindyGrid-v0"}


def some_actions(space, steps, seed=0):
    space.seed(seed)
    return [space.sample() for _ in range(steps)]


# The environments


@pytest.mark.parametrize("env_id", IDS)
def test_a_copy_lives_exactly_as_the_single_environment(env_id):
    envs, seeds = gym.make_vec(env_id, num_envs=20), list(range(7, 27))
    singles = [gym.make(env_id) for _ in seeds]
    for round_ in range(2):  # the second round without seeds: both go on drawing
        given = {"seed": seeds} if round_ == 0 else {}
        obs, _ = envs.reset(**given)
        first = [
            e.reset(seed=s)[0] if given else e.reset()[0]
            for e, s in zip(singles, seeds, strict=True)
        ]
        assert np.array_equal(obs, first)
        over = np.zeros(len(seeds), bool)
        for actions in some_actions(envs.action_space, envs.spec.max_episode_steps, round_):
            obs, reward, terminated, truncated, _ = envs.step(actions)
            for i in np.flatnonzero(~over):
                alone = singles[i].step(actions[i])
                assert np.array_equal(alone[0], obs[i]) and alone[0].dtype == obs.dtype
                assert alone[1:4] == (reward[i], terminated[i], truncated[i])
            over |= terminated | truncated
        assert over.all()


@pytest.mark.parametrize("env_id", IDS)
def test_an_episode_that_is_over_idles_until_its_reset(env_id):
    envs = gym.make_vec(env_id, num_envs=6)
    envs.reset(seed=1)
    for actions in some_actions(envs.action_space, envs.spec.max_episode_steps):
        last = envs.step(actions)[0]
    obs, reward, terminated, truncated, _ = envs.step(actions)
    assert np.array_equal(obs, last) and not (reward.any() or terminated.any() or truncated.any())
    mask = np.array([True, False, True, False, False, True])
    begun, _ = envs.reset(seed=[5, None, 6, None, None, 7], options={"reset_mask": mask})
    assert np.array_equal(begun[~mask], last[~mask])
    fresh, _ = gym.make_vec(env_id, num_envs=3).reset(seed=5)
    assert np.array_equal(begun[mask], fresh)
    reward = envs.step(actions)[1]
    assert not reward[~mask].any()


@pytest.mark.parametrize("env_id", IDS)
def test_gymnasium_and_its_checker_know_them(env_id):
    assert gym.spec(env_id).vector_entry_point == f"offrl_nb.envs:{gym.spec(env_id).name}"
    check_env(gym.make(env_id).unwrapped, skip_render_check=True)
    envs = gym.make_vec(env_id, num_envs=3)
    assert envs.metadata["autoreset_mode"] == gym.vector.AutoresetMode.DISABLED
    assert envs.observation_space.contains(envs.reset(seed=0)[0])


@pytest.mark.parametrize("env_id", IDS)
def test_actions_that_do_not_fit_are_refused(env_id):
    envs = gym.make_vec(env_id, num_envs=3)
    envs.reset(seed=0)
    good = envs.action_space.sample()
    bad = [good[:2], good[0], good[..., None]]
    bad += [good + 4, good - 9, good + 0.5] if good.ndim == 1 else [good * np.nan]
    for actions in bad:
        with pytest.raises(ValueError, match="actions"):
            envs.step(actions)
    with pytest.raises(ValueError):
        envs.reset(seed=[1, 2])


@pytest.mark.parametrize("env_id", IDS)
def test_vectorised_rollouts_equal_those_one_after_the_other(env_id):
    ours = make_envs(env_id, 12)
    singles = gym.make_vec(env_id, 12, "sync", wrappers=[_OneEpisode])
    one_by_one = _AsLogged(singles, singles.single_action_space)

    def act(obs):
        if isinstance(ours.single_action_space, gym.spaces.Discrete):
            return obs.argmax(-1) * 7 % 4
        return torch.sin(13 * obs.sum(-1, keepdim=True) + torch.arange(ours.action_space.shape[-1]))

    played = [rollout(act, envs, 3, record=True) for envs in (ours, one_by_one)]
    for name, values in vars(played[0]).items():
        assert np.array_equal(values, vars(played[1])[name]), name
    assert played[0].obs.shape[1:3] == (3, 4) and played[0].obs.dtype == np.float32


def test_the_maze_is_the_medium_map_and_its_pieces_lead_where_they_should():
    assert (CELLS != "#").sum() == 26
    envs = gym.make_vec("offrl/StitchMaze-v0", num_envs=50, starts=[(1, 5)])
    obs, _ = envs.reset(seed=0)
    assert (np.abs(obs - [1, 5]) <= 0.3).all()
    wall = np.tile([-1.0, 0.0], (50, 1))
    for _ in range(5):
        obs = envs.step(wall)[0]
    assert (obs[:, 0] > 0.5).all()  # never inside the wall above
    total, ended = np.zeros(50), np.zeros(50, bool)
    for _ in range(10):
        _, reward, terminated, truncated, _ = envs.step(np.tile([0.0, 1.0], (50, 1)))
        total, ended = total + reward, ended | terminated
    assert (total == 1).all() and ended.all() and not truncated.any()  # paid once


def test_fog_pays_and_crashes_as_it_says():
    envs = gym.make_vec("offrl/Fog-v0", num_envs=400)

    def fly(choose):
        obs, _ = envs.reset(seed=0)
        total, crashed = np.zeros(400), np.zeros(400, bool)
        for step in range(12):
            assert (obs[~crashed, 1] == 1 - step % 3).all()
            at_pillar = obs[:, 1] == -1
            jump = np.where(at_pillar, choose(obs[:, 2]) - obs[:, 0], -obs[:, 0])
            obs, reward, terminated, truncated, _ = envs.step(jump[:, None].clip(-1, 1))
            total, crashed = total + reward, crashed | terminated
        assert (truncated | crashed).all()
        return total, crashed

    total, crashed = fly(lambda signal: np.where(signal < 0, -0.6, 0.6))
    assert (total == 4).all() and not crashed.any()
    total, crashed = fly(lambda signal: np.where(signal < 0, 0.6, -0.6))
    assert not crashed.any() and abs(total.mean() - 4 * (0.4 * 2 / 3 + 1 / 3)) < 0.1
    for y in (0.0, 0.15):  # the middle of the pillar, and near its edge
        assert fly(lambda signal, y=y: np.full(400, y))[1].all()
    assert fly(lambda signal: np.full(400, 1.2))[1].mean() > 0.9  # a jump is 1 at most


def test_the_turned_fog_is_the_same_with_its_payoffs_turned():
    envs, turned = (gym.make_vec("offrl/Fog-v0", num_envs=400, turned=x) for x in (False, True))
    obs, again = (x.reset(seed=0)[0] for x in (envs, turned))
    assert np.array_equal(obs, again)
    for _ in range(12):
        actions = some_actions(envs.action_space, 1)[0]
        before, (obs, reward, *_), (again, other, *_) = (
            obs,
            envs.step(actions),
            turned.step(actions),
        )
        assert np.array_equal(obs, again)
        paid = (reward > 0) & (before[:, 2] != 0)
        assert np.allclose(other[paid], 1.4 - reward[paid])
        assert np.allclose(other[~paid], reward[~paid])


# What the copies say


class Named(gym.Env):
    """Observations by name; actions in a box of two axes that is no cube."""

    observation_space = gym.spaces.Dict(b=gym.spaces.Box(-1, 1, (2,)), a=gym.spaces.Discrete(3))
    action_space = gym.spaces.Box(np.array([[0.0, 0.0]]), np.array([[2.0, 10.0]]), dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"a": 1, "b": np.zeros(2, np.float32)}, {}

    def step(self, action):
        assert action.shape == (1, 2)
        return self.reset()[0], float(action.sum()), False, False, {}


gym.register("Named-v0", Named, max_episode_steps=2, disable_env_checker=True)


def test_copies_to_learn_in_speak_as_the_log_does():
    envs = make_envs("Named-v0", 3, learn=True)
    obs, _ = envs.reset(seed=[1, 2, 3])
    assert obs.tolist() == [[0, 1, 0, 0, 0]] * 3 and obs.dtype == np.float32
    assert envs.step(-np.ones((3, 2)))[1].tolist() == [0.0] * 3
    _, reward, _, truncated, _ = envs.step(np.ones((3, 2)))
    assert reward.tolist() == [12.0] * 3 and truncated.all()
    envs.reset(options={"reset_mask": truncated})
    assert not envs.step(np.ones((3, 2)))[3].any()


def test_an_action_space_that_is_not_the_environments_is_refused():
    box = gym.spaces.Box(-1.0, 1.0, (1,))
    with pytest.raises(
        DataError, match=r"takes actions in Box\(-2.0, 2.0.*log has them in Box\(-1.0"
    ):
        make_envs("Pendulum-v1", 1, box)
    with pytest.raises(DataError, match="takes actions in Discrete"):
        make_envs("CartPole-v1", 1, box)
    with pytest.raises(DataError, match="takes actions in Discrete"):
        make_envs("CartPole-v1", 1, gym.spaces.Discrete(3))
    with pytest.raises(DataError, match="has no environment"):
        make_envs(None, 1)


# The tables


@pytest.mark.parametrize("env_id", TABLES.values())
def test_rows_of_the_table_are_probabilities(env_id):
    env = gym.make(env_id).unwrapped
    for row in env.P.values():
        for outcomes in row.values():
            assert sum(probability for probability, *_ in outcomes) == pytest.approx(1)
    P, R, start = tabular(env_id)
    assert P.shape == (*R.shape, len(R)) and start.sum() == pytest.approx(1)
    assert (P >= 0).all() and (P.sum(-1) <= 1 + 1e-12).all()
    with pytest.raises(ValueError, match="no table"):
        tabular("offrl/Fog-v0")


def chi_squared_fits(counts, probabilities):
    """Whether counts [..., n] fit probabilities [..., n]: within 5 deviations of chi-squared's mean."""
    expected = counts.sum(-1, keepdims=True) * probabilities
    assert counts[expected == 0].sum() == 0
    common = expected > 5
    statistic = ((counts - expected)[common] ** 2 / expected[common]).sum()
    return statistic < common.sum() + 5 * (2 * common.sum()) ** 0.5


def test_the_windy_grid_moves_as_its_table_says():
    envs = gym.make_vec("offrl/WindyGrid-v0", num_envs=2000)
    table = gym.make("offrl/WindyGrid-v0").unwrapped.P
    P, counts = np.zeros((35, 4, 35)), np.zeros((35, 4, 35))
    for s, a in np.ndindex(35, 4):
        for probability, following, reward, done in table[s][a]:
            P[s, a, following] += probability
            assert done == (following == 33) and reward == -(s != 33)
    obs, _ = envs.reset(seed=0)
    assert (obs == 14).all()
    over = np.zeros(2000, bool)
    for actions in some_actions(envs.action_space, 100):
        following, reward, terminated, truncated, _ = envs.step(actions)
        np.add.at(counts, (obs[~over], actions[~over], following[~over]), 1)
        assert (reward == over - 1.0).all() and (
            terminated[~over] == (following[~over] == 33)
        ).all()
        obs, over = following, over | terminated | truncated
    assert counts.sum() > 150_000 and chi_squared_fits(counts, P)


def test_optimal_q_is_a_fixed_point_and_no_policy_beats_it():
    for env_id in TABLES.values():
        P, R, start = tabular(env_id)
        best = optimal_q(P, R, 0.99)
        assert np.abs(best - (R + 0.99 * P @ best.max(-1))).max() < 1e-9
        greedy = np.eye(R.shape[1])[best.argmax(-1)]
        assert np.allclose(exact_q(P, R, greedy, 0.99), best, atol=1e-7)
        for policy in np.random.default_rng(0).dirichlet(np.ones(R.shape[1]), (5, len(R))):
            assert (exact_q(P, R, policy, 0.99) <= best + 1e-7).all()
        if env_id == "FrozenLake8x8-v1":
            assert start @ best.max(-1) == pytest.approx(0.4146, abs=5e-5)


def test_exact_q_agrees_with_rollouts():
    """The mean discounted return of 4,000 episodes lies within four standard errors of V(start)."""
    P, R, start = tabular("offrl/WindyGrid-v0")
    policy = 0.1 / 4 + 0.9 * np.eye(4)[optimal_q(P, R, 0.99).argmax(-1)]
    value = start @ (policy * exact_q(P, R, policy, 0.99)).sum(-1)
    streams = Streams([0])

    def act(obs):
        chances = torch.as_tensor(policy)[obs.argmax(-1)]
        return (streams.uniform(obs.shape[1])[..., None] > chances.cumsum(-1)[..., :-1]).sum(-1)

    played = rollout(act, make_envs("offrl/WindyGrid-v0", 4000), 1)
    error = played.discounted.std() / 4000**0.5
    assert played.lengths.max() < 100 and abs(played.discounted.mean() - value) < 4 * error


# The datasets


def seeds_of(dataset_id):
    storage = minari.MinariDataset(SHIPPED / dataset_id / "data").storage
    return [m.get("seed") for m in storage.get_episode_metadata(range(storage.total_episodes))]


@pytest.mark.parametrize(
    "dataset_id",
    ["maze/stitch-v0", "fog/two-route-v0", "fog/two-route-fumbles-v0", "windy/mixed-v0"],
)
def test_the_stored_seeds_and_actions_lead_through_the_logged_states(dataset_id):
    data, seeds = load(dataset_id), seeds_of(dataset_id)
    assert (None in seeds) == (dataset_id == "maze/stitch-v0") and len(seeds) == len(data.lengths())
    envs = gym.make_vec(data.env, num_envs=len(seeds))
    obs, _ = envs.reset(seed=seeds)
    obs = flat_obs(obs, envs.single_observation_space, lead=1)
    begins = np.r_[0, data.lengths().cumsum()[:-1]]
    action = data.action.numpy()
    for step in range(data.lengths().max()):
        known = np.flatnonzero((step < data.lengths()) & np.array([s is not None for s in seeds]))
        rows = begins[known] + step
        assert np.array_equal(obs[known], data.obs[rows].numpy())
        actions = np.zeros((len(seeds), *action.shape[1:]), action.dtype)
        actions[known] = action[rows]
        obs, reward, terminated, *_ = envs.step(actions)
        obs = flat_obs(obs, envs.single_observation_space, lead=1)
        assert np.array_equal(reward[known].astype(np.float32), data.reward[rows].numpy())
        assert np.array_equal(terminated[known], data.terminated[rows].numpy())


def plan_on_data(data, width=0.25, discount=0.98):
    """Dynamic programming on logged transitions alone; no environment, no map.

    States are squares of the given width; V(square) = max over the transitions logged in it of r + discount
    V(next square). Returns a policy: in each square the logged action that attains the maximum.
    """
    obs, next_obs = data.obs.double(), data.next_obs.double()
    squares, index = torch.unique(
        torch.floor((torch.cat([obs, next_obs]) + 0.5) / width), dim=0, return_inverse=True
    )
    here, there = index.chunk(2)
    value, alive = torch.zeros(len(squares)), 1 - data.terminated.float()
    for _ in range(100):  # more than the longest way has steps
        q = data.reward + discount * alive * value[there]
        value = torch.zeros(len(squares)).scatter_reduce(0, here, q, "amax")
    best = torch.full((len(squares),), -1).scatter(0, here[q.argsort()], q.argsort())
    centres, best = (squares[best >= 0] + 0.5) * width - 0.5, best[best >= 0]

    def act(position):
        nearest = torch.cdist(position.double(), centres.expand(len(position), -1, -1)).argmin(-1)
        return data.action[best[nearest]]

    return act


def test_the_maze_can_be_solved_only_by_joining_pieces():
    """No logged episode leads from the start to the goal; a plan on the logged transitions does; BC does not."""
    data = load("maze/stitch-v0")
    first = np.r_[0, data.lengths().cumsum()[:-1]]
    starts = torch.round(data.obs[first]).long().numpy()
    from_start = CELLS[tuple(starts.T)] == "S"
    assert from_start.sum() == 460 and (CELLS[tuple(starts[~from_start].T)] == "M").all()
    returns = data.returns()
    assert returns[from_start].max() == 0.5 and (returns[~from_start] == 1).all()
    assert (~from_start).mean() < 0.1  # the best 10 % hold snack episodes too

    played = rollout(plan_on_data(data), make_envs(data.env, 20), 1)
    assert (played.returns == 1).mean() >= 0.9
    nets, _ = train(data, Config(updates=3000), seeds=range(2))
    returns = rollout(nets.policy.mode, make_envs(data.env, 80), 2).returns
    assert (returns == 1).mean() <= 0.05


def safe_share(act, policies, flights=400):
    """Share of flights without a crash, [S]; act: obs [S, E, 3] -> actions [S, E, 1]."""
    envs = gym.make_vec("offrl/Fog-v0", num_envs=policies * flights)
    obs, _ = envs.reset(seed=[10_000 + i for i in range(flights)] * policies)
    crashed = np.zeros(len(obs), bool)
    for _ in range(12):
        action = act(torch.as_tensor(obs).unflatten(0, (policies, flights)))
        obs, _, terminated, *_ = envs.step(action.flatten(0, 1).numpy())
        crashed |= terminated
    return 1 - crashed.reshape(policies, flights).mean(1)


def test_fog_logs_are_as_safe_as_their_cards_say():
    for name, low, high in (("two-route", 1.0, 1.0), ("two-route-fumbles", 0.93, 0.975)):
        data = load(f"fog/{name}-v0")
        safe = 1 - data.terminated.sum() / len(data.returns())
        assert low <= safe <= high
        passed = data.next_obs[(data.obs[:, 1] == -1) & ~data.terminated][:, 0]
        assert 0.47 < (passed > 0).double().mean() < 0.53  # a fair coin
        assert passed.abs().min() >= 0.2


def test_cloning_the_fog_data_with_one_mode_crashes():
    """Unimodal clones trained on the data: the MSE mean, the Gaussian's mean, the Gaussian sampled."""
    data = load("fog/two-route-v0")
    noise = torch.Generator().manual_seed(0)
    clones = {
        head: train(data, Config(head=head, updates=2000), seeds=range(2))[0].policy
        for head in ("deterministic", "gaussian")
    }

    def sampled(obs):
        draw = torch.randn(*obs.shape[:2], 1, generator=noise)
        return clones["gaussian"].sample(obs, draw)

    with torch.no_grad():
        assert (safe_share(clones["deterministic"].mode, 2) < 0.1).all()
        assert (safe_share(clones["gaussian"].mode, 2) < 0.1).all()
        assert (safe_share(sampled, 2) < 0.5).all()


def jumps(centre, width, shape):
    """Policies that jump at a pillar to y = centre + width * noise; [S] each. shape: gaussian or uniform."""
    generator = torch.Generator().manual_seed(0)

    def act(obs):
        noise = torch.randn(obs.shape[:2], generator=generator)
        if shape == "uniform":
            noise = 2 * torch.rand(obs.shape[:2], generator=generator) - 1
        y, distance, _ = obs.unbind(-1)
        jump = centre[:, None] + width[:, None] * noise - y
        return torch.where(distance == -1, jump, -0.6 * y).clamp(-1, 1)[..., None]

    return act


def test_no_unimodal_density_both_fits_the_fog_data_and_flies_safely():
    """What is claimed, precisely: imitation by a unimodal density fails, for two reasons.

    Fit: among jumps to y ~ N(c, sigma^2), all c and sigma, the one of highest likelihood on the logged jumps
    is unsafe, and every one that is safe in half the flights fits worse by more than 2 nats a jump. An
    optimiser with rewards may well choose such a one: keeping to one side is safe, but it is not the data.
    Any shape: a unimodal density that ends on both sides equally often, with probability l each, is nowhere in
    the gap (width 0.4) lower than on that side (width 0.8) which lies beyond the gap from its mode. So it has
    at least l / 2 in the gap, 2 l + l / 2 <= 1, and passes four pillars with (2 l)^4 <= 0.8^4 = 41 % at most.
    """
    data = load("fog/two-route-v0")
    at_pillar = data.obs[:, 1] == -1
    landing = (data.obs[:, 0] + data.action[:, 0])[at_pillar]  # where the jump was meant to end
    centre, width = torch.meshgrid(
        torch.linspace(0, 0.9, 10),
        torch.tensor([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 1.2]),
        indexing="ij",
    )
    centre, width = centre.flatten(), width.flatten()
    fit = torch.distributions.Normal(centre, width).log_prob(landing[:, None]).mean(0).numpy()
    safe = safe_share(jumps(centre, width, "gaussian"), len(centre), 200)
    assert safe[fit.argmax()] < 0.5 and centre[fit.argmax()] == 0
    assert safe.max() > 0.95 and fit[safe >= 0.5].max() < fit.max() - 2

    width = torch.linspace(0.1, 1.5, 15)
    for shape in ("gaussian", "uniform"):
        assert safe_share(jumps(0 * width, width, shape), 15).max() < 0.8**4 + 0.05


@pytest.mark.parametrize("dataset_id", TABLES)
def test_what_is_stored_as_exact_is_exact(dataset_id):
    exact, data = np.load(SHIPPED / dataset_id / "data" / "exact.npz"), load(dataset_id)
    P, R, start = tabular(TABLES[dataset_id])
    discount, behaviour = float(exact["discount"]), exact["behaviour"]
    assert discount == 0.99 and np.array_equal(exact["start"], start)
    assert np.allclose(exact["optimal_q"], optimal_q(P, R, discount), atol=1e-8)
    for policy, q in zip(behaviour, exact["behaviour_q"], strict=True):
        assert np.allclose(q, exact_q(P, R, policy, discount), atol=1e-8)
    obs, counts = data.obs.argmax(-1).numpy(), np.zeros(behaviour.shape)
    who = exact["policy_of_episode"][data.episode.numpy()]
    assert len(exact["policy_of_episode"]) == len(data.returns())
    np.add.at(counts, (who, obs, data.action.numpy()), 1)
    for k, policy in enumerate(behaviour):
        assert chi_squared_fits(counts[k], policy)
    card = (SHIPPED / dataset_id / "README.md").read_text()
    values = (behaviour * exact["behaviour_q"]).sum(-1) @ start
    for value in (*values, start @ exact["optimal_q"].max(-1)):
        assert f"{value:.4f}" in card


@pytest.mark.parametrize("dataset_id", TABLES)
def test_the_grids_reward_more_than_imitation(dataset_id):
    """Greedy on the log's own frequencies beats the behaviour and its most frequent action, by exact values."""
    data = load(dataset_id)
    P, R, start = tabular(TABLES[dataset_id])
    obs, next_obs = data.obs.argmax(-1).numpy(), data.next_obs.argmax(-1).numpy()
    moves, rewards = np.zeros(P.shape), np.zeros(R.shape)
    np.add.at(moves, (obs, data.action.numpy(), next_obs), 1)
    np.add.at(rewards, (obs, data.action.numpy()), data.reward.numpy())
    counts = moves.sum(-1)
    ends = np.isin(np.arange(len(R)), next_obs[data.terminated.numpy()])
    seen = np.maximum(counts, 1)
    worst = np.where(counts > 0, rewards / seen, -100)  # a pair never logged is not tried
    q = optimal_q(moves * ~ends / seen[..., None], worst, 0.99)

    def value(policy):
        return start @ (policy * exact_q(P, R, policy, 0.99)).sum(-1)

    frequencies = (counts + 1e-9) / (counts + 1e-9).sum(-1, keepdims=True)
    mode, greedy = np.eye(4)[counts.argmax(-1)], np.eye(4)[q.argmax(-1)]
    best = start @ optimal_q(P, R, 0.99).max(-1)
    assert value(frequencies) < value(mode) < value(greedy)
    assert value(greedy) - value(mode) > 0.8 * (best - value(mode))
