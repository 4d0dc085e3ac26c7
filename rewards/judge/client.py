"""The client of an OpenAI-compatible server. All network code of the pack is in this file.

    POST <url>/chat/completions   model, one message (instruction, picture as a data URL),
                                  response_format json_schema

A server that refuses response_format (400 or 422) is asked without it from then on; the
instruction asks for JSON anyway. What may pass (no connection, time-out, 408, 409, 429, 5xx, an
answer that cannot be read) is tried again, after 1, 2, 4, ... seconds or what Retry-After says;
anything else is an error at once. Nothing is followed to another address, answers are bounded in
size and time, TLS is verified, and the key goes into one header and nowhere else: not into
messages, not into logs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import aiohttp
import numpy as np
from numpy.typing import NDArray

from .answer import Spent, content_of, data_url
from .config import Endpoint
from .judge import SCHEMA, Verdict, parse_verdict
from .spending import Spending

__all__ = ["JudgeClient", "JudgeError"]

LOG = logging.getLogger("flowsearch")
LARGEST = 1_000_000
LONGEST_WAIT = 120.0
POLL = 0.05
AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}


class JudgeError(RuntimeError):
    """A judge did not answer, or not as it should; the message says which, why and what to do."""


class _Passing(Exception):
    """A failure that may pass, and the seconds that the server asked for, if it did."""

    def __init__(self, why: str, pause: float | None = None) -> None:
        super().__init__(why)
        self.pause = pause


class _NoSchema(Exception):
    """The server refused the request, perhaps for its response_format."""


class JudgeClient:
    """Asks one judge. Its rate holds for all who share the client.

    Attributes:
        endpoint: The judge.
        spent: Since the client was made.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        checkpoint: Callable[[], object] = lambda: None,
        sleep: Callable[[float], Coroutine[Any, Any, object]] = asyncio.sleep,
        spending: Spending | None = None,
    ) -> None:
        """Make it; nothing is sent.

        Args:
            endpoint: The judge.
            checkpoint: Called many times a second while answers are awaited; it may raise, which
                drops all open requests.
            sleep: Waits so many seconds.
            spending: Where the day's calls and cost are counted; None for nowhere, without a
                ceiling.
        """
        self.endpoint = endpoint
        self.spent = Spent()
        self._checkpoint, self._sleep, self._spending = checkpoint, sleep, spending
        self._schema = True
        self._warned = False
        self._lock = threading.Lock()
        self._next = 0.0

    def __call__(
        self,
        instruction: str,
        pictures: Sequence[NDArray[np.uint8]],
        receive: Callable[[int, Verdict], None],
    ) -> None:
        """See rewards.judge.Client.

        Args:
            instruction: The question.
            pictures: Each (H, W, 3).
            receive: Called with each verdict.

        Raises:
            JudgeError: A question failed for good; those that were answered have been handed over.
            ValueError: The key is not there.
        """
        if not pictures:
            return
        key = self.endpoint.key()
        urls = [data_url(p, self.endpoint.size, self.endpoint.format) for p in pictures]
        spent = Spent()
        try:
            _run(lambda: self._all(key, instruction, urls, receive, spent), self._checkpoint)
        finally:
            with self._lock:
                self.spent.merge(spent)
            if spent.questions:
                here, all_ = spent.told(self.endpoint), self.spent.told(self.endpoint)
                LOG.info("judge '%s': %s (since start: %s)", self.endpoint.name, here, all_)
                self._warn_of_unknown_cost(spent)

    def _warn_of_unknown_cost(self, spent: Spent) -> None:
        """Say once that a ceiling of cost cannot hold, for the server counts no tokens."""
        priced = self.endpoint.price_input or self.endpoint.price_output
        if self._warned or not priced or spent.tokens() is not None:
            return
        self._warned = True
        LOG.warning(
            "judge '%s' does not say how many tokens its answers took, so their cost is not known "
            "and cost_per_day does not hold; calls_per_day does",
            self.endpoint.name,
        )

    async def _all(
        self,
        key: str,
        instruction: str,
        urls: Sequence[str],
        receive: Callable[[int, Verdict], None],
        spent: Spent,
    ) -> None:
        """Ask all questions, `parallel` at once; the first that fails for good ends the others."""
        free = asyncio.Semaphore(self.endpoint.parallel)
        async with self._session(key) as session:

            async def one(number: int) -> None:
                async with free:
                    own, url = Spent(), urls[number]
                    try:
                        score, reason = await self._answer(session, key, instruction, url, own)
                    finally:
                        spent.merge(own)
                    receive(number, Verdict(score, reason, own.tokens(), own.cost(self.endpoint)))

            tasks = [asyncio.ensure_future(one(i)) for i in range(len(urls))]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _session(self, key: str) -> aiohttp.ClientSession:
        """A session that takes nothing from the surroundings: no cookies, netrc or proxies."""
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        return aiohttp.ClientSession(
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=self.endpoint.timeout),
            auto_decompress=False,
            trust_env=False,
        )

    async def _answer(
        self, session: aiohttp.ClientSession, key: str, instruction: str, url: str, spent: Spent
    ) -> tuple[float, str]:
        """Ask one question until it is answered, or the tries are used up."""
        failures: list[str] = []
        while True:
            await self._slot()
            schema = self._schema
            try:
                return await self._ask(session, key, instruction, url, schema, spent)
            except _NoSchema:
                self._schema = False  # not a failed try: the same question, asked more simply
                continue
            except _Passing as failure:
                failures.append(str(failure))
                pause = 2.0 ** (len(failures) - 1) if failure.pause is None else failure.pause
            if len(failures) > self.endpoint.retries or pause > LONGEST_WAIT:
                raise JudgeError(
                    f"the judge '{self.endpoint.name}' at {self.endpoint.place} failed "
                    f"{len(failures)} times, the last time: {failures[-1]}. Look at the server, or "
                    "raise timeout or retries in judges.yaml."
                )
            await self._sleep(min(pause, LONGEST_WAIT))

    async def _slot(self) -> None:
        """Wait for this request's turn under the rate."""
        if not self.endpoint.per_minute:
            return
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + 60.0 / self.endpoint.per_minute
        if turn > now:
            await self._sleep(turn - now)

    def _body(self, instruction: str, url: str, schema: bool) -> dict[str, Any]:
        """The request."""
        content = [
            {"type": "text", "text": instruction},
            {"type": "image_url", "image_url": {"url": url}},
        ]
        body: dict[str, Any] = {
            "model": self.endpoint.model,
            "messages": [{"role": "user", "content": content}],
        }
        if self.endpoint.max_tokens:
            body["max_tokens"] = self.endpoint.max_tokens
        if schema:
            form = {"name": "verdict", "strict": True, "schema": SCHEMA}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return {**body, **self.endpoint.options}

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        key: str,
        instruction: str,
        url: str,
        schema: bool,
        spent: Spent,
    ) -> tuple[float, str]:
        """Ask once."""
        body = self._body(instruction, url, schema)
        self._count()
        try:
            async with session.post(
                self.endpoint.address, json=body, allow_redirects=False
            ) as response:
                text = await self._text(response)
                status = response.status
                self._check_status(status, response.headers, _shown(text, key), schema)
        except asyncio.TimeoutError:  # another class before Python 3.11
            raise _Passing(f"no answer within {self.endpoint.timeout:g} seconds") from None
        except aiohttp.ClientConnectorCertificateError:
            raise JudgeError(
                f"the certificate of the judge '{self.endpoint.name}' at {self.endpoint.place} is "
                "not valid, so nothing was sent. Use a server with a valid certificate, or http "
                "on your own machine."
            ) from None
        except aiohttp.ClientError as error:
            raise _Passing(_shown(f"{type(error).__name__}: {error}", key)) from None
        own = Spent()
        try:
            return parse_verdict(content_of(text, own))
        except ValueError as error:
            raise _Passing(_shown(str(error), key)) from None
        finally:
            spent.merge(own)
            if self._spending is not None:
                self._spending.paid(self.endpoint, own.cost(self.endpoint))

    def _count(self) -> None:
        """Count a request before it is sent, under the ceilings of the day."""
        if self._spending is None:
            return
        try:
            self._spending.call(self.endpoint)
        except ValueError as reached:
            raise JudgeError(str(reached)) from None

    async def _text(self, response: aiohttp.ClientResponse) -> str:
        """Read an answer, up to a limit."""
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise JudgeError(
                f"the judge '{self.endpoint.name}' sent a compressed answer, which was not asked "
                "for. Name the server itself in judges.yaml, not a proxy that compresses."
            )
        found = bytearray()
        async for piece in response.content.iter_any():
            found += piece
            if len(found) > LARGEST:
                raise JudgeError(
                    f"the judge '{self.endpoint.name}' sent more than {LARGEST} bytes. Lower "
                    "max_tokens in judges.yaml, or look at what answers at that address."
                )
        return found.decode("utf-8", errors="replace")

    def _check_status(
        self, status: int, headers: Mapping[str, str], said: str, schema: bool
    ) -> None:
        """Sort answers by their status."""
        who = f"the judge '{self.endpoint.name}' at {self.endpoint.place}"
        if status == 200:
            return
        if status in AGAIN:
            raise _Passing(f"status {status}: {said}", _seconds(headers.get("Retry-After")))
        if status in (400, 422) and schema:
            raise _NoSchema
        if 300 <= status < 400:
            raise JudgeError(
                f"{who} sends elsewhere (status {status}), which is not followed, because pictures "
                "and key would go there. Write the final address into judges.yaml."
            )
        if status in (401, 403):
            named = self.endpoint.key_env or "none is named in key_env"
            raise JudgeError(
                f"{who} refused the key (status {status}; environment variable: {named}): {said}"
            )
        if status == 404:
            raise JudgeError(
                f"{who} knows no such address or model (status 404). Its url usually ends in /v1; "
                f"the model is '{self.endpoint.model}'. It said: {said}"
            )
        raise JudgeError(f"{who} refused the question (status {status}): {said}")


def _shown(text: str, key: str) -> str:
    """What a server said, for messages: short, one line, without the key."""
    text = text.replace(key, "***") if key else text
    text = " ".join("".join(c if c.isprintable() else " " for c in text[:2000]).split())
    return text if len(text) <= 300 else f"{text[:300]}..."


def _seconds(header: str | None) -> float | None:
    """Retry-After in seconds; dates are not read."""
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return seconds if 0.0 <= seconds < float("inf") else None


def _run(make: Callable[[], Coroutine[Any, Any, None]], checkpoint: Callable[[], object]) -> None:
    """Run a coroutine in a thread of its own, for this one may have a loop already, and look after
    a cancel meanwhile."""
    started: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []
    dropped = threading.Event()

    async def main() -> None:
        task = asyncio.current_task()
        if task is not None:
            started.append((asyncio.get_running_loop(), task))
        if not dropped.is_set():
            await make()

    pool = ThreadPoolExecutor(1, thread_name_prefix="flowsearch-judge")
    work = pool.submit(lambda: asyncio.run(main()))
    try:
        while not work.done():
            checkpoint()
            wait([work], timeout=POLL)
        work.result()
    except BaseException:
        dropped.set()
        for loop, task in started if not work.done() else ():
            with contextlib.suppress(RuntimeError):  # it has just ended
                loop.call_soon_threadsafe(task.cancel)
        raise
    finally:
        pool.shutdown(wait=False)
