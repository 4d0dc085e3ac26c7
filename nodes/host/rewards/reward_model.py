"""Networks of rewards under the host's memory manager: loaded, freed and cast as its own models.

A network is wrapped in the host's patcher, so it is evicted like any other and "unload models"
frees it. One network is kept once, however many nodes use it, as long as one of them does.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

import comfy.model_management as management
import torch
from comfy.model_patcher import CoreModelPatcher, ModelPatcher
from torch import Tensor, nn

from ....rewards.weights.holder import in_batches
from ..model.measure import translated_oom

__all__ = ["Managed", "fine_type", "kept", "weights_type"]

N = TypeVar("N", bound=nn.Module)
T = TypeVar("T")

MOST_ROWS = 32


class _Shell(nn.Module):
    """Keeps the host's marks (it writes `device` on a model) off the network, which may have a
    read-only property of that name."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network


def weights_type(device: torch.device | None = None) -> torch.dtype:
    """Type in which a reward's network is kept, by the host's rules.

    Args:
        device: Where it will run; None for the host's device.

    Returns:
        bfloat16 or float16 where they are fast, else float32.
    """
    device = management.get_torch_device() if device is None else device
    if management.is_device_cpu(device):
        return torch.float32
    if management.should_use_bf16(device):
        return torch.bfloat16
    return torch.float16 if management.should_use_fp16(device) else torch.float32


def fine_type() -> torch.dtype:
    """Type for networks that end in a cosine or a rating.

    float16 is eight times finer than bfloat16: candidates of one prompt often differ by less than
    bfloat16 resolves. The published networks of these kinds are used in float16.

    Returns:
        That of weights_type, but float16 where it is bfloat16.
    """
    found = weights_type()
    return torch.float16 if found is torch.bfloat16 else found


class Managed(Generic[N]):
    """A Holder whose network the host's memory manager moves.

    Attributes:
        patcher: The host's handle of the network.
    """

    def __init__(
        self,
        network: N,
        row_bytes: int = 0,
        batch: int = MOST_ROWS,
        patcher: ModelPatcher | None = None,
    ) -> None:
        """Hand a network over.

        Args:
            network: On the CPU, in the type it shall have.
            row_bytes: What one row's activations take at most, about; 0 when it is not known.
            batch: Most rows at once.
            patcher: The host's handle, where a loader of the host made the network (or one that it
                is a part of); it then stays the host's, and there is no second copy.
        """
        self._shell = _Shell(network.eval().requires_grad_(False))
        self._is_own = patcher is None
        self._row_bytes, self._batch = row_bytes, batch
        self.patcher = patcher or CoreModelPatcher(
            self._shell,
            load_device=management.get_torch_device(),
            offload_device=management.text_encoder_offload_device(),
        )

    @property
    def network(self) -> N:
        """The network."""
        return self._shell.network  # pyright: ignore[reportReturnType]

    def run(self, function: Callable[[Any, Tensor], Tensor], rows: Tensor) -> Tensor:
        """Load the network and run a function of it; see rewards.holder.Holder.run.

        Batches are halved while memory runs out; between batches a cancel is obeyed.

        Args:
            function: (network, rows on its device) -> one result a row.
            rows: Shape (B, ...).

        Returns:
            Shape (B, ...), float32, on the rows' device.
        """
        if not rows.shape[0]:
            return rows.new_zeros(0, dtype=torch.float32)
        batch = min(self._batch, rows.shape[0])
        while True:
            try:
                return self._run(function, rows, batch)
            except torch.cuda.OutOfMemoryError:
                if batch == 1:
                    raise
            # out here: inside, the error still holds the tensors of the failed batch
            batch = (batch + 1) // 2
            management.soft_empty_cache()

    def _run(self, function: Callable[[Any, Tensor], Tensor], rows: Tensor, batch: int) -> Tensor:
        with translated_oom():
            row = self._row_bytes + 4 * rows[0].numel()  # a row itself comes along, in float32
            self._load(batch * row)
            return in_batches(
                lambda piece: function(self.network, piece),
                rows,
                self.patcher.load_device,
                batch,
                before=management.throw_exception_if_processing_interrupted,
            )

    def _load(self, memory: int) -> None:
        """Bring the network to its device, as a whole where its layers are not the host's.

        The host leaves layers on the CPU where memory is short, and with --novram all of them; its
        own layers fetch their weights as they run, those of torch and transformers do not.
        """
        management.load_models_gpu(
            [self.patcher], memory_required=memory, force_full_load=self._is_own
        )
        if self._is_own and management.vram_state is management.VRAMState.NO_VRAM:
            self._shell.to(self.patcher.load_device)

    def get_models(self) -> Sequence[Any]:
        """The patcher."""
        return (self.patcher,)


_KEPT: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()


def kept(key: Hashable, make: Callable[[], T]) -> T:
    """Return what was made for a key before, as long as somebody uses it, else make it.

    Args:
        key: What identifies it: its file with the time of its last change, its type.
        make: Makes it: a holder, a processor, an open file.

    Returns:
        It; keep it, the list here does not.
    """
    found = _KEPT.get(key)
    if found is None:
        with torch.inference_mode(False):  # in which the host runs nodes; no gradient passes there
            found = _KEPT[key] = make()
    return found
