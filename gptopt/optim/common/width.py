"""muP: how learning rates follow the width of a model, so that one tuned on a narrow one stays.

Sources: Yang, Hu et al. (2022), "Tensor Programs V: tuning large neural networks via zero-shot
hyperparameter transfer", arXiv 2203.03466, Table 8; Yang, Simon and Bernstein (2023), "A
spectral condition for feature learning", arXiv 2310.17813.

A model m times as wide as its base draws its hidden matrices sqrt(m) times smaller and divides
what its head reads by m. Whatever m is, activations then have entries of size 1, gradients with
respect to them entries of size 1 / m, and a hidden matrix W and its gradient G spectral norms
|W|_2 and |G|_2 of size 1. Training changes activations alike at every width when the steps U

    of hidden matrices have |U|_2 of size 1: what the spectral condition asks for, sqrt(fan_out /
        fan_in), does not depend on m where both follow the width;
    of everything else have entries of size 1.

A rule says with which of these ``width_rule``s it makes its steps; they tell the power of m
that multiplies lr for a role:

                 matrix  rest   steps at a fixed lr
    entrywise      -1      0    entries of size 1, aligned with G: |U|_2 ~ width (Adam, signs)
    relative      -1/2     0    the same times RMS(W), which is of size 1 / sqrt(width)
    matched       -1/2     0    polar factors brought to entries of size 1: |U|_2 ~ sqrt(width)
    spectral        0      0    |U|_2 of size 1 (polar factors)
    gradient        0      1    G itself; entries of the rest's are of size 1 / m (SGD)

Where a rule fixes the Frobenius norm of a step that is not aligned with G, |U|_2 depends on the
rank of U, which is that of the data as much as of the width: such rules have no ``width_rule``.

Weight decay is left as it is: that of one step, lr wd, follows lr, as in GPT-opt and nanoGPT-mup
(microsoft/mup keeps lr wd instead). So is Adam's eps, which has to be small beside gradients of
size 1 / m. A gain that all heads share is no "rest" for ``gradient``: each head adds to its G.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gptopt.config.problems import ConfigError, Problem
from gptopt.config.resolve import WIDTH_RULE, load_part
from gptopt.optim.common.base import Group

WidthRule = Callable[[Group], float]
"""The power of m for a group, by its ``role`` and its settings."""


def entrywise(group: Group) -> float:
    """For steps with entries of one size that are aligned with the gradient."""
    return -1.0 if group["role"] == "matrix" else 0.0


def relative(group: Group) -> float:
    """For steps whose entries are aligned with the gradient and follow the size of W's."""
    return -0.5 if group["role"] == "matrix" else 0.0


def matched(group: Group) -> float:
    """For polar factors times the root of a width, and entrywise steps of the rest."""
    return -0.5 if group["role"] == "matrix" else 0.0


def spectral(group: Group) -> float:
    """For steps of matrices of one spectral norm, and entrywise ones of the rest."""
    return 0.0


def gradient(group: Group) -> float:
    """For steps that are gradients or averages of them."""
    return 0.0 if group["role"] == "matrix" else 1.0


def follow_width(groups: Iterable[Group], name: str, width: float) -> None:
    """Multiplies the lr of each of ``groups`` by its power of ``width``.

    Args:
        groups: Those of the rule, with their settings.
        name: Of the file in gptopt/optim whose ``width_rule`` holds.
        width: m.

    Raises:
        ConfigError: The rule, or the rule with these settings, has none.
    """
    rule: WidthRule | None = getattr(load_part("optim", name), WIDTH_RULE, None)
    if rule is None:
        raise no_rule(name)
    for group in groups:
        group["lr"] *= width ** rule(group)


def no_rule(name: str, known_with: str = "") -> ConfigError:
    """The error of an optimizer of which it is not known how its lr follows the width.

    Args:
        name: Of the optimizer.
        known_with: The settings with which it is known, if there are any.
    """
    key = "model.config.mup_base_n_embd"
    known = f"known only with {known_with}" if known_with else "not known"
    message = f"{key}: how the lr of optimizer {name} follows the width is {known}."
    return ConfigError([Problem(key, f"{message} null switches muP off.")])
