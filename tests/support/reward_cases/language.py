"""Rewards by vision-language models."""

from tiny_language import language_model

from flowsearch.rewards.language.vlm_count import VLMCount
from flowsearch.rewards.language.vlm_rating import UNIFIED_REWARD, Form, VLMRating
from flowsearch.rewards.language.vqa_score import VQAScore
from flowsearch.rewards.prompts.counting import parse_targets

QUESTIONS = ("Does this figure show a cat? Please answer yes or no.", "Is it red?")


def count(model, method="log_probability", targets="three cats, 12 dogs"):
    return VLMCount(language_model(model), parse_targets(targets), method)


CASES = {
    "vqa_score": lambda: VQAScore(language_model("qwen"), QUESTIONS, (1.0, 2.0)),
    "vqa_score:llava": lambda: VQAScore(
        language_model("llava"), QUESTIONS[:1], combine="geometric_mean", against_no=True
    ),
    "vlm_rating": lambda: VLMRating(language_model("qwen"), Form(), "a cat"),
    "vlm_rating:unified_reward": lambda: VLMRating(
        language_model("llava"), UNIFIED_REWARD, "a cat", (1.0, 1.0, 2.0)
    ),
    "vlm_count": lambda: count("qwen"),
    "vlm_count:llava": lambda: count("llava", "expected_error"),
    "vlm_count:text": lambda: count("idefics", "greedy_text"),
}
OTHER = {
    "vqa_score": lambda: VQAScore(language_model("qwen"), ("Is it a dog?", "Is it blue?")),
    "vqa_score:llava": lambda: VQAScore(
        language_model("llava"), ("Is it a dog?",), combine="geometric_mean", against_no=True
    ),
    "vlm_rating": lambda: VLMRating(language_model("qwen"), Form(), "two dogs"),
    "vlm_rating:unified_reward": lambda: VLMRating(
        language_model("llava"), UNIFIED_REWARD, "two dogs", (1.0, 1.0, 2.0)
    ),
    "vlm_count": lambda: count("qwen", targets="five birds"),
    "vlm_count:llava": lambda: count("llava", "expected_error", "five birds"),
    "vlm_count:text": lambda: count("idefics", "greedy_text", "five birds"),
}
