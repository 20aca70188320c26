"""Plausible wrong answers to the exercises of chapters/fql.ipynb; each check must reject them."""

WRONG = {
    "Another pairing": [
        # independent all the same
        "def paired_velocity(x, t, mu, sigma, kappa):\n"
        "    slope = (t * sigma**2 - (1 - t)) / ((t * sigma) ** 2 + (1 - t) ** 2)\n"
        "    return mu + slope * (x - t * mu)",
        # the covariance in the variance only
        "def paired_velocity(x, t, mu, sigma, kappa):\n"
        "    variance = (t * sigma) ** 2 + (1 - t) ** 2 + 2 * t * (1 - t) * kappa\n"
        "    return mu + (t * sigma**2 - (1 - t)) / variance * (x - t * mu)",
        # one of its two signs lost
        "def paired_velocity(x, t, mu, sigma, kappa):\n"
        "    variance = (t * sigma) ** 2 + (1 - t) ** 2 + 2 * t * (1 - t) * kappa\n"
        "    return mu + (t * sigma**2 - (1 - t) + kappa) / variance * (x - t * mu)",
        # the mean of the difference, whatever x is
        "def paired_velocity(x, t, mu, sigma, kappa):\n    return mu",
    ],
    "Heun's steps": [
        # Euler
        "def heun_action(velocity, obs, noise, steps):\n"
        "    return flow_action(velocity, obs, noise, steps)",
        # the second velocity at the earlier time
        "def heun_action(velocity, obs, noise, steps):\n"
        "    x = noise\n"
        "    for k in range(steps):\n"
        "        now = torch.full_like(x[..., :1], k / steps)\n"
        "        first = velocity(obs, x, now)\n"
        "        second = velocity(obs, x + first / steps, now)\n"
        "        x = x + (first + second) / (2 * steps)\n"
        "    return x.clamp(-1, 1)",
        # clipped at every step
        "def heun_action(velocity, obs, noise, steps):\n"
        "    x = noise\n"
        "    for k in range(steps):\n"
        "        now, then = (torch.full_like(x[..., :1], (k + i) / steps) for i in (0, 1))\n"
        "        first = velocity(obs, x, now)\n"
        "        second = velocity(obs, x + first / steps, then)\n"
        "        x = (x + (first + second) / (2 * steps)).clamp(-1, 1)\n"
        "    return x",
        # the midpoint method
        "def heun_action(velocity, obs, noise, steps):\n"
        "    x = noise\n"
        "    for k in range(steps):\n"
        "        now = torch.full_like(x[..., :1], k / steps)\n"
        "        middle = torch.full_like(x[..., :1], (k + 0.5) / steps)\n"
        "        half = x + velocity(obs, x, now) / (2 * steps)\n"
        "        x = x + velocity(obs, half, middle) / steps\n"
        "    return x.clamp(-1, 1)",
        # both velocities in full
        "def heun_action(velocity, obs, noise, steps):\n"
        "    x = noise\n"
        "    for k in range(steps):\n"
        "        now, then = (torch.full_like(x[..., :1], (k + i) / steps) for i in (0, 1))\n"
        "        first = velocity(obs, x, now)\n"
        "        x = x + (first + velocity(obs, x + first / steps, then)) / steps\n"
        "    return x.clamp(-1, 1)",
    ],
    "The price of changing sides": [
        # all the way to the other peak
        "def largest_price(gap, delta):\n    return delta / gap**2",
        # not squared
        "def largest_price(gap, delta):\n    return delta / (gap / 2)",
        # the stationary point of a linear Q
        "def largest_price(gap, delta):\n    return delta / (2 * gap)",
    ],
    "Predict, then run: the border": [
        # by symmetry, which an unfair coin breaks
        "def border(p_right):\n    return 0.0",
        # a share in place of a noise
        "def border(p_right):\n    return 0.5 - p_right",
        # counted from the right
        "def border(p_right):\n    return NormalDist().inv_cdf(p_right)",
    ],
    "Find the planted bugs": [
        # the noise only
        "def repaired(student, teacher, critic, obs, noise, alpha):\n"
        "    action = student(obs, noise).clamp(-1, 1)\n"
        "    target = teacher(obs, noise)\n"
        "    distance = ((action - target) ** 2).mean((-2, -1))\n"
        "    return alpha * distance - critic(obs, action).mean((0, -1))",
        # noise and clip; the teacher learns too
        "def repaired(student, teacher, critic, obs, noise, alpha):\n"
        "    action = student(obs, noise)\n"
        "    distance = ((action - teacher(obs, noise)) ** 2).mean((-2, -1))\n"
        "    return alpha * distance - critic(obs, action.clamp(-1, 1)).mean((0, -1))",
        # no clip at all
        "def repaired(student, teacher, critic, obs, noise, alpha):\n"
        "    action = student(obs, noise)\n"
        "    distance = ((action - teacher(obs, noise).detach()) ** 2).mean((-2, -1))\n"
        "    return alpha * distance - critic(obs, action).mean((0, -1))",
        # clip and teacher; other noise
        "def repaired(student, teacher, critic, obs, noise, alpha):\n"
        "    action, other = student(obs, noise), torch.randn_like(noise)\n"
        "    distance = ((action - teacher(obs, other).detach()) ** 2).mean((-2, -1))\n"
        "    return alpha * distance - critic(obs, action.clamp(-1, 1)).mean((0, -1))",
    ],
}
