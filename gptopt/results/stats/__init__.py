"""What the runs of a sweep say, as pure functions: numbers in, numbers out.

    summary        means over seeds, the best trial of each optimizer
    significance   is A better than B, or than a target; how many seeds that takes
    targets        steps, tokens, seconds or FLOPs to a loss; performance profiles
    tuning         the best of k trials, sensitivity to a rate, importance of settings
    fits           power laws, and the speed-up they tell

The loss is nats per token and a lower one is better. A diverged run counts with an infinite
loss; a NaN is refused, so it never wins.
"""

from gptopt.results.stats.summary import (
    BASELINE,
    Mean,
    best_trials,
    edge,
    mean_interval,
    outcome,
    trials,
    welch,
)

__all__ = [
    "BASELINE",
    "Mean",
    "best_trials",
    "edge",
    "mean_interval",
    "outcome",
    "trials",
    "welch",
]
