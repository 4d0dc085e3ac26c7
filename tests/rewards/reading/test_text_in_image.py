"""Text in Image: the arithmetic with a scripted reader, and the real reader on rendered text."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from flowsearch.rewards.reading import text_in_image
from flowsearch.rewards.reading.text_in_image import Piece, TextInImage, in_reading_order, lacking

real = pytest.mark.skipif(bool(lacking()), reason=lacking() or "-")
FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf")


def piece(text, confidence=0.9, x=0.0, y=0.0, size=10.0):
    corners = ((x, y), (x + size * len(text), y), (x + size * len(text), y + size), (x, y + size))
    return Piece(text, confidence, corners)


class Scripted:
    """A reader that reads what it is told, and knows some characters."""

    characters = frozenset()

    def __init__(self, *pieces):
        self.pieces = list(pieces)

    def __call__(self, picture):
        assert picture.dtype == np.uint8
        assert picture.shape[-1] == 3
        return self.pieces


def value(wanted, *pieces, **settings):
    reward = TextInImage(wanted, reader=lambda: Scripted(*pieces), **settings)
    return reward.score(torch.zeros(1, 32, 32, 3)).item()


@pytest.mark.parametrize(
    ("wanted", "read", "expected"),
    [
        ("HELLO", "HELLO", 1.0),
        ("HELLO", "hello", 1.0),
        ("HELLO", "H E L L O", 1.0),
        ("HELLO", "HELO", 0.8),
        ("HELLO", "HELXO", 0.8),
        ("HELLO", "xxHELLOxx", 1.0),
        ("HELLO", "", 0.0),
        ("HELLO", "12345", 0.0),
        ("It\u2019s \u201cON\u201d", 'it\'s "on"', 1.0),
        ("OPEN\n24/7", "24/7 OPEN", 1.0),
        ("OPEN\n24/7", "OPEN", 0.5),
    ],
)
def test_values_by_hand(wanted, read, expected):
    assert value(wanted, *([piece(read)] if read else [])) == pytest.approx(expected)


def test_case_spaces_and_punctuation_count_when_asked():
    assert value("Ab", piece("aB"), match_case=True) == 0.0
    assert value("a b", piece("ab"), ignore="nothing") == pytest.approx(2 / 3)
    assert value("a  b", piece("a b"), ignore="nothing") == 1.0
    assert value("a, b!", piece("ab")) == pytest.approx(0.5)
    assert value("a, b!", piece("ab"), ignore="spaces_and_punctuation") == 1.0


def test_extra_text_costs_its_weight():
    read = piece("HELLOXXXXX")
    assert value("HELLO", read) == 1.0
    assert value("HELLO", read, extra=1.0) == pytest.approx(0.5)
    assert value("HELLO", read, extra=0.2) == pytest.approx(5 / 6)


def test_doubtful_pieces_are_not_read():
    assert value("HELLO", piece("HELLO", 0.4)) == 0.0
    assert value("HELLO", piece("HELLO", 0.4), min_confidence=0.4) == 1.0


def test_pieces_of_a_slanted_line_are_read_from_left_to_right():
    left, right, below = piece("HELLO", y=3.0), piece("WORLD", x=60.0), piece("AGAIN", y=14.0)
    assert [p.text for p in in_reading_order([below, right, left])] == ["HELLO", "WORLD", "AGAIN"]
    assert value("HELLO WORLD AGAIN", below, right, left) == 1.0


def test_it_says_what_it_read():
    reward = TextInImage("OPEN\nDAILY", reader=lambda: Scripted(piece("OPEN", 0.8), piece("x", 1)))
    found = reward.assess(torch.zeros(1, 8, 8, 3))
    assert found.notes == ["read: OPEN | x"]
    assert found.parts[0].pop("confidence") == pytest.approx(0.9)
    assert found.parts[0] == {"distance": 5.0, "extra": 1.0, "line 1": 0.0, "line 2": 5.0}
    empty = TextInImage("OPEN", reader=Scripted).assess(torch.zeros(1, 8, 8, 3))
    assert empty.notes == ["nothing was read"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text": " \n"}, "no text to look for"),
        ({"text": "a", "ignore": "case"}, "'case'; choose one of spaces"),
        ({"text": "a", "extra": 1.5}, "extra is 1.5"),
        ({"text": "a", "min_confidence": -0.1}, "min_confidence is -0.1"),
        ({"text": "a\n!?", "ignore": "spaces_and_punctuation"}, r"line '!\?' counts"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TextInImage(**settings)


def test_a_text_that_the_reader_cannot_read_is_refused():
    class Small(Scripted):
        characters = frozenset("abC ")

    images = torch.zeros(1, 8, 8, 3)
    assert TextInImage("Ab c", reader=Small).score(images).item() == 0.0
    with pytest.raises(ValueError, match=r"knows no x y"):
        TextInImage("a xy", reader=Small).score(images)
    with pytest.raises(ValueError, match=r"knows no A c"):
        TextInImage("Ab c", reader=Small, match_case=True).score(images)


def test_a_cancel_is_obeyed_between_pictures():
    class Cancelled(BaseException):
        pass

    seen = []

    class Reader(Scripted):
        def __call__(self, picture):
            seen.append(1)
            return []

    def checkpoint():
        if len(seen) == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        TextInImage("a", reader=Reader, checkpoint=checkpoint).score(torch.zeros(5, 8, 8, 3))
    assert len(seen) == 2


def test_a_missing_package_is_explained(monkeypatch):
    monkeypatch.setattr(text_in_image, "find_spec", lambda name: None)
    text_in_image.rapid_reader.cache_clear()
    with pytest.raises(RuntimeError, match="pip install rapidocr-onnxruntime"):
        TextInImage("a").score(torch.zeros(1, 8, 8, 3))
    monkeypatch.undo()
    found = importlib.util.find_spec("rapidocr_onnxruntime") is not None
    assert lacking() == "" if found else "pip install" in lacking()


def test_what_was_read_is_drawn_where_it_is():
    reward = TextInImage("a", reader=lambda: Scripted(piece("abc", x=20.0, y=40.0)))
    images = torch.full((1, 96, 96, 4), 0.5)
    drawn = reward.draw(images)
    assert drawn.shape == images.shape
    changed = (drawn - images).abs().amax(dim=-1)[0] > 0.1
    rows, columns = changed.nonzero().unbind(1)
    assert 20 < int(rows.min()) < 40
    assert int(rows.max()) <= 52
    assert 18 <= int(columns.min()) <= 20
    assert torch.equal(images, torch.full((1, 96, 96, 4), 0.5))
    assert reward.draw(images[:0]).shape == (0, 96, 96, 4)


def rendered(text, font=0, size=44, degrees=0, blur=0.0, noise=0.0, ink=0, paper=255):
    """Text as a picture, like a sign."""
    picture = Image.new("RGB", (416, 416), (paper,) * 3)
    pen = ImageDraw.Draw(picture)
    face = ImageFont.truetype(FONTS[font], size)
    pen.multiline_text((208, 208), text, fill=(ink,) * 3, font=face, anchor="mm", align="center")
    picture = picture.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=(paper,) * 3)
    picture = picture.filter(ImageFilter.GaussianBlur(blur)) if blur else picture
    pixels = torch.from_numpy(np.array(picture)).float() / 255.0
    generator = torch.Generator().manual_seed(0)
    return (pixels + noise * torch.randn(pixels.shape, generator=generator)).clamp(0.0, 1.0)


def fonts_are_there():
    try:
        return bool(ImageFont.truetype(FONTS[0], 10))
    except OSError:
        return False


CASES = [  # (wanted, with a wrong letter or two, with letters missing)
    ("FRESH COFFEE", "FRISH COFFEE", "FRESH COFE"),
    ("Grand Opening", "Grend Opaning", "Grand Openi"),
    ("SALE\n50% OFF", "SALE\n20% OFF", "SALE\n% OFF"),
    ("Happy Birthday", "Happy Birthbay", "Happy Birtday"),
    ("NO PARKING", "NO BARKING", "NO PRKING"),
    ("flow models", "flaw modals", "flow mode"),
    ("EXIT 24", "EXIT 74", "EXT 24"),
    ("Bookshop", "Backshap", "Bokshop"),
]
LOOKS = [
    {},
    {"degrees": 8, "ink": 255, "paper": 40},
    {"blur": 1.0, "noise": 0.05},
    {"size": 28, "degrees": -5, "noise": 0.1},
]
NEEDED = 0.9
ROWS = [(case, i % 4, (i + i // 4) % 4) for i, case in enumerate(CASES)]


def shares(rows):
    """Share of cases in which the right text is first, and in which all are in order: right, then
    misspelt or short of letters, then what nobody can read (blurred away, or drowned in noise)."""
    first = ordered = 0
    for index, ((wanted, wrong, missing), font, look) in enumerate(rows):
        looks = [LOOKS[look]] * 3 + [LOOKS[look] | ({"blur": 14.0}, {"noise": 2.5})[index % 2]]
        texts = (wanted, wrong, missing, wanted)
        pictures = [rendered(t, font, **kw) for t, kw in zip(texts, looks, strict=True)]
        right, misspelt, short, unread = TextInImage(wanted).score(torch.stack(pictures)).tolist()
        first += right > max(misspelt, short, unread)
        ordered += right > max(misspelt, short) and min(misspelt, short) > unread
    return first / len(rows), ordered / len(rows)


@real
@pytest.mark.skipif(not fonts_are_there(), reason="the DejaVu fonts are not installed")
def test_the_legible_and_right_picture_wins():
    assert {font for _, font, _ in ROWS} == {look for _, _, look in ROWS} == set(range(4))
    first, ordered = shares(ROWS)
    assert first >= NEEDED
    assert ordered >= NEEDED


@real
@pytest.mark.skipif(not fonts_are_there(), reason="the DejaVu fonts are not installed")
def test_text_counts_as_it_stands():
    upright = rendered("HELLO")
    reward = TextInImage("HELLO")
    values = reward.score(torch.stack([upright, upright.flip(0, 1), upright.flip(1)]))
    assert values[0] == 1.0
    assert float(values[1:].max()) < 0.7
    assert reward.draw(upright[None]).shape == (1, 416, 416, 3)


@real
def test_red_is_red_for_the_reader():
    """Channels reach the reader in its order: red on a blue of the same luma is read either way, so
    the pixels are compared themselves."""
    seen = []
    reader = text_in_image._Rapid()
    reader._read = lambda pixels: (seen.append(pixels), (None, None))[1]
    assert reader(np.full((4, 4, 3), (255, 0, 7), np.uint8)) == []
    assert seen[0][0, 0].tolist() == [7, 0, 255]
    assert "\u00e9" in reader.characters
    assert "\u0436" not in reader.characters
