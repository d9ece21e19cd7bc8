"""Make ``docs/tensorboard.png`` and ``docs/heat_map.png``: BeliefMonitor's charts and heat map of ``digits-cnn``.

    python docs/monitor.py

The recipe is run as it is, and its ``belief.png`` is copied. TensorBoard's custom-scalars page is photographed
with Chromium (``chromium`` on the path), with logarithmic axes and the first chart's legend unfolded.
"""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from lightning_adabelief.cli.main import main

WIDTH, HEIGHT = 1480, 1180
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")

PREPARE_PAGE = """(() => {
    const inside = node => [...node.querySelectorAll('*')].flatMap(
        element => [element, ...(element.shadowRoot ? inside(element.shadowRoot) : [])]);
    const all = inside(document);
    const named = name => all.filter(element => element.localName === name);
    named('paper-checkbox').find(box => box.textContent.includes('outliers')).click();
    const charts = named('tf-custom-scalar-multi-line-chart-card').filter(chart => chart.shadowRoot);
    charts.slice(0, 8).forEach(({shadowRoot}, i) => {
        const [, logarithmic, fit] = shadowRoot.querySelectorAll('#buttons paper-icon-button');
        if (i != 2 && i != 3)
            logarithmic.click();
        fit.click();
        if (i == 0)
            shadowRoot.querySelector('.toggle-matches-button').click();
    });
    return charts.length;
})()"""
"""JavaScript that shows outliers, logarithmic axes for all charts but the gain's and the cosine's, and the first legend."""


class Browser:
    """Chromium without a window, driven through a pipe by the DevTools protocol.

    Args:
        profile: An empty folder for the browser's files.
    """

    def __init__(self, profile: str) -> None:
        self._count = 0
        chromium_in, self._out = os.pipe()
        self._in, chromium_out = os.pipe()
        command = [
            "chromium",
            *FLAGS,
            f"--window-size={WIDTH},{HEIGHT}",
            f"--user-data-dir={profile}",
            "--remote-debugging-pipe",
            "about:blank",
        ]
        words = " ".join(f'"{word}"' for word in command)
        self._process = subprocess.Popen(
            ["sh", "-c", f"exec {words} 3</dev/fd/{chromium_in} 4>/dev/fd/{chromium_out}"],
            pass_fds=(chromium_in, chromium_out),
            stderr=subprocess.DEVNULL,
        )
        os.close(chromium_in)
        os.close(chromium_out)
        self._session: dict[str, str] = {}
        page = self.do("Target.createTarget", url="about:blank")["targetId"]
        session = self.do("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        self._session = {"sessionId": session}

    def do(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method and wait for its result."""
        self._count += 1
        call = {"id": self._count, "method": method, "params": params} | self._session
        os.write(self._out, json.dumps(call).encode() + b"\0")
        answer: dict[str, Any] = {}
        while answer.get("id") != self._count:
            message = b""
            while not message.endswith(b"\0"):
                message += os.read(self._in, 1)
            answer = json.loads(message[:-1])
        return answer["result"]

    def run(self, script: str) -> Any:
        """Run JavaScript in the page and return its value."""
        return self.do("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def photograph(self, path: Path) -> None:
        """Save a picture of the page."""
        path.write_bytes(base64.b64decode(self.do("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        """End the browser."""
        self.do("Browser.close")
        self._process.wait()


def run_recipe(folder: str) -> Path:
    """Train digits-cnn, and return the folder of its logs."""
    assert main(["fit", "--config", "digits-cnn", "--trainer.logger.init_args.save_dir", folder]) == 0
    (log_dir,) = Path(folder).glob("*/version_*")
    return log_dir


def photograph_tensorboard(log_dir: Path, path: Path) -> None:
    """Save a picture of the custom-scalars page, with the run named after its folder."""
    port = _find_free_port()
    address = f"http://localhost:{port}"
    command = [sys.executable, "-m", "tensorboard.main", "--load_fast=false", f"--port={port}", "--logdir"]
    with (
        _run_in_background([*command, log_dir.parent.name], log_dir.parent.parent),
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        closing(Browser(profile)) as browser,
    ):
        _wait_until(lambda: urllib.request.urlopen(f"{address}/data/plugin/custom_scalars/layout").read() != b"{}")
        browser.do("Page.navigate", url=f"{address}/#custom_scalars")
        time.sleep(10)  # until the data have arrived
        assert browser.run(PREPARE_PAGE) > 0
        time.sleep(5)  # until the charts have moved
        browser.photograph(path)


@contextmanager
def _run_in_background(command: list[str], folder: Path) -> Iterator[None]:
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _find_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def _wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        if time.monotonic() > end:
            raise TimeoutError("TensorBoard did not show the page")
        time.sleep(0.5)


if __name__ == "__main__":
    docs = Path(__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        log_dir = run_recipe(folder)
        shutil.copy(log_dir / "belief.png", docs / "heat_map.png")
        photograph_tensorboard(log_dir, docs / "tensorboard.png")
