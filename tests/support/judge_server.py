"""A real HTTP server on this machine that speaks the judges' protocol, well or badly."""

import base64
import contextlib
import functools
import hashlib
import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image

KEY = "sk-secret-123"


def answer(text, usage=(100, 20), **message):
    """A well-formed answer with these words."""
    body = {
        "choices": [
            {
                "message": {"role": "assistant", "content": text, **message},
                "finish_reason": "stop",
            }
        ]
    }
    if usage:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return 200, {}, json.dumps(body).encode()


def said(score, reason="fine", **settings):
    """An answer with a verdict."""
    return answer(json.dumps({"reason": reason, "score": score}), **settings)


def picture_of(request):
    """The picture of a request, as pixels."""
    url = request["messages"][0]["content"][1]["image_url"]["url"]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))))


def by_hash(request, headers):
    """A score that depends on the picture alone."""
    digest = hashlib.sha256(picture_of(request).tobytes()).digest()
    return said(digest[0] % 11, "by hash")


class Server:
    """Answers by a function (request, headers) -> (status, headers, bytes or an iterable of them).

    Attributes:
        seen: (time, request, headers) of every request.
        most: Most requests that were open at once.
    """

    def __init__(self, reply, context=None):
        self.reply, self.seen, self.most, self._open = reply, [], 0, 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                outer.handle(self)

            def log_message(self, *_):
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                """A client that leaves is no fault of ours."""

        self.http = Quiet(("127.0.0.1", 0), Handler)
        if context:
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def handle(self, handler):
        request = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.seen.append((time.monotonic(), request, dict(handler.headers), handler.path))
            self._open += 1
            self.most = max(self.most, self._open)
        try:
            status, headers, body = self.reply(request, dict(handler.headers))
            pieces = [body] if isinstance(body, bytes) else body
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name, value)
            if isinstance(body, bytes):
                handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            with contextlib.suppress(OSError):  # the client may have left
                for piece in pieces:
                    handler.wfile.write(piece)
        finally:
            with self._lock:
                self._open -= 1

    @property
    def count(self):
        return len(self.seen)

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@contextlib.contextmanager
def serving(reply, context=None):
    """A server for the length of a with block; with TLS where a context is given."""
    server = Server(reply, context)
    try:
        yield server
    finally:
        server.close()


def in_turn(*replies):
    """One reply after another, the last again and again."""
    rest = list(replies)
    return lambda request, headers: rest.pop(0) if len(rest) > 1 else rest[0]


@functools.cache
def shared():
    """A server for the whole session that scores by the picture's hash; ends with the process."""
    return Server(by_hash)
