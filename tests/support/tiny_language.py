"""Image-text-to-text models of true architectures, with few seeded weights and own tokenizers."""

import functools
import inspect
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from flowsearch.rewards.language.vision_language import FolderModel, load_network, load_processor
from flowsearch.rewards.weights.holder import Local

TEMPLATE = (
    "{% for message in messages %}<|user|>{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|end|>{% endfor %}{% if add_generation_prompt %}<|model|>{% endif %}"
)
CORPUS = [
    "Yes No yes no Yes. No. Yes No yes no Yes No",
    "How many apples are in the picture? Answer with one number.",
    "Does this figure show a cat? Please answer yes or no.",
    "10 11 12 13 14 15 16 17 18 19 20 30 99",
] * 20


IS_NEW = int(transformers.__version__.split(".")[0]) >= 5


def tokenizer(special, digits_apart=True, make=PreTrainedTokenizerFast, starts=False):
    """A byte-level tokenizer in which "10" is two tokens, or one; it may begin a text itself."""
    made = Tokenizer(models.BPE())
    parts = [pre_tokenizers.Digits(individual_digits=True)] if digits_apart else []
    parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True))
    made.pre_tokenizer = pre_tokenizers.Sequence(parts)
    made.decoder = decoders.ByteLevel()
    tokens = ["<|end|>", "<|pad|>", "<|user|>", "<|model|>", *special]
    made.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=420,
            special_tokens=tokens,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if starts:
        user = made.token_to_id("<|user|>")
        made.post_processor = processors.TemplateProcessing(
            single="<|user|> $A", special_tokens=[("<|user|>", user)]
        )
    return make(
        tokenizer_object=made,
        bos_token="<|user|>" if starts else None,
        model_input_names=["input_ids", "attention_mask"],
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=tokens[2:],
    )


def _accepted(make, **given):
    """Make a processor of whichever version is installed."""
    known = inspect.signature(make.__init__).parameters
    return make(**{name: value for name, value in given.items() if name in known})


def _text(size, **more):
    return dict(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=size,
        **more,
    )


def _seeded(network):
    """Weights large enough for pictures and questions to matter."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return network.eval()


def qwen(path):
    """Qwen2.5-VL."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tokens = tokenizer(
        ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"],
        make=PreTrainedTokenizerFast if IS_NEW else transformers.Qwen2TokenizerFast,
    )
    ids = {
        name: tokens.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("vision_start", "vision_end", "image_pad", "video_pad")
    }
    special = dict(
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        eos_token_id=0,
        pad_token_id=1,
    )
    rope = {"type": "mrope", "mrope_section": [1, 1, 2]}
    text = _text(len(tokens), rope_scaling=rope, max_position_embeddings=2048)
    vision = dict(
        depth=2,
        hidden_size=32,
        intermediate_size=48,
        num_heads=2,
        out_hidden_size=32,
        patch_size=14,
        fullatt_block_indexes=[1],
        window_size=56,
    )
    config = Qwen2_5_VLConfig(
        vision_config=vision, **({"text_config": text} if IS_NEW else text), **special
    )
    network = _seeded(Qwen2_5_VLForConditionalGeneration(config))
    network.generation_config.eos_token_id = 0
    images = transformers.Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=112 * 112)
    video = getattr(transformers, "Qwen2VLVideoProcessor", None)
    processor = _accepted(
        transformers.Qwen2_5_VLProcessor,
        image_processor=images,
        tokenizer=tokens,
        video_processor=video() if video else None,
        chat_template=TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
    )
    return _saved(path, network, processor)


def llava(path):
    """LLaVA 1.5: CLIP and Llama; "10" is one token."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    tokens = tokenizer(["<image>"], digits_apart=False)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=28,
            patch_size=14,
        ),
        text_config=LlamaConfig(**_text(len(tokens)), eos_token_id=0, pad_token_id=1),
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
    )
    network = _seeded(transformers.LlavaForConditionalGeneration(config))
    network.generation_config.eos_token_id = 0
    images = transformers.CLIPImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    )
    processor = _accepted(
        transformers.LlavaProcessor,
        image_processor=images,
        tokenizer=tokens,
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE.replace("IMAGE", "<image>\n"),
        num_additional_image_tokens=1,
    )
    return _saved(path, network, processor)


def idefics(path):
    """Idefics3, of which SmolVLM is a child: SigLIP and Llama, "10" is two tokens."""
    from transformers import Idefics3Config, LlamaConfig

    tokens = tokenizer(
        ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"],
        starts=True,
    )
    config = Idefics3Config(
        vision_config=dict(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=56,
            patch_size=14,
        ),
        text_config=LlamaConfig(**_text(len(tokens)), eos_token_id=0, pad_token_id=1),
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=1,
    )
    network = _seeded(transformers.Idefics3ForConditionalGeneration(config))
    network.generation_config.eos_token_id = 0
    images = transformers.Idefics3ImageProcessor(
        size={"longest_edge": 56}, max_image_size={"longest_edge": 56}, do_image_splitting=False
    )
    processor = _accepted(
        transformers.Idefics3Processor,
        image_processor=images,
        tokenizer=tokens,
        image_seq_len=4,
        chat_template=TEMPLATE.replace("IMAGE", "<image>"),
    )
    return _saved(path, network, processor)


def _saved(path, network, processor):
    network.save_pretrained(path)
    processor.save_pretrained(path)
    return path


MAKERS = {"qwen": qwen, "llava": llava, "idefics": idefics}


@functools.cache
def folder(name) -> Path:
    """A folder with the model, kept for the run."""
    import atexit
    import tempfile

    kept = tempfile.TemporaryDirectory(prefix="flowsearch-vlm-", ignore_cleanup_errors=True)
    atexit.register(kept.cleanup)
    return MAKERS[name](Path(kept.name))


@functools.cache
def language_model(name, batch=8) -> FolderModel:
    """The model, loaded from its folder."""
    path = folder(name)
    return FolderModel(Local(load_network(path, torch.float32), batch), load_processor(path))
