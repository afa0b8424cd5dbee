"""The presets in hydra_conf/model."""

from pathlib import Path

import pytest
import torch
import yaml

from gptopt.config.resolve import find_part, keys_of
from gptopt.models import build_model

FOLDER = Path(__file__).parents[2] / "hydra_conf" / "model"
PRESETS = {file.stem: yaml.safe_load(file.read_text()) for file in sorted(FOLDER.glob("*.yaml"))}

# GPT-2: Radford et al. (2019), as counted from the published checkpoints. The gpt-* family:
# V D + L (4 D^2 + 3 D int(8 D / 3) + 2 D) + D. llama2 has V D more for its own head.
# wen-130m: 2 V D + L (4 D^2 + 3 D I + 2 D) + D. track3: 2 V D + L (4 (D^2 + D) + 2 D I + I + D
# + 2 D + 2 * 128) + D, the last but one for the norms of queries and keys.
PARAMETERS = {
    "gpt-tiny": 357_024,
    "gpt-small": 123_551_232,
    "gpt-medium": 353_454_080,
    "gpt-large": 772_165_120,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llama2": 162_148_608,
    "track3": 162_306_816,
    "wen-130m": 185_714_176,
}


def test_every_preset_has_its_parameter_count_below():
    assert PRESETS.keys() == PARAMETERS.keys()


@pytest.mark.parametrize("name", PRESETS)
def test_preset_has_exactly_its_number_of_parameters(name):
    with torch.device("meta"):
        model = build_model(PRESETS[name]["family"], PRESETS[name]["config"])
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", PRESETS)
def test_preset_lists_every_key_of_its_family_and_is_called_like_its_file(name):
    assert PRESETS[name]["name"] == name
    assert list(PRESETS[name]["config"]) == list(keys_of(find_part("models", "gpt")))


def test_loss_of_untrained_gpt_tiny_is_near_that_of_guessing():
    # logits are near N(0, D 0.02^2), which adds 0.5 * 96 * 0.02^2 = 0.019 to ln 256
    torch.manual_seed(0)
    model = build_model("gpt", PRESETS["gpt-tiny"]["config"])
    tokens, targets = torch.randint(256, (2, 16, 128))
    loss = torch.nn.functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
    assert loss.item() == pytest.approx(torch.log(torch.tensor(256.0)).item() + 0.019, abs=0.03)


def test_unknown_family_is_refused_with_the_families_there_are():
    with pytest.raises(ValueError, match=r"'mamba'.*There are: .*gpt"):
        build_model("mamba", {})
