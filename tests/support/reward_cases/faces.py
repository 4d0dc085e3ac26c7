"""Face Likeness by small networks of the published layouts; noise is full of faces for this one."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import face_files

from flowsearch.rewards.faces.detection import open_face_detector
from flowsearch.rewards.faces.likeness import FaceLikeness, open_face_recogniser
from reward_cases.given import pictures


@cache
def networks():
    with TemporaryDirectory() as folder:
        paths = face_files.write(Path(folder), sides=(64, 64))
        return open_face_detector(paths[0]), open_face_recogniser(paths[1])


def likeness(rule="largest"):
    detector, recogniser = networks()
    return FaceLikeness(replace(detector, threshold=-1.1), recogniser, [pictures(2)[1:]], rule)


CASES = {"face_likeness": likeness, "face_likeness:every": lambda: likeness("every")}
