"""The embedded model as the host's own MODEL, CLIP and VAE, so that stock nodes run on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models_base
import torch
from comfy_api.latest import io

from ...demo.network import CHECKPOINTS, CONFIG, SIDE, SceneNet
from ...demo.prompt import encode, parse
from ...demo.weights import read_weights
from ..sockets import CATEGORY_DEMO

__all__ = ["NODES", "LoadDemo", "load_demo"]


class DemoConfig(comfy.supported_models_base.BASE):
    """What the host wants to know of a model family, for the embedded one."""

    unet_config = {**CONFIG, "dtype": torch.float32}  # noqa: RUF012 the host's own form
    sampling_settings = {"shift": 1.0, "multiplier": 1000}  # noqa: RUF012
    memory_usage_factor = 0.02
    supported_inference_dtypes = [torch.float32]  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__(self.unet_config)
        self.latent_format = comfy.latent_formats.ChromaRadiance()
        self.set_inference_dtype(torch.float32, None)


class DemoTokenizer:
    """Reads a prompt; what it refuses reaches the user as it is."""

    def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
        del embedding_directory, tokenizer_data

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **_: Any) -> Any:
        """Tokens in the host's form: the groups of the prompt, each with its weight."""
        groups = enumerate(parse(text), 1)
        pairs = [
            (group, 1.0, number) if return_word_ids else (group, 1.0) for number, group in groups
        ]
        return {"scene": [pairs]}

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Nothing to save."""
        return {}


class DemoEncoder(torch.nn.Module):
    """Groups to conditioning (1, GROUPS, FEATURES); there is nothing to learn in it."""

    def __init__(self, dtype: Any = None, device: Any = None, model_options: Any = None) -> None:
        super().__init__()
        del dtype, model_options
        self.dtypes = {torch.float32}
        self.anchor = torch.nn.Parameter(torch.zeros((), device=device), requires_grad=False)

    def set_clip_options(self, options: dict[str, Any]) -> None:
        """Nothing to choose."""

    def reset_clip_options(self) -> None:
        """Nothing to choose."""

    def encode_token_weights(self, tokens: dict[str, Any]) -> tuple[torch.Tensor, None]:
        """Conditioning of tokenised prompts."""
        return torch.stack([_weighted(pairs) for pairs in tokens["scene"]]), None


def _weighted(pairs: Sequence[tuple[Any, ...]]) -> torch.Tensor:
    """Conditioning of one list of tokens; a weight other than 1 makes its group's row larger."""
    rows = encode([group for group, *_ in pairs])
    for row, (_, weight, *_) in enumerate(pairs):
        rows[row] *= float(weight)
    return rows


def load_demo(
    checkpoint: str = "base",
) -> tuple[comfy.model_patcher.ModelPatcher, comfy.sd.CLIP, comfy.sd.VAE]:
    """Build MODEL, CLIP and VAE of the embedded model from the weights in the pack.

    Args:
        checkpoint: Key of CHECKPOINTS.

    Returns:
        The three, as the host's loaders return them.

    Raises:
        FileNotFoundError: The weights file is missing from the pack.
        ValueError: An unknown checkpoint, or a weights file that does not fit the network.
    """
    if checkpoint not in CHECKPOINTS:
        known = ", ".join(CHECKPOINTS)
        raise ValueError(f"unknown checkpoint {checkpoint!r}; choose one of: {known}")
    file = CHECKPOINTS[checkpoint]
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing. Install the pack again.")
    load, offload = (
        comfy.model_management.get_torch_device(),
        comfy.model_management.unet_offload_device(),
    )
    network: Any = SceneNet
    model = comfy.model_base.BaseModel(
        DemoConfig(), comfy.model_base.ModelType.FLOW, device=offload, unet_model=network
    )
    missing, unexpected = model.diffusion_model.load_state_dict(read_weights(file), strict=False)
    if missing or unexpected:
        raise ValueError(
            f"{file.name} does not fit the network (missing {missing[:3]}, unexpected "
            f"{unexpected[:3]}). Install the pack again."
        )
    patcher = comfy.model_patcher.CoreModelPatcher(model, load_device=load, offload_device=offload)
    target = comfy.supported_models_base.ClipTarget(DemoTokenizer, DemoEncoder)
    vae = comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)})
    return patcher, comfy.sd.CLIP(target), vae


class LoadDemo(io.ComfyNode):
    """The embedded model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See the help page."""
        return io.Schema(
            node_id="FlowSearchLoadDemo",
            display_name="Load Demo Model",
            category=CATEGORY_DEMO,
            description=(
                "The small flow model that comes with the pack: 64 x 64 pictures of coloured "
                "shapes, for trying searches in seconds and without downloads. Prompts are counts, "
                "colours and shapes: 'three red circles and two blue squares'. Connect its latent, "
                "or an empty one of 64 x 64."
            ),
            search_aliases=["demo", "shapes", "test model", "example model", "toy model"],
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=list(CHECKPOINTS),
                    default="base",
                    optional=True,
                    tooltip=(
                        "Weights. base: early predictions are blurs, 8 to 20 steps make a picture, "
                        "as with most models. few_step: distilled from it, 1 to 4 steps make a "
                        "picture and early predictions look like it, as with FLUX.1-schnell."
                    ),
                )
            ],
            outputs=[
                io.Model.Output(id="model"),
                io.Clip.Output(id="clip"),
                io.Vae.Output(id="vae"),
                io.Latent.Output(
                    id="latent",
                    tooltip=(
                        "An empty latent of the model's size, 64 x 64; more at once by Repeat "
                        "Latent Batch."
                    ),
                ),
            ],
        )

    @classmethod
    def execute(cls, checkpoint: str = "base") -> io.NodeOutput:
        """Load it."""
        device = comfy.model_management.intermediate_device()
        latent = {"samples": torch.zeros(1, 3, SIDE, SIDE, device=device)}
        return io.NodeOutput(*load_demo(checkpoint), latent)


NODES = [LoadDemo]
