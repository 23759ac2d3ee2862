"""Opens pages in headless Chromium, by the DevTools protocol over a pipe."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--remote-debugging-pipe"
).split()
LOOK = """({
  width: document.documentElement.scrollWidth, window: window.innerWidth,
  broken: [...document.images].filter(i => !i.complete || !i.naturalWidth).length,
  images: document.images.length, ink: getComputedStyle(document.body).color,
  text: document.body.innerText.length})"""


def find() -> str | None:
    """The path of a Chromium; None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """A running Chromium with one tab; messages are JSON that end with a zero byte."""

    def __init__(self, reader, writer):
        self._reader, self._writer, self._number = reader, writer, 0
        self.events, self._session = [], None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        made = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = made["sessionId"]
        for domain in ("Page", "Log", "Runtime", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **parameters):
        """The result of a command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._writer.write(json.dumps(message).encode() + b"\0")
        self._writer.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, url, width, height, scheme="light"):
        """What `LOOK` finds on a page, and what went wrong while it was loaded."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.ask("Emulation.setEmulatedMedia", features=[feature])
        self.events.clear()
        self.ask("Page.navigate", url=url)
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._next())
        found = self.ask("Runtime.evaluate", expression=LOOK, returnByValue=True)
        return found["result"]["value"], self._faults(url)

    def _faults(self, url):
        found = []
        for event in self.events:
            method, parameters = event.get("method"), event.get("params", {})
            if method in ("Log.entryAdded", "Runtime.exceptionThrown"):
                found.append(json.dumps(parameters))
            if method == "Runtime.consoleAPICalled":
                found.append(json.dumps(parameters))
            if method == "Network.requestWillBeSent":
                wanted = parameters["request"]["url"]
                if wanted != url and not wanted.startswith("data:"):
                    found.append(f"asks for {wanted}")
        return found

    def _next(self):
        content = b""
        while not content.endswith(b"\0"):
            byte = self._reader.read(1)
            if not byte:
                raise EOFError("Chromium has ended")
            content += byte
        return json.loads(content[:-1])


@contextlib.contextmanager
def browser(path):
    """A `Browser`, which ends with the context.

    Args:
        path: of the program.
    """
    to_read, to_write = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [path, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        # It reads from descriptor 3 and writes to 4.
        pipes = f'exec "$@" 3<&{to_write[0]} 4>&{to_read[1]}'
        process = subprocess.Popen(
            ["bash", "-c", pipes, "bash", *command],
            pass_fds=(to_write[0], to_read[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_write[0])
        os.close(to_read[1])
        try:
            with os.fdopen(to_read[0], "rb") as reader:
                with os.fdopen(to_write[1], "wb") as writer:
                    yield Browser(reader, writer)
        finally:
            process.kill()
            process.wait()
