"""Offline reinforcement learning: what every chapter of the book needs, and the methods the chapters print.

For: loading logged data, networks with a seed axis, the training loop, evaluation, figures, claims.
Not for: losses, targets and sampling rules. Those are printed in the chapters, and the chapters' own
code is what `offrl_nb.methods.<slug>` holds.
"""

from offrl_nb import envs  # registers the small environments with Gymnasium
from offrl_nb.claims import check, claim, expect, progress, size
from offrl_nb.data import Batch, DataError, Dataset, from_arrays, load
from offrl_nb.evaluate import best, compare, difference, evaluator, interval, last, rollout
from offrl_nb.loop import adam, fit, minimise
from offrl_nb.settings import validate
from offrl_nb.streams import Streams

__version__ = "0.1.0"
