"""The host's guider as a problem obeys the laws of all problems, in both kinds of coordinates."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import Queue
from threading import Event

import comfy.samplers
import host_models as hm
import pytest
import searching as s
import torch

from flowsearch.nodes.host.search.problem import HostProblem
from flowsearch.samplers.search.testing import ProblemLaws


class Waiting(comfy.samplers.Sampler):
    """Hands out the problem that a search would be run on, and waits: the guider is in its run."""

    def __init__(self):
        self.problems, self.over = Queue(), Event()

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent, mask, disable):
        given = (model_wrap, sigmas, extra_args, noise, latent, mask)
        self.problems.put(HostProblem(*given, judge=s.judge(), inner=s.flow()))
        self.over.wait()
        return noise


@contextmanager
def problem_of(model, latent):
    waiting = Waiting()
    guider = hm.guider(model, 0.5, 0.0, cfg=2.0)
    with ThreadPoolExecutor(1) as pool, torch.no_grad():
        running = pool.submit(hm.run, guider, waiting, s.SIGMAS, latent)
        running.add_done_callback(lambda _: waiting.problems.put(None))  # it failed before
        try:
            problem = waiting.problems.get()
            yield problem or running.result()
        finally:
            waiting.over.set()


def masked():
    latent = hm.picture_latent(2)
    return {**latent, "noise_mask": (latent["samples"][:, :1] > 0.5).float()}


PROBLEMS = {
    "flow": lambda: problem_of(hm.gaussian_model(), hm.empty_latent(2)),
    "exploding": lambda: problem_of(hm.path_model("EPS"), hm.picture_latent(2)),
    "masked": lambda: problem_of(hm.gaussian_model(), masked()),
}


class TestHostProblem(ProblemLaws):
    """Sigmas are the problem's own: those of a model that is no flow are others."""

    tolerance = 1e-4

    @pytest.fixture(params=PROBLEMS)
    def problem(self, request):
        with PROBLEMS[request.param]() as problem:
            self.sigmas = tuple(problem.linear_sigmas)
            yield problem


class Forgetful(HostProblem):
    """A mutant: noise of the place in the batch."""

    def draw(self, item, key, purpose):
        self.draws = getattr(self, "draws", 0) + 1
        return super().draw(item, (*key, self.draws) if key else key, purpose)


def test_a_problem_that_forgets_its_key_is_seen():
    with PROBLEMS["flow"]() as problem:
        problem.__class__ = Forgetful
        laws = TestHostProblem()
        with pytest.raises(AssertionError, match="depends on its batch"):
            laws.test_noise_is_a_function_of_item_key_and_purpose(problem)
