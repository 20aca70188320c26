"""Plausible wrong answers to the exercises of chapters/iql.ipynb; each check must reject them."""

WRONG = {
    "How close to one": [
        # tau taken for a quantile
        "def tau_for(p, v):\n    return 1 - p",
        # odds the wrong way round
        "def tau_for(p, v):\n    odds = v / (1 - v) * p / (1 - p)\n    return odds / (1 + odds)",
        # the odds themselves instead of the probability
        "def tau_for(p, v):\n    return v / (1 - v) * (1 - p) / p",
        # errors weighted without the square
        "def tau_for(p, v):\n    return v * (1 - p)",
    ],
    "The weights": [
        # the cap on the advantage
        "def weights_of(q, v, inv_temp, cap):\n"
        "    weight = (inv_temp * (q - v).clamp(max=cap)).exp()\n"
        "    return weight, weight.sum(-1) ** 2 / (weight**2).sum(-1) / weight.shape[-1]",
        # the cap on beta times the advantage
        "def weights_of(q, v, inv_temp, cap):\n"
        "    weight = (inv_temp * (q - v)).clamp(max=cap).exp()\n"
        "    return weight, weight.sum(-1) ** 2 / (weight**2).sum(-1) / weight.shape[-1]",
        # a temperature instead of its inverse
        "def weights_of(q, v, inv_temp, cap):\n"
        "    weight = ((q - v) / inv_temp).exp().clamp(max=cap)\n"
        "    return weight, weight.sum(-1) ** 2 / (weight**2).sum(-1) / weight.shape[-1]",
        # one sum for all seeds
        "def weights_of(q, v, inv_temp, cap):\n"
        "    weight = (inv_temp * (q - v)).exp().clamp(max=cap)\n"
        "    return weight, weight.sum() ** 2 / (weight**2).sum() / weight.numel()",
        # in rows instead of as a share
        "def weights_of(q, v, inv_temp, cap):\n"
        "    weight = (inv_temp * (q - v)).exp().clamp(max=cap)\n"
        "    return weight, weight.sum(-1) ** 2 / (weight**2).sum(-1)",
    ],
    "The shift": [
        # a constant is a constant
        "def shifted(c, discount):\n    return 1.0, -c",
        # the formula of the text: the last step costs nothing there only because c is 1
        "def shifted(c, discount):\n    return 1 / (1 - discount), -1 / (1 - discount)",
        # the shift not charged at the last step
        "def shifted(c, discount):\n    return 1 + c / (1 - discount), -c / (1 - discount)",
        # as if the task never ended
        "def shifted(c, discount):\n    return 1.0, -c / (1 - discount)",
    ],
    "Predict, then run: more optimism, same temperature": [
        # the other way round
        "def prediction():\n    return 0.731, 0.881",
        # the gap unchanged
        "def prediction():\n    return 0.881, 0.881",
        # the value of the whole corridor instead of one step
        "def prediction():\n    return 1.0, 1.0",
    ],
    "Find the planted bugs": [
        # the side only
        "def repaired(q, v, tau):\n"
        "    u = q.mean(0) - v\n"
        "    weight = torch.where(u > 0, tau, 1 - tau)\n"
        "    return (weight * u**2).mean(-1)",
        # the side and the critic, and the gradient still runs into the critics
        "def repaired(q, v, tau):\n"
        "    u = q.amin(0) - v\n"
        "    weight = torch.where(u > 0, tau, 1 - tau)\n"
        "    return (weight * u**2).mean(-1)",
        # critic and gradient, the side still wrong
        "def repaired(q, v, tau):\n"
        "    u = v - q.amin(0).detach()\n"
        "    weight = torch.where(u > 0, tau, 1 - tau)\n"
        "    return (weight * u**2).mean(-1)",
        # all repaired, and one loss for all seeds
        "def repaired(q, v, tau):\n"
        "    u = q.amin(0).detach() - v\n"
        "    weight = torch.where(u > 0, tau, 1 - tau)\n"
        "    return (weight * u**2).mean()",
        # a quantile
        "def repaired(q, v, tau):\n"
        "    u = q.amin(0).detach() - v\n"
        "    weight = torch.where(u > 0, tau, 1 - tau)\n"
        "    return (weight * u.abs()).mean(-1)",
    ],
}
