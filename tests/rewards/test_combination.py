"""Combined rewards keep the order that their rule promises, and refuse what would break it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsearch.rewards.base import Assessment, RewardSpec, assess
from flowsearch.rewards.combination import Unit, combine, units
from flowsearch.rewards.latent import LatentReward

INF = float("inf")
PICTURES = torch.zeros(3, 8, 8, 3)


class Fixed:
    """Gives the values it was made with, whatever the pictures."""

    def __init__(self, values, low=-INF, high=INF, name="fixed", **spec):
        self.values = torch.tensor(values, dtype=torch.float32)
        self.spec = RewardSpec(name, "a test's", low, high, **spec)
        self.calls = 0

    def score(self, images):
        self.calls += 1
        return self.values[: images.shape[0]].clone()


def scored(rewards, rule, **given):
    """The combination's values of as many pictures as the first reward has values."""
    images = torch.zeros(len(rewards[0].values), 2, 2, 3)
    return combine(rewards, rule, **given).score(images)


finite = st.floats(-100, 100, width=32)
part = st.floats(0, 1, width=32)


@given(st.lists(st.tuples(finite, finite), min_size=2, max_size=8), st.floats(0.01, 50))
@settings(max_examples=60, deadline=None)
def test_a_sum_is_the_sum_and_rises_with_each_member(rows, weight):
    first, second = (list(column) for column in zip(*rows, strict=True))
    values = scored([Fixed(first), Fixed(second)], "weighted_sum", weights=(weight, 2.0))
    wanted = weight * np.float64(np.float32(first)) + 2.0 * np.float64(np.float32(second))
    assert torch.equal(values, torch.tensor(wanted).float())
    more = scored(
        [Fixed([value + 1.0 for value in first]), Fixed(second)],
        "weighted_sum",
        weights=(weight, 2.0),
    )
    assert bool((more >= values).all())


@pytest.mark.parametrize("rule", ["minimum", "product", "weighted_sum"])
@given(st.lists(st.tuples(part, part, part), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_no_rule_falls_when_a_member_rises(rule, rows):
    first, second, extra = (list(column) for column in zip(*rows, strict=True))
    raised = [min(1.0, a + b) for a, b in zip(first, extra, strict=True)]
    before, after = (scored([Fixed(v, 0, 1), Fixed(second, 0, 1)], rule) for v in (first, raised))
    assert bool((after >= before).all())


def test_minimum_and_product_by_hand():
    rewards = [Fixed([1.0, 3.0], -1.0, 3.0), Fixed([0.5, 0.25], 0.0, 1.0)]
    assert scored(rewards, "product").tolist() == [0.25, 0.25]
    assert scored(rewards, "minimum").tolist() == [0.5, 0.25]


def test_weight_zero_is_neither_asked_nor_needs_a_scale():
    off = Fixed([math.nan, 1.0, 2.0])
    on = Fixed([3.0, 1.0, 2.0], scale=0.5)
    found = combine([off, on], "weighted_sum", (0.0, 1.0), "spec").assess(PICTURES)
    assert found.values.tolist() == [6.0, 2.0, 4.0]
    assert (off.calls, on.calls) == (0, 1)
    assert found.parts[0] == {"fixed 2": 3.0}, "a name depends on what is switched off"


@given(st.floats(0.001, 1000), st.floats(-50, 50))
@settings(max_examples=40, deadline=None)
def test_calibrated_values_do_not_depend_on_a_members_unit(factor, shift):
    base = [1.0, 2.0, 4.0]
    plain = Fixed(base)
    other = Fixed([factor * value + shift for value in base])
    second = Fixed([5.0, -1.0, 0.0])
    values = [
        combine([r, second], "weighted_sum", (), "calibration", PICTURES).score(PICTURES)
        for r in (plain, other)
    ]
    assert torch.allclose(*values, atol=2e-3, rtol=2e-3)


def test_scales_of_the_spec_divide_and_measured_ones_stay():
    assert scored([Fixed([1.0], scale=4.0), Fixed([1.0], scale=2.0)], "weighted_sum",
                  normalisation="spec").item() == 0.75  # fmt: skip
    reward = Fixed([1.0, 3.0, 5.0])
    combination = combine([reward], "weighted_sum", (), "calibration", PICTURES)
    assert combination.score(PICTURES).tolist() == [-1.0, 0.0, 1.0]
    reward.values = torch.tensor([103.0, 203.0, 303.0])
    assert combination.score(PICTURES).tolist() == [50.0, 100.0, 150.0], "the scale ran on"
    assert units({"a": reward}, "none") == [Unit()]


# --- lexicographic

counts = st.integers(-40, 0)
colours = st.sampled_from([-1.5, -1.0, -0.5, 0.0, 0.5, 1.0])
beauty = st.integers(-8, 8).map(lambda n: n / 4.0)
rows = st.lists(st.tuples(counts, colours, beauty), min_size=2, max_size=12)


def in_order(values, *, ends=(-INF, INF), middle=(-1.5, 1.0)):
    first, second, third = (list(column) for column in zip(*values, strict=True))
    return scored(
        [
            Fixed(first, -INF, 0.0, quantum=1.0),
            Fixed(second, *middle, quantum=0.5),
            Fixed(third, *ends),
        ],
        "lexicographic",
    )


@pytest.mark.parametrize("ends", [(-INF, INF), (-2.0, INF), (-INF, 2.0), (-2.0, 2.0)])
@pytest.mark.parametrize("middle", [(-1.5, 1.0), (-INF, 1.0), (-INF, INF)])
@given(rows)
@settings(max_examples=40, deadline=None)
def test_lexicographic_order_is_the_order_of_tuples(ends, middle, values):
    found = in_order(values, ends=ends, middle=middle).tolist()
    for a, x in zip(values, found, strict=True):
        for b, y in zip(values, found, strict=True):
            assert (a < b) == (x < y), (a, b, x, y)


@given(
    st.integers(-(2**14), 2**14 - 1),
    st.floats(-(2.0**100), 2.0**100, width=32),
    st.floats(-(2.0**100), 2.0**100, width=32),
    st.sampled_from([1.0, 0.1, 0.25, 3.0, 1e-6, 1e4]),
)
@settings(max_examples=200, deadline=None)
def test_the_first_always_wins_as_far_as_values_are_allowed(count, low, high, quantum):
    worse, better = scored(
        [Fixed([count * quantum, (count + 1) * quantum], quantum=quantum), Fixed([high, low])],
        "lexicographic",
    ).tolist()
    assert worse < better
    # and it can be read off: the value rounded down to the quantum
    levels = [math.floor(value / quantum + 1e-3) for value in (worse, better)]
    assert levels == [count, count + 1]


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=6))
@settings(max_examples=60, deadline=None)
def test_what_float32_cannot_tell_apart_is_equal_and_never_reversed(values):
    found = scored([Fixed([-9.0] * len(values), quantum=1.0), Fixed(values)], "lexicographic")
    order = np.argsort(values, kind="stable")
    assert bool((found[order].diff() >= 0).all())


def test_values_off_the_quantum_are_refused_and_noise_on_it_is_not():
    with pytest.raises(ValueError, match=r"fixed returned 0.4 for picture 1 of 2.*multiples"):
        scored([Fixed([0.0, 0.4], quantum=1.0), Fixed([0.0, 0.0])], "lexicographic")
    near = scored([Fixed([1.0, 1.005], quantum=1.0), Fixed([1.0, 0.99])], "lexicographic")
    assert near[0] > near[1], "rounding noise decided instead of the second reward"


def test_too_many_quanta_for_float32_are_refused():
    fine = Fixed([0.0], 0.0, 1.0, quantum=1e-6)
    with pytest.raises(ValueError, match=r"1e\+06 different values.*Put fixed last"):
        combine([fine, Fixed([0.0])], "lexicographic")
    each = Fixed([0.0], 0.0, 1.0, quantum=1e-3)
    with pytest.raises(ValueError, match="fixed, fixed 2 can have"):
        combine([each, each, Fixed([0.0])], "lexicographic")
    with pytest.raises(ValueError, match="at most 16384 of them"):
        scored([Fixed([-1e6], quantum=1.0), Fixed([0.0])], "lexicographic")


def test_a_smooth_reward_may_only_be_last():
    with pytest.raises(ValueError, match=r"beauty has no quantum.*Put it last"):
        combine([Fixed([0.0], name="beauty"), Fixed([0.0], quantum=1.0)], "lexicographic")


# --- what comes out


def test_the_range_is_that_of_the_values():
    rewards = [Fixed([0.0], -3.0, 0.0, quantum=1.0), Fixed([0.0], 0.0, 2.0, quantum=0.5)]
    spec = combine(rewards, "weighted_sum", (1.0, -2.0)).spec
    assert (spec.low, spec.high, spec.quantum) == (-7.0, 0.0, 1.0)
    spec = combine(rewards, "lexicographic").spec
    assert (spec.low, spec.high) == (-3.0, pytest.approx(0.99))
    spec = combine(rewards, "product").spec
    assert (spec.low, spec.high) == (0.0, 1.0)
    open_ = Fixed([0.0], -INF, 0.0, quantum=1.0)
    assert combine([open_, rewards[1]], "lexicographic").spec.low == -INF
    assert combine([open_, rewards[1]], "minimum").spec.high == 0.0


@pytest.mark.parametrize(
    ("quanta", "weights", "step"),
    [
        ((1.0, 1.0), (1.0, 0.5), 0.5),
        ((2.0, 3.0), (1.0, 1.0), 1.0),
        ((1.0, 1.0), (1.0, 1 / 3), 1 / 3),
        ((1.0, 1.0), (1.0, math.pi), 0.0),
        ((1.0, 0.0), (1.0, 1.0), 0.0),
    ],
)
def test_the_quantum_of_a_sum(quanta, weights, step):
    rewards = [Fixed([0.0], quantum=quantum) for quantum in quanta]
    assert combine(rewards, "weighted_sum", weights).spec.quantum == pytest.approx(step)


def test_it_is_as_good_as_its_members():
    sure = Fixed([0.0], has_gradient=True, licence="MIT", input_size=(64, 64))
    unsure = Fixed([0.0], deterministic=False, licence="Apache-2.0", input_size=(64, 64))
    spec = combine([sure, unsure], "weighted_sum").spec
    assert (spec.deterministic, spec.has_gradient) == (False, False)
    assert (spec.licence, spec.input_size) == ("MIT and Apache-2.0", (64, 64))
    assert combine([sure, sure], "minimum").spec.has_gradient
    assert combine([LatentReward("mean")], "minimum").spec.domain == "latent"


class Told(Fixed):
    def assess(self, images):
        values = self.score(images)
        parts = [{"cats": 2.0}] * len(values)
        return Assessment(values, parts, ["two cats", "", "three"][: len(values)])


def test_parts_and_notes_of_members_and_of_theirs():
    inner = combine([Told([1.0, 2.0, 3.0], name="vlm"), Fixed([1.0] * 3)], "weighted_sum")
    outer = combine([inner, Told([0.0] * 3, name="vlm")], "weighted_sum", (2.0, 1.0))
    found = assess(outer, PICTURES)
    assert found.parts[1] == {
        "combination": 3.0,
        "combination.vlm": 2.0,
        "combination.vlm.cats": 2.0,
        "combination.fixed": 1.0,
        "vlm": 0.0,
        "vlm.cats": 2.0,
    }
    assert found.notes == [
        "combination: vlm: two cats; vlm: two cats", "", "combination: vlm: three; vlm: three",
    ]  # fmt: skip
    assert found.values.tolist() == [4.0, 6.0, 8.0]


def test_equal_names_are_numbered_and_each_is_asked_once():
    rewards = [Fixed([1.0, 2.0, 3.0]), Fixed([5.0, 5.0, 5.0])]
    found = combine(rewards, "minimum").assess(PICTURES)
    assert found.parts[2] == {"fixed": 3.0, "fixed 2": 5.0}
    assert [reward.calls for reward in rewards] == [1, 1]


def test_members_models_are_its_own():
    class Net(Fixed):
        def get_models(self):
            return ["a"]

    class Patched(Fixed):
        patcher = "b"

    rewards = [Net([0.0]), Patched([0.0]), Fixed([0.0])]
    assert combine(rewards, "minimum").get_models() == ["a", "b"]


def test_drawings_of_members_are_laid_over_each_other():
    class Corner(Fixed):
        def __init__(self, row, colour):
            super().__init__([0.0])
            self.row, self.colour = row, colour

        def draw(self, images):
            assert not images.any(), "it was shown another's drawing"
            out = images.clone()
            out[:, self.row] = self.colour
            return out

    images = torch.zeros(1, 4, 4, 3)
    drawn = combine([Corner(0, 0.5), Fixed([0.0]), Corner(2, 1.0)], "minimum").draw(images)
    assert drawn[0, :, 0, 0].tolist() == [0.5, 0.0, 1.0, 0.0]
    assert not images.any()


# --- refusals


class Broken(Fixed):
    def score(self, images):
        raise self.error


@pytest.mark.parametrize("error", [ValueError("no"), torch.cuda.OutOfMemoryError("full")])
def test_a_member_that_raises_is_named_and_its_type_stays(error):
    broken = Broken([0.0], name="aesthetic")
    broken.error = error
    with pytest.raises(type(error), match=r"aesthetic \(reward 2 of 2\): (no|full)"):
        combine([Fixed([0.0] * 3), broken], "weighted_sum").score(PICTURES)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1.5])
def test_values_that_a_spec_excludes_are_refused(value):
    reward = Fixed([0.0, value, 0.0], 0.0, 1.0)
    with pytest.raises(ValueError, match=r"fixed \(reward 1 of 1\): it returned .* for picture 1"):
        combine([reward], "product").score(PICTURES)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (([], "minimum"), "at least one"),
        (([Fixed([0.0])], "median"), "the rule is 'median'"),
        (([Fixed([0.0])], "weighted_sum", (1.0, 2.0)), "2 weights were given for 1 rewards"),
        (([Fixed([0.0])], "weighted_sum", (0.0,)), "one must not be 0"),
        (([Fixed([0.0])], "weighted_sum", (math.inf,)), "must be finite"),
        (([Fixed([0.0])], "weighted_sum", (), "spec"), "not known for fixed"),
        (([Fixed([0.0])], "minimum", (), "calibration"), "was given 0"),
        (([Fixed([0.0])], "minimum", (), "running"), "one of"),
        (([Fixed([2.0] * 3)], "minimum", (), "calibration", PICTURES), "all 3 pictures .* get 2"),
        (([Fixed([0.0]), Fixed([0.0], 0.0, 1.0)], "product"), "range of fixed is not finite"),
        (([LatentReward("mean"), Fixed([0.0])], "minimum", (), "calibration", PICTURES),
         "latent scores latent, fixed_frames scores video"),
        (([object()], "minimum"), "was a object"),
    ],
)  # fmt: skip
def test_what_cannot_be_combined_is_refused_with_the_reason(given, why):
    with pytest.raises(ValueError, match=why):
        combine(*given)
