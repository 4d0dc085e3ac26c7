"""Folders as transformers saves models: read as they lie there, and nothing else.

Nothing is fetched, no code of a folder is run, and no pickled weights are read.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias, cast

import torch
from torch import nn

__all__ = ["Foreign", "load_network", "load_part", "model_type", "need_tokenizer"]

Foreign: TypeAlias = Any
"""Objects of transformers, which have no types that all of its versions share."""

VOCABULARIES = (
    *("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model"),
    *("sentencepiece.bpe.model", "tekken.json"),
)
"""Files that hold the words of a tokenizer, one of which every folder with one has."""

_FAILS = (OSError, ValueError, LookupError, ImportError, TypeError, AttributeError, RecursionError)
"""What the library raises where a file of a folder is missing, or holds something else."""

_LOCAL: Foreign = {"local_files_only": True, "trust_remote_code": False}


def model_type(folder: Path, known: Collection[str]) -> str:
    """Read which architecture a folder holds.

    Args:
        folder: With config.json.
        known: Those that will do.

    Returns:
        One of them.

    Raises:
        ValueError: None of them, or config.json cannot be read.
    """
    with _explained(folder):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("config.json holds no table of settings")
        found = str(cast("dict[str, Any]", config)["model_type"])
    if found not in known:
        raise ValueError(
            f"The folder {folder.name} holds a model of type '{found:.80}'; needed is one of type "
            f"{', '.join(known)}. Choose another folder of the list."
        )
    return found


def load_part(folder: Path, kind: str) -> Foreign:
    """Load a processor, a tokenizer or the like.

    Args:
        folder: Its files are in it.
        kind: Class of transformers, such as "AutoProcessor".

    Returns:
        An instance.

    Raises:
        ValueError: It cannot be loaded.
    """
    auto: Foreign = getattr(import_module("transformers"), kind)
    with _explained(folder):
        return auto.from_pretrained(str(folder), **_LOCAL)


def load_network(folder: Path, kind: str, dtype: torch.dtype) -> nn.Module:
    """Load a network.

    Args:
        folder: With config.json and weights as safetensors.
        kind: Class of transformers, such as "AutoModel".
        dtype: Of the weights.

    Returns:
        It, on the CPU.

    Raises:
        ValueError: It cannot be loaded, or lacks tensors, which transformers would draw at random.
    """
    transformers: Foreign = import_module("transformers")
    is_new = int(transformers.__version__.split(".")[0]) >= 5
    settings: Foreign = {"use_safetensors": True, "dtype" if is_new else "torch_dtype": dtype}
    settings["output_loading_info"] = True
    with _explained(folder):
        network, info = getattr(transformers, kind).from_pretrained(
            str(folder), **settings, **_LOCAL
        )
    # whole numbers are places, which it counts anew; not every version of the library saves them
    drawn = {name for name, held in network.state_dict().items() if held.is_floating_point()}
    if missing := sorted(drawn & {*info["missing_keys"]}):
        raise ValueError(
            f"{folder.name} lacks {len(missing)} tensors of a {type(network).__name__}, such as "
            f"{', '.join(missing[:3])}; without them it would answer by chance. Get every file of "
            "the published folder."
        )
    return network


def need_tokenizer(folder: Path) -> None:
    """Refuse a folder without words: transformers 5 makes a tokenizer that knows none, silently.

    Args:
        folder: The folder.

    Raises:
        ValueError: No file of words.
    """
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise ValueError(
            f"{folder.name} holds no tokenizer (tokenizer.json, or what stands for it: "
            f"{', '.join(VOCABULARIES[1:])}), so no text could be read. Get every file of the "
            "published folder."
        )


@contextmanager
def _explained(folder: Path) -> Generator[None]:
    """Say what a folder should hold where the library cannot load it."""
    transformers: Foreign = import_module("transformers")
    from safetensors import SafetensorError

    try:
        yield
    except (*_FAILS, SafetensorError) as cause:
        lines = str(cause).strip().splitlines()  # further ones list every model of the library
        why = lines[0] if lines else type(cause).__name__
        raise ValueError(
            f"transformers {transformers.__version__} cannot load {folder.name}: {why}\nIt needs "
            "every file of a published model (config.json, *.safetensors, preprocessor, and for "
            "texts tokenizer and chat template) that runs without code of its own. Get the folder "
            "again, or choose another."
        ) from cause
