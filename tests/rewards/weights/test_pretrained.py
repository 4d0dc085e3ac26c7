"""Folders of others: whatever config.json holds, a person is told what is wrong with the folder."""

import pytest

from flowsearch.rewards.weights.pretrained import load_network, load_part, model_type

CONFIGS = {
    "nothing": "",
    "a list": "[1, 2]",
    "words": '"clip"',
    "null": "null",
    "half": '{"model_type": "cl',
    "deep": "[" * 100_000 + "]" * 100_000,
    "no type": "{}",
    "a type that is a list": '{"model_type": ["clip"]}',
    "a type that is a number": '{"model_type": 3}',
    "a number too long": '{"model_type": ' + "9" * 5_000 + "}",
    "another type": '{"model_type": "<b>llama</b>"}',
}


@pytest.mark.parametrize("name", CONFIGS)
def test_any_config_that_is_none_is_named(tmp_path, name):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text(CONFIGS[name])
    with pytest.raises(ValueError, match="folder"):
        model_type(folder, {"clip": 1})
    if name in ("a list", "deep", "null"):
        for load in (lambda: load_part(folder, "AutoTokenizer"),
                     lambda: load_network(folder, "AutoModel", None)):  # fmt: skip
            with pytest.raises(ValueError, match="cannot load folder"):
                load()
