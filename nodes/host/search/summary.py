"""What is said of a search that is over: on its node, in the history, and in the saved picture.

The host's Save Image writes the workflow into its files, and whatever extra_pnginfo holds; so the
summary is put into both: as a text of its own, by node, and as _meta of the node in the workflow.
The second holds also where a client sends no extra_pnginfo, where the search is another node's
SAMPLER, and where the host answers the search from its cache: then nothing of ours runs, and the
summary of the same part of the workflow is put there again before anything does.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....samplers.search.account.trace import value_of
from ..page.running import running_node
from .outcome import Report
from .resume import workflow_part

__all__ = ["captions", "last_words", "put_back", "put_into_pictures", "score_lines", "summary"]

KEY = "flowsearch"
NAMED = 8  # items of a batch that have a line of their own
KEPT = 256  # summaries

WHY = {
    "budget": "the budget is used up",
    "rows": "the limit of network rows is reached",
    "reward_calls": "the limit of reward calls is reached",
    "seconds": "the time is up",
    "target": "the target is reached",
    "done": "the strategy has nothing more to try",
}

_kept: dict[str, dict[str, Any]] = {}


def last_words(report: Report) -> list[str]:
    """Return what the node says when it is done, the most important first.

    Args:
        report: The report.

    Returns:
        Sentences.
    """
    return [*score_lines(report), *_held_out(report), *_origin(report), *_fewer(report),
            *(f"warning: {text}" for text in report.warnings()), *report.notes]  # fmt: skip


def score_lines(report: Report) -> list[str]:
    """Return score, plain score, evaluations, why it stopped and seconds, of each item.

    Args:
        report: The report.

    Returns:
        One line, and for a batch one more for each of the first items.
    """
    rows, most = report.trace.record["stopped"], _budget(report).get("evaluations", 0)
    asked = report.spent("gradient_calls")
    used = f"{report.spent('evaluations')} of {most * len(rows)} evaluations, "
    used += (f"{asked} gradients, " if asked else "") + f"{report.seconds:.3g} s"
    if len(rows) == 1:
        (row,) = rows
        return [f"{_scores(report, row['item'])}; {used}; {WHY.get(row['why'], row['why'])}"]
    lines = [f"{len(rows)} pictures, {used} ({report.reward})"]
    for row in rows[:NAMED]:
        part = f"{row['ledger']['evaluations']} evaluations; {WHY.get(row['why'], row['why'])}"
        lines.append(f"picture {row['item'] + 1}: {_scores(report, row['item'])}; {part}")
    return [*lines, *([f"and {len(rows) - NAMED} more"] if len(rows) > NAMED else [])]


def captions(report: Report) -> list[str]:
    """Return a short text for each picture that comes out.

    Args:
        report: The report.

    Returns:
        Their scores.
    """
    return [f"{score:.4g}" for score in report.scores]


def summary(report: Report) -> dict[str, Any]:
    """Return what goes with the picture, as JSON types.

    Args:
        report: The report.

    Returns:
        The run's settings, and a row for each picture that came out.
    """
    started = report.trace.record["started"]
    budget, settings = _budget(report), started[-1]["settings"] if started else {}
    stopped = {row["item"]: row for row in report.trace.record["stopped"]}
    pictures = [
        {
            "item": item,
            "score": _finite(scores["value"]),
            "plain": _finite(report.plain(item)),
            "evaluations": stopped[item]["ledger"]["evaluations"],
            "reward_calls": stopped[item]["ledger"]["reward_calls"],
            "gradient_calls": stopped[item]["ledger"].get("gradient_calls", 0),
            "seconds": stopped[item]["ledger"]["seconds"],
            "why": stopped[item]["why"],
            "parts": dict(scores["parts"]),
            "held_out": dict(scores["held_out"]),
        }
        for item, scores in report.winners()
    ]
    return {
        "version": version(),
        "reward": report.reward,
        "strategy": settings.get("strategy"),
        "evaluations": budget.get("evaluations"),
        "target": _finite(next((row.get("target") for row in stopped.values()), None)),
        "seed": settings.get("seed"),
        "from_checkpoint": report.before > 0.0,
        "warnings": report.warnings(),
        "pictures": pictures,
    }


def put_into_pictures(found: Mapping[str, Any], info: dict[str, Any] | None = None) -> None:
    """Put a summary where the host's saving nodes write it into their files.

    Args:
        found: See summary().
        info: The running workflow's extra_pnginfo, which is the saving nodes' too; None for none.
    """
    running = running_node()
    if running is None:
        return
    node, prompt = running
    if info is not None:
        info[KEY] = {**_dict(info.get(KEY)), node: dict(found)}
    _put(node, prompt, found)
    part = _part(prompt, node)
    _kept.pop(part, None)
    _kept[part] = dict(found)
    while len(_kept) > KEPT:
        _kept.pop(next(iter(_kept)))


def put_back() -> str:
    """Put the summary of the running workflow's same search there again; for fingerprint_inputs.

    Returns:
        Nothing that changes: whether the node runs is not decided here.
    """
    running = running_node()
    if running is not None:
        node, prompt = running
        found = _kept.get(_part(prompt, node))
        if found is not None:
            _put(node, prompt, found)
    return ""


@functools.cache
def version() -> str:
    """Return the pack's version."""
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^version = "([^"]+)"', text, re.MULTILINE)
    return found[1] if found else "unknown"


def _put(node: str, prompt: dict[str, Any], found: Mapping[str, Any]) -> None:
    if node in prompt:
        prompt[node]["_meta"] = {**_dict(prompt[node].get("_meta")), KEY: dict(found)}


def _dict(value: Any) -> dict[str, Any]:
    """What a client may have sent as something else."""
    return value if isinstance(value, dict) else {}


def _part(prompt: Mapping[str, Any], node: str) -> str:
    """A digest: a workflow may hold whole pictures as text, and many are kept."""
    part = workflow_part(prompt, node)
    own = prompt.get(node, {}).get("inputs", {})  # with its budget, which workflow_part leaves out
    text = json.dumps([node, part, own], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _budget(report: Report) -> dict[str, Any]:
    started = report.trace.record["started"]
    return started[-1]["budget"] if started else {}


def _scores(report: Report, item: int) -> str:
    plain = report.plain(item)
    beside = "" if plain is None else f", plain score {plain:.4g}"
    return f"score {report.best(item):.4g}{beside}"


def _held_out(report: Report) -> list[str]:
    """Of the first item's best picture."""
    found: list[str] = []
    for item, scores in report.winners()[:1]:
        for name in report.trace.held_out():
            value, plain = value_of(scores, name), value_of(report.plain_scores(item), name)
            if value is not None:
                beside = "" if plain is None else f" (plain {plain:.4g})"
                found.append(f"{name} {value:.4g}{beside}")
    return [f"held out, decided nothing: {', '.join(found)}"] if found else []


def _origin(report: Report) -> list[str]:
    if not report.before:
        return []
    if not report.calls:
        return [
            "this comes from the checkpoint of an earlier run of the same search, which took "
            f"{report.before:.3g} s; nothing was computed again"
        ]
    return [f"went on from the checkpoint of an earlier run, which had taken {report.before:.3g} s"]


def _fewer(report: Report) -> list[str]:
    counts = [len(row["winners"]) for row in report.trace.record["stopped"]]
    if min(counts, default=report.top_k) >= report.top_k:
        return []
    found = ", ".join(map(str, counts))
    return [f"top_k asks for {report.top_k} pictures; {found} different ones were finished"]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
