"""Who may import whom, and how large things may grow. Imports are parsed, nothing is executed."""

import ast
import functools
import graphlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.pack import load_pack

ROOT = Path(__file__).resolve().parents[3]
HOST = {
    "comfy",
    "comfy_api",
    "comfy_execution",
    "comfy_extras",
    "execution",
    "folder_paths",
    "latent_preview",
    "node_helpers",
    "nodes",
    "server",
}
_HOST_SIDE = {"nodes", "nodes.host", "nodes.host.*"}
MAY_IMPORT = {  # the longest matching prefix is the owner; "a.*" is all below a
    "samplers": set(),
    "samplers.paths": set(),
    "samplers.stepping": {"samplers.paths"},
    "samplers.study": {"samplers.paths", "samplers.stepping"},
    "samplers.search": {"samplers.paths", "samplers.stepping"},
    "samplers.search.strategies": {"samplers.paths", "samplers.stepping", "samplers.search"},
    "samplers.search.account": {"samplers.search"},
    "samplers.search.engine": {
        "samplers.paths",
        "samplers.stepping",
        "samplers.search",
        "samplers.search.account",
    },
    "samplers.search.testing": {"samplers.stepping", "samplers.search"},
    "samplers.search.__init__": {"samplers.search", "samplers.search.*"},
    "rewards": {"rewards.weights"},
    "rewards.weights": set(),
    "rewards.prompts": set(),
    "rewards.embedding": {"rewards", "rewards.weights"},
    "rewards.preference": {"rewards", "rewards.weights", "rewards.embedding"},
    "rewards.language": {"rewards", "rewards.weights", "rewards.prompts"},
    "rewards.detection": {"rewards", "rewards.weights", "rewards.prompts"},
    "rewards.faces": {"rewards", "rewards.detection"},
    "rewards.reading": {"rewards"},
    "rewards.judge": {"rewards"},
    "rewards.pixels": {"rewards", "rewards.prompts"},
    "rewards.testing": {"rewards"},
    "demo": {"samplers.*", "rewards.*"},
    "nodes": set(),
    "nodes.host": set(),
    "nodes.host.page": {"nodes.host", "samplers.search", "samplers.search.account"},
    "nodes.host.model": {"nodes.host", "nodes.host.page", "samplers.*"},
    "nodes.host.rewards": {"nodes.host", "nodes.host.page", "nodes.host.model", "rewards.*"},
    "nodes.host.search": {
        "nodes.host",
        "nodes.host.page",
        "nodes.host.model",
        "nodes.host.rewards",
        "samplers.*",
        "rewards",
        "rewards.*",
    },
    "nodes.sampling": _HOST_SIDE | {"samplers.*", "rewards", "demo"},
    "nodes.study": _HOST_SIDE | {"samplers.*"},
    "nodes.search": _HOST_SIDE | {"samplers.*", "rewards"},
    "nodes.rewards": _HOST_SIDE | {"rewards", "rewards.*"},
    "nodes.input_checks": _HOST_SIDE | {"samplers.*", "rewards.*"},
    "nodes.extension": {"nodes", "nodes.*"},
}
TOP = {name.split(".")[0] for name in MAY_IMPORT}
CODE = (*sorted(TOP), "benchmarks", "scripts", "tests")
FILE_LINES, FUNCTION_LINES = 600, 60
TABLES = {"define_schema"}  # functions that only list a node's inputs


@functools.cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@functools.cache
def statements(file: Path) -> list[ast.AST]:
    """Every statement of a file, inner ones too; a walk over all expressions takes far longer."""
    found: list[ast.AST] = []
    inner: list[ast.AST] = [parsed(file)]
    while inner:
        node = inner.pop()
        found.append(node)
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            part = getattr(node, name, None)
            inner += part if isinstance(part, list) else []  # a lambda's body is an expression
    return found


def allowed(me: str, target: str) -> bool:
    if me == target:
        return True
    below = {rule[:-1] for rule in MAY_IMPORT[me] if rule.endswith("*")}
    return target in MAY_IMPORT[me] or target.startswith(tuple(below))


def owner(parts: tuple[str, ...]) -> str | None:
    name = ".".join(parts)
    fits = [key for key in MAY_IMPORT if name == key or name.startswith(key + ".")]
    return max(fits, key=len, default=None)


def imports(node: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[bool, tuple[str, ...]]]:
    """Yield (is relative, path from the root) for every name an import statement brings."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield False, tuple(alias.name.split("."))
    elif isinstance(node, ast.ImportFrom):
        inner = tuple(node.module.split(".")) if node.module else ()
        if node.level == 0:
            yield False, inner
        else:
            base = package[: len(package) - node.level + 1] + inner
            for alias in node.names:
                yield True, (*base, alias.name)


def fault(me: str, relative: bool, parts: tuple[str, ...]) -> str | None:
    """Say what is wrong with one import in a module that `me` owns."""
    if relative:
        target = owner(parts)
        return f"{me} -> {target}" if target and not allowed(me, target) else None
    if parts[0] == "nodes":
        return "bare 'nodes'"
    if parts[0] in TOP:
        return f"absolute import of own '{parts[0]}'"
    if parts[0] in HOST and not me.startswith("nodes"):
        return f"host '{parts[0]}'"
    return None


def violations(root: Path) -> list[str]:
    found = []
    for file in sorted(file for top in TOP for file in (root / top).rglob("*.py")):
        where = file.relative_to(root)
        me = owner(where.with_suffix("").parts)
        for node in statements(file):
            for relative, parts in imports(node, where.parent.parts):
                if why := fault(me, relative, parts):
                    found.append(f"{where.as_posix()}:{node.lineno} {why}")
    return found


def test_imports_follow_the_directions():
    assert violations(ROOT) == []


def test_the_directions_make_no_circle():
    graph = {me: {to for to in MAY_IMPORT if to != me and allowed(me, to)} for me in MAY_IMPORT}
    assert list(graphlib.TopologicalSorter(graph).static_order())  # else it raises CycleError


CLEAN = {
    "samplers/paths/a.py": "import torch\nfrom .b import c\nfrom . import d",
    "samplers/search/engine/e.py": "from ...stepping.a import x\nfrom . import item",
    "rewards/pixels/r.py": "def f():\n    import transformers",
    "nodes/search/n.py": "import comfy.samplers\nfrom ...samplers.search import e",
    "nodes/sampling/m.py": "from ...demo import load",
    "demo/d.py": "from ..rewards.pixels.r import f",
}
PLANTED = [
    ("samplers/paths/a.py", "import comfy.samplers", "host 'comfy'"),
    ("samplers/paths/a.py", "from ...rewards import base", "samplers.paths -> rewards"),
    ("samplers/paths/a.py", "from ..stepping import step", "samplers.paths -> samplers.stepping"),
    (
        "samplers/search/strategies/e.py",
        "from ..engine import item",
        "samplers.search.strategies -> samplers.search.engine",
    ),
    (
        "samplers/search/protocol.py",
        "from .account import trace",
        "samplers.search -> samplers.search.account",
    ),
    ("rewards/pixels/r.py", "def f():\n    import folder_paths", "host 'folder_paths'"),
    ("rewards/pixels/r.py", "from ... import samplers", "rewards.pixels -> samplers"),
    ("rewards/base.py", "from .pixels import r", "rewards -> rewards.pixels"),
    ("nodes/search/n.py", "import nodes", "bare 'nodes'"),
    ("nodes/search/n.py", "from samplers import a", "absolute import of own 'samplers'"),
    ("nodes/search/n.py", "from ..sampling import m", "nodes.search -> nodes.sampling"),
    ("nodes/host/page/n.py", "from ..search import m", "nodes.host.page -> nodes.host.search"),
    ("demo/d.py", "from ..nodes import n", "demo -> nodes"),
]


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_clean_tree_is_clean(tmp_path):
    assert violations(plant(tmp_path, CLEAN)) == []


@pytest.mark.parametrize(("file", "text", "why"), PLANTED)
def test_a_planted_violation_is_found(tmp_path, file, text, why):
    found = violations(plant(tmp_path, CLEAN | {file: text}))
    assert len(found) == 1
    assert found[0].startswith(file)
    assert found[0].endswith(why)


def test_the_mathematics_never_loads_the_host():
    """Import every module of samplers/ and rewards/ and look at what came with them."""
    modules = sorted(
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for top in ("samplers", "rewards")
        for file in (ROOT / top).rglob("*.py")
    )
    script = (
        "import importlib, sys\nfrom devtools.pack import load_pack\nload_pack()\n"
        f"for name in {modules}: importlib.import_module('flowsearch.' + name)\n"
        f"print(sorted({HOST} & set(sys.modules)))"
    )
    paths = [str(ROOT / "scripts"), os.environ.get("COMFYUI_PATH", "")]  # the host can be found
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT.parent,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_tests_to_inherit_are_imported_by_nothing_and_alone_need_pytest():
    """A user has no pytest: what runs in the host works without it."""
    found = []
    for file in sorted(file for top in TOP for file in (ROOT / top).rglob("*.py")):
        where = file.relative_to(ROOT)
        if "testing" in where.with_suffix("").parts:
            continue
        for node in statements(file):
            for _, parts in imports(node, where.parent.parts):
                if parts[0] == "pytest" or "testing" in parts:
                    found.append(f"{where}: {'.'.join(parts)}")
    assert found == []


def test_our_nodes_cannot_hide_the_hosts(tmp_path, monkeypatch):
    """The trap is real while a checkout is on sys.path, and load_pack takes it away."""
    assert str(ROOT) not in sys.path
    plant(tmp_path, {"__init__.py": "", "nodes/__init__.py": ""})
    monkeypatch.delitem(sys.modules, "nodes", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importlib.util.find_spec("nodes").origin == str(tmp_path / "nodes" / "__init__.py")
    load_pack(tmp_path)
    after = importlib.util.find_spec("nodes")
    assert after is None or not str(after.origin).startswith(str(tmp_path))


def test_every_file_that_a_page_names_is_there():
    """Blocks of code are another pack's, or a command line that is tried by itself."""
    block = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
    files = ["/" + file.relative_to(ROOT).as_posix() for file in sources()]
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "web").rglob("*.md")]
    named = {
        (page.name, name)
        for page in pages
        for name in re.findall(
            r"(?<![\w/])[a-z][\w/]*\.py\b", block.sub("", page.read_text(encoding="utf-8"))
        )
    }
    assert len(named) > 50
    lost = {
        (page, name) for page, name in named if not any(file.endswith(f"/{name}") for file in files)
    }
    assert lost == set()


def test_the_scripts_need_only_the_standard_library():
    allowed = set(sys.stdlib_module_names) | {"devtools"}
    files = [ROOT / "scripts" / "dev.py", *(ROOT / "scripts" / "devtools").glob("*.py")]
    found = {
        parts[0] for file in files for node in statements(file) for _, parts in imports(node, ())
    }
    assert found <= allowed


def sources() -> list[Path]:
    return [ROOT / "__init__.py", *(file for top in CODE for file in (ROOT / top).rglob("*.py"))]


def test_python_files_are_ascii():
    """The registry's checker fails on characters outside cp1252."""
    assert [str(file) for file in sources() if not file.read_bytes().isascii()] == []


def test_files_and_functions_stay_small():
    large = []
    for file in sources():
        text = file.read_text(encoding="utf-8")
        if len(text.splitlines()) > FILE_LINES:
            large.append(f"{file}: {len(text.splitlines())} lines")
        for node in statements(file):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name not in TABLES:
                body = node.body[1:] if ast.get_docstring(node) and node.body[1:] else node.body
                lines = body[-1].end_lineno - body[0].lineno + 1
                if lines > FUNCTION_LINES:
                    large.append(f"{file}:{node.lineno} {node.name}: {lines} lines")
    assert large == []
