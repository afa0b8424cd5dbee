"""What the cost sheet foretells is what steps with numbers allocate and multiply."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from optim_toy import from_yaml, runnable
from tiny import SETTINGS
from torch.utils.flop_counter import FlopCounterMode

import gptopt
from gptopt.models import build_model
from gptopt.optim import build_optimizer
from gptopt.optim.common import cost as sheet

INTERVAL = 2


@pytest.fixture(scope="module")
def config() -> Any:
    return gptopt.compose(SETTINGS).model.config


@pytest.mark.parametrize("name", runnable())
def test_the_costs_foretold_are_those_there_are(
    config: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheet, "STEPS", 2 * INTERVAL)
    params = from_yaml(name)
    params |= {key: INTERVAL for key in sheet.INTERVALS if key in params}
    model = build_model("gpt", config)
    roles = model.parameter_roles()
    optimizer = build_optimizer(params, model.named_parameters(), roles)
    optimizer.attach(model)
    tokens = torch.arange(64).reshape(2, 32) % 50
    flops = []
    for _ in range(1 + sheet.STEPS):
        model.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
        loss.backward()
        optimizer.observe(loss.detach())
        with FlopCounterMode(display=False, custom_mapping=sheet.SOLVES) as counter:
            optimizer.step()
        flops.append(counter.get_total_flops())
        optimizer.forget()
    state = optimizer.state_dict()["state"].values()
    measured = sum(t.nbytes for own in state for t in own.values() if isinstance(t, torch.Tensor))
    with torch.device("meta"):
        on_meta = build_model("gpt", config)
    foretold = sheet.cost(params, on_meta, roles)
    assert foretold is not None
    size = sum(param.numel() for param in model.parameters())
    assert foretold.state_bytes * size == pytest.approx(measured, abs=0.5)
    assert foretold.flops == pytest.approx(sum(flops[1:]) / sheet.STEPS)


def test_what_is_done_in_one_step_of_many_enters_with_its_share() -> None:
    model = torch.nn.Linear(6, 4, bias=False, device="meta")
    found = [
        sheet.cost(from_yaml("newton-muon", refresh_every=every), model, {"weight": "matrix"})
        for every in (1, 32, 64)
    ]
    always, rarely, more_rarely = [cost.flops for cost in found if cost is not None]
    inverse = (always - rarely) * 32 / 31
    assert inverse > 0
    assert always - more_rarely == pytest.approx(inverse * 63 / 64)
