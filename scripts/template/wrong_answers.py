"""Wrong answers that the checks of chapter SLUG must reject, at least two for each exercise."""

WRONG = {
    "The best action": [
        # the price is forgotten
        "def best_action(logged, weight, rest):\n    return logged.mean()",
        # the resting position is forgotten
        "def best_action(logged, weight, rest):\n    return logged.mean() / (1 + weight)",
        # not divided
        "def best_action(logged, weight, rest):\n    return logged.mean() + weight * rest",
    ],
    "The price alone": [
        # a mean over the axis of the action
        "def effort_of(action):\n    return (action**2).mean((-2, -1))",
        # a mean over seeds
        "def effort_of(action):\n    return (action**2).sum(-1).mean(0)",
    ],
    "Predict, then run: twice the price": [
        "def prediction():\n    return 0.15",
        "def prediction():\n    return 0.3",
    ],
    "Find the planted bug": [
        # unchanged
        "def relative(error):\n    return (error / error.mean().detach()).mean(-1)",
        # the mean over seeds
        "def relative(error):\n    return (error / error.mean(0).detach()).mean(-1)",
        # the unit is trained
        "def relative(error):\n    return (error / error.mean(-1, keepdim=True)).mean(-1)",
    ],
}
