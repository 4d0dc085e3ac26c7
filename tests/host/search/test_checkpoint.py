"""Files of checkpoints: whole or known not to be, few, small, young, whoever else writes there."""

import logging
import os
import time
from pathlib import Path

import folder_paths
import host_models as hm
import hostile
import pytest
import searching as s
import torch
from comfy_execution.utils import CurrentNodeContext
from safetensors import safe_open
from safetensors.torch import save_file

from flowsearch.nodes.host.search import resume, search_sampler
from flowsearch.nodes.host.search.resume import FileCheckpoint
from flowsearch.samplers.search import Unreadable

CPU = torch.device("cpu")


def test_checkpoint_files(tmp_path):
    path = tmp_path / "folder" / "a.safetensors"
    file = FileCheckpoint(path, CPU)
    assert file.load() is None
    tensors = {"0/1/x": torch.randn(1, 3, 4, 4), "0/2/x": torch.arange(3), "0/3/x": torch.ones(())}
    file.save(tensors, {"settings": {"a": 1.5, "b": "\ud800"}, "logs": [[]]})
    found, data = file.load()
    assert data == {"settings": {"a": 1.5, "b": "\ud800"}, "logs": [[]]}
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[key], tensors[key]) for key in tensors)
    assert [entry.name for entry in path.parent.iterdir()] == ["a.safetensors"]


def _rewritten(path: Path, change) -> None:
    """Write a file again, well formed, with something else in it."""
    with safe_open(str(path), "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata())
    change(tensors, metadata)
    save_file(tensors, str(path), metadata=metadata)


def _replace(holder: dict, key: str, value) -> None:
    holder[key] = value


def _drop(holder: dict, key: str) -> None:
    del holder[key]


NOT_OURS = {
    "words": lambda path: path.write_bytes(b"not a file of ours"),
    "nothing": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "NaN": lambda path: _rewritten(path, lambda t, _: t["0/1/x"].fill_(float("nan"))),
    "one bit": lambda path: _rewritten(path, lambda t, _: t["0/1/x"][0, 0, 0].add_(1e-7)),
    "another type": lambda path: _rewritten(
        path, lambda t, _: _replace(t, "0/1/x", t["0/1/x"].double())
    ),
    "another shape": lambda path: _rewritten(
        path, lambda t, _: _replace(t, "0/1/x", t["0/1/x"].reshape(1, 4, 3, 4))
    ),
    "a tensor less": lambda path: _rewritten(path, lambda t, _: _drop(t, "0/1/x")),
    "a tensor more": lambda path: _rewritten(
        path, lambda t, _: _replace(t, "0/9/x", torch.zeros(1))
    ),
    "another log": lambda path: _rewritten(
        path,
        lambda t, _: _replace(t, "flowsearch.json", torch.tensor([*b"{}"], dtype=torch.uint8)),
    ),
    "no log": lambda path: _rewritten(path, lambda t, _: _drop(t, "flowsearch.json")),
    "no digest": lambda path: _rewritten(path, lambda _, m: m.clear()),
}


@pytest.mark.parametrize("name", NOT_OURS)
def test_a_file_that_is_not_as_it_was_written_is_known(tmp_path, name):
    file = FileCheckpoint(tmp_path / "a.safetensors", CPU)
    file.save({"0/1/x": torch.randn(1, 3, 4, 4)}, {"logs": [[]]})
    NOT_OURS[name](file.path)
    with pytest.raises(Unreadable, match=r"a\.safetensors cannot be read"):
        file.load()


def test_a_search_with_a_wrong_file_starts_afresh_and_says_so(monkeypatch, tmp_path):
    file = FileCheckpoint(tmp_path / "run.safetensors", CPU)
    monkeypatch.setattr(search_sampler, "checkpoint_of_running_node", lambda *_: file)
    uncut = s.reward_search(hm.scene_model(), evaluations=30)
    _rewritten(file.path, lambda t, _: [v.fill_(float("nan")) for k, v in t.items() if "x" in k])
    again = s.reward_search(hm.scene_model(), evaluations=30)
    assert any("not used" in note and "afresh" in note for note in again[2].notes)
    assert torch.equal(again[0]["samples"], uncut[0]["samples"])


def test_old_checkpoint_files_are_cleaned_up(tmp_path, monkeypatch):
    def files(suffix="safetensors"):
        return {file.name for file in tmp_path.glob(f"*.{suffix}")}

    def save(name, size=1):
        tensors = {"0/1/x": torch.zeros(size)}
        FileCheckpoint(tmp_path / f"{name}.safetensors", CPU).save(tensors, {})

    def age(name, seconds):
        then = time.time() - seconds
        os.utime(tmp_path / name, (then, then))

    for number in range(resume.KEPT + 4):
        save(f"b{number:02}")
        age(f"b{number:02}.safetensors", 1000 - number)
    save("newest")
    assert len(files()) == resume.KEPT
    assert {"newest.safetensors", f"b{resume.KEPT + 3:02}.safetensors"} <= files()
    age(f"b{resume.KEPT + 3:02}.safetensors", resume.KEPT_SECONDS + 1)
    save("newest")
    assert f"b{resume.KEPT + 3:02}.safetensors" not in files()
    monkeypatch.setattr(resume, "KEPT_BYTES", 100_000)
    save("large", 50_000)
    assert files() == {"large.safetensors"}, "its own file is never deleted"


LEFT = ("crashed.part", ".tmpAbC123")
"""What a kill leaves: our own file, and the one that safetensors writes to before it is renamed."""


def test_what_a_kill_left_goes_with_its_age_and_counts_until_then(tmp_path, monkeypatch):
    def leave(name, seconds):
        (tmp_path / name).write_bytes(b"x" * 40_000)
        then = time.time() - seconds
        os.utime(tmp_path / name, (then, then))

    def save(name):
        FileCheckpoint(tmp_path / name, CPU).save({"0/1/x": torch.zeros(5_000)}, {})

    monkeypatch.setattr(resume, "KEPT_BYTES", 100_000)
    for number, name in enumerate(LEFT):
        leave(name, resume.PART_SECONDS + 1)
        leave(f"{name}{number}", 5.0)
    save("one.safetensors")
    there = {file.name for file in tmp_path.iterdir()}
    assert there == {"one.safetensors", *(f"{name}{n}" for n, name in enumerate(LEFT))}
    save("two.safetensors")
    assert not (tmp_path / "one.safetensors").exists(), "80 kB are taken by what is being written"


def test_a_save_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    file = FileCheckpoint(tmp_path / "a.safetensors", CPU)
    monkeypatch.setattr(resume.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        file.save({"0/1/x": torch.zeros(3)}, {})
    assert not [*tmp_path.iterdir()]


def test_two_servers_write_one_name_at_once(tmp_path, monkeypatch):
    """The second one saves while the first is between writing and renaming."""
    first, second = (FileCheckpoint(tmp_path / "a.safetensors", CPU) for _ in range(2))
    real = os.fsync

    def between(file):
        monkeypatch.setattr(resume.os, "fsync", real)
        second.save({"0/1/x": torch.full((3,), 2.0)}, {"by": 2})
        real(file)

    monkeypatch.setattr(resume.os, "fsync", between)
    first.save({"0/1/x": torch.full((3,), 1.0)}, {"by": 1})
    tensors, data = second.load()
    assert (data["by"], tensors["0/1/x"].tolist()) == (1, [1.0] * 3)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_nodes_id_may_be_as_long_as_a_person_likes(monkeypatch):
    names = []
    for tail in "ab":
        node = "5" * 300 + ":\ud800\u00e9/" + tail
        prompt = {node: {"class_type": "FlowSearchRBFSearch", "inputs": {}}}
        monkeypatch.setattr(resume, "_running_prompt", lambda _, prompt=prompt: prompt)
        with CurrentNodeContext("some prompt", node):
            file = resume.checkpoint_of_running_node([torch.zeros(2)], CPU)
        file.save({"0/1/x": torch.zeros(2)}, {})
        names.append(file.path.name)
        assert file.load() is not None
        file.path.unlink()
    assert names[0] != names[1]
    assert max(map(len, names)) < 255


def test_the_log_has_one_line_where_nothing_can_be_written(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    file = FileCheckpoint(tmp_path / "file" / "a.safetensors", CPU)
    monkeypatch.setattr(search_sampler, "checkpoint_of_running_node", lambda *_: file)
    with caplog.at_level(logging.WARNING, logger="flowsearch"):
        s.reward_search(hm.scene_model(), evaluations=30, checkpoint_seconds=1e-9)
    lines = [r for r in caplog.records if "checkpoint could not be written" in r.getMessage()]
    assert len(lines) == 1
    assert lines[0].exc_info is None


def test_a_long_log_fits():
    """A safetensors header may not be larger than 100 MB; a log may."""
    folder = resume.checkpoint_folder()
    file = FileCheckpoint(folder / "long.safetensors", CPU)
    data = {"logs": ["x" * 120_000_000]}
    file.save({"0/1/x": torch.zeros(2)}, data)
    tensors, found = file.load()
    assert found == data
    assert list(tensors) == ["0/1/x"]
    file.path.unlink()


def test_checkpoints_are_where_the_host_neither_deletes_nor_serves_them():
    folder = resume.checkpoint_folder()
    temp = Path(folder_paths.get_temp_directory())
    assert temp not in folder.parents
    assert folder.parent.parent == Path(folder_paths.get_user_directory())
    assert folder_paths.get_public_user_directory(folder.parent.name) is None


def test_a_file_spoilt_at_random_is_known_or_is_what_was_written(tmp_path):
    file = FileCheckpoint(tmp_path / "a.safetensors", CPU)
    tensors = {"0/1/x": torch.randn(1, 3, 4, 4), "0/2/x": torch.arange(3)}
    file.save(tensors, {"logs": [[]]})
    known = 0
    for content in hostile.spoilt(file.path.read_bytes(), 5 * hostile.COUNT):
        file.path.write_bytes(content)
        try:
            found, data = file.load()
        except Unreadable:
            known += 1
        else:
            assert data == {"logs": [[]]}
            assert found.keys() == tensors.keys()
            assert all(torch.equal(found[key], tensors[key]) for key in tensors)
    assert known > 4 * hostile.COUNT
