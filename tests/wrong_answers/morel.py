"""Plausible wrong answers to the exercises of chapters/morel.ipynb: every check must reject them."""

WRONG = {
    "When dying is worth it": [
        # the whole way in place of what is left of it
        "def temptation(k, j, discount):\n    return -(1 - discount**k) / (1 - discount)",
        # not discounted
        "def temptation(k, j, discount):\n    return -(k - j)",
        # seen from the start
        "def temptation(k, j, discount):\n"
        "    return -(discount**j) * (1 - discount ** (k - j)) / (1 - discount)",
        # the sign
        "def temptation(k, j, discount):\n    return (1 - discount ** (k - j)) / (1 - discount)",
    ],
    "The detector, by hand": [
        # distance from the mean: MOPO's disagreement
        "def farthest(mean):\n    return (mean - mean.mean(0)).norm(dim=-1).amax(0)",
        # neighbours only
        "def farthest(mean):\n    return (mean[1:] - mean[:-1]).norm(dim=-1).amax(0) * 0.9",
        # the largest coordinate
        "def farthest(mean):\n    return (mean[:, None] - mean[None]).abs().amax((0, 1, -1))",
        # the mean of all pairs
        "def farthest(mean):\n    return (mean[:, None] - mean[None]).norm(dim=-1).mean((0, 1))",
    ],
    "A threshold with a guarantee": [
        # the empirical quantile
        "def guaranteed(unseen, q):\n    return unseen.quantile(q, -1)",
        # n in place of n + 1
        "def guaranteed(unseen, q):\n"
        "    rank = max(1, int(np.ceil(q * unseen.shape[1] - 1e-9)))\n"
        "    return unseen.sort(-1).values[:, rank - 1]",
        # the largest where none is large enough
        "def guaranteed(unseen, q):\n"
        "    rank = int(np.ceil(q * (unseen.shape[1] + 1) - 1e-9))\n"
        "    return unseen.sort(-1).values[:, min(rank, unseen.shape[1]) - 1]",
        # one threshold for all seeds
        "def guaranteed(unseen, q):\n"
        "    rank = int(np.ceil(q * (unseen.numel() + 1) - 1e-9))\n"
        "    return unseen.flatten().sort().values[rank - 1].expand(len(unseen))",
    ],
    "Find the planted bug": [
        # still bootstrapped from
        "def with_halt(rows, unknown, H):\n"
        "    return rows._replace(reward=torch.where(unknown, H, rows.reward))",
        # ends of the task forgotten
        "def with_halt(rows, unknown, H):\n"
        "    reward = torch.where(unknown, H, rows.reward)\n"
        "    return rows._replace(reward=reward, terminated=unknown.float())",
        # the payment added to a guessed reward
        "def with_halt(rows, unknown, H):\n"
        "    ended = torch.maximum(rows.terminated, unknown.float())\n"
        "    return rows._replace(reward=rows.reward + H * unknown, terminated=ended)",
        # every end pays
        "def with_halt(rows, unknown, H):\n"
        "    ended = torch.maximum(rows.terminated, unknown.float())\n"
        "    return rows._replace(reward=torch.where(ended > 0, H, rows.reward), terminated=ended)",
    ],
    "Predict, then run: a longer horizon": [
        'def horizon_prediction():\n    return "for all"',
        'def horizon_prediction():\n    return "for none"',
    ],
}
