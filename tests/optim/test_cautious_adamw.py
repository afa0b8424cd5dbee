"""Cautious AdamW against its equations in numpy, and what caution means."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from optim_toy import from_yaml
from oracle import (
    MATRICES,
    SHAPES,
    Array,
    assert_follows,
    gradients,
    normal,
    start,
    take_steps,
)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_cautious_adamw_equals_its_equations(weight_decay: float) -> None:
    b1, b2, eps, lr = 0.9, 0.98, 1e-8, 0.02

    def oracle(w: Array, grads: list[Array]) -> Array:
        m, v = np.zeros_like(w), np.zeros_like(w)
        for t, g in enumerate(grads, 1):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * g**2
            u = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
            kept = u * g > 0
            u = np.where(kept, u * w.size / max(kept.sum(), 1e-3 * w.size), 0)
            w = w - lr * (u + weight_decay * w)
        return w

    settings = {"lr": lr, "betas": [b1, b2], "eps": eps, "weight_decay": weight_decay}
    assert_follows(from_yaml("cautious-adamw", **settings), oracle)


def test_no_entry_moves_against_its_gradient() -> None:
    params = from_yaml("cautious-adamw", betas=[0.9, 0.99], weight_decay=0.0)
    weights, optimizer = start(params, torch.float64, SHAPES)
    held = 0
    for step in range(24):
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        for name, grad in gradients(step, SHAPES).items():
            weights[name].grad = grad.double()
        optimizer.step()
        for name, weight in weights.items():
            move = weight.detach() - before[name]
            assert (move * weight.grad <= 0).all()
            held += int((move == 0).sum())
    assert held > 0


@pytest.mark.parametrize("name", ["lion", "nadamw", "ademamix", "mars", "soap", "muon"])
def test_a_cautious_rule_drops_what_the_rule_itself_moves_against_the_gradient(name: str) -> None:
    settings = {"lr": 0.1, "weight_decay": 0.0}
    moves = {}
    for cautious in (False, True):
        weights, optimizer = start(
            from_yaml(name, **settings, cautious=cautious), torch.float64, MATRICES
        )
        take_steps(weights, optimizer, range(5))
        before = {key: normal(0, MATRICES)[key].double() for key in weights}
        for key, weight in weights.items():
            weight.data.copy_(before[key])  # directions of these rules do not depend on weights
        take_steps(weights, optimizer, range(5, 6))
        moves[cautious] = {key: before[key] - weight.detach() for key, weight in weights.items()}
    grads = gradients(5, MATRICES)
    for key, move in moves[False].items():
        kept = (move * grads[key] > 0).numpy()
        assert 0 < kept.mean() < 1
        expected = np.where(kept, move.numpy() / kept.mean(), 0)
        np.testing.assert_allclose(moves[True][key].numpy(), expected, rtol=1e-9, atol=1e-12)


def test_few_kept_entries_are_scaled_up_by_a_thousand_at_most() -> None:
    # After a gradient of ones the average stays positive, so of the second gradient only the
    # one positive entry of 5,000 is kept; the share of 1 / 5,000 counts as 1 / 1,000. With
    # b2 = 0 and b1 = 1/2: m = (1/2 + 1) / 2 = 3/4, corrected 3/4 / (3/4) = 1, and v = 1.
    params = from_yaml("cautious-adamw", lr=0.5, betas=[0.5, 0.0], eps=0.0, weight_decay=0.0)
    weights, optimizer = start(params, torch.float64, {"w": (5000,)})
    for rest in (1.0, -0.01):
        before = weights["w"].detach().clone()
        weights["w"].grad = torch.full((5000,), rest, dtype=torch.float64)
        weights["w"].grad[7] = 1.0
        optimizer.step()
    way = before - weights["w"].detach()
    assert way[7].item() == pytest.approx(0.5 * 1000)
    assert (way != 0).sum() == 1
