"""Plausible wrong answers to the exercises of chapters/problem.ipynb; each check must reject them."""

WRONG = {
    "The price of a maximum": [
        # the factor for four actions
        "def excess(sigma, discount):\n    return 1.03 * sigma / (1 - discount)",
        # the first backup forgotten
        "def excess(sigma, discount):\n    return discount * sigma / np.sqrt(np.pi) / (1 - discount)",
        # the mean of |x - y| instead of its half
        "def excess(sigma, discount):\n    return 2 * sigma / np.sqrt(np.pi) / (1 - discount)",
    ],
    "What no value can exceed": [
        # blind to the end of a task
        "def value_bounds(dataset, discount=0.99):\n"
        "    low, high = dataset.reward.min().item(), dataset.reward.max().item()\n"
        "    return low / (1 - discount), high / (1 - discount)",
        # as if an episode could end before its first reward
        "def value_bounds(dataset, discount=0.99):\n"
        "    low, high = dataset.reward.min().item(), dataset.reward.max().item()\n"
        "    return min(0, low / (1 - discount)), max(0, high / (1 - discount))",
        # as if every task could end
        "def value_bounds(dataset, discount=0.99):\n"
        "    low, high = dataset.reward.min().item(), dataset.reward.max().item()\n"
        "    return min(low, low / (1 - discount)), max(high, high / (1 - discount))",
    ],
    "Predict, then run: how much waiting is enough?": [
        'def prediction():\n    return "fails"',
        'def prediction():\n    return "not cured"',
    ],
    "Find the planted bugs": [
        # one bug left, then the other
        "def target(reward, terminated, truncated, next_q, discount):\n"
        "    going_on = 1 - torch.maximum(terminated, truncated)\n"
        "    return reward + discount * going_on * next_q.amin(0)",
        "def target(reward, terminated, truncated, next_q, discount):\n"
        "    return reward + discount * (1 - terminated) * next_q.amin(1)",
        # optimistic critics
        "def target(reward, terminated, truncated, next_q, discount):\n"
        "    return reward + discount * (1 - terminated) * next_q.amax(0)",
    ],
}
