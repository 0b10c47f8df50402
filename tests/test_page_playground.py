"""playground.html in a real browser: type, watch, point, stop; and attack.

The page that the server sends gets one more script, which types, clicks and points as
a reader would and sends what the page then shows to /answer, a door that only this
test has. Time is real here: the words come while we look.
"""
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest
import torch
from test_06_sample import lively
from test_page_story import close
from test_playground import CONFIG, Playground, Slow, quest, tokenizer, until

__all__ = ["quest", "tokenizer"]  # fixtures

PAGE = Path(__file__).resolve().parent.parent / "lessons" / "pages" / "playground.html"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    " --disable-background-networking --disable-component-update --disable-sync"
    " --enable-logging=stderr"
).split()
# What would end the page's script, or run one, if a text could.
NASTY = (
    "</script><script>document.title = 'broken'</script>"
    "<img src=x onerror=\"document.title = 'broken'\">\n<b>Tom</b>"
)
TOOLS = """
const $$ = (id) => document.getElementById(id);
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const until = async (condition) => { while (!condition()) await wait(10); };
const say = (id) => $$(id).textContent;
const tokens = () => [...document.querySelectorAll('.token:not(.given)')];
const text = () => [...document.querySelectorAll('.token')]
  .map((t) => t.textContent).join('');
const set = (id, value) => {
  $$(id).value = value;
  $$(id).dispatchEvent(new Event('input', { bubbles: true }));
};
const point = (t) => tokens()[t].querySelector('.ink').dispatchEvent(
  new PointerEvent('pointerover', { bubbles: true }));
const press = (key) => document.activeElement.dispatchEvent(
  new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }));
const chosen = () => tokens().findIndex((t) => t.classList.contains('chosen'));
const rows = () => [...document.querySelectorAll('#candidates tr')].map((row) =>
  [...row.children].map((cell) => cell.textContent));
const dials = (how) => {
  for (const name of Object.keys(how)) set(name, how[name]);
};
"""


class Browser:
    """A playground and headless Chromium in front of it."""

    def __init__(self, playground):
        self.playground, self.answered = playground, threading.Event()
        browser = self

        class WithAnswers(playground.quest.Handler):
            def do_POST(self):
                if self.path != "/answer":
                    return super().do_POST()
                length = int(self.headers["Content-Length"])
                browser.answer = json.loads(self.rfile.read(length))
                browser.answered.set()
                self.answer(200, "")

        playground.server.RequestHandlerClass = WithAnswers

    def run(self, script, folder):
        """Open the page, run the script in it -> (what it returns, the console)."""
        server = self.playground.server
        script = (
            f"<script>(async () => {{{TOOLS}{script}}})().catch(String).then("
            "(answer) => fetch('/answer', { method: 'POST',"
            " body: JSON.stringify(answer) }));</script>"
        )
        page, self.answer = server.page, None
        self.answered.clear()
        server.page = page.replace("</body>", script + "</body>")
        try:
            said = visit(f"http://127.0.0.1:{server.port}/", folder, self.answered)
        finally:
            server.page = page
        assert self.answer is not None, f"the page came to no end:\n{said}"
        return self.answer, [line for line in said.splitlines() if "CONSOLE" in line]


def visit(url, folder, seen, *more):
    """Let Chromium show an address until `seen` is set -> what it wrote to stderr."""
    if not CHROMIUM:
        pytest.skip("no Chromium to open the page with")
    log = folder / "stderr.txt"
    with open(log, "w") as stderr:
        command = [CHROMIUM, *FLAGS, *more, f"--user-data-dir={folder / 'profile'}"]
        process = subprocess.Popen(
            [*command, "--remote-debugging-port=0", url],  # so that it stays
            stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True,
        )  # fmt: skip
        try:
            seen.wait(120)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # it and its helpers
            process.wait()
    return log.read_text("utf-8", "replace")


@pytest.fixture
def browser(quest, gpt, tokenizer):
    """A browser in front of a playground that takes 10 ms for a token."""
    model = lively(gpt, CONFIG | {"context": 128}, seed=3)
    with Playground(quest, Slow(model, 0.01), tokenizer) as playground:
        yield Browser(playground)


def test_a_story_streams_in_and_every_choice_can_be_looked_at(browser, tmp_path):
    # Typing and dials first; then we look several times while it is written.
    script = """
        dials({ beginning: 'Tom said', temperature: 1.2, top_k: 4, top_p: 0.95,
                min_p: 0, length: 60, seed: 11 });
        const labels = ['temperature', 'top_k', 'top_p', 'min_p', 'length']
          .map((name) => say(name + '-now'));
        $$('beginning').focus();
        press('Enter');
        const counts = [], states = new Set();
        while (!$$('stop').disabled || counts.length < 3) {
          counts.push(tokens().length);
          states.add(say('status').replace(/\\d+/g, '#'));
          await wait(40);
        }
        const newest = chosen() === tokens().length - 1;
        const given = [...document.querySelectorAll('.given')]
          .map((t) => t.textContent);
        const looks = [0, 5, tokens().length - 1].map((t) => {
          point(t);
          return [chosen(), say('what'), say('facts'), rows()];
        });
        tokens()[3].click();  // held
        point(5);
        const held = [chosen(), say('what').includes('(held)')];
        tokens()[3].click();
        point(5);
        held.push(chosen());
        const walked = [];
        tokens()[5].focus();
        for (const key of ['ArrowRight', 'ArrowLeft', 'ArrowLeft', 'Home', 'ArrowLeft',
                           'End', 'ArrowRight']) {
          press(key);
          walked.push(chosen() === tokens().indexOf(document.activeElement)
            && chosen());
        }
        return { labels, counts, states: [...states], given, looks, held, walked,
                 newest, text: text(), count: tokens().length, status: say('status') };
    """
    answer, console = browser.run(script, tmp_path)
    assert not console, console
    assert answer["labels"] == ["1.20", "10", "0.95", "off", "60 tokens"]
    wish = {"temperature": 1.2, "top_k": 10, "top_p": 0.95, "min_p": 0}
    wish |= {"length": 60, "seed": 11}
    events = browser.playground.tell(text="Tom said", **wish)
    chosen = [event for event in events if "id" in event and event["text"]]
    assert answer["count"] == len(chosen) > 10
    assert "".join(answer["given"]) == "Tom said"
    whole = "".join(event.get("text", "") for event in events)
    assert answer["text"] == "Tom said" + whole.replace("\n", "↵\n")
    counts = answer["counts"]
    assert counts == sorted(counts) and len(set(counts)) >= 4, "it came all at once"
    assert "Writing: # tokens" in answer["states"]
    number = sum("id" in event for event in events)
    assert answer["status"].startswith(f"{number} tokens, seed 11. The end: ")
    assert answer["newest"]  # while nobody points, the newest choice is shown
    for t, (place, what, facts, rows) in zip([0, 5, -1], answer["looks"]):
        event = chosen[t]
        assert place == t % len(chosen)
        assert what == event["text"].replace(" ", "_").replace("\n", "↵")
        expected = [row[1:] for row in event["candidates"]]
        if event["id"] not in [row[0] for row in event["candidates"]]:
            expected.append([what, *event["chance"]])
        shown = [[n, f"{100 * a:.1f} %", f"{100 * b:.1f} %"] for n, a, b in expected]
        assert close(rows, shown), (rows, shown)
        was, now = (f"{bits:.2f}" for bits in event["entropy"])
        assert f"{was} bits of entropy, then {now}; {event['left']} tokens" in facts
    assert answer["held"] == [3, True, 5]
    last = len(chosen) - 1
    assert answer["walked"] == [6, 5, 4, 0, 0, last, last]


def test_stop_ends_the_story_on_both_sides_and_the_next_one_begins(browser, tmp_path):
    script = """
        dials({ beginning: '', temperature: 1, top_k: 99, top_p: 1, min_p: 0,
                length: 1000, seed: 3 });
        $$('tell').click();
        await until(() => tokens().length > 5);
        const before = [$$('stop').disabled, say('notes')];
        $$('stop').click();
        await until(() => $$('stop').disabled);
        const stopped = tokens().length, status = say('status');
        await wait(300);
        const later = tokens().length;
        dials({ beginning: 'Another', length: 7 });
        $$('tell').click();
        await until(() => tokens().length > 2);
        $$('tell').click();  // once more, in the middle: from the beginning
        await until(() => say('status').includes('The end'));
        return { before, stopped, later, status, text: text(), end: say('status') };
    """
    answer, console = browser.run(script, tmp_path)
    assert not console, console
    assert answer["before"] == [False, "an empty prompt: the model begins by itself"]
    assert re.fullmatch(r"Stopped by you after \d+ tokens, seed 3\.", answer["status"])
    assert answer["stopped"] == answer["later"] < 1000
    wish = {"temperature": 1, "top_k": None, "top_p": 1, "min_p": 0}
    wish |= {"length": 7, "seed": 3}
    events = browser.playground.tell(text="Another", **wish)
    whole = "".join(event.get("text", "") for event in events)
    assert answer["text"] == "Another" + whole.replace("\n", "↵\n")
    assert answer["end"].startswith(f"{sum('id' in e for e in events)} tokens, seed 3.")
    until(lambda: not browser.playground.server.open)


def test_text_stays_text_and_trouble_is_told(browser, tmp_path, monkeypatch):
    ids = browser.playground.tokenizer.encode(NASTY)

    def scripted(model, *_):  # this story is the beginning once more
        for i in ids:
            model.hidden(torch.tensor([[i]]), model.new_cache())
            yield [i]

    monkeypatch.setattr(browser.playground.quest.sample, "generate", scripted)
    script = f"""
        const nasty = {json.dumps(NASTY).replace("</", "<" + chr(92) + "/")};
        dials({{ beginning: nasty, length: 500 }});
        $$('tell').click();
        await until(() => $$('stop').disabled);
        const told = text(), end = say('status');
        for (let t = 0; t < tokens().length; t++) point(t);
        const strange = document.querySelectorAll('#story img, #story b, #story script')
          .length;
        set('beginning', 'a'.repeat(2001));
        $$('tell').click();
        await until(() => $$('status').classList.contains('trouble'));
        return {{ told, end, strange, title: document.title, trouble: say('status') }};
    """
    answer, console = browser.run(script, tmp_path)
    shown = NASTY.replace("\n", "↵\n")
    assert answer["told"] == shown + shown
    assert answer["strange"] == 0 and answer["title"] == "Playground"
    assert answer["trouble"] == "A beginning is text, at most 2,000 characters."
    # The browser itself reports the refusal of the last wish, and nothing else.
    assert all("status of 400" in line for line in console), console


def test_a_foreign_page_reaches_no_story_in_a_real_browser(browser, tmp_path):
    """evil.example leads to 127.0.0.1, as after DNS rebinding; its pages try it all."""
    port, got, seen = browser.playground.port, {}, threading.Event()
    script = f"""
        const tries = {{}};
        const send = async (name, ...asked) => {{
          try {{
            const answer = await fetch(...asked);
            tries[name] = [answer.type, answer.status, await answer.text()];
          }} catch (error) {{ tries[name] = 'failed'; }}
        }};
        const text = JSON.stringify({{ text: 'evil' }});
        (async () => {{
          const json = {{ method: 'POST', body: text,
            headers: {{ 'Content-Type': 'application/json' }} }};
          for (const name of ['127.0.0.1', 'localhost', 'evil.example']) {{
            const story = 'http://' + name + ':{port}/story';
            await send('form ' + name, story,
              {{ method: 'POST', mode: 'no-cors', body: text }});
            await send('json ' + name, story, json);
            await send('page ' + name, 'http://' + name + ':{port}/');
          }}
          await fetch('/seen', {{ method: 'POST', body: JSON.stringify(tries) }});
        }})();
    """

    class Evil(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(f"<script>{script}</script>".encode())

        def do_POST(self):
            length = int(self.headers["Content-Length"])
            got.update(json.loads(self.rfile.read(length)))
            self.send_response(204)
            self.end_headers()
            seen.set()

        def log_message(self, *_):
            pass

    evil = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Evil)
    threading.Thread(target=evil.serve_forever, args=(0.02,), daemon=True).start()
    mapped = "--host-resolver-rules=MAP evil.example 127.0.0.1"
    url = f"http://evil.example:{evil.server_address[1]}/"
    heard = []
    browser.playground.server.line.join = heard.append
    try:
        said = visit(url, tmp_path, seen, mapped)
    finally:
        evil.shutdown()
        evil.server_close()
    assert len(got) == 9, said
    assert not heard, "a stranger's wish stands in the line"
    for name, what in got.items():
        # Failed, or an answer that the browser hides from the page.
        assert what == "failed" or what == ["opaque", 0, ""], (name, what)
    assert browser.playground.server.strangers > 0  # some of it did arrive here


def test_the_page_needs_nothing_from_elsewhere():
    source = PAGE.read_text("utf-8")
    assert source.count("/*DATA*/null") == 1
    assert not re.search(r"https?:|<link|src=|@import|innerHTML", source)
