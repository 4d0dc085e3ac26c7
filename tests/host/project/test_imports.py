"""The host in this process is the real one, and our package `nodes` does not hide its nodes.py."""

import importlib
from pathlib import Path


def test_bare_nodes_is_the_host(comfyui):
    assert Path(importlib.import_module("nodes").__file__) == comfyui / "nodes.py"


def test_host_is_on_the_cpu(comfyui):
    management = importlib.import_module("comfy.model_management")
    assert Path(management.__file__).is_relative_to(comfyui)
    assert management.get_torch_device().type == "cpu"


def test_pack_writes_nothing_to_host_lists():
    """Registering names with the host's samplers or schedulers would break other packs."""
    samplers = importlib.import_module("comfy.samplers")
    before = (
        list(samplers.KSampler.SAMPLERS),
        list(samplers.KSampler.SCHEDULERS),
        dict(samplers.SCHEDULER_HANDLERS),
    )
    importlib.import_module("flowsearch.nodes.extension")
    after = (
        list(samplers.KSampler.SAMPLERS),
        list(samplers.KSampler.SCHEDULERS),
        dict(samplers.SCHEDULER_HANDLERS),
    )
    assert before == after
