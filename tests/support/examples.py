"""The example workflows, and which of them name what is not in the repository."""

import json
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "example_workflows"
EXAMPLES = sorted(FOLDER.glob("*.json"))

LOADERS = {  # nodes that name a file of weights, and the inputs that do
    ("CheckpointLoaderSimple", "ckpt_name"),
    ("CLIPLoader", "clip_name"),
    ("CLIPVisionLoader", "clip_name"),
    ("DualCLIPLoader", "clip_name1"),
    ("DualCLIPLoader", "clip_name2"),
    ("TripleCLIPLoader", "clip_name1"),
    ("TripleCLIPLoader", "clip_name2"),
    ("TripleCLIPLoader", "clip_name3"),
    ("UNETLoader", "unet_name"),
    ("VAELoader", "vae_name"),
}
EXPLAINED = {  # inputs of ours that name what is not here; the node says where to get it
    ("FlowSearchAesthetic", "weights"),
    ("FlowSearchClapScore", "weights"),
    ("FlowSearchDetectorCount", "sam"),
    ("FlowSearchDetectorCount", "weights"),
    ("FlowSearchJudge", "judge"),
    ("FlowSearchLoadEncoder", "weights"),
    ("FlowSearchLoadLanguageModel", "weights"),
    ("FlowSearchPreference", "weights"),
}


def read(file: Path) -> dict:
    """The document in a JSON file."""
    return json.loads(file.read_text(encoding="utf-8"))


def editor_form(begins: str) -> dict:
    """The only example whose name begins so, as the editor saves it."""
    (file,) = (file for file in EXAMPLES if file.name.startswith(begins))
    return read(file)


def api_form(begins: str) -> dict:
    """The only example whose name begins so, as the server gets it."""
    (file,) = (file for file in EXAMPLES if file.name.startswith(begins))
    return read(FOLDER / "api" / file.name)


def text_of(workflow: dict, node: dict, name: str = "prompt") -> str:
    """What a node's text input says, its own or that of the node connected to it."""
    value = node["inputs"][name]
    return value if isinstance(value, str) else workflow[value[0]]["inputs"]["value"]


def named_weights(workflow: dict) -> dict[tuple[str, str], str]:
    """Inputs of a workflow in API form that name what is not here, and what the server says."""
    inputs = {(node["class_type"], key) for node in workflow.values() for key in node["inputs"]}
    named = dict.fromkeys(inputs & LOADERS, "value_not_in_list")
    return named | dict.fromkeys(inputs & EXPLAINED, "custom_validation_failed")
