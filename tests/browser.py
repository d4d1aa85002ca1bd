"""A Chromium for tests, spoken to over its debugging pipe: no driver and no package beside the browser itself."""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import time
from base64 import b64decode

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--remote-debugging-pipe",
)  # fmt: skip


def find_browser():
    """Path of a Chromium or Chrome, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page of a headless browser.

    ``requests`` are the addresses that the page asked for, ``problems`` what went wrong in it (exceptions, refused by
    the Content-Security-Policy, errors on its console).
    """

    def __init__(self, folder):
        """Start a browser with a profile of its own in ``folder``, where its downloads go as well."""
        self.requests, self.problems, self.number, self.folder = [], [], 0, folder
        commands, self.write = os.pipe()
        self.read, answers = os.pipe()
        # The browser reads descriptor 3 and writes 4; out of their way first.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (commands, answers)]

        def place():
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        self.process = subprocess.Popen(
            [find_browser(), *SWITCHES, f"--user-data-dir={folder / 'profile'}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4, *ends),
            preexec_fn=place,
        )
        for end in (commands, answers, *ends):
            os.close(end)
        self.buffer, self.session = b"", None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def call(self, method, **parameters):
        """The result of a command of the Chrome DevTools Protocol."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._note(answer)

    def _next(self):
        while b"\0" not in self.buffer:
            data = os.read(self.read, 1 << 20)
            if not data:
                raise AssertionError("the browser has ended")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(line)

    def _note(self, event):
        method, values = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = values["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and values["entry"]["level"] == "error":
            self.problems.append(values["entry"]["text"])

    def run(self, script):
        """The value of JavaScript in the page, promises awaited."""
        result = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in result:
            raise AssertionError(result["exceptionDetails"]["exception"].get("description"))
        return result["result"].get("value")

    def open(self, address, ready="document.readyState == 'complete'"):
        """Go to an address and wait until ``ready`` holds there."""
        self.call("Page.navigate", url="about:blank")  # so that another part behind “#” loads anew
        self.call("Page.navigate", url=address)
        self.wait(f"location.href != 'about:blank' && ({ready})")

    def wait(self, condition, seconds=20):
        """Wait until JavaScript says true."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(AssertionError):  # between two pages there is nothing to ask
                if self.run(condition):
                    return
            if time.monotonic() > end:
                raise AssertionError(f"waited {seconds} s for {condition}; {self.problems}")
            time.sleep(0.02)

    def press(self, key, code=0):
        """Press a key in the page: ``Enter``, ``Tab``, ``ArrowRight``, …"""
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def size(self, width, height, *, dark=False):
        """Set the size of the window and the colour scheme that the reader prefers."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)

    def picture(self, **clip):
        """A PNG of the window, or of a part (``x``, ``y``, ``width``, ``height``)."""
        part = {"clip": {**clip, "scale": 1}} if clip else {}
        return b64decode(self.call("Page.captureScreenshot", format="png", **part)["data"])

    def close(self):
        """End the browser."""
        with contextlib.suppress(AssertionError, OSError):
            self.session = None
            self.call("Browser.close")
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.read)
        os.close(self.write)
