"""Rewards by language models that see: VQA Score and VLM Count, and the loader of their models."""

from __future__ import annotations

from typing import Any, Literal

from comfy_api.latest import io

from ...rewards.language.vision_language import FolderModel, load_network, load_processor
from ...rewards.language.vlm_count import METHODS, QUESTION, VLMCount
from ...rewards.language.vlm_rating import ANSWER, SCORE, UNIFIED_REWARD, Form, VLMRating
from ...rewards.language.vlm_rating import QUESTION as RATING
from ...rewards.language.vqa_score import (
    COMBINE,
    PAPER,
    VQAScore,
    questions_from_text,
    weights_from_text,
)
from ...rewards.prompts.counting import parse_targets
from ...rewards.registry import REWARDS
from ..host.rewards.language_model import language_model
from ..host.rewards.prompt import plain_prompt
from ..host.rewards.reward_files import choices, complaint, locate, stamp
from ..host.rewards.reward_model import Managed, kept, weights_type
from ..inputs import choice_input, switch_input, text_input
from ..sockets import CATEGORY_REWARDS, FlowLanguageModel, FlowReward

__all__ = ["NODES", "LoadLanguageModel", "VLMCountReward", "VLMRatingReward", "VQAScoreReward"]

KNOWN = REWARDS["vqa_score"].weights
ROW_BYTES, ROWS = 256 << 20, 8
"""What a question about a picture takes, about, and how many are asked at once."""


def _model_input() -> io.MultiType.Input:
    """The socket for either kind of model."""
    return io.MultiType.Input(
        "model",
        types=[io.Clip, FlowLanguageModel],
        tooltip=(
            "A language model that sees: a CLIP of the host that generates text about pictures "
            "(Load CLIP with Qwen3-VL, Qwen3.5 or Gemma 4), or Load Vision-Language Model."
        ),
    )


class LoadLanguageModel(io.ComfyNode):
    """Loads a vision-language model from a folder of transformers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See the help page."""
        return io.Schema(
            node_id="FlowSearchLoadLanguageModel",
            display_name="Load Vision-Language Model",
            category=CATEGORY_REWARDS,
            description=(
                "Loads a model that answers questions about pictures from a folder as transformers "
                "saves it, in models/flowsearch_rewards. ComfyUI's memory manager moves and frees "
                "it. Models that ComfyUI itself can load need no copy: connect its Load CLIP."
            ),
            search_aliases=["vlm", "qwen", "llava", "smolvlm", "vision language"],
            inputs=[
                io.Combo.Input(
                    "weights",
                    options=choices(folders=True),
                    default=KNOWN[0].name,
                    tooltip=(
                        "Folder in models/flowsearch_rewards with config.json, *.safetensors, "
                        "tokenizer and preprocessor of an image-text-to-text model. Larger models "
                        "count and read better and take longer; one of 4 billion weights needs 9 "
                        "GB in bfloat16."
                    ),
                )
            ],
            outputs=[
                FlowLanguageModel.Output(id="model", tooltip="For VQA Score and VLM Count."),
            ],
        )

    @classmethod
    def validate_inputs(cls, weights: str | None = None) -> str | Literal[True]:
        """Explain a missing folder."""
        return complaint(weights, KNOWN)

    @classmethod
    def execute(cls, weights: str) -> io.NodeOutput:
        """Load it, once for all nodes that use it."""
        path, dtype = locate(weights, KNOWN), weights_type()
        processor = load_processor(path)
        holder = kept(
            (*stamp(path), dtype),
            lambda: Managed(load_network(path, dtype), ROW_BYTES, ROWS),
        )
        return io.NodeOutput(FolderModel(holder, processor))


class VQAScoreReward(io.ComfyNode):
    """Probability of "Yes"."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See the help page."""
        return io.Schema(
            node_id="FlowSearchVQAScore",
            display_name="VQA Score Reward",
            category=CATEGORY_REWARDS,
            description=(
                "Probability, 0 to 1, that a vision-language model answers Yes when it is asked "
                "whether the picture shows the prompt, or to questions of your own. Sees what CLIP "
                "Score does not: which thing has which colour, what is left of what."
            ),
            search_aliases=["vlm", "alignment", "prompt adherence", "question", "yes"],
            inputs=[
                _model_input(),
                text_input(
                    "prompt",
                    tooltip=(
                        "What the picture should show. Put where a question says {prompt}; may be "
                        "empty where none does."
                    ),
                ),
                text_input(
                    "questions",
                    default=PAPER,
                    tooltip=(
                        "Questions whose right answer is yes, one a line. The default is that of "
                        "the VQAScore paper. Several simple ones tell more than one long one; each "
                        "costs a call of the model."
                    ),
                ),
                text_input(
                    "weights",
                    advanced=True,
                    tooltip=(
                        "How much each question counts: one positive number a line, in the order "
                        "of the questions. Empty: all the same."
                    ),
                ),
                choice_input(
                    "combine",
                    COMBINE,
                    tooltip=(
                        "How several probabilities become one. mean (the default): a wrong part "
                        "costs its share. geometric_mean: one part that is surely wrong makes the "
                        "whole near 0."
                    ),
                ),
                switch_input(
                    "against_no",
                    tooltip=(
                        "Off (the default): probability of Yes among all words, as in the paper. "
                        "On: among Yes and No only, for models that like to begin with other words."
                    ),
                ),
            ],
            outputs=[FlowReward.Output(id="reward", tooltip="1 is surely yes; 0 is surely not.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        prompt: str,
        questions: str,
        weights: str = "",
        combine: str = COMBINE[0],
        against_no: bool = False,
    ) -> io.NodeOutput:
        """Close the reward over its questions."""
        asked = questions_from_text(questions, plain_prompt(prompt))
        numbers = weights_from_text(weights, len(asked))
        return io.NodeOutput(VQAScore(language_model(model), asked, numbers, combine, against_no))


class VLMCountReward(io.ComfyNode):
    """Counts by asking a vision-language model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See the help page."""
        return io.Schema(
            node_id="FlowSearchVLMCount",
            display_name="VLM Count Reward",
            category=CATEGORY_REWARDS,
            description=(
                "Asks a vision-language model how many of each thing there are and reads how "
                "probable each number from 0 to 20 is as its answer, which tells near misses from "
                "certain ones. Counts anything that has a name; Detector Count is surer of larger "
                "numbers."
            ),
            search_aliases=["vlm", "count", "counting reward", "number of objects"],
            inputs=[
                _model_input(),
                text_input(
                    "prompt",
                    default="three apples, two dogs and a cat",
                    tooltip=(
                        "What should be counted, as in the prompt: counts up to 20 in words or "
                        "digits, each before its thing. What can be read in two ways is refused."
                    ),
                ),
                text_input(
                    "targets",
                    advanced=True,
                    tooltip=(
                        "Explicit targets, one a line, such as 'red apple: 3'. When not empty, "
                        "they are counted instead of the prompt."
                    ),
                ),
                choice_input(
                    "method",
                    METHODS,
                    tooltip=(
                        "log_probability (the default): log of the probability of the right "
                        "number, 0 is best, strict. expected_error: minus how far off the answer "
                        "is on average, forgiving. greedy_text: minus how far off the written "
                        "answer is, whole numbers, for models whose probabilities cannot be read."
                    ),
                ),
                io.String.Input(
                    "question",
                    default=QUESTION,
                    dynamic_prompts=False,
                    optional=True,
                    advanced=True,
                    tooltip="What is asked; {things} becomes the plural, {thing} the singular. One "
                    "of the two has to be there.",
                ),
            ],
            outputs=[FlowReward.Output(id="reward", tooltip="0 is right for certain.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        prompt: str,
        targets: str = "",
        method: str = METHODS[0],
        question: str = QUESTION,
    ) -> io.NodeOutput:
        """Close the reward over its targets."""
        parsed = parse_targets(targets.strip() or plain_prompt(prompt))
        return io.NodeOutput(VLMCount(language_model(model), parsed, method, question))


class VLMRatingReward(io.ComfyNode):
    """Expected score."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See the help page."""
        return io.Schema(
            node_id="FlowSearchVLMRating",
            display_name="VLM Rating Reward",
            category=CATEGORY_REWARDS,
            description=(
                "Asks a vision-language model to rate the picture and reads its answer as an "
                "expectation over score tokens, so that pictures differ to which it would write "
                "the same number. For reward models of that kind, such as UnifiedReward, and for "
                "any model and question of your own."
            ),
            search_aliases=[
                "unifiedreward", "hps v3", "hpsv3", "quality", "vlm", "score", "rate", "judge",
                "preference",
            ],
            inputs=[
                _model_input(),
                text_input(
                    "prompt",
                    tooltip=(
                        "What the picture should show. Put where the question says {prompt}; may "
                        "be empty where it does not."
                    ),
                ),
                io.DynamicCombo.Input(
                    "form",
                    options=[
                        io.DynamicCombo.Option("question", _own_form()),
                        io.DynamicCombo.Option("unified_reward", []),
                    ],
                    tooltip=(
                        "question (default): your own words, for any model. unified_reward: what "
                        "UnifiedReward and UnifiedReward-2.0 were trained on: alignment, coherence "
                        "and style, 1 to 5; of little use with other models."
                    ),
                ),
                text_input(
                    "weights",
                    advanced=True,
                    tooltip=(
                        "How much each score of an answer counts: one positive number a line, in "
                        "their order. Empty: all the same."
                    ),
                ),
            ],
            outputs=[
                FlowReward.Output(id="reward", tooltip="On the scale of the form, 1 to 5 mostly.")
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, model: Any, prompt: str, form: dict[str, Any], weights: str = ""
    ) -> io.NodeOutput:
        """Close the reward over its question."""
        own = {key: value for key, value in form.items() if key != "form"}
        asked = UNIFIED_REWARD if form["form"] == "unified_reward" else Form(**own)
        numbers = weights_from_text(weights, asked.answer.count(SCORE))
        words = plain_prompt(prompt)
        return io.NodeOutput(VLMRating(language_model(model), asked, words, numbers))


def _own_form() -> list[io.Input]:
    """What a question of one's own needs, named as Form's fields."""
    return [
        text_input(
            "question",
            default=RATING,
            tooltip=(
                "What is asked; {prompt} becomes the prompt. Say the scale and that nothing but "
                "the number is to be written."
            ),
        ),
        text_input(
            "answer",
            default=ANSWER,
            tooltip=(
                "How the model's answer begins, {score} where a number stands: 'Quality: {score}'. "
                "Several, one a line, are read one after another, each behind those before it."
            ),
        ),
        io.Int.Input(
            "lowest",
            default=1,
            min=0,
            max=8,
            tooltip="Lowest score of the scale, 0 to 8; the worst picture's.",
        ),
        io.Int.Input(
            "highest",
            default=5,
            min=1,
            max=9,
            tooltip="Highest score of the scale, to 9, and above the lowest; the best picture's.",
        ),
    ]


NODES = [LoadLanguageModel, VQAScoreReward, VLMCountReward, VLMRatingReward]
