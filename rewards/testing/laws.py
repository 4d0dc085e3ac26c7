"""The laws of all rewards but those of gradients, which are beside them."""

from __future__ import annotations

import asyncio
import json
import pickle
import random
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from ..base import Annotator, Assessment, Reward, assess, describe, spec_of
from ..foreign import values_of
from .gradient_laws import GradientLaws, equal, process, shown
from .rows import EXAMPLES

__all__ = ["MOST_NOTE", "MOST_PARTS", "RewardLaws"]

MOST_NOTE = 4000
"""Characters of a note: it is read in a list of pictures."""
MOST_PARTS = 100
"""Terms that a value is made of."""


class RewardLaws(GradientLaws):
    """Tests of one reward. A subclass gives it by fixtures; the laws are the methods.

    Attributes: See GradientLaws.
    """

    @pytest.fixture
    def other(self) -> Reward | None:
        """Override: return the same reward for another prompt, or None if it has no prompt."""
        raise NotImplementedError(
            "override the fixture other: return the same reward for another prompt, or None where "
            "it reads no prompt"
        )

    @pytest.fixture
    def values(self, reward: Reward, rows: Tensor) -> Tensor:
        """Return the values of the rows."""
        return reward.score(rows)

    # ---- what it says of itself ----

    def test_its_description_is_whole(self, reward: Reward) -> None:
        """A name in snake case, a range, numbers of a sensible sign, nothing JSON cannot hold."""
        spec = spec_of(reward)
        assert re.fullmatch(r"[a-z][a-z0-9_]*", spec.name), f"{spec.name!r} is not in snake case"
        assert spec.low < spec.high, f"low {spec.low} is not below high {spec.high}"
        assert spec.quantum >= 0.0, f"quantum {spec.quantum} is negative"
        assert spec.scale >= 0.0, f"scale {spec.scale} is negative"
        assert spec.sample_rate >= 0, f"sample_rate {spec.sample_rate} is negative"
        known = (*EXAMPLES, "several")
        assert spec.domain in known, f"domain {spec.domain!r} is none of {', '.join(known)}"
        json.dumps(describe(spec), allow_nan=False)

    def test_its_prompt_changes_its_values(
        self, other: Reward | None, rows: Tensor, values: Tensor
    ) -> None:
        """A reward for another prompt gives some row another value; or it has no prompt."""
        if other is not None:
            assert not self.same(other.score(rows), values), (
                "two prompts give every row the same value: the prompt is not used"
            )

    # ---- its values ----

    def test_a_row_has_one_finite_value_in_the_range(
        self, reward: Reward, rows: Tensor, values: Tensor
    ) -> None:
        """As many real numbers as rows, on their device, between low and high."""
        spec = spec_of(reward)
        values_of(values, len(rows))
        assert values.is_floating_point(), f"values are of type {values.dtype}, not floating point"
        assert values.device == rows.device, f"values are on {values.device}, not {rows.device}"
        assert bool(values.isfinite().all()), f"values are not finite: {shown(values)}"
        low, high = float(values.min()), float(values.max())
        assert spec.low <= low, f"value {low} is below low {spec.low}"
        assert high <= spec.high, f"value {high} is above high {spec.high}"

    def test_values_lie_on_the_quantum(self, reward: Reward, values: Tensor) -> None:
        """Where a quantum is declared, every value is a multiple of it."""
        quantum = spec_of(reward).quantum
        if quantum:
            steps = values.double() / quantum
            assert torch.allclose(steps, steps.round(), atol=1e-4), (
                f"values {shown(values)} are no multiples of the quantum {quantum}"
            )

    def test_a_row_has_its_value_whatever_its_place_and_batch(
        self, reward: Reward, rows: Tensor, values: Tensor
    ) -> None:
        """Alone, in another order, among many, and again: a row's value is its own."""
        if not spec_of(reward).deterministic:
            pytest.skip("declared not deterministic")
        alone = torch.cat([reward.score(row[None]) for row in rows])
        assert self.same(alone, values), f"alone {shown(alone)}, together {shown(values)}"
        order = [2, 0, 1, 2, 0]
        many = reward.score(rows[order])
        assert self.same(many, values[order]), (
            f"in another order and number {shown(many)}, expected {shown(values[order])}"
        )
        assert self.same(reward.score(rows), values), "the same rows have other values later"

    def test_no_rows_have_no_values(self, reward: Reward, rows: Tensor) -> None:
        """A batch of 0 has 0 values."""
        found = reward.score(rows[:0])
        assert tuple(found.shape) == (0,), f"no rows have values of shape {tuple(found.shape)}"

    def test_type_and_layout_of_the_rows_do_not_matter(
        self, reward: Reward, rows: Tensor, values: Tensor
    ) -> None:
        """Every floating type is scored, and a view with gaps as its copy."""
        for dtype in (torch.float16, torch.bfloat16, torch.float64):
            found = values_of(reward.score(rows[:1].to(dtype)), 1)
            assert bool(found.isfinite().all()), f"{dtype} rows have values {shown(found)}"
        if spec_of(reward).deterministic:
            gaps = torch.stack([rows, torch.zeros_like(rows)], dim=-1)[..., 0]
            assert self.same(reward.score(gaps), values), "a view has other values than its copy"

    def test_what_is_not_finite_is_no_ordinary_value(self, reward: Reward, rows: Tensor) -> None:
        """A row of NaN is refused in words, or its value is NaN; it is never mended in silence."""
        broken = rows.clone()
        broken[1] = float("nan")
        try:
            found = reward.score(broken)
        except Exception as error:  # noqa: BLE001 - any kind will do, with words
            found, words = None, str(error)
        else:
            words = ""
        if found is None:
            assert words.strip(), "a row of NaN is refused without a word"
        else:
            assert not bool(found[1].isfinite()), f"a row of NaN has the value {float(found[1])}"

    # ---- what it leaves alone ----

    def test_its_input_is_left_alone(self, reward: Reward, rows: Tensor) -> None:
        """Rows are read, never written, not even with the same values."""
        before, version = rows.clone(), rows._version
        assess(reward, rows)
        assert torch.equal(rows, before), "it changed the rows it was given"
        assert rows._version == version, "it wrote into the rows it was given"

    def test_the_process_is_left_as_it_was(self, reward: Reward, rows: Tensor) -> None:
        """Torch's settings, grad mode and every global random generator stay."""
        for move in (torch.rand, np.random.rand):  # what was seeded before shows
            move(1)
        random.random()
        before = process()
        reward.score(rows[:1])
        changed = [name for name, value in process().items() if not equal(value, before[name])]
        assert not changed, f"it changed, for the whole process: {', '.join(changed)}"

    def test_it_pickles_nothing(
        self, reward: Reward, rows: Tensor, values: Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A pickle is a program: none is read or written. What it imports late is here by then."""
        del values

        class Refused:
            def __init__(self, *_args: object, **_keywords: object) -> None:
                raise AssertionError("it reads or writes a pickle")

        for name in ("load", "loads", "dump", "dumps", "Pickler", "Unpickler"):
            monkeypatch.setattr(pickle, name, Refused)
        for name in ("load", "save"):
            monkeypatch.setattr(torch, name, Refused)
        reward.score(rows[:1])

    def test_it_scores_where_the_host_calls_it(
        self, reward: Reward, rows: Tensor, values: Tensor
    ) -> None:
        """In inference mode, in a thread that is not the main one and has a running event loop."""

        async def in_a_loop() -> Tensor:
            with torch.inference_mode():
                return reward.score(rows[:1])

        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(lambda: asyncio.run(in_a_loop())).result()
        if spec_of(reward).deterministic:
            assert self.same(found, values[:1]), "other values in the host's thread"

    # ---- what else it offers ----

    def test_what_it_explains_is_what_it_scores(
        self, reward: Reward, rows: Tensor, values: Tensor
    ) -> None:
        """Assess gives the same values, and a bounded note and finite parts a row."""
        found = assess(reward, rows)
        if spec_of(reward).deterministic:
            assert self.same(found.values, values), "assess and score give other values"
        _check_words(found)

    def test_what_it_draws_are_pictures(self, reward: Reward, rows: Tensor) -> None:
        """Draw, where there is one, returns finite pictures of the same shape, and new ones."""
        if isinstance(reward, Annotator):
            before = rows.clone()
            drawn = reward.draw(rows)
            assert drawn.shape == rows.shape, f"drew {tuple(drawn.shape)} of {tuple(rows.shape)}"
            assert bool(drawn.isfinite().all()), "it drew what is not finite"
            assert torch.equal(rows, before), "it drew on the pictures it was given"


def _check_words(found: Assessment) -> None:
    """Parts that JSON can hold, notes that a person can read, and neither without end."""
    for parts in found.parts:
        assert len(parts) <= MOST_PARTS, f"{len(parts)} parts of one value; most are {MOST_PARTS}"
        for name, value in parts.items():
            assert isinstance(value, float), f"part {name} is a {type(value).__name__}, no float"
        json.dumps(dict(parts), allow_nan=False)
    for note in found.notes:
        assert isinstance(note, str), f"a note is a {type(note).__name__}, no text"
        assert len(note) <= MOST_NOTE, f"a note of {len(note)} characters; most are {MOST_NOTE}"
