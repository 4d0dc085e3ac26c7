"""What rewards read from disk: published files, and how to say that one is missing.

A row names a file or folder as a list in a node shows it. Nothing is downloaded, ever.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FOLDER", "Weights", "missing"]

FOLDER = "flowsearch_rewards"
"""Folder of the host's models directory for what no folder of the host's own is for."""


@dataclass(frozen=True)
class Weights:
    """A published file, or a folder of files as transformers saves them.

    Attributes:
        name: File or folder below FOLDER, forward slashes, as lists show it.
        page: Where it is published.
        licence: Its licence.
        size: Bytes, 0 where it is not known.
        sha256: Digest of the file, empty where it is not known.
        url: Direct address of the file, for the host's own dialog; empty for a folder.
        folder: Folder of the models directory that it goes into.
    """

    name: str
    page: str
    licence: str
    size: int = 0
    sha256: str = ""
    url: str = ""
    folder: str = FOLDER


def missing(name: str, folder: str, known: Weights | None) -> str:
    """Say that a file is not there, and how it gets there.

    Args:
        name: What was asked for.
        folder: Where it should be: a path, or several.
        known: Its row, if it has one.

    Returns:
        One or two sentences.
    """
    text = f"'{name}' is not in {folder}."
    if known is None:
        return f"{text} Put it there, or choose another of the list."
    size = f", {known.size / 1e6:,.0f} MB" if known.size else ""
    digest = f", sha256 {known.sha256}" if known.sha256 else ""
    what = "it" if known.url else "all its files, a folder,"
    return (
        f"{text} FlowSearch downloads nothing: get {what} from {known.url or known.page} "
        f"({known.licence}{size}{digest}), put it there under that name and press R in the page."
    )
