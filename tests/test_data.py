"""Datasets: what load finds, what a Dataset computes, and one clear sentence for whatever is wrong."""

import importlib
import json
import os
import shutil
from pathlib import Path

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
import torch
from conftest import arrays
from minari.data_collector import EpisodeBuffer

import offrl_nb
from offrl_nb import data as data_module
from offrl_nb.data import (
    SHIPPED,
    DataError,
    from_arrays,
    load,
    scale_action,
    shipped_ids,
    unscale_action,
)

CARDS = [
    "cartpole/mixed-v0",
    "fog/two-route-fumbles-v0",
    "fog/two-route-v0",
    "frozenlake/mixed-v0",
    *(f"halfcheetah/{k}-v0" for k in ("expert", "medium", "medium-replay")),
    *(f"hopper/{k}-v0" for k in ("expert", "medium", "medium-replay", "random")),
    "maze/stitch-v0",
    *(f"pendulum/{k}-v0" for k in ("random", "replay", "medium", "narrow", "mixed", "covered")),
    "windy/mixed-v0",
]
ENVS = {
    "Pendulum-v1",
    "CartPole-v1",
    "FrozenLake8x8-v1",
    "HalfCheetah-v5",
    "Hopper-v5",
    "offrl/Fog-v0",
    "offrl/StitchMaze-v0",
    "offrl/WindyGrid-v0",
}


def one_sentence(error) -> str:
    """The message, which must be one line without a machine's traceback in it."""
    message = str(error.value)
    assert "\n" not in message and len(message) < 700, message
    return message


# What ships


@pytest.mark.parametrize("dataset_id", CARDS)
def test_shipped_dataset_matches_its_card(dataset_id):
    dataset = load(dataset_id)
    card = (SHIPPED / dataset_id / "README.md").read_text()
    returns = dataset.returns()
    d = 1 if np.ptp(returns) > 10 else 3
    assert f"{len(returns)}, {len(dataset):,}" in card
    assert f"{returns.mean():.{d}f} ± {returns.std():.{d}f}" in card
    assert f"{dataset.reference[0]:.{d}f}, {dataset.reference[1]:.{d}f}" in card
    assert dataset.env.id in ENVS


def test_everything_shipped_has_a_card_and_stays_small():
    assert shipped_ids() == sorted(CARDS)
    files = [f for i in CARDS for f in (SHIPPED / i).rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) < 26e6
    assert sum(len(load(i).returns()) for i in CARDS) <= 5000


@pytest.mark.parametrize("dataset_id", CARDS)
def test_transitions_chain_inside_an_episode_and_never_across(dataset_id):
    d = load(dataset_id)
    inside = d.episode[1:] == d.episode[:-1]
    assert torch.equal(d.next_obs[:-1][inside], d.obs[1:][inside])
    ends = d.terminated | d.truncated
    assert torch.equal(torch.nonzero(~inside).flatten(), torch.nonzero(ends[:-1]).flatten())
    assert not torch.equal(d.next_obs[:-1][~inside], d.obs[1:][~inside])
    assert bool(ends[-1])


def test_minari_itself_reads_what_we_ship(monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(SHIPPED))
    dataset = minari.load_dataset("pendulum/narrow-v0")
    assert dataset.total_episodes == 50 and dataset.total_steps == 10_000
    assert dataset.recover_environment().spec.id == "Pendulum-v1"
    assert dataset[0].observations.dtype == np.float32 and "total_steps=200" in repr(dataset[0])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("script", ["cartpole", "fog", "gridworlds", "maze"])
def test_the_quick_scripts_make_their_datasets_again(script, tmp_path, monkeypatch):
    """The same starts and nearly the same returns; other processors may round another last digit."""
    monkeypatch.syspath_prepend(str(SHIPPED))
    import shipping

    monkeypatch.setattr(shipping, "HERE", tmp_path)
    importlib.import_module(f"make_{script}").main()
    made = [i for i in CARDS if f"make_{script}.py" in (SHIPPED / i / "README.md").read_text()]
    shipped = {dataset_id: load(dataset_id) for dataset_id in made}
    monkeypatch.setattr(data_module, "SHIPPED", tmp_path)
    assert shipped_ids() == sorted(made)
    for dataset_id, before in shipped.items():
        again = load(dataset_id)
        assert len(again.returns()) == len(before.returns())
        assert torch.allclose(again.obs[:5], before.obs[:5], atol=1e-5)
        assert abs(again.returns().mean() - before.returns().mean()) < 0.05 * before.returns().std()
        if (SHIPPED / dataset_id / "data" / "exact.npz").exists():
            new, old = (np.load(p / dataset_id / "data" / "exact.npz") for p in (tmp_path, SHIPPED))
            assert all(np.allclose(new[name], old[name]) for name in old)


# What a Dataset computes


def test_returns_lengths_select_and_score(continuous):
    wanted = continuous.reward.view(6, 10).double().sum(1).numpy()
    assert np.allclose(continuous.returns(), wanted) and (continuous.lengths() == 10).all()
    part = continuous.select([4, 1])
    assert np.allclose(part.returns(), wanted[[1, 4]])  # the order of the log
    assert part.episode.unique().tolist() == [0, 1]
    with pytest.raises(DataError, match="no transition left"):
        continuous.select([99])
    with pytest.raises(DataError, match="no reference"):
        continuous.score(0.0)
    pendulum = load("pendulum/narrow-v0")
    assert np.allclose(pendulum.score(pendulum.reference), [0, 100])


def test_rows_are_the_logged_transitions(continuous, discrete):
    index = torch.tensor([[0, 59], [9, 10]])
    for dataset in (continuous, discrete):
        batch = dataset.rows(index)
        assert torch.equal(batch.obs, dataset.obs[index])
        assert torch.equal(batch.next_obs, dataset.next_obs[index])
        assert torch.equal(batch.action, dataset.action[index])
        assert torch.equal(batch.reward, dataset.reward[index])
        assert torch.equal(batch.terminated.bool(), dataset.terminated[index])
    assert discrete.rows(index).action.dtype == torch.int64


def test_a_column_changed_in_place_is_seen_by_the_next_batch(continuous):
    index = torch.tensor([[0]])
    continuous.rows(index)
    continuous.reward.mul_(10)
    assert continuous.rows(index).reward.item() == continuous.reward[0].item()


def test_a_truncated_step_still_bootstraps(continuous):
    batch = continuous.rows(torch.nonzero(continuous.truncated).T)
    assert (batch.terminated == 0).all()


def test_batches_draw_every_row_equally_often(continuous):
    streams = offrl_nb.Streams(3)
    drawn = torch.stack(
        [next(b).reward for b in [continuous.batches(50, streams)] for _ in range(600)], 1
    )
    for seed in range(3):
        counts = torch.unique(drawn[seed], return_counts=True)[1].double()
        expected = counts.sum() / len(continuous)
        assert len(counts) == len(continuous)
        assert ((counts - expected) ** 2 / expected).sum() < 59 + 5 * (2 * 59) ** 0.5  # chi-squared


def test_action_scaling_is_its_own_inverse():
    space = gym.spaces.Box(np.array([-2.0, 0.0]), np.array([2.0, 10.0]), dtype=np.float64)
    assert np.allclose(scale_action(np.array([[-2.0, 10.0], [0.0, 5.0]]), space), [[-1, 1], [0, 0]])
    action = np.random.default_rng(0).uniform(-1, 1, (50, 2))
    assert np.allclose(scale_action(unscale_action(action, space), space), action)
    fixed = gym.spaces.Box(np.array([0.0, 3.0]), np.array([1.0, 3.0]), dtype=np.float64)
    logged = np.array([[0.5, 3.0]])
    assert np.allclose(unscale_action(scale_action(logged, fixed), fixed), logged)
    assert unscale_action(np.array([0, 2]), gym.spaces.Discrete(3, start=5)).tolist() == [5, 7]


@pytest.mark.parametrize("dataset_id", ["hopper/random-v0", "cartpole/mixed-v0"])
def test_arrays_are_what_from_arrays_takes(dataset_id):
    dataset = load(dataset_id)
    given = dataset.arrays()
    again = from_arrays(**given)
    for name in ("obs", "reward", "next_obs", "terminated", "truncated", "episode"):
        assert torch.equal(getattr(again, name), getattr(dataset, name)), name
    assert torch.allclose(again.action.double(), dataset.action.double(), atol=1e-6)
    assert again.action_space == dataset.action_space
    shifted = from_arrays(**arrays(discrete=True), action_space=gym.spaces.Discrete(9, start=-3))
    assert shifted.arrays()["action"].tolist() == arrays(discrete=True)["action"].tolist()
    five = gym.spaces.Box(0.0, 5.0, (2,))
    scaled = from_arrays(
        **(arrays() | {"action": 5 * np.abs(arrays()["action"])}), action_space=five
    )
    assert np.allclose(scaled.arrays()["action"], 5 * np.abs(arrays()["action"]), atol=1e-6)


def test_logs_go_together(continuous, discrete):
    both = continuous + continuous.select([1, 3])
    assert len(both) == 80 and both.episode.unique().tolist() == list(range(8))
    assert np.allclose(both.returns()[6:], continuous.returns()[[1, 3]])
    three = continuous.concatenate(continuous, continuous)
    assert three.lengths().tolist() == [10] * 18
    with pytest.raises(DataError, match="differ in obs_dim or action_space"):
        continuous + discrete


def test_the_actions_that_occur_are_known(discrete):
    assert discrete.allowed.tolist() == [True] * 3
    columns = arrays(discrete=True)
    columns["action"][columns["action"] == 1] = 0
    never = from_arrays(**columns, action_space=gym.spaces.Discrete(5))
    assert never.allowed.tolist() == [True, False, True, False, False]
    assert never.select([0]).allowed.sum() <= 2 and never.allowed.sum() == 2
    assert from_arrays(**arrays()).allowed is None


def test_another_precision_is_that_of_the_networks(continuous):
    with pytest.raises(DataError, match="set that first"):
        continuous.to(torch.float16)
    torch.set_default_dtype(torch.float64)
    try:
        assert continuous.to(torch.float64).obs.dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


# Bad input


@pytest.mark.parametrize("bad", ["obs", "action", "reward", "next_obs"])
def test_nan_is_named_with_its_row(bad):
    columns = arrays()
    columns[bad][17] = np.nan
    with pytest.raises(DataError) as error:
        from_arrays(**columns)
    assert f"{bad} is NaN or infinite in 1 rows (first: row 17, episode 1)" in one_sentence(error)


def test_wrong_shapes_are_named():
    for column, value in [
        ("obs", np.zeros((60, 3, 1))),
        ("action", np.zeros((59, 2))),
        ("reward", np.zeros((60, 1))),
        ("terminated", np.zeros(10)),
    ]:
        with pytest.raises(DataError) as error:
            from_arrays(**(arrays() | {column: value}))
        assert "shape" in one_sentence(error)
    with pytest.raises(DataError) as error:
        from_arrays(**(arrays() | {"next_obs": np.zeros((60, 4))}))
    assert "differ in shape" in one_sentence(error)
    with pytest.raises(DataError):
        from_arrays(**{key: value[:0] for key, value in arrays().items()})


def test_actions_out_of_bounds_and_scattered_episodes():
    with pytest.raises(DataError) as error:
        from_arrays(**(arrays() | {"action": np.full((60, 2), 1.5)}))
    assert "60 actions lie outside the action space" in one_sentence(error)
    with pytest.raises(DataError, match="outside"):
        from_arrays(**arrays(discrete=True), action_space=gym.spaces.Discrete(2))
    with pytest.raises(DataError) as error:
        from_arrays(**(arrays() | {"episode": np.arange(60) % 6}))
    assert "are scattered" in one_sentence(error)


def test_ordinary_logs_are_taken_as_they_are():
    labels = np.repeat(["monday", "tuesday", "a", "b", "c", "d"], 10)
    columns = arrays() | {"episode": labels}
    columns["obs"].flags.writeable = False
    dataset = from_arrays(**columns)
    assert dataset.episode.unique().tolist() == list(range(6))
    dataset.obs.zero_()
    assert columns["obs"].any()  # a copy: the reader's arrays are not touched
    assert len(repr(dataset)) < 200 and dataset == dataset and len({dataset}) == 1
    assert len(from_arrays(**{key: value[:1] for key, value in arrays().items()})) == 1


def test_discrete_actions_are_whole_numbers_and_continuous_ones_have_two_axes():
    with pytest.raises(DataError) as error:
        from_arrays(**(arrays() | {"action": np.linspace(-1, 1, 60)}))
    assert "others two, as floats" in one_sentence(error)
    with pytest.raises(DataError, match="one whole number a row"):
        from_arrays(**arrays(), action_space=gym.spaces.Discrete(3))
    with pytest.raises(DataError, match="not supported; use a Box or a Discrete"):
        from_arrays(**arrays(), action_space=gym.spaces.MultiDiscrete([3, 3]))
    columns = arrays(discrete=True)
    shifted = columns | {"action": columns["action"] + 5}
    dataset = from_arrays(**shifted, action_space=gym.spaces.Discrete(3, start=5))
    assert dataset.n_actions == 3 and np.array_equal(dataset.action, columns["action"])
    box = gym.spaces.Box(0.0, 10.0, ())
    assert from_arrays(**(arrays() | {"action": np.full(60, 5.0)}), action_space=box).act_dim == 1


def test_values_that_do_not_fit_into_32_bits_and_text():
    with pytest.raises(DataError, match=r"reward reaches 1e\+39; rescale it"):
        from_arrays(**(arrays() | {"reward": np.full(60, 1e39)}))
    with pytest.raises(DataError, match="turn it into numbers"):
        from_arrays(**(arrays() | {"reward": np.array(["high"] * 60)}))
    with pytest.raises(DataError, match="shape"):
        from_arrays(**(arrays() | {"reward": 1.0}))


def test_select_takes_a_mask(continuous):
    assert len(continuous.select(continuous.returns() > -np.inf)) == 60
    assert continuous.select(np.arange(6) == 2).returns() == pytest.approx(
        continuous.returns()[2:3]
    )


@pytest.mark.parametrize("dataset_id", ["narrow", "pendulum/narrow", "x/narrow-v0 ", "", None])
def test_malformed_id(dataset_id):
    with pytest.raises(DataError) as error:
        load(dataset_id)
    assert "There is no dataset" in one_sentence(error) and "pendulum/narrow-v0" in str(error.value)


def local_copy(dataset_id: str, name: str = "mine/log-v0") -> Path:
    """Copy a shipped dataset into the (test's own) local Minari folder, under another id."""
    target = Path(os.environ["MINARI_DATASETS_PATH"]) / name
    shutil.copytree(SHIPPED / dataset_id, target)
    return target / "data" / "main_data.hdf5"


@pytest.mark.parametrize("left", [0, 1000, 100_000, None])
def test_a_truncated_or_missing_file(left):
    file = local_copy("pendulum/narrow-v0")
    file.write_bytes(file.read_bytes()[:left]) if left is not None else file.unlink()
    with pytest.raises(DataError) as error:
        load("mine/log-v0")
    assert "cannot be read" in one_sentence(error) and "restore it, or update Minari" in str(
        error.value
    )


@pytest.mark.parametrize(
    "change", [{"total_steps": 9}, {"ref_min_score": "low"}, {"data_format": "x"}]
)
def test_metadata_that_does_not_fit(change):
    path = local_copy("pendulum/narrow-v0").with_name("metadata.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    if "ref_min_score" in change:
        assert load("mine/log-v0").reference is None
        return
    with pytest.raises(DataError) as error:
        load("mine/log-v0")
    assert "cannot be read" in one_sentence(error)


@pytest.mark.parametrize("pair", [(1.0, 1.0), (float("nan"), 1.0)])
def test_references_that_give_no_score_are_none(pair):
    path = local_copy("pendulum/narrow-v0").with_name("metadata.json")
    about = json.loads(path.read_text()) | {"ref_min_score": pair[0], "ref_max_score": pair[1]}
    path.write_text(json.dumps(about))
    dataset = load("mine/log-v0")
    with pytest.raises(DataError, match="no reference returns"):
        dataset.score(1.0)


def test_bad_contents_are_refused():
    file = local_copy("pendulum/narrow-v0")
    assert len(load("mine/log-v0")) == 10_000
    with h5py.File(file, "a") as content:
        content["episode_3/rewards"][5] = np.nan
    with pytest.raises(DataError) as error:
        load("mine/log-v0")
    assert "reward is NaN" in one_sentence(error) and "row 605, episode 3" in str(error.value)
    with h5py.File(file, "a") as content:
        observations = content["episode_2/observations"][:-1]
        del content["episode_2/observations"]
        content["episode_2/observations"] = observations
    with pytest.raises(DataError) as error:
        load("mine/log-v0")
    assert "episode 2 has 200 observations and 200 rewards" in one_sentence(error)


# The remote, played by a folder


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """A Minari remote that is a folder; `remote.broken` makes it fail as a network does."""
    from minari.storage.remotes import _registry as registry  # private: pinned in requirements.txt
    from minari.storage.remotes import cloud_storage

    root = tmp_path / "remote"
    root.mkdir()

    class Folder(cloud_storage.CloudStorage):
        broken = killed = False

        def __init__(self, *args, **kwargs):
            if Folder.broken:
                raise ConnectionError("no route to host")

        def list_datasets(self, prefix=None):
            ids = (p.parent.parent.relative_to(root) for p in root.glob("**/data/metadata.json"))
            return [i.as_posix() for i in ids if i.as_posix().startswith(prefix or "")]

        def get_dataset_metadata(self, dataset_id):
            return json.loads((root / dataset_id / "data" / "metadata.json").read_text())

        def download_dataset(self, dataset_id, path):
            target = Path(path) / dataset_id
            shutil.copytree(root / dataset_id, target)
            if Folder.killed:
                (target / "data" / "main_data.hdf5").write_bytes(b"half")
                raise KeyboardInterrupt

        def list_namespaces(self):
            return [p.name for p in root.iterdir()]

        def download_namespace_metadata(self, namespace, path):
            (Path(path) / namespace / "namespace_metadata.json").write_text("{}")

        def upload_dataset(self, *args):
            raise NotImplementedError

        def upload_namespace(self, *args):
            raise NotImplementedError

    monkeypatch.setitem(registry, "folder", lambda: Folder)
    monkeypatch.setenv("MINARI_REMOTE", "folder://here")
    minari.create_dataset_from_buffers(
        "toy/walk-v0",
        [
            EpisodeBuffer(
                observations={"where": np.ones((4, 2)), "goal": np.zeros((4, 1))},
                actions=np.full((3, 1), 5.0),
                rewards=[1.0, 2.0, 3.0],
                terminations=[False, False, True],
                truncations=[False] * 3,
            )
        ],
        action_space=gym.spaces.Box(0, 10, (1,), np.float64),
        observation_space=gym.spaces.Dict(
            goal=gym.spaces.Box(-1, 1, (1,), np.float64),
            where=gym.spaces.Box(-1, 1, (2,), np.float64),
        ),
    )
    local = Path(os.environ["MINARI_DATASETS_PATH"])
    shutil.move(local / "toy", root / "toy")
    return Folder


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_remote_dataset_is_fetched_flattened_and_kept(remote):
    dataset = load("toy/walk-v0")
    assert len(dataset) == 3 and dataset.obs_dim == 3 and dataset.returns().tolist() == [6.0]
    assert (dataset.action == 0).all()  # 5 of [0, 10], scaled
    assert dataset.obs[0].tolist() == [0, 1, 1]  # by name: goal, where
    remote.broken = True
    assert len(load("toy/walk-v0")) == 3  # from the local folder now


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_unknown_id_and_no_network(remote):
    with pytest.raises(DataError) as error:
        load("pendulum/narow-v0")
    message = one_sentence(error)
    assert "There is no dataset 'pendulum/narow-v0'" in message
    assert "did you mean pendulum/narrow-v0?" in message
    remote.broken = True
    with pytest.raises(DataError) as error:
        load("mujoco/hopper/medium-v0")
    assert "connect to the network" in one_sentence(error)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_folder_that_cannot_be_written(remote, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "file" / "minari"))
    with pytest.raises(DataError) as error:
        load("toy/walk-v0")
    assert "set MINARI_DATASETS_PATH to a folder" in one_sentence(error)
    assert len(load("pendulum/narrow-v0")) == 10_000  # what ships needs no folder


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_killed_download_leaves_nothing_half_written(remote):
    remote.killed = True
    with pytest.raises(KeyboardInterrupt):
        load("toy/walk-v0")
    local = Path(os.environ["MINARI_DATASETS_PATH"])
    assert not list(local.rglob("main_data.hdf5"))
    assert os.environ["MINARI_DATASETS_PATH"] == str(local)
    remote.killed = False
    assert len(load("toy/walk-v0")) == 3
