"""A `memos serve` process of the tests: started on a free port, watched, stopped; and its metrics read."""

import os
import queue
import re
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import httpx
import openai
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("MEMOS_BIN", "target/debug/memos"))
BINARY = BINARY if BINARY.is_absolute() else ROOT / BINARY
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30


def environment(data_dir):
    """An environment in which nothing of the user's own configuration is seen."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MEMOS_", "HF_"))}
    return {**kept, "MEMOS_DATA_DIR": str(data_dir), "HF_HUB_OFFLINE": "1"}


def run(*arguments, data_dir=None, timeout=60):
    """Runs another command of the binary to its end."""
    with tempfile.TemporaryDirectory() as own:
        return subprocess.run(
            [str(BINARY), *map(str, arguments)],
            env=environment(data_dir or own),
            capture_output=True,
            text=True,
            timeout=timeout,
        )


class Server:
    """`memos serve --port 0 …`. The port is read from the line in which the server says where it listens."""

    def __init__(self, *arguments, data_dir=None, api_key="none"):
        self.api_key = api_key
        self._own_data_dir = None if data_dir else tempfile.TemporaryDirectory()
        self.data_dir = Path(data_dir or self._own_data_dir.name)
        self._lines = []
        self._ready = queue.Queue()
        self.process = subprocess.Popen(
            [str(BINARY), "serve", "--port", "0", *map(str, arguments)],
            env=environment(self.data_dir),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        threading.Thread(target=self._read_output, daemon=True).start()
        self.url = self._wait_for_url()

    def _read_output(self):
        for line in self.process.stdout:
            self._lines.append(line)
            found = re.search(r"http://[\w.\[\]:]+:(\d+)", line)
            if found:
                self._ready.put(f"http://127.0.0.1:{found.group(1)}")
        self._ready.put(None)

    def _wait_for_url(self):
        try:
            url = self._ready.get(timeout=START_TIMEOUT_S)
        except queue.Empty:
            url = None
        if url is None:
            self.process.kill()
            raise RuntimeError(f"the server did not start: {self.log()}")
        return url

    def log(self):
        return "".join(self._lines)

    def client(self, **options):
        """The real OpenAI client; it repeats nothing, so that every answer is seen."""
        options = {"api_key": self.api_key, "max_retries": 0, "timeout": 120, **options}
        return openai.OpenAI(base_url=f"{self.url}/v1", **options)

    def http(self, **options):
        return httpx.Client(base_url=self.url, timeout=60, **options)

    def post(self, path, body, headers=None, **options):
        """A plain request: `body` is JSON, or bytes that are sent as they are."""
        headers = {"authorization": f"Bearer {self.api_key}", "content-type": "application/json", **(headers or {})}
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        return httpx.post(self.url + path, headers=headers, timeout=60, **content, **options)

    def get(self, path, **options):
        headers = {"authorization": f"Bearer {self.api_key}"}
        return httpx.get(self.url + path, headers=headers, timeout=60, **options)

    def model(self):
        return self.get("/v1/models").json()["data"][0]["id"]

    def metrics(self):
        """All samples of /metrics by name; samples that differ in labels are added up."""
        values = {}
        for family in text_string_to_metric_families(self.get("/metrics").text):
            for sample in family.samples:
                values[sample.name] = values.get(sample.name, 0) + sample.value
        return values

    def blocks(self):
        """KV blocks by state."""
        families = text_string_to_metric_families(self.get("/metrics").text)
        blocks = next(family for family in families if family.name == "memos_kv_blocks")
        return {sample.labels["state"]: int(sample.value) for sample in blocks.samples}

    def wait_until_idle(self, timeout_s=20):
        """Waits until no request runs or waits."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            metrics = self.metrics()
            if metrics[RUNNING] == 0 and metrics[WAITING] == 0:
                return metrics
            time.sleep(0.05)
        raise AssertionError(f"still busy after {timeout_s} s: {metrics}")

    def wait_until(self, condition, timeout_s=20):
        """Waits until the metrics fulfil a condition."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            metrics = self.metrics()
            if condition(metrics):
                return metrics
            time.sleep(0.02)
        raise AssertionError(f"not reached in {timeout_s} s: {metrics}")

    def rss_bytes(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) * 1024

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def stop(self):
        if self.process.poll() is None:
            self.terminate()
            try:
                self.process.wait(timeout=STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self._own_data_dir:
            self._own_data_dir.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


RUNNING = "memos_sequences_running"
WAITING = "memos_sequences_waiting"
