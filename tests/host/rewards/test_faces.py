"""Face Likeness inside the real host: the folders of face adapters, and a network kept once."""

import shutil
import threading
from pathlib import Path

import comfy.model_management
import face_files
import folder_paths
import onnx_files
import pytest
import torch

from flowsearch.nodes.host.rewards.reward_files import FACES, choices, locate, register
from flowsearch.nodes.rewards.faces import FaceLikenessReward

PACK = "models/buffalo_l"
FILES = (f"{PACK}/det_10g.onnx", f"{PACK}/w600k_r50.onnx")


@pytest.fixture(scope="module")
def files():
    """models/insightface as face adapters have it."""
    register()
    root = Path(folder_paths.get_folder_paths(FACES)[0])
    assert root == Path(folder_paths.models_dir) / "insightface"
    (root / PACK).mkdir(parents=True)
    face_files.write(root / PACK, sides=(64, 64))
    (root / PACK / "readme.txt").write_text("no network")
    folder_paths.filename_list_cache.clear()
    yield root
    shutil.rmtree(root)
    folder_paths.filename_list_cache.clear()


def face():
    image = torch.full((1, 64, 64, 3), 0.3)
    image[:, 24:32, 24:32] = 1.0
    return image


def test_the_lists_hold_the_networks_of_face_adapters(files):
    inputs = {each.id: each for each in FaceLikenessReward.define_schema().inputs}
    assert inputs["detector"].options == [*FILES] == inputs["recogniser"].options
    assert (inputs["detector"].default, inputs["recogniser"].default) == FILES
    assert FaceLikenessReward.validate_inputs(*FILES) is True
    assert FaceLikenessReward.validate_inputs(None, None) is True
    said = FaceLikenessReward.validate_inputs(FILES[0], "models/antelopev2/glintr100.onnx")
    assert "antelopev2.zip (non-commercial" in said
    assert str(files) in said


def test_folders_that_a_pack_for_faces_registers_later_are_looked_in(files, monkeypatch, tmp_path):
    (tmp_path / "glintr100.onnx").write_bytes(face_files.recogniser())
    known = folder_paths.folder_names_and_paths
    monkeypatch.setitem(known, FACES, ([str(files)], {".onnx"}))
    monkeypatch.setitem(known, "insightface", ([str(files), str(tmp_path)], {""}))
    assert "glintr100.onnx" in choices(ends=(".onnx",), where=FACES)
    assert locate("glintr100.onnx", where=FACES) == tmp_path / "glintr100.onnx"
    assert known[FACES][0] == [str(files), str(tmp_path)]
    folder_paths.filename_list_cache.clear()


def test_names_do_not_lead_out_of_the_folders(files):
    (files.parent / "outside.onnx").write_bytes(face_files.recogniser())
    assert "is not in" in FaceLikenessReward.validate_inputs(FILES[0], "../outside.onnx")
    with pytest.raises(ValueError, match="is not in"):
        FaceLikenessReward.execute(face(), "largest", "../outside.onnx", FILES[1])


def test_the_node_scores_and_networks_are_kept_once(files):
    one, two = (
        FaceLikenessReward.execute(face(), rule, *FILES).result[0] for rule in ("largest", "every")
    )
    assert one.detector is two.detector
    assert one.recogniser is two.recogniser
    values = one.score(torch.cat([face(), torch.zeros(1, 64, 64, 3)]))
    assert values.tolist() == pytest.approx([1.0, -1.0], abs=1e-4)
    assert "non-commercial" in one.spec.licence


def test_a_reference_without_a_face_is_refused_when_the_node_runs(files):
    with pytest.raises(ValueError, match="no face was found in reference picture 1"):
        FaceLikenessReward.execute(torch.zeros(1, 64, 64, 3), "largest", *FILES)


def test_the_hosts_cancel_ends_a_network_that_loops(files):
    """The host's own flag, as its button sets it while the network runs."""
    file = files / PACK / "endless.onnx"
    file.write_bytes(onnx_files.endless(shape=("n", 3, 64, 64), outputs=9))
    folder_paths.filename_list_cache.clear()
    timer = threading.Timer(0.2, comfy.model_management.interrupt_current_processing)
    timer.start()
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            FaceLikenessReward.execute(face(), "largest", f"{PACK}/endless.onnx", FILES[1])
    finally:
        timer.join()
        file.unlink()
        folder_paths.filename_list_cache.clear()
