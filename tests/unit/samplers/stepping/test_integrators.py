"""Errors of whole runs on Gaussian data, exactly propagated: printed and committed digits."""

import json
import math

import pytest
from fields import gaussian
from propagation import (
    FILE,
    MUTANTS,
    ROWS,
    START_STD,
    STDS,
    STEPS,
    Broken,
    errors,
    propagate,
)

from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.paths.sigmas import in_interpolant, uniform
from flowsearch.samplers.stepping.transition import METHODS, ODE, Transition

COMMITTED = json.loads(FILE.read_text(encoding="utf-8"))["rows"]
ALL = pytest.mark.parametrize("name", ROWS)


def matches(value, printed):
    return abs(value - float(printed)) <= 0.5 * 10.0 ** -len(printed.partition(".")[2]) + 1e-12


@ALL
def test_errors_equal_the_printed_and_the_committed_digits(name):
    transition, _, printed, printed_std = ROWS[name]
    assert Transition.from_json(COMMITTED[name]["transition"]) == transition
    for steps, text in zip(STEPS, printed.split(), strict=True):
        w2, ratios = errors(name, steps)
        assert matches(w2, text), (steps, w2, text)
        assert w2 == pytest.approx(COMMITTED[name]["w2"][str(steps)], rel=1e-9)
        if steps == 10:
            assert all(map(matches, ratios, printed_std.split()))
            committed = list(COMMITTED[name]["std_ratio_at_10"].values())
            assert ratios == pytest.approx(committed, rel=1e-9)


def test_the_committed_file_has_these_rows_and_no_others():
    assert list(COMMITTED) == list(ROWS)
    assert all(list(row["w2"]) == [str(n) for n in STEPS] for row in COMMITTED.values())


def test_a_wrong_noise_law_is_seen():
    """eps twice as large, the factor between SiT's paper and its code, moves the second digit."""
    twice = Transition(noise_law("sit_sigma", norm=2.0), "euler_maruyama")
    w2, _ = errors("em_linear_sit_sigma", 10, twice)
    assert not matches(w2, ROWS["em_linear_sit_sigma"][2].split()[1])


CONVERGING = [name for name in ROWS if not name.startswith(("renoise", "fixed_q"))]


@pytest.mark.parametrize("name", CONVERGING)
def test_transitions_of_an_sde_converge_with_their_order(name):
    coarse, fine = (COMMITTED[name]["w2"][str(n)] for n in (80, 320))
    slope = math.log(coarse / fine) / math.log(4.0)
    if METHODS[ROWS[name][0].method].order == 1:
        assert 0.75 < slope < 1.4
    else:  # the last step, from a first sigma that falls with 1 / N, is of another order
        assert slope > 1.25


@pytest.mark.parametrize("name", ["renoise", "fixed_q_cps_0.7"])
def test_a_fixed_q_does_not_converge_to_the_data(name):
    """Which is why a fixed q is for searching, and finishing is by the ODE."""
    coarse, fine = (COMMITTED[name]["w2"][str(n)] for n in (80, 320))
    assert fine > 0.3
    assert fine > 0.9 * coarse


UPWARD = uniform(400, start=0.9, end=0.05)[::-1]
LAWS = {
    "ode": ODE,
    "constant_k": Transition(noise_law("constant_k")),
    "sit_sigma": Transition(noise_law("sit_sigma")),
    "euler_maruyama": Transition(noise_law("constant_k"), "euler_maruyama", "trigonometric"),
}


def gap_upward(transition, sigmas, std):
    """Distance of mean and std from the marginal at .9, starting with the marginal at .05."""
    data = gaussian(0.5, std)
    mean, spread = propagate(transition, sigmas, data, *data.moments(0.05))
    right = data.moments(0.9)
    return math.hypot(mean - right[0], spread - right[1])


@pytest.mark.parametrize("std", STDS)
@pytest.mark.parametrize("law", LAWS)
def test_marginals_are_kept_upward_too(law, std):
    coarse, fine = (gap_upward(LAWS[law], sigmas, std) for sigmas in (UPWARD[::4], UPWARD))
    assert fine < 0.02
    assert fine < coarse / 2.5


@pytest.mark.parametrize("law", [law for law in LAWS if law != "ode"])
@pytest.mark.parametrize("mutant", MUTANTS)
def test_broken_transitions_lose_the_marginals_upward(law, mutant):
    assert gap_upward(Broken(LAWS[law], MUTANTS[mutant]), UPWARD, 1.0) > 0.05


@pytest.mark.parametrize("std", STDS)
def test_the_start_of_a_vp_run_hardly_matters(std):
    """N(0, 1) in linear or in VP coordinates, or the exact marginal: k = 1 forgets which."""
    transition, sigmas = ROWS["em_vp_half_beta"][0], in_interpolant("vp", 20)
    data = gaussian(0.5, std)
    starts = [(0.0, 1.0), (0.0, START_STD["em_vp_rbf_reference"]), data.moments(sigmas[0])]
    ends = [propagate(transition, sigmas, data, *start) for start in starts]
    for other in ends[1:]:
        assert other == pytest.approx(ends[0], abs=5e-5)
