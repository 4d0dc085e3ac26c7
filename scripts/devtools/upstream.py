"""The host's own tests, without the pack and with it: the results must be the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

from devtools import say
from devtools.environment import Place, prepare_packages
from devtools.server import free_port, mount

PACKAGES = ("pytest-asyncio==1.4.0", "pytest-aiohttp==1.1.1", "websocket-client==1.9.0")
TESTS = ("tests-unit", "tests/execution")


def compare(place: Place, tests: tuple[str, ...] = TESTS) -> int:
    """Run the host's own tests in two copies of its tree, one with the pack mounted.

    Args:
        place: The prepared environment.
        tests: Folders or files of the host's tree.

    Returns:
        0 when every test has the same result in both, and there are some.
    """
    packages = prepare_packages(place, PACKAGES)
    found: list[dict[str, str]] = []
    for pack in (False, True):
        with tempfile.TemporaryDirectory(prefix="flowsearch-upstream-") as scratch:
            tree = Path(scratch) / "ComfyUI"
            shutil.copytree(place.comfyui, tree, ignore=shutil.ignore_patterns("__pycache__"))
            if pack:
                mount(tree)
            found.append({k: v for each in tests for k, v in _run(place, packages, tree, each)})
        say(f"{'with' if pack else 'without'} the pack: {dict(Counter(found[-1].values()))}")
    without, having = found
    differing = sorted(k for k in without.keys() | having if without.get(k) != having.get(k))
    for name in differing:
        say(f"!!! {name}: {without.get(name)} without the pack, {having.get(name)} with it")
    passed = sum(result == "passed" for result in without.values())
    say(f"{passed} passed without the pack, {len(differing)} differ with it")
    return int(bool(differing) or not passed)


def _run(place: Place, packages: Path, tree: Path, tests: str) -> list[tuple[str, str]]:
    """Names and results of the tests of a folder."""
    report = tree / "results.xml"
    report.unlink(missing_ok=True)
    command = [str(place.python), "-m", "pytest", "-q", "-p", "no:cacheprovider", tests]
    command += ["--junitxml", str(report), "--skip-timing-checks", "--port", str(free_port())]
    if not tests.startswith("tests/"):
        command = command[:-3]  # options of tests/conftest.py
    paths = os.pathsep.join((str(place.python.parent), os.environ["PATH"]))  # they call "python"
    clean = {k: v for k, v in os.environ.items() if k not in ("COMFYUI_PATH", "PYTHONSAFEPATH")}
    environment = {**clean, "PATH": paths, "PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1"}
    with (tree / "own_tests.log").open("wb") as log:
        subprocess.run(command, cwd=tree, env=environment, check=False, stdout=log, stderr=log)
    if not report.is_file():
        return []
    return [_read(case) for case in ElementTree.parse(report).iter("testcase")]


def _read(case: ElementTree.Element) -> tuple[str, str]:
    ended = [part.tag for part in case if part.tag in ("failure", "error", "skipped")]
    return f"{case.get('classname')}::{case.get('name')}", ended[0] if ended else "passed"
