"""playground.html in a real browser: type, watch, point, stop; and attack.

One session of Chromium shows the page that the server sends, with one more script,
which types, clicks and points as a reader would and sends what the page then shows to
/answer, a path that only this test has. Time is real here: the words come while we
look. Then the same browser visits a page of evil.example, whose name leads to this
computer; what that page achieves is sent to /answer too.
"""
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import threading

import pytest
import torch
from conftest import ROOT
from test_playground import SIZES, Playground, Slow, quest, tokenizer, until
from test_take_home import lively

__all__ = ["quest", "tokenizer"]  # fixtures

PAGE = ROOT / "lessons" / "pages" / "playground.html"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    " --disable-background-networking --disable-component-update --disable-sync"
    " --enable-logging=stderr --remote-debugging-port=0"
).split()
# What would end the page's script, or run one, if a text could.
NASTY = (
    "</script><script>document.title = 'broken'</script>"
    "<img src=x onerror=\"document.title = 'broken'\">\n<b>Tom</b>"
)
TOOLS = """
const $$ = (id) => document.getElementById(id);
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const until = async (condition) => {
  for (let i = 0; !condition(); i++) {
    if (i > 6000) throw 'it has not happened: ' + condition;
    await wait(5);
  }
};
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
const sliders = (values) => {
  for (const name of Object.keys(values)) set(name, values[name]);
};
const send = (name, answer) => fetch('/answer/' + name,
  { method: 'POST', body: JSON.stringify(answer) });
"""
# Typing and sliders first; then we look several times while the story is generated.
STREAM = """
sliders({ beginning: 'Tom said', temperature: 1.2, top_k: 4, top_p: 0.95, min_p: 0,
          length: 60, seed: 11 });
const labels = ['temperature', 'top_k', 'top_p', 'min_p', 'length']
  .map((name) => say(name + '-now'));
$$('beginning').focus();
press('Enter');
const counts = [], states = new Set();
while (!$$('stop').disabled || counts.length < 3) {
  counts.push(tokens().length);
  states.add(say('status').replace(/\\d+/g, '#'));
  await wait(20);
}
const newest = chosen() === tokens().length - 1;
const given = [...document.querySelectorAll('.given')].map((t) => t.textContent);
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
for (const key of ['ArrowRight', 'ArrowLeft', 'ArrowLeft', 'Home', 'ArrowLeft', 'End',
                   'ArrowRight']) {
  press(key);
  walked.push(chosen() === tokens().indexOf(document.activeElement) && chosen());
}
return { labels, counts, states: [...states], given, looks, held, walked, newest,
         text: text(), count: tokens().length, status: say('status') };
"""
STOP = """
sliders({ beginning: '', temperature: 1, top_k: 99, top_p: 1, min_p: 0, length: 1000,
          seed: 3 });
$$('tell').click();
await until(() => tokens().length > 5);
const before = [$$('stop').disabled, say('notes')];
$$('stop').click();
await until(() => $$('stop').disabled);
const stopped = tokens().length, status = say('status');
await wait(100);  // ten tokens' time
const later = tokens().length;
sliders({ beginning: 'Another', length: 7 });
$$('tell').click();
await until(() => tokens().length > 2);
$$('tell').click();  // once more, in the middle: from the beginning
await until(() => say('status').includes('The end'));
return { before, stopped, later, status, text: text(), end: say('status') };
"""
ESCAPE = """
const nasty = NASTY;
sliders({ beginning: nasty, length: 500 });
$$('tell').click();
await until(() => $$('stop').disabled);
const shown = text(), end = say('status');
for (let t = 0; t < tokens().length; t++) point(t);
const foreign = document.querySelectorAll('#story img, #story b, #story script').length;
set('beginning', 'a'.repeat(2001));
$$('tell').click();
await until(() => $$('status').classList.contains('trouble'));
return { shown, end, foreign, title: document.title, trouble: say('status') };
"""
# On a page of evil.example: three names of this computer, three ways to ask it.
ATTACK = """
const tries = {};
const attempt = async (name, ...request) => {
  try {
    const answer = await fetch(...request);
    tries[name] = [answer.type, answer.status, await answer.text()];
  } catch (error) { tries[name] = 'failed'; }
};
const body = JSON.stringify({ text: 'evil' });
const json = { method: 'POST', body, headers: { 'Content-Type': 'application/json' } };
for (const name of ['127.0.0.1', 'localhost', 'evil.example']) {
  const story = 'http://' + name + ':PORT/story';
  await attempt('form ' + name, story, { method: 'POST', mode: 'no-cors', body });
  await attempt('json ' + name, story, json);
  await attempt('page ' + name, 'http://' + name + ':PORT/');
}
return tries;
"""


class Answers:
    """Mixed into a handler: keeps what scripts send to /answer/NAME."""

    answers, complete = {}, threading.Event()

    def do_POST(self):
        if not self.path.startswith("/answer/"):
            return super().do_POST()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answers[self.path.rpartition("/")[2]] = json.loads(body)
        self.send_response(200)
        self.end_headers()
        if "attack" in self.answers:
            self.complete.set()


class Evil(Answers, http.server.BaseHTTPRequestHandler):
    """The server of evil.example: every address has the same page."""

    page = ""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(self.page.encode())

    def log_message(self, *_):
        pass


def script(*parts, then=""):
    """A script element that runs parts (name, code), one after the other."""
    runs = "".join(
        f"await send('{name}', await (async () => {{{code}}})().catch(String));\n"
        for name, code in parts
    )
    return f"<script>{TOOLS}(async () => {{{runs}{then}}})();</script>"


@pytest.fixture(scope="module")
def visited(quest, gpt, tokenizer, tmp_path_factory):
    """-> (playground, {part: what its script found}, console, texts asked for)."""
    if not CHROMIUM:
        pytest.skip("no Chromium to open the page with")
    model = lively(gpt, 3, vocab_size=260, **SIZES | {"block_size": 128})
    folder = tmp_path_factory.mktemp("chromium")
    answers, asked = {}, []
    Answers.answers, Answers.complete = answers, threading.Event()
    evil = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Evil)
    threading.Thread(target=evil.serve_forever, args=(0.02,), daemon=True).start()
    generate, nasty_ids = quest.sample.generate, tokenizer.encode(NASTY)

    def scripted(its_model, prompts, *rest):  # a nasty beginning is continued by itself
        if prompts[0][1:] != nasty_ids:
            yield from generate(its_model, prompts, *rest)
            return
        for i in nasty_ids:
            cache = its_model.new_cache()
            quest.sample.last_logits(its_model, torch.tensor([[i]]), cache)
            yield [i]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quest.sample, "generate", scripted)
        with Playground(quest, Slow(model, 0.01), tokenizer) as playground:
            server = playground.server
            handler = type("WithAnswers", (Answers, quest.Handler), {})
            server.RequestHandlerClass = handler
            join = server.line.join
            server.line.join = lambda story: (asked.append(story.text), join(story))
            nasty = json.dumps(NASTY).replace("</", "<\\/")
            Evil.page = script(("attack", ATTACK.replace("PORT", str(server.port))))
            to_evil = f"location = 'http://evil.example:{evil.server_address[1]}/';"
            parts = [("stream", STREAM), ("stop", STOP)]
            parts += [("escape", ESCAPE.replace("NASTY", nasty))]
            more = script(*parts, then=to_evil)
            server.page = server.page.replace("</body>", more + "</body>")
            with open(folder / "stderr.txt", "w") as stderr:
                mapped = "--host-resolver-rules=MAP evil.example 127.0.0.1"
                profile = f"--user-data-dir={folder / 'profile'}"
                url = f"http://127.0.0.1:{server.port}/"
                process = subprocess.Popen(
                    [CHROMIUM, *FLAGS, mapped, profile, url],
                    stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True,
                )  # fmt: skip
                try:
                    Answers.complete.wait(120)
                finally:
                    os.killpg(process.pid, signal.SIGKILL)  # it and its helpers
                    process.wait()
                    evil.shutdown()
                    evil.server_close()
            log = (folder / "stderr.txt").read_text("utf-8", "replace")
            assert len(answers) == 4, f"the pages came to no end: {answers}\n{log}"
            console = [line for line in log.splitlines() if "CONSOLE" in line]
            yield playground, answers, console, asked


def close(rows, expected):
    """Equal tables, but for the last digit of percentages."""
    return len(rows) == len(expected) and all(
        abs(float(a[:-2]) - float(b[:-2])) < 0.11 if a.endswith(" %") else a == b
        for row, other in zip(rows, expected)
        for a, b in zip(row, other, strict=True)
    )


def test_a_story_streams_in_and_every_choice_can_be_looked_at(visited):
    playground, answers, _, _ = visited
    answer = answers["stream"]
    assert answer["labels"] == ["1.20", "10", "0.95", "off", "60 tokens"], answer
    wish = {"temperature": 1.2, "top_k": 10, "top_p": 0.95, "min_p": 0}
    wish |= {"length": 60, "seed": 11}
    events = playground.tell(text="Tom said", **wish)
    chosen = [event for event in events if "id" in event and event["text"]]
    assert answer["count"] == len(chosen) > 10
    assert "".join(answer["given"]) == "Tom said"
    whole = "".join(event.get("text", "") for event in events)
    assert answer["text"] == "Tom said" + whole.replace("\n", "↵\n")
    counts = answer["counts"]
    assert counts == sorted(counts) and len(set(counts)) >= 4, "it came all at once"
    assert "Generating: # tokens" in answer["states"]
    number = sum("id" in event for event in events)
    assert answer["status"].startswith(f"{number} tokens, seed 11. The end: ")
    assert answer["newest"]  # while nobody points, the newest choice is shown
    for t, (position, what, facts, rows) in zip([0, 5, -1], answer["looks"]):
        event = chosen[t]
        assert position == t % len(chosen)
        assert what == event["text"].replace(" ", "_").replace("\n", "↵")
        expected = [row[1:] for row in event["candidates"]]
        if event["id"] not in [row[0] for row in event["candidates"]]:
            expected.append([what, *event["prob"]])
        shown = [[n, f"{100 * a:.1f} %", f"{100 * b:.1f} %"] for n, a, b in expected]
        assert close(rows, shown), (rows, shown)
        was, now = (f"{bits:.2f}" for bits in event["entropy"])
        left = "1 token was" if event["left"] == 1 else f"{event['left']} tokens were"
        assert f"entropy was {was} bits, then {now}; {left} left." in facts
    assert answer["held"] == [3, True, 5]
    last = len(chosen) - 1
    assert answer["walked"] == [6, 5, 4, 0, 0, last, last]


def test_stop_ends_the_story_on_both_sides_and_the_next_one_begins(visited):
    playground, answers, _, _ = visited
    answer = answers["stop"]
    assert answer["before"][0] is False and "empty prompt" in answer["before"][1]
    assert re.fullmatch(r"Stopped by you after \d+ tokens, seed 3\.", answer["status"])
    assert answer["stopped"] == answer["later"] < 1000
    wish = {"temperature": 1, "top_k": None, "top_p": 1, "min_p": 0}
    wish |= {"length": 7, "seed": 3}
    events = playground.tell(text="Another", **wish)
    whole = "".join(event.get("text", "") for event in events)
    assert answer["text"] == "Another" + whole.replace("\n", "↵\n")
    assert answer["end"].startswith(f"{sum('id' in e for e in events)} tokens, seed 3.")
    until(lambda: not playground.server.open)


def test_text_stays_text_and_trouble_is_reported(visited):
    _, answers, console, _ = visited
    answer, shown = answers["escape"], NASTY.replace("\n", "↵\n")
    assert answer["shown"] == shown + shown
    assert answer["foreign"] == 0 and answer["title"] == "Playground"
    assert answer["trouble"] == "A beginning is text, at most 2,000 characters."
    # The browser itself reports refusals, of that request and of the attacks.
    assert all("status of 4" in line or "evil.example" in line for line in console)


def test_a_foreign_page_reaches_no_story_in_a_real_browser(visited):
    playground, answers, _, asked = visited
    assert len(answers["attack"]) == 9
    assert "evil" not in asked, "a foreign request waits in the queue"
    for name, what in answers["attack"].items():
        # Failed, or an answer that the browser hides from the page.
        assert what == "failed" or what == ["opaque", 0, ""], (name, what)
    assert playground.server.strangers > 0  # some of it did arrive here


def test_the_page_needs_nothing_from_elsewhere():
    source = PAGE.read_text("utf-8")
    assert source.count("/*DATA*/null") == 1
    assert not re.search(r"https?:|<link|src=|@import|innerHTML", source)
