"""Figures. Each function returns the figure, the numbers it shows and a caption.

    curves    loss against steps, tokens, time and FLOPs
    settings  final loss against a setting, two settings, one setting at a time; best trials
    budgets   the best of k trials; performance profiles; the speed-up by budget
    costs     what a step of an optimizer costs, and what that buys
    layers    diagnostics of every layer

The loss is in nats per token throughout; ``style`` says how figures look.
"""

from gptopt.results.plots.budgets import best_of_k, performance_profile, speed_up
from gptopt.results.plots.costs import cost_and_quality, optimizer_cost
from gptopt.results.plots.curves import loss_curves, tuned_curves
from gptopt.results.plots.layers import layer_traces, measures
from gptopt.results.plots.settings import ablation, best_per_optimizer, final_loss, heat_map

__all__ = [
    "ablation",
    "best_of_k",
    "best_per_optimizer",
    "cost_and_quality",
    "final_loss",
    "heat_map",
    "layer_traces",
    "loss_curves",
    "measures",
    "optimizer_cost",
    "performance_profile",
    "speed_up",
    "tuned_curves",
]
