"""What takes longer than a test should: the same tests with more of everything, part by part."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from devtools import say
from devtools.environment import prepare
from devtools.pins import DEFAULT_HOST, HOSTS, host_pin
from devtools.tiers import run_tests
from devtools.upstream import compare

__all__ = ["PARTS", "soak"]

HOSTILE = {"FLOWSEARCH_HOSTILE": "1000"}


@dataclass(frozen=True)
class Part:
    """Tests, and how much of everything they are to do.

    Attributes:
        what: For the heading.
        tests: By tier.
        more: Environment variables.
    """

    what: str
    tests: Mapping[str, Sequence[str]]
    more: Mapping[str, str] = field(default_factory=dict[str, str])


PARTS = {
    "kills": Part(
        "a search that is killed 50 times, every second time in a save",
        {"host": ["tests/host/search/test_crash.py"]},
        {"FLOWSEARCH_KILLS": "50"},
    ),
    "interrupts": Part(
        "a search that is interrupted in every call",
        {"pure": ["tests/unit/samplers/search/test_laws.py"]},
        {"FLOWSEARCH_SOAK": "1"},
    ),
    "workflows": Part(
        "1000 workflows that are wrong",
        {"host": ["tests/host/project/test_invalid_inputs.py"]},
        {"FLOWSEARCH_GRAPHS": "1000"},
    ),
    "searches": Part(
        "500 searches in a queue; memory over 500",
        {"host": ["tests/host/project/test_queueing.py"]},
        {"FLOWSEARCH_SEARCHES": "500"},
    ),
    "hostile": Part(
        "1000 of each: answers of judges, ONNX files, checkpoints, foreign rewards",
        {
            "rewards": [
                "tests/rewards/judge/test_judge.py",
                "tests/rewards/detection/test_onnx_session.py",
            ],
            "host": [
                "tests/host/search/test_checkpoint.py",
                "tests/host/rewards/test_foreign.py",
            ],
        },
        HOSTILE,
    ),
    "pairs": Part(
        "every pair of mechanisms of other packs",
        {"host": ["tests/host/graphs/test_pack_pairs.py"]},
        {"FLOWSEARCH_PAIRS": "all"},
    ),
    **{f"host {version}": Part(f"ComfyUI {version}", {"host": []}) for version in HOSTS},
    "upstream": Part("the host's own tests, without the pack and with it", {}),
}


def soak(names: Sequence[str], rest: Sequence[str]) -> int:
    """Run parts one after another.

    Args:
        names: Of PARTS; none for all.
        rest: More arguments for pytest.

    Returns:
        0 when all passed.
    """
    worst = 0
    for name in names or PARTS:
        part = PARTS[name]
        say(f"### {part.what} ###")
        version = name.removeprefix("host ") if name.startswith("host ") else DEFAULT_HOST
        place, before = prepare(host_pin(version)), dict(os.environ)
        os.environ.update(part.more)
        try:
            for tier, tests in part.tests.items():
                worst = max(worst, run_tests(place, [tier], [*tests, *rest]))
            worst = max(worst, 0 if part.tests else compare(place))
        finally:
            os.environ.clear()
            os.environ.update(before)
    return worst
