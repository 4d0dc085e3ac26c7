"""The laws that every reward obeys, whatever it measures: flowsearch.rewards.testing, and ours."""

import math
import os
from pathlib import Path

import pytest
import torch
from reward_cases import CASES, OTHER

from flowsearch import rewards
from flowsearch.rewards.base import Reward, RewardSpec
from flowsearch.rewards.gradient import gradient_of
from flowsearch.rewards.registry import REWARDS
from flowsearch.rewards.testing import EXAMPLES, RewardLaws, doubled

NO_PROMPT = {
    "aesthetic", "combination:clips", "combination:latents", "combination:minimum",
    "combination:product", "combination:sum", "face_likeness", "frames", "frames:all",
    "frames:middle", "image_match", "image_statistic", "latent", "shape_fidelity",
    "judge",  # the judge of these tests answers by the picture alone
    "text_in_image",  # there are no words in the given pictures
}  # fmt: skip


def test_every_row_of_the_registry_has_a_case_and_names_its_class():
    assert {name.split(":")[0] for name in CASES} == set(REWARDS)
    for name, entry in REWARDS.items():
        assert isinstance(CASES[next(c for c in CASES if c.split(":")[0] == name)](), entry.load())


def test_every_case_reads_a_prompt_or_is_said_to_read_none():
    said = {name for name in CASES if {name, name.split(":")[0]} & NO_PROMPT}
    lost = set(CASES) ^ (set(OTHER) | said)
    assert not lost, (
        f"{lost}: add its second prompt to OTHER beside CASES, or its name to NO_PROMPT"
    )


ROOMS = {
    file.parent.name
    for file in Path(rewards.__file__).parent.glob("*/*.py")
    if "transformers" in file.read_text(encoding="utf-8")
}
"""Rooms of rewards in which transformers takes part."""


def tried():
    """With another transformers than the newest: the cases that it can change."""
    if not os.environ.get("FLOWSEARCH_TRANSFORMERS"):
        return [*CASES]
    rooms = {name: REWARDS[name.split(":")[0]].module.split(".")[0] for name in CASES}
    return [name for name, room in rooms.items() if room in ROOMS]


def test_the_cases_that_transformers_can_change_are_tried_with_each(monkeypatch):
    monkeypatch.setenv("FLOWSEARCH_TRANSFORMERS", "planted")
    some = {"clip_score", "hps", "vlm_count:llava", "detector_count", "clap_score"}
    assert some < set(tried()) < set(CASES)
    assert not {"shape_count", "text_in_image", "judge"} & set(tried())


LARGE = ("aesthetic:v2_5",)

STAND_INS = (
    "shape_count", "shape_fidelity", "combination:counts", "combination:minimum",
    "combination:product", "frames:min", "frames:mean",
)  # fmt: skip
"""Cases that go in steps, or are made of such, and are differentiated by what stands in."""


@pytest.fixture(scope="module", params=tried())
def case(request):
    return request.param


@pytest.fixture(scope="module")
def made(case):
    """The case's reward, and what it gives the rows: made once, for it is what takes the time."""
    reward = CASES[case]()
    rows = EXAMPLES[reward.spec.domain](3)
    return reward, reward.score(rows), reward.spec.has_gradient and gradient_of(reward, rows)


class TestReward(RewardLaws):
    """What is asked of rewards of this pack beyond the laws of all."""

    rounding = 0.15  # the small networks are steeper than true ones, and see rounded pictures

    @pytest.fixture
    def reward(self, made):
        return made[0]

    @pytest.fixture
    def values(self, made):
        return made[1]

    @pytest.fixture
    def exact(self, case, made):
        if case in LARGE:
            pytest.skip("its network is large, and its code that of smaller ones")
        if case.startswith("vqa_score"):
            return made[0]  # the library's norms are of float32 in any network
        return doubled(made[0]) if made[2] else made[0]

    @pytest.fixture
    def stands_in(self, case):
        return case in STAND_INS

    @pytest.fixture
    def found(self, made):
        return made[2] or pytest.skip("declares none")

    @pytest.fixture
    def other(self, case):
        return OTHER[case]() if case in OTHER else None

    def test_it_is_a_reward_with_a_full_description(self, reward):
        assert isinstance(reward, Reward)
        spec = reward.spec
        assert isinstance(spec, RewardSpec)
        assert spec.name in REWARDS or spec.name.endswith("_frames")
        assert spec.measures
        assert spec.licence
        assert spec.source

    def test_one_function_is_scored_and_differentiated(self, case, reward, rows, found, stands_in):
        """Score of pictures that ask for a gradient does not round them either."""
        if stands_in or case.startswith("vqa_score"):
            pytest.skip("what is scored is rounded, or goes in steps")
        scored = reward.score(rows.clone().requires_grad_()).detach()
        assert torch.allclose(found.values, scored, rtol=1e-4, atol=1e-4)

    def test_values_are_float32_whatever_the_rows_are(self, reward, rows, values):
        assert values.dtype == torch.float32
        assert reward.score(rows[:0].half()).dtype == torch.float32

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_what_is_not_finite_is_refused_by_picture(self, reward, rows, bad):
        rows[1].flatten()[7] = bad
        with pytest.raises(ValueError, match=r"1.*not finite"):
            reward.score(rows)

    def test_wrong_shapes_and_types_are_refused(self, reward, rows):
        for wrong in (rows[0, 0], (rows * 255).to(torch.uint8)):
            with pytest.raises(ValueError, match="needs"):
                reward.score(wrong)
        if reward.spec.domain in ("image", "video"):
            with pytest.raises(ValueError, match="needs"):
                reward.score(rows.movedim(-1, 1))
            with pytest.raises(ValueError, match="needs"):
                reward.score(rows[:, :0])
