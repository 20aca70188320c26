"""Plausible wrong answers to the exercises of chapters/idql.ipynb; each check must reject them."""

GUESS = "def best_guess(x, kept, m, sigma):\n    return "
BAND = "def band(kept, m, g):\n"
HALF = "    half = (1 - kept) * math.atanh(g / m) / (m * math.sqrt(kept))\n"
SHARE = "    at = lambda x: (x - math.sqrt(kept) * m) / math.sqrt(2 * (1 - kept))\n"
SHARE += "    upper, lower = math.erf(at(half)), math.erf(at(-half))\n"
SHARE += "    return half, (upper - lower) / 2"
WEIGHT = "def exponential_weight(u, alpha):\n"
PRICE = "def price(n):\n    return "
REPAIR = "def repaired(x, guess, z, i, betas, kept):\n"
ACTION = "    action = ((x - (1 - kept[i]).sqrt() * guess) / kept[i].sqrt()).clamp(-1, 1)\n"
BEFORE = "    before = kept[i - 1] if i > 0 else torch.ones(())\n"
MEAN = "    mean = before.sqrt() * betas[i] * action + (1 - betas[i]).sqrt() * (1 - before) * x\n"
MEAN += "    mean = mean / (1 - kept[i])\n"
POSTERIOR = "    return mean + (betas[i] * (1 - before) / (1 - kept[i])).sqrt() * z"

WRONG = {
    "The best guess for a Gaussian": [
        # as if the action were known to be m
        GUESS + "(x - math.sqrt(kept) * m) / math.sqrt(1 - kept)",
        # the mean forgotten
        GUESS + "math.sqrt(1 - kept) * x / (kept * sigma**2 + 1 - kept)",
        # variance where the standard deviation belongs
        GUESS + "(1 - kept) * (x - math.sqrt(kept) * m) / (kept * sigma**2 + 1 - kept)",
        # the guessed action instead of the guessed noise
        GUESS + "m + math.sqrt(kept) * sigma**2 * (x - math.sqrt(kept) * m) "
        "/ (kept * sigma**2 + 1 - kept)",
    ],
    "The band": [
        # linear instead of artanh
        BAND + "    half = (1 - kept) * g / (m * m * math.sqrt(kept))\n" + SHARE,
        # half of the odds' exponent
        BAND + "    half = (1 - kept) * math.atanh(g / m) / (2 * m * math.sqrt(kept))\n" + SHARE,
        # standard deviation for variance
        BAND
        + "    half = math.sqrt(1 - kept) * math.atanh(g / m) / (m * math.sqrt(kept))\n"
        + SHARE,
        # the pillar itself
        BAND + "    half = math.sqrt(kept) * g\n" + SHARE,
        # the right band, but the share of one side of it
        BAND + HALF + SHARE.replace("(upper - lower) / 2", "upper / 2 - math.erf(at(0)) / 2"),
        # the right band, both answers counted
        BAND + HALF + SHARE.replace("(upper - lower) / 2", "upper - lower"),
        # the right band, the share of pure noise
        BAND + HALF + "    return half, math.erf(half / math.sqrt(2))",
    ],
    "Another loss, another policy": [
        # AWR's weights
        WEIGHT + "    return torch.exp(alpha * u)",
        # divided by zero at 0
        WEIGHT + "    return (alpha * (torch.exp(alpha * u) - 1) / u).abs()",
        # the derivative, not divided
        WEIGHT + "    return (alpha * (torch.exp(alpha * u) - 1)).abs()",
        # the absolute value of one of the two only
        WEIGHT + "    ratio = (alpha * (torch.exp(alpha * u) - 1)).abs() / u\n"
        "    return torch.where(u == 0, torch.full_like(u, alpha**2), ratio)",
        # the limit at 0 taken for 0
        WEIGHT + "    ratio = alpha * (torch.exp(alpha * u) - 1) / u\n"
        "    return torch.where(u == 0, torch.zeros_like(u), ratio)",
    ],
    "The price of N": [
        # the bound
        PRICE + "math.log(n)",
        # the mean of log F for one draw
        PRICE + "math.log(n) - (n - 1)",
        # the other direction, KL(behaviour || best of n)
        PRICE + "(n - 1) - math.log(n)",
        # one draw more
        PRICE + "math.log(n) - n / (n + 1)",
    ],
    "Predict, then run: the steady hand": [
        # as a single draw
        "def prediction():\n    return 0.98",
        # never
        "def prediction():\n    return 0.0",
        # either side or the middle
        "def prediction():\n    return 0.5",
        # all four pillars
        "def prediction():\n    return 0.24**4",
        # only when all sixteen agree
        "def prediction():\n    return 2 * 0.5**16",
    ],
    "Find the planted bugs": [
        # noise still added in the last step
        REPAIR + ACTION + BEFORE + MEAN + "    return mean + betas[i].sqrt() * z",
        # the guess still without its root
        REPAIR + ACTION.replace(".sqrt() * guess", " * guess") + BEFORE + MEAN + POSTERIOR,
        # the step still goes the wrong way
        REPAIR
        + ACTION
        + "    before = kept[i + 1] if i + 1 < len(kept) else torch.ones(())\n"
        + MEAN
        + POSTERIOR,
        # everything repaired but the clip lost
        REPAIR + ACTION.replace(".clamp(-1, 1)", "") + BEFORE + MEAN + POSTERIOR,
        # no noise at all
        REPAIR + ACTION + BEFORE + MEAN + "    return mean",
    ],
}
