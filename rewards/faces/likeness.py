"""Face Likeness: does the picture show the person of a reference picture?

    likeness of two faces = <a, b> / (|a| |b|)      a, b: embeddings of the aligned faces, -1 to 1

With "largest" the person is the largest face of each reference, and the value that of the picture's
face that is most like it (over several references the mean). With "every", each face of the
references is somebody, each is given a face of the picture of its own so that the sum is greatest,
and the value is the mean; who has none counts -1. A picture without a face has -1.

The recogniser is of the ArcFace kind (Deng et al. 2019, arXiv:1801.07698): a face brought to 112 x
112 by its five points, red-green-blue, (v - 127.5) / 127.5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import optimize  # pyright: ignore[reportMissingTypeStubs]
from torch import Tensor

from ..base import Assessed, Assessment, RewardSpec, check_images
from ..detection.detector import Box, draw_boxes
from ..detection.onnx_session import (
    PictureInput,
    Session,
    leading_floats,
    open_session,
    picture_input,
    run,
)
from .alignment import SIDE, aligned
from .detection import PACKAGE, Face, FaceDetector

__all__ = ["LICENCE", "RULES", "FaceLikeness", "FaceRecogniser", "open_face_recogniser"]

RULES = ("largest", "every")
LICENCE = "InsightFace's models: non-commercial research only"
NOBODY = -1.0
BATCH = 16
UNKNOWN = (
    "no face recogniser known here. Choose w600k_r50.onnx of buffalo_l or glintr100.onnx of "
    "antelopev2: one input (B, 3, 112, 112), one output (B, 512)."
)


@dataclass(frozen=True)
class FaceRecogniser:
    """Embeds faces.

    Args:
        session: onnxruntime's.
        entry: Its input.
        file: Name of the file, for messages.
        before: Called many times a second while it runs; it may raise, which ends it.
    """

    session: Session
    entry: PictureInput
    file: str
    before: Callable[[], object] = lambda: None

    def embed(self, faces: Tensor) -> Tensor:
        """Embed aligned faces.

        Args:
            faces: Shape (n, 3, SIDE, SIDE), 0 to 1; n may be 0.

        Returns:
            Directions of length 1, shape (n, width), float32; for no face shape (0, 1).

        Raises:
            ValueError: What the file gives is no embedding of each face.
        """
        found = [torch.zeros(0, 1)] if not len(faces) else []
        most = self.entry.most(BATCH, SIDE, SIDE)
        for start in range(0, len(faces), most):
            x = (faces[start : start + most].clamp(0, 1) * 255).round()
            x, count = (x - 127.5) / 127.5, len(x)
            if self.entry.batch and count < self.entry.batch:
                x = torch.cat([x, x[-1:].expand(self.entry.batch - count, -1, -1, -1)])
            feed = {self.entry.name: x.contiguous().numpy()}
            output = run(self.session, feed, self.before, self.file)[0]
            rows = torch.as_tensor(np.array(output))
            if rows.ndim != 2 or len(rows) < count or not bool(rows.isfinite().all()):
                raise ValueError(
                    f"{self.file} gave numbers of shape {tuple(rows.shape)} for {len(x)} faces, "
                    f"or some that are not finite; that is {UNKNOWN}"
                )
            found.append(torch.nn.functional.normalize(rows[:count], dim=1))
        return torch.cat(found)


def open_face_recogniser(path: Path, before: Callable[[], object] = lambda: None) -> FaceRecogniser:
    """Open a recogniser's file.

    Args:
        path: A .onnx file.
        before: Called many times a second while it opens or runs; it may raise, which ends it.

    Returns:
        The recogniser.

    Raises:
        ModuleNotFoundError: onnxruntime is not installed.
        ValueError: The file cannot be read, or is no recogniser of faces of 112 x 112.
    """
    session = open_session(path, PACKAGE, before)
    entry = picture_input(session, path, UNKNOWN)
    outputs = session.get_outputs()
    sides = {side for side in (entry.height, entry.width) if side is not None}
    if leading_floats(session) != 1 or len(outputs[0].shape) != 2 or sides - {SIDE}:
        raise ValueError(
            f"{path.name} takes {(entry.batch, 3, entry.height, entry.width)} and gives "
            f"{[(o.name, o.shape) for o in outputs[:20]]}; that is {UNKNOWN}"
        )
    return FaceRecogniser(session, entry, path.name, before)


@dataclass(frozen=True, eq=False)
class FaceLikeness(Assessed):
    """Cosine of the embeddings of a reference's faces and the picture's.

    Args:
        detector: Finds faces.
        recogniser: Embeds them.
        references: Batches of pictures (R, H, W, C), 0 to 1.
        rule: "largest" or "every" face of the references.

    Attributes:
        people: Embeddings of the references' faces that are looked for, shape (people, width).

    Raises:
        ValueError: An unknown rule, no reference, or one without a face.
    """

    detector: FaceDetector
    recogniser: FaceRecogniser
    references: Sequence[Tensor]
    rule: str = "largest"
    people: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Look at the references at once: a search should not begin with one that shows nobody."""
        if self.rule not in RULES:
            raise ValueError(f"Face Likeness knows no rule '{self.rule}'; choose one of {RULES}.")
        for batch in self.references:
            check_images(batch, "Face Likeness (reference)")
        if not sum(batch.shape[0] for batch in self.references):
            raise ValueError("Face Likeness was given no reference picture; connect at least one.")
        object.__setattr__(self, "people", self._people())

    @property
    def spec(self) -> RewardSpec:
        """See RewardSpec."""
        return RewardSpec(
            name="face_likeness",
            measures="how much the picture's faces resemble the reference's: cosine of embeddings",
            low=NOBODY,
            high=1.0,
            scale=0.2,
            licence=LICENCE,
            source=f"{self.detector.file} and {self.recogniser.file}",
        )

    def _people(self) -> Tensor:
        """Embeddings of the references' faces, shape (people, width)."""
        chosen: list[Tensor] = []
        pictures = (picture for batch in self.references for picture in batch)
        for number, picture in enumerate(pictures, start=1):
            faces, embeddings = self._seen(picture)
            if not faces:
                raise ValueError(
                    f"no face was found in reference picture {number}. Take one that shows the "
                    "face from the front, not cut off, at least 60 pixels high."
                )
            if self.rule == "largest":
                largest = max(range(len(faces)), key=lambda i: faces[i].area)
                embeddings = embeddings[largest : largest + 1]
            chosen.append(embeddings)
        return torch.cat(chosen)

    def assess(self, images: Tensor) -> Assessment:
        """Score pictures, with how many faces each has.

        Args:
            images: As for score.

        Returns:
            Values; parts "faces" and, for several people, "person 1", "person 2", ...; a note.

        Raises:
            ValueError: Not a batch of finite pictures.
        """
        check_images(images, "Face Likeness")
        rows = [self._compared(self._seen(image)[1]) for image in images]
        values = torch.tensor([value for value, _, _ in rows], dtype=torch.float32)
        return Assessment(
            values.to(images.device), [parts for _, parts, _ in rows], [note for *_, note in rows]
        )

    def draw(self, images: Tensor) -> Tensor:
        """Draw the faces with their likeness on pictures.

        Args:
            images: As for score.

        Returns:
            Pictures of the same shape; shape (B, H, W, 3).
        """
        found: list[list[Box]] = []
        for image in images:
            faces, embeddings = self._seen(image)
            each: Any = self._of_faces(embeddings) if faces else torch.zeros(0)
            best: list[float] = each.tolist()
            found.append(
                [Box(*face.box, value, "face") for face, value in zip(faces, best, strict=True)]
            )
        return draw_boxes(images, found)

    def _seen(self, image: Tensor) -> tuple[list[Face], Tensor]:
        """Faces of a picture (H, W, C), and their embeddings."""
        picture = image[..., :3].detach().movedim(-1, 0).float().cpu()
        faces = self.detector.detect(picture)
        cut = [aligned(picture, face.points) for face in faces]
        return faces, self.recogniser.embed(torch.stack(cut) if cut else torch.zeros(0))

    def _cosines(self, embeddings: Tensor) -> Tensor:
        """Shape (people, faces)."""
        return (self.people @ embeddings.T).clamp(-1.0, 1.0)

    def _pairs(self, cosines: Tensor) -> tuple[Tensor, Tensor]:
        """Whose face of the picture is taken for which person, so that the sum is greatest."""
        library: Any = optimize
        people, faces = library.linear_sum_assignment(cosines.double().numpy(), maximize=True)
        return torch.as_tensor(people), torch.as_tensor(faces)

    def _of_faces(self, embeddings: Tensor) -> Tensor:
        """What each face of a picture counts with; the likeness to the likest for a face that is
        nobody's."""
        cosines = self._cosines(embeddings)
        if self.rule == "largest":
            return cosines.mean(dim=0)
        likest = cosines.amax(dim=0)
        people, faces = self._pairs(cosines)
        likest[faces] = cosines[people, faces]
        return likest

    def _compared(self, embeddings: Tensor) -> tuple[float, dict[str, float], str]:
        """Value, parts and note of a picture."""
        count = len(embeddings)
        if not count:
            return NOBODY, {"faces": 0.0}, "no face was found"
        cosines = self._cosines(embeddings).double()
        if self.rule == "largest":
            each = cosines[:, int(cosines.mean(dim=0).argmax())]
        else:
            each = torch.full((len(cosines),), NOBODY, dtype=torch.float64)
            people, faces = self._pairs(cosines)
            each[people] = cosines[people, faces]
        parts = {"faces": float(count)}
        if len(each) > 1:
            parts |= {f"person {i}": float(value) for i, value in enumerate(each, start=1)}
        value = float(each.mean())
        return value, parts, f"{count} face{'s' * (count > 1)}, likeness {value:.2f}"
