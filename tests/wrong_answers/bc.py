"""Plausible wrong answers to the exercises of chapters/bc.ipynb: every check must reject them."""

WRONG = {
    "What the Gaussian head believes": [
        # the variance instead of the standard deviation
        "def gaussian_belief(p):\n    mean = 2 * p - 1\n    return mean, 1 - mean**2",
        # the standard deviation of a 0/1 variable
        "def gaussian_belief(p):\n    return 2 * p - 1, (p * (1 - p)) ** 0.5",
        # the most likely action instead of the mean
        "def gaussian_belief(p):\n    return (1.0 if p > 0.5 else -1.0), 2 * (p * (1 - p)) ** 0.5",
    ],
    "The log-density of a tanh-Gaussian": [
        # the correction forgotten
        "def tanh_gaussian_log_prob(u, mean, std):\n"
        "    return -0.5 * ((u - mean) / std) ** 2 - torch.log(std) - 0.5 * np.log(2 * np.pi)",
        # the correction added instead of subtracted
        "def tanh_gaussian_log_prob(u, mean, std):\n"
        "    normal = -0.5 * ((u - mean) / std) ** 2 - torch.log(std) - 0.5 * np.log(2 * np.pi)\n"
        "    return normal + 2 * (np.log(2) - u - F.softplus(-2 * u))",
        # right on paper, minus infinity in floating point
        "def tanh_gaussian_log_prob(u, mean, std):\n"
        "    normal = -0.5 * ((u - mean) / std) ** 2 - torch.log(std) - 0.5 * np.log(2 * np.pi)\n"
        "    return normal - torch.log(1 - torch.tanh(u) ** 2)",
        # std taken for a variance
        "def tanh_gaussian_log_prob(u, mean, std):\n"
        "    normal = -0.5 * (u - mean) ** 2 / std - 0.5 * torch.log(2 * np.pi * std)\n"
        "    return normal - 2 * (np.log(2) - u - F.softplus(-2 * u))",
        # mean and std ignored: still a density
        "def tanh_gaussian_log_prob(u, mean, std):\n"
        "    return -0.5 * u**2 - 0.5 * np.log(2 * np.pi)"
        " - 2 * (np.log(2) - u - F.softplus(-2 * u))",
        # finite, but wrong in the tails
        "def tanh_gaussian_log_prob(u, mean, std):\n"
        "    normal = -0.5 * ((u - mean) / std) ** 2 - torch.log(std) - 0.5 * np.log(2 * np.pi)\n"
        "    return normal - torch.log(1 - torch.tanh(u) ** 2 + 1e-6)",
        # not normalised
        "def tanh_gaussian_log_prob(u, mean, std):\n"
        "    normal = -0.5 * ((u - mean) / std) ** 2 - torch.log(std)\n"
        "    return normal - 2 * (np.log(2) - u - F.softplus(-2 * u))",
    ],
    "Predict, then run: more of the same": [
        'def prediction():\n    return "cured"',
        "def prediction():\n    return True",
    ],
    "Find the planted bug": [
        # unchanged
        "def scaled_loss(error):\n"
        "    scale = error.abs().mean().detach()\n"
        "    return (error**2 / scale**2).mean(-1)",
        # the mean over the seeds instead of the batch
        "def scaled_loss(error):\n"
        "    scale = error.abs().mean(0).detach()\n"
        "    return (error**2 / scale**2).mean(-1)",
        # the scale is trained
        "def scaled_loss(error):\n"
        "    scale = error.abs().mean(-1, keepdim=True)\n"
        "    return (error**2 / scale**2).mean(-1)",
        # the gradient's scale right, the value's not: root mean square
        "def scaled_loss(error):\n"
        "    scale = (error**2).mean(-1, keepdim=True).sqrt().detach()\n"
        "    return (error**2 / scale**2).mean(-1)",
    ],
    "A way back": [
        # a loop, not a closed form
        "def recovery_cost(error, recovery, steps):\n    return tightrope(error, steps, recovery)",
        # the stationary probability at every step, as if the walker started there
        "def recovery_cost(error, recovery, steps):\n    return steps * error / (error + recovery)",
        # errors counted also while off the rope
        "def recovery_cost(error, recovery, steps):\n"
        "    q = (1 - recovery) * (1 - error)\n"
        "    return error / (1 - q) * (steps - q * (1 - q**steps) / (1 - q))",
        # the sum begins at t = 0
        "def recovery_cost(error, recovery, steps):\n"
        "    q = 1 - recovery - error\n"
        "    return error / (error + recovery) * (steps - (1 - q**steps) / (1 - q))",
    ],
}
