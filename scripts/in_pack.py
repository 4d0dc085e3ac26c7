"""Run a module of this checkout with the pack importable as ``flowsearch``.

    python scripts/in_pack.py demo.train --steps 100
    python scripts/in_pack.py benchmarks.count --quick

The host loads a pack from its folder under a name of its own, so the pack is no installable
package; scripts that use it outside the host are started through this one.
"""

import importlib.util
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def load_pack() -> None:
    """Register the checkout as the package ``flowsearch``, as the host and the tests do."""
    spec = importlib.util.spec_from_file_location(
        "flowsearch", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    if spec is None or spec.loader is None:
        raise SystemExit(f"{ROOT / '__init__.py'} is missing: this is no FlowSearch checkout.")
    pack = importlib.util.module_from_spec(spec)
    sys.modules["flowsearch"] = pack
    spec.loader.exec_module(pack)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    load_pack()
    module = f"flowsearch.{sys.argv[1]}"
    sys.argv = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
