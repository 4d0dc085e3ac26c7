"""What a machine with an accelerator and no network needs beside its own torch, in one folder.

    FOLDER/ComfyUI     the host's tree, as released, without what no test reads
    FOLDER/packages    packages of the host that such machines lack

Made where there is a network (`dev.py bundle FOLDER`), carried there, and used by `--bundle
FOLDER`: the Python that runs dev.py then runs everything, and nothing is installed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from devtools import DevError, say
from devtools.environment import Place, run_pip

BUILT = ("av", "comfy-aimdo")
PURE = ("comfy-kitchen", "torchsde", "trampoline")
"""Together what the host imports for sampling and images with torch, transformers and scipy lack.
Of comfy-kitchen it is the wheel without kernels, which has 0.1 MB where the other has 50."""
LEFT_OUT = ("tests", "tests-unit", "script_examples", ".git*", "__pycache__")


def make_bundle(place: Place, folder: Path, python: str, machine: str) -> None:
    """Fill a folder.

    Args:
        place: A finished environment, whose tree and releases are taken.
        folder: Made anew.
        python: Release of the other machine's Python, such as 3.12.
        machine: Its platform tag, such as manylinux_2_28_x86_64.

    Raises:
        DevError: pip failed, or the folder is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise DevError(f"{folder} is not empty; name a new folder")
    wheels, packages = folder / "wheels", folder / "packages"
    wheels.mkdir(parents=True)
    shutil.copytree(
        place.comfyui, folder / "ComfyUI", ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True
    )
    options = ["download", "--no-deps", "--only-binary=:all:", "--python-version", python]
    options += ["--implementation", "cp", "--dest", str(wheels)]
    tags = (machine, "manylinux2014_x86_64", "manylinux_2_17_x86_64")
    for names, platforms in ((BUILT, tags), (PURE, ("any",))):
        wanted = [*(f"--platform={tag}" for tag in platforms), *_releases(place, names)]
        run_pip(place.python, [*options, *wanted], folder / "pip.log")
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages)
    shutil.rmtree(wheels)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    say(f"{folder}: {size / 1e6:.0f} MB before compression, for Python {python}")


def bundled(folder: Path) -> Place:
    """Return a bundle as an environment of the running Python.

    Args:
        folder: What make_bundle() filled.

    Returns:
        The environment.

    Raises:
        DevError: It is no bundle.
    """
    tree = folder / "ComfyUI"
    if not (tree / "main.py").is_file() or not packages_of(folder).is_dir():
        raise DevError(f"{folder} is no bundle; make one by: python scripts/dev.py bundle FOLDER")
    return Place(Path(sys.executable), tree, folder)


def packages_of(folder: Path) -> Path:
    """Return where a bundle has its packages.

    Args:
        folder: The bundle.

    Returns:
        The folder, which other environments do not have.
    """
    return folder / "packages"


def _releases(place: Place, names: Sequence[str]) -> list[str]:
    """The releases of packages that an environment has, as pip is asked for them."""
    code = (
        "import sys, importlib.metadata as m; "
        "print(*(f'{n}=={m.version(n)}' for n in sys.argv[1:]))"
    )
    told = subprocess.run(
        [str(place.python), "-c", code, *names], capture_output=True, text=True, check=True
    )
    return told.stdout.split()
