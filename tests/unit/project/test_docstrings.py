"""The examples in docstrings are run, and the public API has them."""

import ast
import doctest
import importlib
import warnings

import pytest

from devtools.pack import ROOT

FILES = sorted(
    file
    for top in ("samplers", "rewards")
    for file in (ROOT / top).rglob("*.py")
    if ">>> " in file.read_text(encoding="utf-8")
)
PUBLIC = (
    "rewards/base.py", "rewards/combination.py", "rewards/frames.py", "rewards/gradient.py",
    "rewards/latent.py", "rewards/registry.py", "samplers/paths/interpolant.py",
    "samplers/paths/law_table.py", "samplers/paths/noise_law.py", "samplers/paths/sigmas.py",
    "samplers/search/__init__.py", "samplers/search/account/trace.py",
    "samplers/search/engine/ledger.py", "samplers/search/engine/search.py",
    "samplers/search/protocol.py", "samplers/search/recombination.py",
    "samplers/search/settings.py", "samplers/search/testing/mixture.py",
    "samplers/stepping/integrate.py", "samplers/stepping/method.py", "samplers/stepping/noise.py",
    "samplers/stepping/transition.py",
    *(
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "samplers" / "search" / "strategies").glob("*.py")
    ),
)  # fmt: skip
WITHOUT = {  # what cannot be shown by itself: the parts of a run, and what only tests draw
    "Interrupted", "ItemOutcome", "KeyedNoise", "MemoryCheckpoint", "Numbers", "Outcome",
    "Population", "Request", "exact", "exchanged", "mixture_denoised", "rare_mode", "regions",
}  # fmt: skip
HELPERS = ("descent.py", "published.py", "resampling.py")


def named_in_all(tree):
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def is_shown(node):
    """A class or function that a reader can use: no protocol, no error."""
    bases = {ast.unparse(base).split("[")[0] for base in getattr(node, "bases", ())}
    return not bases & {"Protocol", "Exception", "RuntimeError"}


def test_the_public_api_has_examples():
    lacking = []
    for name in PUBLIC:
        if name.endswith(HELPERS):
            continue
        tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
        public = named_in_all(tree) - WITHOUT
        for node in tree.body:
            if getattr(node, "name", "") not in public or not is_shown(node):
                continue
            if ">>> " not in (ast.get_docstring(node) or ""):
                lacking.append(f"{name}: {node.name}")
    assert lacking == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_examples_say_what_happens(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    module = importlib.import_module(".".join(("flowsearch", *parts)).removesuffix(".__init__"))
    said = []
    runner = doctest.DocTestRunner(verbose=False)
    for example in doctest.DocTestFinder(exclude_empty=True).find(module, module.__name__):
        with warnings.catch_warnings():
            runner.run(example, out=said.append)
    assert runner.summarize(verbose=False).attempted > 0
    assert not said, "".join(said)
