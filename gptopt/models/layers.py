"""Layers that model families share: linear maps and tables with their std, and RoPE.

Shapes: B batch, T time, N head, H width of a head, R its rotated part.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Linear(nn.Linear):
    """x W^T + b, with W from N(0, std^2) and b = 0."""

    def __init__(self, n_in: int, n_out: int, *, bias: bool, std: float) -> None:
        self.std = std  # first: nn.Linear draws the weights
        super().__init__(n_in, n_out, bias=bias)

    def reset_parameters(self) -> None:
        """Draws the weights."""
        nn.init.normal_(self.weight, std=self.std)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Embedding(nn.Embedding):
    """One row of a table per token or position, drawn from N(0, std^2)."""

    def __init__(self, rows: int, width: int, *, std: float) -> None:
        self.std = std  # first: nn.Embedding draws the weights
        super().__init__(rows, width)

    def reset_parameters(self) -> None:
        """Draws the weights."""
        nn.init.normal_(self.weight, std=self.std)


Rotation = tuple[Tensor, Tensor]
"""cos_T1R and sin_T1R of ``rotation_table``."""


def rotation_table(length: int, width: int, base: float) -> Rotation:
    """Cosine and signed sine of RoPE's angles (Su et al., 2021).

    At position t the pair (i, i + R/2) turns by t * base^(-2i/R). The paper pairs (2i, 2i + 1)
    instead, which is this after a permutation of each head's dimensions.

    Returns:
        Two float32 tables of shape (length, 1, width), to be used by ``rotate``.
    """
    assert width % 2 == 0, "checked with the config: rope_dim"
    exponent = torch.arange(0, width, 2, dtype=torch.float64) / width
    angle = torch.outer(torch.arange(length, dtype=torch.float64), base**-exponent)
    cos, sin = angle.cos().float(), angle.sin().float()
    return torch.cat((cos, cos), dim=1).unsqueeze(1), torch.cat((-sin, sin), dim=1).unsqueeze(1)


def rotate(x_BTNH: Tensor, rotation: Rotation) -> Tensor:
    """Turns the first R dimensions of each head by the angles of their positions."""
    cos_T1R, sin_T1R = rotation
    width = cos_T1R.size(-1)
    if width < x_BTNH.size(-1):
        turned = rotate(x_BTNH[..., :width], rotation)
        return torch.cat((turned, x_BTNH[..., width:].to(turned.dtype)), dim=-1)
    # (a, b) -> (a cos - b sin, b cos + a sin); rolling by half of R swaps a and b
    return x_BTNH * cos_T1R + x_BTNH.roll(width // 2, dims=-1) * sin_T1R
