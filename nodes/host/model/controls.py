"""ControlNets of other packs that remember where their run has come to.

Their keyframes only ever advance, as the host's run does, while a search goes up and down and from
picture to picture. So what they knew when the run began is put back before each call. The host's
own remember nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from comfy.controlnet import ControlBase
from comfy.samplers import CFGGuider
from torch import Tensor

from .conditioning import conds_of

__all__ = ["Controls"]

# made of the hint alone, whatever the sigma: kept, for it may have taken a network
_OF_THE_HINT = ("cond_hint", "extra_concat", "control_input")


class Controls:
    """What ControlNets of other packs know at the beginning of a run, to be put back."""

    def __init__(self, guider: CFGGuider, sigmas: Tensor) -> None:
        """Take note of it.

        Args:
            guider: Of one row, with prepared conditioning; nothing is sampled yet.
            sigmas: The run's.
        """
        found = {
            id(each): each for cond in conds_of(guider) for each in _chain(cond.get("control"))
        }
        foreign = [c for c in found.values() if not type(c).__module__.startswith("comfy.")]
        self._begun = [(control, copy.copy(vars(control))) for control in foreign]
        self._sigmas = sigmas

    def restart(self) -> None:
        """Put all where a run of the host begins."""
        for control, begun in self._begun:
            now = vars(control)
            kept = {name: now[name] for name in _OF_THE_HINT if name in now}
            now.clear()
            now.update({**begun, **kept})

    def place(self, sigma: Tensor, options: dict[str, Any]) -> None:
        """Put all where a run of the host that has come down to a sigma has them.

        Args:
            sigma: In the model's coordinates.
            options: The run's model options.
        """
        self.restart()
        for control, _ in self._begun:
            # how Advanced-ControlNet and its like are told of a step
            advance: Any = getattr(control, "prepare_current_timestep", None)
            if callable(advance):
                for passed in (*self._sigmas[self._sigmas > sigma], sigma):
                    advance(passed.reshape(1), options["transformer_options"])


def _chain(control: ControlBase | None) -> Iterator[ControlBase]:
    """A ControlNet, those before it, and those of other devices."""
    while control is not None:
        yield control
        clones: dict[Any, Any] = getattr(control, "multigpu_clones", {})
        yield from (each for each in clones.values() if each is not None)
        control = control.previous_controlnet
