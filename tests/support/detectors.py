"""Small detectors of the true architectures, seeded, with tokenizers made on the spot."""

from functools import cache
from string import ascii_lowercase

import torch

WORDS = ("cat", "dog", "red", "apple", "gir", "teddy", "bear", "a", "photo", "of")


def seeded(network, gain=1.0):
    """Weights from a seed, larger than at the start of training so that pictures differ."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise * gain / parameter[0].numel() ** 0.5)
    return network.eval()


@cache
def grounding_dino():
    """Network and processor of a small Grounding DINO."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import (
        BertConfig,
        BertTokenizerFast,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS, "##affe"]
    # ids of the separators are fixed in the model's code: 101, 102, 1012, 1029
    fixed = {101: "[CLS]", 102: "[SEP]", 1012: ".", 1029: "?"}
    words = [word for word in vocabulary if word not in fixed.values()]
    by_id = {i: f"[unused{i}]" for i in range(1030)} | dict(enumerate(words)) | fixed
    ids = {word: i for i, word in by_id.items()}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 102), ("[CLS]", 101))
    fast = BertTokenizerFast(tokenizer_object=tokenizer, vocab=ids)
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            image_size=64, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2],
            window_size=4, out_features=["stage2", "stage3", "stage4"],
        ),
        text_config=BertConfig(
            vocab_size=1100, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=32,
        ),
        num_queries=20, d_model=32, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, encoder_attention_heads=2, decoder_attention_heads=2,
        disable_custom_kernels=True, use_timm_backbone=False, use_pretrained_backbone=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = seeded(GroundingDinoForObjectDetection(config))
    images = GroundingDinoImageProcessor(size={"shortest_edge": 96, "longest_edge": 144})
    return network, GroundingDinoProcessor(images, fast)


@cache
def owlv2():
    """Network and processor of a small OWLv2."""
    from transformers import (
        CLIPTokenizerFast,
        Owlv2Config,
        Owlv2ForObjectDetection,
        Owlv2ImageProcessor,
        Owlv2Processor,
    )

    tokens = [*ascii_lowercase, *(f"{letter}</w>" for letter in ascii_lowercase)]
    merges = []
    for word in WORDS:
        whole = word[0]
        for letter in [*word[1:-1], *(f"{end}</w>" for end in word[1:][-1:])]:
            merges.append((whole, letter))
            whole += letter
            tokens.append(whole)
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    ids = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    start, end = ids["<|startoftext|>"], ids["<|endoftext|>"]
    merges = list(dict.fromkeys(merges))
    tokenizer = CLIPTokenizerFast(vocab=ids, merges=merges, model_max_length=16)
    shared = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    config = Owlv2Config(
        text_config={
            **shared, "num_attention_heads": 2, "vocab_size": len(ids),
            "max_position_embeddings": 16, "bos_token_id": start, "eos_token_id": end,
            "pad_token_id": 0,
        },
        vision_config={**shared, "num_attention_heads": 2, "image_size": 64, "patch_size": 16},
        projection_dim=32,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = seeded(Owlv2ForObjectDetection(config))
    images = Owlv2ImageProcessor(size={"height": 64, "width": 64})
    return network, Owlv2Processor(images, tokenizer)


@cache
def sam():
    """Network and processor of a small Segment Anything."""
    from transformers import SamConfig, SamImageProcessor, SamModel, SamProcessor

    config = SamConfig(
        vision_config={
            "hidden_size": 16, "output_channels": 32, "num_hidden_layers": 1, "image_size": 64,
            "num_attention_heads": 2, "patch_size": 16, "mlp_dim": 16, "window_size": 2,
            "global_attn_indexes": [0], "num_pos_feats": 16,
        },
        prompt_encoder_config={
            "hidden_size": 32, "image_size": 64, "patch_size": 16, "mask_input_channels": 4,
        },
        mask_decoder_config={
            "hidden_size": 32, "mlp_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "iou_head_hidden_dim": 8,
        },
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = seeded(SamModel(config))
    sides = {"longest_edge": 64}, {"height": 64, "width": 64}
    return network, SamProcessor(SamImageProcessor(size=sides[0], pad_size=sides[1]))


def save(name, folder):
    """Save one of the above as transformers does, by its name here."""
    for part in globals()[name]():
        part.save_pretrained(folder)
