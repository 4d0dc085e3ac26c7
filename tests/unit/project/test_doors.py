"""No text reaches page or log but through nodes/host/page/text.py; files are parsed only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("samplers", "rewards", "nodes", "demo")
PAGE = {"nodes/host/page/progress.py"}  # the one file that sends
# what makes a ui output of words that have come through the door
SHOWN = {"card_output", "ranking_output", "search_output"}
BY_HAND = {"demo/training.py"}  # run by `dev.py train`, on nobody's page
LOGGER = "flowsearch"


def called(node):
    """The name of what is called, without what it is looked up in."""
    function = node.func
    return getattr(function, "attr", getattr(function, "id", ""))


def doors(tree, file):
    """Other ways out: (line, what)."""
    safe = {  # names that hold such an output
        target.id
        for each in ast.walk(tree)
        if isinstance(each, ast.Assign) and _is_shown(each.value)
        for target in each.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            for what in (*to_page(node, file, safe), *to_log(node, file)):
                yield node.lineno, what


def to_page(node, file, safe):
    """How a call reaches the page past the door."""
    name = called(node)
    if name.startswith("send_") and file not in PAGE:
        yield f"{name} outside of {', '.join(PAGE)}"
    elif name == "send_progress_text" and called_or_none(node.args[0]) != "for_page":
        yield "a text that is sent as it is"
    if name == "ExecutionBlocker" and not _is_clean(node.args[0]):
        yield "a sentence that the host shows as it is"
    for keyword in node.keywords:
        kept = isinstance(keyword.value, ast.Name) and keyword.value.id in safe
        if keyword.arg == "ui" and not (kept or _is_shown(keyword.value)):
            yield "a ui output of its own"


def to_log(node, file):
    """How a call reaches the log past its filter."""
    name, function = called(node), node.func
    if name == "getLogger" and [_constant(arg) for arg in node.args] != [LOGGER]:
        yield "a logger that no filter cleans"
    if name in ("print", "warn") and file not in BY_HAND:
        yield f"{name}()"
    if isinstance(function, ast.Attribute) and _is_module(function.value, "logging"):
        yield from [f"logging.{name}, of the root"] if name in LEVELS else []


LEVELS = ("debug", "info", "warning", "error", "exception", "critical", "log")


def _is_clean(node):
    nothing = isinstance(node, ast.Constant) and node.value is None
    return nothing or called_or_none(node) == "for_page"


def called_or_none(node):
    return called(node) if isinstance(node, ast.Call) else None


def _constant(node):
    return node.value if isinstance(node, ast.Constant) else None


def _is_module(node, name):
    return isinstance(node, ast.Name) and node.id == name


def _is_shown(node):
    return isinstance(node, ast.Call) and called(node) in SHOWN


def test_there_is_no_other_door():
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            file = path.relative_to(ROOT).as_posix()
            found += [f"{file}:{line}: {what}" for line, what in doors(_parsed(path), file)]
    assert found == []


def _parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


OTHER_DOORS = (
    "PromptServer.instance.send_sync('x', {'text': text})",
    "server.send_progress_text(text, node)",
    "logging.warning('%s', text)",
    "logging.getLogger().info(text)",
    "logging.getLogger(__name__).info(text)",
    "print(text)",
    "warnings.warn(text)",
    "io.NodeOutput(1, ui={'text': [text]})",
    "said = {'text': text}\nio.NodeOutput(1, ui=said)",
    "ExecutionBlocker(text)",
)


@pytest.mark.parametrize("code", OTHER_DOORS)
def test_another_door_is_seen(code):
    assert [*doors(ast.parse(code), "nodes/a.py")]


def test_in_the_file_that_sends_words_come_through_the_door():
    (file,) = PAGE
    assert [*doors(ast.parse("server.send_progress_text(text, node, sid)"), file)]
    assert not [*doors(ast.parse("server.send_progress_text(for_page(text), node, sid)"), file)]


def test_every_node_is_checked_and_the_log_is_guarded():
    """Errors of nodes come through the door in `checked`, the log's words in its filter."""
    tree = _parsed(ROOT / "nodes/extension.py")
    names = {called(node) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    references = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert "guard_log" in names
    assert "checked" in references


def test_what_makes_a_ui_output_is_one_function():
    """The others end in a call of it."""
    for path in sorted((ROOT / "nodes").rglob("*.py")):
        for made in ast.walk(_parsed(path)):
            if isinstance(made, ast.FunctionDef) and made.name in SHOWN - {"card_output"}:
                assert called_or_none(made.body[-1].value) == "card_output"
