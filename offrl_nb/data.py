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

import gymnasium as gym
import minari
import numpy as np
import torch
from minari.dataset.minari_dataset import parse_dataset_id
from minari.storage.local import get_dataset_path
from torch import Tensor

from offrl_nb.fit import Streams

_PACKAGE = Path(__file__).parent
SHIPPED = _PACKAGE / "_data" if (_PACKAGE / "_data").exists() else _PACKAGE.parent / "data"


class DataError(ValueError):
    """A dataset that cannot be used, in one sentence that says what to do."""


class Batch(NamedTuple):
    """B transitions for each of S seeds."""

    obs: Tensor  # [S, B, obs_dim]
    action: Tensor  # [S, B, act_dim] in [-1, 1], or [S, B] whole numbers
    reward: Tensor  # [S, B]
    next_obs: Tensor  # [S, B, obs_dim]
    terminated: Tensor  # [S, B] 1.0 where no future follows; the bootstrap mask is 1 - terminated


@dataclass(frozen=True)
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
    env: gym.envs.registration.EnvSpec | None = (
        None  # where to evaluate; None for a log without a simulator
    )
    reference: tuple[float, float] | None = None  # returns that score 0 and 100

    def __len__(self) -> int:
        return len(self.reward)

    def __str__(self) -> str:
        returns = self.returns()
        kind = f"{self.n_actions} actions" if self.n_actions else f"action {self.act_dim}"
        return (
            f"{self.id}: {len(self):,} transitions in {len(returns):,} episodes, "
            f"obs {self.obs_dim}, {kind}, return {returns.mean():.0f} ± {returns.std():.0f} (between episodes)"
        )

    @property
    def obs_dim(self) -> int:
        return self.obs.shape[-1]

    @property
    def act_dim(self) -> int:
        return 1 if self.n_actions else self.action.shape[-1]

    def returns(self) -> np.ndarray:
        """Undiscounted return of every episode, [episodes]."""
        return np.bincount(self.episode.cpu().numpy(), self.reward.double().cpu().numpy())

    def lengths(self) -> np.ndarray:
        """Number of transitions of every episode, [episodes]."""
        return np.bincount(self.episode.cpu().numpy())

    def select(self, episodes) -> "Dataset":
        """The given episodes only, in the order of the log, renumbered from 0."""
        keep = torch.isin(
            self.episode, torch.as_tensor(np.asarray(episodes), device=self.episode.device)
        )
        if not keep.any():
            raise DataError(
                f"{self.id}: no transition is left after selecting {len(episodes)} episodes."
            )
        rows = {name: getattr(self, name)[keep] for name in _COLUMNS}
        rows["episode"] = torch.unique(rows["episode"], return_inverse=True)[1]
        return replace(self, **rows)

    def to(self, target) -> "Dataset":
        """On another device, or (a floating dtype) in another precision."""
        columns = {name: getattr(self, name) for name in _COLUMNS}
        if isinstance(target, torch.dtype):
            return replace(
                self, **{k: v.to(target) for k, v in columns.items() if v.is_floating_point()}
            )
        return replace(self, **{k: v.to(target) for k, v in columns.items()})

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


_COLUMNS = ("obs", "action", "reward", "next_obs", "terminated", "truncated", "episode")


def load(dataset_id: str, device: str | torch.device = "cpu") -> Dataset:
    """Load a dataset by its Minari id: from the local Minari folder, else shipped, else Minari's remote.

    Raises DataError, one sentence, for an unknown id, a damaged file, unusable contents, no network.
    """
    path = _local(dataset_id) or _shipped(dataset_id) or _download(dataset_id)
    try:
        source = minari.MinariDataset(path)
        episodes = list(source.iterate_episodes())
    except (
        Exception
    ) as error:  # h5py and Minari raise OSError, RuntimeError, KeyError, ValueError ...
        raise DataError(
            f"{dataset_id} at {path} is damaged and cannot be read ({error}); delete that folder and load again."
        ) from error
    return from_minari(source, episodes).to(device)


def from_minari(source: minari.MinariDataset, episodes: list) -> Dataset:
    """Flatten Minari episodes (T + 1 observations, T of everything else) into transitions."""
    name, space = source.spec.dataset_id, source.action_space
    if not episodes:
        raise DataError(f"{name} holds no episode.")
    parts: dict[str, list] = {column: [] for column in _COLUMNS}
    for number, episode in enumerate(episodes):
        obs, action, steps = (
            _flat(episode.observations, name),
            np.asarray(episode.actions),
            len(episode.rewards),
        )
        if len(obs) != steps + 1 or {
            len(action),
            len(episode.terminations),
            len(episode.truncations),
        } != {steps}:
            raise DataError(
                f"{name}: episode {number} has {len(obs)} observations, {len(action)} actions and {steps} rewards; "
                "an episode of T steps needs T + 1 observations and T of everything else."
            )
        values = (
            obs[:-1],
            action,
            episode.rewards,
            obs[1:],
            episode.terminations,
            episode.truncations,
        )
        for column, value in zip(_COLUMNS, (*values, np.full(steps, number)), strict=True):
            parts[column].append(value)
    metadata = source.storage.metadata
    reference = (metadata.get("ref_min_score"), metadata.get("ref_max_score"))
    return from_arrays(
        **{column: np.concatenate(values) for column, values in parts.items()},
        action_space=space,
        id=name,
        env=getattr(source, "_eval_env_spec", None)
        or source.env_spec,  # Minari has no public name for the first
        reference=None if None in reference else reference,
    )


def from_arrays(
    obs,
    action,
    reward,
    next_obs,
    terminated,
    truncated,
    episode,
    action_space=None,
    id="your log",
    **rest,
) -> Dataset:
    """A Dataset from plain arrays with a row a transition; checks everything that can be checked.

    obs, next_obs: [N, obs_dim]. action: [N, act_dim] numbers, or [N] whole numbers for discrete actions.
    reward, terminated, truncated: [N]. episode: [N], one label an episode, rows of an episode together.
    action_space: Gymnasium space; without it continuous actions must already lie in [-1, 1].
    Raises DataError for wrong shapes, NaN or infinite values, actions out of bounds.
    """
    given = (obs, action, reward, next_obs, terminated, truncated, episode)
    columns = {name: np.asarray(value) for name, value in zip(_COLUMNS, given, strict=True)}
    _check_columns(columns, id)
    discrete = isinstance(action_space, gym.spaces.Discrete) or columns["action"].ndim == 1
    if discrete:
        first = int(getattr(action_space, "start", 0))
        columns["action"] = columns["action"].reshape(-1).astype(np.int64) - first
        n_actions = (
            int(action_space.n) if action_space is not None else int(columns["action"].max()) + 1
        )
        outside = (columns["action"] < 0) | (columns["action"] >= n_actions)
    else:
        n_actions, columns["action"] = (None, scale_action(columns["action"], action_space))
        outside = (np.abs(columns["action"]) > 1 + 1e-4).any(-1)
    if outside.any():
        raise DataError(
            f"{id}: {outside.sum()} actions lie outside the action space (first in row {outside.argmax()}); "
            "pass the right action_space, or clip them if they were clipped when executed."
        )
    changes = np.flatnonzero(np.diff(columns["episode"])) + 1
    if len(np.unique(columns["episode"])) != len(changes) + 1:
        raise DataError(
            f"{id}: the rows of an episode do not stand together; sort by episode, then by time."
        )
    columns["episode"] = np.repeat(
        np.arange(len(changes) + 1), np.diff([0, *changes, len(columns["reward"])])
    )
    kinds = {"terminated": torch.bool, "truncated": torch.bool, "episode": torch.int64}
    kinds |= {"action": torch.int64} if discrete else {}
    tensors = {k: torch.as_tensor(v).to(kinds.get(k, torch.float32)) for k, v in columns.items()}
    return Dataset(id=id, n_actions=n_actions, **tensors, **rest)


def scale_action(action, space: gym.spaces.Box | None):
    """From the bounds of the action space to [-1, 1]; unbounded dimensions stay as they are."""
    if space is None or not np.isfinite(space.low).all() or not np.isfinite(space.high).all():
        return action
    return 2 * (action - space.low) / (space.high - space.low) - 1


def unscale_action(action, space: gym.spaces.Box):
    """From [-1, 1] to the bounds of the action space: what an environment expects."""
    if not np.isfinite(space.low).all() or not np.isfinite(space.high).all():
        return action
    return space.low + (action + 1) / 2 * (space.high - space.low)


def _flat(obs, name: str) -> np.ndarray:
    """[T, ...] -> [T, obs_dim]; a dictionary's entries are put side by side in the order of its space."""
    if isinstance(obs, dict):
        return np.concatenate([_flat(value, name) for value in obs.values()], axis=-1)
    if isinstance(obs, tuple) or np.asarray(obs).dtype.kind not in "fiub":
        raise DataError(
            f"{name}: observations are not numbers; turn them into numeric arrays first."
        )
    return np.asarray(obs, dtype=np.float32).reshape(len(obs), -1)


def _check_columns(columns: dict[str, np.ndarray], name: str) -> None:
    rows = len(columns["reward"])
    for column, value in columns.items():
        allowed = {"obs": (2,), "next_obs": (2,), "action": (1, 2)}.get(column, (1,))
        if len(value) != rows or value.ndim not in allowed or rows == 0:
            raise DataError(
                f"{name}: {column} has shape {value.shape} beside {rows} rewards; every column needs one row a "
                "transition, obs and next_obs two axes, action one (discrete) or two."
            )
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            bad = np.flatnonzero(~np.isfinite(value.reshape(rows, -1)).all(-1))
            raise DataError(
                f"{name}: {column} is NaN or infinite in {len(bad)} rows (first: row {bad[0]}, episode "
                f"{columns['episode'][bad[0]]}); drop those episodes or repair the log."
            )
    if columns["obs"].shape != columns["next_obs"].shape:
        raise DataError(
            f"{name}: obs {columns['obs'].shape} and next_obs {columns['next_obs'].shape} differ in shape."
        )


def shipped_ids() -> list[str]:
    """Ids of the datasets that come with the book."""
    return sorted(
        str(path.parent.parent.relative_to(SHIPPED))
        for path in SHIPPED.glob("*/*/data/metadata.json")
    )


def _local(dataset_id: str) -> Path | None:
    try:
        parse_dataset_id(dataset_id)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{dataset_id!r} is not a Minari id such as pendulum/narrow-v0 (namespace/name-v0); "
            f"shipped are {', '.join(shipped_ids())}."
        ) from error
    path = Path(get_dataset_path(dataset_id)) / "data"
    return path if path.exists() else None


def _shipped(dataset_id: str) -> Path | None:
    if dataset_id not in shipped_ids():
        return None
    folder = SHIPPED / dataset_id / "data"
    known = dict(line.split()[::-1] for line in (SHIPPED / "SHA256SUMS").read_text().splitlines())
    for file in sorted(folder.iterdir()):
        key = file.relative_to(SHIPPED).as_posix()
        if known.get(key) != hashlib.sha256(file.read_bytes()).hexdigest():
            raise DataError(
                f"{dataset_id} is damaged: {file.name} does not match its SHA-256; restore it with "
                f"`git checkout data/{dataset_id}` or install offrl_nb again."
            )
    return folder


def _download(dataset_id: str) -> Path:
    """Fetch from Minari's remote into a temporary folder and move it into place only when it is whole."""
    final = Path(get_dataset_path(dataset_id))
    root = Path(get_dataset_path())
    near = difflib.get_close_matches(dataset_id, shipped_ids(), n=1, cutoff=0.6)
    help_ = f"did you mean {near[0]}?" if near else f"shipped are {', '.join(shipped_ids())}."
    root.mkdir(parents=True, exist_ok=True)
    before = os.environ.get("MINARI_DATASETS_PATH")
    with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as folder:
        os.environ["MINARI_DATASETS_PATH"] = folder
        try:
            minari.download_dataset(dataset_id)
            fetched = Path(get_dataset_path(dataset_id))
            final.parent.mkdir(parents=True, exist_ok=True)
            fetched.rename(final)
        except ValueError as error:
            raise DataError(
                f"Minari's remote does not have {dataset_id} ({error}); {help_}"
            ) from error
        except Exception as error:  # the HTTP client's own errors; which one depends on the remote
            raise DataError(
                f"{dataset_id} is neither on this computer nor shipped, and Minari's remote could not be reached "
                f"({type(error).__name__}); connect to the network, or {help_}"
            ) from error
        finally:
            os.environ.pop("MINARI_DATASETS_PATH")
            if before is not None:
                os.environ["MINARI_DATASETS_PATH"] = before
    return final / "data"
