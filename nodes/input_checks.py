"""Is what a node was given what its schema says? Else a sentence, before anything runs.

The host checks widgets that are typed in. It does not check what arrives by a wire: a number out
of range from a primitive, or anything at all from an output that fits every socket, as many packs
have them. Nor does it miss a list with inputs of its own (a DynamicCombo) that is left out, or that
has a word which is none of its options; and where one of those inputs is left out, it says None
instead of the default. All of that is mended here, for every node, by its schema.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, cast

import comfy.model_management
from comfy_api.latest import io
from torch import Tensor

from ..rewards.embedding.encoder import Encoder
from ..samplers.paths.noise_law import NoiseLaw
from .host.page.text import guard_errors
from .host.search.gradients import RewardGuidance
from .host.search.outcome import Report
from .host.search.search_sampler import StrategyChoice

__all__ = ["checked", "complaints", "completed"]


LONGEST_TEXT = 16_384
"""Characters of a text, some 2,500 words; files of anybody hold texts, and what reads them is not
always fast."""


def _has(*names: str) -> Callable[[Any], bool]:
    return lambda value: not isinstance(value, type) and all(hasattr(value, n) for n in names)


def _is_latent(value: Any) -> bool:
    samples = value.get("samples") if isinstance(value, Mapping) else None
    mask = value.get("noise_mask") if isinstance(value, Mapping) else None
    if not (mask is None or isinstance(mask, Tensor)):
        return False
    if getattr(samples, "is_nested", False):  # the host's own class, of picture and sound
        return True
    return isinstance(samples, Tensor) and samples.ndim > 2 and samples.numel() > 0


def _is_conditioning(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(row, list | tuple) and len(row) > 1 and isinstance(row[1], Mapping)
            for row in value
        )
    )


def _is_tensor(dimensions: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Tensor) and value.ndim == dimensions


# By type of socket: whether a value will do, and what will. A socket that is not here takes
# anything: its node looks itself.
SOCKETS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "MODEL": (_has("get_model_object", "model_options"), "a MODEL, as Load Checkpoint gives it"),
    "CLIP": (_has("tokenize", "cond_stage_model"), "a CLIP, as Load CLIP gives it"),
    "VAE": (_has("decode"), "a VAE, as Load Checkpoint or Load VAE gives it"),
    "CLIP_VISION": (_has("encode_image", "model"), "a CLIP_VISION, as Load CLIP Vision gives it"),
    "CONDITIONING": (_is_conditioning, "a CONDITIONING, as CLIP Text Encode gives it"),
    "LATENT": (
        _is_latent,
        "a LATENT with samples (batch, channels, ...), at least one row, as Empty Latent Image "
        "or VAE Encode gives it",
    ),
    "IMAGE": (_is_tensor(4), "an IMAGE (batch, height, width, channels), as Load Image gives it"),
    "MASK": (_is_tensor(3), "a MASK (batch, height, width), as Load Image (as Mask) gives it"),
    "SIGMAS": (_is_tensor(1), "SIGMAS, a list of levels, as Basic Scheduler gives it"),
    "NOISE": (_has("generate_noise", "seed"), "a NOISE, as Random Noise gives it"),
    "GUIDER": (_has("model_patcher", "sample"), "a GUIDER, as Basic Guider or CFG Guider gives it"),
    "SAMPLER": (_has("sample"), "a SAMPLER, as KSampler Select gives it"),
    "FLOW_NOISE_LAW": (lambda v: isinstance(v, NoiseLaw), "a noise law, as Noise Law gives it"),
    "FLOW_STRATEGY": (lambda v: isinstance(v, StrategyChoice), "a Search Strategy"),
    "FLOW_GUIDANCE": (lambda v: isinstance(v, RewardGuidance), "a Gradient Guidance"),
    "FLOW_REPORT": (lambda v: isinstance(v, Report), "a report, as a search gives it"),
    "FLOW_ENCODER": (lambda v: isinstance(v, Encoder), "a Load Reward Encoder"),
    "FLOW_LANGUAGE_MODEL": (
        _has("vocabulary", "next_token"),
        "a language model, as Load Vision-Language Model gives it",
    ),
}  # fmt: skip


def checked(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """Return a node that looks at what it is given before it runs.

    Args:
        node: A node class.

    Returns:
        A class of the same name, made from it.
    """
    # where a node judges an input itself (files that may be missing), its own sentence is better
    own = inspect.signature(node.validate_inputs).parameters

    def execute(cls: type[io.ComfyNode], **given: Any) -> io.NodeOutput:
        inputs = node.define_schema().inputs
        try:
            for sentence in complaints(inputs, given, own):
                raise ValueError(sentence)
            return node.execute.__func__(cls, **completed(inputs, given))  # pyright: ignore[reportFunctionMemberAccess]
        except comfy.model_management.InterruptProcessingException:
            raise
        except Exception as error:
            guard_errors(error)
            raise

    return type(node.__name__, (node,), {
        "__doc__": node.__doc__,
        "__module__": node.__module__,
        "__qualname__": node.__qualname__,
        "execute": classmethod(execute),
    })  # fmt: skip


def completed(inputs: Sequence[io.Input], given: Mapping[str, Any]) -> dict[str, Any]:
    """Give inputs of a chosen option that were left out their defaults.

    An optional list that was itself left out has its first option, as the page shows it.

    Args:
        inputs: Of a node's schema.
        given: What complaints() has nothing to say about.

    Returns:
        The same with those defaults.
    """
    out = dict(given)
    for each in inputs:
        if not isinstance(each, io.DynamicCombo.Input):
            continue
        value = out.get(each.id)
        if value is None and each.optional:
            first = each.options[0]
            value = {each.id: first.key, **{i.id: None for i in first.inputs}}
        if isinstance(value, Mapping):
            (chosen,) = (option for option in each.options if option.key == value[each.id])
            defaults = {i.id: getattr(i, "default", None) for i in chosen.inputs}
            kept = {key: defaults.get(key) if one is None else one for key, one in value.items()}
            out[each.id] = completed(chosen.inputs, kept)
    return out


def complaints(
    inputs: Sequence[io.Input],
    given: Mapping[str, Any],
    own: Sequence[str] | Mapping[str, Any] = (),
) -> Iterator[str]:
    """Say what is wrong with what a node was given.

    Args:
        inputs: Of its schema.
        given: By their ids; the host says None for an optional one that is left out.
        own: Ids whose options the node checks itself.

    Yields:
        One sentence for each input that is wrong.
    """
    yield from _strangers(inputs, given)
    for each in inputs:
        value = given.get(each.id)
        if value is None:
            if not each.optional and each.id not in given:
                yield f"'{each.id}' is missing; {_advice(each)}"
            elif not each.optional:
                yield f"'{each.id}' was given nothing (None); {_advice(each)}"
        elif isinstance(each, io.DynamicCombo.Input):
            yield from _of_combo(each, value)
        elif isinstance(each, io.Autogrow.Input):
            if not isinstance(value, Mapping):
                yield f"'{each.id}' was given {_shown(value)}; connect its inputs one by one"
                continue
            like = each.template.input
            for name, one in value.items():
                wrong = None if one is None else _wrong(like, one)
                if wrong:
                    yield f"'{each.id}.{name}' {wrong}"
        else:
            wrong = _wrong(each, value, each.id in own)
            if wrong:
                yield f"'{each.id}' {wrong}"


def _strangers(inputs: Sequence[io.Input], given: Mapping[str, Any]) -> Iterator[str]:
    """What the schema does not have: the host passes a wire on to whatever input it names."""
    there = {each.id: each for each in inputs}
    for name in given:
        grown = there.get(name.partition(".")[0])
        if isinstance(grown, io.Autogrow.Input) and name != grown.id:
            names = grown.template.names
            yield (
                f"'{name:.80}' is no input of this node: '{grown.id}' takes at most {len(names)}, "
                f"{names[0]} to {names[-1]}; leave the others out"
            )
        elif name not in there:
            yield f"'{name:.80}' is no input of this node; it has {', '.join(there)}"


def _of_combo(combo: io.DynamicCombo.Input, value: Any) -> Iterator[str]:
    """The list itself, and the inputs that its choice brings."""
    key = value.get(combo.id) if isinstance(value, Mapping) else value
    found = [option for option in combo.options if option.key == key]
    if not isinstance(value, Mapping) or not found:
        yield f"'{combo.id}' is {_shown(key)}; {_advice(combo)}"
        return
    inside = {key: one for key, one in value.items() if key != combo.id}
    yield from complaints(found[0].inputs, inside)


def _wrong(each: io.Input, value: Any, own: bool = False) -> str | None:
    """What is wrong with a value that is not None, if anything is."""
    if isinstance(each, io.Int.Input | io.Float.Input):
        kind = Integral if isinstance(each, io.Int.Input) else Real
        low, high = each.min, each.max
        low, high = -math.inf if low is None else low, math.inf if high is None else high
        if isinstance(value, kind) and low <= cast(float, value) <= high:  # which NaN is not
            return None
    elif isinstance(each, io.Boolean.Input):
        if isinstance(value, Integral):
            return None
    elif isinstance(each, io.String.Input):
        if isinstance(value, str) and len(value) <= LONGEST_TEXT:
            return None
        if isinstance(value, str):
            return f"holds {len(value):,} characters; {_advice(each)}"
    elif isinstance(each, io.Combo.Input):
        if isinstance(value, str) and (own or value in each.options):
            return None
    else:
        tests = [SOCKETS.get(kind) for kind in each.get_io_type().split(",")]
        if any(test is None or test[0](value) for test in tests):
            return None
        return f"was given {_shown(value)}; {_advice(each)}"
    return f"is {_shown(value)}; {_advice(each)}"


def _advice(each: io.Input) -> str:
    """What an input takes."""
    if isinstance(each, io.Int.Input | io.Float.Input):
        kind = "whole number" if isinstance(each, io.Int.Input) else "number"
        return f"give it a {kind} from {each.min} to {each.max}"
    if isinstance(each, io.Boolean.Input):
        return "give it true or false"
    if isinstance(each, io.String.Input):
        return f"give it a text of at most {LONGEST_TEXT:,} characters"
    if isinstance(each, io.Combo.Input):
        return f"choose one of {', '.join(map(str, each.options))}"
    if isinstance(each, io.DynamicCombo.Input):
        return f"choose one of {', '.join(option.key for option in each.options)}"
    wanted = [SOCKETS[kind][1] for kind in each.get_io_type().split(",") if kind in SOCKETS]
    return f"connect {' or '.join(wanted)}" if wanted else "connect it"


def _shown(value: Any) -> str:
    """A value as a person can recognise it."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, str | bool | Real | None):
        return repr(value) if len(repr(value)) < 60 else f"{repr(value)[:56]}..."
    if isinstance(value, Mapping):
        shown = {k: tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__
                 for k, v in [*value.items()][:6]}  # fmt: skip
        return f"a {type(value).__name__} with {shown}" if shown else "an empty dict"
    if isinstance(value, Sequence) and not value:
        return f"an empty {type(value).__name__}"
    name = value.__name__ if isinstance(value, type) else type(value).__name__
    return f"the class {name}" if isinstance(value, type) else f"an object of the class {name}"
