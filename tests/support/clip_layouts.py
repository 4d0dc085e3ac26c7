"""Published layouts of CLIP's halves by rule: names and shapes, and the bytes a file of them has.

That a rule is right shows in the size: safetensors writes a header of every name, type, shape and
place, so a name too many or a letter more gives another number of bytes than the published one.
"""

import json
import math

import torch

TEXT = {768: 12, 1024: 24, 1280: 32}
"""Width of a text model to its layers."""

VISION = {768: (1024, 4096, 24), 1024: (1280, 5120, 32), 1280: (1664, 8192, 48)}
"""Numbers of an embedding to width, inner width and layers of the vision half."""

BYTES = {"F16": 2, "F32": 4, "I64": 8}


def _layers(prefix, width, inner, count):
    """Names and shapes of the transformer's layers."""
    found = {}
    for layer in range(count):
        start = f"{prefix}encoder.layers.{layer}."
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            found |= _linear(f"{start}self_attn.{part}", width, width)
        found |= _norm(f"{start}layer_norm1", width) | _norm(f"{start}layer_norm2", width)
        found |= _linear(f"{start}mlp.fc1", inner, width) | _linear(f"{start}mlp.fc2", width, inner)
    return found


def _linear(name, out, into):
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def _norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def text(width, layers=None, projected=True, numbered=False):
    """A text model as transformers saves it; `numbered`: with the numbers of places."""
    start = "text_model."
    found = {f"{start}embeddings.position_ids": (1, 77)} if numbered else {}
    found[f"{start}embeddings.token_embedding.weight"] = (49408, width)
    found[f"{start}embeddings.position_embedding.weight"] = (77, width)
    found |= _layers(start, width, 4 * width, layers or TEXT[width])
    found |= _norm(f"{start}final_layer_norm", width)
    return found | ({"text_projection.weight": (width, width)} if projected else {})


def vision(embedding, numbered=False):
    """A vision model with its projection as transformers saves it, of 224 pixels and patches of
    14."""
    width, inner, layers = VISION[embedding]
    start = "vision_model."
    found = {f"{start}embeddings.position_ids": (1, 257)} if numbered else {}
    found[f"{start}embeddings.class_embedding"] = (width,)
    found[f"{start}embeddings.patch_embedding.weight"] = (width, 3, 14, 14)
    found[f"{start}embeddings.position_embedding.weight"] = (257, width)
    found |= _norm(f"{start}pre_layrnorm", width) | _layers(start, width, inner, layers)
    found |= _norm(f"{start}post_layernorm", width)
    return found | {"visual_projection.weight": (embedding, width)}


def size(shapes, kind):
    """Bytes of the file that safetensors writes of tensors of a type, as transformers calls it."""
    rows = [(k, "I64" if k.endswith("_ids") else kind, shape) for k, shape in shapes.items()]
    header, place = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape in sorted(rows, key=lambda row: (-BYTES[row[1]], row[0])):
        end = place + BYTES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, end]}
        place = end
    written = len(json.dumps(header, separators=(",", ":")))
    return 8 + written + -written % 8 + place


def meta(shapes):
    """Tensors without memory."""
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def open_clip(weights, prefix):
    """A text model of transformers in OpenCLIP's names, as checkpoints of SD 2 hold it."""
    names = {
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
    }
    parts = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc"}
    parts |= {"mlp.fc2": "mlp.c_proj", "self_attn.out_proj": "attn.out_proj"}
    found = {}
    for name, value in weights.items():
        if name == "text_projection.weight":
            found["text_projection"] = value.T.contiguous()
        elif ".q_proj." in name:
            three = [weights[name.replace("q_proj", f"{one}_proj")] for one in "qkv"]
            layer, end = name.split(".")[3], name.rpartition(".")[2]
            found[f"transformer.resblocks.{layer}.attn.in_proj_{end}"] = torch.cat(three)
        elif ".k_proj." not in name and ".v_proj." not in name:
            new = names.get(name, name.replace("text_model.final_layer_norm", "ln_final"))
            new = new.replace("text_model.encoder.layers", "transformer.resblocks")
            for old, part in parts.items():
                new = new.replace(old, part)
            found[new] = value
    return {prefix + name: value for name, value in found.items()}
