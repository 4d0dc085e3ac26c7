"""The files of the embedded model: what is kept exactly, what nearly, and how small they pack."""

import hashlib
import zlib

import pytest
import torch
from safetensors.torch import load_file, save_file

from flowsearch.demo import weights
from flowsearch.demo.network import CHECKPOINTS
from flowsearch.demo.weights import read_weights, save_difference, save_planes


@pytest.fixture(scope="module")
def base() -> dict[str, torch.Tensor]:
    return read_weights(CHECKPOINTS["base"])


def test_planes_keep_every_bit_of_half_precision(tmp_path):
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.float16)
    kept = bits[torch.isfinite(bits)].view(2, -1)
    save_planes(tmp_path / "all.safetensors", {"kept": kept, "one": kept[0, :1]})
    read = read_weights(tmp_path / "all.safetensors")
    assert torch.equal(read["kept"], kept.float())
    assert torch.equal(read["one"], kept[0, :1].float())


def test_the_base_models_weights_are_those_that_every_figure_was_measured_on(base):
    """The content, whatever the form of the file; changes only when the model is trained again."""
    content = hashlib.sha256()
    for name in sorted(base):
        content.update(name.encode() + base[name].half().numpy().tobytes())
    assert content.hexdigest() == "be88309335a5848948513b90c2d92bd29f9593700d27042477b0011430be68e5"


def test_a_difference_is_read_within_half_a_step_and_vectors_exactly(base, tmp_path):
    generator = torch.Generator().manual_seed(0)
    near = {k: v + 0.01 * torch.randn(v.shape, generator=generator) for k, v in base.items()}
    far = "enter.weight"
    near[far] = near[far] + 1.0  # more than 127 fine steps
    save_difference(tmp_path / "near.safetensors", near)
    read = read_weights(tmp_path / "near.safetensors")
    assert read.keys() == near.keys()
    for name, value in near.items():
        apart = (read[name] - value).abs().max()
        if value.ndim < 2:
            assert torch.equal(read[name], value.half().float())
        elif name != far:
            step = weights.FINE if value.numel() < weights.SMALL else weights.COARSE
            assert apart <= step / 2 + 1e-6
        else:
            assert apart <= 1.1 / 127 / 2


def test_both_files_pack_into_at_most_15_6_megabytes():
    packed = sum(len(zlib.compress(file.read_bytes(), 6)) for file in CHECKPOINTS.values())
    assert packed <= 15.6e6


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda stored: (stored, {"form": "difference", "base": "00", "steps": "{}"}), "another"),
        (lambda stored: (stored, {"form": "halves"}), "form 'halves'"),
        (lambda stored: (stored, None), "form None"),
    ],
    ids=["another base", "another form", "no form"],
)
def test_a_file_that_does_not_fit_is_refused_with_what_to_do(tmp_path, spoil, said):
    stored, about = spoil({"a": torch.zeros(2, 2)})
    save_file(stored, tmp_path / "odd.safetensors", about)
    with pytest.raises(ValueError, match=rf"odd\.safetensors.*{said}.*Install the pack again"):
        read_weights(tmp_path / "odd.safetensors")


def test_a_file_cut_short_is_refused(tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(CHECKPOINTS["few_step"].read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"cannot read cut\.safetensors.*Install the pack again"):
        read_weights(tmp_path / "cut.safetensors")


def test_the_few_step_checkpoint_is_small_integers_and_vectors():
    kinds = {value.ndim > 1: value.dtype for value in load_file(CHECKPOINTS["few_step"]).values()}
    assert kinds == {True: torch.int8, False: torch.float16}
