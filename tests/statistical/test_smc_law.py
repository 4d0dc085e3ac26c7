"""SMC samples the tilted law: exp(lam x) N(0, 1) is N(lam, 1), and Z is exp(lam^2 / 2).

The particles move by a kernel that keeps N(0, 1) exactly, so nothing but the weights is on trial.
For every function f, E[Z_hat sum W f(x)] = Z E_tilted[f(x)] exactly, with any number of particles,
any potential, any scheme, and whether or not particles are resampled.
"""

import itertools
import math
import statistics
from random import Random

import pytest
import torch
from toy import SIGMAS, Toy, make_search, rare_mode

from flowsearch.samplers.search import BestOfN, Budget, SequentialMonteCarlo, Trace
from flowsearch.samplers.search.protocol import Node
from flowsearch.samplers.search.strategies import smc as module
from flowsearch.samplers.search.strategies.resampling import SCHEMES
from flowsearch.samplers.search.strategies.smc import POTENTIALS, RESAMPLE, TEMPERING, Population
from flowsearch.samplers.stepping.guidance import Guidance
from flowsearch.samplers.stepping.transition import fixed_q

LAM = 0.8
KEPT = 0.7
RUNS = 1500
STEPS = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)


class Alone:
    """A run of one pass without a model: x is a number, and its score is x."""

    item = chain = pass_ = 0
    chains = 1
    sigmas = STEPS
    transition = fixed_q(0.5)
    sample_cost = len(STEPS) - 1

    def __init__(self, seed):
        self.seed = seed
        self.gauss = Random(f"noise {seed}").gauss
        self.x = {}
        self.told = []

    def remaining(self):
        return 10**9

    def cost(self, moves):
        return sum(move.to > 0.0 for move in moves)

    def finish_cost(self, sigma):
        return 0

    def random(self, *key):
        return Random(f"{self.seed} {key}")

    def plain(self):
        return []

    def choose(self, nodes, why, weights=None):
        if weights is not None:
            self.told.append((why, [node.score for node in nodes], weights))

    def draw(self, move):
        z = self.gauss(0.0, 1.0)
        x = z if move.parent is None else KEPT * self.x[move.parent.id] + math.sqrt(1 - KEPT**2) * z
        node = Node(len(self.x), 0, move.to, None, x if move.score else None)
        self.x[node.id] = x
        return node

    def play(self, strategy):
        """Return (Z_hat, scores, weights) of the finished particles."""
        steps = strategy.search(self)
        moves = next(steps)
        while True:
            try:
                moves = steps.send([self.draw(move) for move in moves])
            except StopIteration:
                why, scores, weights = self.told[-1]
                return math.exp(float(why.split("log Z ")[1])), scores, weights


def settings(**changes):
    usual = {"particles": 8, "strength": LAM, "score_below": 0.85, "sigma_low": 0.0, "q": None}
    return SequentialMonteCarlo(**{**usual, **changes})


class Twisted(Alone):
    """Draws are shifted by what the reward's gradient says of the finished picture, or by more."""

    by = 1.0

    def draw(self, move):
        if move.parent is None:
            return super().draw(move)
        z, left = self.gauss(0.0, 1.0), STEPS[::-1].index(move.to)
        b = self.by * LAM * math.sqrt(1 - KEPT**2) * KEPT**left
        x = KEPT * self.x[move.parent.id] + math.sqrt(1 - KEPT**2) * (z + b)
        weight = -b * z - 0.5 * b * b
        node = Node(len(self.x), 0, move.to, None, x if move.score else None, weight)
        self.x[node.id] = x
        return node


class TwistedTooFar(Twisted):
    by = 2.5


def worst(strategy, runs=RUNS, alone=Alone):
    """Return the largest deviation from the tilted law in standard errors: Z, mean, variance."""
    lam = strategy.strength
    z = math.exp(lam * lam / 2.0)
    rows = []
    for seed in range(runs):
        estimate, scores, weights = alone(seed).play(strategy)
        pairs = [*zip(scores, weights, strict=True)]
        mean = math.fsum(w * (x - lam) for x, w in pairs)
        square = math.fsum(w * ((x - lam) ** 2 - 1.0) for x, w in pairs)
        rows.append((estimate - z, estimate * mean, estimate * square))
    errors = [statistics.stdev(column) / math.sqrt(runs) for column in zip(*rows, strict=True)]
    means = [statistics.fmean(column) for column in zip(*rows, strict=True)]
    return max(abs(mean) / error for mean, error in zip(means, errors, strict=True))


# every choice of one with every choice of another: what three have in common is their product alone
SQUARE = [
    (potential, resample, [*TEMPERING][(row + column) % len(TEMPERING)])
    for row, potential in enumerate(POTENTIALS)
    for column, resample in enumerate(RESAMPLE)
]


def test_every_two_choices_meet():
    kinds = (POTENTIALS, RESAMPLE, TEMPERING)
    for a, b in itertools.combinations(range(3), 2):
        pairs = {(row[a], row[b]) for row in SQUARE}
        assert pairs == {*itertools.product(kinds[a], kinds[b])}


@pytest.mark.parametrize(("potential", "resample", "tempering"), SQUARE)
def test_the_tilted_law_and_its_constant_are_exact(potential, resample, tempering):
    choices = {"potential": potential, "resample": resample, "tempering": tempering}
    # the sum's targets on the way are much sharper than the last one: few particles carry it all,
    # and with a strong reward the error itself cannot be estimated
    assert worst(settings(strength=0.3 if potential == "sum" else LAM, **choices)) < 5.0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_gives_the_same_law(scheme):
    assert worst(settings(scheme=scheme, resample="always")) < 5.0


@pytest.mark.parametrize("particles", [1, 2, 3, 20])
def test_any_number_of_particles_gives_the_same_law(particles):
    assert worst(settings(particles=particles, resample="always", ess_threshold=0.9)) < 5.0


@pytest.mark.parametrize("twist", [Twisted, TwistedTooFar])
@pytest.mark.parametrize("resample", ["adaptive", "never"])
def test_twisted_draws_give_the_same_law(twist, resample):
    assert worst(settings(resample=resample), 600, twist) < 5.0


def test_a_twist_makes_the_estimate_more_certain():
    def spread(alone):
        logs = [math.log(alone(seed).play(settings(tempering="none"))[0]) for seed in range(200)]
        return statistics.stdev(logs)

    assert spread(Twisted) < 0.5 * spread(Alone)


# ---- mutants ----


class DropsDraws(Population):
    """It forgets that draws were twisted."""

    def weigh(self, scores, progress, drawn=None):
        super().weigh(scores, progress)


def test_a_dropped_weight_of_twisted_draws_is_seen(monkeypatch):
    monkeypatch.setattr(module, "Population", DropsDraws)
    assert worst(settings(), 600, Twisted) > 6.0


class DropsWeights(Population):
    """Where it does not resample it forgets the weights, as published code does."""

    def weigh(self, scores, progress, drawn=None):
        self.log_w = [-math.log(self.count)] * self.count
        super().weigh(scores, progress, drawn)


class LeavesProducts(Population):
    """Resampled particles keep the product of potentials of their place, not of their ancestor."""

    def resample(self, random):
        kept = self.log_g
        ancestors = super().resample(random)
        self.log_g = kept
        return ancestors


class NoCorrection(Population):
    """The finished picture's potential is exp(lam r(x0)), not divided by what was there before."""

    def weigh(self, scores, progress, drawn=None):
        if progress >= 1.0:
            self.log_g = [0.0] * self.count
        super().weigh(scores, progress, drawn)


@pytest.mark.parametrize("mutant", [DropsWeights, LeavesProducts, NoCorrection])
def test_wrong_weights_are_seen(mutant, monkeypatch):
    monkeypatch.setattr(module, "Population", mutant)
    assert worst(settings(tempering="none", ess_threshold=0.7)) > 6.0


def test_dropping_the_weights_is_no_fault_where_every_step_resamples(monkeypatch):
    monkeypatch.setattr(module, "Population", DropsWeights)
    assert worst(settings(resample="always")) < 5.0


def test_a_cap_on_the_ancestors_is_seen(monkeypatch):
    """The last particle is never chosen."""

    def capped(weights, count, random):
        return [min(a, len(weights) - 2) for a in SCHEMES["systematic"](weights, count, random)]

    monkeypatch.setitem(module.SCHEMES, "multinomial", capped)
    few = settings(scheme="multinomial", resample="always", tempering="none", particles=4)
    assert worst(few) > 6.0


# ---- through the engine ----


class Stationary(Toy):
    """A model whose every move keeps N(0, 1), and whose reward is x: Alone, as a problem."""

    dim = 1

    def start(self, items, to, noise):
        return {"x": noise["start"], "denoised": noise["start"]}

    def move(self, items, state, sigma_from, to, transition, noise):
        return {"x": KEPT * state["x"] + math.sqrt(1.0 - KEPT**2) * noise["move"]}

    def predict(self, items, state, sigma):
        return {**state, "denoised": state["x"]}


def constants(toy, strategy, transition, items, evaluations, sigmas):
    """Return an estimate of Z from each item's first pass."""
    trace = Trace()
    make_search(
        toy, strategy, sigmas, transition, Budget(evaluations), items=range(items),
        rows_per_call=4096, on_event=trace,
    ).run()  # fmt: skip
    last = {row["item"]: row for row in trace.record["chosen"] if row["weights"]}
    assert len(last) == items
    return [math.exp(float(row["why"].split("log Z ")[1])) for row in last.values()]


def test_the_engine_gives_the_same_constant():
    toy = Stationary(lambda item, x: float(x[0]))
    strategy = settings(plain=False, score_below=0.85)
    found = constants(toy, strategy, fixed_q(0.5), 400, 8 * (len(STEPS) - 1), STEPS)
    error = statistics.stdev(found) / math.sqrt(len(found))
    assert abs(statistics.fmean(found) - math.exp(LAM * LAM / 2.0)) < 5.0 * error


def test_z_is_what_plain_samples_say():
    """On the mixture, by the real transition: E[Z_hat] = E[exp(lam r(x0))] of single samples."""

    def reward(item, x):
        return rare_mode(0, x)

    sde, lam = fixed_q(0.8), 1.0
    strategy = settings(plain=False, strength=lam, sigma_low=0.25, particles=6)
    found = constants(Toy(reward), strategy, sde, 300, 63, SIGMAS)
    singles = make_search(
        Toy(reward), BestOfN(), SIGMAS, sde, Budget(10), items=range(2000), rows_per_call=4096,
        seed=5,
    ).run()  # fmt: skip
    plain = [math.exp(lam * one.winners[0].scores.value) for one in singles.items]
    error = math.hypot(*(statistics.stdev(v) / math.sqrt(len(v)) for v in (found, plain)))
    assert abs(statistics.fmean(found) - statistics.fmean(plain)) < 5.0 * error
    assert error < 0.1 * statistics.fmean(plain)
    assert torch.isfinite(singles.items[0].winners[0].state["x"]).all()


def first(item, x):
    return float(x[0])


def slope(item, x):
    return torch.eye(4, dtype=x.dtype)[0]


def constants_of(guidance):
    transition = fixed_q(0.6).guided(guidance)
    toy = Toy(first, gradient=slope)
    strategy = settings(plain=False, strength=1.0, sigma_low=0.25, particles=4)
    return constants(toy, strategy, transition, 100, 4 * (len(SIGMAS) - 1) + 3, SIGMAS)


def test_twisted_draws_of_the_mixture_are_made_up_for(monkeypatch):
    """By the real transition and the real gradient; and a mutant that drops their weights."""
    twist = Guidance("twist", 1.0, trust=1.0)
    free, twisted = constants_of(None), constants_of(twist)
    monkeypatch.setattr(module, "Population", DropsDraws)
    wrong = constants_of(twist)

    def gap(found):
        error = math.hypot(*(statistics.stdev(v) / math.sqrt(len(v)) for v in (found, free)))
        return abs(statistics.fmean(found) - statistics.fmean(free)) / error

    assert gap(twisted) < 5.0
    assert gap(wrong) > 6.0


def test_a_tenth_of_the_particles_is_enough_where_draws_are_twisted():
    """Of the exact law; benchmarks/_tilted_laws.py has Gaussians and mixtures by a denoiser."""

    def spread(alone, particles):
        strategy = settings(particles=particles, tempering="none")
        logs = [math.log(alone(seed).play(strategy)[0]) for seed in range(150)]
        return statistics.stdev(logs)

    assert spread(Twisted, 4) < spread(Alone, 40)
