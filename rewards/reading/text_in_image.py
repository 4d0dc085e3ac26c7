"""Does the picture say what it should? Its text is read and compared with the wanted one.

    reward = (N - D) / (N + w E)

N characters are wanted, D is the sum over the wanted lines of the edit distance to the nearest
place in what was read (each line has a place of its own, in any order), E counts characters that
were read and belong to no line, w is their weight. So 1 is right, 0 is nothing of it, and D <= N.
With w = 0 further text is free and the reward is 1 minus the character error rate.

Reading is the package rapidocr-onnxruntime (PP-OCRv4 detector and recogniser, English and Chinese,
in its wheel, on the CPU). Text counts as it stands: upside-down or vertical text is not turned.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..base import Assessed, Assessment, RewardSpec, check_images
from .edit_distance import match

__all__ = ["IGNORE", "PACKAGE", "Piece", "Reader", "TextInImage", "lacking", "rapid_reader"]

PACKAGE = "rapidocr-onnxruntime"
MOST_WANTED, MOST_LINES = 2000, 100
"""Characters and lines that are looked for: more than a picture can hold to be read."""

MOST_READ = 10_000
"""Characters of what was read that are compared."""

IGNORE = ("spaces", "spaces_and_punctuation", "nothing")
TYPOGRAPHY = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "-"}
)
"""Quotation marks and dashes that no reader tells apart."""


@dataclass(frozen=True)
class Piece:
    """A piece of text that was read.

    Attributes:
        text: As read.
        confidence: The reader's, 0 to 1.
        corners: Four (x, y) around it, pixels, clockwise from its upper left.
    """

    text: str
    confidence: float
    corners: tuple[tuple[float, float], ...]

    @property
    def middle(self) -> float:
        """How far down its middle is."""
        return sum(y for _, y in self.corners) / len(self.corners)

    @property
    def height(self) -> float:
        """How high its left side is."""
        return abs(self.corners[-1][1] - self.corners[0][1])


class Reader(Protocol):
    """Reads pictures."""

    @property
    def characters(self) -> frozenset[str]:
        """Every character it can read; empty where that is not known."""
        ...

    def __call__(self, picture: NDArray[np.uint8]) -> list[Piece]:
        """Read a picture.

        Args:
            picture: Shape (H, W, 3), red-green-blue.

        Returns:
            The pieces, in any order.
        """
        ...


def lacking() -> str:
    """Say what is not installed.

    Returns:
        How to install the reader; empty when it is there.
    """
    if find_spec("rapidocr_onnxruntime") is not None:
        return ""
    return (
        f"Text in Image reads with the Python package {PACKAGE}, which is not installed. Install "
        f"it into ComfyUI's Python: python -m pip install {PACKAGE} (15 MB with its weights, "
        "Apache-2.0; Python before 3.13), and start ComfyUI again."
    )


class _Rapid:
    """RapidOCR with its own weights."""

    def __init__(self) -> None:
        make: Any = import_module("rapidocr_onnxruntime").RapidOCR
        # no direction classifier: it would turn upside-down text and read it as if it stood right;
        # text_score 0: what counts as read is decided by the reward
        threads = torch.get_num_threads()  # of its own it would take every processor, and spin
        self._read: Any = make(use_cls=False, text_score=0.0, intra_op_num_threads=threads)
        known: list[str] = self._read.text_rec.postprocess_op.character
        self._characters = frozenset(name for name in known if len(name) == 1)

    @property
    def characters(self) -> frozenset[str]:
        return self._characters

    def __call__(self, picture: NDArray[np.uint8]) -> list[Piece]:
        found, _ = self._read(np.ascontiguousarray(picture[..., ::-1]))
        return [
            Piece(str(text), float(confidence), tuple((float(x), float(y)) for x, y in corners))
            for corners, text, confidence in found or ()
        ]


@functools.cache
def rapid_reader() -> Reader:
    """Return the one reader of this process, 16 MB.

    Returns:
        RapidOCR, on the CPU.

    Raises:
        RuntimeError: The package is not installed; the message says how to.
    """
    if missing := lacking():
        raise RuntimeError(missing)
    return _Rapid()


def normalise(text: str, ignore: str, match_case: bool) -> str:
    """Leave only what counts.

    Args:
        text: Any.
        ignore: One of IGNORE.
        match_case: Whether capital letters differ from small ones.

    Returns:
        The text in Unicode's compatibility form (full-width letters become plain ones), typographic
        quotes and dashes as plain ones, runs of white space as one space or none.
    """
    text = unicodedata.normalize("NFKC", text).translate(TYPOGRAPHY)
    text = re.sub(r"\s+", " " if ignore == "nothing" else "", text).strip()
    if ignore == "spaces_and_punctuation":
        text = "".join(c for c in text if not unicodedata.category(c).startswith("P"))
    return text if match_case else text.casefold()


def in_reading_order(pieces: Sequence[Piece]) -> list[Piece]:
    """Sort pieces into lines from the top down, and each line from left to right.

    Args:
        pieces: Any order.

    Returns:
        The same. A piece is on the line of the one above it when their middles are nearer than half
        of that one's height.
    """
    lines: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda p: p.middle):
        if lines and piece.middle - lines[-1][0].middle < 0.5 * lines[-1][0].height:
            lines[-1].append(piece)
        else:
            lines.append([piece])
    return [p for line in lines for p in sorted(line, key=lambda p: p.corners[0][0])]


@dataclass(frozen=True, eq=False)
class TextInImage(Assessed):
    """How nearly a picture says a text.

    Args:
        text: What should be read. Lines are looked for one by one, anywhere, in any order.
        ignore: "spaces" (readers often miss them), "spaces_and_punctuation", or "nothing".
        match_case: Whether capital letters differ from small ones.
        extra: Weight of a character that should not be there, 0 to 1; 0 lets other text be.
        min_confidence: Pieces that the reader trusts less than this were not read, 0 to 1.
        reader: Reads pictures; made at the first score, so that building needs no package.
        checkpoint: Called before each picture; it may raise, which is how a run is cancelled.

    Raises:
        ValueError: No text, a line of which nothing counts, an unknown setting, or a number out of
            its range.
    """

    text: str
    ignore: str = "spaces"
    match_case: bool = False
    extra: float = 0.0
    min_confidence: float = 0.5
    reader: Callable[[], Reader] = rapid_reader
    checkpoint: Callable[[], object] = lambda: None
    wanted: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        if self.ignore not in IGNORE:
            raise ValueError(f"ignore is '{self.ignore}'; choose one of {', '.join(IGNORE)}")
        for name in ("extra", "min_confidence"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be from 0 to 1")
        lines = [line for line in self.text.splitlines() if line.strip()]
        if len(self.text) > MOST_WANTED or len(lines) > MOST_LINES:
            raise ValueError(
                f"the text has {len(self.text):,} characters in {len(lines):,} lines, and at most "
                f"{MOST_WANTED:,} in {MOST_LINES} are looked for. Write only what the picture "
                "should say."
            )
        if not lines:
            raise ValueError("Text in Image has no text to look for. Write what should be read.")
        wanted = tuple(normalise(line, self.ignore, self.match_case) for line in lines)
        if "" in wanted:
            raise ValueError(
                f"nothing of the line '{lines[wanted.index('')]}' counts when punctuation is "
                "ignored. Set ignore to spaces, or leave the line out."
            )
        object.__setattr__(self, "wanted", wanted)

    @property
    def length(self) -> int:
        """Number of characters that are wanted."""
        return sum(map(len, self.wanted))

    @property
    def spec(self) -> RewardSpec:
        """See RewardSpec."""
        return RewardSpec(
            name="text_in_image",
            measures="1 minus the edit distance of the text from what is read, for its length",
            low=0.0,
            high=1.0,
            quantum=0.0 if self.extra else 1.0 / self.length,
            scale=0.3,
            licence="Apache-2.0",
            source=f"{PACKAGE} (PP-OCRv4)",
        )

    def check(self, reader: Reader) -> None:
        """Refuse a text that the reader could never read.

        Args:
            reader: The reader.

        Raises:
            ValueError: It holds characters that are unknown to the reader; the message names them.
        """
        plain = normalise(self.text, self.ignore, match_case=True)
        known = reader.characters
        able = known if self.match_case else known | {c.swapcase() for c in known}
        unknown = sorted({c for c in plain if not c.isspace()} - able) if known else []
        if unknown:
            raise ValueError(
                f"the reader ({PACKAGE}: English and Chinese) knows no {' '.join(unknown)}, so the "
                "text could never be found. Write it without, or use another reward, such as VQA "
                "Score or Judge."
            )

    def read(self, images: Tensor) -> list[list[Piece]]:
        """Read pictures.

        Args:
            images: As for score.

        Returns:
            The pieces of each in reading order, those of too little confidence left out.
        """
        check_images(images, "Text in Image")
        if not images.shape[0]:
            return []
        reader = self.reader()
        self.check(reader)
        found: list[list[Piece]] = []
        for picture in _bytes(images):
            self.checkpoint()
            trusted = [p for p in reader(picture) if p.confidence >= self.min_confidence]
            found.append(in_reading_order(trusted))
        return found

    def assess(self, images: Tensor) -> Assessment:
        """Score pictures and say what was read.

        Args:
            images: As for score.

        Returns:
            Values; distance (of each line too, when there are several), extra characters and mean
            confidence as parts; what was read as notes.
        """
        rows = [self._compare(pieces) for pieces in self.read(images)]
        values = [value for value, _, _ in rows]
        return Assessment(
            torch.tensor(values, dtype=torch.float32, device=images.device),
            [parts for _, parts, _ in rows],
            [note for _, _, note in rows],
        )

    def _compare(self, pieces: Sequence[Piece]) -> tuple[float, dict[str, float], str]:
        """Value, parts and note of one picture."""
        text = normalise(" ".join(p.text for p in pieces), self.ignore, self.match_case)
        distances, extra = match(self.wanted, text[:MOST_READ], self.checkpoint)
        extra += len(text[MOST_READ:])
        distance = sum(distances)
        value = (self.length - distance) / (self.length + self.extra * extra)
        parts = {"distance": float(distance), "extra": float(extra)}
        if len(distances) > 1:
            parts |= {f"line {i}": float(d) for i, d in enumerate(distances, start=1)}
        if pieces:
            parts["confidence"] = sum(p.confidence for p in pieces) / len(pieces)
        read = " | ".join(p.text for p in pieces)
        return value, parts, f"read: {read}" if read else "nothing was read"

    def draw(self, images: Tensor) -> Tensor:
        """Draw what was read.

        Args:
            images: As for score.

        Returns:
            The pictures with a frame around each piece and its text, with the reader's confidence,
            above it; same shape, float32, same device.
        """
        found = self.read(images)
        result = images.detach().float().clone()
        for i, (picture, pieces) in enumerate(zip(_bytes(images), found, strict=True)):
            shown = torch.tensor(_drawn(picture, pieces), device=images.device)
            result[i, ..., :3] = shown.float() / 255.0
        return result


def _bytes(images: Tensor) -> NDArray[np.uint8]:
    """8-bit pixels (B, H, W, 3)."""
    pixels = images[..., :3].detach().float().clamp(0.0, 1.0) * 255.0
    return pixels.round().to("cpu", torch.uint8).numpy()


def _drawn(picture: NDArray[np.uint8], pieces: Sequence[Piece]) -> NDArray[np.uint8]:
    """One picture with its pieces."""
    image = Image.fromarray(picture)
    pen = ImageDraw.Draw(image)
    size = max(10, min(image.size) // 32)
    font = ImageFont.load_default(size)
    for piece in pieces:
        pen.polygon(piece.corners, outline=(255, 0, 0), width=max(1, size // 10))
        x, y = piece.corners[0]
        label = f"{piece.text} {piece.confidence:.2f}"
        place = (x, max(0.0, y - 1.3 * size))
        pen.rectangle(pen.textbbox(place, label, font=font), fill=(255, 255, 255))
        pen.text(place, label, fill=(255, 0, 0), font=font)
    return np.asarray(image)
