"""Workflows in API form that are wrong in some way, drawn from a seed over /object_info.

Most inputs of a workflow are filled as a person would; a few are spoilt: out of range, of another
type, missing, linked to nothing, to another type, or to a node of somebody else's pack
whose output fits every socket.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from foreign_pack import THINGS

# what the host refuses by itself is drawn less than what reaches a node
HOW = ("value", "range", "missing", "nowhere", "type", *3 * ("linked",), *4 * ("foreign",))
SHOWN = "PreviewAny"  # an output node that takes anything
TEXT = "three red circles and two blue squares"
WRONG = (
    "text",
    "",
    "nan",
    "inf",
    -1,
    10**12,
    -1e300,
    1e300,
    True,
    None,
    {},
    {"a": 1},
    [],
    [1, 2, 3],
)
# what would take long without being wrong; the widgets' own limits are tried by themselves
CAPS = {
    "evaluations": 12, "steps": 4, "nodes": 6, "noises": 2, "width": 64, "height": 64,
    "batch_size": 2, "top_k": 2, "inner_evaluations": 2, "seconds": 20, "finish_steps": 4,
    "chains": 4, "pool": 8, "length": 1,
}  # fmt: skip
# where a socket's value comes from; the first needs least
SOURCES = {
    "MODEL": (("FlowSearchLoadDemo", 0), ("FlowSearchInterpolantConversion", 0)),
    "CLIP": (("FlowSearchLoadDemo", 1),),
    "VAE": (("FlowSearchLoadDemo", 2),),
    "CONDITIONING": (("CLIPTextEncode", 0),),
    "LATENT": (("EmptyLatentImage", 0), ("FlowSearchVariation", 0)),
    "NOISE": (("RandomNoise", 0), ("DisableNoise", 0)),
    "GUIDER": (("BasicGuider", 0), ("CFGGuider", 0)),
    "SAMPLER": (
        ("KSamplerSelect", 0), ("FlowSearchStochasticSampler", 0), ("FlowSearchSearchSampler", 0),
    ),
    "SIGMAS": (("FlowSearchSigmas", 0), ("BasicScheduler", 0)),
    "IMAGE": (("EmptyImage", 0),),
    "FLOW_REWARD": (
        ("FlowSearchShapeFidelity", 0), ("FlowSearchShapeCount", 0), ("FlowSearchLatentReward", 0),
        ("FlowSearchImageStatistic", 0), ("FlowSearchCombineRewards", 0),
    ),
    "FLOW_NOISE_LAW": (("FlowSearchNoiseLaw", 0),),
    "FLOW_STRATEGY": (("FlowSearchStrategy", 0),),
    "FLOW_REPORT": (
        ("FlowSearchRewardSearch", 2), ("FlowSearchRBFSearch", 2), ("FlowSearchSearch", 2),
    ),
}  # fmt: skip


def inputs_of(info: dict, given: dict[str, Any], rng: random.Random) -> Iterator[tuple]:
    """Name, type, options and whether it is required of every input of a node.

    A list that brings inputs of its own is chosen here, into `given`; inputs that grow come twice.
    """
    todo = [("", info["input"])]
    while todo:
        prefix, groups = todo.pop()
        for group in ("required", "optional"):
            for name, (kind, *rest) in groups.get(group, {}).items():
                options = rest[0] if rest else {}
                if kind == "COMFY_DYNAMICCOMBO_V3":
                    chosen = rng.choice(options["options"])
                    given[prefix + name] = chosen["key"]
                    todo.append((f"{prefix}{name}.", chosen["inputs"]))
                elif kind == "COMFY_AUTOGROW_V3":
                    of = options["template"]
                    ((inner, *more),) = [
                        value for part in of["input"].values() for value in part.values()
                    ]
                    for number in range(rng.choice((max(1, of["min"]), 2))):
                        grown = f"{prefix}{name}.{of['prefix']}{number}"
                        yield grown, inner, more[0] if more else {}, number < of["min"]
                else:
                    yield prefix + name, kind, options, group == "required"


class Graphs:
    """Draws workflows."""

    def __init__(self, info: dict, seed: int, spoilt: float = 0.04) -> None:
        """Keep what there is to draw from.

        Args:
            info: /object_info.
            seed: Of all workflows.
            spoilt: Share of inputs that are wrong.
        """
        self.info = info
        self.rng = random.Random(seed)
        self.spoilt = spoilt
        self.ours = sorted(name for name in info if name.startswith("FlowSearch"))
        self._prompt: dict[str, Any] = {}

    def draw(self, target: str | None = None) -> dict[str, Any]:
        """Return a workflow that ends in a node of ours."""
        self._prompt = {}
        name = target or self.rng.choice(self.ours)
        node = self._node(name, 0)
        for slot in range(len(self.info[name]["output"])):
            self._add(SHOWN, {"source": [node, slot]})
        return self._prompt

    def _add(self, name: str, inputs: dict[str, Any]) -> str:
        place = str(len(self._prompt) + 1)
        self._prompt[place] = {"class_type": name, "inputs": inputs}
        return place

    def _node(self, name: str, depth: int) -> str:
        for place, node in self._prompt.items():  # one model for all that use it
            if name == node["class_type"] == "FlowSearchLoadDemo":
                return place
        given: dict[str, Any] = {}
        for key, kind, options, required in inputs_of(self.info[name], given, self.rng):
            if not required and self.rng.random() < 0.5:
                continue
            if self.rng.random() < self.spoilt:
                self._spoil(given, key, kind, options, depth)
            else:
                given[key] = self._good(key, kind, options, depth)
        choices = [key for key in given if any(k.startswith(key + ".") for k in given)]
        if choices and self.rng.random() < self.spoilt:
            given[self.rng.choice(choices)] = self.rng.choice(WRONG)
        return self._add(name, given)

    def _good(self, key: str, kind: Any, options: dict, depth: int) -> Any:
        cap = CAPS.get(key.split(".")[-1])
        if isinstance(kind, list) or kind == "COMBO":
            found = kind if isinstance(kind, list) else options.get("options") or [""]
            return self.rng.choice(found)
        if kind == "STRING":
            return TEXT if key in ("prompt", "text") else options.get("default", "")
        if kind == "BOOLEAN":
            return self.rng.random() < 0.5
        if kind in ("INT", "FLOAT"):
            low, high = options.get("min", 0), options.get("max", 1)
            high = high if cap is None else min(high, cap)
            default = min(max(options.get("default", low), low), high)
            value = self.rng.choice((default, low, high, self.rng.uniform(low, high)))
            return int(value) if kind == "INT" else float(value)
        types = [name for name in kind.split(",") if name in SOURCES]
        if not types:
            return [self._foreign(), 0]
        sources = SOURCES[self.rng.choice(types)]
        name, slot = sources[0] if depth > 2 else self.rng.choice(sources)
        return [self._node(name, depth + 1), slot]

    def _spoil(self, given: dict, key: str, kind: Any, options: dict, depth: int) -> None:
        how = self.rng.choice(HOW)
        if how == "missing":
            return
        if how == "range" and kind in ("INT", "FLOAT") and "max" in options:
            step = self.rng.choice((1, 10**6))
            given[key] = self.rng.choice((options["min"] - step, options["max"] + step))
        elif how == "nowhere":
            given[key] = self.rng.choice((["999", 0], ["1", 99], ["1", -99], [1, "a"], ["1"]))
        elif how == "type":
            name, slot = self.rng.choice(SOURCES[self.rng.choice([*SOURCES])])
            given[key] = [self._node(name, depth + 2), slot]
        elif how == "linked" and kind in ("INT", "FLOAT"):
            source = "PrimitiveInt" if kind == "INT" else "PrimitiveFloat"
            value = self.rng.choice((options.get("min", 0) - 1, options.get("max", 1) + 1))
            value = max(-(2**62), min(2**62, value))
            given[key] = [self._add(source, {"value": value}), 0]
        elif how in ("foreign", "linked"):
            given[key] = [self._foreign(), 0]
        else:
            given[key] = self.rng.choice(WRONG)

    def _foreign(self) -> str:
        return self._add("ForeignThing", {"thing": self.rng.choice([*THINGS])})
