"""The bytes of state that the cost sheet foretells are those that a step allocates."""

from __future__ import annotations

import pytest
import torch
from optim_toy import from_yaml, runnable
from tiny import SETTINGS

import gptopt
from gptopt.models import build_model
from gptopt.optim import build_optimizer
from gptopt.optim.cost import cost

NOT_FORETOLD = {"kron", "prodigy"}
"""A step of theirs needs numbers: random ones, or the distance found so far."""


@pytest.mark.parametrize("name", runnable())
def test_the_bytes_foretold_are_the_bytes_there_are(name: str) -> None:
    config = gptopt.compose(SETTINGS).model.config
    model = build_model("gpt", config)
    roles = model.parameter_roles()
    optimizer = build_optimizer(from_yaml(name), model.named_parameters(), roles)
    optimizer.attach(model)
    tokens = torch.arange(64).reshape(2, 32) % 50
    for _ in range(3):
        model.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
        loss.backward()
        optimizer.observe(loss.detach())
        optimizer.step()
        optimizer.forget()
    state = optimizer.state_dict()["state"].values()
    tensors = [t for own in state for t in own.values() if isinstance(t, torch.Tensor)]
    measured = sum(tensor.nbytes for tensor in tensors)
    with torch.device("meta"):
        on_meta = build_model("gpt", config)
    foretold = cost(from_yaml(name), on_meta, roles)
    assert (foretold is None) == (name in NOT_FORETOLD)
    if foretold is not None:
        size = sum(param.numel() for param in model.parameters())
        assert foretold.state_bytes * size == pytest.approx(measured, abs=0.5)
