"""Plausible wrong answers to the exercises of chapters/data.ipynb: every check must reject them."""

WRONG = {
    "Two wrong values": [
        # the same cap in both cases
        "def cut_values(n, discount):\n"
        "    cap = (1 - discount**n) / (1 - discount)\n"
        "    return cap, cap",
        # the horizon is n, whatever the discount
        "def cut_values(n, discount):\n    return n, 1 / (1 - discount * (1 - 1 / n))",
        # one reward too few
        "def cut_values(n, discount):\n"
        "    visible = (1 - discount ** (n - 1)) / (1 - discount)\n"
        "    return visible, 1 / (1 - discount * (1 - 1 / n))",
        # the cut comes after n + 1 rows
        "def cut_values(n, discount):\n"
        "    visible = (1 - discount**n) / (1 - discount)\n"
        "    return visible, 1 / (1 - discount * (1 - 1 / (n + 1)))",
    ],
    "Returns over n steps": [
        # walks across the border of the episode
        "def n_step(reward, terminated, episode, n, discount):\n"
        "    rows = len(reward)\n"
        "    final = np.minimum(np.arange(rows) + n - 1, rows - 1)\n"
        "    total = [sum(discount**k * reward[t + k] for k in range(final[t] - t + 1)) for t in range(rows)]\n"
        "    return np.array(total), final, discount ** (final - np.arange(rows) + 1) * (1 - terminated[final])",
        # bootstraps after a termination
        "def n_step(reward, terminated, episode, n, discount):\n"
        "    rows = len(reward)\n"
        "    ends = [max(i for i in range(rows) if episode[i] == e) for e in episode]\n"
        "    final = np.minimum(np.arange(rows) + n - 1, ends)\n"
        "    total = [sum(discount**k * reward[t + k] for k in range(final[t] - t + 1)) for t in range(rows)]\n"
        "    return np.array(total), final, discount ** (final - np.arange(rows) + 1.0)",
        # never bootstraps at the end of an episode, cut or not
        "def n_step(reward, terminated, episode, n, discount):\n"
        "    rows = len(reward)\n"
        "    ends = np.array([max(i for i in range(rows) if episode[i] == e) for e in episode])\n"
        "    final = np.minimum(np.arange(rows) + n - 1, ends)\n"
        "    total = [sum(discount**k * reward[t + k] for k in range(final[t] - t + 1)) for t in range(rows)]\n"
        "    return np.array(total), final, discount ** (final - np.arange(rows) + 1) * (final < ends)",
        # always discount to the power of n
        "def n_step(reward, terminated, episode, n, discount):\n"
        "    rows = len(reward)\n"
        "    ends = [max(i for i in range(rows) if episode[i] == e) for e in episode]\n"
        "    final = np.minimum(np.arange(rows) + n - 1, ends)\n"
        "    total = [sum(discount**k * reward[t + k] for k in range(final[t] - t + 1)) for t in range(rows)]\n"
        "    return np.array(total), final, discount**n * (1 - terminated[final])",
    ],
    "Predict, then run: the same for every step": [
        'def windy_prediction():\n    return "same", "same", "same"',
        'def windy_prediction():\n    return "same", "anything", "same"',
        'def windy_prediction():\n    return "never", "anything", "never"',
    ],
    "What a balanced batch costs": [
        # the rare stratum only
        "def effective_share(p):\n    return 2 * p",
        # E w^2 forgotten: w is 1 on average, so nothing is lost
        "def effective_share(p):\n    return 1.0",
        # weights squared and averaged over the log instead of the stratified draw
        "def effective_share(p):\n    return 1 / (4 * (p**3 + (1 - p) ** 3))",
    ],
    "The doctored dataset": [
        # what the audit names, and nothing repaired
        "def repair(columns):\n"
        '    return {"episodes joined", "flags swapped", "rows duplicated"}, columns',
        # the reward shift overlooked
        "def repair(columns):\n"
        '    same = (columns["obs"][1:] == columns["obs"][:-1]).all(-1)\n'
        "    log = {name: column[np.append(True, ~same)] for name, column in columns.items()}\n"
        '    jump = np.append((log["next_obs"][:-1] != log["obs"][1:]).any(-1), True)\n'
        '    log["episode"] = np.append(0, np.cumsum(jump)[:-1])\n'
        '    log["truncated"], log["terminated"] = jump, np.zeros_like(jump)\n'
        '    return {"rows duplicated", "episodes joined", "flags swapped"}, log',
        # rewards recomputed in the wrong direction
        "def repair(columns):\n"
        '    same = (columns["obs"][1:] == columns["obs"][:-1]).all(-1)\n'
        "    log = {name: column[np.append(True, ~same)] for name, column in columns.items()}\n"
        '    jump = np.append((log["next_obs"][:-1] != log["obs"][1:]).any(-1), True)\n'
        '    log["episode"] = np.append(0, np.cumsum(jump)[:-1])\n'
        '    log["truncated"], log["terminated"] = jump, np.zeros_like(jump)\n'
        '    log["reward"] = np.roll(log["reward"], 1)\n'
        '    return {"rows duplicated", "episodes joined", "flags swapped", "rewards shifted by a row"}, log',
        # the swapped flags believed
        "def repair(columns):\n"
        '    same = (columns["obs"][1:] == columns["obs"][:-1]).all(-1)\n'
        "    log = {name: column[np.append(True, ~same)] for name, column in columns.items()}\n"
        '    jump = np.append((log["next_obs"][:-1] != log["obs"][1:]).any(-1), True)\n'
        '    log["episode"] = np.append(0, np.cumsum(jump)[:-1])\n'
        '    log["truncated"] = jump & ~log["terminated"]\n'
        '    log["reward"] = np.roll(log["reward"], -1)\n'
        '    return {"rows duplicated", "episodes joined", "rewards shifted by a row"}, log',
    ],
}
