"""Who may import whom, and how large things may grow. Imports are parsed, nothing is executed."""

import ast
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.pack import load_pack

ROOT = Path(__file__).resolve().parents[2]
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
MAY_IMPORT = {  # the longest matching prefix is the owner
    "samplers": {"samplers"},
    "samplers.search": {"samplers", "samplers.search"},
    "rewards": {"rewards"},
    "nodes": {"nodes", "samplers", "samplers.search", "rewards", "demo"},
    "demo": {"demo", "rewards", "samplers"},
}
TOP = {name.split(".")[0] for name in MAY_IMPORT}
CODE = (*sorted(TOP), "benchmarks", "scripts", "tests")
FILE_LINES, FUNCTION_LINES = 600, 60
TABLES = {"define_schema"}  # functions that only list a node's inputs


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
        return f"{me} -> {target}" if target and target not in MAY_IMPORT[me] else None
    if parts[0] == "nodes":
        return "bare 'nodes'"
    if parts[0] in TOP:
        return f"absolute import of own '{parts[0]}'"
    if parts[0] in HOST and me != "nodes":
        return f"host '{parts[0]}'"
    return None


def violations(root: Path) -> list[str]:
    found = []
    for file in sorted(file for top in TOP for file in (root / top).rglob("*.py")):
        where = file.relative_to(root)
        me = owner(where.with_suffix("").parts)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for relative, parts in imports(node, where.parent.parts):
                if why := fault(me, relative, parts):
                    found.append(f"{where.as_posix()}:{node.lineno} {why}")
    return found


def test_imports_follow_the_directions():
    assert violations(ROOT) == []


CLEAN = {
    "samplers/a.py": "import torch\nfrom .b import c\nfrom . import d",
    "samplers/search/e.py": "from ..a import x\nfrom . import engine",
    "rewards/r.py": "def f():\n    import transformers",
    "nodes/n.py": "import comfy.samplers\nfrom ..samplers.search import e\nfrom ..demo import load",
    "demo/d.py": "from ..rewards.r import f",
}
PLANTED = [
    ("samplers/a.py", "import comfy.samplers", "host 'comfy'"),
    ("samplers/a.py", "from ..rewards import base", "samplers -> rewards"),
    ("samplers/a.py", "from .search import engine", "samplers -> samplers.search"),
    ("samplers/search/e.py", "from ...rewards.r import f", "samplers.search -> rewards"),
    ("rewards/r.py", "def f():\n    import folder_paths", "host 'folder_paths'"),
    ("rewards/r.py", "from .. import samplers", "rewards -> samplers"),
    ("nodes/n.py", "import nodes", "bare 'nodes'"),
    ("nodes/n.py", "from samplers import a", "absolute import of own 'samplers'"),
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


def test_the_scripts_need_only_the_standard_library():
    allowed = set(sys.stdlib_module_names) | {"devtools"}
    files = [ROOT / "scripts" / "dev.py", *(ROOT / "scripts" / "devtools").glob("*.py")]
    found = {
        parts[0]
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        for _, parts in imports(node, ())
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
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name not in TABLES:
                body = node.body[1:] if ast.get_docstring(node) and node.body[1:] else node.body
                lines = body[-1].end_lineno - body[0].lineno + 1
                if lines > FUNCTION_LINES:
                    large.append(f"{file}:{node.lineno} {node.name}: {lines} lines")
    assert large == []
