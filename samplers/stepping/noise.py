"""Where does randomness come from? From integers only, so that a row's noise is its own.

A key is hashed (BLAKE2b) into the seed of a CPU generator. Draws therefore do not depend on the
device, on the batch a row sits in, on chunking or on what was drawn before.
"""

import hashlib
import struct
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["digest", "keyed_normal", "row_key"]


def digest(*key: int) -> int:
    """Hash integers into one of 64 bits.

    Args:
        *key: Integers in [-2^63, 2^64). Order and number matter.

    Returns:
        An integer in [0, 2^64).

    Raises:
        ValueError: No key, or an integer out of range.

    Example:
        >>> digest(1, 2) == digest(2, 1)
        False
    """
    if not key:
        raise ValueError("a key needs at least one integer")
    for part in key:
        if not -(2**63) <= part < 2**64:
            raise ValueError(f"key part {part} does not fit in 64 bits")
    packed = struct.pack(f"<{len(key)}Q", *(part % 2**64 for part in key))
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")


def row_key(noise_row: Tensor, latent_row: Tensor | None = None) -> int:
    """Identify a batch row by its initial noise.

    The noise is what the host derives from seed and batch index; a sampler sees nothing else that
    tells the rows apart. Where initial noise is disabled (all zero) the latent's row replaces it.

    Args:
        noise_row: Initial noise of one row, any shape and float dtype.
        latent_row: Latent of the same row, used when the noise is all zero.

    Returns:
        An integer in [0, 2^64).

    Example:
        >>> row_key(torch.zeros(3)) == row_key(-torch.zeros(3))
        True
    """
    row = noise_row
    if latent_row is not None and not bool(noise_row.any()):
        row = latent_row
    # float32 so that a row keeps its key across the host's dtypes; + 0 turns -0 into 0
    flat = row.detach().to(device="cpu", dtype=torch.float32).reshape(-1) + 0.0
    data = flat.view(torch.uint8).numpy().tobytes()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def keyed_normal(shape: Sequence[int], *key: int) -> Tensor:
    """Draw a standard normal tensor that is a pure function of its shape and key.

    Args:
        shape: Shape of the result, without a batch axis if one key is one row.
        *key: Integers, for example (row key, chain, round, candidate, purpose).

    Returns:
        float32 tensor on the CPU.

    Raises:
        ValueError: No key, or an integer that does not fit in 64 bits.

    Example:
        >>> keyed_normal((2, 2), 7, 1).equal(keyed_normal((2, 2), 7, 1))
        True
    """
    generator = torch.Generator(device="cpu")
    # manual_seed takes 64 bits; keep to the 63 every torch version accepts as unsigned
    generator.manual_seed(digest(*key) >> 1)
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32, device="cpu")
