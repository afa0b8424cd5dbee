"""Documents in a window, and targets that do not count."""

import numpy as np
import pytest
import torch
from tiny import rows, tiny

import gptopt
from gptopt.data import DataError
from gptopt.data.batch import IGNORED, Reading
from gptopt.data.checks import check_documents
from gptopt.data.corpus import Corpus, Mixture, Part, Stretch
from gptopt.data.loader import eval_windows
from gptopt.loss import training_loss
from gptopt.models import build_model

from .loading import loader, reading, same

# Documents begin with 0: two and a half of them in the first window of 8, two in the second.
TOKENS = np.array([5, 6, 0, 7, 0, 8, 9, 1, 2, 3, 0, 0, 4, 5, 6, 7, 8], dtype=np.uint8)
POSITIONS = [[0, 1, 0, 1, 0, 1, 2, 3], [0, 1, 0, 0, 1, 2, 3, 4]]
DOCUMENTS = [[0, 0, 1, 1, 2, 2, 2, 2], [0, 0, 1, 2, 2, 2, 2, 2]]


class Bounded:
    """A source that knows where its documents begin."""

    dtype = TOKENS.dtype
    boundaries = np.array([2, 4, 10, 11])

    def __len__(self):
        return len(TOKENS)

    def __getitem__(self, window):
        return TOKENS[window]


def batch_of(source, **settings):
    return loader(source, shuffle=False, batch_size=2, reading=reading(**settings)).next_batch()


@pytest.mark.parametrize("source", [TOKENS, Bounded()])
def test_positions_and_documents_are_those_counted_by_hand(source):
    mark = {} if isinstance(source, Bounded) else {"end_of_text": 0}
    plain = batch_of(source, documents="plain", **mark)
    assert (plain.positions, plain.documents) == (None, None)
    reset = batch_of(source, documents="reset_positions", **mark)
    assert reset.positions.tolist() == POSITIONS
    assert reset.documents is None
    masked = batch_of(source, documents="mask", **mark)
    assert masked.positions.tolist() == POSITIONS
    assert masked.documents.tolist() == DOCUMENTS
    for batch in (reset, masked):
        assert torch.equal(batch.inputs, plain.inputs)
        assert torch.equal(batch.targets, plain.targets)


def test_a_stretch_and_a_mixture_keep_the_documents_of_their_sources():
    stretch = Stretch(Bounded(), 2, 11)
    assert stretch.boundaries.tolist() == [0, 2, 8]
    assert batch_of(stretch, documents="mask").documents[0].tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    mixed = Mixture((Part("a", stretch, 1), Part("b", Bounded(), 1)), "sequential")
    batch = loader(
        mixed, shuffle=False, batch_size=3, reading=reading(documents="mask")
    ).next_batch()
    assert batch.documents[1:].tolist() == DOCUMENTS


def test_an_evaluation_treats_documents_as_training_does():
    settings = {"context_length": 8, "tokens": None, "rank": 0, "world_size": 1}
    mask = reading(documents="mask", end_of_text=0)
    (batch,) = eval_windows(TOKENS, batch_size=2, reading=mask, **settings)
    assert batch.documents.tolist() == DOCUMENTS


@pytest.mark.gpu
def test_batches_reach_a_gpu_from_pinned_memory_unchanged():
    asked = reading(documents="mask", end_of_text=0, ignored_ids=(3,))
    settings = {"shuffle": False, "batch_size": 2, "reading": asked}
    for prefetch in (0, 2):
        gpu = loader(TOKENS, device=torch.device("cuda", 0), prefetch=prefetch, **settings)
        with gpu, loader(TOKENS, **settings) as cpu:
            for _ in range(20):
                there, here = gpu.next_batch(), cpu.next_batch()
                assert all(t.device.type == "cuda" for t in there)
                assert same([t.cpu() for t in there], here)


@pytest.mark.parametrize("pos", ["learned", "rope", "none"])
def test_a_masked_document_is_read_as_if_it_stood_alone(pos):
    torch.manual_seed(0)
    model = build_model("gpt", GPT | {"pos": pos}).double()
    inputs, _, positions, documents = batch_of(TOKENS, documents="mask", end_of_text=0)
    together = model(inputs, positions, documents)
    for row, numbers in enumerate(DOCUMENTS):
        for number in set(numbers):
            mine = torch.tensor(numbers) == number
            alone = model(inputs[row][mine].unsqueeze(0))[0]
            # the same float64 sums, in another order
            assert torch.allclose(together[row][mine], alone, rtol=0, atol=1e-12)
    assert not torch.allclose(together, model(inputs))


def test_positions_that_start_anew_change_learned_positions_and_leave_attention():
    model = build_model("gpt", GPT | {"pos": "learned"}).double()
    inputs, _, positions, _ = batch_of(TOKENS, documents="reset_positions", end_of_text=0)
    changed = inputs.clone()
    changed[0, 0] = 1  # the first document of the window is still seen by the last
    assert not torch.allclose(model(inputs, positions)[0, 7], model(changed, positions)[0, 7])
    counted = torch.arange(8).expand(2, 8)
    assert torch.equal(model(inputs, counted), model(inputs))


GPT = {
    "vocab_size": 10, "vocab_multiple": 1, "block_size": 8, "n_layer": 2, "n_embd": 16,
    "n_head": 2, "n_kv_head": 1, "head_dim": None, "n_inner": None, "pos": "rope",
    "rope_base": 10000.0, "rope_dim": None, "norm": "rmsnorm", "norm_eps": 1e-5,
    "norm_position": "pre", "qk_norm": True, "act": "gelu", "bias": False,
    "tie_embeddings": True, "dropout_embd": 0.0, "dropout_attn": 0.0, "dropout_resid": 0.0,
    "init_std": 0.5, "depth_scaled_init": True, "mup_base_n_embd": None,
}  # fmt: skip


def test_a_source_that_cannot_tell_its_documents_is_refused_with_both_ways_out():
    corpus = Corpus(TOKENS, TOKENS, "", 256, {})
    said = r"data.documents=mask: the training set does not say .* Set data.end_of_text"
    with pytest.raises(DataError, match=said):
        check_documents(corpus, "mask", None)
    check_documents(corpus, "mask", 0)
    check_documents(corpus, "plain", None)
    check_documents(Corpus(Bounded(), Bounded(), "", 256, {}), "mask", None)


# --- targets that do not count ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ignore", "left"),
    [
        ({"ignored_ids": (0, 9)}, [6, None, 7, None, 8, None, 1, 2]),
        ({"ignored_range": (6, 8)}, [None, 0, None, 0, None, 9, 1, 2]),
        ({"ignored_range": (None, 1)}, [6, None, 7, None, 8, 9, None, 2]),
        ({"ignored_range": (7, None)}, [6, 0, None, 0, None, None, 1, 2]),
        ({"ignored_range": (0, 0), "ignored_ids": (1,)}, [6, None, 7, None, 8, 9, None, 2]),
    ],
)
def test_ignored_targets_are_those_ids_where_they_are_to_be_predicted(ignore, left):
    # The targets are 6 0 7 0 8 9 1 2: aligned to them, not to the inputs one place before.
    batch = batch_of(TOKENS, **ignore)
    expected = [IGNORED if token is None else token for token in left]
    assert batch.targets[0].tolist() == expected
    assert batch.inputs[0].tolist() == TOKENS[:8].tolist()


def test_a_range_from_zero_is_not_an_open_one():
    assert batch_of(TOKENS, ignored_range=(0, 0)).targets[0].tolist().count(IGNORED) == 2


def test_ignored_targets_add_nothing_to_the_loss_and_to_its_companions():
    torch.manual_seed(0)
    logits = torch.randn(1, 4, 5, dtype=torch.float64)
    targets = torch.tensor([[1, IGNORED, 3, IGNORED]])
    settings = {"label_smoothing": 0.1, "z_loss": 0.01, "softcap": None}
    whole = training_loss(logits, targets, divisor=torch.tensor(2.0), **settings)
    some = training_loss(logits[:, ::2], targets[:, ::2], divisor=None, **settings)
    assert whole.item() == pytest.approx(some.item(), rel=1e-6)
    none = training_loss(logits, torch.full((1, 4), IGNORED), divisor=torch.tensor(2.0), **settings)
    assert none.item() == 0


IGNORE = ("data.ignore.token_range=[97,110]", "data.ignore.token_ids=[32]")


def losses(tmp_path, *overrides):
    config = tiny(
        tmp_path,
        "training.training_params.max_steps=6",
        "model.config.dropout_embd=0",
        "model.config.dropout_attn=0",
        "model.config.dropout_resid=0",
        *overrides,
    )
    found = rows(gptopt.train(config).run)
    return [row[key] for row in found for key in ("train_loss", "val_loss") if key in row]


def test_the_loss_is_a_mean_over_counted_targets_however_the_batch_is_cut(tmp_path):
    # Parts of a batch count unequally many targets: a mean of their means would differ.
    sizes = "training.training_params.batch_size={}", "training.training_params.{}={}"
    cut = []
    for batch_size in (1, 2, 8):
        cut.append(
            losses(
                tmp_path,
                *IGNORE,
                sizes[0].format(batch_size),
                sizes[1].format("accumulation_steps", 8 // batch_size),
            )
        )
    assert cut[0] == pytest.approx(cut[2], rel=2e-6)  # float32, other sums
    assert cut[1] == pytest.approx(cut[2], rel=2e-6)


def test_documents_ignored_targets_and_prefetch_come_from_the_config(tmp_path):
    plain = losses(tmp_path)
    assert losses(tmp_path, "data.prefetch=0", "+force") == plain
    changed = [
        losses(tmp_path, *IGNORE),
        losses(tmp_path, "data.documents=mask", "data.end_of_text=10"),
        losses(tmp_path, "data.documents=reset_positions", "data.end_of_text=10"),
        losses(tmp_path, "data.shuffle=false"),
    ]
    assert all(other[-1] != plain[-1] for other in changed)


def test_a_step_reads_what_the_node_asks_for():
    node = {
        "documents": "mask",
        "end_of_text": 3,
        "ignore": {"token_ids": [1, 2], "token_range": [None, 5]},
    }
    assert Reading.of(node, 256) == Reading("mask", 3, (1, 2), (None, 5), 256)
