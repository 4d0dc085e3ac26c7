"""What is one batch item's own while it is searched: guider, options, mask, others' memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from comfy.samplers import CFGGuider
from torch import Tensor

from .conditioning import cond_tensors, guider_of_row, row_of
from .controls import Controls
from .patches import Memory, foreign_code

__all__ = ["BatchRow"]


@dataclass(frozen=True, eq=False)
class BatchRow:
    """A batch item as if it were alone.

    Attributes:
        guider: With the item's own conditioning.
        options: Model options of the item's own.
        mask: The item's mask; None for none.
        controls: Its ControlNets that remember.
        codes: Code of other packs that takes part in its predictions.
        memory: What that code remembers before the search.
    """

    guider: CFGGuider
    options: dict[str, Any]
    mask: Tensor | None
    controls: Controls
    codes: list[Any]
    memory: Memory

    @classmethod
    def of(
        cls,
        guider: CFGGuider,
        row: int,
        sigmas: Tensor,
        mask: Tensor | None,
        given: dict[str, Any],
        options: dict[str, Any],
    ) -> BatchRow:
        """Take a row out of a batch.

        Args:
            guider: Of the batch, inside its sample().
            row: Which.
            sigmas: The run's.
            mask: Of the batch; None for none.
            given: Model options as the host gave them.
            options: A copy of them that is the row's own.

        Returns:
            The row.
        """
        ours = guider_of_row(guider, row)
        codes = foreign_code(ours, given)
        model: Any = ours.inner_model
        memory = Memory(codes, model.diffusion_model)
        own = None if mask is None else row_of(mask, row)
        return cls(ours, options, own, Controls(ours, sigmas), codes, memory)

    @cached_property
    def prompts(self) -> list[Tensor]:
        """The tensors of the conditioning."""
        return [*cond_tensors(self.guider)]

    @contextmanager
    def fresh(self) -> Iterator[None]:
        """Let code of other packs begin as a run of the host begins, and leave nothing behind.

        Yields:
            Nothing.
        """
        self.memory.restore()
        try:
            yield
        finally:
            self.memory.restore()
