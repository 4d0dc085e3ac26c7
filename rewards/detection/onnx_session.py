"""How is a network in an ONNX file run? Bounded in what it is given, and ended by a cancel.

A file is anybody's: it may loop without end, or ask for pictures larger than the memory. So what a
network declares is looked at before anything is made for it, and every run is in a thread of its
own, while this one looks for a cancel and, at one, tells onnxruntime to stop between two
operations. An operation that does not come to its end in time is left behind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = [
    "PictureInput",
    "Session",
    "leading_floats",
    "obeying",
    "open_session",
    "picture_input",
    "run",
]

T = TypeVar("T")

LARGEST = 2**26
"""Most numbers that a network is given at once: 268 MB, one picture of 4729 x 4729."""

POLL = 0.05
"""Seconds between two looks for a cancel."""

PATIENCE = 1.0
"""Seconds for which an operation may go on after one."""


class Session(Protocol):
    """What is used of onnxruntime's InferenceSession."""

    def get_inputs(self) -> Sequence[Any]:
        """Entries with name, shape and type."""
        ...

    def get_outputs(self) -> Sequence[Any]:
        """Likewise."""
        ...

    def get_modelmeta(self) -> Any:  # noqa: ANN401 - an object of onnxruntime
        """What the file says of itself."""
        ...

    def run(
        self, names: Sequence[str], feed: Mapping[str, Any], options: object, /
    ) -> list[object]:
        """The outputs of these names."""
        ...


def _nothing() -> None:
    """Never cancels."""


def open_session(path: Path, lacking: str, checkpoint: Callable[[], object] = _nothing) -> Session:
    """Open a file, on CUDA where the installed onnxruntime has it, else on the CPU.

    Args:
        path: A .onnx file.
        lacking: What to say where onnxruntime is not installed.
        checkpoint: Called many times a second meanwhile; it may raise, which ends it.

    Returns:
        onnxruntime's session.

    Raises:
        ModuleNotFoundError: onnxruntime is not installed.
        ValueError: The file cannot be read.
    """
    try:
        import onnxruntime  # pyright: ignore[reportMissingTypeStubs]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(lacking) from error
    runtime: Any = onnxruntime
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [name for name in wanted if name in runtime.get_available_providers()]

    def opened() -> Session:
        try:
            session: Session = runtime.InferenceSession(str(path), options, providers=providers)
            for entry in (*session.get_inputs(), *session.get_outputs()):
                _ = entry.name, entry.shape, entry.type  # text in a file may be no text at all
            _ = session.get_modelmeta().custom_metadata_map
            return session
        except Exception as cause:  # onnxruntime's errors have no common class of their own
            raise ValueError(
                f"onnxruntime {runtime.__version__} cannot read {path.name}: it is no ONNX file, "
                "was cut short, or is newer than this onnxruntime. Get or export it again. What "
                f"was said: {_first_line(cause)}"
            ) from cause

    def stop() -> None:
        if hasattr(options, "set_load_cancellation_flag"):  # since onnxruntime 1.21
            options.set_load_cancellation_flag(True)

    return obeying(opened, checkpoint, stop)


@dataclass(frozen=True)
class PictureInput:
    """The one input of a network that takes pictures.

    Attributes:
        name: Of the input.
        batch: Pictures it takes at once; None where the file leaves it open.
        height: Rows, or None.
        width: Columns, or None.
    """

    name: str
    batch: int | None
    height: int | None
    width: int | None

    def most(self, batch: int, height: int, width: int) -> int:
        """How many pictures to give it at once.

        Args:
            batch: Most, where the file leaves it open.
            height: Rows of a picture.
            width: Columns.

        Returns:
            At least 1; fewer than `batch` where they are large.
        """
        return self.batch or max(1, min(batch, LARGEST // (3 * height * width)))


def picture_input(session: Session, path: Path, kind: str) -> PictureInput:
    """Read what a network takes.

    Args:
        session: onnxruntime's.
        path: Of the file.
        kind: What it should be, and how to get one, for the message.

    Returns:
        Its input.

    Raises:
        ValueError: It does not take pictures (B, 3, H, W) of float32, takes none of them, or takes
            more than can be made.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shape: list[Any] = inputs[0].shape if inputs else []
    if len(inputs) != 1 or len(shape) != 4 or shape[1] != 3:
        raise ValueError(
            f"{path.name} takes {_listed(inputs)} and gives {_listed(outputs)}; that is {kind}"
        )
    if inputs[0].type != "tensor(float)":
        raise ValueError(
            f"{path.name} takes {inputs[0].type}; float32 is needed. Export it without half=True."
        )
    batch, _, height, width = (size if isinstance(size, int) else None for size in shape)
    known = [1 if size is None else size for size in (batch, height, width)]
    if min(known) < 1 or 3 * known[0] * known[1] * known[2] > LARGEST:
        raise ValueError(
            f"{path.name} takes pictures in the shape {shape}, which is "
            f"{'none at all' if min(known) < 1 else 'more than fits'}: a network here is given at "
            f"least one and at most {LARGEST:,} numbers at once, such as 8 pictures of 1600 x "
            "1600. Export it with a batch of 1 and its usual size."
        )
    return PictureInput(inputs[0].name, batch, height, width)


def leading_floats(session: Session) -> int:
    """Count the outputs of float32 before the first of another type.

    Args:
        session: onnxruntime's.

    Returns:
        How many; what follows them may be anything.
    """
    kinds = [output.type == "tensor(float)" for output in session.get_outputs()]
    return (*kinds, False).index(False)


def run(
    session: Session,
    feed: Mapping[str, NDArray[np.float32]],
    checkpoint: Callable[[], object] = _nothing,
    name: str = "an ONNX file",
    outputs: int = 1,
) -> list[NDArray[np.float32]]:
    """Run a network.

    Args:
        session: onnxruntime's.
        feed: Input to values.
        checkpoint: Called many times a second while it runs; it may raise, which ends the run.
        name: Of the file, for messages.
        outputs: How many of its outputs are used, the first ones; others are not asked for, and
            may be of any type.

    Returns:
        What it gives, in its order.

    Raises:
        RuntimeError: It failed.
        ValueError: It gives something else than arrays of float32.
    """
    import onnxruntime  # pyright: ignore[reportMissingTypeStubs]

    runtime: Any = onnxruntime
    options = runtime.RunOptions()
    options.log_severity_level = 4  # what fails is raised, and a cancel is no failure
    names = [str(output.name) for output in session.get_outputs()[:outputs]]

    def ran() -> list[object]:
        try:
            return session.run(names, feed, options)
        except Exception as cause:
            raise RuntimeError(
                f"the network of {name} failed for inputs of "
                f"{', '.join(str(tuple(value.shape)) for value in feed.values())}: "
                f"{_first_line(cause)}. If its memory did not suffice, export it for smaller "
                "pictures or a smaller batch."
            ) from cause

    def stop() -> None:
        options.terminate = True

    found = obeying(ran, checkpoint, stop)
    kinds = [str(getattr(output, "dtype", type(output).__name__)) for output in found]
    if set(kinds) != {"float32"}:
        raise ValueError(
            f"{name} gives {', '.join(kinds[:20])}, and arrays of float32 are needed. Export it "
            "without half=True."
        )
    return cast("list[NDArray[np.float32]]", found)


def obeying(
    work: Callable[[], T], checkpoint: Callable[[], object], stop: Callable[[], object]
) -> T:
    """Do work in a thread and look for a cancel meanwhile.

    Args:
        work: What to do.
        checkpoint: Called before it and many times a second; what it raises is raised.
        stop: Asks the work to end, from this thread.

    Returns:
        What the work returns; what it raises is raised.
    """
    checkpoint()
    results: list[T] = []
    faults: list[BaseException] = []
    over = threading.Event()

    def do() -> None:
        try:
            results.append(work())
        except BaseException as fault:  # noqa: BLE001 - raised below, in the thread that asked
            faults.append(fault)
        finally:
            over.set()

    # a daemon: an operation that never ends must not keep the process from ending
    threading.Thread(target=do, name="flowsearch-onnx", daemon=True).start()
    try:
        while not over.wait(POLL):
            checkpoint()
    except BaseException:
        stop()
        over.wait(PATIENCE)
        raise
    if faults:
        raise faults[0]
    return results[0]


def _first_line(cause: BaseException) -> str:
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0][:300]


def _listed(entries: Sequence[Any]) -> list[tuple[str, Any]]:
    return [(entry.name, entry.shape) for entry in entries[:20]]
