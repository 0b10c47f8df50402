# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.13.0", "numpy", "regex", "tqdm"]
# ///
"""Side quest: a playground in the browser, where your model writes while you watch.

READS   artifacts/04_train/best.pt, artifacts/01_bpe/tokenizer.json
WRITES  nothing
RUN     python lessons/quests/playground.py   (then open the address it prints)
LESSON  lessons/quests/playground.md

A web server for this computer alone: a beginning goes in, a story comes out in pieces.
"""

# ======================================================================= 2. IMPORTS
import contextlib
import errno
import http.server
import importlib
import io
import json
import queue
import random
import socket
import socketserver
import sys
import threading
import time
from pathlib import Path

import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path += [str(ROOT), str(ROOT / "lessons")]
from plumbing import ctrl_c_noted, filled_page, in_range, run_stage, shown, stop

# Stage 6 writes the stories. There is no sampler in this file: edit one there, and the
# playground plays with it.
sample = importlib.import_module("06_sample")
showing = sample.showing  # lessons/showing.py: text as it comes, candidates

# ===================================================================== 3. CONSTANTS
PORT = 8010  # the door: http://127.0.0.1:8010; another number if this one is taken
# -- limits: one reader must not be able to take everything
MAX_TOKENS = 1000  # of a story
MAX_PROMPT = 2000  # characters of a beginning
MAX_BODY = 32_768  # bytes of a request, whatever stands in it
QUEUE = 64  # stories that wait; who comes next is asked to try again later
CONNECTIONS = 128  # open at once; more are hung up on
PATIENCE = 10.0  # seconds in which a reader must have asked, or read what has come

ME = "lessons/quests/playground.py"
STOPPED = "the playground was stopped"
PAGE = ROOT / "lessons" / "pages" / "playground.html"
SAFE = {  # a second wall: our page runs nothing from elsewhere, and no page frames it
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src data:;"
    " script-src 'unsafe-inline'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
}  # fmt: skip

# ========================================================================= 4. WORDS
# reader    a page in a browser that wants a story
# handler   the thread of one connection: listens, checks, passes the story on
# worker    the main thread, the only one that asks the model: story after story
# line      the stories that wait for the worker
# event     one line of an answer, JSON: a token, a place in the line, the end

# ====================================================================== 5. THE IDEA
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


# ======================================================================== 6. PIECES
# ---- a story that somebody wants


class Refused(Exception):
    """What cannot be done: (status of HTTP, words for people)."""


class Story:
    """What is wanted, what of it is written, and whether anybody still reads it."""

    def __init__(self, text, length, seed, how):
        self.text, self.length, self.seed, self.how = text, length, seed, how
        self.events = queue.Queue()  # from the worker to the handler; "end" is the last
        self.gone = False  # True: the reader has left


def ranges(vocabulary):
    """What may be asked for: (name, kind, lowest, highest)."""
    return [
        ("temperature", float, 0.0, 3.0), ("top_k", int, 1, vocabulary),
        ("top_p", float, 0.01, 1.0), ("min_p", float, 0.0, 1.0),
        ("length", int, 1, MAX_TOKENS), ("seed", int, 0, 2**31),
    ]  # fmt: skip


def read_wish(body, vocabulary):  # bytes of JSON -> Story
    """Raises Refused, with the range, unless it is a wish that we can fulfil."""
    try:
        wish = json.loads(body)
        text = wish.pop("text", "")
    except (ValueError, RecursionError, TypeError, AttributeError):
        raise Refused(400, 'A wish is JSON like {"text": "Once"}.') from None
    # What it leaves open is as in 06_sample.py.
    how = sample.settings(length=MAX_TOKENS, seed=random.randrange(10**6))
    for name, kind, low, high in ranges(vocabulary):
        value = how[name] = wish.pop(name, how[name])
        if name == "top_k" and value is None:  # keeps all
            continue
        try:
            in_range("a wish", name, value, kind, low, high)
        except SystemExit as error:  # three lines, of which two are for our reader
            what, must = (line[:150] for line in error.code.splitlines()[:2])
            raise Refused(400, f"{what} {must}") from None
    if wish:
        raise Refused(400, f"Nobody here knows what {min(wish)[:80]!r} is.")
    if not isinstance(text, str) or len(text) > MAX_PROMPT:
        raise Refused(400, f"A beginning is text, at most {MAX_PROMPT:,} characters.")
    # JSON can hold halves of characters ("\ud83d"), which no UTF-8 can.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return Story(text, how.pop("length"), how.pop("seed"), how)


class Line:
    """First come, first served, and no more than QUEUE places."""

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
        """The reader has gone; somebody else may have the place."""
        with self.changed:
            story.gone = True
            self.stories = [other for other in self.stories if other is not story]

    def next(self, seconds):  # -> Story, or None if nobody comes
        with self.changed:
            self.changed.wait_for(lambda: self.stories, seconds)
            return self.stories.pop(0) if self.stories else None


# ---- the handlers' side: HTTP


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
            story = read_wish(self.read_body(), self.server.vocabulary)
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
            raise Refused(404, "Stories are told at /story.")
        # A form on a foreign page can send text, but not this type.
        if self.headers.get_content_type() != "application/json":
            raise Refused(415, "A wish must come as application/json.")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise Refused(411, "A wish must say how long it is.")
        if int(length[:12]) > MAX_BODY:
            raise Refused(413, f"A wish may have at most {MAX_BODY:,} bytes.")
        body = self.rfile.read(int(length[:12]))
        self.server.open[self.request] = float("inf")  # all is said: no hurry any more
        return body

    def pass_on(self, story):
        """Send the events as they come; OSError when nobody listens."""
        event = {}
        while "end" not in event:
            try:
                event = story.events.get(timeout=0.5)
            except queue.Empty:  # a sign of life, and it shows whether one comes back
                waiting = [None, *self.server.line.stories]  # None: the one being told
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
        pass  # the worker tells about every story; that is enough


class Server(http.server.ThreadingHTTPServer):
    """A thread per connection, of which none can wait for ever."""

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

    def service_actions(self):  # called twice a second
        """A time-out for each byte is none: end what comes drop by drop."""
        for request, end in list(self.open.items()):
            if time.monotonic() > end:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)


# ---- the worker's side: the model


class Watched:
    """A model that keeps what generate() does not tell: tokens seen, last logits."""

    def __init__(self, model):
        self.model, self.config, self.wte = model, model.config, model.wte

    def new_cache(self):
        self.seen = torch.empty(1, 0, dtype=torch.long)  # (1, S), nothing as yet
        return self.model.new_cache()

    def hidden(self, ids, cache):  # (1, T) -> (1, T, C)
        self.seen = torch.cat([self.seen, ids.cpu()], dim=1)
        x = self.model.hidden(ids, cache)
        self.logits = F.linear(x[0, -1], self.wte.weight).float().cpu()  # (C,) -> (V,)
        return x

    def look_back(self, token, how, tokenizer):
        """What else might have stood there: what the page shows about a token."""
        both = self.logits, sample.shape(self.logits, self.seen[0], how)
        return {
            "chance": [round(x.softmax(-1)[token].item(), 4) for x in both],
            "entropy": [round(showing.entropy(x), 2) for x in both],
            "left": int(both[1].isfinite().sum()), "id": token,
            "candidates": [
                [i, sample.bpe.show(tokenizer.token_bytes[i]), round(p, 4), round(q, 4)]
                for i, p, q in showing.candidates(*both)
            ],
        }  # fmt: skip


def tell(story, model, tokenizer, asked_to_stop):  # -> tokens written, how it ended
    """Write one story, as long as there is somebody who reads it."""
    with contextlib.redirect_stdout(io.StringIO()) as notes:  # they are for the page
        ids = sample.read_prompt(tokenizer, story.text, model.config["context"])
    notes, given = notes.getvalue(), [*showing.stream(tokenizer, ids)]
    story.events.put({"prompt": given, "notes": notes, "seed": story.seed})
    model, new, about, dice = Watched(model), [], {}, sample.dice_for(1, story.seed)

    def taken():
        for (token,) in sample.generate(model, [ids], story.length, story.how, dice):
            new.append(token)
            about.update(model.look_back(token, story.how, tokenizer))
            yield token
            if story.gone or asked_to_stop:
                return

    for piece in showing.stream(tokenizer, taken()):  # one per token, and a last one
        story.events.put({"text": piece, **about})
        about.clear()
    ended = "its own end" if new[-1] == tokenizer.eos else "cut at its length"
    ended = STOPPED if asked_to_stop else ended
    return len(new), "its reader left" if story.gone else ended


def serve(server, model, tokenizer, asked_to_stop):
    """Story after story, until asked_to_stop holds something; then the sum of it."""
    stories = tokens = left = 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while not asked_to_stop:
        story = server.line.next(seconds=0.2)
        if story is None or story.gone:
            continue
        written, ended = tell(story, model, tokenizer, asked_to_stop)
        story.events.put({"end": ended})
        stories, tokens, left = stories + 1, tokens + written, left + story.gone
        what = f"{story.text[:40]!r}, seed {story.seed}: {written:,} tokens"
        print(f"  story {stories:,}: {what}; {ended}", flush=True)
    server.shutdown()  # nobody comes in any more ...
    while story := server.line.next(seconds=0):
        story.events.put({"end": STOPPED})
    for _ in range(100):  # ... and those inside may read to the end
        time.sleep(0.02 if server.open else 0)
    server.server_close()
    print(f"\n[check] {stories:,} stories told, {tokens:,} tokens; {left:,} cut short;")
    print(f"        {server.line.turned_away:,} found the line full;", end=" ")
    print(f"{server.strangers:,} requests of strangers refused", flush=True)


# ======================================================================== 7. CHECKS
def check_constants():
    """Raise SystemExit, naming the constant and its range, unless all can be used."""
    for name, kind, low, high in [
        ("PORT", int, 1024, 65535), ("MAX_TOKENS", int, 1, 10**5),
        ("MAX_PROMPT", int, 1, 10**5), ("MAX_BODY", int, 100, 10**7),
        ("QUEUE", int, 1, 1000), ("CONNECTIONS", int, 1, 10_000),
        ("PATIENCE", float, 0.1, 3600.0),
    ]:  # fmt: skip
        in_range(ME, name, globals()[name], kind, low, high)
    sample.check_constants()  # the sliders begin where 06_sample.py has them


def open_door(vocabulary):  # -> Server
    """Raise SystemExit if the page is missing, or somebody else has the port."""
    if not PAGE.exists():
        how = f"git checkout {shown(PAGE)}, then: python {ME}"
        raise stop(f"{shown(PAGE)} is missing.", "It is part of the course.", how)
    limits = {name: [low, high] for name, _, low, high in ranges(vocabulary)}
    data = {"limits": limits, "start": sample.settings(), "max_prompt": MAX_PROMPT}
    try:
        return Server(filled_page(PAGE.name, data), vocabulary)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        why = "Another program listens there: a playground in another window, perhaps."
        how = f"End that one, or change PORT at the top of {ME}; then: python {ME}"
        raise stop(f"Port {PORT} is taken.", why, how) from None


# ========================================================================== 8. MAIN
def main():
    sys.stdout.reconfigure(errors="replace")  # plumbing: a terminal without, say, "é"
    check_constants()
    model, tokenizer = sample.check_inputs()
    server = open_door(len(tokenizer))
    size = sum(weight.numel() for weight in model.parameters())
    print(f"[read] {shown(sample.MODEL)}: {size:,} parameters, trained by you")
    model = sample.choose_device(model)
    print(f"[plan] one story at a time, up to {MAX_TOKENS:,} tokens; {QUEUE} may wait")
    print(f"[start] open http://127.0.0.1:{server.port} (Ctrl-C ends)", flush=True)
    with ctrl_c_noted() as asked_to_stop:
        serve(server, model, tokenizer, asked_to_stop)
    raise stop("Stopped by Ctrl-C.", "No file was written.", f"Again: python {ME}")


# ========================================================================= 9. GUARD
if __name__ == "__main__":
    run_stage(main, ME)
