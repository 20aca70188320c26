"""Plausible wrong answers to the exercises of chapters/mopo.ipynb: every check must reject them."""

WRONG = {
    "How much of the horizon": [
        # one discount too few: the trap's own step is right, the next state is wrong
        "def overpromise(k, discount):\n    return discount**k / (1 - discount)",
        # the number of visits without what they are worth
        "def overpromise(k, discount):\n    return discount ** (k + 1)",
        # undiscounted visit
        "def overpromise(k, discount):\n    return discount / (1 - discount)",
    ],
    "The bound, for your rewards": [
        # the whole width in place of half of it
        "def lower_bound(T_hat, r, u, policy, start, discount):\n"
        "    low, high = min(r.min(), 0), max(r.max(), 0)\n"
        "    lam = discount * (high - low) / (1 - discount)\n"
        "    return start @ (policy * exact_q(T_hat, r - lam * u, policy, discount)).sum(-1)",
        # the discount forgotten
        "def lower_bound(T_hat, r, u, policy, start, discount):\n"
        "    low, high = min(r.min(), 0), max(r.max(), 0)\n"
        "    lam = 0.5 * (high - low) / (1 - discount)\n"
        "    return start @ (policy * exact_q(T_hat, r - lam * u, policy, discount)).sum(-1)",
        # the end's 0 forgotten
        "def lower_bound(T_hat, r, u, policy, start, discount):\n"
        "    lam = discount * 0.5 * (r.max() - r.min()) / (1 - discount)\n"
        "    return start @ (policy * exact_q(T_hat, r - lam * u, policy, discount)).sum(-1)",
        # the sign
        "def lower_bound(T_hat, r, u, policy, start, discount):\n"
        "    low, high = min(r.min(), 0), max(r.max(), 0)\n"
        "    lam = discount * 0.5 * (high - low) / (1 - discount)\n"
        "    return start @ (policy * exact_q(T_hat, r + lam * u, policy, discount)).sum(-1)",
    ],
    "Two kinds of doubt": [
        # the average standard deviation, squared
        "def two_doubts(mean, std):\n"
        "    return std.mean(0) ** 2, ((mean - mean.mean(0)) ** 2).mean(0)",
        # divided by M - 1
        "def two_doubts(mean, std):\n    return (std**2).mean(0), mean.var(0)",
        # the largest, as in the penalty
        "def two_doubts(mean, std):\n"
        "    return (std**2).amax(0), ((mean - mean.mean(0)) ** 2).amax(0)",
    ],
    "Find the planted bug": [
        # still the size of a truth value
        "def fallen(obs):\n"
        "    healthy = abs(obs[..., 1:] < 100).all(-1) & (obs[..., 0] > 0.7)\n"
        "    return ~(healthy & (abs(obs[..., 1]) < 0.2))",
        # any in place of all
        "def fallen(obs):\n"
        "    bounded = (obs[..., 1:].abs() < 100).any(-1)\n"
        "    return ~(bounded & (obs[..., 0] > 0.7) & (obs[..., 1].abs() < 0.2))",
        # velocities left out altogether
        "def fallen(obs):\n    return ~((obs[..., 0] > 0.7) & (obs[..., 1].abs() < 0.2))",
    ],
    "A penalty that couples seeds": [
        # the bug itself
        "def scaled_penalty(reward, u, coef):\n    return reward - coef * u / u.mean()",
        # over the seeds in place of the batch
        "def scaled_penalty(reward, u, coef):\n"
        "    return reward - coef * u / u.mean(0, keepdim=True)",
        # a seed's largest
        "def scaled_penalty(reward, u, coef):\n"
        "    return reward - coef * u / u.amax(-1, keepdim=True)",
    ],
    "Predict, then run: the same rows for everybody": [
        'def prediction():\n    return "gone"',
        "def prediction():\n    return None",
    ],
}
