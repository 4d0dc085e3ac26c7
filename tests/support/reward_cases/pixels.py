"""Rewards on pixels and by other programs: statistics, reading, judging."""

import pytest
from judge_server import shared

from flowsearch.rewards.judge.client import JudgeClient
from flowsearch.rewards.judge.config import Endpoint
from flowsearch.rewards.judge.judge import Judge
from flowsearch.rewards.pixels.image_statistic import ImageStatistic, parse_palette
from flowsearch.rewards.pixels.layout import Layout, drawn, parse_boxes
from flowsearch.rewards.reading.text_in_image import TextInImage, lacking


def text_in_image():
    if missing := lacking():
        pytest.skip(missing)
    return TextInImage("OPEN")


def judge():
    client = JudgeClient(Endpoint("local", shared().url, "model", format="png"))
    return Judge(client, "noise")


def layout(boxes, colour=0.5):
    return Layout(*drawn(parse_boxes(boxes), 64), colour=colour)


CASES = {
    "text_in_image": text_in_image,
    "image_statistic": lambda: ImageStatistic("sharpness"),
    "image_statistic:brightness": lambda: ImageStatistic("brightness", "lower"),
    "image_statistic:contrast": lambda: ImageStatistic("contrast", "target", 0.2),
    "image_statistic:colourfulness": lambda: ImageStatistic("colourfulness"),
    "image_statistic:compressibility": lambda: ImageStatistic("compressibility"),
    "image_statistic:palette": lambda: ImageStatistic(
        "palette", palette=parse_palette("#1d3557 #e63946")
    ),
    "layout": lambda: layout("background white\nred 0.1 0.2 0.4 0.5"),
    "layout:part": lambda: layout("blue 0.1 0.2 0.37 0.5", 0.9),
    "judge": judge,
}
OTHER = {
    "layout": lambda: layout("background white\nred 0.6 0.2 0.9 0.5"),
    "layout:part": lambda: layout("blue 0.3 0.2 0.37 0.5", 0.9),
}
