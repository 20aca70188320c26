"""Plausible wrong answers to the exercises of chapters/combo.ipynb; their checks must reject all."""

WRONG = {
    "One state, many actions": [
        # f = 1 for both
        "def bandit(K, f):\n    return K - 1, K - 1",
        # the bound in place of the value
        "def bandit(K, f):\n    return 1 / (1 - f + 1e-9), K - 1",
        # the other actions counted as well
        "def bandit(K, f):\n    return (1 - 1 / K) / (f / K + 1 - f) - (1 - 1 / K) / f, K - 1",
        # forgot to subtract 1
        "def bandit(K, f):\n    return (1 - 1 / K) / (f / K + 1 - f), K",
    ],
    "The world that Q lives in": [
        # batches are mixed with f everywhere
        "def settled_q(T_log, R_log, T_hat, R_hat, d, rho, f, beta, policy, discount):\n"
        "    T = f * T_log + (1 - f) * T_hat\n"
        "    R = f * R_log + (1 - f) * R_hat - beta * excess(rho, d, f)\n"
        "    return exact_q(T, R, policy, discount)",
        # the push charged once, not as a reward
        "def settled_q(T_log, R_log, T_hat, R_hat, d, rho, f, beta, policy, discount):\n"
        "    d_f = f * d + (1 - f) * rho\n"
        "    w = np.where(d_f > 0, f * d / np.where(d_f > 0, d_f, 1), 0)\n"
        "    T = w[..., None] * T_log + (1 - w[..., None]) * T_hat\n"
        "    R = w * R_log + (1 - w) * R_hat\n"
        "    return exact_q(T, R, policy, discount) - beta * excess(rho, d, f)",
        # the model alone
        "def settled_q(T_log, R_log, T_hat, R_hat, d, rho, f, beta, policy, discount):\n"
        "    return exact_q(T_hat, R_hat - beta * excess(rho, d, f), policy, discount)",
    ],
    "Find the planted bug": [
        # the gradient arrives, the axis is still wrong
        "def push(q, q_log):\n    return torch.logsumexp(q, dim=-1).mean(-1) - q_log.mean(-1)",
        # the axis is right, still no gradient
        "def push(q, q_log):\n"
        "    return torch.logsumexp(q, dim=2).mean(-1).detach() - q_log.mean(-1)",
        # a mean in place of the log-sum-exp
        "def push(q, q_log):\n    return q.mean((2, 3)) - q_log.mean(-1)",
    ],
    "Just as careful as CQL": [
        # a constant
        "def largest_share(rho, d, c):\n    return 0.5",
        # the bound 1 / (1 - f) solved for f
        "def largest_share(rho, d, c):\n    return max(0.0, 1 - 1 / max(c, 1e-9))",
        # halves the wrong way
        "def largest_share(rho, d, c):\n"
        "    low, high = 0.0, 1.0\n"
        "    for _ in range(40):\n"
        "        middle = (low + high) / 2\n"
        "        nu = (rho * excess(rho, d, middle)).sum()\n"
        "        low, high = (middle, high) if nu > c else (low, middle)\n"
        "    return low",
    ],
    "Predict, then run: somebody else rolls out": [
        'def prediction():\n    return "below 2"',
        'def prediction():\n    return "2 to 5"',
    ],
}
