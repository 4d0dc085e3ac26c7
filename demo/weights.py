"""How the embedded model's two checkpoints lie in their files, so that the pack's archive is small.

    base:      the bytes of float16 weights in two planes, the high bytes apart from the low ones
    few_step:  w = base + step n,   n a small integer;   vectors as they are, float16

Nothing of the base model is lost: its signs and exponents take few values and pack well once they
stand together. The few-step model was distilled from the base model and differs from it by a fifth
of it, so the difference in steps of a hundredth says as much as float16 does: its first prediction
is off by 3 % of what it differs between seeds. Weights of small matrices act everywhere, so
their steps are finer. The archive's own compression turns both into fewer bits; the files are plain
safetensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .network import CHECKPOINTS

__all__ = ["read_weights", "save_difference", "save_planes"]

COARSE, FINE = 0.01, 0.003
SMALL = 50_000  # weights of a matrix whose steps are fine


def save_planes(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights in half precision, byte planes apart.

    Args:
        file: Where to.
        weights: By name, of any type.
    """
    planes = {
        name: value.cpu().half().contiguous().view(torch.uint8).view(*value.shape, 2)
        for name, value in weights.items()
    }
    parted = {name: value.movedim(-1, 0).contiguous() for name, value in planes.items()}
    save_file(parted, file, {"form": "planes"})


def save_difference(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights as their difference to the base model's, in whole steps.

    Args:
        file: Where to.
        weights: By the names of the base model's.
    """
    base = read_weights(CHECKPOINTS["base"])
    stored: dict[str, Tensor] = {}
    steps: dict[str, float] = {}
    for name, value in weights.items():
        if value.ndim < 2:
            stored[name] = value.cpu().half().contiguous()
            continue
        difference = value.cpu().float() - base[name]
        step = FINE if value.numel() < SMALL else COARSE
        steps[name] = max(step, float(difference.abs().max()) / 127)
        stored[name] = (difference / steps[name]).round().to(torch.int8).contiguous()
    about = {"form": "difference", "base": _digest(CHECKPOINTS["base"]), "steps": json.dumps(steps)}
    save_file(stored, file, about)


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read a file that one of the functions above has written.

    Args:
        file: Which.

    Returns:
        Weights by name, float32.

    Raises:
        ValueError: The file is damaged, of neither form, or a difference to another base model.
    """
    again = "Install the pack again, or make it with python scripts/dev.py train and distil."
    try:
        with safe_open(file, framework="pt") as opened:
            about = opened.metadata() or {}
            stored = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as reason:
        raise ValueError(f"cannot read {file.name}: {reason}. {again}") from reason
    if about.get("form") == "planes":
        return {name: _joined(value).float() for name, value in stored.items()}
    if about.get("form") != "difference":
        raise ValueError(f"{file.name} has the form {about.get('form')!r}. {again}")
    if about["base"] != _digest(CHECKPOINTS["base"]):
        raise ValueError(f"{file.name} is a difference to another base model. {again}")
    base, steps = read_weights(CHECKPOINTS["base"]), json.loads(about["steps"])
    return {
        name: base[name] + steps[name] * value if name in steps else value.float()
        for name, value in stored.items()
    }


def _joined(planes: Tensor) -> Tensor:
    """Return float16 weights of their two planes."""
    return torch.stack(planes.unbind(0), dim=-1).view(torch.float16).squeeze(-1)


def _digest(file: Path) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
