"""Plausible wrong answers to the exercises of chapters/td3bc.ipynb; each check must reject them."""

WRONG = {
    "The best tilt": [
        # blind to how often the behaviour plays an action
        "def best_tilt(q, beta, alpha):\n"
        "    top = q[beta > 0].max()\n"
        "    policy = np.where(beta > 0, np.exp(np.minimum((q - top) / alpha, 0)), 0)\n"
        "    policy = policy / policy.sum()\n"
        "    ratio = np.maximum(policy, 1e-300) / np.maximum(beta, 1e-300)\n"
        "    return policy @ q - alpha * (policy * np.log(ratio)).sum(), policy",
        # right on paper, overflows
        "def best_tilt(q, beta, alpha):\n"
        "    weight = beta * np.exp(q / alpha)\n"
        "    return alpha * np.log(weight.sum()), weight / weight.sum()",
        # the expectation of Q instead of the objective
        "def best_tilt(q, beta, alpha):\n"
        "    top = q[beta > 0].max()\n"
        "    weight = np.where(beta > 0, beta * np.exp(np.minimum((q - top) / alpha, 0)), 0)\n"
        "    policy = weight / weight.sum()\n"
        "    return (policy * q).sum(), policy",
        # stable, but by the largest value of an action that is forbidden
        "def best_tilt(q, beta, alpha):\n"
        "    weight = beta * np.exp((q - q.max()) / alpha)\n"
        "    return q.max() + alpha * np.log(weight.sum()), weight / weight.sum() + (beta == 0)",
        # alpha for 1 / alpha
        "def best_tilt(q, beta, alpha):\n"
        "    top = q[beta > 0].max()\n"
        "    weight = np.where(beta > 0, beta * np.exp(np.minimum((q - top) * alpha, 0)), 0)\n"
        "    return top + np.log(weight.sum()) / alpha, weight / weight.sum()",
    ],
    "Who pays?": [
        # both the same, BRAC-v's
        "def goes_right(epsilon, alpha):\n"
        "    z = epsilon * np.exp(3 / alpha) + 1 - epsilon\n"
        "    right = alpha * np.log(z)\n"
        "    return (1 / (1 + np.exp((2 - right) / alpha)),) * 2",
        # in the wrong order
        "def goes_right(epsilon, alpha):\n"
        "    z = epsilon * np.exp(3 / alpha) + 1 - epsilon\n"
        "    good = epsilon * np.exp(3 / alpha) / z\n"
        "    right = np.array([3 * good, alpha * np.log(z)])\n"
        "    return tuple(1 / (1 + np.exp((2 - right) / alpha)))",
        # the second state played as the behaviour does
        "def goes_right(epsilon, alpha):\n"
        "    right = 3 * epsilon\n"
        "    return (1 / (1 + np.exp((2 - right) / alpha)),) * 2",
        # the second state played greedily, as if deviating there were free
        "def goes_right(epsilon, alpha):\n"
        "    z = epsilon * np.exp(3 / alpha) + 1 - epsilon\n"
        "    right = np.array([alpha * np.log(z), 3.0])\n"
        "    return tuple(1 / (1 + np.exp((2 - right) / alpha)))",
    ],
    "The next action": [
        # blind to the border where a recording is cut off
        "def next_penalty(policy_action, action, terminated, episode):\n"
        "    penalty = np.zeros(len(action))\n"
        "    penalty[:-1] = ((policy_action[:-1] - action[1:]) ** 2).sum(-1)\n"
        "    return penalty * (1 - terminated)",
        # compared with the action of the same row
        "def next_penalty(policy_action, action, terminated, episode):\n"
        "    penalty = ((policy_action - action) ** 2).sum(-1)\n"
        "    followed = np.append(episode[1:] == episode[:-1], False)\n"
        "    return penalty * followed * (1 - terminated)",
        # across the border of an episode
        "def next_penalty(policy_action, action, terminated, episode):\n"
        "    penalty = ((policy_action - np.roll(action, -1, 0)) ** 2).sum(-1)\n"
        "    return penalty * (1 - terminated)",
        # averaged, as TD3+BC does
        "def next_penalty(policy_action, action, terminated, episode):\n"
        "    penalty = ((policy_action - np.roll(action, -1, 0)) ** 2).mean(-1)\n"
        "    followed = np.append(episode[1:] == episode[:-1], False)\n"
        "    return penalty * followed * (1 - terminated)",
        # blind to the end of the task
        "def next_penalty(policy_action, action, terminated, episode):\n"
        "    penalty = ((policy_action - np.roll(action, -1, 0)) ** 2).sum(-1)\n"
        "    return penalty * np.append(episode[1:] == episode[:-1], False)",
    ],
    "Predict, then run: rewards times ten": [
        'def prediction():\n    return "both"',
        'def prediction():\n    return "neither"',
        'def prediction():\n    return "brac_p"',
    ],
    "Find the planted bugs": [
        # one bug left, then the other
        "def td3bc_loss(q, error, alpha):\n"
        "    scale = alpha / q.abs().mean().detach()\n"
        "    return (error.mean(-1) - scale * q).mean(-1)",
        "def td3bc_loss(q, error, alpha):\n"
        "    scale = alpha / q.abs().mean(-1, keepdim=True)\n"
        "    return (error.mean(-1) - scale * q).mean(-1)",
        # alpha on the wrong term
        "def td3bc_loss(q, error, alpha):\n"
        "    scale = 1 / q.abs().mean(-1, keepdim=True).detach()\n"
        "    return (alpha * error.mean(-1) - scale * q).mean(-1)",
        # summed, as ReBRAC does
        "def td3bc_loss(q, error, alpha):\n"
        "    scale = alpha / q.abs().mean(-1, keepdim=True).detach()\n"
        "    return (error.sum(-1) - scale * q).mean(-1)",
    ],
}
