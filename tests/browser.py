"""Chromium for the tests of our pages: started once, asked over a pair of pipes.

It speaks the DevTools protocol (chromedevtools.github.io/devtools-protocol): JSON
messages, each with a zero byte at its end.
"""
import json
import os
import shutil
import subprocess
import tempfile

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    " --disable-background-networking --disable-component-update --disable-sync"
    " --remote-debugging-pipe"
).split()


class Browser:
    """run() opens a page, runs a script in it, and closes the page."""

    def __init__(self):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        read_orders, self.orders = os.pipe()  # Chromium reads its descriptor 3
        answers, write_answers = os.pipe()  # and writes to its descriptor 4
        # The shell moves our ends to 3 and 4, whatever their numbers are here.
        move = f"exec \"$@\" 3<&{read_orders} 4>&{write_answers}"
        self.process = subprocess.Popen(
            ["bash", "-c", move, "bash", CHROMIUM, *FLAGS,
             f"--user-data-dir={self.profile.name}", "about:blank"],
            pass_fds=(read_orders, write_answers), stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(read_orders)
        os.close(write_answers)
        self.answers, self.count, self.events = open(answers, "rb"), 0, []

    def read(self):
        message = bytearray()
        while (byte := self.answers.read(1)) != b"\0":
            assert byte, "Chromium has ended"
            message += byte
        return json.loads(message)

    def ask(self, method, session=None, **params):
        """Send one command; returns its result. What happens meanwhile: self.events."""
        self.count += 1
        order = {"id": self.count, "method": method, "params": params}
        order |= {"sessionId": session} if session else {}
        os.write(self.orders, json.dumps(order).encode() + b"\0")
        while (message := self.read()).get("id") != self.count:
            self.events.append(message)
        assert "error" not in message, message
        return message["result"]

    def run(self, page, script):
        """The value that an async JavaScript function with this body returns."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        session = attached["sessionId"]
        for part in ("Page", "Runtime", "Log"):
            self.ask(f"{part}.enable", session)
        self.events = []
        self.ask("Page.navigate", session, url=page.as_uri())
        while all(e["method"] != "Page.loadEventFired" for e in self.events):
            self.events.append(self.read())
        # From here on, timers do not wait: an hour passes in an instant.
        self.ask("Emulation.setVirtualTimePolicy", session, policy="advance")
        answer = self.ask(
            "Runtime.evaluate", session, expression=f"(async () => {{{script}\n}})()",
            awaitPromise=True, returnByValue=True,
        )  # fmt: skip
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        noise = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        said = [event for event in self.events if event["method"] in noise]
        assert not said, f"the page wrote to the console: {said}"
        self.ask("Target.closeTarget", targetId=target)
        return answer["result"].get("value")

    def close(self):
        self.process.kill()
        self.process.wait()
        self.profile.cleanup()
