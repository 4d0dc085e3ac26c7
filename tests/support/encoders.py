"""Small encoders of the true architectures with seeded weights, in folders as transformers saves
them."""

import atexit
import functools
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BitImageProcessor,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2ImageProcessor,
    Siglip2Model,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from flowsearch.rewards.embedding import transformers_encoder
from flowsearch.rewards.embedding.encoder import Encoder
from flowsearch.rewards.weights.holder import Local

_BASE = tempfile.TemporaryDirectory(prefix="flowsearch-encoders-", ignore_cleanup_errors=True)
atexit.register(_BASE.cleanup)

WORDS = ["a", "photo", "of", "red", "blue", "cat", "dog", "three", "two", "circles", "on", "the"]
WORDS += ["table", "(", ")", ":", "1", "2", ",", "."]
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 2}
HALF = [0.5, 0.5, 0.5]


def tokenizer():
    """Words to numbers, with start and end, in lower case or not as the text comes."""
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.normalizer = normalizers.NFC()
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_input_names=["input_ids"],
    )


def letters():
    """What transformers takes for SigLIP 2, whatever a folder says, with letters for its
    vocabulary."""
    try:
        from transformers import Siglip2Tokenizer
    except ImportError:  # transformers 4 takes what the folder says
        return tokenizer()
    signs = [*"\u2581abcdefghijklmnopqrstuvwxyz0123456789().:,"]
    vocabulary = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *signs]
    return Siglip2Tokenizer(vocab={sign: i for i, sign in enumerate(vocabulary)}, merges=[])


def text(**more):
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return SMALL | ids | {"vocab_size": 64, "max_position_embeddings": 16} | more


def scattered(model):
    """Larger weights than those of a new model, so that pictures and words make a difference."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim > 1:
                spread = 0.02 if "position" in name else 0.12
                weights.copy_(torch.randn(weights.shape, generator=generator) * spread)
    return model.eval()


def clip():
    vision = SMALL | {"image_size": 32, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text(), vision_config=vision, projection_dim=24))
    size = {"height": 32, "width": 32}
    return model, CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)


def clip_l():
    """As wide as CLIP ViT-L/14 at its end, and as large a picture."""
    vision = SMALL | {"image_size": 224, "patch_size": 56}
    config = CLIPConfig(text_config=text(), vision_config=vision, projection_dim=768)
    return CLIPModel(config), CLIPImageProcessor()


def siglip():
    vision = SMALL | {"image_size": 48, "patch_size": 12}
    model = SiglipModel(SiglipConfig(text_config=text(), vision_config=vision))
    return model, SiglipImageProcessor(size={"height": 48, "width": 48})


def siglip_so400m():
    """As wide as SigLIP so400m, and as large a picture."""
    wide = {"hidden_size": 1152, "num_hidden_layers": 1}
    vision = SMALL | wide | {"image_size": 384, "patch_size": 96}
    model = SiglipModel(SiglipConfig(text_config=text() | wide, vision_config=vision))
    return model, SiglipImageProcessor(size={"height": 384, "width": 384})


def naflex():
    vision = SMALL | {"patch_size": 8, "num_patches": 16}
    words = text(max_position_embeddings=64)
    model = Siglip2Model(Siglip2Config(text_config=words, vision_config=vision))
    return model, Siglip2ImageProcessor(patch_size=8, max_num_patches=20)


def dinov2():
    config = Dinov2Config(**SMALL, mlp_ratio=2, image_size=32, patch_size=8)
    size = {"height": 28, "width": 28}
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    crop = BitImageProcessor(
        size={"shortest_edge": 36}, crop_size=size, image_mean=mean, image_std=std
    )
    crop.crop_size = {"height": 32, "width": 32}
    return Dinov2Model(config), crop


def pictures(count=4, height=61, width=83):
    """8-bit pictures that differ: each a few blots of colour, with some noise."""
    generator = torch.Generator().manual_seed(6)
    blots = torch.rand(count, 3, 3, 4, generator=generator)
    large = torch.nn.functional.interpolate(blots, size=(height, width), mode="bilinear")
    noise = torch.rand(count, height, width, 3, generator=generator)
    return ((large.movedim(1, -1) * 0.8 + noise * 0.2) * 255).to(torch.uint8)


KINDS = {f.__name__: f for f in (clip, clip_l, siglip, siglip_so400m, naflex, dinov2)}


@functools.cache
def folder(kind: str) -> Path:
    """A folder as transformers saves it: network, processor and, where there is text, tokenizer."""
    path = Path(_BASE.name) / kind
    torch.manual_seed(3)
    model, processor = KINDS[kind]()
    scattered(model).save_pretrained(path)
    processor.save_pretrained(path)
    if kind != "dinov2":
        (letters() if kind == "naflex" else tokenizer()).save_pretrained(path)
    return path


@functools.cache
def encoder(kind: str) -> Encoder:
    """Its encoders, in float32, without a host."""
    network = transformers_encoder.load(folder(kind), torch.float32)
    return transformers_encoder.encoder(Local(network), folder(kind))
