# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.13.0", "numpy", "regex", "tqdm"]
# ///
"""Side quest: a playground in the browser: watch your model generate, token by token.

READS   artifacts/04_train/best.pt, artifacts/01_bpe/tokenizer.json
WRITES  nothing
RUN     python lessons/quests/playground.py   (then open the address it prints)
LESSON  lessons/quests/playground.md

A web server for this computer alone: a beginning goes in, a story comes out in parts.
"""
# =========================================================================== 1. Imports
import contextlib
import errno
import http.server
import importlib
import io
import json
import queue
import random
import shlex
import signal
import socket
import socketserver
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))
# `import 01_bpe` is a syntax error (a name cannot start with a digit), hence:
bpe = importlib.import_module("01_bpe")
gpt = importlib.import_module("03_model")
# Stage 6 generates the stories. There is no sampler in this file: edit one there, and
# the playground plays with it.
sample = importlib.import_module("06_sample")

import torch  # noqa: E402  03 has said so if it is missing

# ============================================================= 2. Constants: edit these
PORT = 8010  # http://127.0.0.1:8010; another number if this one is taken
# Limits: one reader must not be able to take everything
MAX_TOKENS = 1000  # of a story
MAX_PROMPT = 2000  # characters of a beginning
MAX_BODY = 32_768  # bytes of a request, whatever it holds
QUEUE = 64  # stories that wait; who comes next is asked to try again later
CONNECTIONS = 128  # open at once; more are hung up on
PATIENCE = 10.0  # seconds in which a reader must have asked, or read what has come
HEARTBEAT = 0.5  # seconds between two looks at who has left, or waits too long

ME = "lessons/quests/playground.py"
STOPPED = "the playground was stopped"
PAGE = ROOT / "lessons" / "pages" / "playground.html"
SAFE = {  # more defense: our page runs nothing from elsewhere, and no page frames it
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src data:;"
    " script-src 'unsafe-inline'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
}  # fmt: skip

# ============================================================= 3. Glossary of this file
# reader    a page in a browser that wants a story
# handler   the thread of one connection: listens, checks, passes the story on
# worker    the main thread, the only one that asks the model: story after story
# line      the stories that wait for the worker
# event     one line of an answer, JSON: a token, how many wait before, the end

# ======================================================= 4. The idea: ask who is asking
# Only this computer reaches 127.0.0.1. But your browser is on this computer, and it
# runs the programs of every page that you visit. So the server asks who is asking: by
# which name it was called, and from which page. Browsers answer that truthfully; the
# programs in their pages cannot change it.


def stranger(headers, port):
    """Who is asking, if it is not our own page; None if it is.

    >>> stranger({"Host": "localhost:8010", "Origin": "http://localhost:8010"}, 8010)
    >>> stranger({"Host": "evil.example:8010"}, 8010)  # a name that now leads here
    "somebody who calls us 'evil.example:8010'"
    >>> stranger({"Host": "localhost:8010", "Origin": "http://evil.example"}, 8010)
    "a page of 'http://evil.example'"
    """
    names = [f"127.0.0.1:{port}", f"localhost:{port}"]
    host, origin = headers.get("Host", ""), headers.get("Origin")
    if host.lower() not in names:
        return f"somebody who calls us {host[:80]!r}"
    if origin is not None and origin not in [f"http://{name}" for name in names]:
        return f"a page of {origin[:80]!r}"
    if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return "another page"  # "none": an address typed, or opened from a terminal


# ======================================================= 5. A story that a reader wants
class Refused(Exception):
    """What cannot be done: (status of HTTP, words for people)."""


class Story:
    """What is wanted, what of it is generated, and whether anybody still reads it."""

    def __init__(self, text, length, seed, settings):
        self.text, self.length, self.seed, self.settings = text, length, seed, settings
        self.events = queue.Queue()  # from the worker to the handler; "end" is the last
        self.gone = False  # True: the reader has left


def ranges(vocabulary):
    """What may be asked for: (name, kind, lowest, highest)."""
    return [
        ("temperature", float, 0.0, 3.0), ("top_k", int, 1, vocabulary),
        ("top_p", float, 0.01, 1.0), ("min_p", float, 0.0, 1.0),
        ("length", int, 1, MAX_TOKENS), ("seed", int, 0, 2**31),
    ]  # fmt: skip


def read_request(body, vocabulary):  # bytes of JSON -> Story
    """Raises Refused, with the range, unless it is a request that we can fulfill."""
    try:
        wanted = json.loads(body)
        text = wanted.pop("text", "")
    except (ValueError, RecursionError, TypeError, AttributeError):
        raise Refused(400, 'A request is JSON like {"text": "Once"}.') from None
    # What it leaves open is as in 06_sample.py.
    settings = sample.SETTINGS | {"length": MAX_TOKENS}
    settings["seed"] = random.randrange(10**6)
    for name, kind, low, high in ranges(vocabulary):
        value = settings[name] = wanted.pop(name, settings[name])
        if name == "top_k" and value is None:  # keeps all
            continue
        try:
            bpe.in_range("a request", name, value, kind, low, high)
        except SystemExit as error:  # three lines, of which two are for our reader
            what, must = (line[:150] for line in error.code.splitlines()[:2])
            raise Refused(400, f"{what} {must}") from None
    if wanted:
        raise Refused(400, f"There is no setting {min(wanted)[:80]!r}.")
    if not isinstance(text, str) or len(text) > MAX_PROMPT:
        raise Refused(400, f"A beginning is text, at most {MAX_PROMPT:,} characters.")
    return Story(text, settings.pop("length"), settings.pop("seed"), settings)


class Line:
    """First come, first served, and no more than QUEUE stories."""

    def __init__(self):
        self.stories, self.changed, self.turned_away = [], threading.Condition(), 0

    def join(self, story):
        """Raises Refused if the line is full."""
        with self.changed:
            if len(self.stories) < QUEUE:
                self.stories.append(story)
                return self.changed.notify()
            self.turned_away += 1
        why = f"There is one model here, and {QUEUE} stories wait for it already."
        raise Refused(503, f"{why} Please try again in a minute.")

    def leave(self, story):
        """The reader has gone, and the story need not be generated."""
        with self.changed:
            story.gone = True
            self.stories = [other for other in self.stories if other is not story]

    def next(self, seconds):  # -> Story, or None if nobody comes
        with self.changed:
            self.changed.wait_for(lambda: self.stories, seconds)
            return self.stories.pop(0) if self.stories else None


# ========================================================== 6. The handlers' side: HTTP
class Handler(http.server.BaseHTTPRequestHandler):
    """One connection, one request, one answer, whose end hangs up (HTTP/1.0)."""

    def setup(self):
        self.timeout = PATIENCE  # of each wait for the socket, and of the whole request
        self.server.open[self.request] = time.monotonic() + PATIENCE
        super().setup()

    def handle(self):
        with contextlib.suppress(OSError):  # a reader who leaves is no trouble of ours
            super().handle()

    def parse_request(self):
        """Whatever is asked, the first question is: by whom?"""
        if not super().parse_request():
            return False
        who, port = stranger(self.headers, self.server.port), self.server.port
        if who:
            self.server.strangers += 1
            how = f"Type http://127.0.0.1:{port} into the address bar yourself."
            self.answer(403, f"This playground is not for {who}. {how}")
        return not who

    def do_GET(self):
        if self.path.partition("?")[0] == "/":
            return self.answer(200, self.server.page, "text/html")
        self.answer(404, "There is nothing here. The playground is at /")

    def do_POST(self):
        try:
            story = read_request(self.read_body(), self.server.vocabulary)
            self.server.line.join(story)
        except Refused as error:
            return self.answer(*error.args)
        try:
            self.answer(200, "", "application/x-ndjson")  # JSON, line by line
            self.pass_on(story)
        finally:
            self.server.line.leave(story)

    def read_body(self):  # -> bytes
        """Raises Refused unless it is what our page sends, and no more."""
        if self.path != "/story":
            raise Refused(404, "Stories are generated at /story.")
        # A form on a foreign page can send text, but not this type.
        if self.headers.get_content_type() != "application/json":
            raise Refused(415, "A request must come as application/json.")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise Refused(411, "A request must say how long it is.")
        if int(length[:12]) > MAX_BODY:
            raise Refused(413, f"A request may have at most {MAX_BODY:,} bytes.")
        body = self.rfile.read(int(length[:12]))
        self.server.open[self.request] = float("inf")  # all is said: no hurry any more
        return body

    def pass_on(self, story):
        """Send the events as they come; OSError when nobody listens."""
        event = {}
        while "end" not in event:
            try:
                event = story.events.get(timeout=HEARTBEAT)
            except queue.Empty:  # a sign of life, and it shows whether one comes back
                waiting = [None, *self.server.line.stories]  # None: the one under way
                event = {"before": waiting.index(story) if story in waiting else 0}
            self.wfile.write(json.dumps(event).encode() + b"\n")

    def answer(self, status, text, kind="text/plain"):
        self.send_response(status)
        for name, value in {"Content-Type": f"{kind}; charset=utf-8", **SAFE}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode("utf-8", "replace"))

    def finish(self):
        """Hang up; but who is still sending, a body too long, must first hear why."""
        self.server.open[self.request] = time.monotonic() + PATIENCE
        with contextlib.suppress(OSError):
            self.request.shutdown(socket.SHUT_WR)
            while self.request.recv(65_536):
                pass
        super().finish()
        del self.server.open[self.request]

    def log_message(self, *_):
        pass  # the worker prints a line for every story; that is enough


class Server(http.server.ThreadingHTTPServer):
    """A thread per connection, none of which can wait forever."""

    request_queue_size = 128  # connections that knock at the same moment
    server_bind = socketserver.TCPServer.server_bind  # HTTPServer's is slow on Macs

    def __init__(self, page, vocabulary):
        self.page, self.vocabulary = page, vocabulary
        self.line, self.strangers = Line(), 0
        self.open = {}  # connection -> when our patience with it ends
        super().__init__(("127.0.0.1", PORT), Handler)
        self.port = self.server_address[1]

    def verify_request(self, *_):
        return len(self.open) < CONNECTIONS

    def service_actions(self):  # called at each heartbeat
        """A time-out for each byte is not enough: bytes may come one by one."""
        for request, end in list(self.open.items()):
            if time.monotonic() > end:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)


# ====================================================== 7. The worker's side: the model
class Watched:
    """A model that keeps what generate() does not yield: tokens seen, last logits."""

    def __init__(self, model):
        self.model, self.config, self.wte = model, model.config, model.wte

    def new_cache(self):
        self.seen = torch.empty(1, 0, dtype=torch.long)  # (1, S), nothing as yet
        return self.model.new_cache()

    def hidden(self, idx, cache):  # (1, T) -> (1, T, C)
        self.seen = torch.cat([self.seen, idx.cpu()], dim=1)
        return self.model.hidden(idx, cache)

    def output(self, x):  # (1, C) -> (1, V)
        logits = self.model.output(x)
        self.logits = logits[0].float().cpu()  # (V,)
        return logits

    def look_back(self, token, settings, tokenizer):
        """Which other tokens were possible: what the page shows about a token."""
        shaped = sample.apply_samplers(self.logits, self.seen[0], **settings)
        both = self.logits, shaped
        return {
            "prob": [round(x.softmax(-1)[token].item(), 4) for x in both],
            "entropy": [round(sample.entropy(x), 2) for x in both],
            "left": int(shaped.isfinite().sum()), "id": token,
            "candidates": sample.candidates(tokenizer, *both),
        }  # fmt: skip


def generate(story, model, tokenizer, asked_to_stop):  # -> token count, how it ended
    """Generate one story, as long as there is somebody who reads it."""
    with contextlib.redirect_stdout(io.StringIO()) as notes:  # they are for the page
        ids = sample.read_prompt(tokenizer, story.text, model.config.block_size)
    notes, given = notes.getvalue(), [*sample.stream(tokenizer, ids)]
    story.events.put({"prompt": given, "notes": notes, "seed": story.seed})
    model, new, about = Watched(model), [], {}
    wanted = story.length, story.settings, sample.make_rngs(1, story.seed)

    def tokens():
        for (token,) in sample.generate(model, [ids], *wanted):
            new.append(token)
            about.update(model.look_back(token, story.settings, tokenizer))
            yield token
            if story.gone or asked_to_stop:
                return

    for text in sample.stream(tokenizer, tokens()):  # one per token, and a last one
        story.events.put({"text": text, **about})
        about.clear()
    ended = "its own end" if new[-1] == bpe.EOS else "cut at its length"
    ended = STOPPED if asked_to_stop else ended
    return len(new), "its reader left" if story.gone else ended


def serve(server, model, tokenizer, asked_to_stop):
    """Story after story, until asked_to_stop holds something; then the totals."""
    stories = tokens = left = 0
    listen, every = server.serve_forever, (HEARTBEAT,)
    threading.Thread(target=listen, args=every, daemon=True).start()
    while not asked_to_stop:
        story = server.line.next(seconds=min(0.2, HEARTBEAT))
        if story is None or story.gone:
            continue
        count, ended = generate(story, model, tokenizer, asked_to_stop)
        story.events.put({"end": ended})
        stories, tokens, left = stories + 1, tokens + count, left + story.gone
        what = f"{story.text[:40]!r}, seed {story.seed}: {count:,} tokens"
        print(f"  story {stories:,}: {what}; {ended}", flush=True)
    server.shutdown()  # no new connections ...
    while story := server.line.next(seconds=0):
        story.events.put({"end": STOPPED})
    for _ in range(100):  # ... and those that are open may read to the end
        time.sleep(0.02 if server.open else 0)
    server.server_close()
    print(f"\n[check] {stories:,} stories, {tokens:,} tokens; {left:,} cut short;")
    print(f"        {server.line.turned_away:,} found the line full;", end=" ")
    print(f"{server.strangers:,} foreign requests refused", flush=True)


@contextlib.contextmanager
def ctrl_c_noted():
    """Within this, Ctrl-C only fills a list: the token under way is finished first."""
    asked = []
    before = signal.signal(signal.SIGINT, lambda *_: asked.append("Ctrl-C"))
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


# ============================================================================ 8. Checks
def check_constants():
    """Raise SystemExit, naming the constant and its range, unless all can be used."""
    for name, value, kind, low, high in [
        ("PORT", PORT, int, 1024, 65535), ("MAX_TOKENS", MAX_TOKENS, int, 1, 10**5),
        ("MAX_PROMPT", MAX_PROMPT, int, 1, 10**5), ("QUEUE", QUEUE, int, 1, 1000),
        ("MAX_BODY", MAX_BODY, int, 100, 10**7),
        ("CONNECTIONS", CONNECTIONS, int, 1, 10_000),
        ("PATIENCE", PATIENCE, float, 0.1, 3600.0),
        ("HEARTBEAT", HEARTBEAT, float, 0.01, 60.0),
    ]:  # fmt: skip
        bpe.in_range(ME, name, value, kind, low, high)


def open_server(vocabulary):  # -> Server
    """Raise SystemExit if the page is missing, or another program has the port."""
    if not PAGE.exists():
        what, why = f"{bpe.shown(PAGE)} is missing.", "It is part of the course."
        how = f"git checkout {shlex.quote(bpe.shown(PAGE))} && python {ME}"
        raise bpe.stop(what, why, how)
    limits = {name: [low, high] for name, _, low, high in ranges(vocabulary)}
    data = {"limits": limits, "start": sample.SETTINGS, "max_prompt": MAX_PROMPT}
    try:
        return Server(bpe.fill_page(PAGE.name, data), vocabulary)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        why = "Another program listens there: a playground in another window, perhaps."
        how = f"End that one, or change PORT at the top of {ME}; then: python {ME}"
        raise bpe.stop(f"Port {PORT} is taken.", why, how) from None


# ============================================================================== 9. Main
def main():
    check_constants()
    model, tokenizer = sample.check_inputs()
    server = open_server(len(tokenizer))
    size = sum(weight.numel() for weight in model.parameters())
    print(f"[read] {bpe.shown(sample.MODEL)}: {size:,} parameters, trained by you")
    model = model.to(gpt.pick_device(model, sample.DEVICE, sample.SCRIPT))
    print(f"[plan] one story at a time, up to {MAX_TOKENS:,} tokens; {QUEUE} may wait")
    print(f"[start] open http://127.0.0.1:{server.port} (Ctrl-C ends)", flush=True)
    with ctrl_c_noted() as asked_to_stop:
        serve(server, model, tokenizer, asked_to_stop)
    raise bpe.stop("Stopped by Ctrl-C.", "No file was written.", f"Again: python {ME}")


if __name__ == "__main__":
    bpe.run_stage(main, ME, lock=False)
