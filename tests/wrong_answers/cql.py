"""Plausible wrong answers to the exercises of chapters/cql.ipynb: every check must reject them."""

WRONG = {
    "One step, any temperature": [
        # the temperature forgotten inside the softmax
        "def gap_gradient(q, action, temperature):\n"
        "    return torch.softmax(q, 0) - torch.eye(len(q))[action]",
        # the outer T not cancelled with the inner 1/T
        "def gap_gradient(q, action, temperature):\n"
        "    return temperature * torch.softmax(q / temperature, 0) - torch.eye(len(q))[action]",
        # the sign of the logged action's term: pushed down instead of lifted
        "def gap_gradient(q, action, temperature):\n"
        "    return torch.softmax(q / temperature, 0) + torch.eye(len(q))[action]",
    ],
    "How large must the weight be?": [
        # without the data term
        "def smallest_weight(behaviour, policy, error):\n    return error * behaviour / policy",
        # the ratio upside down
        "def smallest_weight(behaviour, policy, error):\n"
        "    push = behaviour / policy - 1\n"
        "    return error / push if push > 0 else np.inf",
        # a negative weight instead of none
        "def smallest_weight(behaviour, policy, error):\n"
        "    return error / (policy / behaviour - 1)",
    ],
    "CQL(ρ)": [
        # a sum instead of a mean
        "def rho_maximum(q):\n    return torch.logsumexp(q, dim=-2)",
        # over the rows of the batch instead of the samples
        "def rho_maximum(q):\n    return torch.logsumexp(q, dim=-1) - math.log(q.shape[-1])",
        # overflows
        "def rho_maximum(q):\n    return q.exp().mean(-2).log()",
    ],
    "Weighted data": [
        # weights that sum to 1 instead of having mean 1
        "def weighted_gap(gap, episode_return, kappa):\n"
        "    return (torch.softmax(episode_return / kappa, -1) * gap).mean(-1)",
        # scaled over all seeds together
        "def weighted_gap(gap, episode_return, kappa):\n"
        "    weight = torch.softmax(episode_return.flatten() / kappa, 0).view_as(gap)\n"
        "    return (weight * gap.numel() * gap).mean(-1)",
        # overflows
        "def weighted_gap(gap, episode_return, kappa):\n"
        "    weight = (episode_return / kappa).exp()\n"
        "    return (weight / weight.mean(-1, keepdim=True) * gap).mean(-1)",
    ],
    "Predict, then run: richer rewards": [
        "def prediction():\n    return 'same'",
        "def prediction():\n    return 'clone'",
    ],
    "Find the planted bugs": [
        # the sign mended, the seeds still coupled
        "def multiplier_loss(log_weight, gap, tau):\n"
        "    return -log_weight.exp() * (gap.detach() - tau).mean()",
        # the seeds apart, the sign still wrong
        "def multiplier_loss(log_weight, gap, tau):\n"
        "    return log_weight.exp() * (gap.detach() - tau)",
        # the gap not detached: the critic would learn to enlarge its own gap
        "def multiplier_loss(log_weight, gap, tau):\n    return -log_weight.exp() * (gap - tau)",
    ],
}
