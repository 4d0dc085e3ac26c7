"""Faces: where they are, put upright as scikit-image would, and whose they are."""

from dataclasses import replace

import face_files
import numpy as np
import pytest
import skimage.transform
import torch

from flowsearch.rewards.faces import alignment as face_alignment
from flowsearch.rewards.faces import likeness as face_likeness
from flowsearch.rewards.faces.alignment import SIDE, TEMPLATE, aligned, similarity
from flowsearch.rewards.faces.detection import fitted, open_face_detector
from flowsearch.rewards.faces.likeness import FaceLikeness, open_face_recogniser

GREY = 0.3


def transform(start, end):
    """scikit-image's fit."""
    kind = skimage.transform.SimilarityTransform
    if hasattr(kind, "from_estimate"):  # since 0.26
        return kind.from_estimate(start, end)
    found = kind()
    found.estimate(start, end)
    return found


def points(seed, count=5):
    return np.random.default_rng(seed).uniform(0, 200, (count, 2))


class TestAlignment:
    @pytest.mark.parametrize("count", [2, 3, 5])
    @pytest.mark.parametrize("seed", range(6))
    def test_similarity_is_scikit_images(self, seed, count):
        """Among random points are such as a mirror would fit better."""
        start, end = points(seed, count), points(seed + 100, count)
        found = similarity(torch.as_tensor(start), torch.as_tensor(end)).numpy()
        assert np.allclose(found, transform(start, end).params[:2], atol=1e-8)

    def test_mirrored_points_are_not_mirrored(self):
        start = np.array(TEMPLATE)
        end = start * [-1, 1]
        found = similarity(torch.as_tensor(start), torch.as_tensor(end)).numpy()
        assert np.linalg.det(found[:, :2]) > 0
        assert np.allclose(found, transform(start, end).params[:2], atol=1e-8)

    def test_a_turned_face_comes_upright(self):
        """Every pixel of the cut is what scikit-image's warp gives."""
        generator = np.random.default_rng(3)
        coarse = generator.random((12, 15, 3))
        picture = skimage.transform.resize(coarse, (120, 150), order=1)
        turned = skimage.transform.SimilarityTransform(
            scale=0.7, rotation=0.6, translation=(20, -20)
        )
        places = turned(np.array(TEMPLATE))
        cut = aligned(torch.as_tensor(picture).movedim(-1, 0), torch.as_tensor(places))
        back = transform(places, np.array(TEMPLATE)).inverse
        want = skimage.transform.warp(picture, back, output_shape=(SIDE, SIDE), order=1)
        assert cut.shape == (3, SIDE, SIDE)
        error = np.abs(cut.movedim(0, -1).numpy() - want)
        assert error.max() < 1e-5
        assert float(cut.amin()) == 0.0, "part of it lies outside"

    def test_points_on_one_place_are_no_failure(self):
        cut = aligned(torch.rand(3, 20, 20), torch.full((5, 2), 7.0))
        assert bool(cut.isfinite().all())

    def test_the_template_is_what_recognisers_learnt(self):
        """Deng et al. 2019: eyes above, mouth below, in a square of 112."""
        assert np.mean(TEMPLATE, axis=0) == pytest.approx([56.0, 71.9], abs=0.1)
        assert face_alignment.SIDE == 112


def picture(cells, size=(64, 64), colours=None, ground=GREY):
    """White cells of 8 x 8 on grey, each with a coloured frame, by which people differ."""
    image = torch.full((*size, 3), ground)
    for number, (row, column) in enumerate(cells):
        y, x = row * 8, column * 8
        if colours:
            image[max(0, y - 8) : y + 16, max(0, x - 8) : x + 16] = torch.tensor(colours[number])
        image[y : y + 8, x : x + 8] = 1.0
    return image


@pytest.fixture
def detector(tmp_path):
    return open_face_detector(face_files.write(tmp_path, sides=(64, 64))[0])


@pytest.fixture
def recogniser(tmp_path):
    return open_face_recogniser(face_files.write(tmp_path)[1])


def channels_first(image):
    return image.movedim(-1, 0)


class TestDetection:
    @pytest.mark.parametrize("batched", [False, True])
    @pytest.mark.parametrize("stride", [8, 16, 32])
    def test_every_stride_says_where(self, tmp_path, stride, batched):
        settings = {"sides": (128, 128), "batched": batched, "at": stride}
        found = open_face_detector(face_files.write(tmp_path, **settings)[0])
        image = torch.full((128, 128, 3), GREY)
        image[stride : 2 * stride, 2 * stride : 3 * stride] = 1.0
        (face,) = found.detect(channels_first(image))
        x, y = 2.0 * stride, 1.0 * stride
        edge = face_files.EDGES[0] * stride
        assert face.box == (x - edge, y - edge, x + edge, y + edge)
        want = torch.tensor(face_files.POINTS) * stride + torch.tensor([x, y])
        assert torch.allclose(face.points, want)
        assert face.score == pytest.approx(127.5 / 128 - 0.05, abs=1e-5)

    def test_places_are_those_of_the_picture(self, detector):
        """A wide picture is made smaller and lies at the top; boxes come back to its pixels."""
        image = picture([(1, 5)]).repeat_interleave(2, 0).repeat_interleave(2, 1)[:64]
        (face,) = detector.detect(channels_first(image))
        assert face.box == (80.0 - 32, 16.0 - 32, 80.0 + 32, 16.0 + 32)

    def test_neighbours_are_one_face_and_others_two(self, detector):
        assert len(detector.detect(channels_first(picture([(3, 3), (3, 4)])))) == 1
        assert len(detector.detect(channels_first(picture([(1, 1), (6, 6)])))) == 2
        assert detector.detect(channels_first(picture([]))) == []

    def test_pictures_are_prepared_as_published(self):
        red = torch.zeros(3, 20, 40)
        red[0] = 1.0
        x, scale = fitted(red, 64, 64)
        assert (tuple(x.shape), scale) == ((1, 3, 64, 64), 32 / 20)
        assert x[0, :, 0, 0].tolist() == [127.5 / 128, -127.5 / 128, -127.5 / 128]
        assert x[0, :, 32:].unique().tolist() == [-127.5 / 128], "black below"
        x, scale = fitted(red.movedim(1, 2), 64, 64)
        assert (x[0, 0, 0] > 0).sum() == 32
        assert scale == 64 / 40

    def test_open_sizes_are_tried_from_the_largest(self, tmp_path):
        found = open_face_detector(face_files.write(tmp_path)[0])
        seen = []

        class Spy:
            get_outputs = found.session.get_outputs

            def run(self, names, feed, options):
                seen.append(feed["input.1"].shape)
                return found.session.run(names, feed, options)

        assert replace(found, session=Spy()).detect(channels_first(picture([]))) == []
        assert [shape[2:] for shape in seen] == [(640, 640), (320, 320), (160, 160)]
        seen.clear()
        faces = replace(found, session=Spy()).detect(channels_first(picture([(3, 3)])))
        assert faces
        assert len(seen) == 1

    def test_other_files_are_refused_with_what_they_are(self, tmp_path):
        paths = face_files.write(tmp_path)
        with pytest.raises(ValueError, match=r"w600k_r50\.onnx .*1 outputs.*no face detector"):
            open_face_detector(paths[1])
        with pytest.raises(ValueError, match=r"det_10g\.onnx .*no face recogniser"):
            open_face_recogniser(paths[0])
        paths[1].write_bytes(face_files.recogniser(side=128))
        with pytest.raises(ValueError, match=r"128, 128.*112"):
            open_face_recogniser(paths[1])
        paths[0].write_bytes(face_files.detector((100, 100)))
        with pytest.raises(ValueError, match="no face detector"):
            open_face_detector(paths[0])


class TestRecognition:
    def test_embeddings_are_of_red_green_blue_as_published(self, recogniser):
        faces = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
        weights = np.random.default_rng(4).standard_normal((48, 512))
        x = ((faces * 255).round().double().numpy() - 127.5) / 127.5
        parts = x.reshape(3, 3, 4, 28, 4, 28).mean(axis=(3, 5)).reshape(3, 48)
        want = parts @ weights
        want /= np.linalg.norm(want, axis=1, keepdims=True)
        assert np.allclose(recogniser.embed(faces).numpy(), want, atol=1e-4)

    @pytest.mark.parametrize("batch", [1, 2])
    def test_a_fixed_batch_is_filled(self, tmp_path, recogniser, batch):
        (tmp_path / "fixed.onnx").write_bytes(face_files.recogniser(batch))
        fixed = open_face_recogniser(tmp_path / "fixed.onnx")
        faces = torch.rand(5, 3, SIDE, SIDE)
        assert torch.allclose(fixed.embed(faces), recogniser.embed(faces), atol=1e-6)
        assert fixed.embed(faces[:0]).shape[0] == 0


RED, BLUE, GREEN = [0.9, 0.1, 0.1], [0.1, 0.1, 0.9], [0.1, 0.8, 0.1]


class TestLikeness:
    def test_the_same_person_is_one_and_another_less(self, detector, recogniser):
        reward = FaceLikeness(detector, recogniser, [picture([(3, 3)], colours=[RED])[None]])
        again = picture([(5, 4)], colours=[RED])
        other = picture([(5, 4)], colours=[BLUE])
        found = reward.assess(torch.stack([again, other, picture([])]))
        same, different, nobody = found.values.tolist()
        assert same == pytest.approx(1.0, abs=1e-4)
        assert different < 0.9
        assert nobody == -1.0 == reward.spec.low
        assert found.notes[0] == "1 face, likeness 1.00"
        assert found.notes[2] == "no face was found"
        assert [part["faces"] for part in found.parts] == [1.0, 1.0, 0.0]

    def test_one_face_that_fits_is_enough(self, detector, recogniser):
        reward = FaceLikeness(detector, recogniser, [picture([(3, 3)], colours=[RED])[None]])
        crowd = picture([(1, 1), (5, 5)], colours=[BLUE, RED])
        found = reward.assess(crowd[None])
        assert found.values.item() == pytest.approx(1.0, abs=1e-4)
        assert found.notes[0].startswith("2 faces")

    def test_every_person_needs_a_face_of_their_own(self, tmp_path, recogniser):
        detector = open_face_detector(face_files.write(tmp_path, sides=(128, 128))[0])
        size = (128, 128)
        both = picture([(4, 4), (11, 11)], size, [RED, BLUE])[None]
        reward = FaceLikeness(detector, recogniser, [both], "every")
        one = picture([(7, 8)], size, [RED])
        swapped = picture([(4, 11), (11, 4)], size, [BLUE, RED])
        found = reward.assess(torch.stack([swapped, one, both[0]]))
        assert found.values[0].item() == pytest.approx(1.0, abs=1e-4)
        assert found.values[1].item() == pytest.approx(0.0, abs=1e-4), "one of two is missing"
        assert sorted(found.parts[1][f"person {i}"] for i in (1, 2)) == pytest.approx(
            [-1.0, 1.0], abs=1e-4
        )
        assert len(reward.people) == 2
        largest = FaceLikeness(detector, recogniser, [both])
        assert len(largest.people) == 1

    def test_the_largest_face_is_by_its_box(self, tmp_path, recogniser):
        """Two sizes of faces need two strides: here by the picture's own detector."""
        detector = open_face_detector(face_files.write(tmp_path, sides=(64, 64))[0])

        class Two:
            file = "two"

            def detect(self, image):
                small, large = detector.detect(image)
                grown = tuple(2 * edge for edge in large.box)
                return [small, replace(large, box=grown)]

        image = picture([(1, 1), (5, 5)], colours=[RED, BLUE])
        order = [face.points for face in Two().detect(channels_first(image))]
        reward = FaceLikeness(Two(), recogniser, [image[None]])
        cut = aligned(channels_first(image), order[1])
        assert torch.allclose(reward.people, recogniser.embed(cut[None]), atol=1e-6)

    def test_several_references_are_averaged(self, detector, recogniser):
        references = torch.stack(
            [picture([(3, 3)], colours=[RED]), picture([(3, 3)], colours=[BLUE])]
        )
        reward = FaceLikeness(detector, recogniser, [references])
        found = reward.assess(references[:1])
        assert len(reward.people) == 2
        parts = found.parts[0]
        assert parts["person 1"] == pytest.approx(1.0, abs=1e-4)
        assert found.values.item() == pytest.approx(
            (parts["person 1"] + parts["person 2"]) / 2, abs=1e-6
        )

    def test_faces_are_drawn_with_their_likeness(self, detector, recogniser):
        image = picture([(3, 3)], colours=[RED])[None]
        reward = FaceLikeness(detector, recogniser, [image])
        drawn = reward.draw(torch.cat([image, picture([])[None]]))
        assert drawn.shape == (2, 64, 64, 3)
        assert not torch.equal(drawn[0], image[0])
        assert torch.allclose(drawn[1], picture([]), atol=1 / 255)

    @pytest.mark.parametrize("rule", ["largest", "every"])
    def test_what_is_drawn_is_what_the_score_counts(self, monkeypatch, detector, recogniser, rule):
        references = [picture([(3, 3)], colours=[colour])[None] for colour in (RED, BLUE)]
        reward = FaceLikeness(detector, recogniser, references, rule)
        drawn = []
        monkeypatch.setattr(
            face_likeness, "draw_boxes", lambda images, boxes: drawn.extend(boxes) or images
        )
        # of two that are like one person the other is the second person's
        other = GREEN if rule == "largest" else RED
        crowd = picture([(1, 1), (5, 5)], colours=[RED, other])[None]
        reward.draw(crowd)
        found, boxes = reward.assess(crowd), drawn[0]
        shown = sorted(box.score for box in boxes)
        people = [found.parts[0][f"person {i}"] for i in (1, 2)]
        if rule == "largest":
            assert shown[-1] == pytest.approx(found.values.item(), abs=1e-6)
            assert shown[-1] == pytest.approx(sum(people) / 2, abs=1e-6)
        else:
            assert shown == pytest.approx(sorted(people), abs=1e-6)

    def test_what_cannot_be_compared_is_told(self, detector, recogniser):
        with pytest.raises(ValueError, match="no face was found in reference picture 2"):
            FaceLikeness(detector, recogniser, [picture([(3, 3)])[None], picture([])[None]])
        with pytest.raises(ValueError, match="no reference picture"):
            FaceLikeness(detector, recogniser, [torch.zeros(0, 8, 8, 3)])
        with pytest.raises(ValueError, match="no rule 'any'"):
            FaceLikeness(detector, recogniser, [picture([(3, 3)])[None]], "any")

    def test_a_cancel_passes(self, detector, recogniser):
        image = picture([(3, 3)])[None]

        def cancelled():
            raise KeyboardInterrupt

        reward = FaceLikeness(detector, recogniser, [image])
        object.__setattr__(reward, "detector", replace(detector, before=cancelled))
        with pytest.raises(KeyboardInterrupt):
            reward.score(image)
