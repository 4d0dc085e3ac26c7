"""Write what the published packages say: tests/data/reward_keys and preference_reference.json.

Not part of any environment of this project; made once, with the packages in a folder of their own:

    pip install --target refs --no-deps transformers==4.50.3 tokenizers==0.21.4 \
        huggingface-hub==0.36.2 hpsv2==1.2.0 image-reward==1.5 timm==0.6.13 fairscale==0.4.6 \
        clint args iopath wcwidth ftfy regex open_clip_torch==3.3.0
    cp refs/open_clip/bpe_simple_vocab_16e6.txt.gz refs/hpsv2/src/open_clip  # hpsv2 forgot it
    PYTHONPATH=refs:tests/support python scripts/preference_reference.py keys
    PYTHONPATH=refs:tests/support python scripts/preference_reference.py values
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import preference_weights as made
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PROMPTS = (
    "a photo of two cats",
    "  Caf\u00e9 &amp; cr\u00e8me,\n\n isn't it? 42",
    "<b>3 dogs</b> -- under a BLUE sky!!! ... ",
    "word " * 100,
    "",
)
BERT_PROMPTS = (
    "A reddish BALLOON, two cats.",
    "caf\u00e9 under the sunset",
    "one zebra",
    "cats " * 50,
)


def _enter(name: str) -> None:
    """Make a package's modules importable without its __init__, which imports all that it has."""
    spec = importlib.util.find_spec(name)
    package = types.ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations or ()) if spec else []
    sys.modules[name] = package


def hps_model(small: bool) -> torch.nn.Module:
    """hpsv2's own CLIP; small or as published."""
    model: Any = importlib.import_module("hpsv2.src.open_clip.model")
    folder = Path(importlib.import_module("hpsv2.src.open_clip").__file__ or "").parent
    config = json.loads((folder / "model_configs" / "ViT-H-14.json").read_text())
    if small:
        config["embed_dim"] = 128
        config["vision_cfg"] |= {"layers": 2, "width": 160, "mlp_ratio": 2.0}
        config["text_cfg"] |= {"layers": 2, "width": 128, "heads": 2, "vocab_size": 96}
    clip = model.CLIP(**config)
    if small:  # the text tower's ratio is fixed at 4 in its class
        for block in clip.transformer.resblocks:
            block.mlp.c_fc, block.mlp.c_proj = torch.nn.Linear(128, 256), torch.nn.Linear(256, 128)
    return clip


def judged(small: bool) -> torch.nn.Module:
    """image-reward's own network; small or as published."""
    for package in ("ImageReward", "ImageReward.models"):
        _enter(package)
    blip: Any = importlib.import_module("ImageReward.models.BLIP.blip_pretrain")
    reward: Any = importlib.import_module("ImageReward.ImageReward")
    blip.init_tokenizer = lambda: None  # asks a hub for bert-base-uncased
    sizes = {
        "hidden_size": 192 if small else 768,
        "intermediate_size": 384 if small else 3072,
        "num_attention_heads": 3 if small else 12,
        "num_hidden_layers": 2 if small else 12,
        "vocab_size": 40 if small else 30524,
        "max_position_embeddings": 40 if small else 512,
    }
    config = {"add_cross_attention": True, "encoder_width": 1024, "layer_norm_eps": 1e-12, **sizes}
    path = ROOT / ".med_config.json"  # as BLIP's configs/med_config.json
    path.write_text(json.dumps(config))
    if small:
        vit: Any = importlib.import_module("ImageReward.models.BLIP.vit")
        tower = vit.VisionTransformer(
            img_size=224, patch_size=16, embed_dim=128, depth=2, num_heads=2, mlp_ratio=2.0
        )
        blip.create_vit = lambda *_: (tower, 128)
    network = reward.ImageReward(med_config=str(path))
    path.unlink()
    if small:
        pairs = ((192, 128), (128, 128), (128, 64), (64, 16), (16, 1))
        for place, (a, b) in zip((0, 2, 4, 6, 7), pairs, strict=True):
            network.mlp.layers[place] = torch.nn.Linear(a, b)
    return network


def clip_h() -> torch.nn.Module:
    """transformers' CLIPModel of PickScore's configuration, which is CLIP ViT-H/14's."""
    transformers: Any = importlib.import_module("transformers")
    sizes = {"hidden_act": "gelu", "num_attention_heads": 16}
    vision = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32}
    text = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
    config = transformers.CLIPConfig(
        vision_config=vision | sizes | {"patch_size": 14},
        text_config=text | sizes,
        projection_dim=1024,
    )
    return transformers.CLIPModel(config)


def keys() -> None:
    """Write names and shapes of the three files."""
    with torch.device("meta"):
        found = {"hps_v2_1": hps_model(False), "pick_score": clip_h()}
    found["image_reward"] = judged(False)
    sources = {
        "hps_v2_1": "state_dict of hpsv2 1.2.0's CLIP ViT-H-14, which loads the file strictly",
        "pick_score": "state_dict of transformers' CLIPModel at CLIP ViT-H/14's sizes, with the "
        "position ids that versions before 4.31 saved; derived, the file itself was not seen",
        "image_reward": "state_dict of image-reward 1.5's network at BLIP's med_config.json, "
        "which is what its authors trained; derived, the file itself was not seen",
    }
    for name, network in found.items():
        tensors = {key: list(value.shape) for key, value in network.state_dict().items()}
        if name == "pick_score":
            tensors["text_model.embeddings.position_ids"] = [1, 77]
            tensors["vision_model.embeddings.position_ids"] = [1, 257]
        lines = ",\n".join(f"  {json.dumps(key)}: {shape}" for key, shape in tensors.items())
        text = f'{{\n "source": {json.dumps(sources[name])},\n "tensors": {{\n{lines}\n }}\n}}\n'
        (made.DATA / "reward_keys" / f"{name}.json").write_text(text, encoding="utf-8")


def values() -> None:
    """Write values of the small networks and tokens, by the packages' own code."""
    tokenizer: Any = importlib.import_module("hpsv2.src.open_clip.tokenizer")
    transform: Any = importlib.import_module("hpsv2.src.open_clip.transform")
    transformers: Any = importlib.import_module("transformers")
    pictures = [made.picture(seed, *size) for seed, size in enumerate(((224, 224), (300, 180)))]
    opened = [Image.fromarray(picture) for picture in pictures]
    rows: dict[str, Any] = {"made_by": "scripts/preference_reference.py values"}
    tokens = tokenizer.tokenize(list(PROMPTS)).tolist()
    rows["clip_ids"] = {
        prompt: [i for i in ids if i] for prompt, ids in zip(PROMPTS, tokens, strict=True)
    }
    ids = torch.tensor([[94, 5, 17, 3, 60, 95]])
    padded = torch.cat([ids, torch.zeros(1, 71, dtype=torch.int64)], dim=1)
    hps = hps_model(True).eval()
    hps.load_state_dict(made.seeded(made.small("hps_v2_1")))
    prepare = transform.image_transform(224, is_train=False, resize_longest_max=True)
    with torch.no_grad():
        found = [hps(prepare(picture)[None], padded) for picture in opened]
    rows["hps"] = {"ids": ids[0].tolist(), "values": [float(f[0] @ f[1].T) for f in found]}
    network: Any = judged(True).eval()
    network.load_state_dict(made.seeded(made.small("image_reward")))
    path = ROOT / ".vocab.txt"
    path.write_text("\n".join(made.VOCABULARY) + "\n", encoding="utf-8")
    bert = transformers.BertTokenizer(str(path))
    path.unlink()
    bert.add_special_tokens({"bos_token": "[DEC]"})
    bert.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    network.blip.tokenizer = bert
    rows["bert_ids"] = {
        prompt: bert(prompt, truncation=True, max_length=35).input_ids for prompt in BERT_PROMPTS
    }
    values = [network.score(BERT_PROMPTS[0], picture) for picture in opened]
    rows["image_reward"] = {"prompt": BERT_PROMPTS[0], "values": values}
    text = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in rows.items())
    (made.DATA / "preference_reference.json").write_text(f"{{\n{text}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    {"keys": keys, "values": values}[sys.argv[1]]()
