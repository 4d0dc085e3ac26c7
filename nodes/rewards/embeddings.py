"""Rewards on embeddings: fit to a prompt, likeness to pictures, the look people like."""

from __future__ import annotations

from typing import Any, Literal

from comfy_api.latest import io

from ...rewards.embedding.aesthetic import Aesthetic
from ...rewards.embedding.clip_score import ClipScore
from ...rewards.embedding.image_match import RULES, ImageMatch
from ...rewards.registry import REWARDS
from ..host.page.remarks import remark
from ..host.rewards.encoder import encoder_of, folder_encoder, head_of
from ..host.rewards.prompt import plain_prompt
from ..host.rewards.reward_files import choices, complaint, locate
from ..inputs import text_input
from ..sockets import CATEGORY_REWARDS, FlowEncoder, FlowReward

__all__ = ["NODES", "AestheticReward", "ClipScoreReward", "ImageMatchReward", "LoadEncoder"]

FOLDERS = REWARDS["clip_score"].weights
HEADS = REWARDS["aesthetic"].weights


def _encoder(tooltip: str) -> io.Input:
    """A CLIP_VISION of the host's, or what Load Reward Encoder gives."""
    return io.MultiType.Input("encoder", types=[io.ClipVision, FlowEncoder], tooltip=tooltip)


class LoadEncoder(io.ComfyNode):
    """Loads a folder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See the help page."""
        return io.Schema(
            node_id="FlowSearchLoadEncoder",
            display_name="Load Reward Encoder",
            category=CATEGORY_REWARDS,
            description=(
                "Loads CLIP, SigLIP, SigLIP 2 or DINOv2 from a folder as transformers saves them, "
                "for the rewards on embeddings. Needed for SigLIP, whose pooling ComfyUI's CLIP "
                "Vision leaves out; for CLIP and DINOv2 ComfyUI's own loaders do as well."
            ),
            search_aliases=["clip", "siglip", "dino", "dinov2", "embedding", "reward model"],
            inputs=[
                io.Combo.Input(
                    "weights",
                    options=choices(folders=True),
                    default=FOLDERS[0].name,
                    tooltip=(
                        "A folder below models/flowsearch_rewards with config.json, *.safetensors, "
                        "preprocessor and tokenizer, as published. Large models judge better and "
                        "take longer. The help page names folders and where to get them."
                    ),
                )
            ],
            outputs=[FlowEncoder.Output(id="encoder", tooltip="For a reward's encoder input.")],
        )

    @classmethod
    def validate_inputs(cls, weights: str | None = None) -> str | Literal[True]:
        """Say where a missing folder comes from."""
        return complaint(weights, FOLDERS)

    @classmethod
    def execute(cls, weights: str) -> io.NodeOutput:
        """Load it."""
        return io.NodeOutput(folder_encoder(locate(weights, FOLDERS)))


class ClipScoreReward(io.ComfyNode):
    """Compares pictures with a prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See the help page."""
        return io.Schema(
            node_id="FlowSearchClipScore",
            display_name="CLIP Score Reward",
            category=CATEGORY_REWARDS,
            description=(
                "How well a picture fits a prompt: the cosine of their embeddings by CLIP, SigLIP "
                "or SigLIP 2, -1 to 1. Sees what is there and in which style; weak at counts, "
                "positions and which attribute belongs to which object."
            ),
            search_aliases=["clip score", "clipscore", "siglip score", "prompt alignment"],
            inputs=[
                _encoder(
                    "Judges the pictures: a CLIP_VISION from Load CLIP Vision, then connect clip "
                    "too; or Load Reward Encoder, which needs no clip. Values of different "
                    "encoders do not compare."
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip=(
                        "Reads the prompt, for a CLIP_VISION only: the text half of the same "
                        "model, with its projection (ViT-L/14's clip_l, SD 2's for ViT-H, clip_g "
                        "for ViT-bigG). Before any LoRA."
                    ),
                ),
                text_input(
                    "prompt",
                    tooltip=(
                        "What the picture should show, in plain words: weights such as (word:1.2) "
                        "and other marks are taken out. CLIP reads the first 77 tokens, about 60 "
                        "words, SigLIP 64; short and concrete works best, and it must not be empty."
                    ),
                ),
            ],
            outputs=[FlowReward.Output(id="reward", tooltip="Cosine; CLIP: about .15 to .35.")],
        )

    @classmethod
    def execute(cls, encoder: Any, prompt: str, clip: Any = None) -> io.NodeOutput:
        """Close the reward over its prompt."""
        found = encoder_of(encoder, clip)
        if found.text is None:
            raise ValueError(
                "CLIP Score has nothing that reads the prompt. Connect clip, the text half of the "
                "CLIP_VISION's model, or a CLIP or SigLIP folder by Load Reward Encoder."
            )
        reward = ClipScore(found.images, found.text, plain_prompt(prompt))
        remark(reward.unread)
        return io.NodeOutput(reward)


class ImageMatchReward(io.ComfyNode):
    """Compares pictures with pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See the help page."""
        reference = io.Image.Input(
            "reference", tooltip="A picture to resemble, or a batch of them."
        )
        template = io.Autogrow.TemplatePrefix(reference, prefix="reference", min=1, max=50)
        return io.Schema(
            node_id="FlowSearchImageMatch",
            display_name="Image Match Reward",
            category=CATEGORY_REWARDS,
            description=(
                "How much a picture resembles reference pictures: the cosine of their embeddings, "
                "-1 to 1. With CLIP or SigLIP likeness of content and style, with DINOv2 of the "
                "object itself."
            ),
            search_aliases=["image similarity", "reference", "clip-i", "dino", "likeness"],
            inputs=[
                _encoder(
                    "Judges likeness: a CLIP_VISION from Load CLIP Vision (CLIP, SigLIP, DINOv2), "
                    "or Load Reward Encoder. CLIP and SigLIP compare meaning and style, DINOv2 "
                    "the look of things."
                ),
                io.Autogrow.Input(
                    "references",
                    template=template,
                    tooltip="Pictures to resemble, each of any size; 1 to 50 inputs, or batches.",
                ),
                io.Combo.Input(
                    "rule",
                    options=list(RULES),
                    default=RULES[0],
                    tooltip=(
                        "Over several references. mean: like all of them, what they share (the "
                        "default); max: like any one of them."
                    ),
                ),
            ],
            outputs=[FlowReward.Output(id="reward", tooltip="Cosine; 1 is the same embedding.")],
        )

    @classmethod
    def execute(cls, encoder: Any, references: dict[str, Any], rule: str) -> io.NodeOutput:
        """Close the reward over its references."""
        pictures = [picture for picture in references.values() if picture is not None]
        return io.NodeOutput(ImageMatch(encoder_of(encoder).images, pictures, rule))


class AestheticReward(io.ComfyNode):
    """Rates looks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See the help page."""
        return io.Schema(
            node_id="FlowSearchAesthetic",
            display_name="Aesthetic Reward",
            category=CATEGORY_REWARDS,
            description=(
                "How much people liked the look of such pictures, about 1 to 10, by LAION's "
                "aesthetic predictors (CLIP ViT-L/14) or Aesthetic Predictor V2.5 (SigLIP "
                "so400m). Knows no prompt; combine it with one that does."
            ),
            search_aliases=["aesthetic score", "laion", "beauty", "quality"],
            inputs=[
                _encoder(
                    "What the head was trained on: CLIP ViT-L/14 at 224 pixels by Load CLIP "
                    "Vision or Load Reward Encoder for LAION's, SigLIP so400m-patch14-384 by Load "
                    "Reward Encoder for V2.5. Others are refused."
                ),
                io.Combo.Input(
                    "weights",
                    options=[name for name in choices() if not name.endswith(".onnx")],
                    default=HEADS[0].name,
                    tooltip=(
                        "The head's file in models/flowsearch_rewards; which one it is shows in "
                        "its keys. LAION v2 (the default) is the usual one, v1 older, V2.5 also "
                        "knows illustrations."
                    ),
                ),
            ],
            outputs=[FlowReward.Output(id="reward", tooltip="Rating; 5 is average, 6.5 is good.")],
        )

    @classmethod
    def validate_inputs(cls, weights: str | None = None) -> str | Literal[True]:
        """Say where a missing file comes from."""
        return complaint(weights, HEADS)

    @classmethod
    def execute(cls, encoder: Any, weights: str) -> io.NodeOutput:
        """Join encoder and head."""
        return io.NodeOutput(Aesthetic(encoder_of(encoder).images, head_of(locate(weights, HEADS))))


NODES = [ClipScoreReward, ImageMatchReward, AestheticReward, LoadEncoder]
