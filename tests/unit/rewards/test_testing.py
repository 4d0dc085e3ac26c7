"""Mutants: every law of rewards is broken by a reward made for it, and names what is broken."""

import pickle
import random
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from flowsearch.rewards.base import Assessment
from flowsearch.rewards.gradient import Gradient, gradient_of, value_and_gradient
from flowsearch.rewards.testing import (
    MOST_NOTE,
    MOST_PARTS,
    GradientLaws,
    RewardLaws,
    doubled,
    pictures,
)


class Brightness:
    """Keeps every law; the others break one each."""

    spec = SimpleNamespace(name="brightness", low=0.0, high=1.0)

    def score(self, images):
        return images.float().mean(dim=(1, 2, 3))


def broken(spec=None, **methods):
    """A reward with other methods, or another description."""
    given = {**vars(Brightness.spec), **(spec or {})}
    return type("Broken", (Brightness,), {**methods, "spec": SimpleNamespace(**given)})()


def scoring(function, **spec):
    return broken(spec, score=lambda self, images: function(Brightness.score(self, images), images))


class Counting(Brightness):
    calls = 0

    def score(self, images):
        self.calls += 1
        return super().score(images) / self.calls


def write(values, images):
    images.mul_(0.5)
    return values


def rewrite(values, images):
    images.copy_(images.clone())
    return values


def seed(values, images):
    torch.manual_seed(0)
    return values


def switch(values, images):
    torch.set_float32_matmul_precision("medium")
    return values


def legacy(values, images):
    return values + 0.0 * np.random.rand()  # noqa: NPY002 - that is the fault


def keep(values, images):
    return torch.tensor(pickle.loads(pickle.dumps(values.tolist())))


def in_main_thread(values, images):
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("signals work in the main thread only")
    return values


def explain(note="fine", part=0.5, parts=1, shift=0.0):
    def assess(self, images):
        values = self.score(images) + shift
        said = [{f"p{i}": part for i in range(parts)} for _ in images]
        return Assessment(values, said, [note] * len(images))

    return broken(assess=assess)


def drawing(function):
    return broken(draw=lambda self, images: function(images))


class Sloped(Brightness):
    """Keeps the laws of gradients, with a network; the others break one each."""

    spec = SimpleNamespace(name="sloped", has_gradient=True)

    def __init__(self):
        torch.manual_seed(5)
        self.network = torch.nn.Linear(64 * 64 * 3, 1).requires_grad_(False)

    def score(self, images):
        rows = images.flatten(1).to(self.network.weight.dtype)
        return self.network(rows)[:, 0].tanh()

    def gradient(self, images):
        return value_and_gradient(self.score, images)


def sloped(change, **spec):
    """Another gradient: change(the right one, images, the reward) -> Gradient."""

    def gradient(self, images):
        return change(Sloped.gradient(self, images), images, self)

    given = SimpleNamespace(**{**vars(Sloped.spec), **spec})
    return type("Broken", (Sloped,), {"gradient": gradient, "spec": given})()


def tilted(function):
    """Right values, and a gradient that is a function of the right one and the pictures."""
    return sloped(lambda right, images, _: Gradient(right.values, function(right.gradient, images)))


def upper(gradient, _):
    """The lower half is left out, as by a detach."""
    return gradient * (torch.arange(64)[:, None, None] < 32)


def below(values, images):
    """The mean of all, of whose gradient the upper half is left out by a detach."""
    images = images.float()
    return (images[:, :32].detach() + images[:, 32:]).mean(dim=(1, 2, 3))


def asking(right, images, reward):
    reward.network.requires_grad_()
    return right


def rewritten(right, images, _):
    images.mul_(0.5)
    return right


def drawn(right, images, _):
    torch.rand(1)
    return right


def in_no_inference(right, images, _):
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("not in this thread")
    return right


MUTANTS = {
    "test_its_description_is_whole": [
        (broken({"name": "Bright Ness"}), "snake case"),
        (broken({"low": 2.0}), "not below"),
        (broken({"quantum": -1.0}), "negative"),
        (broken({"domain": "smell"}), "is none of"),
    ],
    "test_its_prompt_changes_its_values": [(Brightness(), "not used")],
    "test_a_row_has_one_finite_value_in_the_range": [
        (scoring(lambda values, _: values.mean()), "one value a picture"),
        (scoring(lambda values, _: values / 0.0), "not finite"),
        (scoring(lambda values, _: (values * 4).long()), "not floating"),
        (scoring(lambda values, _: values - 1.0), "below low"),
        (scoring(lambda values, _: values + 1.0), "above high"),
    ],
    "test_values_lie_on_the_quantum": [(broken({"quantum": 0.25}), "no multiples")],
    "test_a_row_has_its_value_whatever_its_place_and_batch": [
        (scoring(lambda values, _: values / values.sum()), "alone"),
        (scoring(lambda values, _: values / len(values) ** 0.5), "alone"),
        (scoring(lambda values, _: values.sort().values), "in another order"),
        (Counting(), "alone"),
    ],
    "test_no_rows_have_no_values": [
        (scoring(lambda values, _: values if len(values) else torch.zeros(1)), "no rows have"),
    ],
    "test_type_and_layout_of_the_rows_do_not_matter": [
        (scoring(lambda values, im: values / (im.dtype is not torch.bfloat16)), "bfloat16 rows"),
        (scoring(lambda values, im: values * (1 - im.stride()[-1] * 0.1)), "a view has other"),
    ],
    "test_what_is_not_finite_is_no_ordinary_value": [
        (scoring(lambda values, _: values.nan_to_num()), "a row of NaN has"),
    ],
    "test_its_input_is_left_alone": [
        (scoring(write), "changed the rows"),
        (scoring(rewrite), "wrote into"),
    ],
    "test_the_process_is_left_as_it_was": [
        (scoring(seed), "torch's generator"),
        (scoring(switch), "a setting of torch"),
        (scoring(lambda values, _: values + 0 * random.random()), "Python's generator"),
        (scoring(legacy), "numpy's generator"),
    ],
    "test_it_pickles_nothing": [(scoring(keep), "a pickle")],
    "test_it_scores_where_the_host_calls_it": [(scoring(in_main_thread), "main thread")],
    "test_what_it_explains_is_what_it_scores": [
        (explain(shift=0.1), "other values"),
        (explain(note="x" * (MOST_NOTE + 1)), "characters"),
        (explain(note=None), "no text"),
        (explain(part=1), "no float"),
        (explain(part=float("nan")), "not JSON compliant"),
        (explain(parts=MOST_PARTS + 1), "parts of one value"),
    ],
    "test_what_it_draws_are_pictures": [
        (drawing(lambda images: images[:, 1:]), "drew"),
        (drawing(lambda images: images / 0.0), "not finite"),
        (drawing(lambda images: images.mul_(0.5)), "it drew on"),
    ],
    "test_a_gradient_is_where_it_is_said": [
        (scoring(lambda values, _: values * 0.0, has_gradient=True), "0 everywhere"),
        (scoring(lambda values, _: values.detach(), has_gradient=True), "autograd"),
        (sloped(lambda right, *_: right, has_gradient=False), "is not said"),
        (tilted(lambda gradient, _: gradient.float()), "has type"),
    ],
    "test_what_is_differentiated_is_what_is_scored": [
        (sloped(lambda right, *_: Gradient(right.values + 0.1, right.gradient)), "are scored"),
    ],
    "test_a_gradient_is_the_slope_of_its_values": [
        (tilted(lambda gradient, _: gradient * 1.01), "along any way"),
        (tilted(upper), "along any way"),
        (tilted(lambda gradient, _: gradient.flip(2)), "along any way"),
        (scoring(below, has_gradient=True), "along blocks"),
        (
            scoring(
                lambda values, im: (im.float() - (0.9 * im.float()).detach()).mean((1, 2, 3)) * 9,
                has_gradient=True,
            ),
            "along itself",
        ),
    ],
    "test_a_row_has_its_gradient_whatever_its_place_and_batch": [
        (tilted(lambda gradient, _: gradient / len(gradient)), "alone"),
        (tilted(lambda g, _: g if len(g) < 4 else g.flip(0)), "order"),
    ],
    "test_no_rows_have_no_gradient": [
        (tilted(lambda gradient, _: gradient if len(gradient) else gradient[0]), "out of bounds"),
    ],
    "test_a_gradient_is_there_where_the_host_asks": [(sloped(in_no_inference), "thread")],
    "test_a_gradient_changes_nothing": [
        (sloped(asking), "changed its networks"),
        (sloped(rewritten), "changed the rows"),
        (sloped(drawn), "torch's generator"),
    ],
}


def obey(name, reward, monkeypatch):
    """Put a reward before one law, as pytest would."""
    rows = pictures()
    has = {"reward": reward, "other": reward, "rows": rows, "monkeypatch": monkeypatch}
    has["values"] = Brightness().score(rows) if name in LEFT else reward.score(rows.clone())
    has |= {"stands_in": False, "exact": doubled(reward)}
    law = getattr(RewardLaws(), name)
    code = law.__func__.__code__
    wanted = code.co_varnames[1 : code.co_argcount]
    if "found" in wanted:
        has["found"] = gradient_of(Sloped() if name in LEFT else reward, rows.clone())
    law(**{key: has[key] for key in wanted})


LEFT = ("test_its_input_is_left_alone", "test_the_process_is_left_as_it_was")
LEFT += ("test_a_gradient_changes_nothing",)
LAWS = [n for laws in (RewardLaws, GradientLaws) for n in vars(laws) if n.startswith("test_")]


@pytest.mark.parametrize("name", LAWS)
def test_every_law_has_a_mutant_that_fails_it(name, monkeypatch):
    precision = torch.get_float32_matmul_precision()
    for mutant, sentence in MUTANTS[name]:
        with monkeypatch.context() as patch, pytest.raises(Exception, match=sentence):
            obey(name, mutant, patch)
        torch.set_float32_matmul_precision(precision)


class TestBrightness(RewardLaws):
    """The reward that the mutants are made of keeps them all."""

    @pytest.fixture
    def reward(self):
        return Brightness()

    @pytest.fixture
    def other(self):
        return None


class TestSloped(RewardLaws):
    """The reward that the mutants of gradients are made of keeps them all, in float64 too."""

    @pytest.fixture
    def reward(self):
        return Sloped()

    @pytest.fixture
    def other(self):
        return None

    @pytest.fixture
    def exact(self, reward):
        return doubled(reward)
