"""A search as a SAMPLER of the host: it runs inside the guider's sample(), where all is prepared.

The host has then loaded the model, applied hooks, prepared conditioning, ControlNets and masks,
once for the whole search. What comes back is one finished picture an item (or the best few), as
latents.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NoReturn

import comfy.model_management
import torch
from comfy.samplers import CFGGuider, Sampler
from torch import Tensor

from ....rewards.base import Reward, spec_of
from ....samplers.search import (
    BestOfN,
    Budget,
    EvolutionarySearch,
    Outcome,
    Search,
    SearchSettings,
    Strategy,
    Trace,
    Whole,
)
from ....samplers.search.account.events import Event
from ....samplers.search.strategies.published import Published, departures
from ....samplers.stepping.transition import Transition
from ..model.conditioning import cond_tensors
from ..model.field import FieldSampler, reads_sigmas
from ..model.flow_sampler import FlowSampler, idle
from ..model.history import mixes_rows, require_searchable
from ..model.measure import memory_needed, rows_that_fit
from ..model.packed import packed_shapes
from ..page.card import card_output, draw_card
from ..page.progress import (
    Kept,
    Progress,
    first_that_works,
    logged,
    say,
    show,
    show_rescued,
    stills_of,
)
from ..page.remarks import TOLD, says_why
from .behaviour import Behaviour, behaviour_of, need_whole
from .gradients import RewardGuidance
from .judge import Judge
from .outcome import Report
from .path import origins
from .problem import HostProblem
from .resume import FileCheckpoint, checkpoint_of_running_node
from .summary import last_words, put_into_pictures, summary

__all__ = ["TOP_PERCENT", "SearchSampler", "StrategyChoice", "limits"]

TOP_PERCENT = 5.0
GO_ON = "queue the same again to go on from there"
UNGUIDED = "pictures are run whole here, and the guidance of the sampler is not used"

_LOG = logging.getLogger("flowsearch")


@dataclass(frozen=True)
class StrategyChoice:
    """What the Strategy node says: a FLOW_STRATEGY.

    Attributes:
        strategy: The search's settings.
        chains: Independent chains an item.
        rows_per_call: Candidates in one call of the model; 0 asks the free memory.
        published: What the strategy was run with where it follows a publication, else None.
    """

    strategy: Strategy
    chains: int = 1
    rows_per_call: int = 0
    published: Published | None = None


def limits(
    reward: Reward,
    evaluations: int,
    target: dict[str, Any],
    seconds: float,
    reward_calls: int,
    rows: int = 0,
) -> Budget:
    """Turn a node's widgets into a budget.

    Args:
        reward: The reward; its highest value is a target.
        evaluations: Evaluations an item.
        target: "highest", "value" (with the key value), "top" (with the key percent) or "never"
            under "target".
        seconds: 0 for no limit.
        reward_calls: 0 for no limit.
        rows: 0 for no limit.

    Returns:
        The budget.
    """
    high = float(spec_of(reward).high)
    highest = high if math.isfinite(high) else None
    kind = target["target"]
    value = {"highest": highest, "value": target.get("value"), "top": None, "never": None}[kind]
    top = target.get("percent", TOP_PERCENT) if kind == "top" else None
    return Budget(
        evaluations, seconds or None, reward_calls or None, value, rows or None, top, highest
    )


@dataclass(frozen=True, eq=False)
class SearchSampler(Sampler):
    """A SAMPLER that searches.

    Attributes:
        inner: The SAMPLER whose pictures are searched.
        judge: Decodes and scores.
        budget: What may be spent.
        choice: The strategy; None for the inner sampler's usual one.
        top_k: Finished pictures an item, best first.
        keep: Called with the report at the end.
        checkpoint_seconds: Time between two checkpoints; 0 for none.
        notes: Sentences for the report.
        info: The running workflow's extra_pnginfo, which gets the summary; None for none.
    """

    inner: Sampler
    judge: Judge
    budget: Budget
    choice: StrategyChoice | None = None
    top_k: int = 1
    keep: Callable[[Report], object] | None = None
    checkpoint_seconds: float = 30.0
    notes: tuple[str, ...] = ()
    info: dict[str, Any] | None = None
    extra_options: ClassVar[dict[str, Any]] = {}
    inpaint_options: ClassVar[dict[str, Any]] = {}

    def sampler_function(self, *_: object, **__: object) -> NoReturn:
        """Refuse what a wrapper of a SAMPLER calls of the host's KSAMPLER; see wrapped_field.py.

        Its model's predictions would know nothing of the rows of a batch.

        Raises:
            ValueError: Always, with the order that works.
        """
        raise ValueError(
            "a search was connected to a node that wraps a SAMPLER (Detail Daemon, Lying Sigma and "
            "the like); put that node between the sampler and the search instead: connect the "
            "sampler to it, and its output to the sampler input of the search"
        )

    @says_why
    @torch.no_grad()
    def sample(
        self,
        model_wrap: CFGGuider,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Callable[[int, Tensor, Tensor, int], None] | None,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """Search as the host asks a sampler to sample; see comfy.samplers.KSAMPLER.sample.

        Args:
            model_wrap: The guider.
            sigmas: N + 1 falling sigmas that end at 0.
            extra_args: model_options and seed. Not modified.
            callback: Called once, at the end, with the final pictures' latents.
            noise: Initial noise, one row an item.
            latent_image: Clean latents in the model's space, zeros for none.
            denoise_mask: 1 where to sample, 0 where to keep the latent.
            disable_pbar: Unused; there is no bar in the console.

        Returns:
            Finished latents, item after item, best first; top_k rows an item.

        Raises:
            ValueError: A model, latents, sigmas or settings that cannot be searched.
        """
        del disable_pbar
        latent = torch.zeros_like(noise) if latent_image is None else latent_image
        self.judge.require(noise.shape[1:], packed_shapes(model_wrap))
        _require_own_times(model_wrap, self.inner)
        problem = HostProblem(
            model_wrap, sigmas, extra_args, noise, latent, denoise_mask,
            judge=self.judge, inner=self.inner,
        )  # fmt: skip
        search, trace, progress = self._search(problem, model_wrap, sigmas, noise, extra_args)
        try:
            outcome = search.run()
        except BaseException as error:
            show_rescued(
                self._rescued(search, progress, model_wrap, len(noise)),
                f"{_ended(error)}; after {progress.used()}",
                GO_ON if self.checkpoint_seconds else "",
            )
            with logged():
                setattr(error, TOLD, True)
            raise
        progress.finish()
        report = Report(
            trace, problem.reward_name, outcome.calls, outcome.chunks,
            [*outcome.notes, *self._steered(problem, search.settings.transition, trace, outcome)],
            *origins(problem, model_wrap, trace, outcome, extra_args.get("seed") or 0),
            seconds=progress.seconds, before=search.elapsed_before, top_k=self.top_k,
        )  # fmt: skip
        with logged():  # nothing that is said of a search may lose it
            for sentence in report.sentences():
                _LOG.info("search: %s", sentence)
        if self.keep is not None:
            self.keep(report)
        with logged():
            put_into_pictures(summary(report), self.info)
            say("\n".join(last_words(report)))
            if self.keep is None:  # the node that runs this is somebody else's, without a report
                self._show(report, self._rescued(search, progress, model_wrap, len(noise)))
        x = torch.cat([winner.state["x"] for item in outcome.items for winner in item.winners])
        if callback is not None:
            callback(self.budget.evaluations - 1, x, x, self.budget.evaluations)
        return x

    def _search(
        self,
        problem: HostProblem,
        guider: CFGGuider,
        sigmas: Tensor,
        noise: Tensor,
        extra_args: dict[str, Any],
    ) -> tuple[Search, Trace, Progress]:
        shape = tuple(noise.shape)
        choice = self.choice or StrategyChoice(usual_strategy(self.inner))
        transition = transition_of(self.inner)
        require_searchable(guider, len(noise), isinstance(transition, Whole))
        found, budget = Behaviour(), self.budget
        if not isinstance(transition, Whole):
            first, *rest = problem.linear_sigmas
            own = transition.guided(None)  # as the plain sample is
            plain = problem.cost(None, first) + sum(problem.cost(own, to) for to in rest)
            found, budget = behaviour_of(problem, budget, plain)
        if found.remembers or found.untried:
            choice, transition = self._whole(found), Whole(type(self.inner).__name__)
        mixing = mixes_rows(guider) or found.mixes
        rows = 1 if mixing else choice.rows_per_call or rows_that_fit(guider, shape)
        memory = partial(memory_needed, guider, shape, rows)
        trace, progress = Trace(), Progress(budget, len(noise), memory)

        def tell(event: Event) -> None:
            trace(event)
            progress(event)

        settings = SearchSettings(
            choice.strategy,
            tuple(problem.linear_sigmas),
            transition,
            budget,
            items=tuple(range(len(noise))),
            seed=extra_args.get("seed") or 0,
            rows_per_call=rows,
            chains=choice.chains,
            top_k=self.top_k,
            checkpoint_seconds=self.checkpoint_seconds,
        )
        search = Search(problem, settings, tell, self._checkpoint(problem, guider, sigmas, noise))
        search.notes += [*self.notes, *([found.note] if found.note else [])]
        wanted = isinstance(self.inner, FlowSampler) and self.inner.transition.guidance is not None
        if wanted and isinstance(transition, Whole):
            search.notes.append(UNGUIDED)
        if choice.published is not None:
            note = departures(choice.published, problem.linear_sigmas, transition, choice.chains)
            search.notes += [note] if note else []
        search.notes += self.judge.notes(shape[1:], packed_shapes(guider))
        if mixing:
            search.notes.append(
                f"{mixing} lets the candidates of one call change each other, so each has a call "
                "of its own"
            )
        return search, trace, progress

    def _steered(
        self, problem: HostProblem, transition: Transition | Whole, trace: Trace, outcome: Outcome
    ) -> list[str]:
        """Say what steered, or why nothing did although the transition is guided."""
        if isinstance(transition, Whole) or transition.guidance is None:
            return []
        if any(item.ledger.gradient_calls for item in outcome.items):
            given = problem.gradients
            return given.notes(self.judge.reward) if isinstance(given, RewardGuidance) else []
        why = idle(transition, problem.linear_sigmas)
        if not why and all(row["phase"] == "plain" for row in trace.record["evaluated"]):
            return ["nothing was guided: the limits left room for the plain sample alone"]
        guidance = transition.guidance
        return [
            why
            or f"nothing was guided: no step that the search took is between start "
            f"{guidance.start:g} and stop {guidance.stop:g}; set start to 1 in Gradient Guidance"
        ]

    def _whole(self, found: Behaviour) -> StrategyChoice:
        """How a model is searched that makes predictions of earlier ones, or may."""
        choice = self.choice or StrategyChoice(BestOfN())
        if not isinstance(choice.strategy, BestOfN):
            raise ValueError(need_whole(found, choice.strategy.name))
        return choice

    def _checkpoint(
        self, problem: HostProblem, guider: CFGGuider, sigmas: Tensor, noise: Tensor
    ) -> FileCheckpoint | None:
        if not self.checkpoint_seconds:
            return None
        tensors = [noise, problem.latent, sigmas, *problem.masks(), *cond_tensors(guider)]
        return checkpoint_of_running_node(tensors, noise.device)

    def _show(self, report: Report, best: Sequence[Callable[[], Kept]]) -> None:
        """Show on the running node what a searching node puts out itself."""
        lines = last_words(report)
        pictures = [still for way in best for still in stills_of(way())]
        texts = [f"{report.best(item):.4g}" for item in report.trace.items()]
        fit = len(texts) == len(pictures) > 1
        show(card_output(lines, summary(report), draw_card(lines, pictures, texts if fit else [])))

    def _rescued(
        self, search: Search, progress: Progress, guider: CFGGuider, items: int
    ) -> list[Callable[[], Kept]]:
        """What gives each item's best finished picture, clip and sound.

        What was seen of it is kept already for a picture; a clip and a sound are decoded again.
        """
        ways: list[Callable[[], Kept]] = []
        for item in range(items):
            best, picture = search.best(item), progress.best.get(item)
            rows = None if best is None else self.judge.rows(guider, best.state["x"])
            if picture is not None and (rows is None or rows.is_still):
                ways.append(partial(progress.best.__getitem__, item))
            elif rows is not None:
                again = rows.keepsakes()
                ways += [
                    first_that_works(way, None if i else picture) for i, way in enumerate(again)
                ]
        return ways


def _ended(error: BaseException) -> str:
    """How a search ended that did not come to its end."""
    cancelled = isinstance(error, comfy.model_management.InterruptProcessingException)
    return "cancelled" if cancelled else f"the search did not come to its end: {error}"


def transition_of(sampler: Sampler) -> Transition | Whole:
    """Return a SAMPLER's transition, or that it can only be run whole.

    Args:
        sampler: Sampler SAMPLER.

    Returns:
        The transition of one of ours, Whole for another.
    """
    if isinstance(sampler, FlowSampler):
        return sampler.transition
    if isinstance(sampler, SearchSampler):
        raise ValueError(
            "a Search Sampler was given to a search; connect the SAMPLER that is to be searched, "
            "such as Stochastic Flow Sampler or KSamplerSelect"
        )
    ours = isinstance(sampler, FieldSampler)
    function = None if ours else getattr(sampler, "sampler_function", None)
    name = getattr(function, "__name__", type(sampler).__name__)
    return Whole(name.removeprefix("sample_"))


def usual_strategy(sampler: Sampler) -> Strategy:
    """Return the strategy that is used where none is connected.

    Args:
        sampler: The SAMPLER to be searched.

    Returns:
        Best-of-N for what can only be run whole, so that all its pictures are the sampler's own;
        else the evolutionary search.
    """
    return BestOfN() if isinstance(transition_of(sampler), Whole) else EvolutionarySearch()


def _require_own_times(guider: CFGGuider, inner: Sampler) -> None:
    """Refuse to predict at other sigmas than the run's where the network reads those."""
    network = guider.inner_model.diffusion_model
    if reads_sigmas(network) and not isinstance(transition_of(inner), Whole):
        raise ValueError(
            "this is a MeanFlow model, whose network reads the run's list of sigmas as its own "
            "times, and Reward Search, RBF Search or a search by Stochastic Flow Sampler predicts "
            "at others; use Reward Search (Advanced) with KSamplerSelect (euler), which compares "
            "whole pictures"
        )
