"""One way of sampling every prompt, and the prompts with what is kept of them on disk."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from _demo_problem import load_net
from _guided_problem import GuidedProblem, Sampled, clock, sampled
from _runs import HeldOut, Measured, Method, Parts, Result, measured, run
from numpy.typing import NDArray

from flowsearch.demo.network import CHECKPOINTS
from flowsearch.demo.prompt import parse
from flowsearch.rewards.pixels.shape_fidelity import ShapeFidelity
from flowsearch.samplers.paths import sigmas
from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.stepping.guidance import Guidance
from flowsearch.samplers.stepping.transition import Transition

__all__ = ["Bench", "Cell"]

ANCESTRAL = Transition(noise_law("constant_k", k=1.0))
SHIFT = {"base": 1.0, "few_step": 3.0}
BLOCK = 12
"""Prompts of a search that are kept together in the parts."""


@dataclass(frozen=True)
class Cell:
    """One picture a prompt, sampled without a search.

    Attributes:
        world: Key of CHECKPOINTS.
        reward: Key of REWARDS.
        steps: Evaluations.
        guidance: How it is guided.
        seed: Of the noise.
        transition: What is guided.
    """

    world: str
    reward: str
    steps: int
    guidance: Guidance | None = None
    seed: int = 0
    transition: Transition = ANCESTRAL

    @property
    def sigmas(self) -> list[float]:
        """Levels of the world."""
        return sigmas.uniform(self.steps, shift=SHIFT[self.world])

    @property
    def how(self) -> Transition:
        """The transition with its guidance."""
        return self.transition.guided(self.guidance)


class Bench:
    """Runs cells and searches, from the parts where they are there.

    Args:
        options: Command line.
        texts: Prompts.
        numbers: Number of each among all hard prompts, which its drawing is made with.
    """

    def __init__(
        self, options: argparse.Namespace, texts: Sequence[str], numbers: Sequence[int]
    ) -> None:
        self.options, self.texts, self.numbers = options, [*texts], [*numbers]
        self.parts = Parts(options.parts)
        self.nets: dict[str, Any] = {}
        self.plain: dict[Any, Sampled] = {}
        self.weights = {
            name: hashlib.sha256(path.read_bytes()).hexdigest()[:12]
            for name, path in CHECKPOINTS.items()
        }

    def problem(self, world: str, reward: Any, first: int = 0, count: int = 10**6) -> GuidedProblem:
        """The model with some of the prompts."""
        if world not in self.nets:
            self.nets[world] = load_net(CHECKPOINTS[world], self.options.device)
        here = slice(first, first + count)
        groups = [parse(text) for text in self.texts[here]]
        return GuidedProblem(self.nets[world], groups, reward, self.numbers[here])

    def cell(self, cell: Cell) -> dict[str, Any]:
        """Values by prompt, evaluations, gradients, seconds; and the pictures, shrunk."""
        key = [self.weights[cell.world], self.texts, cell.reward, cell.sigmas]
        key += [cell.how.to_json(), cell.seed]
        file = self.parts.file(key)
        if file is not None and file.is_file():
            return json.loads(file.read_text())
        problem = self.problem(cell.world, cell.reward)
        done = self._sampled(cell, problem)
        found: dict[str, Any] = {"values": problem.values(done.clean)}
        found |= {"evaluations": done.evaluations, "gradients": done.gradients}
        found |= {"seconds": done.seconds}
        small = torch.nn.functional.avg_pool2d(done.clean.clamp(-1, 1), 4) / 2
        found["places"] = [[round(v, 3) for v in one] for one in small.flatten(1).tolist()]
        if file is not None:
            file.write_text(json.dumps(found))
        return found

    def _sampled(self, cell: Cell, problem: GuidedProblem) -> Sampled:
        """Sample; pictures without guidance are the same whatever the reward, and kept."""
        key = (cell.world, cell.steps, cell.how, cell.seed)
        if key not in self.plain:
            done = sampled(problem, cell.sigmas, cell.how, cell.seed, self.options.rows)
            if cell.guidance is not None:
                return done
            self.plain[key] = done
        return self.plain[key]

    def array(self, cell: Cell, name: str) -> NDArray[np.float64]:
        """Values of a cell by prompt."""
        return np.array(self.cell(cell)["values"][name])

    def search(self, world: str, reward: str, method: Method, budget: int, count: int) -> Measured:
        """A search of the first prompts."""
        results: list[Result] = []
        for first in range(0, count, BLOCK):
            problem = self.problem(world, reward, first, BLOCK)
            block = self.texts[first : first + BLOCK]
            settings = [method.strategy.to_json(), method.transition.to_json(), method.sigmas]

            def compute(problem: GuidedProblem = problem, seed: int = first) -> list[Result]:
                held_out: HeldOut = ShapeFidelity().score
                start = clock()
                found = run(problem, method, budget, seed, self.options.rows, held_out)
                for result in found:
                    result.seconds = (clock() - start) / len(found)
                return found

            key = ("search", self.weights[world], block, reward, settings, budget, first)
            results += self.parts.get(key, compute)
        return measured([results], budget)
