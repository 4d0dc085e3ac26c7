"""The laws that every reward obeys, whatever it measures."""

import json
import math

import pytest
import torch
from reward_cases import CASES
from reward_cases.given import GIVEN

from flowsearch.rewards.base import Explained, Reward, RewardSpec, assess, describe
from flowsearch.rewards.registry import REWARDS


@pytest.fixture(scope="module", params=CASES)
def reward(request):
    return CASES[request.param]()


def equal(a, b, tolerance=2e-5):
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance)


def test_every_row_of_the_registry_has_a_case_and_names_its_class():
    assert {name.split(":")[0] for name in CASES} == set(REWARDS)
    for name, entry in REWARDS.items():
        assert isinstance(CASES[next(c for c in CASES if c.split(":")[0] == name)](), entry.load())


class TestReward:
    """Batch, order, device, type, range, refusals."""

    def images(self, reward, count=3):
        return GIVEN[reward.spec.domain](count)

    def test_it_is_a_reward_with_a_full_description(self, reward, request):
        assert isinstance(reward, Reward)
        spec = reward.spec
        assert isinstance(spec, RewardSpec)
        assert spec.name in REWARDS or spec.name.endswith("_frames")
        assert spec.low < spec.high
        assert spec.quantum >= 0
        assert spec.scale >= 0
        assert spec.measures
        assert spec.licence
        assert spec.source
        assert spec.domain in GIVEN
        assert spec.sample_rate >= 0
        assert json.loads(json.dumps(describe(spec), allow_nan=False))["name"] == spec.name

    def test_values_are_float32_one_a_picture_within_the_range(self, reward):
        images = self.images(reward)
        values = reward.score(images)
        assert values.shape == (3,)
        assert values.dtype == torch.float32
        assert values.device == images.device
        assert bool(torch.isfinite(values).all())
        assert bool(((values >= reward.spec.low) & (values <= reward.spec.high)).all())

    def test_a_batch_is_its_pictures_one_by_one(self, reward):
        if not reward.spec.deterministic:
            pytest.skip("declared not deterministic")
        images = self.images(reward)
        single = torch.cat([reward.score(image[None]) for image in images])
        assert equal(reward.score(images), single)

    def test_order_follows_the_pictures(self, reward):
        if not reward.spec.deterministic:
            pytest.skip("declared not deterministic")
        images = self.images(reward)
        assert equal(reward.score(images.flip(0)), reward.score(images).flip(0))

    def test_input_is_left_alone(self, reward):
        images = self.images(reward)
        before = images.clone()
        reward.score(images)
        assert torch.equal(images, before)

    def test_half_precision_pictures_are_accepted(self, reward):
        values = reward.score(self.images(reward).half())
        assert values.dtype == torch.float32
        assert bool(torch.isfinite(values).all())

    def test_inference_mode_is_no_obstacle(self, reward):
        with torch.inference_mode():
            assert reward.score(self.images(reward)).shape == (3,)

    def test_no_pictures_have_no_values(self, reward):
        values = reward.score(self.images(reward)[:0])
        assert values.shape == (0,)
        assert values.dtype == torch.float32

    def test_values_lie_on_the_quantum(self, reward):
        if reward.spec.quantum:
            steps = reward.score(self.images(reward)) / reward.spec.quantum
            assert equal(steps, steps.round(), 1e-4)

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_what_is_not_finite_is_refused_by_picture(self, reward, bad):
        images = self.images(reward)
        images[1].flatten()[7] = bad
        with pytest.raises(ValueError, match=r"1.*not finite"):
            reward.score(images)

    def test_wrong_shapes_and_types_are_refused(self, reward):
        images = self.images(reward)
        for wrong in (images[0, 0], (images * 255).to(torch.uint8)):
            with pytest.raises(ValueError, match="needs"):
                reward.score(wrong)
        if reward.spec.domain in ("image", "video"):
            with pytest.raises(ValueError, match="needs"):
                reward.score(images.movedim(-1, 1))
            with pytest.raises(ValueError, match="needs"):
                reward.score(images[:, :0])

    def test_what_it_explains_is_what_it_scores(self, reward):
        images = self.images(reward)
        found = assess(reward, images)
        if reward.spec.deterministic:
            assert equal(found.values, reward.score(images))
        assert len(found.parts) == len(found.notes) == 3
        if isinstance(reward, Explained):
            for part in found.parts:
                assert all(isinstance(value, float) for value in part.values())
                json.dumps(dict(part), allow_nan=False)

    def test_a_declared_gradient_is_there(self, reward):
        if not reward.spec.has_gradient:
            pytest.skip("declares none")
        images = self.images(reward).requires_grad_()
        reward.score(images).sum().backward()
        assert images.grad is not None
        assert bool(torch.isfinite(images.grad).all())
        assert float(images.grad.abs().sum()) > 0
