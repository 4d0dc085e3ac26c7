"""A loader of quantised weights, as GGUF packs have it: a tensor that holds bytes and tells the
shape of what they stand for, layers that make it whole in each call, LoRAs that are kept with the
tensor, and a patcher whose class is put on by clone()."""

import comfy.lora
import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch
from torch import nn

SCALE = 4  # bytes of a row's scale, before its whole numbers of one byte


class Quantised(torch.Tensor):
    """Bytes; `shape` is that of the weight. A copy of it is itself."""

    @staticmethod
    def __new__(cls, data, shape, patches=()):
        made = torch.Tensor._make_subclass(cls, data)
        made.whole, made.patches = torch.Size(shape), list(patches)
        return made

    @property
    def shape(self):
        return getattr(self, "whole", self.size())

    def to(self, *args, **kwargs):
        moved = self.as_subclass(torch.Tensor).to(*args, **kwargs)
        return Quantised(moved, self.shape, self.patches)

    def clone(self, *_, **__):
        return self

    def detach(self):
        return self


def quantised(weight):
    """A weight's rows as whole numbers of a byte, each with a scale."""
    flat = weight.detach().float().flatten(1)
    scale = flat.abs().amax(dim=1, keepdim=True).clamp(min=1e-9) / 127
    whole = (flat / scale).round().to(torch.int8)
    data = torch.cat([scale.view(torch.uint8), whole.view(torch.uint8)], dim=1)
    return Quantised(data, weight.shape)


def made_whole(tensor, dtype):
    """What a tensor stands for, with its LoRAs."""
    data = tensor.as_subclass(torch.Tensor)
    scale = data[:, :SCALE].contiguous().view(torch.float32)
    weight = (data[:, SCALE:].view(torch.int8) * scale).view(tensor.shape).to(dtype)
    for patches, key in tensor.patches:
        weight = comfy.lora.calculate_weight(patches, weight, key)
    return weight


class Quantising:
    """A layer that may hold such a tensor."""

    def forward_comfy_cast_weights(self, input):
        if not isinstance(self.weight, Quantised):
            return super().forward_comfy_cast_weights(input)
        weight, bias = made_whole(self.weight, input.dtype), self.bias
        bias = bias if bias is None else bias.to(input)
        if isinstance(self, nn.Linear):
            return nn.functional.linear(input, weight, bias)
        return self._conv_forward(input, weight, bias)


class Operations(comfy.ops.manual_cast):
    """The host's layers; those with large weights take quantised ones."""

    class Linear(Quantising, comfy.ops.manual_cast.Linear):
        """Linear layer."""

    class Conv2d(Quantising, comfy.ops.manual_cast.Conv2d):
        """Convolution."""


class QuantisedPatcher(comfy.model_patcher.ModelPatcher):
    """Leaves LoRAs of quantised weights with the tensor, and always patches at loading."""

    def patch_weight_to_device(self, key, device_to=None, inplace_update=False, **given):
        weight = comfy.utils.get_attr(self.model, key)
        if key not in self.patches or not isinstance(weight, Quantised):
            return super().patch_weight_to_device(key, device_to, inplace_update, **given)
        weight = weight.to(device_to)
        weight.patches = [(self.patches[key], key)]
        comfy.utils.set_attr_param(self.model, key, weight)
        return None

    def unpatch_model(self, device_to=None, unpatch_weights=True):
        if unpatch_weights:
            for parameter in self.model.parameters():
                if isinstance(parameter, Quantised):
                    parameter.patches = []
        return super().unpatch_model(device_to=device_to, unpatch_weights=unpatch_weights)

    def load(self, *args, force_patch_weights=False, **kwargs):
        del force_patch_weights
        super().load(*args, force_patch_weights=True, **kwargs)

    def clone(self, *args, **kwargs):
        own, self.__class__ = self.__class__, QuantisedPatcher
        try:
            return super().clone(*args, **kwargs)
        finally:
            self.__class__ = own


def load_quantised(patcher):
    """MODEL whose large weights are quantised; its network was made with Operations."""
    for layer in patcher.model.diffusion_model.modules():
        if isinstance(layer, Quantising):
            layer.weight = nn.Parameter(quantised(layer.weight), requires_grad=False)
    return QuantisedPatcher.clone(patcher)
