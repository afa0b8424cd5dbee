"""GPT against torch's own transformer layer, float64 formulas, and its laws."""

import math
import warnings

import pytest
import torch
from gpt_toy import CONFIG, random_tokens, randomise, small_gpt
from torch import nn

from gptopt.models.gpt import ACTIVATIONS, GATED, GPTConfig


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def torch_layer(block: nn.Module, config: GPTConfig) -> nn.TransformerEncoderLayer:
    """torch's own pre- or post-norm block with the weights of ``block``."""
    layer = nn.TransformerEncoderLayer(
        config.n_embd,
        config.n_head,
        4 * config.n_embd,
        dropout=0.0,
        activation=config.act,
        layer_norm_eps=config.norm_eps,
        batch_first=True,
        norm_first=config.norm_position == "pre",
        dtype=torch.float64,
    )
    attention, mlp = block.attention, block.mlp
    projections = (attention.query, attention.key, attention.value)
    layer.self_attn.in_proj_weight.data = torch.cat([linear.weight for linear in projections])
    layer.self_attn.in_proj_bias.data = torch.cat([linear.bias for linear in projections])
    layer.self_attn.out_proj.load_state_dict(attention.out.state_dict())
    layer.linear1.load_state_dict(mlp.up.state_dict())
    layer.linear2.load_state_dict(mlp.down.state_dict())
    layer.norm1.load_state_dict(block.norm_attention.state_dict())
    layer.norm2.load_state_dict(block.norm_mlp.state_dict())
    return layer


@pytest.mark.parametrize("act", ["gelu", "relu"])
@pytest.mark.parametrize("norm_position", ["pre", "post"])
def test_gpt2_style_model_is_torchs_transformer(act, norm_position):
    style = {"pos": "learned", "norm": "layernorm", "norm_eps": 1e-3, "bias": True}
    model = small_gpt(**style, norm_position=norm_position, act=act).double()
    randomise(model)
    tokens = random_tokens()
    mask = nn.Transformer.generate_square_subsequent_mask(16, dtype=torch.float64)
    x = model.tokens.weight[tokens] + model.positions.weight
    for block in model.blocks:
        x = torch_layer(block, model.config)(x, src_mask=mask)
    if norm_position == "pre":
        mean, variance = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
        x = (x - mean) / (variance + 1e-3).sqrt() * model.norm.weight + model.norm.bias
    torch.testing.assert_close(model(tokens), x @ model.tokens.weight.T, rtol=1e-9, atol=1e-9)


def explicit_attention(attention: nn.Module, x: torch.Tensor, config: GPTConfig) -> torch.Tensor:
    """Attention of Llama 2 one head at a time, in float64; a query head's group is h // size."""

    def rms(v, gain):
        return v / (v.square().mean(-1, keepdim=True) + config.norm_eps).sqrt() * gain

    def turn(v):
        half = config.head_width // 2
        angle = torch.arange(len(v))[:, None] * config.rope_base ** (-torch.arange(half) / half)
        a, b = v[:, :half], v[:, half:]
        return torch.cat((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), 1)

    width, size = config.head_width, config.n_head // (config.n_kv_head or config.n_head)
    rows = []
    for sequence in x:
        heads = []
        for head in range(config.n_head):
            own, shared = (slice(h * width, (h + 1) * width) for h in (head, head // size))
            query = rms(sequence @ attention.query.weight[own].T, attention.norm_query.weight)
            key = rms(sequence @ attention.key.weight[shared].T, attention.norm_key.weight)
            scores = turn(query) @ turn(key).T / math.sqrt(width)
            future = torch.ones_like(scores).triu(1).bool()
            weights = scores.masked_fill(future, -math.inf).softmax(-1)
            heads.append(weights @ sequence @ attention.value.weight[shared].T)
        rows.append(torch.cat(heads, -1) @ attention.out.weight.T)
    return torch.stack(rows)


@pytest.mark.parametrize("n_kv_head", [None, 2, 1])
def test_attention_equals_the_explicit_one(n_kv_head):
    model = small_gpt(qk_norm=True, n_kv_head=n_kv_head, head_dim=12).double()
    randomise(model)
    x = torch.randn(2, 16, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    attention = model.blocks[0].attention
    output = attention(x, (model.rope_cos, model.rope_sin))
    expected = explicit_attention(attention, x, model.config)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)  # float32 angles


FORMULAS = {
    "gelu": lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh()) / 2,
    "silu": lambda x: x / (1 + (-x).exp()),
    "relu": lambda x: x * (x > 0),
    "relu2": lambda x: x**2 * (x > 0),
}
FORMULAS |= {"swiglu": FORMULAS["silu"], "geglu": FORMULAS["gelu"]}


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_mlp_is_its_formula(act):
    mlp = small_gpt(act=act).double().blocks[0].mlp
    x = torch.randn(5, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    if act in ("swiglu", "geglu"):
        hidden = FORMULAS[act](x @ mlp.gate.weight.T) * (x @ mlp.up.weight.T)
        assert hidden.shape[-1] == 85  # int(8 * 32 / 3)
    else:
        hidden = FORMULAS[act](x @ mlp.up.weight.T)
        assert hidden.shape[-1] == 4 * 32
    torch.testing.assert_close(mlp(x), hidden @ mlp.down.weight.T, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("pos", ["learned", "rope", "none"])
def test_future_tokens_do_not_influence_the_past(pos):
    model, tokens = small_gpt(pos=pos), random_tokens()
    changed = tokens.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % 40
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(after[:, :9], before[:, :9], rtol=0, atol=1e-6)
    assert (after[:, 9:] - before[:, 9:]).abs().amax(-1).min() > 0.01


@pytest.mark.parametrize("pos", ["learned", "rope", "none"])
def test_shorter_context_gives_the_first_logits_of_the_longer(pos):
    model, tokens = small_gpt(pos=pos), random_tokens()
    torch.testing.assert_close(model(tokens[:, :5]), model(tokens)[:, :5], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("pos", "sees_order"), [("learned", True), ("rope", True), ("none", False)]
)
def test_last_logits_see_the_order_of_earlier_tokens_only_with_positions(pos, sees_order):
    # in one layer without positions the last token attends to a set
    model, tokens = small_gpt(pos=pos, n_layer=1), random_tokens()
    swapped = tokens.clone()
    swapped[:, [2, 5]] = tokens[:, [5, 2]]
    difference = (model(swapped) - model(tokens))[:, -1].abs().max()
    assert (difference > 1e-3) == sees_order


def test_as_many_key_heads_as_heads_is_full_attention():
    full, grouped, tokens = small_gpt(), small_gpt(n_kv_head=4), random_tokens()
    assert torch.equal(full(tokens), grouped(tokens))


def test_grouped_keys_and_values_are_full_ones_repeated():
    grouped, full = small_gpt(n_kv_head=2), small_gpt()
    weights = grouped.state_dict()
    for name, tensor in weights.items():
        if ".key." in name or ".value." in name:
            heads = tensor.unflatten(0, (2, 8)).repeat_interleave(2, dim=0)
            weights[name] = heads.flatten(0, 1)
    full.load_state_dict(weights)
    torch.testing.assert_close(grouped(random_tokens()), full(random_tokens()))


def test_tied_head_is_the_embedding():
    tied, untied = small_gpt(), small_gpt(tie_embeddings=False)
    assert count(untied) - count(tied) == 40 * 32
    assert untied.parameter_roles().keys() - tied.parameter_roles().keys() == {"head.weight"}
    untied.load_state_dict(tied.state_dict() | {"head.weight": tied.tokens.weight})
    torch.testing.assert_close(tied(random_tokens()), untied(random_tokens()))
    # one storage, two uses: its gradient is the sum of both
    for model in (tied, untied):
        model(random_tokens()).logsumexp(-1).sum().backward()
    both = untied.tokens.weight.grad + untied.head.weight.grad
    torch.testing.assert_close(tied.tokens.weight.grad, both)


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_padded_vocabulary_gives_the_same_logits_for_the_same_weights(tie_embeddings):
    plain = small_gpt(tie_embeddings=tie_embeddings)
    padded = small_gpt(tie_embeddings=tie_embeddings, vocab_multiple=64)
    weights = plain.state_dict()
    for name in ("tokens.weight", "head.weight"):
        if name in weights:
            padding = torch.full((24, 32), 100.0)  # would win every softmax
            weights[name] = torch.cat((weights[name], padding))
    padded.load_state_dict(weights)
    logits = padded(random_tokens())
    torch.testing.assert_close(logits, plain(random_tokens()))
    logits.logsumexp(-1).sum().backward()
    assert not (padded.head or padded.tokens).weight.grad[40:].any()


def test_vocabulary_that_is_a_multiple_already_is_not_padded():
    assert small_gpt(vocab_multiple=8).tokens.weight.shape == (40, 32)


# flag -> (base, change, what must differ): the number of parameters; the initial weights;
# the logits for the same weights; the logits in training
FLAGS = {
    "vocab_size": ({}, 41, "count"),
    "vocab_multiple": ({}, 64, "count"),
    "block_size": ({"pos": "learned"}, 17, "count"),
    "n_layer": ({}, 3, "count"),
    "n_embd": ({}, 40, "count"),
    "n_head": ({}, 2, "logits"),
    "n_kv_head": ({}, 2, "count"),
    "head_dim": ({}, 12, "count"),
    "n_inner": ({}, 84, "count"),
    "pos": ({}, "none", "logits"),
    "rope_base": ({}, 1000.0, "logits"),
    "rope_dim": ({}, 4, "logits"),
    "norm": ({}, "layernorm", "logits"),
    "norm_eps": ({}, 0.1, "logits"),
    "norm_position": ({}, "post", "logits"),
    "qk_norm": ({}, True, "logits"),
    "act": ({}, "geglu", "logits"),
    "bias": ({}, True, "count"),
    "tie_embeddings": ({}, False, "count"),
    "dropout_embd": ({}, 0.5, "training"),
    "dropout_attn": ({}, 0.5, "training"),
    "dropout_resid": ({}, 0.5, "training"),
    "init_std": ({}, 0.1, "weights"),
    "depth_scaled_init": ({}, True, "weights"),
    "mup_base_n_embd": ({}, 16, "weights"),
}


def test_every_flag_is_tested_below():
    assert FLAGS.keys() == CONFIG.keys()


@pytest.mark.parametrize("flag", FLAGS)
def test_flag_changes_what_it_should(flag):
    base, value, what = FLAGS[flag]
    model, changed = small_gpt(**base), small_gpt(**{**base, flag: value})
    if what == "count":
        assert count(changed) != count(model)
        return
    if what == "weights":
        assert not torch.equal(changed.blocks[0].mlp.down.weight, model.blocks[0].mlp.down.weight)
        return
    changed.load_state_dict(model.state_dict(), strict=False)
    if what == "training":
        torch.testing.assert_close(changed(random_tokens()), model(random_tokens()))
        model.train()
        changed.train()
    assert (changed(random_tokens()) - model(random_tokens())).abs().max() > 0.01


STYLES = {
    "gpt2": {"pos": "learned", "norm": "layernorm", "act": "gelu_tanh", "bias": True},
    "llama": {"tie_embeddings": False},
    "everything": {"bias": True, "qk_norm": True, "n_kv_head": 2, "norm": "layernorm"},
    "post": {"norm_position": "post", "pos": "none"},
}


@pytest.mark.parametrize("style", STYLES)
def test_roles_cover_every_parameter(style):
    model = small_gpt(**STYLES[style])
    roles = model.parameter_roles()
    assert list(roles) == [name for name, _ in model.named_parameters()]
    assert all((roles[n] == "vector") == (p.ndim == 1) for n, p in model.named_parameters())
    blocks = [roles[n] for n, p in model.named_parameters() if "blocks" in n and p.ndim == 2]
    gated = model.config.act in GATED
    assert blocks == ["matrix"] * (2 * (7 if gated else 6))
    tables = {n: role for n, role in roles.items() if role in ("embedding", "head")}
    expected = {"tokens.weight": "embedding"}
    expected |= {"positions.weight": "embedding"} if style == "gpt2" else {}
    expected |= {"head.weight": "head"} if style == "llama" else {}
    assert tables == expected


@pytest.mark.parametrize("style", sorted(STYLES.keys() - {"gpt2"} | {"gpt2 with qk_norm"}))
def test_every_parameter_gets_a_gradient(style):
    # without qk_norm or RoPE, GPT-2's key bias adds one number to a row of scores: softmax
    # does not see it, so its gradient is zero but for rounding
    config = STYLES.get(style) or STYLES["gpt2"] | {"qk_norm": True}
    model = small_gpt(**config).double()
    model(random_tokens()).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 1e-6, name


def test_saved_state_is_the_parameters_alone_and_fits_a_longer_block():
    model = small_gpt()
    assert list(model.state_dict()) == [name for name, _ in model.named_parameters()]
    longer = small_gpt(seed=1, block_size=32)
    longer.load_state_dict(model.state_dict())
    torch.testing.assert_close(longer(random_tokens()), model(random_tokens()))


@pytest.mark.parametrize("where", ["dropout_embd", "dropout_attn", "dropout_resid"])
def test_dropout_acts_in_training_only(where):
    model, tokens = small_gpt(**{where: 0.5}), random_tokens()
    assert torch.equal(model(tokens), model(tokens))
    model.train()
    assert not torch.allclose(model(tokens), model(tokens), atol=0.01)


def test_same_seed_gives_the_same_weights_and_another_seed_others():
    one, same, other = small_gpt(3), small_gpt(3), small_gpt(4)
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, same.state_dict()[name])
        if weight.ndim == 2:
            assert not torch.equal(weight, other.state_dict()[name])


@pytest.mark.parametrize("depth_scaled_init", [True, False])
def test_initial_weights_have_the_stated_deviation(depth_scaled_init):
    model = small_gpt(
        n_embd=128,
        vocab_size=512,
        block_size=128,
        n_layer=8,
        pos="learned",
        bias=True,
        norm="layernorm",
        tie_embeddings=False,
        init_std=0.02,
        depth_scaled_init=depth_scaled_init,
    )
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            writes = depth_scaled_init and (".out." in name or ".down." in name)
            expected = 0.02 / 4 if writes else 0.02  # sqrt(2 * 8) = 4
            # 16,384 draws or more: sigma of the deviation is 0.55 %
            assert parameter.std().item() == pytest.approx(expected, rel=0.03), name
            assert abs(parameter.mean().item()) < 0.03 * expected
        else:
            assert (parameter == float("norm" in name and name.endswith("weight"))).all(), name


@pytest.mark.parametrize("changes", [{}, {"qk_norm": True, "rope_dim": 4, "n_kv_head": 2}])
def test_autocast_stays_close_to_float32_and_warns_of_nothing(changes):
    model, tokens = small_gpt(init_std=0.1, **changes), random_tokens()
    with warnings.catch_warnings(), torch.autocast("cpu", torch.bfloat16):
        warnings.simplefilter("error")
        logits = model(tokens)
    assert logits.dtype == torch.bfloat16
    exact = model(tokens)
    # one rounding to 8 significant bits errs by at most 2^-8; a few of them add up
    assert (logits - exact).std() < 4 * 2**-8 * exact.std()


def test_context_beyond_the_block_is_refused():
    with pytest.raises(AssertionError, match="context_length"):
        small_gpt()(random_tokens(time=17))
