"""Plausible wrong answers to the exercises of chapters/finetune.ipynb; each check must reject them."""

FALL = "def value_in_the_end(values, q_first, floor):\n    "
GAP = """def discrete_calibrated_gap(q, action, floor):
    lifted = torch.maximum(q, floor.unsqueeze(-1))
    index = action.expand(q.shape[:-1]).unsqueeze(-1)
    return {gap}"""
ROW = """def online_row(reward, terminated, truncated, following, ended, discount, scale, tail):
    rewards = [{unit}reward, *({later}r for r in following)]
    floor = sum(discount**i * r for i, r in enumerate(rewards))
    if {stops}:
        floor += {rest}
    return rewards[0], {mask}, floor"""
RIGHT = {
    "unit": "scale * ",
    "later": "scale * ",
    "stops": "not ended",
    "rest": "discount ** len(rewards) * tail",
    "mask": "1.0 - terminated",
}

WRONG = {
    "How deep can it fall": [
        # what is believed instead of what is true
        FALL + "return max(max(q_first, floor), *values[1:])",
        # the best action always wins
        FALL + "return max(values)",
        # nothing is ever unlearned
        FALL + "return values[0]",
        # no floor
        FALL + "return values[int(np.argmax([q_first, *values[1:]]))]",
        # the floor lifts what is earned
        FALL + "return max(floor, values[int(np.argmax([q_first, *values[1:]]))])",
    ],
    "The floor for discrete actions": [
        # the logged value is lifted, too
        GAP.format(
            gap="(torch.logsumexp(lifted, -1) - lifted.gather(-1, index).squeeze(-1)).mean(-1)"
        ),
        # no floor
        GAP.format(gap="(torch.logsumexp(q, -1) - q.gather(-1, index).squeeze(-1)).mean(-1)"),
        # a plain maximum
        GAP.format(gap="(lifted.amax(-1) - q.gather(-1, index).squeeze(-1)).mean(-1)"),
        # the sum itself is lifted
        GAP.format(
            gap="(torch.maximum(torch.logsumexp(q, -1), floor) - q.gather(-1, index).squeeze(-1)).mean(-1)"
        ),
        # seeds are averaged
        GAP.format(gap="(torch.logsumexp(lifted, -1) - q.gather(-1, index).squeeze(-1)).mean()"),
    ],
    "Predict, then run: what the floor leaves": [
        # no floor
        "def predicted_signs():\n    return -1, 1, 1",
        # the logged action is protected
        "def predicted_signs():\n    return 0, 0, 1",
        # the floor stops everything
        "def predicted_signs():\n    return -1, 0, 0",
        "def predicted_signs():\n    return 0, 0, 0",
    ],
    "Find the planted bugs": [
        # a time-out ends the task
        ROW.format(**RIGHT | {"mask": "1.0 - float(terminated or truncated)"}),
        # only the row's own reward is scaled
        ROW.format(**RIGHT | {"later": ""}),
        # nothing is scaled
        ROW.format(**RIGHT | {"unit": "", "later": ""}),
        # the tail is not discounted
        ROW.format(**RIGHT | {"rest": "tail"}),
        # the tail only where this row is the last one
        ROW.format(**RIGHT | {"stops": "truncated"}),
        # the tail is always added
        ROW.format(**RIGHT | {"stops": "True"}),
        # discounted once too little
        ROW.format(**RIGHT | {"rest": "discount ** len(following) * tail"}),
    ],
}
