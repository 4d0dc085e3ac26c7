"""What in a graph remembers earlier calls of the model, or mixes the rows of one?

The host samples one batch downwards, once. A search goes up and down and from picture to picture,
with unrelated candidates in one call. So what depends on the step is put where a run of the host
would have it at that sigma; what mixes rows is called row by row; and what fills a prediction in
from the one before is refused, but for samplers that are run whole, which get a memory of their own
for each run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from comfy.hooks import HookKeyframeGroup
from comfy.samplers import CFGGuider
from torch import Tensor

from .conditioning import conds_of

__all__ = ["Keyframes", "fresh_cache", "mixes_rows", "require_searchable", "sigmas_with"]

# files of the host whose functions take a sum or a mean over all rows of a call
_MIXING = {"nodes_perpneg": "Perp-Neg", "nodes_mahiro": "Positive-Biased Guidance"}


def _functions(guider: CFGGuider) -> Iterator[Callable[..., Any]]:
    """What makes the prediction of the network's outputs: the guider's method, and patches."""
    yield type(guider).predict_noise
    options: dict[str, Any] = guider.model_options
    yield from options.get("sampler_pre_cfg_function", [])
    yield from options.get("sampler_post_cfg_function", [])
    if "sampler_cfg_function" in options:
        yield options["sampler_cfg_function"]


def _file(function: Callable[..., Any]) -> str:
    code = getattr(function, "__code__", None)
    return "" if code is None else Path(code.co_filename).stem


def mixes_rows(guider: CFGGuider) -> str:
    """Say what lets the rows of one call change each other's predictions.

    Args:
        guider: The guider.

    Returns:
        A node's name, or "" for nothing that is known.
    """
    handler = guider.model_options.get("context_handler")
    if handler is not None:  # the host also cuts the list of times, one a row, into windows
        return "Context Windows"
    return next((_MIXING[name] for f in _functions(guider) if (name := _file(f)) in _MIXING), "")


def _remembering(guider: CFGGuider) -> str:
    cache = guider.model_options.get("transformer_options", {}).get("easycache")
    if cache is not None:
        return str(cache.name)
    for function in _functions(guider):
        if _file(function) == "nodes_apg":
            momentum = inspect.getclosurevars(function).nonlocals.get("momentum", 0.0)
            if momentum:
                return f"Adaptive Projected Guidance with momentum {momentum:g}"
    return ""


def require_searchable(guider: CFGGuider, rows: int, whole: bool) -> None:
    """Refuse what a search cannot do justice to, by name.

    Args:
        guider: The guider.
        rows: Rows of the batch.
        whole: Whether the sampler is run whole.

    Raises:
        ValueError: A batch that is one clip; or, for a search that decides on the way, something
            that makes predictions of the ones before.
    """
    handler = guider.model_options.get("context_handler")
    if handler is not None and getattr(handler, "dim", None) == 0 and rows > 1:
        raise ValueError(
            "Context Windows with dim 0 takes the batch for the frames of one clip, and a search "
            "takes each row of a batch for a picture of its own; connect the model from before "
            "that node, or sample the clip with the host's own sampler"
        )
    name = "" if whole else _remembering(guider)
    if name:
        raise ValueError(
            f"the model carries {name}, which makes predictions of the ones before; a search goes "
            "from picture to picture, so they would be another picture's. Connect the model from "
            "before that node, or search a stock sampler (KSamplerSelect), which runs each picture "
            "whole"
        )


def fresh_cache(options: dict[str, Any]) -> None:
    """Give a whole run a cache of its own, as the host does.

    Args:
        options: The run's own model options; modified.
    """
    transformer = options.get("transformer_options", {})
    cache = transformer.get("easycache")
    if cache is not None:
        fresh = cache.clone()
        fresh.start_t, fresh.end_t = cache.start_t, cache.end_t
        transformer["easycache"] = fresh


def sigmas_with(sigmas: Tensor, sigma: float) -> Tensor:
    """Return a run's sigmas with the nearest one replaced by another.

    What asks which step it is (context windows, MeanFlow models) looks for the sigma in this list.
    The first one stays: it is what hooks take for the start.

    Args:
        sigmas: The run's.
        sigma: Where the model is called, in the same coordinates.

    Returns:
        The list itself, where it holds the sigma.
    """
    if bool((sigmas == sigma).any()) or len(sigmas) < 2:
        return sigmas
    ours = sigmas.clone()
    ours[1 + int((sigmas[1:] - sigma).abs().argmin())] = sigma
    return ours


class Keyframes:
    """Keyframes of hooks (LoRA schedules), which in the host only ever advance."""

    def __init__(self, guider: CFGGuider, sigmas: Tensor) -> None:
        """Find them.

        Args:
            guider: The guider inside its sample().
            sigmas: The run's.
        """
        found = {
            id(hook.hook_keyframe): hook.hook_keyframe
            for cond in conds_of(guider)
            for hook in getattr(cond.get("hooks"), "hooks", ())
        }
        self._groups: list[HookKeyframeGroup] = [g for g in found.values() if not g.is_empty()]
        self._guider = guider
        self._sigmas = sigmas
        self._strengths: list[float] | None = None

    def restart(self, options: dict[str, Any]) -> None:
        """Put all where a run of the host begins.

        Args:
            options: The run's model options.
        """
        for group in self._groups:
            group.reset()
            vars(group)["_curr_t"] = -1.0  # the host's reset() misspells it
        if self._groups:
            self._forget(options)
        self._strengths = None

    def place(self, sigma: Tensor, options: dict[str, Any]) -> None:
        """Put all where a run of the host that has come down to a sigma has them.

        Args:
            sigma: In the model's coordinates.
            options: The run's model options.
        """
        if not self._groups:
            return
        before = self._strengths
        for group in self._groups:
            group.reset()
            vars(group)["_curr_t"] = -1.0
            advance: Any = group.prepare_current_keyframe  # takes a tensor, whatever it says
            for passed in (*self._sigmas[self._sigmas > sigma], sigma):
                advance(passed, options["transformer_options"])
        self._strengths = [float(group.strength) for group in self._groups]
        if self._strengths != before:
            self._forget(options)

    def _forget(self, options: dict[str, Any]) -> None:
        """Patched weights of another strength are kept by the host until it changes it itself."""
        patchers = options.get("multigpu_clones", {None: self._guider.model_patcher})
        for patcher in patchers.values():
            patcher.clear_cached_hook_weights()
