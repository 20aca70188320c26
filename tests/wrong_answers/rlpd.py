"""Plausible wrong answers to the exercises of chapters/rlpd.ipynb; each check must reject them."""

DRAWN = """def times_drawn(i, T, N, G, B):
    per_step = {share}
    return per_step * {own}, per_step * {logged}"""
SUM = "sum(1 / t for t in range(i, T + 1))"
MINIMUM = """def expected_minimum(q, Z):
    K = len(q)
    weights = [{weight} for r in range(1, K + 1)]
    return sum(w * x for w, x in zip(weights, sorted(q), strict=True)) / {total}"""
FIVE = "def prediction():\n    return {five}, {last}"
REPAIRED = """def repaired(q, members, log_prob, reward, terminated, coef, discount):
    index = members.unsqueeze(-1).expand(-1, -1, q.shape[-1])
    drawn = {drawn}
    future = drawn.{smallest}(0) {sign} coef * log_prob
    return reward + discount * {mask} * future"""
OWN, MASK = "q.gather(0, index)", "(1 - terminated)"

WRONG = {
    "How often a row is drawn": [
        # both halves
        DRAWN.format(share="G * B", own=SUM, logged="T / N"),
        # one update a step
        DRAWN.format(share="B / 2", own=SUM, logged="T / N"),
        # the replay as large as at the end
        DRAWN.format(share="G * B / 2", own="(T - i + 1) / T", logged="T / N"),
        # not drawn in the step in which it arrives
        DRAWN.format(
            share="G * B / 2", own="sum(1 / t for t in range(i + 1, T + 1))", logged="T / N"
        ),
        # the logarithm, which is not exact
        "import math\n\n" + DRAWN.format(share="G * B / 2", own="math.log(T / i)", logged="T / N"),
        # log and replay in one buffer
        DRAWN.format(
            share="G * B / 2", own=SUM, logged="sum(1 / (N + t) for t in range(1, T + 1))"
        ),
        "def times_drawn(i, T, N, G, B):\n    return 0.0, 0.0",
    ],
    "What a subset expects": [
        "def expected_minimum(q, Z):\n    return min(q)",
        "def expected_minimum(q, Z):\n    return sum(q) / len(q)",
        # the mean of the Z smallest
        "def expected_minimum(q, Z):\n    return sum(sorted(q)[:Z]) / Z",
        # with replacement
        MINIMUM.format(weight="((K - r + 1) ** Z - (K - r) ** Z)", total="K**Z"),
        # the others may be the smaller ones
        MINIMUM.format(weight="math.comb(r - 1, Z - 1)", total="math.comb(K, Z)"),
        MINIMUM.format(weight="math.comb(K - r, Z)", total="math.comb(K, Z)"),
    ],
    "Predict, then run: five minibatches": [
        FIVE.format(five="[32] * 5", last=32),
        # the log in front
        FIVE.format(five="[64, 64, 32, 0, 0]", last=0),
        # the policy sees all rows
        FIVE.format(five="[0, 0, 32, 64, 64]", last=160),
        FIVE.format(five="[0, 0, 64, 64, 64]", last=64),
    ],
    "A twin that the critic cannot tell apart": [
        "def twin(x):\n    return x",
        # a mirror image is something else
        "def twin(x):\n    return -x",
        # only the scale, and not far away everywhere
        "def twin(x):\n    return 2 * x",
        "def twin(x):\n    return x.flip(0)",
        "def twin(x):\n    return torch.zeros_like(x)",
        "def twin(x):\n    return x + torch.arange(len(x)) + 1",
    ],
    "Find the planted bugs": [
        # the first seed's members for all
        REPAIRED.format(drawn="q[members[:, 0]]", smallest="amin", sign="-", mask=MASK),
        REPAIRED.format(drawn=OWN, smallest="mean", sign="-", mask=MASK),
        REPAIRED.format(drawn=OWN, smallest="amin", sign="+", mask=MASK),
        # all members
        REPAIRED.format(drawn="q", smallest="amin", sign="-", mask=MASK),
        REPAIRED.format(drawn=OWN, smallest="amin", sign="-", mask="1"),
        # as it was
        REPAIRED.format(drawn="q[members[:, 0]]", smallest="mean", sign="+", mask=MASK),
        "def repaired(q, members, log_prob, reward, terminated, coef, discount):\n    return torch.zeros_like(reward)",
    ],
}
