"""Rewards' networks in the host's memory manager, and their files in its folders."""

import gc
import hashlib
import inspect
from pathlib import Path

import comfy.model_management as management
import folder_paths
import pytest
import torch
from comfy.model_patcher import CoreModelPatcher
from safetensors.torch import save_file
from torch import nn

from flowsearch.nodes.host.rewards import reward_files, reward_model
from flowsearch.nodes.host.rewards.reward_model import Managed, fine_type, kept, weights_type
from flowsearch.nodes.rewards import NODES
from flowsearch.nodes.rewards.text import TextInImageReward
from flowsearch.rewards.weights.files import FOLDER, Weights


class Network(nn.Linear):
    """A network whose device cannot be assigned, as transformers' cannot."""

    @property
    def device(self):
        return self.weight.device


def managed(batch=2):
    network = Network(3, 2)
    # quarters and eighths: their sums are exact, so that batches of any size give the same bits
    network.weight.data = torch.arange(-3.0, 3.0).reshape(2, 3) / 4
    network.bias.data = torch.tensor([0.5, -0.25])
    return Managed(network, row_bytes=100, batch=batch)


def apply(network, rows):
    return network(rows)


ROWS = torch.arange(15.0).reshape(5, 3) / 8


def is_loaded(holder):
    return any(loaded.model is holder.patcher for loaded in management.current_loaded_models)


def test_it_is_loaded_by_the_host_and_freed_by_it():
    holder = managed()
    expected = holder.network(ROWS)
    assert not is_loaded(holder)
    assert torch.equal(holder.run(apply, ROWS), expected)
    assert is_loaded(holder)
    management.unload_all_models()
    assert not is_loaded(holder)
    assert torch.equal(holder.run(apply, ROWS), expected)


def test_rows_come_in_batches_in_order_and_none_call_nothing():
    seen = []

    def note(network, rows):
        seen.append(len(rows))
        return network(rows)

    holder = managed()
    assert torch.allclose(holder.run(note, ROWS), holder.network(ROWS))
    assert seen == [2, 2, 1]
    assert holder.run(note, ROWS[:0]).shape == (0,)
    assert seen == [2, 2, 1]


def test_a_cancel_is_obeyed_between_batches():
    seen = []

    def cancel(network, rows):
        seen.append(len(rows))
        management.interrupt_current_processing()
        return network(rows)

    with pytest.raises(management.InterruptProcessingException):
        managed().run(cancel, ROWS)
    assert seen == [2]


def test_batches_are_halved_while_memory_runs_out_and_one_row_is_the_end():
    holder, seen = managed(batch=8), []

    def small_memory(network, rows, limit=2):
        seen.append(len(rows))
        if len(rows) > limit:
            raise torch.cuda.OutOfMemoryError("full")
        return network(rows)

    assert torch.allclose(holder.run(small_memory, ROWS), holder.network(ROWS))
    assert seen == [5, 3, 2, 2, 1]
    with pytest.raises(torch.cuda.OutOfMemoryError):
        holder.run(lambda network, rows: small_memory(network, rows, 0), ROWS)


class TestShortMemory:
    """Layers of torch cannot run where the host left them on the CPU, as its own can."""

    def test_the_host_leaves_layers_behind_unless_it_loads_all(self):
        elsewhere, cpu = torch.device("meta"), torch.device("cpu")
        patcher = CoreModelPatcher(nn.Linear(3, 2), load_device=elsewhere, offload_device=cpu)
        patcher.load(elsewhere, lowvram_model_memory=1)
        assert patcher.model.weight.device == cpu
        patcher.load(elsewhere, full_load=True)
        assert patcher.model.weight.device == elsewhere

    @pytest.mark.parametrize("is_own", [True, False])
    def test_only_what_the_host_did_not_make_is_loaded_whole(self, is_own, monkeypatch):
        holder, asked, load = managed(), [], management.load_models_gpu
        if not is_own:
            holder = Managed(holder.network, patcher=holder.patcher)

        def note(*args, **kwargs):
            asked.append(kwargs["force_full_load"])
            return load(*args, **kwargs)

        monkeypatch.setattr(management, "load_models_gpu", note)
        holder.run(apply, ROWS)
        assert asked == [is_own]

    def test_an_eviction_between_batches_of_two_networks_costs_no_value(self):
        """Two rewards in turn, each thrown out for the other, as where both do not fit."""
        first, second = managed(), managed()
        expected = first.network(ROWS)
        for _ in range(3):
            for holder in (first, second):
                assert torch.equal(holder.run(apply, ROWS), expected)
                management.free_memory(1e32, holder.patcher.load_device)
                assert not is_loaded(holder)


def test_a_network_is_kept_once_and_only_while_it_is_used():
    made = []

    def make():
        made.append(1)
        return managed()

    first = kept("key", make)
    assert kept("key", make) is first
    assert len(made) == 1
    del first
    gc.collect()
    kept("key", make)
    assert len(made) == 2


def test_the_type_is_full_on_a_cpu():
    assert weights_type() == torch.float32
    assert fine_type() == torch.float32


def test_cosines_are_not_computed_in_bfloat16(monkeypatch):
    for found, fine in ((torch.bfloat16, torch.float16), (torch.float16, torch.float16)):
        monkeypatch.setattr(reward_model, "weights_type", lambda found=found: found)
        assert fine_type() == fine


@pytest.fixture
def folder():
    reward_files.register()
    place = Path(folder_paths.get_folder_paths(FOLDER)[0])
    (place / "siglip").mkdir(parents=True, exist_ok=True)
    for name in ("head.safetensors", "siglip/model.safetensors", "siglip/config.json", "note.md"):
        (place / name).write_text("x")
    (place.parent / "secret.safetensors").write_text("x")
    folder_paths.filename_list_cache.clear()
    yield place
    for name in ("head.safetensors", "siglip/model.safetensors", "siglip/config.json", "note.md"):
        (place / name).unlink()
    folder_paths.filename_list_cache.clear()


KNOWN = (Weights("pick.safetensors", "https://example.org/pick", "MIT", 3_900_000_000, "ab12"),)


def test_lists_hold_files_and_folders_apart(folder):
    assert reward_files.choices() == ["head.safetensors"]
    assert reward_files.choices(folders=True) == ["siglip"]
    assert reward_files.choices(ends=(".onnx",)) == []
    assert reward_files.locate("head.safetensors") == folder / "head.safetensors"
    assert reward_files.locate("siglip") == folder / "siglip"


@pytest.mark.parametrize("name", ["cut.safetensors", "page.safetensors", "cut.pt", "page.pt"])
def test_a_file_that_cannot_be_read_is_explained(tmp_path, name):
    path, weights = tmp_path / name, {"weight": torch.zeros(50, 50)}
    (torch.save if name.endswith(".pt") else lambda w, p: save_file(w, p))(weights, path)
    whole = path.read_bytes()
    assert torch.equal(reward_files.read(path)["weight"], weights["weight"])
    page = name.startswith("page")
    path.write_bytes(b"<!DOCTYPE html> not found" if page else whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=rf"{name} is not read.*cut short.*[Gg]et "):
        reward_files.read(path)
    with pytest.raises(ValueError, match="is a folder, and one file is needed"):
        reward_files.read(tmp_path)


def test_a_missing_file_is_explained(folder):
    text = reward_files.complaint("pick.safetensors", KNOWN)
    for word in ("https://example.org/pick", "3,900 MB", "ab12", "MIT", str(folder), "that name"):
        assert word in text
    assert reward_files.complaint("head.safetensors", KNOWN) is True


def loaders():
    """Every node of a reward that names a file or a judge in a list."""
    checked = [node for node in NODES if "validate_inputs" in vars(node)]
    return [node for node in checked if node is not TextInImageReward]


@pytest.mark.parametrize("node", loaders(), ids=lambda node: node.__name__)
def test_a_name_that_another_node_will_give_is_not_complained_of(folder, node):
    """The host passes None for an input that is linked."""
    names = inspect.signature(node.validate_inputs).parameters
    assert names
    assert node.validate_inputs(**dict.fromkeys(names)) is True
    first = next(iter(names))
    assert "is not in" in node.validate_inputs(**{first: "nothing.bin"})


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/passwd", "siglip/../head.safetensors", ""]
)
def test_no_name_leads_out_of_the_folder(folder, name):
    assert "is not in" in reward_files.complaint(name)


def test_a_change_of_a_file_changes_its_stamp(folder):
    before = reward_files.stamp(folder / "siglip")
    assert reward_files.stamp(folder / "siglip") == before
    (folder / "siglip" / "model.safetensors").write_text("longer")
    assert reward_files.stamp(folder / "siglip") != before


def test_a_digest_is_that_of_the_file(folder):
    file = folder / "head.safetensors"
    assert reward_files.digest(file) == hashlib.sha256(file.read_bytes()).hexdigest()
    assert reward_files.digest(folder / "siglip") == ""


NO_WEIGHTS = {
    "a list": [1, torch.zeros(2)],
    "a tensor alone": torch.zeros(3),
    "words": "weights",
    "nothing": None,
    "an empty table": {},
    "a table of numbers": {"a": 1, "b": torch.zeros(1)},
    "tensors by number": {1: torch.zeros(1)},
    "a list in a table": {"state_dict": [1, 2]},
}


@pytest.mark.parametrize("name", NO_WEIGHTS)
def test_a_pickled_file_that_holds_no_table_of_tensors_is_named(tmp_path, name):
    path = tmp_path / "weights.pt"
    torch.save(NO_WEIGHTS[name], path)
    with pytest.raises(ValueError, match=r"weights\.pt is not (read|used)"):
        reward_files.read(path)


def test_a_file_of_nothing_is_named(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"weights\.pt is not read"):
        reward_files.read(path)
