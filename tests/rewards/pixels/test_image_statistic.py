"""Image statistics against other people's code, and the laws they obey."""

import math

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageStat
from skimage import color, data, filters

from flowsearch.rewards.pixels.image_statistic import (
    DIRECTIONS,
    STATISTICS,
    ImageStatistic,
    lab,
    palette_of,
    parse_palette,
)

PALETTE = parse_palette("#1d3557, #e63946 #f1faee")
PICTURES = {name: getattr(data, name)() for name in ("astronaut", "coffee", "chelsea", "rocket")}


def tensor(pixels):
    """8-bit pixels as a batch of one."""
    return torch.from_numpy(np.ascontiguousarray(pixels[..., :3])).float()[None] / 255.0


def value(pixels, statistic, **settings):
    if statistic == "palette":
        settings.setdefault("palette", PALETTE)
    return ImageStatistic(statistic, **settings).score(tensor(pixels)).item()


def by_opencv_sharpness(pixels):
    """OpenCV's Laplacian; the border, which it makes up, is left out."""
    y = pixels.astype(np.float64) @ np.array([0.2126, 0.7152, 0.0722])
    return cv2.Laplacian(y, cv2.CV_64F, ksize=1)[1:-1, 1:-1].var()


def by_pil_brightness(pixels):
    """PIL's conversion with Rec. 709's weights, 8-bit."""
    grey = Image.fromarray(pixels).convert("L", (0.2126, 0.7152, 0.0722, 0))
    return ImageStat.Stat(grey).mean[0] / 255.0


def by_skimage_contrast(pixels):
    """scikit-image's rgb2gray has the weights .2125, .7154, .0721."""
    return color.rgb2gray(pixels).std()


def by_numpy_colourfulness(pixels):
    """The paper's formula on channels as published, in 8-bit numbers."""
    r, g, b = np.moveaxis(pixels.astype(np.float64), -1, 0)
    rg, yb = r - g, 0.5 * (r + g) - b
    return math.hypot(rg.std(), yb.std()) + 0.3 * math.hypot(rg.mean(), yb.mean())


def by_opencv_compressibility(pixels):
    _, file = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    return -len(file) / (pixels.shape[0] * pixels.shape[1])


def by_skimage_palette(pixels):
    shown = color.rgb2lab(pixels)
    wanted = color.rgb2lab(np.array(PALETTE)[None])[0]
    distances = [color.deltaE_cie76(shown, np.broadcast_to(c, shown.shape)) for c in wanted]
    return -np.minimum.reduce(distances).mean()


OTHERS = {  # (independent implementation, relative tolerance)
    "sharpness": (by_opencv_sharpness, 1e-4),
    "brightness": (by_pil_brightness, 5e-3),  # PIL rounds to 8 bits
    "contrast": (by_skimage_contrast, 1e-3),  # other digits of the weights
    "colourfulness": (by_numpy_colourfulness, 1e-5),
    "compressibility": (by_opencv_compressibility, 0.02),  # another header
    "palette": (by_skimage_palette, 1e-3),
}


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("statistic", STATISTICS)
def test_it_equals_an_independent_implementation(statistic, picture):
    pixels = PICTURES[picture]
    other, tolerance = OTHERS[statistic]
    assert value(pixels, statistic) == pytest.approx(other(pixels), rel=tolerance)


def test_brightness_uses_the_weights_of_rec_709():
    for channel, weight in enumerate((0.2126, 0.7152, 0.0722)):
        pixels = np.zeros((4, 4, 3), np.uint8)
        pixels[..., channel] = 255
        assert value(pixels, "brightness") == pytest.approx(weight, abs=1e-6)


def test_lab_equals_scikit_image_and_has_a_gradient_everywhere():
    grid = torch.linspace(0, 1, 18)
    colours = torch.stack(torch.meshgrid(grid, grid, grid, indexing="ij"), dim=-1)
    expected = torch.from_numpy(color.rgb2lab(colours.double().numpy()))
    assert float((lab(colours).double() - expected).abs().max()) < 2e-2
    black = torch.zeros(1, 3, requires_grad=True)
    lab(black).sum().backward()
    assert bool(torch.isfinite(black.grad).all())


@pytest.mark.parametrize("picture", PICTURES)
def test_blur_lowers_sharpness_and_the_file_and_grey_has_no_colour(picture):
    pixels = PICTURES[picture]
    blurred = (filters.gaussian(pixels, 2.0, channel_axis=-1) * 255).round().astype(np.uint8)
    grey = np.repeat((color.rgb2gray(pixels) * 255).round().astype(np.uint8)[..., None], 3, -1)
    dim = (pixels * 0.5).round().astype(np.uint8)
    assert value(blurred, "sharpness") < 0.2 * value(pixels, "sharpness")
    assert value(blurred, "compressibility") > value(pixels, "compressibility")
    assert value(grey, "colourfulness") == pytest.approx(0.0, abs=1e-4)
    assert value(pixels, "colourfulness") > 10.0
    assert value(dim, "brightness") == pytest.approx(0.5 * value(pixels, "brightness"), rel=1e-2)
    assert value(dim, "contrast") == pytest.approx(0.5 * value(pixels, "contrast"), rel=1e-2)


def test_known_values():
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    halves = np.concatenate([black, white])
    board = np.indices((8, 8)).sum(axis=0)[..., None] % 2 * np.full(3, 255)
    assert value(white, "brightness") == pytest.approx(1.0)
    assert value(halves, "contrast") == pytest.approx(0.5)
    # every pixel differs from its four neighbours by 255: the Laplacian is +-1020
    assert value(board.astype(np.uint8), "sharpness") == pytest.approx(1020.0**2, rel=1e-5)
    assert STATISTICS["sharpness"].high == 1020.0**2
    assert value(black, "palette", palette=((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))) == 0.0
    assert value(white, "palette", palette=((0.0, 0.0, 0.0),)) == pytest.approx(-100.0, abs=1e-2)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_directions(statistic):
    pixels = PICTURES["coffee"]
    plain = value(pixels, statistic)
    assert value(pixels, statistic, direction="lower") == -plain
    assert value(pixels, statistic, direction="target", target=plain + 0.125) == pytest.approx(
        -0.125, abs=1e-3
    )
    assert value(pixels, statistic, direction="target", target=plain - 0.125) == pytest.approx(
        -0.125, abs=1e-3
    )


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("statistic", STATISTICS)
def test_values_lie_in_the_range_of_the_spec_at_the_extremes(statistic, direction):
    wanted = min(0.3, STATISTICS[statistic].high)
    reward = ImageStatistic(statistic, direction, wanted, PALETTE)
    generator = torch.Generator().manual_seed(0)
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2
    batch = torch.stack(
        [
            torch.zeros(16, 16, 3),
            torch.ones(16, 16, 3),
            board[..., None].expand(16, 16, 3).float(),
            torch.rand(16, 16, 3, generator=generator).round(),
        ]
    )
    values = reward.score(batch)
    assert bool(((values >= reward.spec.low) & (values <= reward.spec.high)).all())


@pytest.mark.parametrize("statistic", [name for name in STATISTICS if name != "compressibility"])
def test_the_gradient_is_that_of_a_finite_difference(statistic):
    reward = ImageStatistic(statistic, palette=PALETTE)
    assert reward.spec.has_gradient
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 12, 12, 3, generator=generator) * 0.8 + 0.1
    along = torch.randn(image.shape, generator=generator)
    leaf = image.clone().requires_grad_()
    reward.score(leaf).sum().backward()
    slope = float((leaf.grad * along).sum())
    step = 1e-3
    measured = float(reward.score(image + step * along) - reward.score(image - step * along))
    assert slope == pytest.approx(measured / (2 * step), rel=0.03)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("statistic", [name for name in STATISTICS if name != "compressibility"])
def test_the_gradient_is_finite_on_an_even_picture(statistic, level):
    leaf = torch.full((1, 6, 6, 3), level, requires_grad=True)
    palette = ((level,) * 3, (0.2, 0.4, 0.6))
    ImageStatistic(statistic, palette=palette).score(leaf).sum().backward()
    assert bool(torch.isfinite(leaf.grad).all())


def test_compressibility_declares_no_gradient():
    assert not ImageStatistic("compressibility").spec.has_gradient


def test_palettes_are_read():
    assert parse_palette("#fff 000000,\n#ff0000;") == ((1, 1, 1), (0, 0, 0), (1, 0, 0))
    for wrong in ("red", "#12345", "#gggggg", "#ff0000ff"):
        with pytest.raises(ValueError, match=r"not a colour\. Write six"):
            parse_palette(f"#000 {wrong}")
    with pytest.raises(ValueError, match="empty"):
        parse_palette("  ")


def test_the_palette_of_a_picture_holds_its_colours():
    halves = torch.cat([torch.zeros(4, 8, 3), torch.tensor([1.0, 0.0, 0.0]).expand(4, 8, 3)])
    assert set(palette_of(halves)) == {(0.0, 0.0, 0.0), (1.0, 0.0, 0.0)}
    own = {name: palette_of(tensor(pixels)[0]) for name, pixels in PICTURES.items()}
    for name, pixels in PICTURES.items():
        found = {other: value(pixels, "palette", palette=own[other]) for other in own}
        assert max(found, key=found.get) == name
        assert found[name] > -15.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"statistic": "beauty"}, "'beauty' is not one of sharpness"),
        ({"statistic": "contrast", "direction": "up"}, "'up' is not one of higher"),
        ({"statistic": "contrast", "direction": "target", "target": math.nan}, "finite"),
        ({"statistic": "brightness", "direction": "target", "target": 7.0}, "from 0 to 1"),
        (
            {"statistic": "palette", "direction": "target", "target": 0.5, "palette": ((0, 0, 0),)},
            "from -inf to 0",
        ),
        ({"statistic": "palette"}, "at least one colour"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ImageStatistic(**settings)


def test_pictures_too_small_to_be_sharp_are_refused():
    with pytest.raises(ValueError, match="3 x 3"):
        ImageStatistic("sharpness").score(torch.zeros(1, 2, 9, 3))


def test_it_explains_its_value_in_the_statistics_own_unit():
    reward = ImageStatistic("brightness", "target", 0.25)
    found = reward.assess(torch.full((2, 4, 4, 3), 0.5))
    assert found.values.tolist() == pytest.approx([-0.25, -0.25])
    assert found.parts[0] == {"brightness": pytest.approx(0.5)}
    assert found.notes[1] == "brightness 0.5"
