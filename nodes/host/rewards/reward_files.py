"""Files of rewards: lists for nodes, and the way from a name in a list to a path.

A workflow holds names of these lists only. A name is looked up among what the host finds in its
folders, so none leads out of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import comfy.sd1_clip
import comfy.utils
import folder_paths
from safetensors import SafetensorError
from torch import Tensor

from ....rewards.weights.files import FOLDER, Weights, missing
from ..page.text import for_page

__all__ = [
    "FACES",
    "choices",
    "clip_vocabulary",
    "complaint",
    "digest",
    "locate",
    "read",
    "register",
    "stamp",
]

FACES = "flowsearch_faces"
"""The host's name for the folders in which packs for faces keep their networks."""

TENSORS = (".safetensors", ".pt", ".pth", ".bin")
"""Suffixes of files that `read` reads."""

_FAILS = (SafetensorError, OSError, RuntimeError, ValueError, EOFError, AttributeError, TypeError)

SMALL = 64 * 2**20
"""Bytes of a file whose digest is worth the time whenever a node runs."""


def register() -> None:
    """Tell the host of the folder for rewards, models/flowsearch_rewards."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    folder_paths.folder_names_and_paths[FOLDER][1].update({*TENSORS, ".onnx", ".json", ".txt"})
    folder_paths.add_model_folder_path(FACES, str(Path(folder_paths.models_dir) / "insightface"))
    folder_paths.folder_names_and_paths[FACES][1].add(".onnx")


def _follow(where: str) -> str:
    """Look where packs for faces look, before a list is made or a file is found.

    The name is ours, since theirs may have other suffixes; they may be loaded after us.
    """
    if where == FACES:
        paths, _ = folder_paths.folder_names_and_paths.get("insightface", ([], set()))
        for path in paths:
            if path not in folder_paths.get_folder_paths(FACES):
                folder_paths.add_model_folder_path(FACES, path)
                folder_paths.filename_list_cache.pop(FACES, None)
    return where


def clip_vocabulary() -> Path:
    """Find CLIP's vocabulary, which the host brings.

    Returns:
        A folder as transformers saves tokenizers.
    """
    return Path(str(comfy.sd1_clip.__file__)).parent / "sd1_tokenizer"


def choices(
    *, folders: bool = False, ends: tuple[str, ...] = TENSORS, where: str = FOLDER
) -> list[str]:
    """List what is there to choose.

    Published files that are not there are no choices: the host's page offers what a workflow names
    and a list lacks. A node says where they come from in validate_inputs, by `complaint`.

    Args:
        folders: Whether folders as transformers saves them are wanted, instead of files.
        ends: Suffixes of files that are wanted.
        where: The host's name for the folders.

    Returns:
        Names, forward slashes.
    """
    names = [name.replace("\\", "/") for name in folder_paths.get_filename_list(_follow(where))]
    inside = {name.removesuffix("/config.json") for name in names if name.endswith("/config.json")}
    if folders:
        return sorted(inside)
    files = [name for name in names if name.endswith(ends)]
    return [name for name in files if not any(name.startswith(f"{i}/") for i in inside)]


def complaint(
    name: str | None, known: Sequence[Weights] = (), where: str = FOLDER
) -> str | Literal[True]:
    """Answer for a node's validate_inputs about a name of a list.

    Args:
        name: What the workflow names; None where another node will, which is not known yet.
        known: Rows of the registry.
        where: The host's name for the folders.

    Returns:
        True when it is there, else why it is not and where to get it.
    """
    if name is None:
        return True
    try:
        locate(name, known, where)
    except ValueError as error:
        return for_page(str(error))
    return True


def locate(name: str, known: Sequence[Weights] = (), where: str = FOLDER) -> Path:
    """Find what a list named.

    Args:
        name: A name of `choices`.
        known: Rows of the registry, which know where to get it.
        where: The host's name for the folders.

    Returns:
        The path of the file, or of the folder.

    Raises:
        ValueError: It is not there; the message says where to get it.
    """
    row = next((row for row in known if row.name == name), None)
    there = {
        found.replace("\\", "/"): found for found in folder_paths.get_filename_list(_follow(where))
    }
    for wanted, is_folder in ((name, False), (f"{name}/config.json", True)):
        path = folder_paths.get_full_path(where, there[wanted]) if wanted in there else None
        if path is not None:
            return Path(path).parent if is_folder else Path(path)
    raise ValueError(missing(name, " or ".join(folder_paths.get_folder_paths(where)), row))


def read(path: Path) -> dict[str, Tensor]:
    """Read weights: safetensors, or a pickled file with nothing but tensors allowed.

    Args:
        path: A file.

    Returns:
        Name to tensor, on the CPU.

    Raises:
        ValueError: A folder, a pickled file that holds more than tensors, or one that is no file
            of weights or was cut short.
    """
    if path.is_dir():
        raise ValueError(f"{path.name} is a folder, and one file is needed. Choose a file.")
    try:
        found: Any = comfy.utils.load_torch_file(str(path), safe_load=True)
    except UnpicklingError as cause:
        raise ValueError(
            f"{path.name} is not read: it holds more than weights, and such a file can run code; "
            "or it was cut short. Get the published file again, or one in .safetensors."
        ) from cause
    except _FAILS as cause:
        said = (str(cause) or type(cause).__name__).splitlines()[0]
        raise ValueError(
            f"{path.name} is not read ({path.stat().st_size / 1e6:,.1f} MB): it was cut short, or "
            f"is no file of weights. Get it again. What was said: {said}"
        ) from cause
    held = [*found.items()] if isinstance(found, Mapping) else [("it", found)]
    other = [f"{name} is a {type(value).__name__}" for name, value in held
             if not (isinstance(name, str) and isinstance(value, Tensor))]  # fmt: skip
    if other or not held:
        raise ValueError(
            f"{path.name} is not used: weights are tensors with names, and "
            f"{', '.join(other[:3]) or 'it holds nothing'}. Get the published file."
        )
    return dict(held)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, for a reward's description.

    Args:
        path: A file or a folder.

    Returns:
        Hexadecimal digits; empty for a folder, and for a file that takes long to read.
    """
    if path.is_dir() or path.stat().st_size > SMALL:
        return ""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def stamp(path: Path) -> tuple[str, int, int]:
    """What identifies a file's contents, for keeping a network once.

    Args:
        path: A file, or a folder with config.json.

    Returns:
        Its path, time of last change and size.
    """
    files = sorted(path.glob("*")) if path.is_dir() else [path]
    stats = [file.stat() for file in files]
    return str(path), max(s.st_mtime_ns for s in stats), sum(s.st_size for s in stats)
