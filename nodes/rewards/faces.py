"""A reward of likeness: whose face is it, by the networks that packs for face adapters use."""

from __future__ import annotations

from typing import Literal

from comfy_api.latest import io
from torch import Tensor

from ...rewards.faces.likeness import RULES, FaceLikeness
from ...rewards.registry import REWARDS
from ..host.rewards.detectors import face_networks
from ..host.rewards.reward_files import FACES, choices, complaint, locate
from ..sockets import CATEGORY_REWARDS, FlowReward

__all__ = ["NODES", "FaceLikenessReward"]

KNOWN = REWARDS["face_likeness"].weights
ONNX = (".onnx",)


class FaceLikenessReward(io.ComfyNode):
    """Compares faces with a reference's."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See the help page."""
        files = choices(ends=ONNX, where=FACES)
        return io.Schema(
            node_id="FlowSearchFaceLikeness",
            display_name="Face Likeness Reward",
            category=CATEGORY_REWARDS,
            description=(
                "Whether the picture shows the person of a reference: the cosine of their faces' "
                "embeddings, -1 to 1; a picture without a face has -1. By InsightFace's networks, "
                "whose licence is non-commercial."
            ),
            search_aliases=[
                "face similarity", "identity", "insightface", "arcface", "same person", "faceid",
                "likeness", "instantid", "pulid",
            ],
            inputs=[
                io.Image.Input(
                    "reference",
                    tooltip=(
                        "A picture of the person, or a batch of them, each with a face that is "
                        "seen from the front. One is enough; several angles forgive more poses."
                    ),
                ),
                io.Combo.Input(
                    "rule",
                    options=list(RULES),
                    default=RULES[0],
                    tooltip=(
                        "Who is looked for. largest (the default): the largest face of the "
                        "reference, as any face of the picture. every: all faces of the reference, "
                        "each as a face of its own, the mean counts; one who is missing has -1."
                    ),
                ),
                io.Combo.Input(
                    "detector",
                    options=files,
                    default=KNOWN[0].name,
                    tooltip=(
                        "Finds faces, below models/insightface: det_10g.onnx of buffalo_l or "
                        "scrfd_10g_bnkps.onnx of antelopev2, which find the same."
                    ),
                ),
                io.Combo.Input(
                    "recogniser",
                    options=files,
                    default=KNOWN[1].name,
                    tooltip=(
                        "Tells people apart, below models/insightface: w600k_r50.onnx of "
                        "buffalo_l (174 MB) or glintr100.onnx of antelopev2 (261 MB). Take "
                        "another one than the face adapter uses: a picture made to please one "
                        "network pleases it more than people. Values of two do not compare."
                    ),
                ),
            ],
            outputs=[FlowReward.Output(id="reward", tooltip="Cosine; -1 where there is no face.")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(
        cls, detector: str | None = None, recogniser: str | None = None
    ) -> str | Literal[True]:
        """Say where a missing file comes from."""
        said = complaint(detector, KNOWN, FACES)
        return said if said is not True else complaint(recogniser, KNOWN, FACES)

    @classmethod
    def execute(cls, reference: Tensor, rule: str, detector: str, recogniser: str) -> io.NodeOutput:
        """Look at the reference, and close the reward over it."""
        paths = (locate(name, KNOWN, FACES) for name in (detector, recogniser))
        return io.NodeOutput(FaceLikeness(*face_networks(*paths), [reference], rule))


NODES = [FaceLikenessReward]
