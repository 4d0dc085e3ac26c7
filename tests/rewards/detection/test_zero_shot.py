"""Grounding DINO, OWLv2 and SAM against transformers' own pipelines, on small seeded models."""

import json
import shutil

import detectors
import pytest
import torch

from flowsearch.rewards.detection import zero_shot
from flowsearch.rewards.detection.detector import Box
from flowsearch.rewards.detection.overlap import confident, distinct
from flowsearch.rewards.detection.zero_shot import (
    ZeroShotDetector,
    load_processor,
    load_sam,
    load_zero_shot,
)
from flowsearch.rewards.weights.holder import Local

NAMES = ("cat", "red apple", "giraffe", "teddy bear")
THRESHOLD = 0.4


class Crafted:
    """What a network would give."""

    def __init__(self, logits, pred_boxes):
        self.logits, self.pred_boxes = logits, pred_boxes

    def __call__(self, **_):
        return self


def pictures(count=3, height=60, width=96):
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(1))


def as_library(images):
    return [image.movedim(-1, 0) for image in images]


@pytest.fixture(scope="module")
def dino():
    return detectors.grounding_dino()


@pytest.fixture(scope="module")
def owl():
    return detectors.owlv2()


class TestGroundingDino:
    def library(self, dino, images):
        network, processor = dino
        text = ". ".join(NAMES) + "."
        given = processor(
            images=as_library(images), text=[text] * len(images), do_rescale=False,
            return_tensors="pt",
        )  # fmt: skip
        with torch.no_grad():
            outputs = network(**given)
        return given, outputs

    def test_boxes_and_scores_are_the_librarys(self, dino):
        images = pictures()
        given, outputs = self.library(dino, images)
        wanted = dino[1].post_process_grounded_object_detection(
            outputs, given["input_ids"], THRESHOLD, THRESHOLD, target_sizes=[(60, 96)] * 3
        )
        rows = ZeroShotDetector(Local(dino[0]), dino[1]).candidates(images, NAMES)
        for row, want in zip(rows, wanted, strict=True):
            row = row[row[:, 4] > THRESHOLD]
            assert torch.allclose(row[:, 4], want["scores"], atol=1e-5)
            assert torch.allclose(row[:, :4], want["boxes"], atol=1e-3)

    def test_where_the_librarys_label_is_a_class_it_is_ours(self, dino):
        """Logits as a trained network gives them: all tokens of one class above the threshold."""
        tokens = dino[1].tokenizer(". ".join(NAMES) + ".", return_tensors="pt")
        spans = zero_shot.grounded_text(dino[1].tokenizer, NAMES)[1]
        logits = torch.full((1, 8, 256), -4.0)
        for query in range(8):
            begin, end = spans[query % 4]
            logits[0, query, begin:end] = torch.linspace(0.1, 1.0, end - begin)
            logits[0, query, spans[(query + 1) % 4][0]] = -1.0
        outputs = Crafted(logits, torch.full((1, 8, 4), 0.5))
        wanted = dino[1].post_process_grounded_object_detection(
            outputs, tokens["input_ids"], 0.3, 0.3
        )[0]["text_labels"]
        (_, classes), _ = zero_shot.grounded(outputs, torch.zeros(1, 3, 8, 8), {}, spans)
        assert [NAMES[i] for i in classes[0].tolist()] == wanted

    def test_a_class_is_that_of_its_tokens_with_the_best_mean(self, dino):
        images = pictures()
        given, outputs = self.library(dino, images)
        ids = given["input_ids"][0].tolist()
        chances = outputs.logits.sigmoid()
        means, at = [], 1
        for name in NAMES:
            tokens = len(dino[1].tokenizer(name)["input_ids"]) - 2
            assert ids[at + tokens] == 1012
            means.append(chances[..., at : at + tokens].mean(dim=-1))
            at += tokens + 1
        rows = ZeroShotDetector(Local(dino[0]), dino[1]).candidates(images, NAMES)
        assert torch.equal(rows[..., 5].long(), torch.stack(means, dim=-1).argmax(dim=-1))
        assert rows[..., 5].unique().numel() > 2

    @pytest.mark.parametrize("names", [("no. 5",), ("cat " * 300,)])
    def test_names_it_cannot_read_are_refused(self, dino, names):
        with pytest.raises(ValueError, match="full stops"):
            ZeroShotDetector(Local(dino[0]), dino[1]).detect(pictures(), names)


class TestOwl:
    @pytest.mark.parametrize("size", [(60, 96), (96, 60)])
    def test_boxes_scores_and_classes_are_the_librarys(self, owl, size):
        network, processor = owl
        images = pictures(3, *size)
        texts = [[f"a photo of a {name}" for name in NAMES]] * 3
        given = processor(
            images=as_library(images), text=texts, do_rescale=False, return_tensors="pt"
        )
        with torch.no_grad():
            outputs = network(**given)
        wanted = processor.image_processor.post_process_object_detection(
            outputs, THRESHOLD, target_sizes=[size] * 3
        )
        rows = ZeroShotDetector(Local(network), processor).candidates(images, NAMES)
        found = 0
        for row, want in zip(rows, wanted, strict=True):
            row = row[row[:, 4] > THRESHOLD]
            found += len(row)
            assert torch.allclose(row[:, 4], want["scores"], atol=1e-5)
            assert torch.allclose(row[:, :4], want["boxes"], atol=1e-3)
            assert torch.equal(row[:, 5].long(), want["labels"])
        assert found > 3

    def test_a_name_beyond_its_text_model_is_refused(self, owl):
        with pytest.raises(ValueError, match="16 tokens"):
            ZeroShotDetector(Local(owl[0]), owl[1]).detect(pictures(), ("cat " * 20,))


class TestFiltering:
    def boxes(self, rows):
        return {Box(*row[:5], NAMES[int(row[5])]) for row in rows.tolist()}

    @pytest.mark.parametrize("segmented", [False, True])
    def test_detect_is_candidates_filtered_by_the_papers_rules(self, owl, segmented):
        images = pictures()
        sam = detectors.sam()
        segment = (Local(sam[0]), sam[1]) if segmented else None
        detector = ZeroShotDetector(Local(owl[0]), owl[1], 0.1, segment)
        dropped = 0
        rows = detector.candidates(images, NAMES)
        for image, row, found in zip(images, rows, detector.detect(images, NAMES), strict=True):
            row = row[row[:, 4] > 0.1]
            row = row[confident(row[:, 4], row[:, 5].long())]
            row = torch.cat([row[:, :4].clamp(min=0), row[:, 4:]], dim=1)
            row[:, :4] = row[:, :4].minimum(torch.tensor([96.0, 60.0, 96.0, 60.0]))
            masks = detector.masks(row[:, :4], image) if segmented else None
            keep = distinct(row[:, :4], row[:, 4], row[:, 5], masks)
            dropped += int((~keep).sum())
            assert set(found) == self.boxes(row[keep])
            assert [box.score for box in found] == sorted(
                (box.score for box in found), reverse=True
            )
        assert dropped > 0

    def test_masks_are_where_any_of_sams_three_is(self):
        network, processor = detectors.sam()
        image = pictures(1)[0]
        boxes = torch.tensor([[3.0, 4.0, 40.0, 50.0], [10.0, 0.0, 90.0, 30.0]])
        given = processor(
            images=as_library([image]), input_boxes=[boxes.tolist()], do_rescale=False,
            return_tensors="pt",
        )  # fmt: skip
        with torch.no_grad():
            outputs = network(
                pixel_values=given["pixel_values"], input_boxes=given["input_boxes"].float()
            )
        three = processor.image_processor.post_process_masks(
            outputs.pred_masks, given["original_sizes"], given["reshaped_input_sizes"]
        )[0]
        detector = ZeroShotDetector(None, None, segment=(Local(network), processor))
        masks = detector.masks(boxes, image)
        assert masks.shape == (2, 60, 96)
        assert torch.equal(masks, three.float().mean(dim=1) > 0)
        assert 0 < masks.float().mean() < 1

    def test_sam_is_not_asked_where_nothing_was_found(self, dino):
        sam = detectors.sam()
        detector = ZeroShotDetector(Local(dino[0]), dino[1], 0.99999, (Local(sam[0]), sam[1]))
        assert [list(found) for found in detector.detect(pictures(), NAMES)] == [[], [], []]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    for name in ("grounding_dino", "owlv2", "sam"):
        detectors.save(name, root / name)
    return root


class TestFolders:
    @pytest.mark.parametrize("make", [detectors.grounding_dino, detectors.owlv2])
    def test_a_saved_folder_is_the_detector(self, folder, make):
        network, processor = make()
        path = folder / make.__name__
        loaded = ZeroShotDetector(Local(load_zero_shot(path)), load_processor(path))
        own = ZeroShotDetector(Local(network), processor)
        images = pictures()
        assert torch.equal(loaded.candidates(images, NAMES), own.candidates(images, NAMES))

    def test_sams_folder_is_sam(self, folder):
        network, processor = detectors.sam()
        path = folder / "sam"
        boxes, image = torch.tensor([[3.0, 4.0, 40.0, 50.0]]), pictures(1)[0]
        found = [
            ZeroShotDetector(None, None, segment=pair).masks(boxes, image)
            for pair in (
                (Local(load_sam(path)), load_processor(path)), (Local(network), processor),
            )
        ]  # fmt: skip
        assert torch.equal(*found)

    def test_another_kind_is_refused_by_name(self, folder):
        with pytest.raises(ValueError, match=r"sam holds a model of type 'sam'.*grounding-dino"):
            load_zero_shot(folder / "sam")
        with pytest.raises(ValueError, match="type 'owlv2'"):
            load_sam(folder / "owlv2")

    def test_pickled_weights_are_not_read(self, folder, tmp_path):
        config = json.loads((folder / "sam" / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config))
        torch.save(detectors.sam()[0].state_dict(), tmp_path / "pytorch_model.bin")
        with pytest.raises(ValueError, match=r"cannot load.*safetensors(?s:.*)every file"):
            load_sam(tmp_path)

    def test_a_folder_without_its_words_is_refused(self, folder, tmp_path):
        shutil.copytree(folder / "owlv2", tmp_path / "owl")
        # transformers 4 saves the words twice
        names = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
        for file in (tmp_path / "owl" / name for name in names):
            file.unlink(missing_ok=True)
        with pytest.raises(ValueError, match=r"owl holds no tokenizer.*vocab.json"):
            load_zero_shot(tmp_path / "owl")

    @pytest.mark.parametrize("content", ["{}", "{oops"])
    def test_a_config_that_is_none_is_explained(self, tmp_path, content):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ValueError, match=r"cannot load(?s:.*)every file of a published"):
            load_zero_shot(tmp_path)
