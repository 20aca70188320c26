"""Plausible wrong answers to the exercises of chapters/bcq.ipynb: every check must reject them."""

WRONG = {
    "What a threshold lets through": [
        # the policy's own action is never replaced by itself
        "def largest_open_threshold(epsilon, n_actions):\n"
        "    return epsilon / (n_actions - 1) / (1 - epsilon)",
        # own share of the random draws forgotten
        "def largest_open_threshold(epsilon, n_actions):\n"
        "    return epsilon / n_actions / (1 - epsilon)",
        # the absolute probability
        "def largest_open_threshold(epsilon, n_actions):\n    return epsilon / n_actions",
    ],
    "The floor under a clone": [
        # frequencies only
        "def floor_ratio(n_actions, penalty=1e-2):\n    return 0.0",
        # the penalty's mean taken for a sum
        "def floor_ratio(n_actions, penalty=1e-2):\n"
        "    low, high = 0.0, 50.0\n"
        "    for _ in range(100):\n"
        "        y = (low + high) / 2\n"
        "        g = 1 / (np.exp(n_actions * y) + n_actions - 1)\n"
        "        low, high = (y, high) if g > 2 * penalty * y else (low, y)\n"
        "    return np.exp(-n_actions * y)",
        # right for two actions only
        "def floor_ratio(n_actions, penalty=1e-2):\n"
        "    low, high = 0.0, 50.0\n"
        "    for _ in range(100):\n"
        "        y = (low + high) / 2\n"
        "        g = 1 / (np.exp(2 * y) + 1)\n"
        "        low, high = (y, high) if g > penalty * y else (low, y)\n"
        "    return np.exp(-2 * y)",
        # the probability instead of the ratio
        "def floor_ratio(n_actions, penalty=1e-2):\n"
        "    low, high = 0.0, 50.0\n"
        "    for _ in range(100):\n"
        "        y = (low + high) / 2\n"
        "        g = 1 / (np.exp(n_actions * y) + n_actions - 1)\n"
        "        low, high = (y, high) if g > 2 * penalty * y / n_actions else (low, y)\n"
        "    return g",
    ],
    "The target over proposals": [
        # the proposal that the smaller critic likes best, valued by the mix
        "def best_proposal_value(q, n, mix=0.75):\n"
        "    low = q.amin(0).unflatten(-1, (-1, n))\n"
        "    soft = (mix * q.amin(0) + (1 - mix) * q.amax(0)).unflatten(-1, (-1, n))\n"
        "    return soft.gather(-1, low.argmax(-1, keepdim=True)).squeeze(-1)",
        # the share of the smaller critic fixed
        "def best_proposal_value(q, n, mix=0.75):\n"
        "    soft = 0.75 * q.amin(0) + 0.25 * q.amax(0)\n"
        "    return soft.unflatten(-1, (-1, n)).amax(-1)",
        # the maximum first, then the mix
        "def best_proposal_value(q, n, mix=0.75):\n"
        "    each = q.unflatten(-1, (-1, n)).amax(-1)\n"
        "    return mix * each.amin(0) + (1 - mix) * each.amax(0)",
        # proposals of different states mixed
        "def best_proposal_value(q, n, mix=0.75):\n"
        "    soft = mix * q.amin(0) + (1 - mix) * q.amax(0)\n"
        "    return soft.unflatten(-1, (n, -1)).amax(-2)",
        # the plain minimum
        "def best_proposal_value(q, n, mix=0.75):\n"
        "    return q.amin(0).unflatten(-1, (-1, n)).amax(-1)",
        # the weights exchanged
        "def best_proposal_value(q, n, mix=0.75):\n"
        "    soft = (1 - mix) * q.amin(0) + mix * q.amax(0)\n"
        "    return soft.unflatten(-1, (-1, n)).amax(-1)",
    ],
    "Predict, then run: a longer leash": [
        # the best of the logged actions
        "def prediction():\n    return 0.9",
        # the spread of the behaviour plus the leash
        "def prediction():\n    return 0.5",
        # the clipped spread plus the leash
        "def prediction():\n    return 0.5 * 0.3 + 0.2",
        "def prediction():\n    return 0.05",
    ],
    "Find the planted bugs": [
        # unchanged
        "def choose(q, prob, threshold):\n"
        "    mask = (prob / prob.amax(-1, keepdim=True) > threshold).float()\n"
        "    return (mask * q).argmax(-1)",
        # the strict inequality left
        "def choose(q, prob, threshold):\n"
        "    allowed = prob / prob.amax(-1, keepdim=True) > threshold\n"
        "    return q.masked_fill(~allowed, -torch.inf).argmax(-1)",
        # the multiplication left
        "def choose(q, prob, threshold):\n"
        "    mask = (prob / prob.amax(-1, keepdim=True) >= threshold).float()\n"
        "    return (mask * q).argmax(-1)",
        # an absolute threshold
        "def choose(q, prob, threshold):\n"
        "    return q.masked_fill(prob < threshold, -torch.inf).argmax(-1)",
        # a constant that is not low enough
        "def choose(q, prob, threshold):\n"
        "    allowed = prob / prob.amax(-1, keepdim=True) >= threshold\n"
        "    return q.masked_fill(~allowed, -20.0).argmax(-1)",
    ],
}
