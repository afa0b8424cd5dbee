"""A small GPT for tests. Its weights are large, so that attention is far from uniform."""

import torch
from torch import Tensor

from gptopt.models import build_model
from gptopt.models.gpt import GPT

CONFIG = {
    "vocab_size": 40,
    "vocab_multiple": 1,
    "block_size": 16,
    "n_layer": 2,
    "n_embd": 32,
    "n_head": 4,
    "n_kv_head": None,
    "head_dim": None,
    "n_inner": None,
    "pos": "rope",
    "rope_base": 100.0,
    "rope_dim": None,
    "norm": "rmsnorm",
    "norm_eps": 1e-5,
    "norm_position": "pre",
    "qk_norm": False,
    "act": "swiglu",
    "bias": False,
    "tie_embeddings": True,
    "dropout_embd": 0.0,
    "dropout_attn": 0.0,
    "dropout_resid": 0.0,
    "init_std": 0.3,
    "depth_scaled_init": False,
    "mup_base_n_embd": None,
}


def small_gpt(seed: int = 0, **changes) -> GPT:
    """The model of CONFIG with ``changes``, in evaluation mode."""
    torch.manual_seed(seed)
    return build_model("gpt", CONFIG | changes).eval()


def random_tokens(batch: int = 2, time: int = 16, below: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(below, (batch, time), generator=generator)


def randomise(model: torch.nn.Module) -> None:
    """Gives gains and biases values, too, so that forgetting one shows."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
