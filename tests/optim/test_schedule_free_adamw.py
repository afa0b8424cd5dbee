"""Schedule-free AdamW against its equations in numpy, and the way to the averages and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from optim_toy import Toy, build, from_yaml
from oracle import Array, assert_follows

from gptopt.optim import build_optimizer

B1, B2, EPS, LR = 0.9, 0.98, 1e-8, 0.02


@pytest.mark.parametrize("b1", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_schedule_free_adamw_equals_its_equations(weight_decay: float, b1: float) -> None:
    def oracle(w: Array, grads: list[Array]) -> Array:
        x, y, z, v = w, w, w, np.zeros_like(w)
        for t, g in enumerate(grads, 1):
            v = B2 * v + (1 - B2) * g**2
            z = z - LR * g / (np.sqrt(v / (1 - B2**t)) + EPS) - LR * weight_decay * y
            x = (1 - 1 / t) * x + z / t  # one learning rate in all steps
            y = (1 - b1) * z + b1 * x
        return y

    settings = {"lr": LR, "betas": [b1, B2], "eps": EPS, "weight_decay": weight_decay}
    assert_follows(from_yaml("schedule-free-adamw", **settings), oracle)


def test_the_average_is_that_of_z_weighted_by_the_squares_of_the_rates() -> None:
    # b1 = b2 = 0: z moves by -lr sign(G) = -lr: z = -0.1, -0.3, -0.7. With weights 1, 4, 16:
    # x = -(0.1 + 4 * 0.3 + 16 * 0.7) / 21
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    params = from_yaml("schedule-free-adamw", betas=[0.0, 0.0], eps=1e-30)
    optimizer = build_optimizer(params, [("w", weight)], {"w": "vector"})
    for lr in (0.1, 0.2, 0.4):
        optimizer.param_groups[0]["lr"] = lr
        weight.grad = torch.full((1,), 5.0, dtype=torch.float64)
        optimizer.step()
    assert weight.item() == pytest.approx(-0.7)
    with optimizer.eval_weights():
        assert weight.item() == pytest.approx(-12.5 / 21)


def test_the_way_to_the_averages_and_back_is_exact() -> None:
    model = Toy()
    optimizer = build(from_yaml("schedule-free-adamw"), model)
    untouched = Toy().weights()["gain"]
    for step in range(3):
        model.set_gradients(step, without=["gain"])
        optimizer.step()
    training = model.weights()
    with optimizer.eval_weights():
        averages = model.weights()
        assert torch.equal(averages["gain"], untouched)
        assert not torch.equal(averages["tall"], training["tall"])
    after = model.weights()
    assert [name for name in training if not torch.equal(training[name], after[name])] == []


def test_a_step_from_the_averages_is_refused() -> None:
    model = Toy()
    optimizer = build(from_yaml("schedule-free-adamw"), model)
    model.set_gradients(0)
    with optimizer.eval_weights(), pytest.raises(AssertionError, match="averaged"):
        optimizer.step()


def test_what_was_saved_at_the_averages_finds_its_way_back(tmp_path: Path) -> None:
    model, other = Toy(), Toy()
    optimizer = build(from_yaml("schedule-free-adamw"), model)
    for step in range(3):
        model.set_gradients(step)
        optimizer.step()
    with optimizer.eval_weights():
        torch.save([model.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = build(from_yaml("schedule-free-adamw"), other)
    other.load_state_dict(weights)
    resumed.load_state_dict(state)
    (rule,) = resumed.rules
    rule.use_training_weights()
    trained, back = model.weights(), other.weights()
    assert [name for name in trained if not torch.equal(trained[name], back[name])] == []
