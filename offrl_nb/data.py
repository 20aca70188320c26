"""Logged data: find a dataset, check it, and hand out batches for S seeds.

For: `load` (any Minari id: local, shipped with the book, or from Minari's official remote), `from_arrays`
(your own log), and `Dataset`, a flat table of transitions. Not for: choosing or weighting transitions; a
sampling rule that belongs to a method is printed in its chapter.

Continuous actions are stored scaled to [-1, 1] by the bounds of the action space; `evaluate` scales back.
"""

import difflib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import gymnasium as gym
import minari
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from minari.dataset.minari_dataset import parse_dataset_id
from minari.storage.local import get_dataset_path
from torch import Tensor

from offrl_nb.audit import audit as audit  # re-exported: it asks what this module's checks cannot
from offrl_nb.fit import Streams

_PACKAGE = Path(__file__).parent
SHIPPED = _PACKAGE / "_data" if (_PACKAGE / "_data").exists() else _PACKAGE.parent / "data"
_COLUMNS = ("obs", "action", "reward", "next_obs", "terminated", "truncated", "episode")


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
    n_actions: int | None = None  # for discrete actions
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
    def act_dim(self) -> int:
        return 1 if self.n_actions else self.action.shape[-1]

    def returns(self) -> np.ndarray:
        """Undiscounted return of every episode, [episodes]."""
        return np.bincount(self.episode.cpu().numpy(), self.reward.cpu().double().numpy())

    def lengths(self) -> np.ndarray:
        """Number of transitions of every episode, [episodes]."""
        return np.bincount(self.episode.cpu().numpy())

    def select(self, episodes) -> "Dataset":
        """The given episodes only (numbers or a mask), in the order of the log, renumbered from 0."""
        episodes = np.asarray(episodes)
        episodes = np.flatnonzero(episodes) if episodes.dtype == bool else episodes
        keep = torch.isin(self.episode, torch.as_tensor(episodes, device=self.episode.device))
        if not keep.any():
            raise DataError(f"{self.id} has no transition left after selecting episodes.")
        rows = {name: getattr(self, name)[keep] for name in _COLUMNS}
        rows["episode"] = torch.unique(rows["episode"], return_inverse=True)[1]
        return replace(self, **rows)

    def to(self, target) -> "Dataset":
        """On another device, or (a floating dtype) in another precision."""
        columns = {name: getattr(self, name) for name in _COLUMNS}
        if isinstance(target, torch.dtype):
            columns = {name: c for name, c in columns.items() if c.is_floating_point()}
        return replace(self, **{name: column.to(target) for name, column in columns.items()})

    def require(self, actions: str, method: str) -> None:
        """Raises DataError where the actions are not what a method needs: discrete or continuous."""
        has = "discrete" if self.n_actions else "continuous"
        if has != actions:
            example = "cartpole/mixed-v0" if actions == "discrete" else "pendulum/mixed-v0"
            raise DataError(
                f"{self.id} has {has} actions and {method} needs {actions} ones; try {example}."
            )

    def score(self, returns):
        """100 (return - low) / (high - low), with the two reference returns of the dataset's card."""
        if self.reference is None:
            raise DataError(f"{self.id} has no reference returns; report the raw return.")
        low, high = self.reference
        return 100 * (np.asarray(returns) - low) / (high - low)

    @cached_property
    def table(self) -> Tensor:
        """All columns of a batch side by side, [N, D]: one gather fetches everything."""
        columns = [self.obs, self.action.view(len(self), -1), self.reward[:, None], self.next_obs]
        return torch.cat(
            [c.to(self.reward.dtype) for c in [*columns, self.terminated[:, None]]], dim=-1
        )

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


def load(dataset_id: str, device: str | torch.device = "cpu") -> Dataset:
    """Load a dataset by its Minari id: from the local Minari folder, else shipped, else Minari's remote.

    Raises DataError, one sentence, for an unknown id, a damaged file, unusable contents, no network.
    """
    path = _local(dataset_id) or _shipped(dataset_id) or _download(dataset_id)
    try:
        source = minari.MinariDataset(path)
        parts = [_transitions(episode, source) for episode in source.iterate_episodes()]
    except (DataError, ImportError, MemoryError):
        raise
    except (
        Exception
    ) as error:  # h5py and Minari raise OSError, RuntimeError, KeyError, ValueError ...
        raise DataError(
            f"{dataset_id} at {path} is damaged and cannot be read ({error}); "
            "delete that folder and load again."
        ) from error
    if not parts:
        raise DataError(f"{dataset_id} holds no episode.")
    columns = dict(zip(_COLUMNS, map(np.concatenate, zip(*parts, strict=True)), strict=True))
    metadata = source.storage.metadata
    reference = (metadata.get("ref_min_score"), metadata.get("ref_max_score"))
    # Minari has no public name for the environment that is meant for evaluation
    env = getattr(source, "_eval_env_spec", None) or source.env_spec
    return from_arrays(
        **columns,
        action_space=source.action_space,
        id=source.spec.dataset_id,
        env=env,
        reference=None if None in reference else reference,
    ).to(device)


def _transitions(episode: minari.EpisodeData, source: minari.MinariDataset) -> tuple:
    """One Minari episode (T + 1 observations, T of everything else) as columns of T rows."""
    name, steps = source.spec.dataset_id, len(episode.rewards)
    obs = flat_obs(episode.observations, source.observation_space, lead=1)
    rest = (episode.actions, episode.terminations, episode.truncations)
    if len(obs) != steps + 1 or {len(column) for column in rest} != {steps}:
        raise DataError(
            f"{name}: episode {episode.id} has {len(obs)} observations, {len(rest[0])} actions and "
            f"{steps} rewards; an episode of T steps needs T + 1 observations and T of the others."
        )
    action, terminated, truncated = rest
    number = np.full(steps, episode.id)
    return obs[:-1], np.asarray(action), episode.rewards, obs[1:], terminated, truncated, number


def flat_obs(obs, space: gym.Space, lead: int = 0) -> np.ndarray:
    """Numbers of an observation in a row; a Dict's entries side by side, by name; a Discrete one-hot.

    lead: how many leading axes (1 for time) stay as they are.
    """
    if isinstance(space, Discrete):
        return np.eye(int(space.n), dtype=np.float32)[np.asarray(obs) - int(space.start)]
    if isinstance(space, gym.spaces.Dict):
        parts = [flat_obs(obs[key], space[key], lead) for key in sorted(space.spaces)]
        return np.concatenate(parts, axis=-1)
    if isinstance(obs, tuple) or np.asarray(obs).dtype.kind not in "fiub":
        raise DataError(f"Observations in {space} are not numbers; encode them as numbers first.")
    obs = np.asarray(obs, dtype=np.float32)
    return obs.reshape(*obs.shape[:lead], -1)


def from_arrays(
    obs,
    action,
    reward,
    next_obs,
    terminated,
    truncated,
    episode,
    action_space: gym.Space | None = None,
    id: str = "your log",
    **rest,
) -> Dataset:
    """A Dataset from plain arrays with a row a transition, copied and checked.

    obs, next_obs: [N, obs_dim]. action: [N, act_dim] numbers, or [N] whole numbers for discrete actions.
    reward, terminated, truncated: [N]. episode: [N], one label an episode, rows of an episode together.
    action_space: Gymnasium space; without it continuous actions must already lie in [-1, 1].
    rest: n_actions, env, reference of the Dataset.
    Raises DataError for wrong shapes, NaN or infinite values, actions out of bounds.
    """
    given = (obs, action, reward, next_obs, terminated, truncated, episode)
    columns = dict(zip(_COLUMNS, map(np.asarray, given), strict=True))
    _check_shapes(columns, id)
    columns["episode"] = _episode_numbers(columns["episode"], id)
    if isinstance(action_space, Discrete) or (action_space is None and columns["action"].ndim == 1):
        columns["action"], n_actions = _discrete(columns["action"], action_space, id)
        rest = {"n_actions": n_actions} | rest
    elif isinstance(action_space, Box | None):
        columns["action"] = _continuous(columns["action"], action_space, id)
    else:
        raise DataError(f"{id}: {action_space} is not supported; use a Box or a Discrete space.")
    kinds = {"terminated": bool, "truncated": bool, "episode": np.int64}
    kinds |= {"action": np.int64} if "n_actions" in rest else {}
    columns = {name: np.array(c, kinds.get(name, np.float32)) for name, c in columns.items()}
    _check_finite(columns, id)
    return Dataset(id=id, **{name: torch.from_numpy(c) for name, c in columns.items()}, **rest)


def _check_shapes(columns: dict[str, np.ndarray], name: str) -> None:
    rows = columns["reward"].size
    for column, value in columns.items():
        axes = {"obs": (2,), "next_obs": (2,), "action": (1, 2)}.get(column, (1,))
        if value.ndim not in axes or len(value) != rows or rows == 0:
            raise DataError(
                f"{name}: {column} has shape {value.shape} beside {rows} rewards; every column needs a "
                "row for each transition, obs and next_obs two axes, action one (discrete) or two."
            )
        if column != "episode" and value.dtype.kind not in "fiub":
            raise DataError(f"{name}: {column} holds {value.dtype}; turn it into numbers.")
    if columns["obs"].shape != columns["next_obs"].shape:
        shapes = f"{columns['obs'].shape} and {columns['next_obs'].shape}"
        raise DataError(f"{name}: obs and next_obs differ in shape, {shapes}; they need the same.")


def _check_finite(columns: dict[str, np.ndarray], name: str) -> None:
    for column, value in columns.items():
        bad = np.flatnonzero(~np.isfinite(value.reshape(len(value), -1)).all(-1))
        if len(bad):
            raise DataError(
                f"{name}: {column} is NaN or infinite in {len(bad)} rows (first: row {bad[0]}, episode "
                f"{columns['episode'][bad[0]]}); drop those episodes or repair the log."
            )


def _episode_numbers(labels: np.ndarray, name: str) -> np.ndarray:
    """Labels in the order of the log -> 0, 1, 2, ..."""
    starts = np.append(True, labels[1:] != labels[:-1])
    if len(np.unique(labels)) != starts.sum():
        raise DataError(
            f"{name}: the rows of an episode do not stand together; sort by episode, then by time."
        )
    return np.cumsum(starts) - 1


def _discrete(action: np.ndarray, space: Discrete | None, name: str) -> tuple[np.ndarray, int]:
    if action.ndim != 1 or not (action % 1 == 0).all():
        raise DataError(
            f"{name}: discrete actions must be one whole number a row; "
            "give continuous ones two axes, [N, act_dim]."
        )
    action = action.astype(np.int64) - (0 if space is None else int(space.start))
    n_actions = int(action.max()) + 1 if space is None else int(space.n)
    _check_bounds((action >= 0) & (action < n_actions), name)
    return action, n_actions


def _continuous(action: np.ndarray, space: Box | None, name: str) -> np.ndarray:
    action = np.asarray(action, np.float64).reshape(len(action), -1)
    scaled = action if space is None else scale_action(action, space)
    free = np.zeros(scaled.shape[-1], bool) if space is None else ~_bounded(space)
    inside = (np.abs(scaled) <= 1 + 1e-4) | free | np.isnan(action)  # NaN has a message of its own
    _check_bounds(inside.all(-1), name)
    return scaled


def _check_bounds(inside: np.ndarray, name: str) -> None:
    if not inside.all():
        raise DataError(
            f"{name}: {(~inside).sum()} actions lie outside the action space (first in row "
            f"{(~inside).argmax()}); pass the right action_space, or clip them if the executed ones were."
        )


def _bounded(space: Box) -> np.ndarray:
    """Which dimensions have two finite, different bounds; the others are not scaled."""
    low, high = space.low.reshape(-1), space.high.reshape(-1)
    return np.isfinite(low) & np.isfinite(high) & (low < high)


def scale_action(action: np.ndarray, space: Box) -> np.ndarray:
    """From the bounds of the action space to [-1, 1], [..., act_dim]; unbounded dimensions stay."""
    low, high = space.low.reshape(-1).astype(float), space.high.reshape(-1).astype(float)
    with np.errstate(all="ignore"):
        return np.where(_bounded(space), 2 * (action - low) / (high - low) - 1, action)


def unscale_action(action: np.ndarray, space: Box) -> np.ndarray:
    """From [-1, 1] to the bounds of the action space: what an environment expects."""
    low, high = space.low.reshape(-1).astype(float), space.high.reshape(-1).astype(float)
    with np.errstate(all="ignore"):
        return np.where(_bounded(space), low + (action + 1) / 2 * (high - low), action)


def shipped_ids() -> list[str]:
    """Ids of the datasets that come with the book."""
    found = SHIPPED.glob("**/data/metadata.json")
    return sorted(path.parents[1].relative_to(SHIPPED).as_posix() for path in found)


def _local(dataset_id: str) -> Path | None:
    try:
        parse_dataset_id(dataset_id)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{dataset_id!r} is not a Minari id such as pendulum/narrow-v0 (namespace/name-v0); "
            f"shipped are {', '.join(shipped_ids())}."
        ) from error
    try:
        path = Path(get_dataset_path(dataset_id)) / "data"
    except OSError:  # the folder of local datasets cannot be made: then there is none
        return None
    return path if path.exists() else None


def _shipped(dataset_id: str) -> Path | None:
    sums = (SHIPPED / "SHA256SUMS").read_text().splitlines()
    hashes = {name: value for value, name in map(str.split, sums)}
    mine = {name: h for name, h in hashes.items() if name.startswith(f"{dataset_id}/data/")}
    for name, expected in mine.items():
        file = SHIPPED / name
        if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != expected:
            raise DataError(
                f"{dataset_id} is damaged: {file.name} does not match its SHA-256; restore it with "
                f"`git checkout data/{dataset_id}` or install offrl_nb again."
            )
    return SHIPPED / dataset_id / "data" if mine else None


def _download(dataset_id: str) -> Path:
    """Fetch from Minari's remote into a temporary folder and move it into place when it is whole."""
    near = difflib.get_close_matches(dataset_id, shipped_ids(), n=1, cutoff=0.6)
    help_ = f"did you mean {near[0]}?" if near else f"shipped are {', '.join(shipped_ids())}."
    try:
        root, final = Path(get_dataset_path()), Path(get_dataset_path(dataset_id))
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as folder:
            _fetch(dataset_id, folder, help_)
            (Path(folder) / dataset_id).rename(final)
    except OSError as error:
        raise DataError(
            f"{dataset_id} cannot be stored in Minari's folder ({error}); "
            "set MINARI_DATASETS_PATH to a folder that can be written."
        ) from error
    return final / "data"


def _fetch(dataset_id: str, folder: str, help_: str) -> None:
    try:
        with mock.patch.dict(os.environ, MINARI_DATASETS_PATH=folder):
            minari.download_dataset(dataset_id)
    except ValueError as error:
        raise DataError(f"Minari's remote does not have {dataset_id} ({error}); {help_}") from error
    except Exception as error:  # the HTTP client's own errors; which one depends on the remote
        raise DataError(
            f"{dataset_id} is neither on this computer nor shipped, and Minari's remote could not be "
            f"reached ({type(error).__name__}); connect to the network, or {help_}"
        ) from error
