"""Optimizers: one file each, readable beside its paper, and one YAML file each."""

from gptopt.optim.common.routing import RoutedOptimizer, build_optimizer

__all__ = ["RoutedOptimizer", "build_optimizer"]
