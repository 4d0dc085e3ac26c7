"""The Search Report node: a run as pictures, as text, as a number."""

from __future__ import annotations

import csv
import io as text_io
import json

import torch
from comfy_api.latest import io
from torch import Tensor

from ...samplers.search.account.trace import value_of
from ..host.page.card import card_output
from ..host.page.plot import as_image
from ..host.search.outcome import Report
from ..host.search.summary import summary
from ..sockets import CATEGORY_SEARCH, FlowReport
from .report_plot import draw_report

__all__ = ["NODES", "SearchReport", "csv_of", "family_of"]

COLUMNS = (
    "item", "spent", "id", "parent", "chain", "pass_", "phase", "sigma_from", "sigma",
    "evaluations", "rows", "gradients", "seconds", "score",
)  # fmt: skip


def csv_of(report: Report) -> str:
    """Return one line per candidate; held-out rewards are the last columns.

    Args:
        report: The report.

    Returns:
        CSV with a header.
    """
    out = text_io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = report.trace.held_out()
    writer.writerow([*COLUMNS, *(f"held_out {name}" for name in names)])
    for row in report.trace.record["evaluated"]:
        score = "" if row["scores"] is None else row["scores"]["value"]
        beside = (value_of(row["scores"], name) for name in names)
        cells = ("" if value is None else value for value in beside)
        writer.writerow([*(row.get(key, 0) for key in COLUMNS[:-1]), score, *cells])
    return out.getvalue()


def family_of(report: Report) -> Tensor:
    """Return what the reward saw on the way to each item's best picture.

    Args:
        report: The report.

    Returns:
        Shape (N, h, w, 3), 0 to 1, item after item, the start first; one white picture where
        nothing was kept.
    """
    frames = [frame.picture for frames in report.families.values() for frame in frames]
    if not frames:
        return torch.ones(1, 64, 64, 3)
    size = [int(side) for side in frames[-1].shape[:2]]
    rows = [frame.movedim(-1, 0)[None].float() / 255.0 for frame in frames]
    same = [torch.nn.functional.interpolate(row, size=size, mode="nearest") for row in rows]
    return torch.cat(same).movedim(1, -1)


class SearchReport(io.ComfyNode):
    """What a search did."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node; see the help page."""
        return io.Schema(
            node_id="FlowSearchReport",
            display_name="Search Report",
            category=CATEGORY_SEARCH,
            description=(
                "What a search did: a plot of the reward against evaluations, of where on the "
                "schedule they were spent, of how well early rewards foretold the finished ones, "
                "and of the winner's family. It warns of rewards that mislead."
            ),
            is_output_node=True,
            search_aliases=["plot", "trace", "reward curve", "csv", "json", "search log"],
            inputs=[
                FlowReport.Input("report", tooltip="The report output of a search node."),
            ],
            outputs=[
                io.Image.Output(id="plot", tooltip="The plot."),
                io.String.Output(id="json", tooltip="Everything that happened, as JSON."),
                io.String.Output(id="csv", tooltip="One line per candidate."),
                io.Float.Output(id="score", tooltip="Best finished reward of the first item."),
                io.Image.Output(
                    id="family",
                    tooltip=(
                        "What the reward saw on the way to the best picture, the start first; for "
                        "a batch, item after item."
                    ),
                ),
            ],
        )

    @classmethod
    def execute(cls, report: Report) -> io.NodeOutput:
        """Show the report.

        Args:
            report: FLOW_REPORT.

        Returns:
            IMAGE, JSON, CSV, FLOAT, IMAGE.
        """
        text, drawing = json.dumps(report.to_json(), indent=1), draw_report(report)
        said = card_output(report.sentences(), summary(report), draw_report(report, brief=True))
        out = (as_image(drawing), text, csv_of(report), report.score, family_of(report))
        return io.NodeOutput(*out, ui=said)


NODES = [SearchReport]
