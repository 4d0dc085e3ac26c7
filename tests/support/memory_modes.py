"""The host's ways to keep a model that does not fit, on a machine without an accelerator."""

from types import SimpleNamespace

import comfy.model_patcher
import comfy.ops
import host_models as hm
import pytest
import torch

CPU = torch.device("cpu")


class Novram(comfy.model_patcher.ModelPatcher):
    """The host's patcher as --novram and full memory have it: no weight is loaded with the model.

    Each is cast, and patched, in the call that uses it.
    """

    def load(self, device_to=None, lowvram_model_memory=0, force_patch_weights=False, **_):
        super().load(device_to, 1, force_patch_weights, full_load=False)


class Dynamic(comfy.model_patcher.ModelPatcherDynamic):
    """The host's patcher for dynamic memory on the CPU, which it routes to another class.

    Left out are the page-locked buffers and the pages of weights on the device, which need a GPU's
    driver; with those pages go patches of weights, which the host applies as it fills them. Object
    patches, buffers, loading and unloading are the host's.
    """

    def __new__(cls, *args, **kwargs):
        if not hasattr(args[0], "dynamic_pins"):
            pytest.skip("this host's dynamic memory is another")
        return object.__new__(cls)

    def register_load_device(self, device):
        kinds = ("weights", "patches", "weights-loaded", "patches-loaded")
        pins = {kind: (SimpleNamespace(size=0), [], [-1], [0], [0], {}) for kind in kinds}
        state = {"hostbufs_initialized": True, "failed": False, "active": False, **pins}
        self.model.dynamic_pins.setdefault(device, {"current_prompt": False, **state})

    def partially_unload(self, device_to, memory_to_free=0, force_patch_weights=False):
        del device_to, memory_to_free, force_patch_weights
        return self.restore_loaded_backups()  # what it frees beside those pages

    def __del__(self):
        self.model.dynamic_patchers.discard(id(self))


def castable(
    patcher: type = comfy.model_patcher.ModelPatcher, operations=comfy.ops.disable_weight_init
):
    """MODEL with a SmallNet made of the host's layers, in a patcher of some kind."""
    made = hm.scene_model()
    plain = made.model.diffusion_model
    network = hm.SmallNet(operations=operations)
    network.load_state_dict(plain.state_dict())
    made.model.diffusion_model = network.eval().requires_grad_(False)
    return patcher(made.model, CPU, CPU)
