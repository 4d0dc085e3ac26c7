"""The Search Report node: a run as a picture, as text, as a number."""

from __future__ import annotations

import csv
import io as text_io
import json

from comfy_api.latest import io
from torch import Tensor

from .host.outcome import Report
from .plot import as_image, draw_report
from .sockets import CATEGORY_SEARCH, FlowReport

__all__ = ["NODES", "SearchReport", "csv_of", "plot_of"]

COLUMNS = (
    "item", "spent", "id", "parent", "chain", "pass_", "phase", "sigma_from", "sigma",
    "evaluations", "rows", "seconds", "score",
)  # fmt: skip


def csv_of(report: Report) -> str:
    """Return one line per candidate.

    Args:
        report: The report.

    Returns:
        CSV with a header.
    """
    out = text_io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in report.trace.record["evaluated"]:
        score = "" if row["scores"] is None else row["scores"]["value"]
        writer.writerow([*(row[key] for key in COLUMNS[:-1]), score])
    return out.getvalue()


def plot_of(report: Report) -> Tensor:
    """Return the report's drawing as an IMAGE.

    Args:
        report: The report.

    Returns:
        Shape (1, H, W, 3), 0 to 1.
    """
    return as_image(draw_report(report))


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
                "schedule they were spent, and of how well early rewards foretold the finished "
                "ones."
            ),
            search_aliases=["plot", "trace", "reward curve", "csv", "json", "search log"],
            inputs=[
                FlowReport.Input("report", tooltip="From RBF Search or Search."),
            ],
            outputs=[
                io.Image.Output(id="plot", tooltip="The plot."),
                io.String.Output(id="json", tooltip="Everything that happened, as JSON."),
                io.String.Output(id="csv", tooltip="One line per candidate."),
                io.Float.Output(id="score", tooltip="Best finished reward of the first item."),
            ],
        )

    @classmethod
    def execute(cls, report: Report) -> io.NodeOutput:
        """Show the report.

        Args:
            report: FLOW_REPORT.

        Returns:
            IMAGE, JSON, CSV, FLOAT.
        """
        text = json.dumps(report.to_json(), indent=1)
        return io.NodeOutput(plot_of(report), text, csv_of(report), report.score)


NODES = [SearchReport]
