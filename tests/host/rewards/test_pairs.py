"""Files that make a whole CLIP, through the host's own loaders: published layouts and small ones.

Of the published size only names, shapes and widths, on tensors without memory; with numbers small
ones of the same names and as many layers, by which the host tells what a file is.
"""

import re

import clip_layouts
import comfy.clip_vision
import comfy.model_management as management
import comfy.sd
import comfy.supported_models
import host_encoders
import pytest
import torch
from comfy.sd import CLIP
from encoders import pictures, scattered
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

from flowsearch.nodes.host.rewards.encoder import encoder_of
from flowsearch.nodes.rewards.embeddings import ClipScoreReward
from flowsearch.rewards.embedding.clip_pairs import PAIRS

NAMES = {768: "clip_l", 1024: "clip_h", 1280: "clip_g"}
"""Width to the host's name of the text model."""

SMALL = {768: 48, 1024: 64, 1280: 80}
TEXT = "a photo of two red circles"


@pytest.fixture
def without_memory(monkeypatch):
    """The host's networks are made on the meta device."""
    meta = torch.device("meta")
    monkeypatch.setattr(management, "text_encoder_offload_device", lambda: meta)
    monkeypatch.setattr(management, "text_encoder_initial_device", lambda *_: meta)


def checkpoint_clip(weights, **options) -> CLIP:
    """The CLIP of a checkpoint of SD 2, by the host's own reading of its text model."""
    host = comfy.supported_models.SD20({"in_channels": 4, "use_linear_in_transformer": True})
    read = host.process_clip_state_dict(dict(weights))
    return CLIP(host.clip_target(), state_dict=read, model_options=options)


def text_model(weights, width, **options) -> CLIP:
    """The text half as its row says it is loaded."""
    if width == 1024:
        return checkpoint_clip(
            clip_layouts.open_clip(weights, "cond_stage_model.model."), **options
        )
    return comfy.sd.load_text_encoder_state_dicts([dict(weights)], model_options=options)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.model)
@pytest.mark.usefixtures("without_memory")
def test_the_published_halves_have_one_width(pair, caplog):
    """Every name is known to the host's network and none of its weights is left out."""
    weights = clip_layouts.meta(clip_layouts.text(pair.width))
    network = getattr(text_model(weights, pair.width).cond_stage_model, NAMES[pair.width])
    known = {name: tuple(value.shape) for name, value in network.transformer.state_dict().items()}
    assert known == clip_layouts.text(pair.width)
    vision = clip_layouts.meta(clip_layouts.vision(pair.width))
    with torch.device("meta"):  # some of its layers name no device
        made = comfy.clip_vision.load_clipvision_from_sd(dict(vision))
    assert {name: tuple(v.shape) for name, v in made.get_sd().items()} == clip_layouts.vision(
        pair.width
    )
    assert made.config["projection_dim"] == pair.width
    assert not re.search("missing", caplog.text)


def small(width) -> CLIPModel:
    """The library's CLIP with as many layers as published ones have, narrow."""
    narrow, (_, _, layers) = SMALL[width], clip_layouts.VISION[width]
    act = {"hidden_act": "quick_gelu" if width == 768 else "gelu"}
    sizes = {"hidden_size": narrow, "intermediate_size": 96, "num_attention_heads": 2} | act
    text = host_encoders.TEXT | sizes | {"num_hidden_layers": clip_layouts.TEXT[width]}
    vision = host_encoders.VISION | sizes | {"num_hidden_layers": layers}
    torch.manual_seed(5)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=narrow)
    model = scattered(CLIPModel(config))
    with torch.no_grad():  # deep and narrow: what a layer adds must not drown the picture
        for name, weights in model.named_parameters():
            if ".layers." in name and weights.ndim > 1:
                weights.mul_(0.5)
    return host_encoders.rounded(model)


def options(model) -> dict:
    """Widths for the host's text models, which otherwise have those of published files."""
    config = model.config.text_config.to_dict()
    return {"model_config": dict(config), "clip_h_model_config": config}


@pytest.mark.parametrize("width", SMALL)
def test_files_of_the_layouts_score_as_the_library_does(width):
    model = small(width)
    halves = {name for name in model.state_dict() if not name.endswith(("logit_scale", "_ids"))}
    assert halves == {*clip_layouts.text(width), *clip_layouts.vision(width)}
    weights = {k: v for k, v in model.state_dict().items() if k.startswith("text_")}
    clip = text_model(weights, width, **options(model))
    vision = host_encoders.clip_vision(model)
    images = pictures(4, 70, 90).float() / 255
    found = ClipScoreReward.execute(vision, TEXT, clip)[0]
    values = found.score(images)
    encoder = encoder_of(vision, clip)
    ids = encoder.text.tokenize(TEXT).ids
    end = int((ids[0] == 49407).nonzero()[0])
    with torch.no_grad():
        out = model(
            input_ids=ids[:, : end + 1], pixel_values=encoder.images.preprocess(images)
        ).logits_per_text[0]
    expected = out / model.logit_scale.exp()
    assert torch.allclose(values, expected, atol=1e-4)
    assert float(values.std()) > 1e-3


REFUSED = [
    (768, 12, "clip_l_with_projection.safetensors in models/text_encoders (247 MB"),
    (1024, 23, "v2-1_768-ema-pruned.safetensors in models/checkpoints (5,215 MB"),
]


@pytest.mark.parametrize(("width", "layers", "said"), REFUSED)
def test_the_usual_files_are_refused_with_what_to_take(width, layers, said, tmp_path):
    """clip_l of image models and the text model of SD 2 in diffusers' form, by the host's loader;
    without words and with a narrow inside, or the test would write gigabytes."""
    narrow = {"intermediate_size": 8, "num_attention_heads": 2}
    shapes = clip_layouts.text(width, layers=layers, projected=False)
    cut = {
        name: torch.zeros([8 if n == 4 * width else n for n in shape], dtype=torch.half)
        for name, shape in shapes.items()
        if 49408 not in shape and not re.search(r"layers\.(?!(?:0|1|22)\.)", name)
    }
    path = tmp_path / "usual.safetensors"
    save_file(cut, path)
    changed = {"model_config": dict(narrow), "clip_h_model_config": narrow}
    clip = comfy.sd.load_clip([str(path)], model_options=changed)
    vision = host_encoders.clip_vision(host_encoders.clip_model(projection=width))
    with pytest.raises(ValueError, match=r"no projection in usual\.safetensors") as caught:
        ClipScoreReward.execute(vision, TEXT, clip)
    assert said in str(caught.value)
    assert "models/clip_vision" in str(caught.value)
