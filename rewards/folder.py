"""Folders as transformers saves models: what is wrong with one that the library cannot load."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["explained", "need_tokenizer"]

VOCABULARIES = (
    *("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model"),
    *("sentencepiece.bpe.model", "tekken.json"),
)
"""Files that hold the words of a tokenizer, one of which every folder with one has."""


def need_tokenizer(path: Path) -> None:
    """Refuse a folder without words: transformers 5 makes a tokenizer that knows none, silently.

    Args:
        path: The folder.

    Raises:
        ValueError: No file of words.
    """
    if not any((path / name).is_file() for name in VOCABULARIES):
        raise ValueError(
            f"{path.name} holds no tokenizer (tokenizer.json, or what stands for it: "
            f"{', '.join(VOCABULARIES[1:])}), so no text could be read. Get every file of the "
            "published folder."
        )


@contextmanager
def explained(path: Path, needs: str) -> Generator[None]:
    """Say what a folder should hold where the library cannot load it.

    Args:
        path: The folder.
        needs: What it should hold: a kind of model, and its files.

    Yields:
        Nothing.

    Raises:
        ValueError: The library could not load it; the message has the first line of why.
    """
    transformers: Any = import_module("transformers")
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as cause:
        lines = str(cause).strip().splitlines()  # further ones list every model of the library
        why = lines[0] if lines else type(cause).__name__
        raise ValueError(
            f"transformers {transformers.__version__} cannot load {path.name}: {why}\nIt needs "
            f"every file of a published {needs} that runs without code of its own. Get the folder "
            "again, or choose another."
        ) from cause
