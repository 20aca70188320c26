"""Offline reinforcement learning: what every chapter of the book needs, and the methods the chapters print.

For: loading logged data, networks with a seed axis, the training loop, evaluation, figures, claims.
Not for: losses, targets and sampling rules. Those are printed in the chapters, and the chapters' own
code is what `offrl_nb.methods.<slug>` holds.
"""

from offrl_nb import envs  # registers the small environments with Gymnasium
from offrl_nb.audit import audit
from offrl_nb.claims import check, claim, progress, size
from offrl_nb.data import Batch, DataError, Dataset, from_arrays, load
from offrl_nb.evaluate import evaluator, interval, rollout
from offrl_nb.fit import Streams, adam, fit, minimise

__version__ = "0.1.0"
