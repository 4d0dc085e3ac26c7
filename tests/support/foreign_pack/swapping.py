"""Block swap: some blocks of a network are elsewhere and come only for their own call.

As the packs do it: sent away by a callback whenever the host loads the model, brought and sent back
by hooks of the blocks. Elsewhere is a dictionary here, and what stays in the block are no numbers,
so that a call which finds them is noticed.
"""

import itertools

import torch
from comfy.patcher_extension import CallbacksMP


class Swap:
    """The weights of a block."""

    def __init__(self, block):
        self.block, self.away = block, {}
        self.brought = itertools.count()  # a number would be put back after each picture

    def send(self, *_):
        for name, held in self.block.named_parameters():
            if not held.isnan().any():
                self.away[name] = held.data
                held.data = torch.full_like(held, float("nan"))

    def bring(self, *_):
        next(self.brought)
        for name, values in self.away.items():
            self.block.get_parameter(name).data = values


def swapped(model, blocks):
    """MODEL some of whose blocks are brought when called, and the Swap of each."""
    swaps = [Swap(block) for block in blocks]
    for swap in swaps:
        swap.block.register_forward_pre_hook(swap.bring)
        swap.block.register_forward_hook(swap.send)

    def send_all(*_):
        for swap in swaps:
            swap.send()

    ours = model.clone()
    ours.add_callback(CallbacksMP.ON_LOAD, send_all)
    return ours, swaps
