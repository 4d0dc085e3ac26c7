"""Text that a picture should say."""

from __future__ import annotations

from typing import Literal

import comfy.model_management
from comfy_api.latest import io

from ...rewards.reading.text_in_image import IGNORE, TextInImage, lacking
from ..inputs import switch_input, text_input
from ..sockets import CATEGORY_REWARDS, FlowReward

__all__ = ["NODES", "TextInImageReward"]


class TextInImageReward(io.ComfyNode):
    """Reads the picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See the help page."""
        return io.Schema(
            node_id="FlowSearchTextInImage",
            display_name="Text in Image Reward",
            category=CATEGORY_REWARDS,
            description=(
                "Reads the picture and compares it with a text: 1 when all of it stands there, "
                "less for each wrong, missing or superfluous letter, 0 for nothing of it. Needs "
                "the Python package rapidocr-onnxruntime (English and Chinese); no GPU."
            ),
            search_aliases=["ocr", "spelling", "typography", "legible text", "sign", "lettering"],
            inputs=[
                text_input(
                    "text",
                    tooltip=(
                        "What should be read, without quotation marks. Each line is looked for by "
                        "itself, anywhere in the picture and in any order. English, Chinese, "
                        "digits and signs."
                    ),
                ),
                io.Combo.Input(
                    "ignore",
                    options=list(IGNORE),
                    default="spaces",
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "What does not count. spaces (the default): readers often miss them. "
                        "spaces_and_punctuation: letters and digits only. nothing: every character."
                    ),
                ),
                switch_input(
                    "match_case",
                    tooltip=(
                        "Whether capital letters differ from small ones. Off (the default): EXIT "
                        "is exit; on: each wrong case counts as a wrong letter."
                    ),
                ),
                _share(
                    "extra",
                    0.0,
                    "Weight of letters that should not be there, 0 to 1. 0 (the default): other "
                    "text in the picture is free; 1: a letter too many costs like a wrong one.",
                ),
                _share(
                    "min_confidence",
                    0.5,
                    "Confidence of the reader, 0 to 1, below which a piece was not read, 0.5 by "
                    "default. 0: guesses count; 0.9: only what is plain to read.",
                ),
            ],
            outputs=[FlowReward.Output(id="reward", tooltip="1 is all of it; 0 is nothing of it.")],
        )

    @classmethod
    def validate_inputs(cls, text: str | None = None) -> str | Literal[True]:
        """Say what is missing before anything runs; a text from another node is not known yet."""
        if missing := lacking():
            return missing
        if text is None or text.strip():
            return True
        return "text is empty. Write what the picture should say."

    @classmethod
    def execute(
        cls,
        text: str,
        ignore: str = "spaces",
        match_case: bool = False,
        extra: float = 0.0,
        min_confidence: float = 0.5,
    ) -> io.NodeOutput:
        """Close the reward over its text."""
        checkpoint = comfy.model_management.throw_exception_if_processing_interrupted
        settings = (ignore, match_case, extra, min_confidence)
        return io.NodeOutput(TextInImage(text, *settings, checkpoint=checkpoint))


def _share(name: str, default: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(
        name,
        default=default,
        min=0.0,
        max=1.0,
        step=0.05,
        round=False,
        optional=True,
        advanced=True,
        tooltip=tooltip,
    )


NODES = [TextInImageReward]
