"""Preprocessing is the libraries' own: PIL's arithmetic, transformers' and torchvision's
geometry."""

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from pil_pictures import processed
from torchvision.transforms import v2
from transformers import AutoImageProcessor, CLIPImageProcessor
from transformers.image_transforms import get_resize_output_image_size

from flowsearch.rewards.gradient import value_and_gradient
from flowsearch.rewards.weights import preprocess
from flowsearch.rewards.weights.preprocess import (
    CLIP_224,
    DINOV2_224,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Patches,
    Preprocess,
)

SIZES = [(224, 224), (301, 457), (457, 301), (64, 99), (1023, 500), (225, 224)]
SIZES += [(640, 1137), (17, 300)]
HALF = (0.5, 0.5, 0.5)


def picture(height, width, kind="edges"):
    """An 8-bit picture: noise on a gradient, or black and white squares (overshoot everywhere)."""
    generator = torch.Generator().manual_seed(height * 7919 + width)
    if kind == "edges":
        return (torch.rand(height, width, 3, generator=generator) > 0.5).to(torch.uint8) * 255
    ramp = torch.linspace(0, 200, width)[None, :, None].expand(height, width, 3)
    return (ramp + torch.rand(height, width, 3, generator=generator) * 55).to(torch.uint8)


def floats(pixels):
    return pixels[None].float() / 255


def pil_path(name, **settings):
    """The PIL path of transformers 5, or the only one of 4."""
    cls = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    return cls(**settings)


def torchvision_path(name, **settings):
    """The torchvision path, by its name in transformers 4 or 5."""
    cls = getattr(transformers, f"{name}Fast", None) or getattr(transformers, name)
    return cls(**settings)


DINOV2 = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}
DINOV2 |= {"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}
LIBRARY = {
    "clip": (lambda: pil_path("CLIPImageProcessor"), CLIP_224),
    "siglip": (
        lambda: pil_path("SiglipImageProcessor", size={"height": 384, "width": 384}),
        Preprocess(384, 384, HALF, HALF, fit="squash"),
    ),
    "siglip2": (
        lambda: pil_path("SiglipImageProcessor", resample=2),
        Preprocess(224, 224, HALF, HALF, "bilinear", "squash"),
    ),
    "dinov2": (lambda: pil_path("BitImageProcessor", **DINOV2), DINOV2_224),
}


def levels(ours, theirs, preprocess):
    """Differences in 8-bit levels."""
    return (ours - theirs).abs() * torch.tensor(preprocess.std)[:, None, None] * 255


@pytest.mark.parametrize("name", LIBRARY)
@pytest.mark.parametrize("kind", ["edges", "ramp"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_it_is_the_librarys_pil_processor(name, size, kind):
    make, preprocess = LIBRARY[name]
    pixels = picture(*size, kind)
    theirs = processed(make(), preprocess, pixels).pixel_values
    ours = preprocess(floats(pixels))
    assert ours.shape == theirs.shape
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_it_is_the_librarys_torchvision_processor_within_its_coarser_arithmetic(size):
    """torchvision's 8-bit filter has weights of 16 bits, so more sums round apart than PIL's."""
    pixels = picture(*size, "ramp")
    processor = torchvision_path("CLIPImageProcessor")
    theirs = processor(pixels.movedim(-1, 0), return_tensors="pt").pixel_values
    apart = levels(CLIP_224(floats(pixels)), theirs, CLIP_224)
    assert float(apart.max()) < 2.01
    assert float((apart > 0.01).float().mean()) < 0.03


def test_a_picture_of_the_right_size_is_only_normalised():
    pixels = picture(224, 224)
    theirs = CLIPImageProcessor()(pixels.movedim(-1, 0), return_tensors="pt").pixel_values
    assert torch.allclose(CLIP_224(floats(pixels)), theirs, atol=1e-5)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([224, 256, 336]))
def test_the_size_before_a_crop_is_the_librarys(height, width, side):
    reference = get_resize_output_image_size(
        torch.empty(3, height, width, device="meta"),
        side,
        default_to_square=False,
        input_data_format="channels_first",
    )
    assert Preprocess(224, 224, shorter=side).resized(height, width) == tuple(reference)


@pytest.mark.parametrize("size", [(225, 224), (227, 224), (224, 229), (224, 231), (300, 224)])
@pytest.mark.parametrize("centre", ["floor", "even"])
def test_an_odd_margin_is_halved_as_each_library_does(size, centre):
    """A picture of coordinates shows where the crop began."""
    rows = torch.arange(size[0])[:, None, None].expand(*size, 3)
    columns = torch.arange(size[1])[None, :, None].expand(*size, 3)
    for coordinate in (rows % 256, columns % 256):
        pixels = coordinate.to(torch.uint8)
        plain = Preprocess(224, 224, (0.0,) * 3, (1.0,) * 3, centre=centre)
        ours = (plain(floats(pixels))[0] * 255).round().to(torch.uint8)
        if centre == "even":
            theirs = v2.functional.center_crop(pixels.movedim(-1, 0), [224, 224])
        else:
            crop = CLIPImageProcessor(do_resize=False, do_rescale=False, do_normalize=False)
            theirs = crop(pixels.movedim(-1, 0), return_tensors="pt").pixel_values[0]
        assert torch.equal(ours, theirs.to(torch.uint8))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_naflex_is_the_librarys(size):
    pixels, ours = picture(*size, "ramp"), Patches()
    theirs = processed(pil_path("Siglip2ImageProcessor"), ours, pixels)
    rows, columns = theirs.spatial_shapes[0].tolist()
    assert ours.resized(*size) == (rows * 16, columns * 16)
    found = ours(floats(pixels)).reshape(1, 3, rows, 16, columns, 16).permute(0, 2, 4, 3, 5, 1)
    there = theirs.pixel_values[:, : rows * columns]
    assert torch.allclose(found.reshape(there.shape), there, atol=1e-5)


@pytest.mark.parametrize("name", LIBRARY)
def test_it_is_read_from_the_librarys_configuration(name, tmp_path):
    make, preprocess = LIBRARY[name]
    make().save_pretrained(tmp_path)
    config = AutoImageProcessor.from_pretrained(tmp_path, local_files_only=True).to_dict()
    found = Preprocess.from_config(config)
    for size in SIZES:
        assert found.resized(*size) == preprocess.resized(*size)
    pixels = floats(picture(240, 301, "ramp"))
    assert torch.equal(found(pixels), preprocess(pixels))


def test_old_configurations_name_sizes_by_one_number():
    old = {"size": 224, "crop_size": 224, "do_center_crop": True, "resample": 3}
    old |= {"image_mean": list(CLIP_224.mean), "image_std": list(CLIP_224.std)}
    assert Preprocess.from_config(old).resized(300, 500) == CLIP_224.resized(300, 500)


@pytest.mark.parametrize(
    "change",
    [
        {"resample": 1},
        {"do_normalize": False},
        {"do_center_crop": False},
        {"size": {"longest_edge": 512}},
        {"size": {"height": 224, "width": 224}},
    ],
    ids=str,
)
def test_a_configuration_that_does_something_else_is_refused(change):
    config = CLIPImageProcessor().to_dict()
    with pytest.raises(ValueError, match=r"neither|leaves out|without a crop|after squashing"):
        Preprocess.from_config(config | change)


@pytest.mark.parametrize(
    "wrong",
    [{"resample": "lanczos"}, {"fit": "stretch"}, {"centre": "up"}, {"shorter": 200}],
    ids=str,
)
def test_words_and_crops_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=r"choose|does not fit"):
        Preprocess(224, 224, **wrong)


@given(st.integers(1, 900), st.integers(1, 900))
@settings(max_examples=40, deadline=None)
def test_padding_keeps_everything_and_proportions(height, width):
    padded = Preprocess(64, 96, HALF, HALF, fit="pad", fill=1.0)
    rows, columns = padded.resized(height, width)
    assert rows == 64 or columns == 96
    assert rows <= 64
    assert columns <= 96
    out = padded(torch.zeros(1, height, width, 3))
    assert out.shape == (1, 3, 64, 96)
    assert float(out[:, :, :rows, :columns].max()) == -1.0
    assert bool((out[:, :, rows:] == 1.0).all())
    assert bool((out[:, :, :, columns:] == 1.0).all())


def test_a_crop_of_another_shape_covers_the_picture():
    wide = Preprocess(32, 64)
    assert wide.resized(100, 100) == (64, 64)
    assert wide.resized(100, 500) == (32, 160)
    assert wide(torch.rand(2, 100, 500, 4)).shape == (2, 3, 32, 64)


TWINS = {
    **{name: preprocess for name, (_, preprocess) in LIBRARY.items()},
    "naflex": Patches(),
    "pad": Preprocess(64, 96, HALF, HALF, fit="pad"),
    "letterbox": Preprocess(224, 224, fit="letterbox", fill=0.0),
    "as hpsv2": Preprocess(224, 224, fit="letterbox", fill=0.0, rounded=False),
}


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("kind", ["edges", "ramp", "not of 8 bits"])
def test_the_float_twin_is_within_a_level_or_what_one_more_rounding_makes_of_it(name, kind):
    preprocess = TWINS[name]
    for size in [(457, 301), (64, 99)]:
        images = floats(picture(*size, kind))
        if kind == "not of 8 bits":
            images = images + 0.5 / 255 * torch.sin(torch.arange(size[1]))[:, None]
        twin = preprocess(images.requires_grad_())
        apart = levels(twin.detach(), preprocess(images.detach()), preprocess)
        most, mean = (1.7, 0.45) if kind == "not of 8 bits" else (1.15, 0.35)
        assert float(apart.max()) < most
        assert float(apart.mean()) < mean


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("kind", ["edges", "ramp"])
def test_the_slope_of_the_float_twin_is_that_of_its_values(name, kind):
    """In float64, up, down and across; where clamps cut (edges) too."""
    images = 0.01 + 0.98 * floats(picture(40, 61, kind)).double()
    generator = torch.Generator().manual_seed(5)
    shapes = (TWINS[name](images).shape[1:], images.shape)
    weights, way = (torch.randn(shape, generator=generator) for shape in shapes)

    def value(images):
        return (TWINS[name](images) * weights).sum(dim=(1, 2, 3))

    found = value_and_gradient(value, images)
    up, down = (value_and_gradient(value, images + h * way).values for h in (1e-8, -1e-8))
    assert found.values.dtype is torch.float64
    assert float((found.gradient * way).sum()) == pytest.approx(float(up - down) / 2e-8, rel=1e-5)


def test_values_beyond_the_range_are_cut_as_8_bit_pictures_are():
    images = torch.tensor([-0.5, 0.5, 1.5])[:, None, None, None].expand(3, 224, 224, 3)
    expected = CLIP_224(images.clamp(0, 1))
    assert torch.equal(CLIP_224(images), expected)
    assert torch.allclose(CLIP_224(images.clone().requires_grad_()), expected, atol=0.04)


def test_how_many_columns_are_made_at_once_changes_nothing(monkeypatch):
    """A CPU makes a few at once, other devices all."""
    images = floats(picture(301, 457))
    few = CLIP_224(images)
    monkeypatch.setattr(preprocess, "BLOCK", 224)
    assert torch.equal(CLIP_224(images), few)
