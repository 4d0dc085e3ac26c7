"""Is what a guider predicts the mean of a density?

Only an unguided prediction is. With guidance the predictions of two prompts are mixed; they are the
mean of no density, so likelihoods and everything derived from them have no meaning then (Ma et al.
2024, arXiv:2401.08740, appendix C). What cannot be known to be unguided counts as guided.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import comfy.samplers
from comfy.patcher_extension import WrappersMP

__all__ = ["require_undistilled", "require_unguided"]

# the host's guiders that predict the positive prompt alone when all these numbers are 1
_NUMBERS = {
    "CFGGuider": ("cfg",),
    "Guider_Basic": ("cfg",),
    "Guider_DualModel": ("cfg",),
    "Guider_DualCFG": ("cfg1", "cfg2"),
}
_HOST = Path(comfy.samplers.__file__).resolve().parents[1]
_FILES = (_HOST / "comfy" / "samplers.py", _HOST / "comfy_extras" / "nodes_custom_sampler.py")
_FUNCTIONS = (
    "sampler_cfg_function",
    "sampler_pre_cfg_function",
    "sampler_post_cfg_function",
    "sampler_calc_cond_batch_function",
)
_REASON = (
    "A prediction after guidance mixes two prompts and is the mean of no density, so that nothing "
    "can be said about how probable a picture is"
)


def _is_known(guider: comfy.samplers.CFGGuider) -> bool:
    """Whether a class of that name comes from the host's own file.

    The host loads its nodes by path, under other module names than an import gives them.
    """
    kind = type(guider)
    file = getattr(sys.modules.get(kind.__module__), "__file__", None) or "."
    return kind.__name__ in _NUMBERS and Path(file).resolve() in _FILES


def require_unguided(guider: comfy.samplers.CFGGuider) -> None:
    """Refuse a guider that guides, or may do so.

    Args:
        guider: GUIDER.

    Raises:
        ValueError: Guidance other than 1, a guider of an unknown kind, or a model with a patch that
            changes predictions after the network.
    """
    name = type(guider).__name__
    if not _is_known(guider):
        raise ValueError(
            f"the guider {name} cannot be known to be without guidance. {_REASON}. Connect the "
            "host's Basic Guider, or its CFG Guider with cfg 1"
        )
    for number in _NUMBERS[name]:
        value = float(getattr(guider, number))
        if not math.isclose(value, 1.0):
            raise ValueError(
                f"the guider's {number} is {value:g}. {_REASON}. Set it to 1, or connect a Basic "
                "Guider"
            )
    options, model = guider.model_options, guider.model_patcher
    found = [key for key in _FUNCTIONS if options.get(key)]
    found += [WrappersMP.PREDICT_NOISE] if model.get_all_wrappers(WrappersMP.PREDICT_NOISE) else []
    if found:
        raise ValueError(
            f"the model carries a patch that changes predictions ({', '.join(found)}), as CFG "
            f"Override, RescaleCFG, perturbed-attention and similar nodes make. {_REASON}. Connect "
            "the model from before that node"
        )


def require_undistilled(guider: comfy.samplers.CFGGuider) -> None:
    """Refuse guidance that was distilled into the network, as in Flux dev.

    Args:
        guider: The guider inside its sample(), with its conditioning processed.

    Raises:
        ValueError: The network takes a guidance, and it is above 1.
    """
    network: Any = guider.inner_model.diffusion_model
    if not getattr(getattr(network, "params", network), "guidance_embed", False):
        return
    for entry in guider.conds.get("positive", []):
        value = entry.get("model_conds", {}).get("guidance")
        if value is not None and float(value.cond.max()) > 1.0:
            raise ValueError(
                f"this model was distilled from a guided one and runs at guidance "
                f"{float(value.cond.max()):g}. {_REASON}. Put a FluxGuidance node with 1 behind "
                "the prompt"
            )
