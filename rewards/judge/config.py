"""Which judges are there? The user's own file, read; never anything from a workflow.

The file is YAML: a name, then what is behind it. It holds no key, only the name of the environment
variable that does.

    ollama:
      url: http://127.0.0.1:11434/v1
      model: qwen2.5vl:7b
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from importlib import import_module
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

__all__ = ["EXAMPLE", "Endpoint", "read_endpoints"]

EXAMPLE = """\
ollama:
  url: http://127.0.0.1:11434/v1
  model: qwen2.5vl:7b
"""
FORMATS = ("jpeg", "png")


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server and a model on it.

    Args:
        name: As workflows call it.
        url: Where its API begins, such as http://127.0.0.1:11434/v1; /chat/completions is added.
        model: As the server calls it.
        key_env: Name of the environment variable that holds the key; empty for none.
        timeout: Seconds for a whole answer, more than 0, at most 3600.
        retries: Further tries after a failure that may pass, 0 to 20.
        per_minute: Most requests a minute; 0 for no limit.
        parallel: Most requests at once, 1 to 64.
        price_input: Price of a million tokens sent; 0 where it costs nothing.
        price_output: Price of a million tokens received.
        calls_per_day: Most requests a day, over all runs; 0 for no limit.
        cost_per_day: What a day may cost by the prices above, in the same currency; 0 for no
            limit. Without prices it limits nothing. Requests that are open when it is reached may
            pass it.
        max_tokens: Most tokens of an answer; 0 leaves it to the server.
        size: Longer side of the pictures that are sent, pixels, 32 to 8192.
        format: "jpeg" (quality 95) or "png".
        options: Further fields of the request, such as {temperature: 0}.

    Raises:
        ValueError: A field is out of its range or of the wrong type.
    """

    name: str
    url: str
    model: str
    key_env: str = ""
    timeout: float = 60.0
    retries: int = 3
    per_minute: float = 0.0
    parallel: int = 4
    price_input: float = 0.0
    price_output: float = 0.0
    calls_per_day: int = 1000
    cost_per_day: float = 5.0
    max_tokens: int = 500
    size: int = 1024
    format: str = "jpeg"
    options: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0}, hash=False)

    def __post_init__(self) -> None:
        for name in ("url", "model", "key_env", "format"):
            if not isinstance(getattr(self, name), str):
                raise self._wrong(name, "text")
        for name, low, high, kind in (
            ("timeout", 0.001, 3600.0, "seconds"),
            ("retries", 0, 20, "a whole number"),
            ("per_minute", 0.0, 1e6, "a number"),
            ("parallel", 1, 64, "a whole number"),
            ("price_input", 0.0, 1e9, "a number"),
            ("price_output", 0.0, 1e9, "a number"),
            ("calls_per_day", 0, 1_000_000, "a whole number"),
            ("cost_per_day", 0.0, 1e9, "a number"),
            ("max_tokens", 0, 1_000_000, "a whole number"),
            ("size", 32, 8192, "a whole number of pixels"),
        ):
            value: Any = getattr(self, name)
            types = (int,) if "whole" in kind else (int, float)
            if isinstance(value, bool) or not isinstance(value, types) or not low <= value <= high:
                raise self._wrong(name, f"{kind} from {low:g} to {high:g}")
        if not self.model.strip():
            raise self._wrong("model", "the model's name, as the server calls it")
        if self.format not in FORMATS:
            raise self._wrong("format", " or ".join(FORMATS))
        if self.key_env and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key_env):
            # not quoted: what stands there may be the key itself
            raise ValueError(
                f"key_env of the judge '{self.name}' is not a name of an environment variable. "
                "Write the variable's name there, such as OPENAI_API_KEY, never the key."
            )
        if not isinstance(self.options, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise self._wrong("options", "a table of fields of the request")
        self._check_url()

    def _wrong(self, name: str, allowed: str) -> ValueError:
        return ValueError(
            f"{name} of the judge '{self.name}' is {getattr(self, name)!r}; it must be {allowed}"
        )

    def _check_url(self) -> None:
        """Refuse what is no address of a web server, without repeating a password in it."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"url of the judge '{self.name}' must begin with http:// or https:// and name a "
                "host, such as http://127.0.0.1:11434/v1"
            )
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                f"url of the judge '{self.name}' holds a user name or password. Take it out and "
                "name the environment variable that holds the key in key_env."
            )

    @property
    def address(self) -> str:
        """Where a question is sent."""
        parts = urlsplit(self.url)
        path = parts.path.rstrip("/")
        if not path.endswith("/chat/completions"):
            path += "/chat/completions"
        return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))

    @property
    def place(self) -> str:
        """The address for messages, without its query."""
        return self.address.split("?")[0]

    def key(self) -> str:
        """Read the key from the environment.

        Returns:
            The key; empty where none is named.

        Raises:
            ValueError: The variable is not set, or holds what cannot be sent. The key is not shown.
        """
        if not self.key_env:
            return ""
        key = os.environ.get(self.key_env, "").strip()
        if not key:
            raise ValueError(
                f"the judge '{self.name}' needs the environment variable {self.key_env}, which is "
                "not set. Set it to the key before starting ComfyUI."
            )
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError(
                f"the environment variable {self.key_env} of the judge '{self.name}' holds spaces "
                "or characters that no key has. Set it again."
            )
        return key


def read_endpoints(text: str) -> dict[str, Endpoint]:
    """Read the user's file.

    Args:
        text: YAML; a table of judges by name. May be empty.

    Returns:
        Name to judge, in the file's order.

    Raises:
        ValueError: Not such a table, or a field that is unknown, missing or out of its range.
    """
    yaml: Any = import_module("yaml")
    try:
        found: Any = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise ValueError(f"it is not YAML{where}; an example:\n{EXAMPLE}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError(f"it is not a table of judges by name; an example:\n{EXAMPLE}")
    table = cast("dict[Any, Any]", found)
    return {str(name): _endpoint(str(name), row) for name, row in table.items()}


def _endpoint(name: str, row: object) -> Endpoint:
    """One judge of the file."""
    known = {f.name: f.default for f in fields(Endpoint) if f.name != "name"}
    required = {n for n in known if known[n] is MISSING and n != "options"}
    given = cast("dict[str, Any]", row) if isinstance(row, dict) else {}
    for wrong in given.keys() - known.keys():
        hint = " Keys belong into an environment variable named in key_env." * ("key" in str(wrong))
        raise ValueError(
            f"the judge '{name}' has the field '{wrong}', which is unknown; there are "
            f"{', '.join(known)}.{hint}"
        )
    if missing := sorted(required - given.keys()):
        raise ValueError(
            f"the judge '{name}' lacks {' and '.join(missing)}; an example:\n{EXAMPLE}"
        )
    found = Endpoint(name=name, **given)
    if given.get("cost_per_day") and not (found.price_input or found.price_output):
        raise ValueError(
            f"the judge '{name}' has a cost_per_day of {found.cost_per_day:g} and no prices, so "
            "its cost is not known and nothing would be limited. Write the prices of a million "
            "tokens into price_input and price_output, or take cost_per_day out; calls_per_day "
            "limits a judge without prices."
        )
    return found
