"""Judge: the client against a real HTTP server that answers well and badly, and the reward."""

import asyncio
import gzip
import itertools
import json
import logging
import shutil
import ssl
import subprocess
import threading
import time

import hostile
import numpy as np
import pytest
import torch
from judge_server import KEY, answer, by_hash, in_turn, picture_of, said, serving

from flowsearch.rewards.judge.answer import Spent
from flowsearch.rewards.judge.client import JudgeClient, JudgeError
from flowsearch.rewards.judge.config import EXAMPLE, Endpoint, read_endpoints
from flowsearch.rewards.judge.judge import INSTRUCTION, Judge, Verdict, parse_verdict


def pictures(count=1, size=16):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(count, size, size, 3, generator=generator)


def refused(status, text="no", **headers):
    return status, headers, json.dumps({"error": {"message": text}}).encode()


class Sleeps:
    """Remembers pauses instead of taking them."""

    def __init__(self):
        self.taken = []

    async def __call__(self, seconds):
        self.taken.append(seconds)


def judged(server, images=None, prompt="a cat", sleep=None, **settings):
    """A reward of this server and what it says of some pictures."""
    endpoint = Endpoint("local", server.url, "qwen", **settings)
    reward = Judge(JudgeClient(endpoint, sleep=sleep or Sleeps()), prompt)
    return reward.assess(pictures() if images is None else images)


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("FLOWSEARCH_TEST_KEY", KEY)
    return "FLOWSEARCH_TEST_KEY"


def test_a_good_answer_becomes_a_score_with_words_tokens_and_price():
    with serving(in_turn(said(7.5, "a good cat"))) as server:
        found = judged(server, price_input=2.0, price_output=10.0)
    assert found.values.tolist() == [7.5]
    assert found.parts == [{"tokens": 120.0, "cost": pytest.approx(400e-6)}]
    assert found.notes == ["7.5: a good cat (120 tokens, cost 0.000400)"]


def test_the_question_holds_model_prompt_schema_and_the_very_picture(key):
    images = pictures()
    with serving(in_turn(said(1))) as server:
        settings = {"format": "png", "key_env": key, "options": {"temperature": 0.5, "top_p": 1}}
        judged(server, images, "a {cat}", **settings)
    _, request, headers, path = server.seen[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    text = request["messages"][0]["content"][0]["text"]
    assert text == INSTRUCTION.replace("{prompt}", "a {cat}")
    assert "a {cat}" in text
    assert np.array_equal(picture_of(request), (images[0] * 255).round().byte().numpy())
    form = request["response_format"]
    assert (form["type"], form["json_schema"]["strict"]) == ("json_schema", True)
    assert (request["model"], request["max_tokens"]) == ("qwen", 500)
    assert (request["temperature"], request["top_p"]) == (0.5, 1)


def test_pictures_are_made_smaller_and_no_key_is_sent_where_none_is_named():
    with serving(in_turn(said(1))) as server:
        judged(server, pictures(size=100), size=40)
    assert picture_of(server.seen[0][1]).shape == (40, 40, 3)
    assert "Authorization" not in server.seen[0][2]


def test_each_picture_gets_its_own_score_in_parallel():
    together = threading.Barrier(3, timeout=20)

    def reply(request, headers):
        together.wait()
        return by_hash(request, headers)

    images = pictures(6)
    with serving(reply) as server:
        found = judged(server, images, parallel=3, format="png").values
        assert server.most == 3
    with serving(by_hash) as server:
        single = [judged(server, image[None], format="png").values.item() for image in images]
        assert server.most == 1
    assert found.tolist() == single
    assert len(set(single)) > 1


def test_a_picture_is_paid_once():
    images = pictures(2)
    with serving(by_hash) as server:
        reward = Judge(JudgeClient(Endpoint("local", server.url, "m", price_input=1.0)), "cat")
        twice = reward.assess(torch.cat([images, images[:1]]))
        again = reward.assess(images.flip(0))
        assert server.count == 2
        assert reward.client.spent.questions == 2
    assert [part["tokens"] for part in twice.parts] == [120.0, 120.0, 0.0]
    assert [part["cost"] for part in again.parts] == [0.0, 0.0]
    assert again.notes[0].endswith("(asked before)")
    assert again.values.tolist() == twice.values[:2].flip(0).tolist()


def test_no_pictures_and_no_key_send_nothing(monkeypatch):
    monkeypatch.delenv("FLOWSEARCH_TEST_KEY", raising=False)
    with serving(in_turn(said(1))) as server:
        judged(server, pictures()[:0])
        with pytest.raises(ValueError, match="FLOWSEARCH_TEST_KEY, which is not set"):
            judged(server, key_env="FLOWSEARCH_TEST_KEY")
        monkeypatch.setenv("FLOWSEARCH_TEST_KEY", f"{KEY}\nX-Other: 1")
        with pytest.raises(ValueError, match="characters that no key has") as error:
            judged(server, key_env="FLOWSEARCH_TEST_KEY")
        assert KEY not in str(error.value)
        assert server.count == 0


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
def test_what_may_pass_is_tried_again_with_growing_pauses(status):
    sleeps = Sleeps()
    with serving(in_turn(refused(status), refused(status), said(4))) as server:
        assert judged(server, sleep=sleeps).values.item() == 4.0
        assert server.count == 3
    assert sleeps.taken == [1.0, 2.0]


def test_the_servers_own_pause_is_kept_and_a_long_one_is_an_error():
    sleeps = Sleeps()
    late = refused(429, **{"Retry-After": "7.5"})
    with serving(in_turn(late, said(4))) as server:
        judged(server, sleep=sleeps)
    assert sleeps.taken == [7.5]
    with (
        serving(in_turn(refused(429, "quota of the day", **{"Retry-After": "9000"}))) as server,
        pytest.raises(JudgeError, match="quota of the day"),
    ):
        judged(server)
    with serving(in_turn(refused(429, **{"Retry-After": "Mon, 1 Jan 2035"}), said(4))) as server:
        judged(server, sleep=sleeps)
    assert sleeps.taken == [7.5, 1.0]


def test_tries_end():
    sleeps = Sleeps()
    with (
        serving(in_turn(refused(500, "broken"))) as server,
        pytest.raises(JudgeError, match=r"'local' at http://.*failed 3 times.*500.*broken"),
    ):
        judged(server, retries=2, sleep=sleeps)
    assert server.count == 3
    assert sleeps.taken == [1.0, 2.0]


BAD = {
    "not JSON": (answer("I would say seven out of ten."), "no JSON object with a score"),
    "no score": (answer('{"reason": "good"}'), "no JSON object with a score"),
    "text": (answer('{"score": "7"}'), "not a number"),
    "true": (answer('{"score": true}'), "not a number"),
    "NaN": (answer('{"score": NaN}'), "no JSON object"),
    "too high": (said(11), "outside 0 to 10"),
    "too low": (said(-0.5), "outside 0 to 10"),
    "huge": (answer('{"score": 1e999}'), "outside 0 to 10"),
    "refusal": (answer(None, refusal="I cannot look at people"), "refused: 'I cannot look"),
    "empty": (answer(None), "holds no text"),
    "no choices": ((200, {}, b'{"choices": []}'), "no choices"),
    "a list": ((200, {}, b"[1, 2]"), "no choices"),
    "a page": ((200, {}, b"<html>Welcome</html>"), "is not JSON: '<html>"),
    "deep": ((200, {}, b"[" * 200_000), "is not JSON"),
    "deep words": (answer("[" * 20_000 + '{"a":' * 5000), "more than 200 braces"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_answer_is_tried_again_and_then_an_error_never_a_score(name):
    reply, message = BAD[name]
    with serving(in_turn(reply, said(3))) as server:
        assert judged(server).values.item() == 3.0
        assert server.count == 2
    with serving(in_turn(reply)) as server, pytest.raises(JudgeError, match=message):
        judged(server, retries=1)


def test_a_cut_answer_says_what_to_raise():
    status, headers, body = said(3)
    cut = (status, headers, body.replace(b'"stop"', b'"length"'))
    with serving(in_turn(cut)) as server, pytest.raises(JudgeError, match="raise max_tokens"):
        judged(server, retries=0)


def test_failed_tries_are_paid_too():
    with serving(in_turn(said(11), said(3))) as server:
        assert judged(server).parts[0] == {"tokens": 240.0}
    with serving(in_turn(said(11), said(3, usage=None))) as server:
        assert judged(server).parts[0] == {}, "an unknown count is not a count"


def test_a_server_without_structured_answers_is_asked_without():
    def reply(request, headers):
        if "response_format" in request:
            return refused(400, "response_format is not supported")
        return answer('Here it is:\n```json\n{"reason": "ok", "score": 6}\n```')

    with serving(reply) as server:
        found = judged(server, pictures(2), parallel=1, retries=0)
        assert server.count == 3, "it was not remembered"
    assert found.values.tolist() == [6.0, 6.0]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, r"refused the question \(status 400\): .*no"),
        (401, r"refused the key \(status 401; environment variable: FLOWSEARCH_TEST_KEY"),
        (403, r"refused the key"),
        (404, r"no such address or model .*'qwen'"),
        (413, r"status 413"),
    ],
)
def test_what_does_not_pass_is_an_error_at_once(status, message, key):
    with serving(in_turn(refused(status))) as server, pytest.raises(JudgeError, match=message):
        judged(server, key_env=key)
    assert server.count == (2 if status == 400 else 1)


def test_a_redirect_is_not_followed(key):
    with serving(in_turn(said(1))) as other:
        there = {"Location": f"{other.url}/chat/completions"}
        for status in (301, 302, 307, 308):
            with (
                serving(in_turn((status, there, b""))) as server,
                pytest.raises(JudgeError, match="sends elsewhere"),
            ):
                judged(server, key_env=key)
        assert other.count == 0


def test_the_key_is_nowhere_but_in_its_header(key, caplog):
    caplog.set_level(logging.DEBUG)
    echo = f"your key {KEY} is wrong"
    replies = [refused(s, echo) for s in (401, 404, 418, 500)]
    replies += [answer(echo), (200, {}, echo.encode()), (302, {"Location": f"http://x/{KEY}"}, b"")]
    for reply in replies:
        with serving(in_turn(reply)) as server:
            reward = Judge(JudgeClient(Endpoint("l", server.url, "m", key, retries=1)), "p")
            reward.client._sleep = Sleeps()
            with pytest.raises(JudgeError) as error:
                reward.score(pictures())
            assert KEY in server.seen[0][2]["Authorization"]
        assert KEY not in str(error.value)
        assert error.value.__cause__ is None
        assert KEY not in repr(reward.client.endpoint) + repr(vars(reward.client)) + repr(reward)
    assert KEY not in caplog.text


def test_slow_and_endless_answers_are_ended():
    def slow(request, headers):
        time.sleep(2.0)
        return said(1)

    def dripping(request, headers):
        return (
            200,
            {},
            (b" " for _ in itertools.takewhile(lambda _: not time.sleep(0.05), range(99))),
        )

    def endless(request, headers):
        return 200, {}, (b" " * 65536 for _ in range(10_000))

    for reply in (slow, dripping):
        start = time.monotonic()
        with serving(reply) as server:
            with pytest.raises(JudgeError, match=r"no answer within 0\.3 seconds"):
                judged(server, timeout=0.3, retries=0)
            assert time.monotonic() - start < 1.9
    with serving(endless) as server, pytest.raises(JudgeError, match="more than 1000000 bytes"):
        judged(server)


def test_a_compressed_answer_is_refused():
    packed = gzip.compress(b" " * 10_000_000)
    reply = (200, {"Content-Encoding": "gzip"}, packed)
    with serving(in_turn(reply)) as server, pytest.raises(JudgeError, match="compressed"):
        judged(server)


def test_nobody_there_is_said():
    with serving(in_turn(said(1))) as server:
        url = server.url
    endpoint = Endpoint("gone", url, "m", retries=1)
    with pytest.raises(JudgeError, match=r"'gone' at .* failed 2 times.*Connect"):
        JudgeClient(endpoint, sleep=Sleeps())("q", [np.zeros((4, 4, 3), np.uint8)], print)


def test_the_rate_is_kept_across_calls():
    with serving(by_hash) as server:
        client = JudgeClient(Endpoint("l", server.url, "m", per_minute=300.0, parallel=8))
        Judge(client, "a").score(pictures(2))
        Judge(client, "b").score(pictures(2))
    times = [seen[0] for seen in server.seen]
    assert len(times) == 4
    assert all(b - a > 0.1 for a, b in itertools.pairwise(times)), "0.2 s apart, less jitter"
    assert times[-1] - times[0] > 0.55


class Cancelled(BaseException):
    """As the host's."""


def cancelling(after):
    start = time.monotonic()

    def checkpoint():
        if time.monotonic() - start > after:
            raise Cancelled

    return checkpoint


def test_a_cancel_ends_an_open_request_and_a_pause():
    def slow(request, headers):
        time.sleep(3.0)
        return said(1)

    for reply, settings in ((slow, {}), (in_turn(refused(500)), {})):
        with serving(reply) as server:
            client = JudgeClient(Endpoint("l", server.url, "m", **settings), cancelling(0.3))
            start = time.monotonic()
            with pytest.raises(Cancelled):
                Judge(client, "p").score(pictures(3))
            assert time.monotonic() - start < 1.5
            count = server.count
            time.sleep(1.2)  # longer than the first pause
            assert server.count == count, "it went on"
            names = [thread.name for thread in threading.enumerate()]
            assert not any(name.startswith("flowsearch-judge") for name in names)


def test_what_was_answered_before_a_failure_is_kept():
    images = pictures(3)
    bad = (images[2] * 255).round().byte().numpy()
    broken = [True]

    def reply(request, headers):
        if broken[0] and np.array_equal(picture_of(request), bad):
            return refused(404)
        return by_hash(request, headers)

    with serving(reply) as server:
        endpoint = Endpoint("l", server.url, "m", parallel=1, format="png")
        reward = Judge(JudgeClient(endpoint), "p")
        with pytest.raises(JudgeError):
            reward.score(images)
        asked = server.count
        broken[0] = False
        reward.score(images)
        assert (asked, server.count) == (3, 4)


def test_it_works_where_a_loop_runs_already():
    async def inside():
        with serving(in_turn(said(2))) as server:
            return judged(server).values.item()

    assert asyncio.run(inside()) == 2.0


def test_what_was_spent_is_logged(caplog):
    caplog.set_level(logging.INFO, "flowsearch")
    with serving(by_hash) as server:
        judged(server, pictures(3), price_input=1.0, price_output=1.0)
    assert "judge 'local': 3 answers, 360 tokens, cost 0.000360 (since start: 3" in caplog.text


def test_a_cost_that_a_server_does_not_tell_is_named_once(caplog):
    with serving(in_turn(said(3, usage=None))) as server:
        endpoint = Endpoint("local", server.url, "m", price_input=1.0)
        client = JudgeClient(endpoint)
        for seed in range(2):
            picture = torch.full((1, 8, 8, 3), 0.5 * seed)
            Judge(client, "p").score(picture)
    told = [record for record in caplog.records if "cost is not known" in record.getMessage()]
    assert len(told) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"reason": "a", "score": 7}', (7.0, "a")),
        ('{"score": 0}', (0.0, "")),
        ('<think>{"score": 2}?</think> {"score": 10.0, "reason": "b"}', (10.0, "b")),
        ('{"score": 2}? no, so</think> {"score": 10.0}', None),
        ('Hm, {"score": 2}? no</think> {"score": 10.0, "reason": "b"}', (10.0, "b")),
        ('<think>{"score": 2}', None),
        ('{"reason": "it says </think>", "score": 3}', (3.0, "it says </think>")),
        ('```json\n{"reason": "</think>", "score": 3}\n```', (3.0, "</think>")),
        ('{"result": {"score": 3}} text', None),
        ('{not json} {"score": 4, "reason": "{x}"}', (4.0, "{x}")),
        ("", None),
        ('{"score": 5' + " " * 60_000 + "}", None),
        ('The picture says {"score": 10}. {"score": 2, "reason": "a"}', None),
        ('{"score": 2, "reason": "a"} The picture says {"score": 10}', None),
        ('{"score": 2, "reason": "a", "score": 10}', None),
        ('{"score": 2, "score": 3, "quoted": {"score": 10}}', None),
        ("{" * 300 + '{"score": 10}', None),
        ('{"score": 2} ' + "{" * 300 + '{"score": 10}', None),
    ],
)
def test_answers_are_read_as_json_only(text, expected):
    if expected is None:
        with pytest.raises(ValueError, match="the answer"):
            parse_verdict(text)
    else:
        assert parse_verdict(text) == expected


def test_any_client_serves():
    def client(instruction, pictures, receive):
        for i, picture in enumerate(pictures):
            receive(i, Verdict(float(picture.mean() > 127) * 10.0))

    images = torch.stack([torch.zeros(4, 4, 3), torch.ones(4, 4, 3)])
    found = Judge(client, "white").assess(images)
    assert found.values.tolist() == [0.0, 10.0]
    assert found.notes == ["0: ", "10: "]
    with pytest.raises(ValueError, match="instruction is empty"):
        Judge(client, "white", " ")


FULL = """
# mine
ollama:
  url: http://127.0.0.1:11434/v1/
  model: "qwen2.5vl:7b"
cloud:
  url: https://api.example.com/v1?version=2
  model: big
  key_env: MY_KEY
  timeout: 20
  retries: 5
  per_minute: 30
  parallel: 2
  price_input: 0.15
  price_output: 0.6
  max_tokens: 0
  size: 512
  format: png
  options: {max_completion_tokens: 900}
"""


def test_the_users_file_is_read():
    assert list(read_endpoints(EXAMPLE)) == ["ollama"]
    assert read_endpoints("# nothing yet\n") == {}
    found = read_endpoints(FULL)
    assert list(found) == ["ollama", "cloud"]
    assert found["ollama"].address == "http://127.0.0.1:11434/v1/chat/completions"
    cloud = found["cloud"]
    assert cloud.address == "https://api.example.com/v1/chat/completions?version=2"
    assert cloud.place == "https://api.example.com/v1/chat/completions"
    assert (cloud.timeout, cloud.retries, cloud.per_minute, cloud.parallel) == (20, 5, 30, 2)
    assert cloud.options == {"max_completion_tokens": 900}
    assert hash(cloud) == hash(read_endpoints(FULL)["cloud"])
    assert cloud == read_endpoints(FULL)["cloud"] != found["ollama"]


def one(**fields):
    base = {"url": "http://127.0.0.1/v1", "model": "m"}
    return json.dumps({"mine": {k: v for k, v in {**base, **fields}.items() if v is not None}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", r"not YAML \(line"),
        ("- a", "not a table"),
        ("mine: 3", "'mine' lacks model and url"),
        (one(model=None), "lacks model"),
        (one(model=" "), "model's name"),
        (one(api_key="x"), r"'api_key', which is unknown; .*\. Keys belong"),
        (one(modell="x"), "'modell', which is unknown"),
        (one(url="ftp://host/v1"), "must begin with http"),
        (one(url="file:///etc/passwd"), "must begin with http"),
        (one(url="http://"), "must begin with http"),
        (one(url="https://me:secret@host/v1"), "user name or password"),
        (one(url=3), "url of the judge 'mine' is 3"),
        (one(timeout=0), "timeout .* from 0.001 to 3600"),
        (one(retries=1.5), "retries .* whole number"),
        (one(retries=True), "retries"),
        (one(parallel=0), "parallel"),
        (one(per_minute=-1), "per_minute"),
        (one(calls_per_day=-1), "calls_per_day .* 0 to"),
        (one(cost_per_day="much"), "cost_per_day .* a number"),
        (one(cost_per_day=2), "cost_per_day of 2 and no prices, so .* nothing would be limited"),
        (one(format="gif"), "jpeg or png"),
        (one(key_env="sk-secret-123"), "never the key"),
        (one(options=[1]), "options"),
        ("mine: !!python/object/apply:os.system ['true']", "not YAML"),
    ],
)
def test_a_wrong_file_is_explained(text, message):
    with pytest.raises(ValueError, match=message) as error:
        read_endpoints(text)
    assert KEY not in str(error.value)
    assert "secret@" not in str(error.value)


@pytest.mark.skipif(not shutil.which("openssl"), reason="there is no openssl to make a certificate")
def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path, key):
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    made += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    paths = [str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")]
    subprocess.run([*made, "-keyout", paths[0], "-out", paths[1]], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(paths[1], paths[0])
    with serving(in_turn(said(1)), context) as server:
        assert server.url.startswith("https://")
        with pytest.raises(JudgeError, match=r"certificate of the judge 'local' .* is not valid"):
            judged(server, key_env=key)
        assert server.count == 0


@pytest.mark.parametrize("usage", [10**400, 10**12, -1, 1.5, "7", None, [3]])
def test_a_count_of_tokens_that_is_none_is_not_counted(usage):
    spent = Spent()
    spent.add({"prompt_tokens": usage, "completion_tokens": 3})
    assert (spent.questions, spent.tokens()) == (1, None)
    assert "tokens not told" in spent.told(
        Endpoint("judge", "http://localhost", "m", price_input=1.0)
    )


def test_answers_spoilt_at_random_are_a_score_or_a_sentence():
    whole = b'<think>Hm.</think> {"reason": "two of three", "score": 7.5}'
    answers = [*hostile.texts(10 * hostile.COUNT)]
    answers += [
        each.decode("utf-8", "replace") for each in hostile.spoilt(whole, 10 * hostile.COUNT)
    ]
    read, sentences = 0, []
    for text in answers:
        try:
            score, reason = parse_verdict(text)
        except ValueError as refused:
            sentences.append(str(refused))
        else:
            read += 1
            assert 0.0 <= score <= 10.0
            assert isinstance(reason, str)
    assert 0 < read < len(answers)
    assert max(map(len, sentences)) < 500
