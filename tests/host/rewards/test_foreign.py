"""A reward of another pack, which inherits from nothing and knows nothing of this one."""

import math
import random
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import host_models as hm
import hostile
import numpy as np
import pytest
import searching as s
import torch

from flowsearch.nodes.input_checks import checked
from flowsearch.nodes.rewards.combination import CombineRewards
from flowsearch.nodes.rewards.scoring import ScoreImages
from flowsearch.rewards.base import spec_of
from flowsearch.samplers.search import RewardError


class Redness:
    """The whole of a foreign reward: a name and a score."""

    def __init__(self, **spec):
        self.spec = SimpleNamespace(name="redness", **spec)

    def score(self, images):
        return images[..., 0].mean(dim=(1, 2)) - images[..., 1:].mean(dim=(1, 2, 3))


def test_what_it_does_not_say_is_taken_to_be_anything():
    spec = spec_of(Redness(high=1.0, scale=0.2))
    assert (spec.low, spec.high, spec.scale) == (-float("inf"), 1.0, 0.2)
    assert (spec.quantum, spec.domain, spec.has_gradient) == (0.0, "image", False)


@pytest.mark.parametrize("target", [{"target": "highest"}, s.NEVER])
def test_it_is_searched_for(target):
    _, image, report = s.reward_search(
        hm.gaussian_model(), reward=Redness(), evaluations=60, target=target
    )
    assert report.reward == "redness"
    assert report.best(0) == pytest.approx(float(Redness().score(image)), abs=1e-5)
    assert report.best(0) > report.plain(0)


def test_it_is_held_out():
    held_out = {"reward0": Redness(), "reward1": Redness()}
    _, _, report = s.reward_search(hm.gaussian_model(), held_out=held_out)
    assert report.trace.held_out() == ["redness", "redness 2"]


def test_it_is_combined():
    rewards = {"reward1": Redness(scale=2.0), "reward0": Redness(scale=1.0)}
    rule = {"rule": "weighted_sum", "weights": "1, -1", "normalisation": "spec"}
    images = torch.rand(3, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    combined = CombineRewards.execute(rewards, rule).result[0]
    wanted = 0.5 * Redness().score(images)
    assert torch.allclose(combined.score(images), wanted), "the inputs came in another order"
    _, _, report = s.reward_search(hm.gaussian_model(), reward=combined)
    assert "redness" in report.trace.record["finished"][0]["scores"]["parts"]


def test_it_scores_images():
    images = torch.rand(5, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    found = ScoreImages.execute(images, Redness(), 1, {"threshold": "none"}, "best_first", False)
    values = Redness().score(images)
    assert found.result[1] == values.tolist()
    assert torch.equal(found.result[0][0], images[values.argmax()])


@pytest.mark.parametrize("thing", [object(), SimpleNamespace(spec=SimpleNamespace(name="x"))])
def test_what_is_no_reward_is_refused_by_every_node(thing):
    images = torch.rand(2, 8, 8, 3)
    for node in (
        lambda: s.reward_search(hm.gaussian_model(), reward=thing),
        lambda: s.reward_search(hm.gaussian_model(), held_out={"reward0": thing}),
        lambda: CombineRewards.execute({"reward0": thing}, {"rule": "product"}),
        lambda: ScoreImages.execute(images, thing, 0, {"threshold": "none"}, "as_given", False),
    ):
        with pytest.raises(ValueError, match="a reward is an object with score"):
            node()


RETURNED = {
    "a list": (lambda n: [0.5] * n, "object of the class list"),
    "a number": (lambda _: 0.5, "object of the class float"),
    "nothing": (lambda _: None, "object of the class NoneType"),
    "an array": (lambda n: np.zeros(n), "object of the class ndarray"),
    "complex numbers": (lambda n: torch.zeros(n, dtype=torch.complex64), "returns real numbers"),
    "a table": (lambda n: torch.zeros(n, 2), "one value a picture"),
    "one for all": (lambda _: torch.tensor(0.5), "one value a picture"),
    "a row too many": (lambda n: torch.zeros(n + 1), "one value a picture"),
    "a huge number": (
        lambda n: torch.full((n,), 1e300, dtype=torch.float64),
        r"it returned 1e\+300",
    ),
}


class Returning(Redness):
    """A reward that returns something else, from the second call on."""

    def __init__(self, make, calls=1):
        super().__init__()
        self.make, self.calls = make, calls

    def score(self, images):
        self.calls -= 1
        return super().score(images) if self.calls >= 0 else self.make(len(images))


@pytest.mark.parametrize("name", RETURNED)
def test_what_is_no_number_a_picture_is_named(name):
    make, sentence = RETURNED[name]
    with pytest.raises(RewardError, match=f"the reward redness raised ValueError: .*{sentence}"):
        s.reward_search(hm.gaussian_model(), reward=Returning(make))
    images = torch.rand(2, 8, 8, 3)
    with pytest.raises(ValueError, match=sentence):
        ScoreImages.execute(images, Returning(make, 0), 0, {"threshold": "none"}, "as_given", False)
    latent, _, report = s.reward_search(
        hm.gaussian_model(), reward=Redness(), held_out={"reward0": Returning(make)}
    )
    assert latent["samples"].isfinite().all()
    assert any("gave no value" in line for line in report.sentences())


class Setter(Redness):
    """Sets torch for the whole process, as code that runs alone does."""

    def score(self, images):
        values = super().score(images)
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_grad_enabled(True)
        torch.set_num_threads(2)
        torch.use_deterministic_algorithms(True)
        torch.set_float32_matmul_precision("medium")
        return values


def settings():
    return (
        torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled(),
        torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
    )  # fmt: skip


@pytest.mark.parametrize("held_out", [False, True])
def test_what_it_sets_of_torch_is_put_back(held_out):
    before = settings()
    given = {"held_out": {"reward0": Setter()}} if held_out else {"reward": Setter()}
    found = s.reward_search(hm.scene_model(), **{"reward": Redness(), **given})
    assert settings() == before
    expected = s.reward_search(hm.scene_model(), reward=Redness())
    assert torch.equal(found[0]["samples"], expected[0]["samples"])


@pytest.mark.parametrize(
    "name", ["rewards.reward100", "rewards.reward999999", "rewards.x", "other"]
)
def test_more_inputs_than_a_node_has_are_named(name):
    given = {"rewards": {"reward0": Redness()}, "rule": {"rule": "product"}, name: Redness()}
    with pytest.raises(ValueError, match=f"'{name}' is no input of this node"):
        checked(CombineRewards).execute(**given)


class Paid(s.Brightness):
    """Costs money; what it was asked about is kept."""

    def __init__(self):
        super().__init__()
        self.spec = replace(self.spec, name="paid", paid=True)
        self.asked = []

    def score(self, images):
        self.asked += [image.numpy().tobytes() for image in images]
        return super().score(images)


class Hungry(s.Brightness):
    """Has memory for two pictures."""

    def score(self, images):
        if len(images) > 2:
            raise torch.cuda.OutOfMemoryError("no room")
        return super().score(images)


def test_memory_that_runs_out_beside_a_paid_reward_asks_it_nothing_twice():
    paid, rule = Paid(), {"rule": "weighted_sum", "weights": "", "normalisation": "none"}
    both = CombineRewards.execute({"reward0": paid, "reward1": Hungry()}, rule).result[0]
    given = {"strategy": s.strategy("rbf", rows_per_call=4), "evaluations": 60}
    found = s.reward_search(hm.gaussian_model(), reward=both, **given)
    free = CombineRewards.execute({"reward0": s.Brightness(), "reward1": s.Brightness()}, rule)
    expected = s.reward_search(hm.gaussian_model(), reward=free.result[0], **given)
    assert torch.equal(found[0]["samples"], expected[0]["samples"])
    (row,) = found[2].trace.record["stopped"]
    assert len(paid.asked) == row["ledger"]["reward_calls"] > 8


def any_values(seed, count):
    """What a reward might give for so many pictures."""
    rng = random.Random(seed)
    shape = rng.choice(((count,), (count,), (count, 1), (), (count + 1,), (0,), (1, count)))
    value = rng.choice((0.0, 0.5, -3.0, 1e30, 1e300, math.nan, math.inf, 1e-40))
    made = torch.full(shape, value, dtype=rng.choice((torch.float64, torch.float32)))
    whole = made.nan_to_num().to(rng.choice((torch.float16, torch.int64, torch.bool)))
    other = rng.choice((made.tolist(), None, "0.5", {"score": 1.0}, made + 1j))
    return rng.choice((made, made, whole, other))


def test_rewards_that_give_anything_end_in_a_picture_or_a_sentence():
    sentences = []
    for number in range(hostile.COUNT):
        reward = Returning(partial(any_values, number), number % 6)
        try:
            latent = s.reward_search(hm.gaussian_model(), reward=reward, evaluations=18)[0]
        except RewardError as refused:
            sentences.append(str(refused))
        else:
            assert latent["samples"].isfinite().all()
    assert sentences
    assert all("the reward redness" in sentence for sentence in sentences)
