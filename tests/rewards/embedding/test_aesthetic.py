"""Aesthetic heads: every published key is mapped, the value is the reference pipeline's."""

import json
from pathlib import Path

import encoders
import pytest
import torch
from PIL import Image
from real_weights import real
from reward_cases import embeddings
from torch import nn
from torchvision.transforms import v2 as transforms
from transformers import AutoModel

from flowsearch.rewards.embedding.aesthetic import KINDS, Aesthetic, head_from
from flowsearch.rewards.weights.holder import Local
from flowsearch.rewards.weights.preprocess import CLIP_224

KEYS = Path(__file__).resolve().parents[2] / "data" / "reward_keys"
FILES = ("aesthetic_laion_v2", "aesthetic_laion_v1", "aesthetic_v2_5")
PICTURES = encoders.pictures(3, 301, 445)  # the margin of its crop is halved up by torchvision
REAL = ("sac+logos+ava1-l14-linearMSE.pth", "sa_0_4_vit_l_14_linear.pth")


def published(index):
    found = json.loads((KEYS / f"{FILES[index]}.json").read_text(encoding="utf-8"))
    return {key: tuple(shape) for key, shape in found.items()}


def seeded(index):
    generator = torch.Generator().manual_seed(index)
    return {
        key: torch.randn(shape, generator=generator) / shape[-1] ** 0.5
        for key, shape in published(index).items()
    }


def reference(weights):
    """The published modules: linear layers with dropout between them, none of it when evaluated."""
    if "weight" in weights:
        head = nn.Linear(768, 1)
        head.load_state_dict(weights)
        return head.eval()
    sizes = [tuple(value.shape) for key, value in weights.items() if key.endswith("weight")]
    dropped = (
        (0.2, 0.2, 0.1, None, None) if "layers.0.weight" in weights else (0.5, 0.5, 0.5, 0.2, None)
    )
    layers = []
    for (after, before), drop in zip(sizes, dropped, strict=True):
        layers += [nn.Linear(before, after), *([nn.Dropout(drop)] if drop else [])]
    holder = nn.Module()
    name = next(iter(weights)).split(".")[0]
    holder.add_module(name, nn.Sequential(*layers))
    holder.load_state_dict(weights, strict=True)
    return getattr(holder, name).eval()


def directions(width, count=5):
    found = torch.randn(count, width, generator=torch.Generator().manual_seed(9))
    return nn.functional.normalize(found, dim=-1)


@pytest.mark.parametrize("index", range(3), ids=FILES)
def test_a_kind_has_exactly_the_published_keys_and_shapes(index):
    assert KINDS[index].shapes == published(index)


@pytest.mark.parametrize("index", range(3), ids=FILES)
def test_a_head_is_the_published_module(index):
    weights = seeded(index)
    e = directions(KINDS[index].widths[0])
    with torch.no_grad():
        assert torch.allclose(head_from(weights)(e), reference(weights)(e), atol=1e-5)


@pytest.mark.parametrize("name", REAL)
def test_the_real_heads_load_and_rate_directions_as_the_published_module_does(name):
    weights = torch.load(real(name), weights_only=True, map_location="cpu")
    index = REAL.index(name)
    assert {key: tuple(value.shape) for key, value in weights.items()} == published(index)
    head, e = head_from(weights), directions(768, 200)
    with torch.no_grad():
        found = head(e)
        assert torch.allclose(found, reference(weights)(e), atol=1e-4)
    assert head.bounds[0] <= float(found.min())
    assert float(found.max()) <= head.bounds[1]


@pytest.mark.parametrize("index", range(3), ids=FILES)
def test_the_range_is_reached_and_not_passed(index):
    """Heads are affine: the direction of the gradient gives the highest value."""
    head = head_from(seeded(index))
    e = torch.zeros(1, KINDS[index].widths[0], requires_grad=True)
    head(e).sum().backward()
    best = nn.functional.normalize(e.grad, dim=-1)
    low, high = head.bounds
    with torch.no_grad():
        top, bottom = float(head(best)), float(head(-best))
    assert bottom >= low
    assert top <= high
    assert high - top < 1e-3 * (high - low)
    assert bottom - low < 1e-3 * (high - low)


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w.pop("layers.7.bias"),
        lambda w: w.update({"layers.9.weight": torch.zeros(1, 1)}),
        lambda w: w.update({"layers.6.weight": torch.zeros(16, 65)}),
        lambda w: [w.pop(key) for key in list(w)],
    ],
    ids=["missing", "unknown", "shape", "empty"],
)
def test_other_keys_or_shapes_are_refused(change):
    weights = seeded(0)
    change(weights)
    with pytest.raises(ValueError, match="no aesthetic head that is known"):
        head_from(weights)


def test_a_head_with_relu_between_its_layers_is_refused():
    """The published reluMSE file numbers its layers otherwise; as a linear one it would be
    wrong."""
    weights = seeded(0)
    moved = {0: 0, 2: 3, 4: 6, 6: 9, 7: 11}
    relu = {
        f"layers.{moved[int(k.split('.')[1])]}.{k.split('.')[2]}": v for k, v in weights.items()
    }
    with pytest.raises(ValueError, match="no aesthetic head"):
        head_from(relu)


@pytest.mark.parametrize(("kind", "index"), [("siglip_so400m", 0), ("clip_l", 2), ("clip", 1)])
def test_an_encoder_that_it_was_not_trained_on_is_refused(kind, index):
    with pytest.raises(ValueError, match="rates embeddings of"):
        Aesthetic(encoders.encoder(kind).images, Local(embeddings.head(index)))


@pytest.mark.parametrize("index", [0, 1])
def test_it_is_laions_pipeline(index):
    """OpenAI's preprocessing of a PIL picture, the embedding divided by its length, the head."""
    model = AutoModel.from_pretrained(encoders.folder("clip_l"))
    prepare = transforms.Compose(
        [
            transforms.Resize(224, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.PILToTensor(),
            transforms.ToDtype(torch.float32, scale=True),
            transforms.Normalize(CLIP_224.mean, CLIP_224.std),
        ]
    )
    pixels = torch.stack([prepare(Image.fromarray(p.numpy())) for p in PICTURES])
    with torch.no_grad():
        found = model.get_image_features(pixel_values=pixels)
        found = found if isinstance(found, torch.Tensor) else found.pooler_output
        found = found / found.norm(dim=-1, keepdim=True)
        expected = reference(seeded(index))(found)[:, 0]
    ours = Aesthetic(encoders.encoder("clip_l").images, Local(head_from(seeded(index))))
    assert torch.allclose(ours.score(PICTURES.float() / 255), expected, atol=2e-5)
    assert float(expected.std()) > 3e-3


def test_it_is_the_pipeline_of_v2_5():
    model = AutoModel.from_pretrained(encoders.folder("siglip_so400m"))
    processor = encoders.siglip_so400m()[1]
    pixels = processor(list(PICTURES.movedim(-1, 1)), return_tensors="pt").pixel_values
    with torch.no_grad():
        found = model.vision_model(pixel_values=pixels).pooler_output
        expected = reference(seeded(2))(found / found.norm(dim=-1, keepdim=True))[:, 0]
    ours = Aesthetic(encoders.encoder("siglip_so400m").images, Local(head_from(seeded(2))))
    assert torch.allclose(ours.score(PICTURES.float() / 255), expected, atol=1e-3)
    assert float(expected.std()) > 3e-3
