"""A reward of counts: objects found by a detector, of a file, a folder or the host's own."""

from __future__ import annotations

from typing import Any, Literal

from comfy_api.latest import io

from ...rewards.detection.detector_count import OTHERS, RULES, DetectorCount
from ...rewards.prompts.counting import parse_targets
from ...rewards.registry import REWARDS
from ..host.page.remarks import remark
from ..host.rewards.detectors import file_detector, host_detector
from ..host.rewards.reward_files import choices, complaint, digest, locate
from ..inputs import choice_input, text_input
from ..sockets import CATEGORY_REWARDS, FlowReward

__all__ = ["NODES", "DetectorCountReward"]

CONNECTED, NONE = "connected_model", "none"
KNOWN = REWARDS["detector_count"].weights


class DetectorCountReward(io.ComfyNode):
    """Counts objects by a detector."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See the help page."""
        folders = choices(folders=True)
        return io.Schema(
            node_id="FlowSearchDetectorCount",
            display_name="Detector Count Reward",
            category=CATEGORY_REWARDS,
            description=(
                "Counts objects by a detector: 0 when every count is right, -1 for each object "
                "missing or too many. YOLO and FastestDet files (.onnx), folders of Grounding DINO "
                "and OWLv2, or the host's RT-DETR and SAM 3."
            ),
            search_aliases=[
                "count", "counting reward", "number of objects", "yolo", "grounding dino", "owl",
                "rt-detr", "sam 3", "object detection",
            ],
            inputs=[
                text_input(
                    "targets",
                    default="cat: 2\ndog: 1",
                    tooltip=(
                        "What should be counted: a table, one a line ('cat: 2', 0 for none), or a "
                        "prompt ('two cats and a dog'). Things that are not named are not counted."
                    ),
                ),
                io.Combo.Input(
                    "weights",
                    options=[*choices(ends=(".onnx",)), *folders, CONNECTED],
                    default=KNOWN[0].name,
                    tooltip=(
                        "The detector, in models/flowsearch_rewards: a .onnx file (YOLO, "
                        "FastestDet: fast, knows its classes only, COCO's 80 as a rule), a folder "
                        "of Grounding DINO or OWLv2 (slower, takes any words), or "
                        "connected_model: RT-DETR or SAM 3 at the model socket."
                    ),
                ),
                *_advanced(folders),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="RT-DETR (COCO's 80 classes) or SAM 3; used by connected_model only.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The text model of SAM 3, from the loader that gave the model.",
                ),
            ],
            outputs=[FlowReward.Output(id="reward", tooltip="0 is right; -1 per wrong object.")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(
        cls, weights: str | None = None, sam: str | None = NONE
    ) -> str | Literal[True]:
        """Say where a missing file comes from."""
        if weights != CONNECTED and (said := complaint(weights, KNOWN)) is not True:
            return said
        return sam == NONE or complaint(sam, KNOWN)

    @classmethod
    def execute(
        cls,
        targets: str,
        weights: str,
        rule: str = RULES[0],
        others: str = OTHERS[0],
        threshold: float = 0.0,
        sam: str = NONE,
        model: Any = None,
        clip: Any = None,
    ) -> io.NodeOutput:
        """Close the reward over its targets."""
        _require_one(weights, model)
        model = model if weights == CONNECTED else None
        row = next((row for row in KNOWN if row.name == weights), None)
        about = {"licence": row.licence, "source": row.page} if row else {}
        if model is not None:
            detector = host_detector(model, clip, threshold)
        else:
            masks, path = None if sam == NONE else locate(sam, KNOWN), locate(weights, KNOWN)
            detector = file_detector(path, masks, threshold)
            about["sha256"] = digest(path)
        return io.NodeOutput(DetectorCount(detector, parse_targets(targets), rule, others, **about))


def _require_one(weights: str, model: Any) -> None:
    """Refuse the choice of a model where none is connected; ignore one where a file is chosen."""
    if weights == CONNECTED and model is None:
        raise ValueError(
            f"weights is '{weights}' and the model socket is empty. Connect RT-DETR or SAM 3 and "
            f"choose {CONNECTED}, or choose a file."
        )
    if weights != CONNECTED and model is not None:
        remark(f"weights is {weights}, a file: model and clip are not used")


def _advanced(folders: list[str]) -> list[io.Input]:
    """Inputs that are rarely changed."""
    return [
        choice_input(
            "rule",
            RULES,
            tooltip=(
                "absolute (the default): each missing or extra object costs 1. squared: a class "
                "that is off by n costs n squared, as in the RBF paper."
            ),
        ),
        choice_input(
            "others",
            OTHERS,
            tooltip=(
                "ignore (the default): objects of classes that no target names cost nothing. "
                "wrong: each costs 1 (squared: their number squared); for detectors with a fixed "
                "list of classes."
            ),
        ),
        io.Float.Input(
            "threshold",
            default=0.0,
            min=0.0,
            max=0.99,
            step=0.01,
            optional=True,
            advanced=True,
            tooltip=(
                "Least confidence of an object. 0, the default, takes the detector's own: YOLO "
                "0.25, FastestDet 0.65, Grounding DINO and OWLv2 0.2, RT-DETR and SAM 3 0.5. Lower "
                "finds more and invents more."
            ),
        ),
        io.Combo.Input(
            "sam",
            options=[NONE, *folders],
            default=NONE,
            optional=True,
            advanced=True,
            tooltip=(
                "Segment Anything's folder, for Grounding DINO and OWLv2: whether two boxes are "
                "one object is then decided by masks, as in the RBF paper. none, the default, goes "
                "by the boxes."
            ),
        ),
    ]


NODES = [DetectorCountReward]
