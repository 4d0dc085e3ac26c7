"""Import the pack the way the host does: by path, under one name, without its root on sys.path.

With the root on sys.path our package `nodes` would hide the host's nodes.py.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def load_pack(root: Path = ROOT) -> ModuleType:
    """Load the checkout as the package `flowsearch`.

    Args:
        root: The checkout.

    Returns:
        The package; `import flowsearch.samplers...` works from then on.

    Raises:
        ImportError: The folder has no __init__.py.
    """
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != root]
    if "flowsearch" in sys.modules:
        return sys.modules["flowsearch"]
    entry = root / "__init__.py"
    spec = importlib.util.spec_from_file_location(
        "flowsearch", entry, submodule_search_locations=[str(root)]
    )
    if spec is None or spec.loader is None or not entry.is_file():
        raise ImportError(f"{root} is not the pack: it has no __init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["flowsearch"] = module
    spec.loader.exec_module(module)
    return module
