"""A model behind an OpenAI-compatible server as a reward."""

from __future__ import annotations

from typing import Literal

from comfy_api.latest import io

from ...rewards.judge.judge import INSTRUCTION, Judge
from ..host.rewards import judges
from ..host.rewards.prompt import plain_prompt
from ..inputs import text_input
from ..sockets import CATEGORY_REWARDS, FlowReward

__all__ = ["NODES", "JudgeReward"]


class JudgeReward(io.ComfyNode):
    """Asks a vision model for a score."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See the help page."""
        known = judges.names()
        return io.Schema(
            node_id="FlowSearchJudge",
            display_name="Judge Reward",
            category=CATEGORY_REWARDS,
            description=(
                "Asks a vision language model behind an OpenAI-compatible server (Ollama, vLLM, LM "
                "Studio, a cloud) for a score from 0 to 10. Servers are configured in a file of "
                "yours, user/__flowsearch/judges.yaml; without one nothing is sent anywhere. Every "
                "picture is a request, which may cost money: limit the search's reward calls."
            ),
            search_aliases=["llm", "vlm", "gpt", "ollama", "vllm", "lm studio", "openai", "rating"],
            inputs=[
                io.Combo.Input(
                    "judge",
                    options=known,
                    default=known[0] if known else "ollama",
                    tooltip=(
                        "A name from user/__flowsearch/judges.yaml, where address and model stand. "
                        "The help page shows how to write it. Pictures are sent to that server."
                    ),
                ),
                text_input(
                    "prompt",
                    tooltip=(
                        "What the picture should show; usually the prompt it is made from. Stands "
                        "for {prompt} in the instruction."
                    ),
                ),
                text_input(
                    "instruction",
                    default=INSTRUCTION,
                    advanced=True,
                    tooltip=(
                        "What the judge is asked, in any words; {prompt} stands for the prompt. It "
                        "must ask for a JSON object with a score from 0 to 10, higher is better; a "
                        "reason before the score makes it better considered."
                    ),
                ),
            ],
            outputs=[FlowReward.Output(id="reward", tooltip="The judge's score, 0 to 10.")],
        )

    @classmethod
    def validate_inputs(cls, judge: str | None = None) -> str | Literal[True]:
        """Say how to configure a judge that is not there."""
        return judges.complaint(judge)

    @classmethod
    def fingerprint_inputs(
        cls, judge: str | None = None, prompt: str | None = None, instruction: str | None = None
    ) -> str:
        """Change with what stands behind the name."""
        del prompt, instruction
        try:
            return repr(judges.find(judge)) if judge else ""
        except ValueError as error:
            return str(error)

    @classmethod
    def execute(cls, judge: str, prompt: str, instruction: str = INSTRUCTION) -> io.NodeOutput:
        """Close the reward over its question; nothing is sent before the first picture."""
        endpoint = judges.find(judge)
        # no address: reports travel
        named = f"{endpoint.model}, the user's judge '{judge}'"
        return io.NodeOutput(
            Judge(judges.client(endpoint), plain_prompt(prompt), instruction, named)
        )


NODES = [JudgeReward]
