"""SMC: potentials, weights, tempering, and which particles move."""

import itertools
import json
import math
from random import Random

import pytest
from toy import SIGMAS, Scripted, Toy, make_search

from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.search import (
    Budget,
    SequentialMonteCarlo,
    Trace,
    Whole,
    strategy_from_json,
)
from flowsearch.samplers.search.strategies.resampling import SCHEMES
from flowsearch.samplers.search.strategies.smc import POTENTIALS, RESAMPLE, TEMPERING, Population
from flowsearch.samplers.stepping.transition import ODE, Transition, fixed_q

SMC = SequentialMonteCarlo


def run(strategy, evaluations, toy=None, transition=ODE, sigmas=SIGMAS, **more):
    trace = Trace()
    outcome = make_search(
        toy or Toy(), strategy, sigmas, transition, Budget(evaluations), on_event=trace, **more
    ).run()
    return outcome.items[0], trace


# ---- weights ----


@pytest.mark.parametrize("potential", POTENTIALS)
@pytest.mark.parametrize("tempering", TEMPERING)
@pytest.mark.parametrize("resample", [True, False])
def test_the_product_of_potentials_is_the_final_reward_alone(potential, tempering, resample):
    settings = SMC(strength=2.5, potential=potential, tempering=tempering)
    population, random = Population(settings, 6), Random(4)
    for j in range(1, 6):
        population.weigh([random.gauss(0.0, 2.0) for _ in range(6)], j / 6)
        if resample and j % 2:
            population.resample(random)
    final = [random.gauss(0.0, 2.0) for _ in range(6)]
    population.weigh(final, 1.0)
    assert population.log_g == pytest.approx([2.5 * r for r in final], abs=1e-9)


def test_hand_worked_potentials():
    wanted = {
        "difference": [[1.0, 3.0, 2.0], [2.0, -1.0, 1.0]],
        "max": [[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]],
        "sum": [[1.0, 4.0, 6.0], [2.0, 1.0, 2.0]],
    }
    for potential, rows in wanted.items():
        population = Population(SMC(strength=2.0, potential=potential, tempering="none"), 2)
        product = [0.0, 0.0]
        for j, scores in enumerate([[1.0, 2.0], [3.0, -1.0], [2.0, 1.0]]):
            population.weigh(scores, (j + 1) / 4)
            for i in (0, 1):
                level = 2.0 * rows[i][j]
                product[i] = level if potential == "difference" else product[i] + level
            assert population.log_g == pytest.approx(product)


class Middle(Random):
    """Uniform numbers in the middle: systematic resampling then rounds."""

    def random(self):
        return 0.5


def test_descendants_go_on_with_their_ancestors_scores():
    wanted = {"difference": [2.0 * 4.0] * 2, "max": [2.0 * 9.0] * 2, "sum": [2.0 * (9.0 + 4.0)] * 2}
    for potential, increments in wanted.items():
        population = Population(SMC(strength=2.0, potential=potential, tempering="none"), 2)
        population.weigh([-50.0, 9.0], 0.3)
        assert population.resample(Middle()) == [1, 1]
        before = population.log_g
        assert before == [18.0, 18.0]
        population.weigh([4.0, 4.0], 0.6)
        after = [b + i for b, i in zip(before, increments, strict=True)]
        assert population.log_g == pytest.approx(increments if potential == "difference" else after)


def test_without_resampling_weights_are_kept_and_z_is_their_mean():
    population = Population(SMC(strength=1.5, tempering="linear"), 3)
    for j, scores in enumerate([[0.0, 5.0, 1.0], [2.0, 2.0, -700.0], [0.3, 0.1, 0.2]]):
        population.weigh(scores, (j + 1) / 3)
    raw = [math.exp(1.5 * r) for r in (0.3, 0.1, 0.2)]
    assert population.weights() == pytest.approx([w / sum(raw) for w in raw])
    assert population.log_z == pytest.approx(math.log(sum(raw) / 3))
    assert population.ess() == pytest.approx(sum(raw) ** 2 / sum(w * w for w in raw))


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e6])
def test_weights_are_computed_in_logarithms(scale):
    population = Population(SMC(strength=1000.0, tempering="none"), 4)
    population.weigh([-5.0 * scale, scale, scale, 0.0], 0.5)
    assert sum(population.weights()) == pytest.approx(1.0)
    assert 1.0 <= population.ess() <= 4.0 + 1e-9
    assert math.isfinite(population.log_z)


@pytest.mark.parametrize("potential", POTENTIALS)
def test_adaptive_tempering_stops_where_the_sample_size_falls(potential):
    settings = SMC(particles=20, strength=50.0, potential=potential, ess_threshold=0.4)
    population, random = Population(settings, 20), Random(1)
    strengths = []
    for j in range(1, 9):
        population.weigh([random.gauss(0.0, 1.0) for _ in range(20)], j / 9)
        strengths.append(population.lam)
        short = population.ess() < 0.4 * 20
        if short:
            population.resample(random)
        assert short == (population.lam < 50.0)
    assert 0.0 < strengths[0] < 50.0
    assert strengths == sorted(strengths)


def test_adaptive_tempering_leaves_a_weak_reward_alone():
    population = Population(SMC(strength=0.1), 8)
    population.weigh([0.1 * i for i in range(8)], 0.2)
    assert population.lam == 0.1


# ---- moves ----


def test_particles_move_from_the_ancestors_that_were_drawn():
    settings = SMC(particles=4, strength=50.0, tempering="none", resample="always", plain=False)
    rewards = [0.0, 0.0, 9.0, 0.0]  # the third has all the weight, each time
    _, trace = run(settings, 45, Scripted(rewards * 7))
    rows = [row for row in trace.record["evaluated"] if row["phase"] == "search"]
    by_sigma = {sigma: [r for r in rows if r["sigma"] == sigma] for sigma in SIGMAS}
    for sigma_from, to in itertools.pairwise(SIGMAS):
        parents = [row["parent"] for row in by_sigma[to]]
        ids = [row["id"] for row in by_sigma[sigma_from]]
        assert parents == ([ids[2]] * 4 if 0.4 < sigma_from <= 0.9 else ids)


def test_particles_are_weighed_in_the_window_and_finished():
    item, trace = run(SMC(particles=4, sigma_low=0.45, score_below=0.75), 56)
    rows = [row for row in trace.record["evaluated"] if row["chain"] == 0]
    assert {row["sigma"] for row in rows if row["scores"]} == {0.7, 0.6, 0.5, 0.0}
    assert item.ledger.phases == {"plain": 10, "search": 40}
    weighed = [row for row in trace.record["chosen"] if row["weights"]]
    assert [len(row["weights"]) for row in weighed] == [4] * 4
    assert all(sum(row["weights"]) == pytest.approx(1.0) for row in weighed)
    assert "ESS" in weighed[0]["why"]
    assert "log Z" in weighed[0]["why"]


def test_the_last_step_parts_no_copies():
    levels = SMC(sigma_low=0.0, score_below=1.0).levels(SIGMAS, fixed_q(0.85))
    assert [SIGMAS[i] for i in levels] == SIGMAS[:-2]  # from .1 every copy goes to its prediction


def test_a_small_budget_takes_fewer_particles():
    for evaluations in range(21, 91, 5):
        _, trace = run(SMC(particles=8), evaluations)
        first = [r for r in trace.record["evaluated"] if r["chain"] == 0 and r["pass_"] == 0]
        starts = [row for row in first if row["parent"] is None]
        assert len(starts) == min(8, max((evaluations - 10 - 4) // 10, 1))
        assert sum(row["sigma"] == 0.0 for row in first) == len(starts)


def test_what_is_left_of_a_budget_goes_into_another_pass():
    item, trace = run(SMC(particles=4), 127)
    assert item.ledger.evaluations == 120
    assert item.why == "budget"
    weighed = [len(row["weights"]) for row in trace.record["chosen"] if row["weights"]]
    assert sorted(set(weighed)) == [3, 4]


# ---- refusals ----


def test_copies_that_never_part_are_refused():
    with pytest.raises(ValueError, match="several draws of an ODE are one picture"):
        run(SMC(q=None), 100)
    early = Transition(noise_law("curve", points=[(0.94, 0.0), (0.95, 0.5), (1.0, 0.5)]))
    with pytest.raises(ValueError, match="never part again"):
        run(SMC(q=None, score_below=0.8), 100, transition=early)


def test_a_choice_that_is_forgotten_at_once_is_not_made():
    k_1 = Transition(noise_law("constant_k", k=1.0))
    assert SMC(q=None, score_below=1.0).levels(SIGMAS, k_1)[0] == 1
    assert SMC(q=None, score_below=1.0).levels(SIGMAS, fixed_q(0.5))[0] == 0
    with pytest.raises(ValueError, match="a choice there is lost"):
        run(SMC(q=None, score_below=1.0, sigma_low=0.95), 100, transition=k_1)


def test_what_cannot_be_run_is_refused():
    with pytest.raises(ValueError, match="euler can only be run whole"):
        run(SMC(), 100, transition=Whole("euler"))
    with pytest.raises(ValueError, match="no particle would be weighed before it is finished"):
        run(SMC(sigma_low=0.41, score_below=0.45), 100)


@pytest.mark.parametrize(
    "wrong",
    [
        {"particles": 0}, {"strength": -1.0}, {"strength": math.inf}, {"strength": math.nan},
        {"ess_threshold": 1.5}, {"potential": "min"}, {"resample": "maybe"}, {"scheme": "best"},
        {"tempering": "cold"}, {"q": -0.1}, {"sigma_low": 0.9}, {"ess_threshold": 1.0},
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="smc: "):
        SMC(**wrong)


def test_settings_survive_json():
    for potential, resample, scheme in itertools.product(POTENTIALS, RESAMPLE, SCHEMES):
        settings = SMC(potential=potential, resample=resample, scheme=scheme, q=None)
        assert strategy_from_json(json.loads(json.dumps(settings.to_json()))) == settings
