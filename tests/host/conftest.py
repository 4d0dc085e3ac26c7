"""The real host, in this process and as a server.

In this process: importing this file puts the host's tree on sys.path and sets its options for the
CPU, so a test module may say `import comfy.samplers` at its top. Nothing of the host is replaced.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from client import Client

from devtools.server import running_host

if not os.environ.get("COMFYUI_PATH"):
    pytest.exit("COMFYUI_PATH is not set: run these tests with python scripts/dev.py test", 2)

COMFYUI = Path(os.environ["COMFYUI_PATH"]).resolve()
_BASE = tempfile.TemporaryDirectory(prefix="flowsearch-host-", ignore_cleanup_errors=True)


def pytest_configure(config) -> None:
    """Enter the host where tests run: in xdist's workers, or where there are none."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        _enter_host()


def _enter_host() -> None:
    sys.path.insert(0, str(COMFYUI))
    from comfy.cli_args import args

    args.cpu = True
    args.base_directory = _BASE.name
    args.disable_api_nodes = True

    # as main.py does it: the host's nodes.py puts comfy/ first on the path, which has a utils.py
    # thousands of small calls: more threads only wait for each other on a busy machine
    import torch
    import utils.extra_config  # noqa: F401

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """The host's tree, on sys.path with its options set for the CPU."""
    return COMFYUI


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A real ComfyUI server on the CPU with the pack and somebody else's; a Client for it."""
    base = tmp_path_factory.mktemp("server")
    support = Path(__file__).resolve().parents[1] / "support"
    shutil.copytree(support / "foreign_pack", base / "custom_nodes" / "foreign_pack")
    with running_host(Path(sys.executable), COMFYUI, base=base) as running:
        yield Client(running)
