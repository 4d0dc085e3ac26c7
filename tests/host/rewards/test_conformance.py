"""The laws of every reward hold with its networks under the host's memory manager too.

Two kinds of network: one that a folder of transformers holds, and two with a head. The laws are
those of tests/rewards/test_conformance.py; what is new is that the host may take a network out of
memory at any time.
"""

from dataclasses import replace

import comfy.model_management as management
import pytest
import torch
from reward_cases import CASES
from reward_cases.embeddings import head
from reward_cases.given import GIVEN

from flowsearch.nodes.host.rewards.reward_model import Managed
from flowsearch.rewards.embedding.aesthetic import Aesthetic
from flowsearch.rewards.frames import FrameReward
from flowsearch.rewards.gradient import gradient_of
from flowsearch.rewards.weights.holder import Local


def managed(holder: Local) -> Managed:
    """The same network, small batches."""
    return Managed(holder.network, batch=2)


def aesthetic() -> Aesthetic:
    images = CASES["aesthetic"]().images
    return Aesthetic(replace(images, holder=managed(images.holder)), managed(Local(head(0))))


def clip_score():
    plain = CASES["clip_score"]()
    holder = managed(plain.images.holder)
    return replace(
        plain, images=replace(plain.images, holder=holder), text=replace(plain.text, holder=holder)
    )


def preference(name):
    plain = CASES[name]()
    return replace(plain, holder=managed(plain.holder))


def detector():
    plain = CASES["detector_count"]()
    return replace(plain, detector=replace(plain.detector, holder=managed(plain.detector.holder)))


def clap():
    plain = CASES["clap_score"]()
    holder = managed(plain.holder)
    return replace(plain, holder=holder, text=replace(plain.text, holder=holder))


def given(reward):
    """Five rows of what it scores."""
    return GIVEN[reward.spec.domain](5)


MANAGED = {
    "aesthetic": aesthetic,
    "clip_score": clip_score,
    "hps": lambda: preference("hps"),
    "image_reward": lambda: preference("image_reward"),
    "detector_count": detector,
    "clap_score": clap,
    "frames:clip_score": lambda: FrameReward(clip_score(), count=2),
}


@pytest.fixture(scope="module", params=MANAGED)
def pair(request):
    """A reward under the host's memory manager, and the same one without it."""
    return MANAGED[request.param](), CASES[request.param]()


def loaded(reward):
    return [model for model in reward.get_models() if model in management.loaded_models()]


def test_it_scores_as_without_the_host(pair):
    reward, plain = pair
    with torch.inference_mode():
        assert torch.allclose(reward.score(given(reward)), plain.score(given(reward)), atol=2e-5)
    assert loaded(reward) == reward.get_models() != []


def test_no_pictures_load_nothing(pair):
    reward, _ = pair
    management.unload_all_models()
    assert reward.score(given(reward)[:0]).shape == (0,)
    assert loaded(reward) == []


@pytest.mark.parametrize("how", ["unload_all_models", "free_memory"])
def test_values_are_the_same_after_the_host_took_its_networks(pair, how):
    reward, _ = pair
    before = reward.score(given(reward))
    if how == "free_memory":
        management.free_memory(1e32, management.get_torch_device())
    else:
        management.unload_all_models()
    assert loaded(reward) == []
    assert torch.equal(reward.score(given(reward)), before)


def test_a_part_of_the_pictures_can_be_scored_after_another_was(pair):
    """Batches of two and of one, with everything thrown out between them."""
    reward, _ = pair
    whole = reward.score(given(reward))
    pieces = []
    for piece in given(reward).split((2, 1, 2)):
        pieces.append(reward.score(piece))
        management.free_memory(1e32, management.get_torch_device())
    assert torch.allclose(torch.cat(pieces), whole, atol=2e-5)


def test_a_cancel_is_obeyed_and_leaves_it_able_to_score(pair):
    reward, _ = pair
    before = reward.score(given(reward))
    management.interrupt_current_processing()
    with pytest.raises(management.InterruptProcessingException):
        reward.score(given(reward))
    assert torch.equal(reward.score(given(reward)), before)


def test_a_gradient_passes_through_it_after_a_node_ran_it(pair):
    """Nodes run in inference mode, whose tensors no gradient passes; batches are of two."""
    reward, plain = pair
    if not reward.spec.has_gradient:
        pytest.skip("declares none")
    with torch.inference_mode():
        reward.score(given(reward))
        found = gradient_of(reward, given(reward)).gradient
    wanted = gradient_of(plain, given(reward)).gradient
    assert float(found.abs().sum()) > 0
    assert float((found - wanted).abs().max()) < 1e-3 * float(wanted.abs().max())
