"""Start the real host with this checkout mounted as custom_nodes/flowsearch, and stop it again.

Every server has a base folder of its own (models, custom_nodes, input, output, user), so the host's
tree stays as released and any number of checkouts and servers can share it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from devtools import DevError, say
from devtools.pack import ROOT

PACK = "flowsearch"
NOT_COPIED = shutil.ignore_patterns(".git", "__pycache__", "output", ".venv")
START_SECONDS = 300.0
OWN_VARIABLES = ("PYTHONSAFEPATH", "PYTHONPATH", "COMFYUI_PATH")  # set for our tests, not the host


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    url: str
    base: Path
    log: Path
    process: subprocess.Popen[bytes]


def free_port() -> int:
    """Find a port of this machine that nobody listens on.

    Returns:
        The port's number.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_port(port: int) -> None:
    """Refuse a port that another program holds.

    Args:
        port: The port to be used.

    Raises:
        DevError: Something listens on it.
    """
    with socket.socket() as probe:
        if sys.platform != "win32":  # there it would allow stealing the port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise DevError(
                f"port {port} is in use ({error.strerror}); choose another with --port, "
                "or stop the program that uses it"
            ) from error


def mount(base: Path, root: Path = ROOT) -> Path:
    """Put the checkout into base/custom_nodes: a symlink, on Windows a junction, else a copy.

    Args:
        base: The server's base folder; made if missing.
        root: The checkout.

    Returns:
        The mounted folder.
    """
    place = base / "custom_nodes" / PACK
    place.parent.mkdir(parents=True, exist_ok=True)
    for name in ("models", "input", "output", "temp", "user"):
        (base / name).mkdir(exist_ok=True)
    if place.exists() and os.path.samefile(place, root):
        return place
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        try:
            os.rmdir(place)  # a junction: its target stays
        except OSError:
            shutil.rmtree(place)
    if sys.platform == "win32":
        made = subprocess.run(
            ["cmd", "/c", "mklink", "/J", str(place), str(root)], capture_output=True, check=False
        )
        if made.returncode:
            shutil.copytree(root, place, ignore=NOT_COPIED)
    else:
        place.symlink_to(root, target_is_directory=True)
    return place


def models_config(base: Path, models: Path) -> list[str]:
    """Options that let a server see the models of an existing installation.

    Args:
        base: The server's base folder.
        models: That installation's folder of model folders.

    Returns:
        Command line options; none when there is no such folder.
    """
    kinds = (
        sorted(entry.name for entry in models.iterdir() if entry.is_dir())
        if models.is_dir()
        else []
    )
    if not kinds:
        return []
    file = base / "models.yaml"
    lines = ["existing:", f"    base_path: {json.dumps(str(models))}"]
    file.write_text("\n".join(lines + [f"    {kind}: {kind}" for kind in kinds]) + "\n", "utf-8")
    return ["--extra-model-paths-config", str(file)]


def has_accelerator() -> bool:
    """Guess, without importing torch, whether the host can use something better than the CPU.

    Returns:
        Whether there is an NVIDIA driver that answers, or Apple silicon.
    """
    if sys.platform == "darwin":
        return os.uname().machine == "arm64"
    tool = shutil.which("nvidia-smi")
    return (
        bool(tool) and not subprocess.run([tool, "-L"], capture_output=True, check=False).returncode
    )


@contextlib.contextmanager
def running_host(
    python: Path,
    comfyui: Path,
    *,
    port: int | None = None,
    base: Path | None = None,
    cpu: bool = True,
    options: Sequence[str] = (),
    root: Path = ROOT,
) -> Iterator[Running]:
    """Run the host for the length of a with block.

    Args:
        python: The environment's interpreter.
        comfyui: The host's tree.
        port: Port to listen on; None takes a free one.
        base: Base folder that is kept afterwards; None makes one and deletes it.
        cpu: Whether to compute on the CPU.
        options: More command line options for the host.
        root: The checkout to mount.

    Yields:
        The running server.

    Raises:
        DevError: The port is taken, or the host ended or did not answer; with the end of its log.
    """
    if port is not None:
        check_port(port)
    number = free_port() if port is None else port
    with contextlib.ExitStack() as stack:
        if base is None:
            scratch = tempfile.mkdtemp(prefix="flowsearch-")
            stack.callback(shutil.rmtree, scratch, ignore_errors=True)
            base = Path(scratch)
        mount(base, root)
        log = base / f"server-{number}.log"
        command = [str(python), str(comfyui / "main.py"), "--port", str(number)]
        command += ["--base-directory", str(base), "--disable-auto-launch", "--disable-api-nodes"]
        command += ["--database-url", f"sqlite:///{(base / 'user' / f'{number}.db').as_posix()}"]
        command += [*(["--cpu"] if cpu else []), *options]
        file = stack.enter_context(log.open("wb"))
        theirs = {key: os.environ[key] for key in os.environ if key not in OWN_VARIABLES}
        environment = {**theirs, "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, cwd=comfyui, env=environment
        )
        stack.callback(_stop, process)
        server = Running(f"http://127.0.0.1:{number}", base, log, process)
        _wait(server)
        yield server


def _wait(server: Running) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if server.process.poll() is not None:
            raise DevError(
                f"the host ended with status {server.process.returncode} before it answered. "
                f"{log_tail(server.log)}"
            )
        try:
            with urllib.request.urlopen(server.url + "/system_stats", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.25)
    raise DevError(
        f"the host did not answer at {server.url} within {START_SECONDS:.0f} s. "
        f"{log_tail(server.log)}"
    )


def log_tail(log: Path, lines: int = 25) -> str:
    """The last lines of a server's log, as they go into a message.

    Args:
        log: The log file.
        lines: How many.

    Returns:
        A heading and the lines.
    """
    text = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-lines:]
    return "The end of its log:\n" + "\n".join("    " + line for line in text)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def serve(python: Path, comfyui: Path, base: Path, port: int, cpu: bool, options: list[str]) -> int:
    """Run the host until it ends or Ctrl-C, repeating its log.

    Args:
        python: The environment's interpreter.
        comfyui: The host's tree.
        base: The base folder, kept between runs.
        port: Port to listen on.
        cpu: Whether to compute on the CPU.
        options: More options for the host.

    Returns:
        0 after Ctrl-C, else the host's status.
    """
    say("starting ComfyUI")
    with (
        running_host(python, comfyui, port=port, base=base, cpu=cpu, options=options) as server,
        server.log.open(encoding="utf-8", errors="replace") as log,
    ):
        say(f"pictures and uploads are under {server.base}")
        print(log.read(), end="")
        say(f"FlowSearch is running at {server.url} (Ctrl-C stops it)")
        try:
            while server.process.poll() is None:
                print(log.read(), end="", flush=True)
                time.sleep(0.5)
        except KeyboardInterrupt:
            say("stopping")
            return 0
        print(log.read(), end="")
        return int(server.process.returncode)
