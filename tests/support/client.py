"""What a test says to a running ComfyUI server."""

import json
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass

import pytest

from devtools.server import Running, log_tail


@dataclass(frozen=True)
class Client:
    """The server's HTTP interface, with failures that quote its log."""

    server: Running

    @property
    def url(self) -> str:
        return self.server.url

    def get(self, path: str, timeout: float = 60.0) -> object:
        """GET a path; returns the decoded JSON."""
        with urllib.request.urlopen(self.url + path, timeout=timeout) as answer:
            return json.load(answer)

    def post(self, path: str, body: object, timeout: float = 60.0) -> object:
        """POST JSON to a path; returns the decoded JSON, {} for an empty answer."""
        data = json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json"}, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            pytest.fail(f"POST {path} was refused: {error.code} {error.read().decode()}")
        return json.loads(text) if text else {}

    def ask(self, path: str, body: object, timeout: float = 60.0) -> tuple[int, dict]:
        """POST JSON to a path; returns the status and the answer, whatever they are."""
        header = {"Content-Type": "application/json"}
        data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, header, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"{}")

    def object_info(self) -> dict:
        """Every node the server knows."""
        return self.get("/object_info")

    def queue(self, prompt: dict) -> str:
        """Queue a workflow in API form; returns its prompt id."""
        body = {"prompt": prompt, "client_id": uuid.uuid4().hex, "prompt_id": str(uuid.uuid4())}
        return self.post("/prompt", body)["prompt_id"]

    def complaints(self, prompt: dict) -> dict[tuple[str, str], str]:
        """Validate a workflow in API form that must not run.

        Returns:
            {(class name, input): type of error}, which the server found without running anything.
        """
        data = json.dumps({"prompt": prompt, "prompt_id": str(uuid.uuid4())}).encode()
        header = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + "/prompt", data, header, method="POST")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=60.0)
        found = json.loads(refused.value.read())["node_errors"].values()
        refused.value.close()
        return {
            (node["class_type"], error["extra_info"].get("input_name", "")): error["type"]
            for node in found
            for error in node["errors"]
        }

    def wait(self, prompt_id: str, seconds: float = 300.0) -> dict:
        """Wait until a queued workflow has ended in any way; returns its history entry."""
        end, pause = time.monotonic() + seconds, 0.01
        while time.monotonic() < end:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry:
                return entry
            if self.server.process.poll() is not None:
                pytest.fail("the server died. " + log_tail(self.server.log))
            time.sleep(pause)
            pause = min(0.1, 1.2 * pause)
        pytest.fail(f"not finished after {seconds} s. {log_tail(self.server.log)}")

    def run(self, prompt: dict, seconds: float = 300.0) -> dict:
        """Queue, wait, insist on success; returns {node id: its ui outputs}."""
        entry = self.wait(self.queue(prompt), seconds)
        if entry["status"]["status_str"] != "success":
            pytest.fail(f"{entry['status']['messages'][-1]}\n{log_tail(self.server.log)}")
        return entry["outputs"]

    def interrupt(self) -> None:
        """Press the cancel button."""
        self.post("/interrupt", {})
