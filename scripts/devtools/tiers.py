"""The checks: lint, and one pytest run per folder of tests. A tier that cannot run says so."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO

from devtools import DevError, say
from devtools.browser import need_browser
from devtools.bundle import packages_of
from devtools.environment import Place, prepare, prepare_packages
from devtools.pack import ROOT
from devtools.pins import (
    COMFY_CLI,
    FRONT_END,
    OLDEST,
    OLDEST_FRONT_END,
    OLDEST_HOST,
    host_pin,
)
from devtools.server import has_accelerator

NO_TESTS = 5  # pytest's status when it collected nothing
# Each with a host and a page of its own: four take all the memory that a usual machine has.
WORKERS = ("--numprocesses=logical", "--maxprocesses=4", "--dist=worksteal")
LINTED = ("samplers", "rewards", "nodes", "demo", "benchmarks", "scripts")


def _need_nothing(_: Place) -> dict[str, str]:
    return {}


def _need_browser(place: Place) -> dict[str, str]:
    found = need_browser()
    oldest = prepare_packages(place, (OLDEST_FRONT_END,)) / "comfyui_frontend_package" / "static"
    return {"FLOWSEARCH_BROWSER": str(found), "FLOWSEARCH_OLDEST_FRONT_END": str(oldest)}


def _need_newest_page(place: Place) -> dict[str, str]:
    page = prepare_packages(place, (FRONT_END,)) / "comfyui_frontend_package" / "static"
    return {**_need_browser(place), "FLOWSEARCH_FRONT_END": str(page)}


def _need_oldest(place: Place) -> dict[str, str]:
    paths = (str(prepare_packages(place, OLDEST)), child_environment(place)["PYTHONPATH"])
    return {"PYTHONPATH": os.pathsep.join(paths), "FLOWSEARCH_TRANSFORMERS": OLDEST[0]}


def _need_comfy_cli(place: Place) -> dict[str, str]:
    return {"FLOWSEARCH_COMFY_CLI": str(prepare_packages(place, COMFY_CLI))}


def _need_cuda(_: Place) -> dict[str, str]:
    if sys.platform == "darwin" or not has_accelerator():
        raise DevError("no CUDA device was found")
    return {}


@dataclass(frozen=True)
class Tier:
    """A folder of tests, what it needs, and whether it may be missing in CI.

    Attributes:
        name: What it is called on the command line.
        folder: Its folder.
        need: Makes or finds what it needs besides the environment; gives environment variables.
        optional: Whether it may be missing in CI.
        host: Version of the host it runs in; None for the chosen one.
        chosen: What of the folder it runs; nothing for all.
    """

    name: str
    folder: str
    need: Callable[[Place], dict[str, str]] = _need_nothing
    optional: bool = False
    host: str | None = None
    chosen: tuple[str, ...] = ()


TRANSFORMERS = (
    "tests/rewards/detection/test_zero_shot.py",
    "tests/rewards/embedding",
    "tests/rewards/language",
    "tests/rewards/preference",
    "tests/rewards/weights",
    "tests/rewards/test_conformance.py",
)
"""What another version of transformers can change: whatever loads it, and the laws of all."""

TELLING = (
    "tests/host/project/test_registration.py",
    "tests/host/project/test_imports.py",
    "tests/host/sampling/test_sampler_workflow.py",
    "tests/host/search/test_plain.py",
    "tests/host/rewards/test_models.py",
    "tests/host/project/test_examples.py::test_the_first_example_finds_three_red_circles_and_two_blue_squares",
)
"""What tells soonest that the pack does not fit a host: registration, sampling, search, rewards."""

TELLING_PAGE = (
    "tests/browser/test_workflows.py",
    "tests/browser/test_nodes.py",
    "tests/browser/test_appearance.py",
    "tests/browser/test_first_hour.py",
)
"""What tells soonest that another page than the host's own does not fit."""


TIERS = (
    Tier("pure", "tests/unit"),
    Tier("statistical", "tests/statistical"),
    Tier("rewards", "tests/rewards"),
    Tier("rewards_oldest", "tests/rewards", _need_oldest, chosen=TRANSFORMERS),
    Tier("host", "tests/host"),
    Tier("host_oldest", "tests/host", host=OLDEST_HOST, chosen=TELLING),
    Tier("package", "tests/package", _need_comfy_cli),
    Tier("browser", "tests/browser", _need_browser),
    Tier("browser_newest", "tests/browser", _need_newest_page, chosen=TELLING_PAGE),
    Tier("gpu", "tests/gpu", _need_cuda, optional=True),
)


def child_environment(place: Place) -> dict[str, str]:
    """Environment variables for every Python that dev.py starts.

    Args:
        place: The prepared environment.

    Returns:
        The current ones, where the host is, and safe import paths.
    """
    paths = (ROOT / "scripts", packages_of(place.folder))
    # A tier's processes read the checkout compiled. Somebody's own ComfyUI is only read.
    borrowed = not place.comfyui.is_relative_to(place.folder)
    return {
        **os.environ,
        "COMFYUI_PATH": str(place.comfyui),
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1" if borrowed else "",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(str(path) for path in paths if path.is_dir()),
    }


def run_tests(place: Place, names: Sequence[str], arguments: Sequence[str]) -> int:
    """Run tiers one after another, lint beside the first, and print a table of how they went.

    Args:
        place: The prepared environment.
        names: Which tiers; "lint" is one.
        arguments: More arguments for pytest.

    Returns:
        0 when all that ran passed and, in CI, all that must run did.
    """
    rows: list[tuple[str, str, float]] = []
    bad = False
    with ThreadPoolExecutor(1) as pool:
        linted = pool.submit(_lint, place) if "lint" in names else None
        for name in [name for name in names if name != "lint"] or [None]:
            start = time.monotonic()
            if name is not None:
                tier = next(tier for tier in TIERS if tier.name == name)
                verdict, failed = run_tier(place, tier, arguments)
                rows.append((name, verdict, time.monotonic() - start))
                bad = bad or failed
            if linted is not None:
                said, failed, seconds = linted.result()
                say(said)
                rows.insert(0, ("lint", "failed" if failed else "passed", seconds))
                bad, linted = bad or failed > 0, None
    say("tier            seconds  result")
    for name, verdict, seconds in rows:
        say(f"{name:<15} {seconds:7.1f}  {verdict}")
    return int(bad)


def run_tier(place: Place, tier: Tier, arguments: Sequence[str]) -> tuple[str, bool]:
    """Run one folder of tests.

    Args:
        place: The prepared environment.
        tier: Which folder, and what it needs.
        arguments: More arguments for pytest; test files among them replace the folder.

    Returns:
        What to print, and whether the whole run has failed.
    """
    say(f"=== {tier.name} ===")
    strict = os.environ.get("CI", "").lower() == "true" and not tier.optional
    try:
        if tier.host is not None:
            place = prepare(host_pin(tier.host))
        more = tier.need(place)
        if not (ROOT / tier.folder).is_dir():
            raise DevError(f"there is no {tier.folder}")
    except DevError as error:
        return _cannot_run(tier.name, str(error), strict)
    named = any(word.startswith(tier.folder) for word in arguments)
    folder = [] if named else tier.chosen or [tier.folder]
    command = [str(place.python), "-m", "pytest", "-q", *WORKERS, *folder, *arguments]
    # Small tensors: threads that wait for each other cost more than they bring, on a busy machine
    # ten times more.
    environment = {"OMP_NUM_THREADS": "1", **child_environment(place), **more}
    status = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    if status.returncode == NO_TESTS:
        return _cannot_run(tier.name, f"no test was selected in {tier.folder}", strict)
    return ("failed", True) if status.returncode else ("passed", False)


def _cannot_run(name: str, why: str, strict: bool) -> tuple[str, bool]:
    verdict = f"{'FAILED' if strict else 'SKIPPED'}, cannot run: {why}"
    say(f"!!! {name} {verdict}")
    return verdict, strict


def lint(place: Place) -> int:
    """Run ruff, pyright and pydoclint; all of them, also after a failure.

    Args:
        place: The prepared environment.

    Returns:
        How many of them found something.
    """
    said, failed, _ = _lint(place)
    say(said)
    return failed


def _linters(place: Place) -> list[list[str]]:
    folders = [name for name in LINTED if any((ROOT / name).rglob("*.py"))]
    return [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["pyright", "--pythonpath", str(place.python)],
        ["pydoclint.main", "--quiet", *folders],
    ]


def _lint(place: Place) -> tuple[str, int, float]:
    """Run all linters at once; return what they said, how many found something, and seconds."""
    start = time.monotonic()
    environment = child_environment(place)
    environment["PYTHONPATH"] = os.pathsep.join([environment["PYTHONPATH"], str(place.comfyui)])
    # into files: a pipe that nobody reads yet would stop the linter when it is full
    with contextlib.ExitStack() as stack:
        running: list[tuple[str, subprocess.Popen[bytes], IO[bytes]]] = []
        for command in _linters(place):
            file = stack.enter_context(tempfile.TemporaryFile())
            name = " ".join(command[:3] if command[0] == "ruff" else command[:1])
            words = [str(place.python), "-m", *command]
            process = subprocess.Popen(
                words, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
            )
            running.append((name, stack.enter_context(process), file))
        failed, said = 0, ["=== lint ==="]
        for name, process, file in running:
            failed += bool(process.wait())
            file.seek(0)
            said += [f"lint: {name}", file.read().decode("utf-8", "replace").strip()]
    return "\n".join(filter(None, said)), failed, time.monotonic() - start
