"""Is a log fit to learn from? Eleven checks of its transitions, before any training.

For: contradictions that make training wrong ("fault") and properties that decide which method fits ("look").
Not for: repairing a log, or saying how good a policy learnt from it would be.
"""

import textwrap
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd

_COLUMNS = ("obs", "action", "reward", "next_obs", "terminated", "truncated", "episode")


@dataclass(frozen=True, eq=False, repr=False)
class Audit:
    """What `audit` found. A verdict is ok, look (may be fine: know why) or fault (repair before training)."""

    table: pd.DataFrame  # a row a check: check, verdict, finding
    numbers: dict[str, float]  # behind the findings that could be judged; shares are 0 to 1
    log: SimpleNamespace  # the rows that were judged

    @property
    def faults(self) -> list[str]:
        """Names of the checks whose verdict is fault."""
        return self.table.check[self.table.verdict == "fault"].tolist()

    def __repr__(self) -> str:
        lines = [f"{self.log.name}: {len(self.faults) or 'no'} fault{'s'[: len(self.faults) != 1]}"]
        for check, verdict, finding in self.table.itertuples(index=False):
            lines += textwrap.wrap(
                f"{verdict:6}{check:11}{finding}", 95, subsequent_indent=" " * 17
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        with pd.option_context("display.max_colwidth", None):
            table = self.table.to_html(index=False, border=0)
        for cell in ("th", "td"):  # notebooks would align to the right
            style = "text-align:left;vertical-align:top;white-space:normal"
            table = table.replace(f"<{cell}>", f'<{cell} style="{style}">')
        return table

    def draw(self, axes=None):
        """Returns, endings, actions and states, a panel each.

        axes: four Axes to draw into; without them a new figure is made. Returns the figure.
        """
        import matplotlib.pyplot as plt  # here: figures.py needs data.py, which imports this module

        from offrl_nb.figures import house_style

        with plt.rc_context():  # the caller's style stays as it is
            house_style()
            axes = np.ravel(plt.subplots(2, 2, figsize=(7.2, 5.8))[1] if axes is None else axes)
            panels = (_draw_returns, _draw_endings, _draw_actions, _draw_states)
            for ax, panel in zip(axes, panels, strict=True):
                panel(ax, self.log)
        return axes[0].figure


def audit(log, time_limit: int | None = None) -> Audit:
    """Check a Dataset, or a mapping (dict, DataFrame) with the columns of `from_arrays`, a row a transition.

    time_limit: steps after which an episode is cut; without it that of the Dataset's environment, if known.
    Rows with NaN or infinite values are reported, and left out of all further checks.
    Raises ValueError for a missing column, columns of unequal length, and a log without a usable row.
    """
    log = _read(log, time_limit)
    rows = [("numbers", *_numbers(log))]
    log = _finite(log)
    rows += [(check.__name__[1:], *check(log)) for check in _CHECKS]
    return Audit(pd.DataFrame(rows, columns=["check", "verdict", "finding"]), log.numbers, log)


def _read(source, time_limit) -> SimpleNamespace:
    """The columns as arrays, obs [N, d] and action [N, m], and what is known of the log as a whole."""
    columns = {name: _column(source, name) for name in _COLUMNS}
    sizes = {len(column) for column in columns.values()}
    if len(sizes) > 1 or not len(columns["obs"]):
        lengths = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
        raise ValueError(f"Every column needs a row for each transition; the log has {lengths}.")
    dataset = None if hasattr(source, "keys") else source
    log = SimpleNamespace(name=getattr(dataset, "id", "your log"), numbers={}, **columns)
    log.obs, log.next_obs = (x.reshape(len(x), -1) for x in (log.obs, log.next_obs))
    if log.obs.shape != log.next_obs.shape:
        raise ValueError("obs and next_obs differ in width; give both the same measurements.")
    known = log.action[np.isfinite(log.action)]
    log.scaled = dataset is not None  # then the bounds of the actions are -1 and 1
    log.n_actions = getattr(dataset, "n_actions", None)
    whole = log.action.ndim == 1 and ((known >= 0) & (known < 1000) & (known % 1 == 0)).all()
    if whole and not log.scaled:
        log.n_actions = int(known.max(initial=0)) + 1
    log.action = log.action.reshape(len(log.obs), -1)
    log.reach = 1.0 if log.scaled or not len(known) else max(1.0, np.ptp(known) / 2)
    log.limit = time_limit or getattr(getattr(dataset, "env", None), "max_episode_steps", None)
    log.last = np.append(log.episode[1:] != log.episode[:-1], True)
    log.scattered = int(log.last.sum()) - len(np.unique(log.episode))
    log.episode = np.cumsum(np.append(0, log.last[:-1]))  # a run of one label is an episode
    log.length = np.bincount(log.episode)[log.episode]
    log.row = np.arange(len(log.obs))
    return log


def _column(source, name) -> np.ndarray:
    named = hasattr(source, "keys")
    if not (name in source if named else hasattr(source, name)):
        raise ValueError(f"The log has no column {name}; it needs {', '.join(_COLUMNS)}.")
    value = source[name] if named else getattr(source, name)
    try:
        value = np.atleast_1d(np.asarray(value.cpu() if hasattr(value, "cpu") else value))
        if name == "episode":
            return pd.factorize(value)[0]
        value = np.array(value.tolist() if value.dtype == object else value, float)
        return value if name in ("obs", "action", "next_obs") else value.reshape(len(value))
    except (TypeError, ValueError) as error:
        raise ValueError(f"Column {name} needs numbers, a row a transition ({error}).") from error


def _finite(log) -> SimpleNamespace:
    """Only the rows without NaN and infinite values, with what several checks need."""
    keep = ~np.any([_bad(getattr(log, name)) for name in _COLUMNS], axis=0)
    if not keep.any():
        raise ValueError("Every row of the log holds a NaN or infinite value; repair it first.")
    rows = {name: getattr(log, name)[keep] for name in (*_COLUMNS, "last", "length", "row")}
    follows = (~log.last & np.append(keep[1:], False))[keep]  # the next row is the next step
    log = SimpleNamespace(**vars(log) | rows, follows=follows)
    log.episode = np.unique(log.episode, return_inverse=True)[1]
    log.terminated, log.truncated = log.terminated > 0, log.truncated > 0
    log.returns = np.bincount(log.episode, log.reward)
    both = np.stack([log.obs, log.next_obs])
    if both.shape[-1] > 1 and np.isin(both, (0, 1)).all() and (both.sum(-1) == 1).all():
        both = both.argmax(-1)[..., None].astype(float)  # one-hot: back to the number of a state
        log.obs, log.next_obs = both
    log.distinct = np.array([len(np.unique(column)) for column in log.obs.T])
    log.states = np.unique(both) if both.shape[-1] == 1 and not (both % 1).any() else None
    if log.states is not None and len(log.states) > 1000:
        log.states = None  # a measurement rather than a label
    log.nearby = _nearby(log) if len(log.obs) >= 100 else None
    return log


def _bad(column) -> np.ndarray:
    return ~np.isfinite(column.reshape(len(column), -1)).all(1)


def _sample(log, rows):
    """Some rows as inputs: states standardised (if numbered, as indicators), actions, next states."""
    states, actions = np.stack([log.obs[rows], log.next_obs[rows]]), log.action[rows]
    if log.states is None:
        scale = np.where(log.distinct > 1, log.obs.std(0), np.inf)
        states = np.clip((states - log.obs.mean(0)) / scale, -5, 5)
    else:
        states = np.eye(len(log.states))[np.searchsorted(log.states, states[..., 0])]
    if log.n_actions:
        actions = np.eye(log.n_actions)[actions[:, 0].astype(int)]
    return states[0], actions, states[1]


def _nearby(log, neighbours=20, queries=500, rows=5000) -> np.ndarray:
    """Actions at the nearest neighbours of a sample of states, [queries, neighbours, m]."""
    x, action, _ = _sample(log, np.random.default_rng(0).permutation(len(log.obs))[:rows])
    distance = (x**2).sum(1) - 2 * x[:queries] @ x.T
    np.fill_diagonal(distance, np.inf)
    return action[np.argpartition(distance, neighbours, axis=1)[:, :neighbours]]


def _numbers(log):
    bad = {name: _bad(getattr(log, name)) for name in _COLUMNS}
    log.numbers["bad_rows"] = int(np.any(list(bad.values()), axis=0).sum())
    if log.numbers["bad_rows"]:
        bad = {name: rows for name, rows in bad.items() if rows.any()}
        where = [f"{name} in {b.sum():,} rows (first: row {b.argmax()})" for name, b in bad.items()]
        hint = ""
        if any(np.isinf(getattr(log, name)).any() for name in bad):
            hint = " Infinite in 16 bits is whatever exceeds 65,504: was the log cast to float16?"
        return "fault", f"NaN or infinite: {', '.join(where)}; repair or drop these episodes.{hint}"
    if short := [name for name in _COLUMNS[:4] if _in_16_bits(getattr(log, name))]:
        return "look", f"Only 3 digits, as 16 bits keep them: {', '.join(short)}; log 32 bits."
    return "ok", f"All values in {len(log.obs):,} rows are finite."


def _in_16_bits(column) -> bool:
    """Whether more than 100 different fractions all happen to be 16-bit numbers."""
    fractions = column[column % 1 != 0]
    with np.errstate(over="ignore"):
        short = (fractions.astype(np.float16) == fractions).all()
    return short and len(np.unique(fractions)) > 100


def _chain(log):
    """Does every step lead to the next row?"""
    t = np.flatnonzero(log.follows)
    gap = abs(log.next_obs[t] - log.obs[t + 1])
    broken = (gap > 1e-3 * log.obs.std(0) + 1e-6 * abs(log.obs[t + 1])).any(1)  # not by rounding
    log.numbers |= {"links": len(t), "broken_links": int(broken.sum())}
    if log.scattered:
        finding = f"Rows of other episodes come between those of one, {log.scattered:,} times"
        return "fault", f"{finding}; sort by episode, then by time."
    if broken.any():
        first = log.row[t[broken.argmax()]]
        where = f"in {broken.sum():,} of {len(t):,} steps (first: row {first})"
        finding = f"next_obs is not the next row's obs {where}: missing, shuffled or repeated rows"
        return "fault", f"{finding}, or episodes joined; repair them, or begin an episode there."
    return "ok", f"next_obs is the next row's obs in all {len(t):,} steps inside episodes."


def _teleports(log):
    """Steps far longer, in some dimension, than nine in ten of all and than the two before and after."""
    fine = log.distinct > 20  # a flag or a mode may well jump
    if log.states is not None or not fine.any():
        return "ok", "Not judged: no observation is continuous."
    step = abs(log.next_obs - log.obs)[:, fine]
    usual = np.maximum(np.quantile(step, 0.9, axis=0), log.obs[:, fine].std(0) / 10) + 0 * step
    for k in (1, 2):
        same = (log.episode[k:] == log.episode[:-k])[:, None]
        usual[k:] = np.maximum(usual[k:], step[:-k] * same)
        usual[:-k] = np.maximum(usual[:-k], step[k:] * same)
    times = (step / usual).max(1)
    far, long = times > 7, (times > 3.5) & (times <= 7)
    log.numbers |= {"jumps": int(far.sum()), "longest_step": float(times.max())}
    if not far.any():
        return "ok", f"The longest step is {times.max():.1f} times what is usual around it."
    where = f"{far.sum():,} of {len(far):,} steps (first: row {log.row[far.argmax()]})"
    finding = f"{where} are over 7 times as long as is usual around them"
    if 2 * far.sum() > long.sum():  # heavy tails would hold many more of middling length
        return "fault", f"{finding}: episodes joined? Begin one there, and truncate the one before."
    return "look", f"{finding}, as dynamics with heavy tails have it: real, or a sensor's errors?"


def _flags(log):
    ends, both = log.terminated | log.truncated, log.terminated & log.truncated
    inside, missing, episodes = ends & ~log.last, int((log.last & ~ends).sum()), log.last.sum()
    both = int((both & (log.length != log.limit)).sum())  # at the limit, Gymnasium sets both
    log.numbers |= {"flags_inside": int(inside.sum()), "flags_missing": missing, "flags_both": both}
    if inside.any():
        where = f"{inside.sum():,} rows with a flag (first: row {log.row[inside.argmax()]})"
        return "fault", f"Episodes go on after {where}; begin a new episode after each."
    if both > max(2, ends.sum() / 2):
        return "fault", f"Both flags are up at {both:,} ends, as if copied; keep the true one."
    if missing:
        finding = f"No flag ends {missing:,} of {episodes:,} episodes; set truncated there."
        return "fault" if missing > max(1, episodes / 20) else "look", finding
    if both:
        return "look", f"Both flags are up at {both:,} ends, which then count as terminated."
    return "ok", "A flag is up at the end of every episode and nowhere else."


def _endings(log):
    """Do the lengths of terminated (t) and truncated (c) episodes fit a time limit, known or not?"""
    ended = log.last & log.terminated
    t = log.length[ended & ~log.truncated]
    c = log.length[log.last & log.truncated & ~log.terminated]
    longest, top = log.length.max(), log.limit or log.length.max()
    what = f"the {'limit' if log.limit else 'greatest length'} of {top} steps"
    at, near, early = int((t == top).sum()), int(((t < top) & (t >= 0.8 * top)).sum()), c[c < top]
    log.numbers |= {"terminations": int(ended.sum()), "terminations_at_limit": at}
    log.numbers |= {"truncations": len(c), "truncations_before_limit": len(early)}
    if 3 <= at == len(t) and 3 <= len(early) == len(c) and np.ptp(c):
        finding = f"All {at} terminations come at {what}, all {len(c)} truncations before"
        return "fault", f"{finding}: the flags are swapped; swap them back."
    if top > 1 and at >= 3 and at > 3 * near:  # a task rarely ends just when time is out
        finding = f"{at} of {ended.sum()} terminations come at exactly {what}"
        certain = log.limit and (at == len(t) or at > len(c) - len(early))
        return "fault" if certain else "look", f"{finding}: set truncated where time ran out."
    if longest > top:
        return "look", f"An episode of {longest} steps exceeds {what}: joined, or another limit?"
    if len(early) > 1 and np.ptp(early):
        finding = f"{len(early)} truncations at {early.min()} to {early.max()} steps precede {what}"
        return "look", f"{finding}: fine if recording stopped; if the task ended, set terminated."
    return "ok", f"{ended.sum():,} terminations and {len(c):,} truncations agree with {what}."


def _reward(log):
    """Is a reward explained better by the row before or after than by its own?"""
    inner = np.flatnonzero(log.follows[:-1] & log.follows[1:]) + 1  # both neighbours exist
    rows = np.random.default_rng(0).permutation(inner)[:5000]
    y, left = log.reward[rows], {}
    if len(y) < 100 or (y != np.median(y)).sum() < 20:
        return "ok", "Cannot be judged: too few different rewards inside episodes."
    for name, shift in (("before", -1), ("own", 0), ("after", 1)):
        inputs = *_sample(log, rows + shift), log.terminated[rows + shift, None]
        left[name] = _unexplained(_features(np.hstack(inputs)), y)
    log.numbers |= {f"reward_left_{name}": value for name, value in left.items()}
    best = min(left, key=left.get)
    if left[best] > 0.5:
        return "ok", "Cannot be judged: states and actions do not explain the rewards."
    own = f"A reward's own row leaves {100 * left['own']:.2g}% of its variance unexplained"
    late = {"before": "late", "after": "early"}.get(best)
    finding = f"{own}, the row {best} only {100 * left[best]:.2g}%"
    if left[best] < left["own"] / 3:
        return "fault", f"{finding}: rewards stand one row too {late}; move them."
    if left[best] < 0.7 * left["own"]:
        return "look", f"{finding}: recompute some rewards, they may stand one row too {late}."
    ties = [f"the row {name}" for name in ("before", "after") if left[name] < 3 * left["own"]]
    if ties:
        return "ok", f"{own}, {' and '.join(ties)} about as little: such a shift would not show."
    return "ok", f"{own}, the rows before and after more."


def _features(x, waves=150) -> np.ndarray:
    """1, x, its products, and random waves (Rahimi & Recht 2007) of two lengths, of rows x [n, d]."""
    rng, d = np.random.default_rng(0), x.shape[1]
    i, j = np.triu_indices(d if d <= 45 else 0)
    parts = [np.ones((len(x), 1)), x, x[:, i] * x[:, j]]
    for scale in (0.5, 2.0):
        directions = rng.standard_normal((d, waves)) * scale / np.sqrt(d)
        parts.append(np.cos(x @ directions + rng.uniform(0, 2 * np.pi, waves)))
    return np.hstack(parts)


def _unexplained(features, y) -> float:
    """Share of the variance of y that ridge regression on four rows in five leaves in the fifth."""
    train, y = 4 * len(y) // 5, (y - y.mean()) / y.std()
    gram = features[:train].T @ features[:train] + 0.1 * np.eye(features.shape[1])
    weights = np.linalg.solve(gram, features[:train].T @ y[:train])
    return float(((features[train:] @ weights - y[train:]) ** 2).mean())


def _duplicates(log):
    if not (log.obs % 1).any() or log.distinct.max() <= len(log.obs) / 20:
        return "ok", "Not judged: observations of few values may well repeat."
    table = np.column_stack([log.obs, log.action, log.reward, log.next_obs])
    codes, rows = pd.factorize(np.array([row.tobytes() for row in table], object))
    whole = np.split(codes, np.flatnonzero(np.diff(log.episode)) + 1)
    repeated = len(codes) - len(rows), len(whole) - len({part.tobytes() for part in whole})
    log.numbers |= {"repeated_rows": repeated[0], "repeated_episodes": repeated[1]}
    if not repeated[0]:
        return "ok", "No row occurs twice."
    often = max(repeated[0] / len(codes), repeated[1] / len(whole)) > 0.01
    finding = f"{repeated[0]:,} rows and {repeated[1]:,} whole episodes repeat earlier ones"
    return "fault" if often else "look", f"{finding}; keep one of each."


def _actions(log):
    if log.n_actions:
        n, unused = log.n_actions, log.n_actions - len(np.unique(log.action))
        if unused:
            return "look", f"{unused} of {n} actions never occur: nothing is known of their effect."
        return "ok", f"All {n} actions occur."
    low, high = log.action.min(0), log.action.max(0)
    if (low == high).any():
        never = f"Dimension {(low == high).argmax()} of the action never changes"
        return "look", f"{never}; find out why."
    at = np.stack([(log.action == low).mean(0), (log.action == high).mean(0)])  # [2, m]
    at -= 1 / len(log.action)  # one action has to be the extreme
    log.numbers["at_extremes"] = float(at.sum(0).max())
    levels = np.array([len(np.unique(column)) for column in log.action.T])
    inside = (at.min(0) > 0.01) & (np.maximum(-low, high) < 0.999) & (levels > 20) & log.scaled
    k = int((inside if inside.any() else at.sum(0)).argmax())
    where = (
        f"{at[:, k].sum():.1%} of the actions equal {low[k]:.3g} or {high[k]:.3g} in dimension {k}"
    )
    if inside.any():
        return "fault", f"Clipped inside the bounds of -1 and 1: {where}; log what was executed."
    if at.max() > 0.01:
        return "look", f"Clipped or saturated: {where}; likelihoods of a Gaussian mislead there."
    return "ok", f"At most {at.max():.1%} of the actions equal the lowest, or the highest, one."


def _narrowness(log):
    """How far actions spread around a state: 0 is deterministic, 1 uniform."""
    if log.nearby is None:
        return "ok", "Not judged: fewer than 100 rows."
    if log.n_actions:
        p = log.nearby.mean(1)
        entropy = -(p * np.log(np.maximum(p, 1e-9))).sum(1)
        spread = float(entropy.mean() / np.log(max(log.n_actions, 2)))
    else:  # a uniform action in [-1, 1] has standard deviation 1 / sqrt(3)
        spread = float(np.median(log.nearby.std(1).mean(1)) * np.sqrt(3) / log.reach)
    log.numbers["narrowness"] = spread
    finding = f"Around a typical state, actions spread {spread:.2f} times as far as uniform ones"
    if spread < 0.1:
        return "look", f"{finding}: learning without a constraint will leave these data."
    return "ok", f"{finding}."


def _modes(log):
    """Share of states whose neighbours' actions, in their widest dimension, are two groups far apart."""
    if log.nearby is None or log.n_actions:
        return (
            "ok",
            "Not judged: fewer than 100 rows, or discrete actions, of which no mean is taken.",
        )
    n, k, _ = log.nearby.shape
    v = np.sort(log.nearby[np.arange(n), :, log.nearby.std(1).argmax(1)], axis=1)  # [n, k]
    left, sums = np.arange(1, k), v.cumsum(1)
    apart = (sums[:, -1:] - sums[:, :-1]) / (k - left) - sums[:, :-1] / left  # of the groups' means
    # share of the variance between the groups, at the best split: Gaussian 0.64, uniform 0.75
    between = left * (k - left) / k**2 * apart**2 / np.maximum(v.var(1), 1e-12)[:, None]
    best = between.argmax(1)
    far = apart[np.arange(n), best] > log.reach / 2
    two = float(((between.max(1) > 0.9) & far & (best >= 2) & (best <= k - 4)).mean())
    log.numbers["modes"] = two
    finding = f"In {two:.0%} of the states, the actions nearby form two groups far apart"
    if two > 0.2:
        return "look", f"{finding}: one Gaussian averages them."
    return "ok", f"{finding}."


def _balance(log):
    best = np.argsort(-log.returns)[: -(-len(log.returns) // 10)]
    share, nonzero = np.isin(log.episode, best).mean(), (log.reward != 0).mean()
    log.numbers |= {"best_tenth": float(share), "nonzero_rewards": float(nonzero)}
    spread = f"Returns {log.returns.mean():.4g} ± {log.returns.std():.3g}"
    notes = [f"{spread}; the best tenth of the episodes holds {share:.0%} of the rows"]
    if nonzero < 0.05:
        notes.append(f"only {nonzero:.2%} of the rewards are not zero, so a batch may hold none")
    if log.n_actions:
        shares = (log.action == np.arange(log.n_actions)).mean(0)
        log.numbers["rarest_action"] = float(shares.min())
        if shares.min() < 0.01:
            notes.append(f"action {shares.argmin()} is in {shares.min():.2%} of the rows: a guess")
    return "look" if len(notes) > 1 else "ok", "; ".join(notes) + "."


_CHECKS = (
    *(_chain, _teleports, _flags, _endings, _reward),
    *(_duplicates, _actions, _narrowness, _modes, _balance),
)


def _draw_returns(ax, log):
    ax.hist(log.returns, bins=30, linewidth=0)
    ax.set(title="Returns", xlabel="return of the episode", ylabel="episodes")


def _draw_endings(ax, log):
    from offrl_nb.figures import COLOURS, GREY

    kind = np.select([log.terminated[log.last], log.truncated[log.last]], [0, 1], 2)
    names, colours = ("terminated", "truncated", "no flag"), (COLOURS[1], COLOURS[0], GREY)
    bins, lengths = np.linspace(0, 1.02 * log.length.max(), 31), log.length[log.last]
    below = np.zeros(30)
    for k in np.unique(kind):
        top = below + np.histogram(lengths[kind == k], bins)[0]
        ax.stairs(top, bins, baseline=below, fill=True, color=colours[k], label=names[k])
        below = top
    ax.set(title="Endings", xlabel="length of the episode (steps)", ylabel="episodes")
    ax.legend()


def _draw_actions(ax, log):
    ax.set(title="Actions", xlabel="action", ylabel="rows (%)")
    if log.n_actions:
        values, counts = np.unique(log.action, return_counts=True)
        ax.bar(values, 100 * counts / len(log.action), width=0.6)
        ax.xaxis.get_major_locator().set_params(integer=True)
        return
    bins, m = np.linspace(log.action.min(), log.action.max() + 1e-9, 31), log.action.shape[1]
    for k, values in enumerate(log.action.T):
        shares = 100 * np.histogram(values, bins)[0] / len(values)
        ax.stairs(shares, bins, fill=m == 1, linewidth=1.5, label=f"{k}")
    if 1 < m <= 6:
        ax.legend(title="dimension", ncols=3, fontsize=9)
        ax.margins(y=0.35)


def _draw_states(ax, log):
    ax.set_title("States")
    if log.states is not None:
        numbers, counts = np.unique(log.obs, return_counts=True)
        ax.bar(numbers, 100 * counts / len(log.obs), width=1)
        ax.set(xlabel="number of the state", ylabel="rows (%)")
        return
    rows = np.random.default_rng(0).permutation(len(log.obs))[:3000]
    x = _sample(log, rows)[0]
    _, sizes, directions = np.linalg.svd(x - x.mean(0), full_matrices=False)
    places = np.pad(x @ directions[:2].T, ((0, 0), (0, 1)))[:, :2]  # one dimension: a flat line
    dots = ax.scatter(*places.T, s=4, c=log.returns[log.episode[rows]], cmap="viridis")
    shares = np.append(sizes**2 / max((sizes**2).sum(), 1e-9), 0)
    ax.set_xlabel(f"1st principal component ({shares[0]:.0%})")
    ax.set_ylabel(f"2nd component ({shares[1]:.0%})")
    ax.figure.colorbar(dots, ax=ax, label="return of the episode")
