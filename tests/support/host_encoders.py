"""Small CLIPs as the host's own loaders make them, and the same weights in a transformers folder.

The host recognises a CLIP_VISION by its number of layers and then expects the full size, so a
small one is made by its class from a configuration; a text model of any size goes through the
host's loader.
"""

import json
import tempfile
from pathlib import Path

import comfy.sd
import pytest
import torch
from comfy.clip_vision import ClipVisionModel
from encoders import scattered
from safetensors.torch import load_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    SiglipVisionConfig,
    SiglipVisionModel,
)

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 2}
VISION = SIZES | {"image_size": 56, "patch_size": 14}
TEXT = SIZES | {"vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 49407}
TEXT |= {"bos_token_id": 49406, "pad_token_id": 49407}
QUICK = {"hidden_act": "quick_gelu"}


def rounded(model):
    """Weights that fp16 holds exactly, as the host keeps them."""
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(weights.half().float())
    return model.eval()


def clip_model(side: int = 56, projection: int = 32) -> CLIPModel:
    """CLIP with the real vocabulary's size, seeded, as wide in text as its projection."""
    torch.manual_seed(1)
    text = TEXT | QUICK | {"hidden_size": projection}
    vision = VISION | QUICK | {"image_size": side, "patch_size": side // 4}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=projection)
    return rounded(scattered(CLIPModel(config)))


def folder(model: CLIPModel, path: Path, comfyui: Path) -> Path:
    """Save a CLIP as transformers does, with the vocabulary that comes with the host."""
    model.save_pretrained(path)
    side = model.config.vision_config.image_size
    size = {"height": side, "width": side}
    CLIPImageProcessor(size={"shortest_edge": side}, crop_size=size).save_pretrained(path)
    CLIPTokenizer.from_pretrained(comfyui / "comfy" / "sd1_tokenizer").save_pretrained(path)
    return path


def _vision(config: dict) -> ClipVisionModel:
    """The host's CLIP_VISION of a config, which older hosts read from a file only."""
    with tempfile.TemporaryDirectory() as path:
        file = Path(path) / "config.json"
        file.write_text(json.dumps(config), encoding="utf-8")
        return ClipVisionModel(str(file))


def clip_vision(model: CLIPModel, without: str = "nothing") -> ClipVisionModel:
    """The host's CLIP_VISION of a CLIP."""
    config = model.config.vision_config.to_dict() | {"projection_dim": model.config.projection_dim}
    made = _vision(config | {"num_channels": 3, "model_type": "clip_vision_model"})
    made.load_sd({k: v for k, v in model.state_dict().items() if without not in k})
    return made


def clip(model: CLIPModel, without: str = "nothing"):
    """The host's CLIP of a whole CLIP's file, by the host's loader."""
    weights = {k: v for k, v in model.state_dict().items() if without not in k}
    config = model.config.text_config.to_dict()
    return comfy.sd.load_text_encoder_state_dicts([weights], model_options={"model_config": config})


def dinov2():
    """DINOv2 and the host's CLIP_VISION of it, of the published picture size in small."""
    torch.manual_seed(2)
    sizes = {k: v for k, v in SIZES.items() if k != "intermediate_size"}
    config = Dinov2Config(**sizes, mlp_ratio=4, image_size=224, patch_size=56)
    model = rounded(scattered(Dinov2Model(config)))
    style = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    made = _vision(config.to_dict() | style | {"model_type": "dinov2"})
    if made.model.embeddings.patch_embeddings.projection.kernel_size != (56, 56):
        pytest.skip("this host has DINOv2 of the published patch size only")
    with tempfile.TemporaryDirectory() as path:  # saved, weights have their published names
        model.save_pretrained(path)
        missing, unknown = made.load_sd(load_file(Path(path) / "model.safetensors"))
    assert not missing
    assert not unknown
    return model, made


def siglip():
    """SigLIP's vision half and the host's CLIP_VISION of it, without the pooling head."""
    torch.manual_seed(2)
    model = rounded(scattered(SiglipVisionModel(SiglipVisionConfig(**VISION))))
    style = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "model_type": "siglip_vision_model"}
    config = model.config.to_dict() | {"hidden_act": "gelu_pytorch_tanh"} | style
    made = _vision(config)
    weights = model.state_dict()
    prefix = "" if any(k.startswith("vision_model.") for k in weights) else "vision_model."
    missing, _ = made.load_sd({prefix + k: v for k, v in weights.items()})
    assert not missing
    return model, made
