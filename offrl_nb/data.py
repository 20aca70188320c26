"""Logged data: find a dataset, check it, and hand out batches for S seeds.

For: `load` (any Minari id: local, shipped with the book, or from Minari's official remote), `from_arrays`
(your own log), and `Dataset`, a flat table of transitions. Not for: choosing or weighting transitions; a
sampling rule that belongs to a method is printed in its chapter.

Continuous actions are stored scaled to [-1, 1] by the bounds of the action space; `envs` scales back.
"""

import difflib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import gymnasium as gym
import minari
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from minari.storage.local import get_dataset_path
from torch import Tensor

from offrl_nb.streams import Streams, default_device

_PACKAGE = Path(__file__).parent
SHIPPED = _PACKAGE / "_data" if (_PACKAGE / "_data").exists() else _PACKAGE.parent / "data"
_COLUMNS = ("obs", "action", "reward", "next_obs", "terminated", "truncated", "episode")
_LARGEST = {"obs": 1e25, "next_obs": 1e25, "reward": 1e15}  # what squares of overflow in 32 bits
_STATES = "For numbered states pass observation_space=Discrete(n), else floats [N, obs_dim]."
_HINTS = {
    "obs": _STATES,
    "next_obs": _STATES,
    "action": "Give discrete actions one axis, [N]; others two, as floats or with their action_space.",
    "episode": "Where every row stands alone, it is np.arange(N).",
}


class DataError(ValueError):
    """A dataset that cannot be used, in one sentence that says what to do."""


class Batch(NamedTuple):
    """B transitions for each of S seeds."""

    obs: Tensor  # [S, B, obs_dim]
    action: Tensor  # [S, B, act_dim] in [-1, 1], or [S, B] whole numbers
    reward: Tensor  # [S, B]
    next_obs: Tensor  # [S, B, obs_dim]
    terminated: Tensor  # [S, B] 1.0 where no future follows; the bootstrap mask is 1 - terminated


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """N transitions in the order in which they were logged."""

    id: str
    obs: Tensor  # [N, obs_dim]
    action: Tensor  # [N, act_dim] in [-1, 1], or [N] whole numbers
    reward: Tensor  # [N]
    next_obs: Tensor  # [N, obs_dim]
    terminated: Tensor  # [N] bool: the task ended here
    truncated: Tensor  # [N] bool: the recording ended here, the task did not
    episode: Tensor  # [N] int64: 0 .. episodes - 1
    action_space: gym.Space  # of the actions as they came, and as an environment wants them
    allowed: Tensor | None = None  # [n_actions] bool: actions that occur; a policy plays no others
    env: gym.envs.registration.EnvSpec | None = None  # where to evaluate, if there is a simulator
    reference: tuple[float, float] | None = None  # returns that score 0 and 100

    def __len__(self) -> int:
        return len(self.reward)

    def __repr__(self) -> str:
        returns = self.returns()
        d = 0 if np.ptp(returns) > 10 else 2
        kind = f"{self.n_actions} actions" if self.n_actions else f"action {self.act_dim}"
        return (
            f"{self.id}: {len(self):,} transitions in {len(returns):,} episodes, obs {self.obs_dim}, "
            f"{kind}, return {returns.mean():.{d}f} ± {returns.std():.{d}f} (between episodes)"
        )

    @property
    def obs_dim(self) -> int:
        return self.obs.shape[-1]

    @property
    def n_actions(self) -> int | None:
        """How many discrete actions there are; None for continuous ones."""
        return int(self.action_space.n) if isinstance(self.action_space, Discrete) else None

    @property
    def act_dim(self) -> int:
        return 1 if self.n_actions else self.action.shape[-1]

    def returns(self) -> np.ndarray:
        """Undiscounted return of every episode, [episodes]."""
        return np.bincount(self.episode.cpu().numpy(), self.reward.cpu().double().numpy())

    def lengths(self) -> np.ndarray:
        """Number of transitions of every episode, [episodes]."""
        return np.bincount(self.episode.cpu().numpy())

    def arrays(self) -> dict:
        """NumPy columns and action_space, in the units in which they came: `from_arrays` takes them."""
        columns = {name: getattr(self, name).cpu().numpy() for name in _COLUMNS}
        columns["action"] = unscale_action(columns["action"], self.action_space)
        return columns | {"action_space": self.action_space}

    def select(self, episodes) -> "Dataset":
        """The given episodes only (numbers or a mask), in the order of the log, renumbered from 0."""
        episodes = np.asarray(episodes)
        episodes = np.flatnonzero(episodes) if episodes.dtype == bool else episodes
        keep = torch.isin(self.episode, torch.as_tensor(episodes, device=self.episode.device))
        if not keep.any():
            raise DataError(f"{self.id} has no transition left after selecting episodes.")
        rows = {name: getattr(self, name)[keep] for name in _COLUMNS}
        rows["episode"] = torch.unique(rows["episode"], return_inverse=True)[1]
        return replace(self, **rows)._with_allowed()

    def concatenate(self, *others: "Dataset") -> "Dataset":
        """This log and others below it, with the id, environment and reference returns of this one.

        Raises DataError where observations or action spaces differ.
        """
        rows = {name: [getattr(self, name)] for name in _COLUMNS}
        for log in others:
            if log.obs_dim != self.obs_dim or log.action_space != self.action_space:
                raise DataError(f"{log.id} and {self.id} differ in obs_dim or action_space.")
            number = log.episode + rows["episode"][-1].max() + 1
            for name in _COLUMNS:
                rows[name].append(number if name == "episode" else getattr(log, name))
        return replace(self, **{k: torch.cat(parts) for k, parts in rows.items()})._with_allowed()

    __add__ = concatenate  # log + other

    def _with_allowed(self) -> "Dataset":
        if not self.n_actions:
            return self
        return replace(self, allowed=torch.bincount(self.action, minlength=self.n_actions) > 0)

    def to(self, target) -> "Dataset":
        """On another device, or with its numbers in another precision. Raises DataError for one not here."""
        names = (*_COLUMNS, "allowed") if self.n_actions else _COLUMNS
        columns = {name: getattr(self, name) for name in names}
        if isinstance(target, torch.dtype):
            if target != torch.get_default_dtype():
                raise DataError(f"Networks are {torch.get_default_dtype()}; set that first.")
            columns = {name: c for name, c in columns.items() if c.is_floating_point()}
        try:
            self.reward.to(target).cpu()  # somewhere from where numbers come back, unlike meta
            return replace(self, **{name: column.to(target) for name, column in columns.items()})
        except (RuntimeError, AssertionError) as error:
            raise DataError(f"{self.id} cannot go to {target} ({error}).") from error

    def require(self, actions: str, method: str) -> None:
        """Raises DataError where the actions are not what a method needs: discrete or continuous."""
        example = "cartpole/mixed-v0" if actions == "discrete" else "pendulum/mixed-v0"
        if bool(self.n_actions) != (actions == "discrete"):
            needs = f"{method} needs {actions} actions, {self.id} has others"
            raise DataError(f"{needs}; try {example}.")

    def score(self, returns):
        """100 (return - low) / (high - low), with the two reference returns of the dataset's card."""
        if self.reference is None:
            raise DataError(f"{self.id} has no reference returns; report the raw return.")
        low, high = self.reference
        return 100 * (np.asarray(returns) - low) / (high - low)

    @property
    def table(self) -> Tensor:
        """All columns of a batch side by side, [N, D]: one gather fetches everything."""
        columns = self.obs, self.action, self.reward, self.next_obs, self.terminated
        versions = [column._version for column in columns]  # they count changes in place
        if self.__dict__.get("_versions") != versions:
            flat = [c.view(len(self), -1).to(self.reward.dtype) for c in columns]
            self.__dict__.update(_versions=versions, _table=torch.cat(flat, dim=-1))
        return self.__dict__["_table"]

    def rows(self, index: Tensor) -> Batch:
        """The transitions with the given numbers, [S, B] -> Batch."""
        flat = self.table.index_select(0, index.flatten()).unflatten(0, index.shape)
        widths = [self.obs_dim, self.act_dim, 1, self.obs_dim, 1]
        obs, action, reward, next_obs, terminated = flat.split(widths, dim=-1)
        action = action.squeeze(-1).long() if self.n_actions else action
        return Batch(obs, action, reward.squeeze(-1), next_obs, terminated.squeeze(-1))

    def batches(self, batch_size: int, streams: Streams) -> Iterator[Batch]:
        """Endless batches, every seed drawing its own transitions uniformly with replacement."""
        while True:
            yield self.rows(streams.integers(len(self), batch_size))


def load(dataset_id, device=None, action_space=None) -> Dataset:
    """Load a dataset by its Minari id: a shipped one, else from the local Minari folder, else from the remote.

    device: None: that of OFFRL_DEVICE, or the CPU. action_space: in place of the dataset's own, where that
    has no bounds.
    Raises DataError, one sentence, for an unknown id, a damaged file, unusable contents, no network.
    """
    path = _path(dataset_id)
    try:
        source = minari.MinariDataset(path)
        parts = [_transitions(episode, source) for episode in source.iterate_episodes()]
        columns = dict(zip(_COLUMNS, map(np.concatenate, zip(*parts, strict=True)), strict=True))
        about, rows = source.storage.metadata, len(columns["reward"])
        if about.get("total_steps", rows) != rows:
            raise ValueError(f"{rows} steps in place of {about['total_steps']}")
    except (DataError, ImportError, MemoryError):
        raise
    except Exception as error:  # h5py and Minari raise OSError, RuntimeError, KeyError, ...
        hint = "restore it, or update Minari"
        raise DataError(f"{dataset_id} at {path} cannot be read ({error}); {hint}.") from error
    # Minari has no public name for the environment that is meant for evaluation
    env = getattr(source, "_eval_env_spec", None) or source.env_spec
    pair = about.get("ref_min_score"), about.get("ref_max_score")
    known = all(isinstance(x, int | float) and np.isfinite(x) for x in pair) and pair[0] != pair[1]
    about = {"id": dataset_id, "env": env, "reference": pair if known else None}
    dataset = from_arrays(**columns, action_space=action_space or source.action_space, **about)
    return dataset.to(device or default_device())


def _path(dataset_id) -> Path:
    """The folder with a dataset's files; fetched from Minari's remote where there is none."""
    if dataset_id in shipped_ids():
        return SHIPPED / dataset_id / "data"
    try:
        root, final = Path(get_dataset_path()), Path(get_dataset_path(dataset_id))
        if not (final / "data").exists():  # fetched elsewhere, then moved: whole or absent
            with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as folder:
                with mock.patch.dict(os.environ, MINARI_DATASETS_PATH=folder):
                    minari.download_dataset(dataset_id)
                final.parent.mkdir(parents=True, exist_ok=True)
                (Path(folder) / dataset_id).rename(final)
    except OSError as error:
        hint = "connect to the network; set MINARI_DATASETS_PATH to a folder that can be written"
        raise DataError(f"{dataset_id} cannot be fetched or stored ({error}); {hint}.") from error
    except Exception as error:  # a wrong id, an unknown remote, the HTTP client's own errors
        near = difflib.get_close_matches(str(dataset_id), shipped_ids(), n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"shipped are {', '.join(shipped_ids())}."
        where = f"MINARI_REMOTE is {os.environ.get('MINARI_REMOTE', 'not set')}"
        raise DataError(f"There is no dataset {dataset_id!r} ({error}; {where}); {hint}") from error
    return final / "data"


def shipped_ids() -> list[str]:
    """Ids of the datasets that come with the book."""
    found = SHIPPED.glob("**/data/metadata.json")
    return sorted(path.parents[1].relative_to(SHIPPED).as_posix() for path in found)


def _transitions(episode: minari.EpisodeData, source: minari.MinariDataset) -> tuple:
    """One Minari episode (T + 1 observations, T of everything else) as columns of T rows."""
    name, space, steps = source.spec.dataset_id, source.action_space, len(episode.rewards)
    if not isinstance(space, Box | Discrete):
        raise DataError(f"{name}: actions in {space} are not supported; use a Box or a Discrete.")
    action = np.reshape(episode.actions, (steps, -1) if isinstance(space, Box) else steps)
    obs = flat_obs(episode.observations, source.observation_space, lead=1)
    if len(obs) != steps + 1:
        found = f"episode {episode.id} has {len(obs)} observations and {steps} rewards"
        raise DataError(f"{name}: {found}; T steps need T + 1 observations.")
    ends, number = (episode.terminations, episode.truncations), np.full(steps, episode.id)
    return obs[:-1], action, episode.rewards, obs[1:], *ends, number


def flat_obs(obs, space: gym.Space, lead: int = 0) -> np.ndarray:
    """Numbers of an observation in a row; a Dict's entries side by side, by name; a Discrete one-hot.

    lead: how many leading axes (1 for time) stay as they are.
    Raises DataError for images, text and tuples, which have to be encoded first.
    """
    if isinstance(space, Discrete):
        return np.eye(int(space.n), dtype=np.float32)[np.asarray(obs) - int(space.start)]
    if isinstance(space, gym.spaces.Dict):
        return np.concatenate([flat_obs(obs[k], space[k], lead) for k in sorted(space.spaces)], -1)
    numbers = not isinstance(obs, tuple) and np.asarray(obs).dtype.kind in "fiub"
    if not numbers or len(space.shape) > 1:
        raise DataError(f"Observations in {space} are no vectors of numbers; encode them first.")
    obs = np.asarray(obs, dtype=np.float32)
    return obs.reshape(*obs.shape[:lead], -1)


def from_arrays(
    obs,
    action,
    reward,
    next_obs,
    terminated,
    truncated,
    episode=None,
    action_space=None,
    observation_space=None,
    id="your log",
    env=None,
    reference=None,
) -> Dataset:
    """A Dataset from plain arrays with a row a transition, copied and checked.

    obs, next_obs: [N, obs_dim], or what observation_space (Discrete: numbered states, [N]) describes.
    action: [N, act_dim] numbers, or [N] whole numbers for discrete actions.
    reward, terminated, truncated: [N]. episode: [N], one label an episode, rows of an episode together; for
        steps that stand alone, such as those of a bandit, each row its own label: np.arange(N).
    action_space: Gymnasium space; without it continuous actions must already lie in [-1, 1].
    env: id, spec or instance of the environment to evaluate in. reference: returns that score 0 and 100.
    Raises DataError for wrong shapes, flags other than 0 and 1, NaN, values that 32 bits do not hold,
    actions out of bounds, and spaces without bounds.
    """
    if observation_space is not None:
        obs, next_obs = (flat_obs(x, observation_space, lead=1) for x in (obs, next_obs))
    given = obs, action, reward, next_obs, terminated, truncated, episode
    arrays = [np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x) for x in given]
    columns = dict(zip(_COLUMNS, arrays, strict=True))
    _check_shapes(columns, id)
    columns["episode"] = _episode_numbers(columns["episode"], id)
    _check_values(columns, id)
    action, kind = columns["action"], np.float32
    if isinstance(action_space, Discrete) or (action_space is None and action.ndim == 1):
        (columns["action"], action_space), kind = _discrete(action, action_space, id), np.int64
    elif isinstance(action_space, Box | None):
        columns["action"], action_space = _continuous(action, action_space, id)
    else:
        raise DataError(f"{id}: {action_space} is not supported; use a Box or a Discrete space.")
    kinds = {"action": kind, "terminated": bool, "truncated": bool, "episode": np.int64}
    rows = {k: torch.from_numpy(np.array(c, kinds.get(k, np.float32))) for k, c in columns.items()}
    spec = gym.registry.get(env, env) if isinstance(env, str) else getattr(env, "spec", env)
    log = Dataset(id, **rows, action_space=action_space, env=spec, reference=reference)
    return log._with_allowed()


def _check_shapes(columns: dict[str, np.ndarray], name: str) -> None:
    rows, obs = len(np.atleast_1d(columns["reward"])), columns["obs"]
    for column, value in columns.items():
        axes = {"obs": (2,), "next_obs": (2,), "action": (1, 2)}.get(column, (1,))
        if value.ndim not in axes or len(value) != rows or rows == 0:
            needs = f"a row a transition and {' or '.join(map(str, axes))} axes. {_HINTS.get(column, '')}"
            found = f"{column} has shape {value.shape}, not {rows} rows"
            raise DataError(f"{name}: {found}; it needs {needs}")
        if column != "episode" and value.dtype.kind not in "fiub":
            raise DataError(f"{name}: {column} holds {value.dtype}; turn it into numbers.")
    if obs.shape != columns["next_obs"].shape:
        raise DataError(f"{name}: obs and next_obs differ in shape; they need the same.")
    if obs.dtype.kind in "iu" and obs.shape[1] == 1:
        raise DataError(f"{name}: obs is one column of whole numbers. {_HINTS['obs']}")


def _check_values(columns: dict[str, np.ndarray], name: str) -> None:
    """Only what 32 bits hold without loss, and flags that are flags."""
    for column, value in columns.items():
        flat = value.reshape(len(value), -1)
        bad = np.flatnonzero(~np.isfinite(flat).all(-1))
        if len(bad):
            first = f"row {bad[0]}, episode {columns['episode'][bad[0]]}"
            where = f"in {len(bad)} rows (first: {first})"
            raise DataError(f"{name}: {column} is NaN or infinite {where}; drop or repair them.")
        if column in ("terminated", "truncated") and not np.isin(value, (0, 1)).all():
            raise DataError(f"{name}: {column} holds other values than 0 and 1; pass booleans.")
        if np.abs(flat).max() > _LARGEST.get(column, np.inf):
            raise DataError(f"{name}: {column} reaches {np.abs(flat).max():.0e}; rescale it.")
        if value.dtype == np.float64 and any(map(_lossy, flat[:10_000].T)):
            lost = "different values are equal in 32 bits, as of Unix times"
            raise DataError(f"{name}: {column}: {lost}; subtract the smallest, or rescale.")


def _lossy(values: np.ndarray) -> bool:
    """Do half of the different values become equal in 32 bits, and not because they hardly differ?"""
    varies = values.std() > 1e-12 * np.abs(values).max()
    return varies and 2 * len(np.unique(values.astype(np.float32))) < len(np.unique(values))


def _episode_numbers(labels: np.ndarray, name: str) -> np.ndarray:
    """Labels in the order of the log -> 0, 1, 2, ..."""
    starts = np.append(True, labels[1:] != labels[:-1])
    if len(np.unique(labels)) != starts.sum():
        raise DataError(f"{name}: rows of an episode are scattered; sort by episode, then time.")
    return np.cumsum(starts) - 1


def _discrete(action, space: Discrete | None, name: str) -> tuple[np.ndarray, Discrete]:
    if action.ndim != 1 or (action % 1).any():
        raise DataError(f"{name}: discrete actions are one whole number a row. {_HINTS['action']}")
    space = Discrete(max(1, int(action.max()) + 1)) if space is None else space
    action = action.astype(np.int64) - int(space.start)
    _check_bounds((action >= 0) & (action < space.n), name)
    return action, space


def _continuous(action, space: Box | None, name: str) -> tuple[np.ndarray, Box]:
    if space is None and action.dtype.kind in "iub":
        raise DataError(f"{name}: actions are whole numbers in two axes. {_HINTS['action']}")
    action = np.asarray(action, np.float64).reshape(len(action), -1)
    space = Box(-1.0, 1.0, action.shape[1:]) if space is None else space
    if action.shape[1] != np.prod(space.shape):
        raise DataError(f"{name}: actions have {action.shape[1]} columns; the space is {space}.")
    if not (np.abs([space.low, space.high]) < 1e9).all():
        low, high = (x.round(3).tolist() for x in (action.min(0), action.max(0)))
        hint = f"pass action_space=Box(low, high), your actuators' limits; the log: {low} to {high}"
        raise DataError(f"{name}: {space} has no bounds that a policy could keep to; {hint}.")
    scaled = scale_action(action, space)
    _check_bounds((np.abs(scaled) <= 1 + 1e-4).all(-1), name)
    return scaled, space


def _check_bounds(inside: np.ndarray, name: str) -> None:
    if not inside.all():
        outside = f"{(~inside).sum()} actions lie outside the action space (first: row {(~inside).argmax()})"
        raise DataError(f"{name}: {outside}; pass the right one, or clip as executed ones were.")


def _bounds(space: Box) -> tuple[np.ndarray, np.ndarray]:
    """Lower bound and width of every dimension, [act_dim]; where it is fixed, the width is no matter."""
    low, high = space.low.reshape(-1).astype(float), space.high.reshape(-1).astype(float)
    return low, np.where(high > low, high - low, 2.0)


def scale_action(action: np.ndarray, space: Box) -> np.ndarray:
    """From the bounds of the action space to [-1, 1], [..., act_dim]."""
    low, width = _bounds(space)
    return 2 * (action - low) / width - 1


def unscale_action(action: np.ndarray, space: Box | Discrete) -> np.ndarray:
    """What an environment expects: from [-1, 1] to the bounds of a Box, from 0 .. n - 1 to a Discrete."""
    if isinstance(space, Discrete):
        return action + int(space.start)
    low, width = _bounds(space)
    return low + (action + 1) / 2 * width
