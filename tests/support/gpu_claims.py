"""What `bench gpu` claims of bits, in a process that enters the host for itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def claims(folder: Path, *arguments: str) -> dict[str, bool]:
    """Run the benchmark.

    Args:
        folder: For its record.
        *arguments: Of the command line.

    Returns:
        Each claim, and whether it holds.
    """
    record = folder / "record.json"
    paths = [str(ROOT / "benchmarks"), str(ROOT / "scripts"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--json", str(record)]
    done = subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {claim["text"]: claim["holds"] for claim in json.loads(record.read_text())["claims"]}
