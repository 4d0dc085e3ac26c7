"""What a language model sees of a picture, as a function that has a slope.

Processors of transformers round pictures to 8 bits, whose slope is 0 or not there. Of the two
families whose preprocessing is one resize and one normalisation the same is made of
rewards/weights/preprocess.py's float twin: CLIP's and SigLIP's (LLaVA), and Qwen's, which cuts it
into patches after. Others crop or tile first, and have none here.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..weights.preprocess import RESAMPLE, Preprocess
from ..weights.pretrained import Foreign

__all__ = ["Twin", "twin_of"]

Twin = Callable[[Tensor, Foreign], Tensor]
"""(pictures (B, H, W, C), the processor's own input for them) -> its pixel_values, which autograd
follows where the pictures require a gradient."""

SQUASHED = ("CLIPImageProcessor", "SiglipImageProcessor")
PATCHED = ("Qwen2VLImageProcessor",)


def twin_of(processor: Foreign) -> Twin | None:
    """Find the twin of an image processor.

    Args:
        processor: Of transformers.

    Returns:
        It, or None for one that does something else.
    """
    kind = type(processor).__name__
    config: Foreign = processor.to_dict()
    if kind.startswith(SQUASHED):
        try:
            prepared = Preprocess.from_config(config)
        except (ValueError, KeyError, TypeError):
            return None
        return lambda images, _: prepared(images)
    is_usual = all(config.get(f"do_{word}", True) for word in ("resize", "rescale", "normalize"))
    resample = RESAMPLE.get(int(config.get("resample", 3)))
    if kind.startswith(PATCHED) and is_usual and resample is not None:
        return lambda images, inputs: _patches(images, inputs, config, resample)
    return None


def _patches(images: Tensor, inputs: Foreign, config: Foreign, resample: str) -> Tensor:
    """Patches row by row within blocks that are merged, each frame as often as time needs."""
    side, merged = int(config["patch_size"]), int(config["merge_size"])
    frames, rows, columns = (int(n) for n in inputs["image_grid_thw"][0])
    mean, std = tuple(config["image_mean"]), tuple(config["image_std"])
    size = (rows * side, columns * side)
    x = Preprocess(*size, mean, std, resample, fit="squash")(images)
    cut = x.reshape(len(x), 3, rows // merged, merged, side, columns // merged, merged, side)
    cut = cut.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6)
    often = int(config["temporal_patch_size"])
    shape = (len(x) * frames * rows * columns, 3 * often * side * side)
    return cut.expand(*cut.shape[:6], often, side, side).reshape(shape)
