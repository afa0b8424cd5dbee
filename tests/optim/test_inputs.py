"""What the hooks count: training rows, once, in float32, over tied layers and micro-batches."""

from __future__ import annotations

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from gptopt.optim.common.inputs import InputMoments


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def watched(
    layer: torch.nn.Module, weight: torch.Tensor, share: float | None = None, whole: bool = False
) -> InputMoments:
    inputs = InputMoments(share=share, whole_batches=whole)
    inputs.attach(layer, [weight])
    return inputs


def second_moment(x: torch.Tensor) -> torch.Tensor:
    x = x.reshape(-1, x.shape[-1]).double()
    return (x.mT @ x / len(x)).float()


def test_micro_batches_of_a_step_add_up_and_a_new_step_starts_at_zero() -> None:
    layer, x = torch.nn.Linear(5, 3), rows(6, 7, 5)
    inputs = watched(layer, layer.weight)
    for part in x.split(2):
        layer(part)
    torch.testing.assert_close(inputs.take([layer.weight])[0], second_moment(x))
    inputs.forget()
    layer(x[:1])
    torch.testing.assert_close(inputs.take([layer.weight])[0], second_moment(x[:1]))


def test_evaluation_does_not_count() -> None:
    layer = torch.nn.Linear(5, 3).eval()
    inputs = watched(layer, layer.weight)
    layer(rows(4, 5))
    assert inputs.take([layer.weight]).eq(0).all()


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_a_recomputed_layer_counts_once(use_reentrant: bool) -> None:
    layer, x = torch.nn.Linear(5, 3), rows(4, 5).requires_grad_()
    inputs = watched(layer, layer.weight)
    forwards = []
    layer.register_forward_pre_hook(lambda *_: forwards.append(1))
    checkpoint(layer, x, use_reentrant=use_reentrant).sum().backward()
    assert len(forwards) == 2
    assert inputs.totals[1].item() == 4
    torch.testing.assert_close(inputs.take([layer.weight])[0], second_moment(x.detach()))


def test_tied_layers_stay_tied_and_both_count() -> None:
    model = torch.nn.ModuleList([torch.nn.Linear(5, 5), torch.nn.Linear(5, 5)])
    model[1].weight = model[0].weight
    inputs = watched(model, model[0].weight)
    assert model[1].weight is model[0].weight
    x = rows(8, 5)
    model[0](x[:4])
    model[1](x[4:])
    torch.testing.assert_close(inputs.take([model[0].weight])[0], second_moment(x))


def test_under_autocast_the_moment_is_formed_in_float32() -> None:
    layer, x = torch.nn.Linear(32, 3), rows(200, 32)
    inputs = watched(layer, layer.weight)
    with torch.autocast("cpu", torch.bfloat16):
        layer(x)
    moment = inputs.take([layer.weight])[0]
    assert moment.dtype == torch.float32
    # products in bfloat16 would be off by 1e-3
    torch.testing.assert_close(moment, second_moment(x), rtol=0, atol=1e-5)


def test_a_share_of_the_rows_is_taken_evenly() -> None:
    layer, x = torch.nn.Linear(5, 3), rows(2, 10, 5)
    inputs = watched(layer, layer.weight, share=0.3)
    layer(x)
    expected = second_moment(x.reshape(20, 5)[[0, 3, 6, 10, 13, 16]])
    torch.testing.assert_close(inputs.take([layer.weight])[0], expected)


def test_a_share_of_the_micro_batches_is_taken_whole() -> None:
    layer, x = torch.nn.Linear(5, 3), rows(6, 4, 5)
    inputs = watched(layer, layer.weight, share=0.5, whole=True)
    for _ in range(2):
        for part in x:
            layer(part)
        torch.testing.assert_close(inputs.take([layer.weight])[0], second_moment(x[::2]))
        inputs.forget()


def test_while_inactive_nothing_is_counted_or_shared() -> None:
    layer = torch.nn.Linear(5, 3)
    inputs = watched(layer, layer.weight)
    inputs.active = False
    layer(rows(4, 5))
    assert inputs.totals == []
    assert inputs.take([layer.weight]).eq(0).all()


def test_a_weight_that_no_layer_multiplies_by_is_refused_by_name() -> None:
    model = torch.nn.Embedding(5, 3)
    with pytest.raises(ValueError, match=r"inputs of weight .*no torch\.nn\.Linear"):
        watched(model, model.weight)


def test_a_step_without_attach_is_refused() -> None:
    with pytest.raises(RuntimeError, match="attach"):
        InputMoments(share=None, whole_batches=False).take([torch.zeros(2, 2)])


def test_totals_of_two_processes_add_up_to_those_of_one() -> None:
    x = rows(10, 5)
    layers = [torch.nn.Linear(5, 3) for _ in range(2)]
    inputs = [watched(layer, layer.weight) for layer in layers]
    for layer, part in zip(layers, x.split([3, 7]), strict=True):
        layer(part)
    for mine, other in zip(inputs[0].totals, inputs[1].totals, strict=True):
        mine += other
    torch.testing.assert_close(inputs[0].take([layers[0].weight])[0], second_moment(x))


def test_compiled_layers_count_the_same() -> None:
    layer, x = torch.nn.Linear(5, 3), rows(3, 4, 5)
    inputs = watched(layer, layer.weight)
    layer.compile(backend="aot_eager")
    for part in x:
        layer(part).sum().backward()
    torch.testing.assert_close(inputs.take([layer.weight])[0], second_moment(x))
