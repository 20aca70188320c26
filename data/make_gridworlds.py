"""Make frozenlake/mixed-v0 and windy/mixed-v0 from known policies, with their exact values. Some seconds.

Each is logged by three stochastic policies: a uniform one, one that plans as if nothing slipped and no wind
blew, and a near-optimal one. exact.npz holds them with their values, to compare every estimate with.
"""

import numpy as np
from shipping import ON_STARTS, judged, play, total, write

from offrl_nb.envs import exact_q, optimal_q, tabular

DISCOUNT = 0.99
PLANS = {
    "frozenlake/mixed-v0": {
        "env_id": "FrozenLake8x8-v1",
        "without_noise": {"is_slippery": False},
        "epsilon": (1.0, 0.3, 0.4),
        "episodes": (60, 200, 40),
    },
    "windy/mixed-v0": {
        "env_id": "offrl/WindyGrid-v0",
        "without_noise": {"wind": 0.0},
        "epsilon": (1.0, 0.2, 0.1),
        "episodes": (40, 130, 30),
    },
}


def epsilon_greedy(q, epsilon):
    """Probabilities [S, A]; actions of equal value share the greedy part."""
    best = q >= q.max(-1, keepdims=True) - 1e-9
    return epsilon / q.shape[-1] + (1 - epsilon) * best / best.sum(-1, keepdims=True)


def actor(policy, first: int):
    generator = np.random.default_rng(first)

    def act(obs):
        below = policy[obs].cumsum(-1)[:, :-1]  # the last action takes what rounding leaves
        return (generator.random((len(obs), 1)) > below).sum(-1)

    return act


def exact_values(env_id, without_noise, epsilon, episodes):
    """The contents of exact.npz: the policies of the plan and what they are worth."""
    P, R, start = tabular(env_id)
    best = optimal_q(P, R, DISCOUNT)
    naive = optimal_q(*tabular(env_id, **without_noise)[:2], DISCOUNT)
    behaviour = np.stack(
        [epsilon_greedy(q, e) for q, e in zip((best, naive, best), epsilon, strict=True)]
    )
    return {
        "behaviour": behaviour,  # [K, S, A]
        "policy_of_episode": np.repeat(np.arange(len(episodes)), episodes),  # [E]
        "behaviour_q": np.stack([exact_q(P, R, policy, DISCOUNT) for policy in behaviour]),
        "optimal_q": best,  # [S, A]
        "start": start,  # [S]
        "discount": np.array(DISCOUNT),
    }


def make(dataset_id, env_id, without_noise, epsilon, episodes):
    exact = exact_values(env_id, without_noise, epsilon, episodes)
    ((option, value),) = without_noise.items()
    values = exact["start"] @ (exact["behaviour"] * exact["behaviour_q"]).sum(-1).T
    names = (
        "uniform actions",
        f"the policy that is optimal with {option}={value}, epsilon {epsilon[1]}",
        f"the optimal policy, epsilon {epsilon[2]}",
    )
    log, lines = [], []
    for k, name in enumerate(names):
        first = 100_000 * (k + 1)
        buffers = play(actor(exact["behaviour"][k], first), env_id, episodes[k], first)
        log += buffers
        mean = total(buffers).mean()
        lines.append(f"{episodes[k]} episodes of {name}, return {mean:.3g}, V {values[k]:.4f}")
    best = epsilon_greedy(exact["optimal_q"], 0.0)
    low, high = [judged(actor(policy, 900_000), env_id) for policy in (exact["behaviour"][0], best)]
    story = (
        f"Three known policies, in this order: {'; '.join(lines)}. The optimum's V is "
        f"{exact['start'] @ exact['optimal_q'].max(-1):.4f}. V is the exact value of the start at discount "
        f"{DISCOUNT}, without the time limit. data/exact.npz holds the policies (behaviour [K, S, A], "
        "policy_of_episode [E]), behaviour_q [K, S, A], optimal_q [S, A], start [S] and discount. "
        f"Score 0: uniform actions; score 100: the optimal policy; {ON_STARTS}"
    )
    write(dataset_id, log, env_id, (low, high), story, "make_gridworlds.py", exact)


def main():
    for dataset_id, plan in PLANS.items():
        make(dataset_id, **plan)


if __name__ == "__main__":
    main()
