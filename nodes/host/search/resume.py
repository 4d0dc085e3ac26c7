"""Where is a run kept? In a file of the host's user folder, named after all that decides it.

The name holds the node and a digest of the node's part of the workflow without its budget, and of
the tensors that came out of it. Queueing the same again finds the file; a larger budget finds it
too; anything else has another name. It is not in the temp folder, because the host empties that
when it starts, and a crash would take the file along; the folder is one of the host's "system
users", which it does not serve. The newest files are kept, as far as they are few, small and young.
One safetensors file, replaced at once: it is whole or it is the one before; and it carries a digest
of all that it holds, so that one that was changed is known. Several servers may share the folder,
so a file that is being written has a name of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_execution.utils import get_executing_context
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ....samplers.search import Unreadable

__all__ = ["FileCheckpoint", "checkpoint_folder", "checkpoint_of_running_node", "workflow_part"]

BUDGET = (
    "evaluations", "target", "target.value", "target.percent", "rows", "seconds", "reward_calls",
    "checkpoint_seconds",
)  # fmt: skip
KEPT = 16  # files, the newest
KEPT_BYTES = 2 * 2**30
KEPT_SECONDS = 7 * 86_400.0
PART_SECONDS = 600.0  # a file that is being written is younger
NAME = 48  # characters of a node's id in a name: a file system takes 255 bytes

_DATA = "flowsearch.json"  # a tensor of bytes: a header has a largest size, a log has none
_DIGEST = "flowsearch.digest"


class FileCheckpoint:
    """One run's file; what the engine calls a Checkpoint."""

    def __init__(self, path: Path, device: torch.device) -> None:
        """Name the file; nothing is read or written yet.

        Args:
            path: The file.
            device: Where loaded tensors go.
        """
        self.path = path
        self._device = device

    def save(self, tensors: dict[str, Tensor], data: dict[str, Any]) -> None:
        """Replace the file at once.

        Args:
            tensors: Any tensors, none sharing memory.
            data: JSON types.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f"{secrets.token_hex(8)}.part")
        plain = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        text = bytearray(json.dumps(data).encode())
        plain[_DATA] = torch.frombuffer(text, dtype=torch.uint8)
        try:
            save_file(plain, str(part), metadata={_DIGEST: _digest_of(plain)})
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(part, self.path)
        finally:
            part.unlink(missing_ok=True)
        self._prune()

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Read the file.

        Returns:
            Tensors and data, or None if there is no file.

        Raises:
            Unreadable: It is no file of ours, or not as it was written.
        """
        if not self.path.is_file():
            return None
        try:
            with safe_open(str(self.path), "pt", device="cpu") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                written = (file.metadata() or {}).get(_DIGEST)
            if written != _digest_of(tensors):
                raise ValueError("its content is not what was written")
            data = json.loads(tensors.pop(_DATA).numpy().tobytes())
        except Exception as error:  # whatever it is, the file is not to be used
            why = f"{type(error).__name__}: {str(error) or 'no more is said'}".splitlines()[0]
            raise Unreadable(f"{self.path.name} cannot be read ({why})") from error
        return {name: tensor.to(self._device) for name, tensor in tensors.items()}, data

    def _prune(self) -> None:
        """Delete what is too old, too much, or was left half written by a crash.

        The folder is ours alone: what is no checkpoint is what a crash left, ours or one of the
        files that safetensors writes to before it gives them their name.
        """
        now, total = time.time(), 0
        there = [(file, *_stat(file)) for file in self.path.parent.iterdir()]
        for file, changed, size in there:
            if file.suffix != ".safetensors" and not _deleted(file, now - changed > PART_SECONDS):
                total += size
        kept = [each for each in there if each[0].suffix == ".safetensors"]
        for number, (file, changed, size) in enumerate(sorted(kept, key=lambda e: -e[1])):
            total += size
            many = number >= KEPT or total > KEPT_BYTES or now - changed > KEPT_SECONDS
            total -= size if _deleted(file, many and file != self.path) else 0


def _digest_of(tensors: Mapping[str, Tensor]) -> str:
    """A digest of names, types, shapes and values."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        digest.update(name.encode(errors="surrogatepass"))
        _enter(digest, tensors[name])
    return digest.hexdigest()


def _enter(digest: hashlib.blake2b, tensor: Tensor) -> None:
    """Enter a tensor's shape, type and values into a digest."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
    digest.update(flat.view(torch.uint8).numpy().data)


def _deleted(file: Path, wanted: bool) -> bool:
    """Delete a file if that is wanted; whether it is gone. One that cannot be is left."""
    if not wanted:
        return False
    try:
        file.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _stat(file: Path) -> tuple[float, int]:
    """When a file was changed, and its bytes; zeros if another process has just deleted it."""
    try:
        found = file.stat()
    except OSError:
        return 0.0, 0
    return found.st_mtime, found.st_size


def checkpoint_folder() -> Path:
    """Where runs are kept: a folder of the host's that outlives a crash and is not served."""
    return Path(folder_paths.get_user_directory()) / "__flowsearch" / "checkpoints"


def checkpoint_of_running_node(
    tensors: Iterable[Tensor], device: torch.device
) -> FileCheckpoint | None:
    """Return the checkpoint of the node that the host is executing.

    Args:
        tensors: What came out of the workflow: noise, latent, mask, conditioning.
        device: Where loaded tensors go.

    Returns:
        It, or None where no server runs a workflow.
    """
    context = get_executing_context()
    prompt = None if context is None else _running_prompt(context.prompt_id)
    if context is None or prompt is None:
        return None
    part = workflow_part(prompt, context.node_id)
    digest = hashlib.blake2b(json.dumps(part, sort_keys=True).encode(), digest_size=12)
    digest.update(str(context.node_id).encode(errors="surrogatepass"))
    for tensor in tensors:
        _enter(digest, tensor)
    # a node's id may hold a colon in a subgraph, and be as long as a person likes
    node = "".join(c if c.isascii() and c.isalnum() else "-" for c in str(context.node_id)[:NAME])
    name = f"{node}-{context.list_index or 0}-{digest.hexdigest()}.safetensors"
    return FileCheckpoint(checkpoint_folder() / name, device)


def workflow_part(prompt: Mapping[str, Any], node_id: str) -> dict[str, Any]:
    """Return a node and all it depends on, without budgets.

    Args:
        prompt: A workflow in API form.
        node_id: The node; one that the workflow does not hold (made while it runs) stands for all.

    Returns:
        Node id to class and inputs.
    """
    part: dict[str, Any] = {}
    open_ = [node_id] if node_id in prompt else list(prompt)
    while open_:
        name = open_.pop()
        if name in part or name not in prompt:
            continue
        node = prompt[name]
        ours = str(node.get("class_type", "")).startswith("FlowSearch")
        inputs = {
            key: value
            for key, value in node.get("inputs", {}).items()
            if not (ours and key in BUDGET)
        }
        part[name] = {"class_type": node.get("class_type"), "inputs": inputs}
        links = (v for v in inputs.values() if isinstance(v, list) and len(v) == 2)
        open_.extend(str(link[0]) for link in links)
    return part


def _running_prompt(prompt_id: str) -> Mapping[str, Any] | None:
    """Return the workflow that the server is executing, in API form."""
    from server import PromptServer  # the host's; absent parts of it while no server runs

    server = getattr(PromptServer, "instance", None)
    running = getattr(getattr(server, "prompt_queue", None), "currently_running", {})
    return next((item[2] for item in list(running.values()) if item[1] == prompt_id), None)
