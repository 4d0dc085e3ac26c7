"""What the registry is sent: it is valid, small, whole, and works where it is unpacked."""

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

import foreign_pack
import pytest
import tomlkit
from client import Client

from devtools.pack import ROOT
from devtools.pins import PYTHON_RANGE
from devtools.server import running_host

SIZE = 18_000_000
SNAPSHOT = ROOT / "tests" / "data" / "schema.json"
ADDRESS = "https://github.com/flowsearch/flowsearch"
RAW = "https://raw.githubusercontent.com/flowsearch/flowsearch/main/"


def picture(checkpoint: str) -> dict:
    """A workflow of the host's own nodes on the embedded model, one step."""
    settings = {"seed": 1, "steps": 1, "cfg": 1.0, "denoise": 1.0}
    named = {"sampler_name": "euler", "scheduler": "simple"}
    wires = {
        "model": ["1", 0],
        "positive": ["2", 0],
        "negative": ["3", 0],
        "latent_image": ["4", 0],
    }
    size = {"width": 64, "height": 64, "batch_size": 1}
    rows = (
        ("FlowSearchLoadDemo", {"checkpoint": checkpoint}),
        ("CLIPTextEncode", {"text": "two red circles", "clip": ["1", 1]}),
        ("CLIPTextEncode", {"text": "", "clip": ["1", 1]}),
        ("EmptyLatentImage", size),
        ("KSampler", {**settings, **named, **wires, "latent_image": ["4", 0]}),
        ("VAEDecode", {"samples": ["5", 0], "vae": ["1", 2]}),
        ("PreviewImage", {"images": ["6", 0]}),
    )
    return {
        str(n): {"class_type": kind, "inputs": given} for n, (kind, given) in enumerate(rows, 1)
    }


@pytest.fixture(scope="module")
def project() -> dict:
    return tomlkit.parse((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_registrys_checks_find_nothing(comfy):
    said = comfy("validate")
    assert "All validation checks passed" in said
    assert "warning" not in said.lower()


def test_the_archive_is_small(archive):
    assert archive.stat().st_size <= SIZE


def test_the_archive_holds_what_is_used_and_nothing_else(unpacked):
    names = {path.name for path in unpacked.iterdir()}
    code = {"__init__.py", "demo", "locales", "nodes", "rewards", "samplers", "web"}
    texts = {"CHANGELOG.md", "LICENSE", "README.md", "docs", "example_workflows", "pyproject.toml"}
    assert names == code | texts
    assert not [*unpacked.rglob("train*.py"), *unpacked.glob("docs/*.png")]


def test_the_archive_works_in_the_host(unpacked):
    """Every node registers, help and templates are served, both checkpoints make a picture."""
    comfyui = Path(os.environ["COMFYUI_PATH"])
    with running_host(Path(sys.executable), comfyui, root=unpacked) as running:
        client = Client(running)
        known = client.object_info()
        ours = {name for name in known if name.startswith("FlowSearch")}
        assert ours == set(json.loads(SNAPSHOT.read_text(encoding="utf-8")))
        for checkpoint in ("base", "few_step"):
            assert client.run(picture(checkpoint))["7"]["images"]


def test_another_pack_inherits_the_laws_from_the_archive(unpacked, tmp_path):
    """A pack beside ours in custom_nodes, tested as docs/REWARDS.md says, without the host."""
    nodes = tmp_path / "custom_nodes"
    shutil.copytree(unpacked, nodes / "flowsearch")
    shutil.copytree(Path(foreign_pack.__file__).parent, nodes / "foreign_pack")
    (nodes / "foreign_pack" / "pytest.ini").write_text(
        "[pytest]\npythonpath = ..\naddopts = --import-mode=importlib\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "test_laws.py"],
        cwd=nodes / "foreign_pack",
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_the_projects_addresses_are_one_repositorys(project):
    urls = project["project"]["urls"]
    assert urls["Repository"] == ADDRESS
    assert set(urls) == {"Repository", "Documentation", "Bug Tracker"}
    assert all(url.startswith(ADDRESS) for url in urls.values())


@pytest.mark.parametrize(("key", "shape"), [("Icon", (1, 1)), ("Banner", (21, 9))])
def test_icon_and_banner_are_drawn_in_the_registrys_shapes(project, key, shape):
    url = project["tool"]["comfy"][key]
    assert url.startswith(RAW)
    drawn = xml.parse(ROOT / url.removeprefix(RAW)).getroot()
    width, height = (int(drawn.attrib[side]) for side in ("width", "height"))
    assert width * shape[1] == height * shape[0]
    assert drawn.attrib["viewBox"] == f"0 0 {width} {height}"
    assert key != "Icon" or width <= 400


def test_the_classifiers_name_the_pythons_that_are_tested(project):
    told = {
        tuple(int(part) for part in found[1].split("."))
        for line in project["project"]["classifiers"]
        if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line))
    }
    (major, low), (_, beyond) = PYTHON_RANGE
    assert told == {(major, minor) for minor in range(low, beyond)}


def test_the_version_is_the_changelogs_newest(project):
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.findall(r"^## \[(\d[^\]]*)\]", text, re.MULTILINE)[0]
    assert newest == project["project"]["version"]


@pytest.mark.parametrize("file", ["README.md", "CHANGELOG.md", "demo/MODEL_CARD.md"])
def test_relative_links_lead_to_files(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    own = [link for link in links if "://" not in link]
    missing = [link for link in own if not (ROOT / file).parent.joinpath(link).exists()]
    assert not missing
