"""The registry's command line, on a copy of the checkout that is a repository of its own."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from devtools.pack import ROOT
from devtools.server import NOT_COPIED

if not os.environ.get("FLOWSEARCH_COMFY_CLI"):
    pytest.exit("FLOWSEARCH_COMFY_CLI is not set: run python scripts/dev.py test --tier package", 2)
sys.path.append(os.environ["FLOWSEARCH_COMFY_CLI"])  # last: only what the environment has not


@pytest.fixture(scope="session")
def copy(tmp_path_factory) -> Path:
    """The checkout with what is not committed yet, all of it known to a new repository."""
    place = tmp_path_factory.mktemp("copy") / "flowsearch"
    shutil.copytree(ROOT, place, ignore=NOT_COPIED)
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *command], cwd=place, check=True, capture_output=True)
    return place


@pytest.fixture(scope="session")
def comfy(copy, tmp_path_factory):
    """A function that runs `comfy node` in the copy, and returns what it printed."""
    home = str(tmp_path_factory.mktemp("home"))
    paths = os.pathsep.join([os.environ["FLOWSEARCH_COMFY_CLI"], os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "HOME": home, "USERPROFILE": home, "PYTHONPATH": paths}
    environment |= {"XDG_CONFIG_HOME": home, "PYTHONIOENCODING": "utf-8", "COLUMNS": "200"}

    def run(word: str) -> str:
        options = ["--skip-prompt", "--no-enable-telemetry", "node", word]
        done = subprocess.run(
            [sys.executable, "-m", "comfy_cli", *options],
            cwd=copy,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="session")
def archive(copy, comfy) -> Path:
    """What `comfy node pack` makes."""
    comfy("pack")
    return copy / "node.zip"


@pytest.fixture(scope="session")
def unpacked(archive, tmp_path_factory) -> Path:
    """The archive's content, as the registry's installers put it into custom_nodes."""
    place = tmp_path_factory.mktemp("installed") / "flowsearch"
    with zipfile.ZipFile(archive) as file:
        file.extractall(place)
    return place
