"""Find a Chromium-like browser for the browser tests; on Debian as root, install one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from devtools import DevError, say

COMMANDS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "microsoft-edge",
    "microsoft-edge-stable",
)
PLACES = {
    "darwin": (
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
        "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    ),
    "win32": (
        "C:/Program Files/Google/Chrome/Application/chrome.exe",
        "C:/Program Files (x86)/Google/Chrome/Application/chrome.exe",
        "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
        "C:/Program Files/Microsoft/Edge/Application/msedge.exe",
    ),
}
INSTALL = {
    "darwin": "brew install --cask chromium",
    "win32": "winget install Google.Chrome",
    "linux": "apt-get install chromium   (or your distribution's package)",
}


def find_browser() -> Path | None:
    """Look for an installed browser: FLOWSEARCH_BROWSER, the command path, the usual places.

    Returns:
        The program, or None.
    """
    names = [os.environ.get("FLOWSEARCH_BROWSER"), *COMMANDS]
    found = [shutil.which(name) for name in names if name]
    places = [str(place) for place in PLACES.get(sys.platform, ()) if Path(place).is_file()]
    return next((Path(program) for program in [*found, *places] if program), None)


def need_browser() -> Path:
    """Return a browser, installing Debian's where that is possible.

    Returns:
        The program.

    Raises:
        DevError: There is none; the message holds the command that installs one.
    """
    if program := find_browser():
        return program
    how = INSTALL.get(sys.platform, INSTALL["linux"])
    apt = shutil.which("apt-get")
    if not apt or sys.platform == "win32" or os.geteuid() != 0:
        raise DevError(f"no Chromium, Chrome or Edge was found; install one: {how}")
    say("no browser was found; installing Debian's chromium")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = [apt, "install", "-y", "-qq", "--no-install-recommends", "chromium"]
    for command in ([apt, "update", "-qq"], install):
        done = subprocess.run(command, capture_output=True, text=True, env=quiet, check=False)
        if done.returncode:
            raise DevError(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
    if program := find_browser():
        return program
    raise DevError(f"chromium was installed but is not on the path; install one by hand: {how}")
