"""Networks in ONNX files: a cancel ends them, and what they ask for is bounded first."""

import threading
import time

import hostile
import numpy as np
import onnx_files
import pytest
import torch

from flowsearch.rewards.detection import onnx_session
from flowsearch.rewards.detection.onnx_detector import OnnxDetector, open_onnx
from flowsearch.rewards.detection.onnx_session import (
    obeying,
    open_session,
    picture_input,
    run,
)


class Cancelled(Exception):
    """As the oldest host's, which derives from Exception."""


def written(tmp_path, content):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    return path


def taking(tmp_path, shape, outputs=("n", 7, 3), **constants):
    """A file that gives the same boxes whatever it is given."""
    nodes = [onnx_files.node("Identity", "same", "boxes")]
    boxes = np.zeros([size if isinstance(size, int) else 1 for size in outputs], np.float32)
    body = onnx_files.graph(
        nodes, {"images": shape}, {"boxes": [*outputs]}, {"same": boxes, **constants}
    )
    return written(tmp_path, onnx_files.model(body, {"names": "['cat', 'dog', 'bird']"}))


def test_a_loop_without_end_is_cancelled_while_it_runs(tmp_path):
    """2**62 rounds; the network stops, and the machine is not left computing."""
    path = written(tmp_path, onnx_files.endless())
    calls = []

    def before():
        calls.append(1)
        if len(calls) > 2:
            raise Cancelled

    model = open_onnx(path)
    with pytest.raises(Cancelled):
        OnnxDetector(model, before=before).detect(torch.zeros(1, 64, 64, 3), ("person",))
    assert not [t for t in threading.enumerate() if t.name == "flowsearch-onnx"], "it goes on"


def test_work_that_does_not_stop_is_left_behind(monkeypatch):
    monkeypatch.setattr(onnx_session, "PATIENCE", 0.01)
    over, calls = threading.Event(), []

    def checkpoint():
        calls.append(1)
        if len(calls) > 1:
            raise Cancelled

    stopped = []
    try:
        with pytest.raises(Cancelled):
            obeying(over.wait, checkpoint, lambda: stopped.append(1))
    finally:
        over.set()
    assert stopped == [1]


def test_what_work_returns_and_raises_comes_through():
    assert obeying(lambda: 3, lambda: None, lambda: None) == 3

    def fails():
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        obeying(fails, lambda: None, lambda: None)


def test_reading_a_file_obeys_a_cancel(tmp_path, monkeypatch):
    """As one that takes long to prepare: constants are computed before it opens."""
    monkeypatch.setattr(onnx_session, "PATIENCE", 0.01)
    size, most = 300, 400
    nodes = [onnx_files.node("ConstantOfShape", "size", "c0")]
    nodes += [onnx_files.node("MatMul", f"c{i} c{i}", f"c{i + 1}") for i in range(most)]
    nodes += [onnx_files.node("Add", f"images c{most}", "boxes")]
    shape = {"images": [size, size]}
    constants = {"size": np.array([size, size])}
    body = onnx_files.graph(nodes, shape, {"boxes": [size, size]}, constants)
    path = written(tmp_path, onnx_files.model(body))
    calls = []

    def checkpoint():
        calls.append(1)
        if len(calls) > 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        open_session(path, "", checkpoint)


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ([1, 3, 100_000, 300_000], "more than fits"),
        ([100_000, 3, 640, 640], "more than fits"),
        (["n", 3, 2**40, "w"], "more than fits"),
        ([0, 3, 64, 64], "none at all"),
        (["n", 3, 0, 64], "none at all"),
    ],
)
def test_inputs_out_of_bounds_are_refused_before_they_are_made(tmp_path, shape, why):
    with pytest.raises(ValueError, match=rf"net\.onnx takes pictures.*{why}.*Export"):
        open_onnx(taking(tmp_path, shape))


def test_large_open_batches_are_made_smaller(tmp_path):
    assert open_onnx(taking(tmp_path, ["n", 3, 640, 640])).batch == 8
    path = taking(tmp_path, ["n", 3, 4000, 4000])
    assert open_onnx(path).batch == 1
    entry = picture_input(open_session(path, ""), path, "nothing")
    assert (entry.batch, entry.height, entry.width) == (None, 4000, 4000)


def test_what_it_gives_is_looked_at(tmp_path):
    """Shapes that a file declares need not be those that it gives."""
    path = taking(tmp_path, ["n", 3, 32, 32], ("n", 7, "boxes"))
    found = OnnxDetector(open_onnx(path)).detect(torch.zeros(1, 8, 8, 3), ("cat",))
    assert [*found[0]] == []
    with pytest.raises(ValueError, match=r"net\.onnx gave \(1, 7, 1\) for 2 pictures"):
        OnnxDetector(open_onnx(path)).detect(torch.zeros(2, 8, 8, 3), ("cat",))


def test_numbers_that_are_not_finite_are_no_boxes(tmp_path):
    rows = np.full((1, 4, 6), np.nan, np.float32)
    rows[0, 1] = [0, 0, 4, 4, 0.9, 0]
    rows[0, 2] = [0, 0, np.inf, 4, 0.9, 1]
    path = taking(tmp_path, [1, 3, 32, 32], (1, 4, 6), same=rows)
    found = OnnxDetector(open_onnx(path)).detect(torch.zeros(1, 32, 32, 3), ("cat", "dog"))
    assert [(box.name, box.x1) for box in found[0]] == [("cat", 4.0), ("dog", 32.0)]


def test_many_boxes_are_cut_to_the_surest(tmp_path, monkeypatch):
    monkeypatch.setattr("flowsearch.rewards.detection.onnx_detector.CANDIDATES", 5)
    rows = np.zeros((1, 50, 6), np.float32)
    rows[0, :, 0] = rows[0, :, 2] = np.arange(50) * 2
    rows[0, :, 2:4] += 1
    rows[0, :, 4] = np.linspace(0.3, 0.9, 50)
    path = taking(tmp_path, [1, 3, 128, 128], (1, 50, 6), same=rows)
    found = OnnxDetector(open_onnx(path)).detect(torch.zeros(1, 128, 128, 3), ("cat",))
    assert [round(box.score, 3) for box in found[0]] == [
        round(float(score), 3) for score in rows[0, :-6:-1, 4]
    ]


def test_a_network_that_fails_says_of_which_file_and_for_what(tmp_path):
    nodes = [onnx_files.node("Reshape", "images wrong", "boxes")]
    body = onnx_files.graph(
        nodes, {"images": ["n", 3, 8, 8]}, {"boxes": ["n", 7, 3]}, {"wrong": np.array([1, 7, 5])}
    )
    session = open_session(written(tmp_path, onnx_files.model(body)), "")
    with pytest.raises(
        RuntimeError, match=r"network of a\.onnx failed for inputs of \(2, 3, 8, 8\)"
    ):
        run(session, {"images": np.zeros((2, 3, 8, 8), np.float32)}, name="a.onnx")


def test_types_other_than_float_are_told(tmp_path):
    body = onnx_files.graph(
        [onnx_files.node("Shape", "images", "boxes")],
        {"images": ["n", 3, 8, 8]},
        {"boxes": ([4], 7)},
    )
    session = open_session(written(tmp_path, onnx_files.model(body)), "")
    with pytest.raises(ValueError, match="gives int64, and arrays of float32"):
        run(session, {"images": np.zeros((1, 3, 8, 8), np.float32)})


def test_an_output_that_is_not_used_may_be_of_any_type(tmp_path):
    """As exports that also give the picture's own size; it is not even computed."""
    rows = np.zeros((1, 2, 6), np.float32)
    rows[0, 0] = [0, 0, 4, 4, 0.9, 1]
    nodes = [
        onnx_files.node("Identity", "same", "boxes"),
        onnx_files.node("Shape", "images", "size"),
    ]
    body = onnx_files.graph(
        nodes, {"images": [1, 3, 32, 32]}, {"boxes": [1, 2, 6], "size": ([4], 7)}, {"same": rows}
    )
    path = written(tmp_path, onnx_files.model(body, {"names": "['cat', 'dog']"}))
    found = OnnxDetector(open_onnx(path)).detect(torch.zeros(1, 32, 32, 3), ("cat", "dog"))
    assert [box.name for box in found[0]] == ["dog"]


def test_a_cancel_before_a_run_starts_nothing():
    begun = []

    def cancelled():
        raise Cancelled

    with pytest.raises(Cancelled):
        obeying(lambda: begun.append(1), cancelled, lambda: None)
    assert begun == []


def test_files_spoilt_at_random_give_boxes_or_a_sentence(tmp_path):
    rows = np.zeros((1, 2, 6), np.float32)
    rows[0, 0] = [0, 0, 4, 4, 0.9, 1]
    whole = taking(tmp_path, [1, 3, 32, 32], (1, 2, 6), same=rows).read_bytes()
    begun = time.monotonic()

    def before():
        assert time.monotonic() < begun + 20.0, "it takes long"

    opened, sentences = 0, []
    for number, content in enumerate(hostile.spoilt(whole)):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(content)
        begun = time.monotonic()
        try:
            model = open_onnx(path, before=before)
            opened += 1
            OnnxDetector(model, before=before).detect(torch.zeros(1, 32, 32, 3), model.names[:1])
        except (ValueError, RuntimeError) as refused:
            sentences.append(str(refused))
    assert 0 < opened < hostile.COUNT
    assert [said for said in sentences if ".onnx" not in said and "ONNX file" not in said] == []
