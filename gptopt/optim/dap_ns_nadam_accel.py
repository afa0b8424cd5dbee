"""DAP-NS-NAdam under the name of its published second setting, ``accelerated: true``.

Source: N. Ghosh and N. Amsel in GPT-opt, branch dap.
The rule and its equations are those of dap_ns_nadam.py, the settings those of
hydra_conf/optimizer/dap-ns-nadam-accel.yaml; a name of its own keeps its runs apart.
"""

from __future__ import annotations

from gptopt.config.types import (
    Count,
    Decay,
    NonNegative,
    PolarMethod,
    Positive,
    PositiveInt,
    ProductDtype,
    Share,
)
from gptopt.optim.common.base import Group
from gptopt.optim.dap_ns_nadam import DAPNSNAdam, width_rule

__all__ = ["build", "width_rule"]


def build(
    groups: list[Group],
    *,
    lr: Positive,
    dap_beta1: Decay,
    dap_beta2: Decay,
    eps: Positive,
    momentum: Decay,
    nesterov: bool,
    disable_preconditioning: bool,
    scalar: bool,
    ns_pinv_steps: PositiveInt,
    accelerated: bool | NonNegative,
    rcond: Positive,
    damping: NonNegative,
    ema_beta: Decay,
    refresh_every: PositiveInt,
    xtx_subsample: Share | None,
    mb_subsampling: bool,
    orthogonalize: bool,
    polar: PolarMethod,
    ns_steps: Count,
    ns_dtype: ProductDtype,
    update_norm: bool,
    update_opnorm: bool,
    debug_timing: bool,
    weight_decay: NonNegative,
) -> DAPNSNAdam:
    """See hydra_conf/optimizer/dap-ns-nadam-accel.yaml for the settings."""
    return DAPNSNAdam(**locals())
