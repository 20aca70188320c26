"""RLPD: the halves, the bound, the subset, the losses by hand, and SAC as a limit."""

import dataclasses

import gymnasium as gym
import numpy as np
import pytest
import torch
from conftest import small_log

from offrl_nb import Batch, DataError, Streams, evaluator, from_arrays, load
from offrl_nb.envs import make_envs
from offrl_nb.methods import finetune, problem, rlpd
from offrl_nb.methods.rlpd import (
    WITHOUT,
    Config,
    Nets,
    deal,
    draw_members,
    largest_value,
    logged_rows,
    make_update,
    rlpd_target,
    train,
)
from offrl_nb.nets import Critic

ENDS = torch.tensor([1.0, 0, 0, 1, 0, 0])


def setting(**changes):
    """Untrained networks of two seeds, a batch, and the settings."""
    data = small_log()
    config = Config(discount=0.9, hidden=(16, 16), **changes)
    nets = Nets(data, config, Streams([0, 1]))
    nets.target_critic.load_state_dict(Nets(data, config, Streams([5, 6])).critic.state_dict())
    nets.log_coef.data.fill_(-1.0)
    batch = data.rows(torch.arange(6).expand(2, -1))._replace(terminated=ENDS.expand(2, -1))
    return nets, batch, config


def rows(source, count, seeds=2):
    """A batch whose rewards say where a row comes from and which one it is."""
    number = torch.arange(count, dtype=torch.float32).expand(seeds, -1)
    reward = 1_000 * source + number
    return Batch(reward[..., None], reward[..., None], reward, reward[..., None], reward)


# Halves


@pytest.mark.parametrize("updates", [1, 2, 4, 20])
@pytest.mark.parametrize(("logged", "own"), [(8, 8), (4, 12), (15, 1), (16, 0), (0, 16)])
def test_every_minibatch_has_its_exact_share(updates, logged, own):
    dealt = deal(updates, rows(1, updates * logged), rows(2, updates * own))
    for column in dealt:
        assert column.shape[:3] == (2, updates, 16)
    source = (dealt.reward // 1_000).long()
    assert ((source == 1).sum(-1) == logged).all() and ((source == 2).sum(-1) == own).all()
    # nothing is lost and nothing is used twice
    wanted = torch.cat([rows(1, updates * logged).reward, rows(2, updates * own).reward], 1)
    assert torch.equal(dealt.reward.flatten(1).sort(-1).values, wanted.sort(-1).values)
    # the columns of a row stay together
    assert torch.equal(dealt.obs.squeeze(-1), dealt.reward)


@pytest.mark.parametrize("updates", [1, 3])
def test_training_gives_every_update_exact_halves(monkeypatch, updates):
    seen = []

    def spy(nets, batch, target):
        seen.append((batch.reward == -777).sum(-1))
        return problem.critic_loss(nets, batch, target)

    narrow = load("pendulum/narrow-v0")
    marked = dataclasses.replace(narrow, reward=torch.full_like(narrow.reward, -777))
    monkeypatch.setattr(rlpd, "critic_loss", spy)
    config = Config(critic_updates=updates, batch_size=10, warm_up=5, online_steps=4)
    train(marked, config, [0, 1])
    assert len(seen) == 4 * updates
    assert all((count == 5).all() for count in seen)


def test_one_buffer_draws_in_proportion():
    config = Config(variant="one_buffer", batch_size=100)
    assert logged_rows(config, 900, 100) == 90
    assert logged_rows(config, 1, 10**6) == 0
    assert logged_rows(Config(batch_size=100), 900, 100) == 50
    assert logged_rows(Config(offline_share=0.25, batch_size=100), 900, 100) == 25


# The bound


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_bound_holds_everywhere_and_is_not_idle(seed):
    critic = Critic(3, 2, Streams([seed, 9]), (16, 16), members=3, layer_norm=True)
    generator = torch.Generator().manual_seed(seed)
    for parameter in critic.parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator)
    scale = 10 ** torch.linspace(-3, 6, 400)[:, None]
    obs, action = (scale * torch.randn(2, 400, d, generator=generator) for d in (3, 2))
    q = critic(obs, action).abs().amax(-1)  # [K, S]
    assert (q <= largest_value(critic)).all()
    assert (q > largest_value(critic) / 30).all()
    assert largest_value(critic).shape == (3, 2)


def test_the_bound_by_hand():
    critic = Critic(1, 1, Streams([0]), (2, 2), members=1, layer_norm=True)
    critic.body.norms[-1].offset.data.zero_()
    critic.body.norms[-1].gain.data.fill_(3.0)
    critic.body.layers[-1].weight.data.fill_(2.0)
    critic.body.layers[-1].bias.data.fill_(0.5)
    # two numbers are normalised to (1, -1) or (-1, 1), of which the ReLU leaves one
    q = critic(torch.linspace(-5, 5, 50)[None, :, None], torch.zeros(1, 50, 1))
    assert q.max().item() == pytest.approx(3 * 2 + 0.5, abs=1e-3)
    assert largest_value(critic).item() == pytest.approx(2 * np.sqrt(2) * 3 * np.sqrt(2) + 0.5)


# The ensemble


@pytest.mark.parametrize("subset", [1, 2, 3, 5])
def test_members_are_drawn_without_replacement_once_a_step(subset):
    streams = Streams([3, 4])
    q = torch.arange(5.0)[:, None, None].expand(5, 2, 7)
    drawn = torch.stack([draw_members(q, subset, streams) for _ in range(200)])  # [200, Z, S, B]
    assert (drawn == drawn[..., :1]).all(), "one subset for all rows"
    members = drawn[..., 0]  # [200, Z, S]
    assert all(len(set(m.tolist())) == subset for step in members for m in step.T)
    counts = torch.stack([(members == k).float().mean((0, 1)) for k in range(5)])  # [K, S]
    assert ((counts - 0.2).abs() < 0.1).all(), "every member has its turn"
    if 1 < subset < 5:
        assert not torch.equal(members[:, :, 0], members[:, :, 1]), "seeds draw for themselves"


@pytest.mark.parametrize("entropy", [True, False])
def test_target_by_hand(entropy, monkeypatch):
    nets, batch, config = setting(entropy_backup=entropy, ensemble=3)
    monkeypatch.setattr(rlpd, "draw_members", lambda q, subset, streams: q[[2, 0]])
    noise = Streams([7, 8]).normal(6, 2)
    action, log_prob = nets.policy.sample_with_log_prob(batch.next_obs, noise)
    q = nets.target_critic(batch.next_obs, action)
    future = torch.minimum(q[0], q[2]) - entropy * np.exp(-1) * log_prob
    wanted = batch.reward + 0.9 * future * (1 - batch.terminated)
    target = rlpd_target(nets, batch, config, noise, None)
    assert torch.allclose(target, wanted, atol=1e-6)
    assert torch.equal(target[:, [0, 3]], batch.reward[:, [0, 3]])


@pytest.mark.parametrize("smallest", [True, False])
def test_policy_climbs_the_mean_unless_told_otherwise(smallest):
    nets, batch, _ = setting(smallest=smallest)
    noise = Streams([7, 8]).normal(6, 2)
    action, log_prob = nets.policy.sample_with_log_prob(batch.obs, noise)
    q = nets.critic(batch.obs, action)
    climbed = q.amin(0) if smallest else q.sum(0) / 4
    loss, said = problem.sac_policy_loss(nets, batch, noise)
    assert torch.allclose(loss, (np.exp(-1) * log_prob - climbed).mean(-1), atol=1e-6)
    assert torch.allclose(said, log_prob) and not said.requires_grad


def test_an_update_moves_critics_often_and_the_policy_once(monkeypatch):
    nets, batch, config = setting(critic_updates=3)
    calls = {"critic_loss": 0, "sac_policy_loss": 0}
    for name in calls:
        given = getattr(rlpd, name)

        def counted(*arguments, given=given, name=name):
            calls[name] += 1
            return given(*arguments)

        monkeypatch.setattr(rlpd, name, counted)
    update = make_update(nets, Streams([0, 1]), config)
    update(Batch(*(x.unsqueeze(1).expand(-1, 3, *x.shape[1:]) for x in batch)))
    assert calls == {"critic_loss": 3, "sac_policy_loss": 1}


# Limits


def test_with_everything_undone_it_is_sac_online():
    narrow = load("pendulum/narrow-v0")
    same = {"discount": 0.9, "batch_size": 16, "hidden": (16, 16)}
    config = Config("sac", critic_updates=1, **same, online_steps=30)
    ours, log = train(narrow, config, [4, 2])
    theirs, its_log = problem.train_online(
        narrow.env, problem.Config(updates=30, **same), seeds=[4, 2]
    )
    weights = dict(theirs.named_parameters())
    for name, value in ours.named_parameters():
        assert torch.equal(value, weights[name]), name
    assert np.array_equal(log.td_loss, its_log.td_loss)


def test_without_offline_rows_the_log_has_no_say():
    narrow = load("pendulum/narrow-v0")
    other = dataclasses.replace(narrow, reward=torch.full_like(narrow.reward, torch.nan))
    config = Config(offline_share=0.0, warm_up=20, online_steps=5, hidden=(16, 16))
    nets = [train(data, config, [0])[0] for data in (narrow, other)]
    for a, b in zip(*(n.parameters() for n in nets), strict=True):
        assert torch.equal(a, b)
    sick, _ = train(other, dataclasses.replace(config, offline_share=0.5), [0])
    assert any(p.isnan().any() for p in sick.parameters())


def test_pretraining_uses_the_log_alone_and_then_plays():
    narrow = load("pendulum/narrow-v0")
    config = Config(pretrain=3, warm_up=4, online_steps=2, hidden=(16, 16))
    _, log = train(narrow, config, [0, 1])
    assert log.attrs["updates"] == 2 and log.step.max() == 2


def test_a_stop_while_learning_from_the_log_alone_stops_the_run(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(rlpd, "deal", interrupted)
    config = Config(pretrain=3, warm_up=4, online_steps=2, hidden=(16, 16))
    _, log = train(load("pendulum/narrow-v0"), config, [0, 1])
    assert log.attrs["updates"] == 0 and "by hand in update 1 of 3" in log.attrs["stopped"]


@pytest.mark.parametrize("variant", WITHOUT)
def test_each_variant_leaves_one_thing_out(variant):
    narrow = load("pendulum/narrow-v0")
    config = Config(variant, warm_up=10, online_steps=2, hidden=(16, 16))
    nets, _ = train(narrow, config, [0])
    two = variant in ("two_critics", "sac")
    assert len(nets.critic.body.layers[0].weight) == (2 if two else 4)
    assert bool(nets.critic.body.norms) == (variant not in ("no_norm", "sac"))


@pytest.mark.parametrize("variant", ["no_log", "sac"])
def test_seeds_stay_apart_where_no_row_of_the_log_is_drawn(variant, monkeypatch):
    narrow = load("pendulum/narrow-v0")
    config = Config(variant, warm_up=10, online_steps=5, hidden=(16, 16))
    clean, _ = train(narrow, config, [0, 1, 2])
    sample = problem.Replay.sample

    def poisoned(self, count):
        batch = sample(self, count)
        for column in batch:
            column[0] = torch.nan
        return batch

    monkeypatch.setattr(problem.Replay, "sample", poisoned)
    sick, _ = train(narrow, config, [0, 1, 2])
    policies = [[layer.weight for layer in nets.policy.body.layers] for nets in (clean, sick)]
    for well, ill in zip(*policies, strict=True):
        assert ill[0].isnan().any() and torch.equal(well[1:], ill[1:])
    critics = [[layer.weight for layer in nets.critic.body.layers] for nets in (clean, sick)]
    for well, ill in zip(*critics, strict=True):
        assert ill[:, 0].isnan().any() and torch.equal(well[:, 1:], ill[:, 1:])


# Environments and bad input


@pytest.mark.parametrize("dataset_id", ["maze/stitch-v0", "fog/two-route-v0"])
def test_plays_in_our_own_environments(dataset_id):
    nets, log = train(load(dataset_id), Config(warm_up=70, online_steps=3), [0, 1])
    assert log.step.max() == 3
    assert all(p.isfinite().all() for p in nets.parameters())


def test_data_that_cannot_be_used():
    with pytest.raises(DataError, match="continuous"):
        train(load("cartpole/mixed-v0"))
    with pytest.raises(DataError, match="no environment"):
        train(dataclasses.replace(load("pendulum/narrow-v0"), env=None))


def dict_pendulum():
    """A pendulum whose observations are a Dict of position and speed."""
    space = {"speed": gym.spaces.Box(-8, 8, (1,)), "at": gym.spaces.Box(-1, 1, (2,))}
    return gym.wrappers.TransformObservation(
        gym.make("Pendulum-v1").unwrapped,
        lambda obs: {"at": obs[:2], "speed": obs[2:]},
        gym.spaces.Dict(space),
    )


gym.register("tests/DictPendulum-v0", entry_point=dict_pendulum, max_episode_steps=10)


def dict_log():
    """An episode of nine random steps of it."""
    env = gym.make("tests/DictPendulum-v0")
    obs, columns = env.reset(seed=10_000)[0], []
    for step in range(9):
        action = env.action_space.sample()
        following, reward, *_ = env.step(action)
        columns.append((obs, action, reward, following, False, step == 8, 0))
        obs = following
    obs, action, reward, following, *rest = zip(*columns, strict=True)
    seen, then = ({k: np.stack([x[k] for x in rows]) for k in obs[0]} for rows in (obs, following))
    spaces = env.action_space, env.observation_space
    return from_arrays(seen, action, reward, then, *rest, *spaces, env="tests/DictPendulum-v0")


@pytest.mark.parametrize("module", [rlpd, finetune], ids=["rlpd", "finetune"])
def test_a_log_with_dict_observations_can_go_online(module):
    data = dict_log()
    obs, _ = make_envs(data.env, 1, data.action_space, learn=True).reset(seed=[10_000])
    assert np.allclose(obs[0], data.obs[0])  # the same numbers in the same order
    config = dataclasses.replace(module.Config(), batch_size=8, online_steps=15, warm_up=5)
    if hasattr(config, "updates"):
        config = dataclasses.replace(config, updates=5)
    nets, log = module.train(data, config, [0, 1], evaluator(data, 1), 1)
    assert np.isfinite(log["return"].dropna()).all() and len(log["return"].dropna()) == 2
    assert all(p.isfinite().all() for p in nets.parameters())


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"offline_share": 1.5}, r"offline_share is 1.5; it must be a number in \[0, 1\]"),
        ({"offline_share": 0.01, "batch_size": 32}, "which is 0 of 32 rows"),
        ({"offline_share": 0.99, "batch_size": 32}, "which is 32 of 32 rows"),
        ({"subset": 5}, "subset is 5, of 4 critics"),
        ({"warm_up": -1}, "warm_up"),
        ({"pretrain": -1}, "pretrain"),
        ({"entropy_coef": 0.0}, "entropy_coef"),
        ({"critic_updates": 0}, "critic_updates"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        Config(**wrong)


def test_a_subset_of_more_critics_than_a_variant_has_is_refused():
    with pytest.raises(ValueError, match="subset is 3, of 2 critics"):
        train(load("pendulum/narrow-v0"), Config("two_critics", subset=3))


def test_a_share_of_nothing_or_of_everything_is_a_share():
    for share in (0.0, 1.0):
        config = Config(offline_share=share, warm_up=5, online_steps=2, hidden=(16, 16))
        nets, _ = train(load("pendulum/narrow-v0"), config, [0])
        assert all(p.isfinite().all() for p in nets.parameters())
