"""An optimizer brings the schedule and the clipping that it needs, and whatever is said wins."""

from __future__ import annotations

import shutil
from pathlib import Path

import hydra
import pytest
from click.testing import CliRunner
from omegaconf import OmegaConf
from optim_toy import write_docs_example

from gptopt.cli import main
from gptopt.config.compose import compose, compose_all
from gptopt.config.identity import run_id
from gptopt.config.problems import ConfigError
from gptopt.config.survey import survey
from gptopt.config.typed import points
from gptopt.layout import HYDRA_CONF

FREE = "optimizer=schedule-free-adamw"
CLIP = "training.training_params.max_grad_norm"


def brought(*overrides: str, config_dir: Path = HYDRA_CONF) -> tuple[str, float | None]:
    """The schedule and the clipping threshold that come out."""
    config = compose(overrides, config_dir=config_dir)
    return config.lr_scheduler["name"], config.training.training_params.max_grad_norm


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        # Defazio et al. (2024): the average takes the place of the decay, the warm-up stays.
        ("schedule-free-adamw", ("constant", 1.0)),
        # Schaipp et al. (2024): the loss is modelled by <G, W - W'>, with G as it is.
        ("momo", ("wsd", None)),
        ("momo-adam", ("wsd", None)),
        ("muon-momo", ("wsd", None)),
        ("scion-momo", ("wsd", None)),
        ("muonmax-momo", ("wsd", None)),
        ("muonmax", ("wsd", 1.0)),
        ("adamw", ("wsd", 1.0)),
    ],
)
def test_an_optimizer_gets_what_its_paper_asks_for(
    option: str, expected: tuple[str, float | None]
) -> None:
    assert brought(f"optimizer={option}") == expected


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([FREE, "lr_scheduler=cosine"], ("cosine", 1.0)),
        (["lr_scheduler=cosine", FREE], ("cosine", 1.0)),
        ([FREE, "lr_scheduler=wsd"], ("wsd", 1.0)),
        ([FREE, "training=shakespeare"], ("constant", 1.0)),
        ([FREE, f"{CLIP}=null"], ("constant", None)),
        (["optimizer=momo", f"{CLIP}=0.3"], ("wsd", 0.3)),
        (["optimizer=momo", "clipping=norm"], ("wsd", 1.0)),
        (["optimizer=momo", "training=shakespeare"], ("wsd", None)),
        (["optimizer=adamw", "clipping=none"], ("wsd", None)),
        ([FREE, "experiment=debug"], ("constant", 1.0)),
        ([FREE, "experiment=semenov-124m"], ("cosine", 0.5)),
        (["optimizer=momo", "+experiment=semenov-124m"], ("cosine", 0.5)),
        (["experiment=semenov-124m", "optimizer=momo", f"{CLIP}=null"], ("cosine", None)),
    ],
)
def test_what_is_typed_or_an_experiment_says_wins(
    overrides: list[str], expected: tuple[str, float | None]
) -> None:
    big = ["data=fineweb1B"] if "semenov" in "".join(overrides) else []
    assert brought(*overrides, *big) == expected


def test_a_training_preset_wins(tmp_path: Path) -> None:
    conf = tmp_path / "hydra_conf"
    shutil.copytree(HYDRA_CONF, conf)
    (conf / "training" / "mine.yaml").write_text(
        "defaults:\n"
        "  - tiny\n"
        "  - override /lr_scheduler@_global_.lr_scheduler: linear\n"
        "  - _self_\n"
        "training_params:\n  max_grad_norm: 0.7\n"
    )
    for option in ("schedule-free-adamw", "momo"):
        assert brought(f"optimizer={option}", "training=mine", config_dir=conf) == ("linear", 0.7)


def test_every_run_of_m_has_what_its_own_optimizer_brings() -> None:
    configs = compose_all(points(["optimizer=adamw,schedule-free-adamw,momo"]))
    schedules = [config.lr_scheduler["name"] for config in configs]
    assert schedules == ["wsd", "constant", "wsd"]
    assert [c.training.training_params.max_grad_norm for c in configs] == [1.0, 1.0, None]


def test_every_point_of_a_sweep_has_what_hydra_composes_for_its_optimizer() -> None:
    swept = [
        [f"optimizer={option}", *schedule, f"optimizer.optimizer_params.lr={lr}", *clip]
        for option in ("adamw", "schedule-free-adamw", "momo")
        for schedule in ([], ["lr_scheduler=cosine"])
        for clip in ([], [f"{CLIP}=0.5"])
        for lr in (0.1, 0.2)
    ]
    seen = survey(swept, origin="here")
    assert not seen.problems
    with hydra.initialize_config_dir(str(HYDRA_CONF), version_base=None):
        for point, sketch in zip(swept, seen.sketches, strict=True):
            theirs = OmegaConf.to_container(hydra.compose("config", overrides=point), resolve=True)
            assert sketch is not None
            assert sketch.run_id == run_id(theirs), point  # type: ignore[arg-type]
    assert len({sketch.run_id for sketch in seen.sketches if sketch}) == len(swept)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The YAML file of a plugin's optimizer."""
    write_docs_example(tmp_path)
    (tmp_path / "hydra_conf").rename(tmp_path / "gptopt" / "hydra_conf")
    monkeypatch.setenv("GPTOPT_PLUGINS", str(tmp_path / "gptopt"))
    return tmp_path / "gptopt" / "hydra_conf" / "optimizer" / "nsgd.yaml"


def test_an_optimizer_of_a_plugin_brings_its_own(plugin: Path) -> None:
    choice = (
        "defaults:\n  - override /lr_scheduler@_global_.lr_scheduler: inverse_sqrt\n  - _self_\n"
    )
    plugin.write_text(choice + plugin.read_text())
    assert brought("optimizer=nsgd") == ("inverse_sqrt", 1.0)
    assert brought("optimizer=nsgd", "lr_scheduler=cosine") == ("cosine", 1.0)
    shown = CliRunner().invoke(main, ["optim", "show", "nsgd"]).output
    assert "Brings lr_scheduler=inverse_sqrt along" in shown


def test_an_option_that_there_is_not_is_named(plugin: Path) -> None:
    choice = "defaults:\n  - override /lr_scheduler@_global_.lr_scheduler: constnat\n  - _self_\n"
    plugin.write_text(choice + plugin.read_text())
    with pytest.raises(ConfigError, match="lr_scheduler/constnat"):
        compose(["optimizer=nsgd"])


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("schedule-free-adamw", "Brings lr_scheduler=constant along"),
        ("momo", "Brings clipping=none along"),
        ("adamw", None),
    ],
)
def test_show_tells_what_comes_along(option: str, words: str | None) -> None:
    shown = CliRunner().invoke(main, ["optim", "show", option]).output
    assert words in shown if words else "Brings" not in shown
