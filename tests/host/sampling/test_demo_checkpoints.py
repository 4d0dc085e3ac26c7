"""Load Demo Model's checkpoints, as the host's own MODEL."""

import comfy.samplers
import host_models as hm
import pytest
import torch

from flowsearch.demo.network import CHECKPOINTS
from flowsearch.demo.weights import read_weights
from flowsearch.nodes.sampling.demo_model import LoadDemo, load_demo

PROMPT = "three red circles and two blue squares"


def first_prediction(checkpoint: dict[str, str]) -> torch.Tensor:
    """Return the prediction at pure noise, one step of the host's euler."""
    model, clip, *_ = LoadDemo.execute(**checkpoint).result
    guider = hm.guider(model, clip.encode_from_tokens_scheduled(clip.tokenize(PROMPT)))
    noise = torch.randn((4, 3, 64, 64), generator=torch.Generator().manual_seed(5))
    sampler = comfy.samplers.sampler_object("euler")
    sigmas = torch.tensor([1.0, 0.0])
    return guider.sample(noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True)


def test_an_old_prompt_without_the_input_loads_the_base_model():
    assert torch.equal(first_prediction({}), first_prediction({"checkpoint": "base"}))
    (name, weight), *_ = read_weights(CHECKPOINTS["base"]).items()
    loaded = load_demo()[0].model.diffusion_model.state_dict()[name]
    assert torch.equal(loaded.cpu(), weight)


def test_one_step_is_a_picture_on_the_few_step_checkpoint_and_a_blur_on_the_base_model():
    few, base = (first_prediction({"checkpoint": name}) for name in ("few_step", "base"))
    assert float(few.std(dim=(2, 3)).mean()) > 1.5 * float(base.std(dim=(2, 3)).mean())
    assert float((few - few.mean(dim=0)).std()) > 3.0 * float((base - base.mean(dim=0)).std())


def test_an_unknown_checkpoint_is_refused_by_naming_what_there_is():
    with pytest.raises(ValueError, match="'two_step'; choose one of: base, few_step"):
        load_demo("two_step")
