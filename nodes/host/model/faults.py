"""Whose fault is it? What a model, a patch or a sampler of others did wrong, as a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import comfy.model_management
from torch import Tensor

from ....samplers.search.protocol import ModelError
from ..versions import is_oom

__all__ = ["blamed", "checked", "misfit"]

_PRODUCT = re.compile(
    r"shapes cannot be multiplied \((\d{1,9})x(\d{1,9}) and (\d{1,9})x(\d{1,9})\)"
)


def misfit(error: Exception, prompts: Sequence[Tensor]) -> str:
    """Say that a prompt was encoded for another model, where that is what torch's error means.

    Args:
        error: What a model raised.
        prompts: The tensors of its conditioning.

    Returns:
        A sentence; "" where the error is another.
    """
    found = _PRODUCT.search(str(error))
    if found is None:
        return ""
    given, fits = int(found[2]), int(found[3])
    of = [tuple(prompt.shape) for prompt in prompts if prompt.ndim and prompt.shape[-1] == given]
    if not of:
        return ""
    return (
        f"the conditioning has shape {of[0]}, {given} numbers a token, and the model takes {fits}: "
        "it comes from another model's text encoder; encode the prompt with the CLIP of this model"
    )


@contextmanager
def blamed(x: Tensor, prompts: Sequence[Tensor] = ()) -> Iterator[None]:
    """Say whose fault it is where a model fails, and what may help: some take one row at a time.

    Args:
        x: What it is given.
        prompts: The tensors of its conditioning.

    Yields:
        Nothing.
    """
    try:
        yield
    except comfy.model_management.InterruptProcessingException:
        raise
    except Exception as error:
        if is_oom(error):
            raise
        other = misfit(error, prompts)
        if other:
            raise ModelError(other) from error
        rows = x.shape[0]
        advice = (
            "if it takes only one at a time (MiniMax H3), set rows_per_call to 1 in Search Strategy"
            if rows > 1
            else "it, its patches and its conditioning are run as ComfyUI's KSampler runs them: "
            "see whether that one works, and leave patches out one by one"
        )
        raise ModelError(
            f"the model failed in a call of {rows} candidate{'s' * (rows > 1)} of shape "
            f"{tuple(x.shape[1:])}: {type(error).__name__}: {error}; {advice}"
        ) from error


def checked(made: object, like: Tensor, whose: str = "the model, or a patch of it,") -> Tensor:
    """Return what a model or a sampler of others returned, if it is latents like the given ones.

    Args:
        made: What it returned.
        like: What it was given.
        whose: Who returned it, for the message.

    Returns:
        The same.

    Raises:
        ValueError: It is something else.
    """
    if isinstance(made, Tensor) and made.shape == like.shape:
        return made
    what = f"latents of shape {tuple(made.shape)}" if isinstance(made, Tensor) else repr(made)
    raise ValueError(
        f"{whose} returned {what:.100} for latents of shape {tuple(like.shape)}; a search needs as "
        "many of the same shape. See whether it works in ComfyUI's KSampler, and leave patches out "
        "one by one"
    )
