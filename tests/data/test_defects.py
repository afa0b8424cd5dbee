"""Defects of data loaders that have cost people runs: a test for each, that ours has not got it."""

import json
import tracemalloc
from unittest import mock

import numpy as np
import pytest
from tiny import tiny

from gptopt import gradient
from gptopt.data import DataError, open_corpus
from gptopt.data.loader import Loader
from gptopt.data.preparation.options import Options
from gptopt.data.preparation.prepare import prepare
from gptopt.data.shards import Shards, open_shard
from gptopt.data.texts import TextOptions
from gptopt.run import execute
from gptopt.state import ExitCode

from .loading import T, loader, starts, take

WORDS = {"format": "grammar", "tokens": 9000, "words": 50, "classes": 5, "val_split": 0.1}


@pytest.fixture
def three_shards(tmp_path):
    """Tokens 0 ... 502 in shards of 100, 3 and 400: token i is i."""
    paths = [tmp_path / f"train_{number}.bin" for number in range(3)]
    for path, part in zip(paths, np.split(np.arange(503, dtype="<u2"), [100, 103]), strict=True):
        part.tofile(path)
    return Shards([open_shard(path, "uint16") for path in paths])


def test_the_weights_in_the_config_decide_how_often_each_source_is_read(tmp_path):
    sources = {"a": WORDS | {"seed": 1, "weight": 9}, "b": WORDS | {"seed": 2, "weight": 1}}
    node = {"name": "m", "format": "mixture", "mix": "weighted", "sources": sources}
    order = loader(open_corpus(node, tmp_path).train)._order(0, 1000)
    # Both have the same length: by length it would be half and half.
    assert np.bincount(order[0]).tolist() == [900, 100]


def test_every_epoch_has_another_order_than_the_epochs_before_it(three_shards):
    read = loader(three_shards)
    epochs = [tuple(take(read, 62 * 4)[:62]) for _ in range(8)]
    assert len(set(epochs)) == 8
    assert all(len(set(epoch)) == 62 for epoch in epochs)


def test_reading_for_many_epochs_keeps_no_batch_in_memory():
    tokens = np.zeros(31 * T * 100 + 1, dtype=np.uint8)  # an epoch is 100 batches of 2 kB and more
    read = loader(tokens, batch_size=31)
    sizes = []
    tracemalloc.start()
    for _ in range(4):
        for _ in range(200):
            read.next_batch()
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[-1] - sizes[0] < 10 * 31 * T * 8  # ten batches, of 600 that were read


def test_a_run_that_resumes_goes_on_in_its_data_and_does_not_start_it_again(tmp_path):
    steps = "training.training_params.max_steps=8"
    config = tiny(tmp_path, "data.prefetch=0", "checkpoint.save_interval=4", steps)
    read, batch = [], Loader._batch

    def spy(self, samples):
        read.append(samples)
        if len(read) == 11:  # in step 6: a step is two batches of two samples
            raise RuntimeError
        return batch(self, samples)

    with mock.patch.object(Loader, "_batch", spy):
        assert execute(config)[0] == ExitCode.CRASH
        assert read == [*range(0, 22, 2)]
        assert execute(config)[0] == ExitCode.DONE
    assert read[11:] == [*range(16, 32, 2)]  # from the checkpoint of step 4 to the end


def test_a_position_in_a_later_shard_is_read_from_that_shard(three_shards):
    read = loader(three_shards, shuffle=False, batch_size=1)
    assert starts(read.next_batch()) == [0]  # the first shard is open, and has been read
    read.load_state_dict({"samples": 40})
    assert starts(read.next_batch()) == [40 * T]
    read.load_state_dict({"samples": 1})
    assert starts(read.next_batch()) == [T]


def test_a_window_over_the_border_of_two_shards_is_whole(three_shards):
    read = loader(three_shards, shuffle=False, batch_size=1)
    read.load_state_dict({"samples": 12})  # tokens 96 ... 104, of all three shards
    assert read.next_batch().inputs.tolist() == [[*range(96, 104)]]


def test_what_is_held_out_is_spread_over_the_sources_and_not_their_beginning(tmp_path):
    texts = "\n".join(json.dumps({"text": f"document {number}"}) for number in range(800))
    (tmp_path / "a.jsonl").write_text(texts)
    options = Options("bytes", False, 0.25, 10**6, None, False, TextOptions(("text",), (), None))
    prepare([tmp_path / "a.jsonl"], tmp_path / "out", options=options, workers=1,
            data_root=tmp_path, report=lambda _: None)  # fmt: skip
    shard = open_shard(tmp_path / "out" / "val_000000.bin", None)
    content = bytes(Shards([shard])[0 : shard.tokens].astype(np.uint8))
    numbers = [int(text.split()[1]) for text in content.decode().split("\0")[1:]]
    quarters = np.bincount(np.array(numbers) // 200, minlength=4)
    # 50 of 200 expected in each, standard deviation sqrt(200 * 1/4 * 3/4) = 6.1
    assert (abs(quarters - 50) < 31).all()


def test_windows_are_as_long_as_the_run_is_told(tmp_path):
    lengths = set()
    fit = gradient.training_loss

    def spy(logits, targets, **settings):
        lengths.add(targets.shape[1])
        return fit(logits, targets, **settings)

    with mock.patch.object(gradient, "training_loss", spy):
        steps, length = "training.training_params.max_steps=1", 16  # the model could take 32
        execute(tiny(tmp_path, steps, f"training.training_params.context_length={length}"))
    assert lengths == {length}


def test_shards_are_found_by_the_pattern_given_and_at_no_fixed_place(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    np.arange(50, dtype=np.uint8).tofile(tmp_path / "elsewhere" / "x.raw")
    node = {"name": "m", "format": "bin", "train": "elsewhere/*.raw", "val": None, "val_split": 9}
    node |= {"dtype": "uint8", "tokenizer": "bytes", "vocab_size": 256}
    assert len(open_corpus(node, tmp_path).train) == 41
    with pytest.raises(DataError, match=r"no file matches .*/nowhere/elsewhere/\*.raw"):
        open_corpus(node, tmp_path / "nowhere")
