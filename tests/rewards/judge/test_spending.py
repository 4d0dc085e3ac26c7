"""What judges are asked in a day has a ceiling, over all runs and servers with one user folder."""

import contextlib
import threading
from dataclasses import replace

import pytest
import torch
from judge_server import by_hash, in_turn, said, serving

from flowsearch.rewards.judge.client import JudgeClient, JudgeError
from flowsearch.rewards.judge.config import Endpoint
from flowsearch.rewards.judge.judge import Judge
from flowsearch.rewards.judge.spending import Spending

BROKEN = (500, {}, b"{}")


async def at_once(seconds):
    """Instead of a pause."""
    del seconds


def pictures(count=1, size=16):
    return torch.rand(count, size, size, 3, generator=torch.Generator().manual_seed(3))


def test_the_days_calls_are_counted_across_clients_and_a_ceiling_ends_them(tmp_path):
    """As two servers with one user folder: each has a client of its own."""
    day = ["2026-01-31"]
    with serving(by_hash) as server:
        endpoint = Endpoint("local", server.url, "m", calls_per_day=3, parallel=1)

        def asked(count, name="local"):
            spending = Spending(tmp_path / "calls", lambda: day[0])
            client = JudgeClient(replace(endpoint, name=name), sleep=at_once, spending=spending)
            return Judge(client, "p").score(torch.rand(count, 8, 8, 3)).shape

        assert asked(2) == (2,)
        with pytest.raises(JudgeError, match=r"'local' was asked 3 times today.*calls_per_day"):
            asked(2)
        assert server.count == 3
        with pytest.raises(JudgeError, match="ceiling of calls"):
            asked(1)
        assert server.count == 3
        asked(1, "another")
        day[0] = "2026-02-01"
        asked(1)
        assert server.count == 5
    assert {file.name[:10] for file in (tmp_path / "calls").iterdir()} == {"2026-02-01"}


def test_requests_that_fail_count_too(tmp_path):
    with serving(in_turn(BROKEN)) as server:
        endpoint = Endpoint("local", server.url, "m", calls_per_day=4, retries=20)
        client = JudgeClient(endpoint, sleep=at_once, spending=Spending(tmp_path))
        with pytest.raises(JudgeError, match="asked 4 times today"):
            Judge(client, "p").score(pictures())
    assert server.count == 4


def test_a_ceiling_of_cost_ends_them_too(tmp_path):
    prices = {"price_input": 1e6, "price_output": 0.0, "cost_per_day": 250.0, "parallel": 1}
    with serving(in_turn(said(11), said(3))) as server:
        endpoint = Endpoint("local", server.url, "m", **prices)
        client = JudgeClient(endpoint, sleep=at_once, spending=Spending(tmp_path))
        with pytest.raises(JudgeError, match=r"has cost 300 today.* ceiling is 250.*cost_per_day"):
            Judge(client, "p").score(pictures(4))
        assert server.count == 3, "an answer that cannot be read costs as much"
    assert Spending(tmp_path).cost(endpoint) == 300.0


def test_what_cannot_be_counted_is_not_asked(tmp_path):
    (tmp_path / "calls").write_text("a file")
    with serving(by_hash) as server:
        spending = Spending(tmp_path / "calls")
        client = JudgeClient(Endpoint("local", server.url, "m"), spending=spending)
        with pytest.raises(JudgeError, match=r"counted in .*calls, which cannot be written"):
            Judge(client, "p").score(pictures())
        assert server.count == 0


def test_the_ceiling_holds_for_servers_that_ask_at_once(tmp_path):
    endpoint = Endpoint("local", "http://127.0.0.1/v1", "m", calls_per_day=50)
    passed = []

    def many():
        own = Spending(tmp_path)
        for _ in range(25):
            with contextlib.suppress(ValueError):
                own.call(endpoint)
                passed.append(1)

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) == 50
