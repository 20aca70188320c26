"""Sequences: returns-to-go, windows, both masks, the request's bookkeeping, relabelling, limits."""

import gymnasium as gym
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from offrl_nb import Streams, from_arrays, load, rollout
from offrl_nb.envs import make_envs
from offrl_nb.methods import dt
from offrl_nb.methods.dt import (
    DT,
    Config,
    Player,
    RvS,
    learn_v,
    may_see,
    relabel,
    sequence_loss,
    timeline,
    train,
    windows,
)


def small_log(discrete=False):
    """Three episodes of 3, 6 and 2 rows with rewards of both signs."""
    generator = np.random.default_rng(0)
    episode = np.repeat([0, 1, 2], [3, 6, 2])
    obs, action = generator.normal(size=(11, 3)), generator.uniform(-1, 1, (11, 2))
    if discrete:
        action = np.arange(11) % 4
    ends = np.append(episode[1:] != episode[:-1], True)
    return from_arrays(
        obs, action, generator.normal(size=11), obs + 1, ends, ~ends & False, episode
    )


def setting(discrete=False, **changes):
    data, streams = small_log(discrete), Streams(2)
    config = Config(**({"context": 4, "layers": 2, "heads": 2, "batch_size": 16} | changes))
    net = DT(data, config, streams, *timeline(data))
    return data, net, list(windows(data, config, streams, *timeline(data)))


def test_returns_to_go_and_places_against_a_loop():
    for data in (small_log(), load("cartpole/mixed-v0")):
        before, after, togo = timeline(data)
        reward, episode = data.reward.double().numpy(), data.episode.numpy()
        running, steps = 0.0, 0
        for i in reversed(range(len(data))):
            same = i + 1 < len(data) and episode[i] == episode[i + 1]
            running, steps = reward[i] + running * same, (steps + 1) * same
            assert abs(togo[i].item() - running) < 1e-4 and after[i] == steps
        first = before == 0
        assert torch.equal(before + after + 1, torch.as_tensor(data.lengths())[data.episode])
        assert np.allclose(togo[first], data.returns(), atol=1e-4)


def test_a_window_stays_in_its_episode_in_order_and_fills_on_the_left():
    data = small_log()
    numbered = data.obs.clone()
    numbered[:, 0] = torch.arange(11)
    data = from_arrays(
        numbered, data.action, data.reward, numbered, data.terminated, data.truncated, data.episode
    )
    columns = timeline(data)
    togo, obs, action, time, real = windows(data, Config(context=4), Streams(3), *columns)
    row = obs[..., 0].long()
    assert (real[..., -1]).all() and (real.diff(dim=-1, prepend=real[..., :1]) >= 0).all()
    assert torch.equal(data.episode[row], data.episode[row[..., -1:]].expand_as(row))
    assert (row.diff(dim=-1)[real[..., :-1]] == 1).all()
    first = real.int().argmax(-1, keepdim=True)
    starts = row.gather(-1, first).squeeze(-1)
    left = columns[1][starts] + 1
    assert torch.equal(real.sum(-1), left.clamp(max=4))
    assert torch.allclose(togo[real], columns[2][row][real], atol=1e-5)
    assert torch.equal(time, columns[0][row])
    assert torch.equal(action, data.action[row])


def test_starts_are_uniform_over_rows_so_episodes_come_by_length():
    data = small_log()
    config = Config(context=1, batch_size=20_000)
    *_, time, _ = windows(data, config, Streams([3]), *timeline(data))
    share = torch.bincount(time.flatten(), minlength=6) / time.numel()
    assert torch.allclose(share, torch.tensor([3, 3, 2, 1, 1, 1]) / 11, atol=0.01)


@pytest.mark.parametrize("discrete", [False, True])
def test_the_future_changes_nothing_to_the_last_bit(discrete):
    _, net, (togo, obs, action, time, _) = setting(discrete)
    real = torch.ones_like(time).bool()
    plain = net(togo, obs, action, time, real)
    for t in range(4):
        later = torch.arange(4) > t
        togo2, obs2 = torch.where(later, 99.0, togo), torch.where(later[:, None], -obs, obs)
        unseen = (torch.arange(4) >= t).view(-1, *[1] * (action.ndim - 3))
        action2 = torch.where(unseen, 0 * action, action)
        changed = net(togo2, obs2, action2, time, real)
        assert torch.equal(changed[:, :, : t + 1], plain[:, :, : t + 1])
    # what lies before does count: each of the three kinds of token
    first = torch.arange(4) == 0
    for changes in (
        (torch.where(first, 99.0, togo), obs, action),
        (togo, torch.where(first[:, None], -obs, obs), action),
        (togo, obs, torch.where(first.view(-1, *[1] * (action.ndim - 3)), 0 * action, action)),
    ):
        assert not torch.equal(net(*changes, time, real)[:, :, 1:], plain[:, :, 1:])


def test_filling_changes_nothing_and_without_its_mask_it_does():
    _, net, (togo, obs, action, time, _) = setting()
    real = torch.ones_like(time).bool()
    short = net(*(x[:, :, 2:] for x in (togo, obs, action, time, real)))
    filled = torch.arange(4) < 2
    junk = (torch.where(filled, 1e3, togo), torch.where(filled[:, None], 7.0, obs), action, time)
    assert torch.allclose(net(*junk, real & ~filled)[:, :, 2:], short, atol=1e-5)
    assert (net(*junk, real)[:, :, 2:] - short).abs().max() > 1e-2
    assert torch.isfinite(net(*junk, real & ~filled)).all()


def test_may_see_by_hand():
    allowed = may_see(torch.tensor([[[False, True]]]))[0, 0, 0]
    by_hand = [[j <= i and (j >= 3 or j == i) for j in range(6)] for i in range(6)]
    assert allowed.tolist() == by_hand


def test_attention_is_pytorchs():
    """With the layer norms and the MLP taken away, a layer is scaled_dot_product_attention."""
    _, net, _ = setting()
    layer, real = net.layers[0], torch.ones(2, 16, 4, dtype=torch.bool)
    x = torch.randn(2, 16 * 12, 32)
    allowed = may_see(real)
    q, k, v = layer.project(layer.norms[0](x)).view(2, 16, 12, 3, 2, 16).unbind(3)
    q, k, v = (part.transpose(2, 3) for part in (q, k, v))
    heard = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
    heard = layer.out(heard.transpose(2, 3).reshape(2, 16 * 12, 32))
    between = x + heard
    wanted = between + layer.mlp(layer.norms[1](between))
    assert torch.allclose(layer(x, allowed), wanted, atol=1e-5)


def test_the_three_tokens_of_a_step_share_its_clock_and_times_beyond_the_log_its_last():
    _, net, (togo, obs, action, time, real) = setting()
    with torch.no_grad():
        net.clock[:] = 0
        still = net(togo, obs, action, time, real)
        assert torch.equal(net(togo, obs, action, time * 0, real), still)
        net.clock.normal_()
    assert net.clock.shape == (2, 6, 32)  # the longest episode has six rows
    late, later = (net(togo, obs, action, time * 0 + t, real) for t in (5, 5_000))
    assert torch.equal(late, later)


@pytest.mark.parametrize("discrete", [False, True])
def test_the_loss_counts_real_steps_only(discrete):
    _, net, window = setting(discrete)
    out, real = net(*window), window[-1]
    assert not real.all()
    if discrete:
        error = F.cross_entropy(out.flatten(0, 2), window[2].flatten(), reduction="none")
        error = error.view_as(real)
    else:
        error = ((out.tanh() - window[2]) ** 2).sum(-1)
    wanted = torch.stack([error[s][real[s]].mean() for s in range(2)])
    assert torch.allclose(sequence_loss(net, window), wanted, atol=1e-6)


def test_rvs_reads_the_average_and_nothing_but_its_own_step():
    data, streams = small_log(), Streams(2)
    net = RvS(data, Config(), streams, *timeline(data))
    togo, obs, action, time, real = windows(data, Config(context=4), streams, *timeline(data))
    assert net.horizon == 6
    assert torch.allclose(net.inputs(togo, obs, time)[..., 0], togo / (6 - time))
    plain = net(togo, obs, action, time, real)
    # the same average at another time is the same question
    assert torch.allclose(
        net(togo / (6 - time) * 6, obs, action * 0, time * 0, ~real), plain, atol=1e-4
    )


class Recorder(torch.nn.Module):
    """Stands in for a network and keeps what it was shown."""

    n_actions = None

    def forward(self, *window):
        self.seen = window
        out = torch.zeros(*window[0].shape, 2)
        return out + window[3].unsqueeze(-1) / 10  # a different action at each time


def test_the_players_bookkeeping():
    player = Player(Recorder(), 10.0, 3, torch.full((2,), 0.5))
    player.begin(2, 4)
    rewards = [1.0, -2.0, 0.5, 4.0]
    for t, reward in enumerate(rewards):
        action = player.mode(torch.full((2, 4, 3), float(t)))
        togo, obs, actions, time, real = player.net.seen
        n = min(t + 1, 3)
        left = [10.0 - sum(rewards[:i]) for i in range(t + 1)][-n:]
        assert togo.shape == (2, 4, n) and real.all()
        assert torch.allclose(togo, torch.tensor(left).expand_as(togo))  # minus the reward
        assert time[0, 0].tolist() == list(range(t + 1))[-n:]
        assert obs[0, 0, :, 0].tolist() == list(range(t + 1))[-n:]
        past = torch.tensor(range(t)[-(n - 1) :] if n > 1 else []).float() / 10
        assert torch.allclose(actions[0, 0, :-1, 0], past.tanh())
        assert torch.equal(actions[..., -1, :], torch.full((2, 4, 2), 0.5))  # the stand-in
        assert torch.allclose(action, torch.tensor(t / 10).tanh())
        player.receive(torch.full((2, 4), reward))
    player.begin(1, 1)
    assert not player.history and player.left.tolist() == [[10.0]]


def test_at_the_rollout_it_predicts_what_it_was_trained_to():
    """Along a logged episode, the player's inputs are those of a training window."""
    data, net, _ = setting()
    _, _, togo = timeline(data)
    rows = torch.arange(3, 9)  # the episode of six
    player = Player(net, togo[3].item(), 4, data.action[0], data.allowed)
    player.begin(2, 1)
    for i, row in enumerate(rows):
        played = player.mode(data.obs[row].expand(2, 1, -1))
        recent = rows[max(0, i - 3) : i + 1]
        window = [x[recent].expand(2, 1, *x[recent].shape) for x in (togo, data.obs, data.action)]
        time = torch.arange(6)[max(0, i - 3) : i + 1].expand(2, 1, -1)
        out = net(*window, time, torch.ones_like(time).bool())[:, :, -1].tanh()
        assert torch.allclose(played, out, atol=1e-5)
        player.history[-1][2] = data.action[row].expand(2, 1, -1)  # what the log did instead
        player.receive(data.reward[row].expand(2, 1))


def test_a_relabelled_window_takes_its_last_label_and_goes_back_by_the_rewards():
    data = small_log()
    columns = timeline(data)
    labels = torch.randn(3, 11)
    rows = torch.arange(11.0)[:, None].expand(-1, 3).clone()
    log = (data.action, data.reward, rows, data.terminated, data.truncated, data.episode)
    numbered = from_arrays(rows, *log)
    for discount in (1.0, 0.9):
        wished, obs, _, _, real = windows(
            numbered, Config(context=4), Streams(3), *columns[:2], labels, discount
        )
        row = obs[..., 0].long()
        assert torch.allclose(wished[..., -1], labels.gather(1, row[..., -1]))
        left = (wished[..., :-1] - data.reward[row[..., :-1]]) / discount  # as a player counts
        assert torch.allclose(left[real[..., :-1]], wished[..., 1:][real[..., :-1]], atol=1e-5)


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_relabelling_by_hand_and_without_hope(discount):
    """The log's first episode is cut, its second ends; a cut has a future, an end has none."""
    data = small_log()
    data = from_arrays(
        *(data.obs, data.action, data.reward, data.next_obs),
        *(torch.arange(11) == 8, (torch.arange(11) == 2) | (torch.arange(11) == 10)),
        data.episode,
    )
    value, _ = learn_v(data, Config(updates=2), Streams(2))
    _, after, togo = timeline(data)
    hope = value(data.next_obs.expand(2, -1, -1)).squeeze(-1) * ~data.terminated
    wanted = data.reward + discount * hope
    for i in reversed(range(11)):
        if after[i] > 0:
            best = torch.maximum(wanted[:, i + 1], hope[:, i])
            wanted[:, i] = data.reward[i] + discount * best
    assert torch.allclose(relabel(data, after, value, discount), wanted, atol=1e-5)
    with torch.no_grad():
        value.layers[-1].bias -= 1e4  # nothing better than what happened
    if discount == 1:
        ended = slice(3, 9)
        labels = relabel(data, after, value, discount)[:, ended]
        assert torch.allclose(labels, togo[ended].expand(2, -1), atol=1e-4)


def test_labels_and_requests_of_qdt_are_discounted():
    """The request is the best discounted return of the log, and grows back as it is played."""
    dataset = load("maze/stitch-v0")
    player = train(dataset, Config("qdt", discount=0.9, updates=1), [0, 1])[0].policy
    time, _, _ = timeline(dataset)
    paid = np.bincount(dataset.episode, (0.9**time * dataset.reward).numpy())
    assert np.isclose(player.request, paid.max(), atol=1e-5)
    player.begin(2, 3)
    player.receive(torch.full((2, 3), 0.25))
    assert torch.allclose(player.left, torch.tensor((player.request - 0.25) / 0.9))


def test_values_approach_the_best_of_a_known_chain():
    """Two states in a row; the second pays 0 or 1 with equal frequency, then it ends."""
    n = 200
    obs = np.tile([[0.0], [1.0]], (n, 1))
    reward = np.zeros(2 * n)
    reward[1::4] = 1.0
    ends = np.tile([False, True], n)
    data = from_arrays(
        obs, np.zeros((2 * n, 1)), reward, obs + 1, ends, ~ends & False, np.arange(2 * n) // 2
    )
    values = {}
    for expectile in (0.5, 0.9):
        config = Config(expectile=expectile, discount=0.9, updates=500)
        value, _ = learn_v(data, config, Streams(2))
        values[expectile] = value(torch.tensor([[0.0], [1.0]]).expand(2, -1, -1)).squeeze(-1)
    # the tau-expectile of a fair coin is tau; one step before, discounted
    for expectile, v in values.items():
        assert torch.allclose(v[:, 1], torch.tensor(expectile), atol=0.06)
        assert torch.allclose(v[:, 0], torch.tensor(0.9 * expectile), atol=0.08)


def test_with_the_return_silenced_it_is_cloning_with_context():
    """Without its return tokens' content the request changes nothing, and the actions are cloned."""
    data = load("pendulum/narrow-v0")
    nets, log = train(data, Config(updates=150), [0, 1])
    with torch.no_grad():
        nets.sequence.tokens[0].layers[0].weight[:] = 0
    config = Config(batch_size=64)
    togo, *rest = windows(data, config, Streams(2), *timeline(data))
    out = nets.sequence(togo, *rest)
    assert torch.equal(out, nets.sequence(togo * 0 - 7, *rest))
    assert log.loss.iloc[-1] < 0.5 * log.loss.iloc[0]


def test_the_seconds_of_qdt_hold_its_values_and_a_stage_that_was_stopped_stops_the_run(monkeypatch):
    dataset, config = load("maze/stitch-v0"), Config("qdt", updates=2)
    monkeypatch.setattr(dt, "learn_v", lambda *given: told(learn_v(*given), seconds=1e6))
    assert train(dataset, config, [0])[1].attrs["seconds"] > 1e6
    monkeypatch.setattr(dt, "learn_v", lambda *given: told(learn_v(*given), stopped="by hand"))
    _, table = train(dataset, config, [0])
    assert table.attrs["stopped"] == "by hand" and table.attrs["updates"] == 0


def told(stage, **about):
    stage[1].attrs.update(about)
    return stage


@pytest.mark.parametrize("variant", ["dt", "rvs"])
def test_an_action_that_the_log_does_not_hold_is_never_played(variant):
    data = small_log(discrete=True)
    data = from_arrays(**(data.arrays() | {"action_space": gym.spaces.Discrete(6)}))
    policy = train(data, Config(variant, updates=2), [0, 1])[0].policy
    last = policy.net.head if variant == "dt" else policy.net.body
    policy.begin(2, 50)
    with torch.no_grad():
        last.layers[-1].bias[..., 4:] = 1e4  # the network would love to
        for play in (policy.mode, lambda obs: policy.sample(obs, torch.rand(2, 50, 6))):
            assert play(torch.randn(2, 50, 3)).max() < 4
            policy.receive(torch.zeros(2, 50))


@pytest.mark.parametrize("variant", ["dt", "rvs"])
def test_samples_come_with_the_probabilities_of_the_softmax(variant):
    data, n = small_log(discrete=True), 20_000
    policy = train(data, Config(variant, updates=2), [0])[0].policy
    obs = data.obs[:1].expand(1, n, -1)
    policy.begin(1, n)
    with torch.no_grad():
        drawn = policy.sample(obs, Streams(1).uniform(n, 4))
        togo, _, action, time = (x[:, :1, None] for x in policy.history[0])
        chances = policy.net(togo, obs[:, :1, None], action, time, time == 0).softmax(-1)
    share = torch.bincount(drawn.flatten(), minlength=4) / n
    assert torch.allclose(share, chances.flatten(), atol=0.02)
    assert torch.equal(policy.history[0][2], drawn)  # what was played is remembered


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("discount", x) for x in (0.0, 1.1)),
        *(("expectile", x) for x in (0.4, 1.0)),
        *(("context", 0), ("prompt", float("nan")), ("variant", "tt"), ("heads", 3)),
    ],
)
def test_settings_outside_their_range_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        Config(**{field: value})


def test_the_prompt_spans_the_logs_returns_and_can_be_changed_afterwards():
    dataset = load("maze/stitch-v0")
    for prompt in (0, 0.5, 1, 1.5):
        policy = train(dataset, Config(prompt=prompt, updates=1), [0])[0].policy
        assert np.isclose(policy.request, prompt)
    policy.request = 0.25
    rollout(policy.mode, make_envs(dataset.env, 2), 1)
    assert policy.left.max() <= 0.25
