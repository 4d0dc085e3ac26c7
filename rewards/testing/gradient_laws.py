"""The laws of a reward's gradient: it is where it is said, it is the slope of the values, and it
leaves everything as it was."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ..base import Reward, spec_of
from ..foreign import settings
from ..gradient import Differentiable, Gradient, gradient_of
from .rows import EXAMPLES

__all__ = ["GradientLaws", "doubled", "equal", "process", "shown"]

R = TypeVar("R")

STEPS: Mapping[torch.dtype, tuple[tuple[float, ...], float]] = {
    torch.float64: ((1e-6, 1e-8, 1e-4), 1e-4),
    torch.float32: ((3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4), 5e-2),
}
"""Type of the values to steps of finite differences, and how far from the slope that of one of them
may be, relative to it. The values' own rounding is allowed for beside that."""


class GradientLaws:
    """Tests of one reward's gradient. A subclass gives the reward by a fixture.

    Attributes:
        tolerance: Relative and absolute difference of two values that count as the same.
        rounding: Likewise of a value that is differentiated and the one that is scored, whose
            pictures may have been rounded to 8 bits.
    """

    tolerance = 2e-5
    rounding = 1e-2

    @pytest.fixture
    def reward(self) -> Reward:
        """Override: return the reward."""
        raise NotImplementedError("override the fixture reward: return the reward to be tested")

    @pytest.fixture
    def rows(self, reward: Reward) -> Tensor:
        """Return three rows that differ, of what the reward scores; override for its own kind."""
        return EXAMPLES[spec_of(reward).domain](3)

    @pytest.fixture
    def exact(self, reward: Reward) -> Reward:
        """Return the reward with networks of float64, by which slopes are looked at closely.

        Override with `doubled(reward)`, or as it can be made; without networks it is the same.
        """
        return reward

    @pytest.fixture
    def stands_in(self) -> bool:
        """Return whether a smooth function stands in for a reward that goes in steps; override."""
        return False

    @pytest.fixture
    def found(self, reward: Reward, rows: Tensor) -> Gradient:
        """Return the gradient at the rows; what declares none is not asked."""
        if not spec_of(reward).has_gradient:
            pytest.skip("declares none")
        return gradient_of(reward, rows)

    def test_a_gradient_is_where_it_is_said(self, reward: Reward, rows: Tensor) -> None:
        """With has_gradient there is one, like the rows and not 0; without, none is offered."""
        spec = spec_of(reward)
        if spec.has_gradient:
            found = cast("Tensor", gradient_of(reward, rows).gradient)
            assert float(found.abs().sum()) > 0.0, "the gradient is 0 everywhere"
            for dtype in (torch.float16, torch.bfloat16, torch.float64):
                gradient_of(reward, rows[:1].to(dtype))
        elif isinstance(reward, Differentiable):
            try:
                reward.gradient(rows)
            except ValueError:
                return
            raise AssertionError("its gradient works, and has_gradient is not said")

    def test_what_is_differentiated_is_what_is_scored(
        self, reward: Reward, rows: Tensor, found: Gradient, stands_in: bool
    ) -> None:
        """But for rounding, or where a smooth function stands in."""
        if stands_in:
            pytest.skip("a smooth function stands in")
        values = reward.score(rows).double()
        near = torch.isclose(found.values.double(), values, rtol=self.rounding, atol=self.rounding)
        assert bool(near.all()), (
            f"values {shown(found.values)} are differentiated, and {shown(values)} are scored"
        )

    def test_a_gradient_is_the_slope_of_its_values(self, exact: Reward, rows: Tensor) -> None:
        """Finite differences of the values, in float64 where they come in it."""
        if not spec_of(exact).has_gradient:
            pytest.skip("declares none")
        rows = rows[:2].double()
        found = gradient_of(exact, rows)
        for name, way in _ways(rows, found).items():
            _agrees(exact, rows, found, way, name)

    def test_a_row_has_its_gradient_whatever_its_place_and_batch(
        self, reward: Reward, rows: Tensor, found: Gradient
    ) -> None:
        """Alone and in another order: a row's gradient is its own."""
        whole = cast("Tensor", found.gradient)
        alone = torch.cat([cast("Tensor", gradient_of(reward, r[None]).gradient) for r in rows])
        assert self.alike(alone, whole), "a row alone has another gradient than among others"
        order = [2, 0, 1, 2]
        many = cast("Tensor", gradient_of(reward, rows[order]).gradient)
        assert self.alike(many, whole[order]), "in another order rows have other gradients"

    def test_no_rows_have_no_gradient(self, reward: Reward, rows: Tensor) -> None:
        """A batch of 0 has a gradient of 0 rows."""
        if not spec_of(reward).has_gradient:
            pytest.skip("declares none")
        found = gradient_of(reward, rows[:0])
        shape = tuple(cast("Tensor", found.gradient).shape)
        assert shape == tuple(rows[:0].shape), f"no rows have a gradient of shape {shape}"

    def test_a_gradient_is_there_where_the_host_asks(
        self, reward: Reward, rows: Tensor, found: Gradient
    ) -> None:
        """In inference mode, in a thread that is not the main one and has a running event loop."""

        async def in_a_loop() -> Gradient:
            with torch.inference_mode():
                return gradient_of(reward, rows.clone())

        with ThreadPoolExecutor(1) as pool:
            there = pool.submit(lambda: asyncio.run(in_a_loop())).result()
        gradient = cast("Tensor", there.gradient)
        assert self.alike(gradient, cast("Tensor", found.gradient)), "another in the host's thread"

    def test_a_gradient_changes_nothing(
        self, reward: Reward, rows: Tensor, found: Gradient
    ) -> None:
        """Rows, networks, grad mode, torch's settings and every generator stay as they were."""
        del found  # what is made once is made by then
        before, version = rows.clone(), rows._version
        held = _held(reward)
        was = process()
        with torch.no_grad():
            gradient_of(reward, rows)
            assert not torch.is_grad_enabled(), "it left the grad mode on"
        changed = [name for name, value in process().items() if not equal(value, was[name])]
        assert not changed, f"it changed, for the whole process: {', '.join(changed)}"
        assert torch.equal(rows, before), "it changed the rows it was given"
        assert rows._version == version, "it wrote into the rows it was given"
        assert not rows.requires_grad, "it left the rows asking for a gradient"
        assert rows.grad is None, "it left a gradient with the rows it was given"
        assert _held(reward) == held, (
            "it changed its networks: parameters are other objects, ask for gradients, or hold some"
        )

    def same(self, a: Tensor, b: Tensor) -> bool:
        """Return whether two lists of values are the same but for rounding."""
        a, b = a.detach().double(), b.detach().double()
        return torch.allclose(a, b, rtol=self.tolerance, atol=self.tolerance)

    def alike(self, a: Tensor, b: Tensor) -> bool:
        """Return whether two gradients are the same, beside the largest number of each row."""
        largest = b.abs().flatten(1).amax(dim=1).clamp(min=1e-30)
        off = (a - b).abs().flatten(1).amax(dim=1)
        return bool((off <= 50.0 * self.tolerance * largest).all())


def doubled(reward: R) -> R:
    """Return a copy of a reward whose networks are of float64.

    Args:
        reward: Any that can be copied.

    Returns:
        The copy; what it had computed before of a prompt stays as it is.
    """
    made: dict[int, Any] = {}
    found = copy.deepcopy(reward, made)
    for each in [*made.values()]:
        if isinstance(each, nn.Module):
            each.double()
    return found


def process() -> dict[str, Any]:
    """What code can change for the whole process by scoring."""
    numpys = np.random.get_state(legacy=False)  # noqa: NPY002 - the global
    return {
        "a setting of torch": settings(),
        "torch's generator": torch.get_rng_state(),
        "Python's generator": random.getstate(),
        "numpy's generator": repr(numpys["state"]["key"].tobytes()) + repr(numpys["state"]["pos"]),
    }


def _ways(rows: Tensor, found: Gradient) -> dict[str, Tensor]:
    """Where slopes are looked at: in float64 any way will do, in float32 such as are steep."""
    generator = torch.Generator().manual_seed(9)
    if found.values.dtype is torch.float64:
        return {"any way": torch.randn(rows.shape, generator=generator).to(rows)}
    gradient = cast("Tensor", found.gradient)
    largest = gradient.abs().flatten(1).amax(dim=1).clamp(min=1e-30)
    blocks = torch.randn(*(min(n, 4) for n in rows.shape), generator=generator)
    for axis, length in enumerate(rows.shape):
        at = torch.arange(length) * blocks.shape[axis] // length
        blocks = blocks.index_select(axis, at)
    return {
        "itself": gradient / largest.reshape(-1, *[1] * (rows.ndim - 1)),
        "blocks": blocks.to(rows),
    }


def _agrees(reward: Reward, rows: Tensor, found: Gradient, way: Tensor, name: str) -> None:
    """For every row one of the steps has to agree with the gradient."""
    steps, tolerance = STEPS[found.values.dtype]
    slope = (cast("Tensor", found.gradient) * way).flatten(1).sum(dim=1).double()
    rounding = 16.0 * torch.finfo(found.values.dtype).eps * found.values.abs().double()
    agree = torch.zeros_like(slope, dtype=torch.bool)
    measured: list[Tensor] = []
    for step in steps:
        up, down = (gradient_of(reward, rows + sign * step * way).values for sign in (1.0, -1.0))
        measured.append((up.double() - down.double()) / (2.0 * step))
        agree |= (measured[-1] - slope).abs() <= tolerance * slope.abs() + rounding / step
        if bool(agree.all()):
            return
    row = int((~agree).nonzero()[0])
    seen = ", ".join(f"{float(each[row]):.7g}" for each in measured)
    raise AssertionError(
        f"along {name} the slope of row {row} is {seen} (by steps of {steps}), and the gradient "
        f"says {float(slope[row]):.7g}"
    )


def _held(reward: object) -> list[tuple[str, int, bool, bool]]:
    """Names of a reward's parameters and buffers, which objects they are, and what they ask for."""
    near = [getattr(holder, "network", None) for holder in getattr(reward, "holders", ())]
    networks = [each for each in [*near, *vars(reward).values()] if isinstance(each, nn.Module)]
    return [
        (name, id(held), held.requires_grad, held.grad is None)
        for network in networks
        for name, held in (*network.named_parameters(), *network.named_buffers())
    ]


def shown(values: Tensor) -> str:
    """Values as a message shows them."""
    return ", ".join(f"{float(value):.7g}" for value in values)


def equal(a: object, b: object) -> bool:
    """Whether two things are the same, numbers or not."""
    return torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b
