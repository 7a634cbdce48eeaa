"""A headless Chromium, controlled by its DevTools protocol through a pipe."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--remote-debugging-pipe",
)  # fmt: skip


class Browser:
    """One page. `events` are the protocol events."""

    def __init__(self, folder):
        self.events, self._number, self._rest = [], 0, b""
        request_pipe, reply_pipe = os.pipe(), os.pipe()
        # Chromium reads from 3 and writes to 4. Our pipe ends may have these numbers too.
        request_end, reply_end = (
            fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (request_pipe[0], reply_pipe[1])
        )
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{request_end} 4>&{reply_end}', *command],
            pass_fds=(request_end, reply_end), start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (request_pipe[0], reply_pipe[1], request_end, reply_end):
            os.close(end)
        self._out, self._in = request_pipe[1], reply_pipe[0]
        self._session = None
        target = self("Target.createTarget", url="about:blank")["targetId"]
        attached = self("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM", "Accessibility"):
            self(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._out)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)

    def __call__(self, method, **params):
        """Call a method of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._read_reply()
            if reply.get("id") == self._number:
                assert "error" not in reply, (method, reply["error"])
                return reply["result"]
            self.events.append(reply)

    def _read_reply(self):
        while b"\0" not in self._rest:
            chunk = os.read(self._in, 1 << 20)
            assert chunk, "Chromium ended"
            self._rest += chunk
        text, _, self._rest = self._rest.partition(b"\0")
        return json.loads(text)

    def evaluate(self, code):
        """Return the value of an expression in the page, with promises awaited."""
        reply = self("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def wait(self, code, seconds=120):
        """Wait until an expression is true. Errors while the page loads are ignored."""
        end = time.monotonic() + seconds
        parameters = {"expression": code, "awaitPromise": True, "returnByValue": True}
        while self("Runtime.evaluate", **parameters)["result"].get("value") is not True:
            assert time.monotonic() < end, (code, self.evaluate("document.body?.innerText"))
            time.sleep(0.2)

    def choose(self, selector, paths):
        """Choose files in a file input."""
        root = self("DOM.getDocument")["root"]["nodeId"]
        node = self("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def look(self, width, height, scheme, path):
        """Write a screenshot of the complete page in a size and color scheme."""
        phone = width < 600
        self(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        self(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        screenshot = self("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(screenshot["data"]))

    def get_events(self, method):
        """Return the events of a protocol method, oldest first."""
        self.evaluate("0")  # receive pending events
        return [event["params"] for event in self.events if event.get("method") == method]
