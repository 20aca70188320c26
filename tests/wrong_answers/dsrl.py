"""Plausible wrong answers to the exercises of chapters/dsrl.ipynb; each check must reject them."""

BEST = """def best_noise(noise_critic, obs, noise, bound):
    {clip}
    winner = noise_critic(obs, noise){best}
    return {chosen}"""
CLIP = "noise = noise.clamp(-bound, bound)"
OWN = "noise[torch.arange(len(noise)), winner]"
REPAIRED = """def repaired(nets, batch, luck, config):
    noise, log_prob = nets.choose(batch.next_obs, luck)
    action = {action}
    q = nets.target_critic(batch.next_obs, action).amin(0)
    soft = q {sign} nets.log_coef.exp() * log_prob
    return batch.reward + config.discount * {mask} * soft"""
DECODED, MASK = "nets.decode(batch.next_obs, noise)", "(1 - batch.terminated)"

WRONG = {
    "How far to turn": [
        # the mode's near edge
        "def bound_for(p):\n    return NormalDist().inv_cdf(1 - p)",
        # the wrong side
        "def bound_for(p):\n    return NormalDist().inv_cdf(p / 2)",
        # share p inside the box
        "def bound_for(p):\n    return NormalDist().inv_cdf((1 + p) / 2)",
        "def bound_for(p):\n    return 1.5",
    ],
    "Steering without training": [
        # not clipped
        BEST.format(clip="pass", best=".amin(0).argmax(-1)", chosen=OWN),
        # the larger critic counts
        BEST.format(clip=CLIP, best=".amax(0).argmax(-1)", chosen=OWN),
        # the first critic alone
        BEST.format(clip=CLIP, best="[0].argmax(-1)", chosen=OWN),
        # clipped after the choice
        BEST.format(clip="pass", best=".amin(0).argmax(-1)", chosen=OWN + ".clamp(-bound, bound)"),
        # one winner for all seeds
        BEST.format(clip=CLIP, best=".amin(0).sum(0).argmax()", chosen="noise[:, winner]"),
        "def best_noise(noise_critic, obs, noise, bound):\n    return torch.zeros_like(noise[:, 0])",
    ],
    "The target in other units": [
        "def target_for_noise(h, b, m):\n    return h - m * math.log(b)",
        "def target_for_noise(h, b, m):\n    return h + math.log(b)",
        "def target_for_noise(h, b, m):\n    return h * b**m",
        "def target_for_noise(h, b, m):\n    return h",
    ],
    "Predict, then run: the rare treasure": [
        # as often as the clone
        "def prediction():\n    return 0.03, 0.03",
        # the wall does not move
        "def prediction():\n    return 0.0, 0.0",
        # steering finds whatever pays
        "def prediction():\n    return 1.0, 1.0",
        # no worse than the clone
        "def prediction():\n    return 0.03, 1.0",
        # what lies in the box is found as often as the clone finds it
        "def prediction():\n    return 0.0, 0.03",
    ],
    "Find the planted bugs": [
        REPAIRED.format(action=DECODED, sign="+", mask=MASK),
        REPAIRED.format(action=DECODED, sign="-", mask="1"),
        REPAIRED.format(action="noise", sign="-", mask=MASK),
        REPAIRED.format(action="nets.decode(batch.obs, noise)", sign="-", mask=MASK),
        "def repaired(nets, batch, luck, config):\n    return batch.reward",
    ],
}
