"""GPT: a decoder-only transformer, from GPT-2 to Llama 2 by flags.

Sources: Radford et al. (2019), "Language models are unsupervised multitask learners" (GPT-2);
Touvron et al. (2023), "Llama 2"; the parts name theirs below.

    x = E[tokens] (+ P[positions])                                        (1)
    pre:   x <- x + attention(norm(x));  x <- x + mlp(norm(x))            (2)
    post:  x <- norm(x + attention(x));  x <- norm(x + mlp(x))            (3)
    logits = norm(x) W^T  where W is E when tied; no such norm in post    (4)

muP makes training alike at every width (Yang, Hu et al., 2022, "Tensor Programs V", Table 8;
learning rates: gptopt/optim/common/width.py). m is n_embd / mup_base_n_embd:

    std of hidden matrices: / sqrt(m);  attention scale: 1 / H for 1 / sqrt(H)    (5)
    logits = norm(x) / m W^T                                                      (6)

B batch, T time, D width (n_embd), N head (K: key and value heads), H width of a head,
R its rotated part, F inner width of the MLP, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from gptopt.config.types import Positive, PositiveInt, Probability, Role
from gptopt.models.layers import Embedding, Linear, Rotation, rotate, rotation_table


@dataclass(frozen=True)
class GPTConfig:
    """Every key of ``model.config``; hydra_conf/model/gpt-tiny.yaml explains them."""

    vocab_size: PositiveInt
    vocab_multiple: PositiveInt
    block_size: PositiveInt
    n_layer: PositiveInt
    n_embd: PositiveInt
    n_head: PositiveInt
    n_kv_head: PositiveInt | None
    head_dim: PositiveInt | None
    n_inner: PositiveInt | None
    pos: Literal["learned", "rope", "none"]
    rope_base: Positive
    rope_dim: PositiveInt | None
    norm: Literal["layernorm", "rmsnorm"]
    norm_eps: Positive
    norm_position: Literal["pre", "post"]
    qk_norm: bool
    act: Literal["gelu", "gelu_tanh", "silu", "relu", "relu2", "swiglu", "geglu"]
    bias: bool
    tie_embeddings: bool
    dropout_embd: Probability
    dropout_attn: Probability
    dropout_resid: Probability
    init_std: Positive
    depth_scaled_init: bool
    mup_base_n_embd: PositiveInt | None

    @property
    def head_width(self) -> int:
        """Width of one head, H."""
        return self.head_dim or self.n_embd // self.n_head

    @property
    def rotated_width(self) -> int:
        """How many dimensions of a head turn with the position, R."""
        return self.rope_dim or self.head_width

    @property
    def inner_width(self) -> int:
        """Inner width of the MLP, F. A gated one has three matrices; 8/3 keeps their size."""
        return self.n_inner or (8 * self.n_embd // 3 if self.act in GATED else 4 * self.n_embd)

    @property
    def table_rows(self) -> int:
        """Rows of embedding and head: vocab_size, rounded up."""
        return math.ceil(self.vocab_size / self.vocab_multiple) * self.vocab_multiple

    @property
    def mup_width(self) -> float | None:
        """How many times as wide as the base of muP, m; None without muP."""
        return self.n_embd / self.mup_base_n_embd if self.mup_base_n_embd else None

    @property
    def hidden_std(self) -> float:
        """Of the hidden matrices (5)."""
        return self.init_std / math.sqrt(self.mup_width) if self.mup_width else self.init_std

    @property
    def residual_std(self) -> float:
        """Of the matrices that write into x: GPT-2 keeps the sum of 2 n_layer writes constant."""
        return self.hidden_std / math.sqrt(2 * self.n_layer if self.depth_scaled_init else 1)


def make_norm(config: GPTConfig) -> nn.Module:
    """LayerNorm (Ba et al., 2016) or RMSNorm (Zhang and Sennrich, 2019) over D."""
    if config.norm == "layernorm":
        return nn.LayerNorm(config.n_embd, eps=config.norm_eps, bias=config.bias)
    return nn.RMSNorm(config.n_embd, eps=config.norm_eps)


class HeadNorm(nn.RMSNorm):
    """RMSNorm of queries and keys over H, one gain for all heads (Henry et al., 2020)."""

    def forward(self, x_BTNH: Tensor) -> Tensor:
        """Works in the precision of the gain, which autocast leaves in float32."""
        return super().forward(x_BTNH.to(self.weight.dtype))


class Attention(nn.Module):
    """Causal self-attention; n_kv_head < n_head shares keys and values (Ainslie et al., 2023)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        width, self.head_width = config.n_embd, config.head_width
        n_kv_head = config.n_kv_head or config.n_head
        self.grouped = n_kv_head < config.n_head
        self.dropout = config.dropout_attn
        self.scale = 1 / self.head_width if config.mup_width else None  # (5); None: 1 / sqrt(H)
        projection = partial(Linear, bias=config.bias, std=config.hidden_std)
        self.query = projection(width, config.n_head * self.head_width)
        self.key = projection(width, n_kv_head * self.head_width)
        self.value = projection(width, n_kv_head * self.head_width)
        self.out = projection(config.n_head * self.head_width, width, std=config.residual_std)
        norm = partial(HeadNorm, self.head_width, eps=config.norm_eps)
        self.norm_query = norm() if config.qk_norm else nn.Identity()
        self.norm_key = norm() if config.qk_norm else nn.Identity()

    def forward(
        self, x_BTD: Tensor, rotation: Rotation | None, mask_B1TT: Tensor | None = None
    ) -> Tensor:
        """(B, T, D) -> (B, T, D); ``mask_B1TT`` is true where a query sees a key, None: causal."""
        heads = (-1, self.head_width)
        q_BTNH = self.norm_query(self.query(x_BTD).unflatten(-1, heads))
        k_BTKH = self.norm_key(self.key(x_BTD).unflatten(-1, heads))
        v_BTKH = self.value(x_BTD).unflatten(-1, heads)
        if rotation is not None:
            q_BTNH, k_BTKH = rotate(q_BTNH, rotation), rotate(k_BTKH, rotation)
        y_BNTH = F.scaled_dot_product_attention(
            q_BTNH.transpose(1, 2),
            k_BTKH.transpose(1, 2),
            v_BTKH.transpose(1, 2),
            attn_mask=mask_B1TT,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask_B1TT is None,
            scale=self.scale,
            enable_gqa=self.grouped,
        )
        return self.out(y_BNTH.transpose(1, 2).flatten(2))


def relu2(x: Tensor) -> Tensor:
    """max(0, x)^2 (So et al., 2021)."""
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "relu": F.relu,
    "relu2": relu2,
    "swiglu": F.silu,
    "geglu": F.gelu,
}
GATED = ("swiglu", "geglu")


class MLP(nn.Module):
    """down(act(up(x))), or gated: down(act(gate(x)) * up(x)) (Shazeer, 2020)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        width, inner = config.n_embd, config.inner_width
        projection = partial(Linear, bias=config.bias, std=config.hidden_std)
        self.act = ACTIVATIONS[config.act]
        self.gate = projection(width, inner) if config.act in GATED else None
        self.up = projection(width, inner)
        self.down = projection(inner, width, std=config.residual_std)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        up_BTF = self.up(x_BTD)
        if self.gate is None:
            return self.down(self.act(up_BTF))
        return self.down(self.act(self.gate(x_BTD)) * up_BTF)


class Block(nn.Module):
    """Attention and MLP, each with its norm, dropout and residual connection."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.pre = config.norm_position == "pre"
        self.norm_attention, self.norm_mlp = make_norm(config), make_norm(config)
        self.attention, self.mlp = Attention(config), MLP(config)
        self.dropout = nn.Dropout(config.dropout_resid)

    def forward(self, x_BTD: Tensor, rotation: Rotation | None, mask_B1TT: Tensor | None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        attend = partial(self.attention, rotation=rotation, mask_B1TT=mask_B1TT)
        if self.pre:  # (2)
            x_BTD = x_BTD + self.dropout(attend(self.norm_attention(x_BTD)))
            return x_BTD + self.dropout(self.mlp(self.norm_mlp(x_BTD)))
        x_BTD = self.norm_attention(x_BTD + self.dropout(attend(x_BTD)))  # (3)
        return self.norm_mlp(x_BTD + self.dropout(self.mlp(x_BTD)))


def document_mask(documents_BT: Tensor) -> Tensor:
    """(B, 1, T, T) bool: the key is not after the query, and of the same document."""
    same_BTT = documents_BT.unsqueeze(2) == documents_BT.unsqueeze(1)
    return same_BTT.tril().unsqueeze(1)


class GPT(nn.Module):
    """Equations (1) to (4)."""

    rope_cos: Tensor
    rope_sin: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.mup_width = config.mup_width
        embedding = partial(Embedding, width=config.n_embd, std=config.init_std)
        self.tokens = embedding(config.table_rows)
        self.positions = embedding(config.block_size) if config.pos == "learned" else None
        if config.pos == "rope":
            table = rotation_table(config.block_size, config.rotated_width, config.rope_base)
            for name, values in zip(("rope_cos", "rope_sin"), table, strict=True):
                self.register_buffer(name, values, persistent=False)
        self.dropout = nn.Dropout(config.dropout_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = make_norm(config) if config.norm_position == "pre" else nn.Identity()
        self.head: Linear | None = None
        if not config.tie_embeddings:
            self.head = Linear(config.n_embd, config.table_rows, bias=False, std=config.init_std)

    def forward(
        self,
        tokens_BT: Tensor,
        positions_BT: Tensor | None = None,
        documents_BT: Tensor | None = None,
    ) -> Tensor:
        """Token ids (B, T), int64, T <= block_size -> logits (B, T, vocab_size).

        Args:
            tokens_BT: Token ids.
            positions_BT: Place of each token, below block_size; None for 0 ... T - 1.
            documents_BT: Number of each token's document: attention stays inside it. None for
                one document.
        """
        length = tokens_BT.size(1)
        assert length <= self.config.block_size, "checked with the config: context_length"
        x_BTD = self.tokens(tokens_BT)  # (1)
        if self.positions is not None:
            weight = self.positions.weight
            x_BTD = x_BTD + (weight[:length] if positions_BT is None else weight[positions_BT])
        x_BTD = self.dropout(x_BTD)
        rotation = None
        if self.config.pos == "rope":
            places = slice(length) if positions_BT is None else positions_BT
            rotation = (self.rope_cos[places], self.rope_sin[places])
        mask_B1TT = None if documents_BT is None else document_mask(documents_BT)
        for block in self.blocks:
            x_BTD = block(x_BTD, rotation, mask_B1TT)
        x_BTD = self.norm(x_BTD)
        if self.mup_width is not None:
            x_BTD = x_BTD / self.mup_width  # (6)
        logits_BTV = self.head(x_BTD) if self.head else F.linear(x_BTD, self.tokens.weight)  # (4)
        if self.config.table_rows > self.config.vocab_size:
            logits_BTV = logits_BTV[..., : self.config.vocab_size]  # the padding is no token
        return logits_BTV

    def parameter_roles(self) -> dict[str, Role]:
        """What each of ``named_parameters()`` is; a tied head is the embedding."""
        roles: dict[str, Role] = {}
        for path, module in self.named_modules():
            for name, parameter in module.named_parameters(path, recurse=False):
                if parameter.ndim == 1:
                    roles[name] = "vector"
                elif isinstance(module, nn.Embedding):
                    roles[name] = "embedding"
                else:
                    roles[name] = "head" if module is self.head else "matrix"
        return roles


def build(config: GPTConfig) -> GPT:
    """Every key of ``config`` stands in hydra_conf/model/*.yaml."""
    return GPT(config)
