"""The command line of scripts/dev.py."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from devtools import DevError, say
from devtools.browser import need_browser
from devtools.bundle import bundled, make_bundle
from devtools.environment import Place, prepare
from devtools.layout import lay_out
from devtools.pins import DEFAULT_HOST, HOSTS, PYTHON_RANGE, ROOT, cache_root, host_pin
from devtools.server import has_accelerator, models_config, running_host, serve
from devtools.soak import PARTS, soak
from devtools.tiers import TIERS, child_environment, lint, run_tests

TIER_NAMES = ("lint", *(tier.name for tier in TIERS))
SCHEMA_TEST = "tests/host/project/test_registration.py"
MODELS_TEST = "tests/host/models/test_families.py"
WORKFLOW_TEST = "tests/browser/test_workflows.py"


def parser() -> argparse.ArgumentParser:
    """Build the command line.

    Returns:
        The parser; `run` of its result is the command's function.
    """
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--comfyui",
        type=Path,
        default=os.environ.get("COMFYUI_PATH") or None,
        help="use this ComfyUI folder, without writing to it (default: COMFYUI_PATH)",
    )
    common.add_argument(
        "--host-version",
        default=DEFAULT_HOST,
        help=f"which pinned ComfyUI: {', '.join(HOSTS)} (default {DEFAULT_HOST})",
    )
    common.add_argument(
        "--bundle", type=Path, help="use what `dev.py bundle` made, with this Python; no network"
    )
    top = argparse.ArgumentParser(
        prog="dev.py", description="Develop FlowSearch in the real ComfyUI"
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, parents=[common], help=text, description=text)
        made.set_defaults(run=run, command=name)
        return made

    demo = command("demo", run_demo, "search for a picture in the real host")
    demo.add_argument(
        "--output", type=Path, default=ROOT / "output", help="folder for the pictures"
    )
    test = command("test", run_test, "run every tier of tests, lint beside the first")
    test.add_argument("--fast", action="store_true", help="only the pure tests, about a minute")
    test.add_argument(
        "--tier", action="append", choices=TIER_NAMES, help="only this tier; repeatable"
    )
    server = command("serve", run_serve, "start ComfyUI with the pack and print its address")
    server.add_argument("--port", type=int, default=8188)
    server.add_argument("--cpu", action="store_true", help="compute on the CPU in any case")
    bench = command("bench", run_bench, "run benchmarks/NAME.py; further arguments go to it")
    bench.add_argument("name", choices=benchmarks(), metavar="NAME", help=", ".join(benchmarks()))
    command("train", run_train, "train the embedded model again; arguments go to demo/train.py")
    command("distil", run_train, "distil it to few steps again; arguments go to demo/distil.py")
    command("lint", run_lint, "run ruff, pyright and pydoclint")
    command("schema", run_schema, "rewrite the committed snapshot of node ids, inputs, defaults")
    command("models", run_models, "rewrite the committed table of families of models")
    command("workflows", run_workflows, "rewrite example_workflows/api from the editor's files")
    command("layout", run_layout, "place the nodes of the example workflows by their sizes")
    longer = command("soak", run_soak, "what takes longer than a test should: kills, every host")
    longer.add_argument("--part", action="append", choices=PARTS, help="only this; repeatable")
    bundle = command("bundle", run_bundle, "for `bench gpu` and `test --tier gpu` elsewhere")
    bundle.add_argument("folder", type=Path, help="a new folder, to be carried there")
    bundle.add_argument("--python", default="3.12", help="release of Python there")
    bundle.add_argument("--platform", default="manylinux_2_28_x86_64", help="its wheels' tag")
    command("setup", run_setup, "only make the environment and print where it is")
    return top


def benchmarks() -> list[str]:
    """List the benchmarks.

    Returns:
        Names of the scripts in benchmarks/ that can be run.
    """
    files = (ROOT / "benchmarks").glob("*.py")
    return sorted(file.stem for file in files if "__main__" in file.read_text(encoding="utf-8"))


def place_of(options: argparse.Namespace) -> Place:
    """Make the environment that the options ask for.

    Args:
        options: The parsed command line.

    Returns:
        The finished environment.
    """
    if options.bundle:
        return bundled(options.bundle.expanduser().resolve())
    if options.comfyui:
        return prepare(Path(options.comfyui).expanduser().resolve())
    return prepare(host_pin(options.host_version))


def run_demo(options: argparse.Namespace, rest: list[str]) -> int:
    place = place_of(options)
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    say("starting ComfyUI")
    with running_host(place.python, place.comfyui) as server:
        say(f"ComfyUI answers at {server.url}")
        command = [str(place.python), str(ROOT / "scripts" / "demo.py"), server.url, str(output)]
        environment = child_environment(place)
        return subprocess.run([*command, *rest], env=environment, check=False).returncode


def run_test(options: argparse.Namespace, rest: list[str]) -> int:
    place = place_of(options)
    names = ["pure"] if options.fast else (options.tier or default_tiers(options))
    return run_tests(place, names, rest)


def default_tiers(options: argparse.Namespace) -> list[str]:
    """List the tiers of a plain `test`.

    Args:
        options: The parsed command line.

    Returns:
        All tiers; where another host was asked for, without those that bring one of their own.
    """
    other = options.comfyui or options.host_version != DEFAULT_HOST
    brings = {tier.name for tier in TIERS if tier.host is not None}
    return [name for name in TIER_NAMES if not (other and name in brings)]


def run_serve(options: argparse.Namespace, rest: list[str]) -> int:
    place = place_of(options)
    digest = hashlib.sha256(str(ROOT).encode()).hexdigest()[:12]
    base = cache_root() / "served" / digest
    base.mkdir(parents=True, exist_ok=True)
    if options.comfyui:
        rest = [*rest, *models_config(base, place.comfyui / "models")]
    cpu = options.cpu or not has_accelerator()
    return serve(place.python, place.comfyui, base, options.port, cpu, rest)


def run_bench(options: argparse.Namespace, rest: list[str]) -> int:
    place = place_of(options)
    script = ROOT / "benchmarks" / f"{options.name}.py"
    command = [str(place.python), str(script), *rest]
    environment = child_environment(place)
    paths = [str(script.parent), environment.get("PYTHONPATH", "")]  # for what benchmarks share
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return subprocess.run(command, env=environment, check=False).returncode


def run_train(options: argparse.Namespace, rest: list[str]) -> int:
    place = place_of(options)
    code = (
        "from devtools.pack import load_pack; load_pack(); import runpy; "
        f"name = 'flowsearch.demo.{options.command}'; "
        "runpy.run_module(name, run_name='__main__', alter_sys=True)"
    )
    command = [str(place.python), "-c", code, *rest]
    return subprocess.run(command, env=child_environment(place), check=False).returncode


def run_lint(options: argparse.Namespace, rest: list[str]) -> int:  # noqa: ARG001
    return lint(place_of(options))


def rewrite(
    options: argparse.Namespace, variable: str, test: str, rest: list[str], value: str = "1"
) -> int:
    """Run a test that writes its expectation when told to by an environment variable.

    Args:
        options: The parsed command line.
        variable: The environment variable.
        test: The test's file and, after ::, its name.
        rest: More arguments for pytest.
        value: What the variable is set to.

    Returns:
        pytest's status.
    """
    place = place_of(options)
    environment = {**child_environment(place), variable: value}
    command = [str(place.python), "-m", "pytest", "-q", test, *rest]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def run_schema(options: argparse.Namespace, rest: list[str]) -> int:
    return rewrite(
        options, "FLOWSEARCH_WRITE_SCHEMA", SCHEMA_TEST, ["-k", "snapshot or growing", *rest]
    )


def run_models(options: argparse.Namespace, rest: list[str]) -> int:
    return rewrite(options, "FLOWSEARCH_WRITE_MODELS", MODELS_TEST, rest)


def run_workflows(options: argparse.Namespace, rest: list[str]) -> int:
    need_browser()
    more = ["-k", "an_example", *rest]
    return rewrite(options, "FLOWSEARCH_WRITE_WORKFLOWS", WORKFLOW_TEST, more)


def run_layout(options: argparse.Namespace, rest: list[str]) -> int:
    need_browser()
    with tempfile.TemporaryDirectory() as scratch:
        more = ["-k", "an_example", *rest]
        status = rewrite(options, "FLOWSEARCH_WRITE_LAYOUT", WORKFLOW_TEST, more, scratch)
        files = Path(scratch).glob("*.json")
        measured = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
    for name in lay_out(ROOT / "example_workflows", measured):
        say(f"changed: {name}")
    return status


def run_soak(options: argparse.Namespace, rest: list[str]) -> int:
    return soak(options.part or (), rest)


def run_bundle(options: argparse.Namespace, rest: list[str]) -> int:  # noqa: ARG001
    folder = options.folder.expanduser().resolve()
    make_bundle(place_of(options), folder, options.python, options.platform)
    return 0


def run_setup(options: argparse.Namespace, rest: list[str]) -> int:  # noqa: ARG001
    place = place_of(options)
    say(f"Python: {place.python}")
    say(f"ComfyUI: {place.comfyui}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run one command; turn expected failures into one sentence.

    Args:
        arguments: The command line; None takes the process's.

    Returns:
        The process's exit status.
    """
    given = sys.argv[1:] if arguments is None else arguments
    options, rest = parser().parse_known_args(given)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a server is stopped too
    try:
        low, high = PYTHON_RANGE
        if not low <= sys.version_info[:2] <= high:
            raise DevError(
                f"Python {sys.version_info[0]}.{sys.version_info[1]} has no torch for these pins; "
                f"use one from {low[0]}.{low[1]} to {high[0]}.{high[1]}"
            )
        return options.run(options, [word for word in rest if word != "--"])
    except DevError as error:
        say(f"ERROR: {error}")
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 130
