"""RoPE, against complex rotation in float64 and by its laws."""

import pytest
import torch

from gptopt.models.layers import Linear, rotate, rotation_table

BATCH, TIME, HEADS, WIDTH, BASE = 2, 12, 3, 8, 100.0


def random_heads(width: int = WIDTH) -> torch.Tensor:
    return torch.randn(BATCH, TIME, HEADS, width, generator=torch.Generator().manual_seed(0))


def test_rotation_is_complex_multiplication_in_the_pairs_of_the_paper():
    # Su et al. (2021), eq. 34: z_i = x_2i + j x_2i+1 becomes z_i exp(j t base^(-2i/R));
    # our pair (i, i + R/2) is the paper's (2i, 2i + 1)
    heads = random_heads()
    paper_order = torch.arange(WIDTH).reshape(2, -1).T.flatten()
    pairs = heads[..., paper_order].double().unflatten(-1, (-1, 2))
    angle = torch.arange(TIME)[:, None] * BASE ** (-torch.arange(0, WIDTH, 2).double() / WIDTH)
    turn = torch.polar(torch.ones_like(angle), angle)[:, None]
    expected = torch.view_as_real(torch.view_as_complex(pairs) * turn).flatten(-2)
    turned = rotate(heads, rotation_table(TIME, WIDTH, BASE))[..., paper_order]
    torch.testing.assert_close(turned.double(), expected, rtol=0, atol=1e-6)  # float32, |x| < 4


def test_rotation_keeps_norms():
    heads = random_heads()
    turned = rotate(heads, rotation_table(TIME, WIDTH, BASE))
    torch.testing.assert_close(turned.norm(dim=-1), heads.norm(dim=-1))


def test_scores_depend_on_relative_position_only():
    query, key = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(0))
    table = rotation_table(TIME, WIDTH, BASE)
    queries = rotate(query.expand(1, TIME, 1, WIDTH), table).squeeze()
    keys = rotate(key.expand(1, TIME, 1, WIDTH), table).squeeze()
    scores = queries @ keys.T
    for distance in range(-TIME + 1, TIME):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-5)
    assert scores[0].std() > 0.1


def test_partial_rotation_leaves_the_other_dimensions_alone():
    heads = random_heads(WIDTH + 4)
    turned = rotate(heads, rotation_table(TIME, WIDTH, BASE))
    assert torch.equal(turned[..., WIDTH:], heads[..., WIDTH:])
    alone = rotate(heads[..., :WIDTH], rotation_table(TIME, WIDTH, BASE))
    assert torch.equal(turned[..., :WIDTH], alone)
    assert not torch.equal(alone[:, 1:], heads[:, 1:, :, :WIDTH])


def test_linear_draws_its_weights_once_with_its_own_deviation():
    torch.manual_seed(0)
    layer = Linear(300, 200, bias=True, std=0.05)
    torch.manual_seed(0)
    assert torch.equal(layer.weight, 0.05 * torch.randn(200, 300))
    assert layer.weight.std().item() == pytest.approx(0.05, rel=0.02)  # 7 sigma of 60,000 draws
    assert not layer.bias.any()
