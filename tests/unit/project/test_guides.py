"""What the guides for other packs show is run: their rewards, strategies and tests, as printed."""

import importlib.util
import re
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import pytest

from devtools.pack import ROOT


def blocks(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def run(name, *codes):
    """Import blocks as one module of that name; return what they define."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "printed.py"
        file.write_text("\n".join(codes), encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, file)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return vars(module)


def block(page, needle):
    (found,) = [code for code in blocks(page) if needle in code]
    return found


run("my_pack.redness", block("REWARDS.md", "class RednessNode"))
sys.modules["my_pack"] = ModuleType("my_pack")
TestRedness = run("my_pack.test_redness", block("REWARDS.md", "class TestRedness"))["TestRedness"]

SHOWN = ("class MiddleOut", "class FreshStarts", "class TestMiddleOut")
STRATEGY = run("my_pack.middle_out", *(block("STRATEGIES.md", needle) for needle in SHOWN))
TestMiddleOut = STRATEGY["TestMiddleOut"]


class TestFreshStarts(TestMiddleOut):
    @pytest.fixture
    def strategy(self):
        return STRATEGY["FreshStarts"]()
