"""Candidates that remember: each row steps as it would alone, whatever stands beside it."""

import itertools

import pytest
import torch
from fields import FLOAT64, gaussian
from toy import SIGMAS, Toy, make_search

from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.search import BestOfN, Budget
from flowsearch.samplers.search.engine.memory import moved
from flowsearch.samplers.stepping.integrate import integrate
from flowsearch.samplers.stepping.transition import METHODS, ODE, Transition, fixed_q

HALF = noise_law("constant_k", k=0.5)
DATA = gaussian(0.5, 0.7)
METHOD = pytest.mark.parametrize("method", [m for m in METHODS if m != "euler_maruyama"])


def predict(rows, x, sigma):
    assert len(rows) == len(x)
    return DATA.denoise(x, sigma)


def start(count, sigma=0.9, seed=0):
    x = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed), dtype=FLOAT64)
    return {"x": x, "denoised": DATA.denoise(x, sigma)}


def go(state, sigma_from, to, transition, z=None):
    noise = torch.full_like(state["x"], 0.3) if z is None else z
    out = moved(state, sigma_from, to, transition, lambda: noise, predict)
    out.pop("evaluations", None)
    if to > 0.0:
        out["denoised"] = DATA.denoise(out["x"], to)
    return out


def rows(state, *indices):
    return {key: value[list(indices)] for key, value in state.items()}


def cat(*states):
    return {key: torch.cat([state[key] for state in states]) for key in states[0]}


@METHOD
def test_a_chain_of_moves_is_the_samplers_run(method):
    transition, sigmas = Transition(HALF, method), [0.9, 0.7, 0.5, 0.35, 0.2, 0.1, 0.0]
    state = start(3)
    z = torch.randn(len(sigmas), 3, 2, generator=torch.Generator().manual_seed(1), dtype=FLOAT64)
    right = integrate(DATA.denoise, state["x"], sigmas, transition, lambda i: z[i])
    for i, (sigma_from, to) in enumerate(itertools.pairwise(sigmas)):
        state = go(state, sigma_from, to, transition, z[i])
    assert torch.equal(state["x"], right)
    assert not any(key.startswith("past") for key in state), "a finished picture remembers nothing"


def test_rows_of_different_pasts_step_as_they_do_alone():
    transition, other = Transition(HALF, "second_order"), Transition(HALF, "heun")
    long = go(go(start(1), 0.9, 0.8, transition), 0.8, 0.6, transition)
    short = go(go(start(1, seed=1), 0.9, 0.7, transition), 0.7, 0.6, transition)
    foreign = go(go(start(1, seed=2), 0.9, 0.8, other), 0.8, 0.6, other)
    first = go(start(1, 0.9, seed=3), 0.9, 0.6, fixed_q(0.5))
    assert set(first) == {"x", "denoised"}
    same = cat(long, short, go(go(start(2, seed=4), 0.9, 0.8, transition), 0.8, 0.6, transition))
    together = go(same, 0.6, 0.4, transition)
    for index in range(4):
        alone = go(rows(same, index), 0.6, 0.4, transition)
        for key, value in alone.items():
            assert torch.equal(rows(together, index)[key].nan_to_num(), value.nan_to_num())
    # what another transition left behind is no memory of this one
    assert "past_0" in foreign
    bare = {key: foreign[key] for key in ("x", "denoised")}
    assert torch.equal(go(foreign, 0.6, 0.4, transition)["x"], go(bare, 0.6, 0.4, transition)["x"])
    # and the memory matters at all
    bare = {key: long[key] for key in ("x", "denoised")}
    assert not torch.equal(go(long, 0.6, 0.4, transition)["x"], go(bare, 0.6, 0.4, transition)["x"])


def test_going_back_up_forgets():
    transition = Transition(HALF, "second_order")
    down = go(go(start(2), 0.9, 0.7, transition), 0.7, 0.5, transition)
    up = go(down, 0.5, 0.8, fixed_q(0.0))
    assert set(up) == {"x", "denoised"}
    again = go(down, 0.5, 0.8, transition)
    bare = {key: down[key] for key in ("x", "denoised")}
    assert torch.equal(again["x"], go(bare, 0.5, 0.8, transition)["x"])


@METHOD
def test_the_ledger_is_the_models_own_count(method):
    """Heun's and GLASS's inner calls are charged, and none that are not made."""
    for law in (HALF, ODE.law, noise_law("constant_k", k=1.0, taper=(0.5, 0.3))):
        toy = Toy()
        transition = Transition(law, method, inner_evaluations=3)
        search = make_search(toy, BestOfN(), SIGMAS, transition, Budget(150), items=[0], seed=1)
        outcome = search.run()
        assert outcome.items[0].ledger.evaluations == toy.rows[0]
        assert toy.rows[0] <= 150
