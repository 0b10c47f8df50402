"""The page that holds a model computes what Python computes, and survives its users.

The page's own programs run twice here: in node, without a browser, where thousands of
numbers are compared; and in headless Chromium, from file:// and without a network,
where one more script types, clicks and switches as a reader would.
"""
import base64
import copy
import dataclasses
import doctest
import html
import importlib
import json
import random
import re
import shutil
import struct
import subprocess
import sys
import unicodedata
import zlib

import numpy as np
import pytest
import torch
from conftest import ROOT
from test_01_bpe import random_string

ME = "lessons/quests/pocket.py"
PAGES = ROOT / "lessons" / "pages"
NODE = shutil.which("node")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    " --disable-background-networking --disable-component-update --disable-sync"
    " --enable-logging=stderr --virtual-time-budget=60000 --dump-dom"
).split() + ["--host-resolver-rules=MAP * ~NOTFOUND"]  # no network
BOS, EOS = 2, 3
# What would end the page's script, and its page, if a text could.
NASTY = "</script><script>document.title = 'broken'</script><b>Tom</b> <EOS>"
PLAIN = {"temperature": 1.0, "top_k": None, "top_p": 1.0, "min_p": 0.0}
SETTINGS = [  # greedy; each sampler alone; all of them
    PLAIN | {"temperature": 0.0}, PLAIN, PLAIN | {"top_k": 5}, PLAIN | {"top_p": 0.7},
    PLAIN | {"min_p": 0.2},
    {"temperature": 0.7, "top_k": 20, "top_p": 0.9, "min_p": 0.05},
]  # fmt: skip


@pytest.fixture(scope="module")
def quest():
    sys.path.append(str(ROOT / "lessons" / "quests"))
    return importlib.import_module("pocket")


@pytest.fixture(scope="module")
def tokenizer(prepared, bpe):
    """The tokenizer of the small text, 400 tokens."""
    return bpe.Tokenizer.load(prepared / "artifacts/01_bpe/tokenizer.json")


def lively(gpt, **sizes):
    """A random model whose tokens differ in probability."""
    torch.manual_seed(5)
    sizes = {"vocab_size": 400, "block_size": 64, "n_layer": 2, "n_head": 2} | sizes
    model = gpt.GPT(gpt.GPTConfig(**{"n_embd": 32} | sizes)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(3)
            else:
                weight.normal_(1, 0.1)  # norms that are all 1 would hide a swap
    return model


def write_page(bpe, quest, model, tokenizer, folder, bits=8, **changes):
    """-> (path of a page, the model as Python reads it from the page's data)."""
    content = quest.page_data(model, tokenizer, bits) | changes
    page = folder / "model.html"
    page.write_text(bpe.fill_page("pocket.html", content), "utf-8")
    return page, quest.page_model(content)


@pytest.fixture(scope="module")
def world(bpe, gpt, quest, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pocket")
    return write_page(bpe, quest, lively(gpt), tokenizer, folder)


# ------------------------------------------------------- the page's programs in node


def in_node(page, script, given, folder):
    """Run the scripts of a page and one that sees `given`; -> what that one returns."""
    if not NODE:
        pytest.skip("no node to run the page's programs with")
    text = page.read_text("utf-8")
    parts = re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL)
    assert len(parts) == 3, "the model, the page, the data"
    (folder / "data.json").write_text(parts.pop(), "utf-8")
    (folder / "given.json").write_text(json.dumps(given), "utf-8")
    before = """
        const fs = require("fs");
        const read_file = (name) => fs.readFileSync(__dirname + "/" + name, "utf8");
        const data = { textContent: read_file("data.json") };
        globalThis.document = { addEventListener() {},
          getElementById: (id) => id === "data" ? data : null };
    """
    after = "\nconst wrong = load();\nconst answer = ((given) => {" + script + "\n})("
    after += 'JSON.parse(read_file("given.json")));\n'
    after += 'fs.writeFileSync(__dirname + "/answer.json", JSON.stringify(answer));'
    file = folder / "page.js"
    file.write_text("\n".join([before, *parts, after]), "utf-8")
    done = subprocess.run([NODE, file], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "answer.json").read_text("utf-8"))


LOGITS = """
    const all = [];
    for (const ids of given) {
      const reader = new Reader(model);
      for (const _ of ids) all.push(reader.read(ids));
    }
    const bytes = Buffer.concat(all.map((row) => Buffer.from(row.buffer)));
    fs.writeFileSync(__dirname + "/logits.bin", bytes);
    return wrong ?? null;
"""
STORIES = """
    return given.map(([prompt, length, settings, seed]) => {
      const ids = [...prompt], rng = new MersenneTwister(seed);
      for (const step of generate(new Reader(model), ids, settings, rng))
        if (ids.length >= prompt.length + length) break;
      return ids.slice(prompt.length);
    });
"""


def compare_logits(page, model, prompts, folder):
    """-> (largest difference, is the likeliest token the same at every position)."""
    assert in_node(page, LOGITS, prompts, folder) is None
    rows = np.fromfile(folder / "logits.bin", "<f4")
    rows = rows.reshape(-1, model.config.vocab_size)  # (all positions, V)
    with torch.no_grad():
        right = torch.cat([model(torch.tensor([ids]))[0][0] for ids in prompts]).numpy()
    assert rows.shape == right.shape
    return abs(rows - right).max(), (rows.argmax(1) == right.argmax(1)).all()


def compare_stories(page, model, wanted, folder):
    """-> pairs (by the page, by 06); wanted: [(prompt, length, settings, seed)]."""
    sample = importlib.import_module("06_sample")
    theirs = in_node(page, STORIES, wanted, folder)
    ours = [sample.generate_all(model, [p], *rest)[0] for p, *rest in wanted]
    return list(zip(theirs, ours))


@pytest.mark.parametrize(
    "bits, sizes",
    [(8, {}), (32, {"n_layer": 1, "n_head": 3, "n_embd": 33}), (8, {"bias": True})],
    ids=["8 bits", "float32, a width that 4 does not divide", "biases"],
)
def test_logits_at_every_position_are_those_of_python(
    bpe, gpt, quest, tokenizer, tmp_path, bits, sizes
):
    page, model = write_page(
        bpe, quest, lively(gpt, **sizes), tokenizer, tmp_path, bits
    )
    rng = random.Random(2)
    prompts = [[BOS, *rng.choices(range(4, 400), k=rng.randint(0, 63))] for _ in "1234"]
    prompts.append([BOS, *range(4, 67)])  # a whole context
    largest, same = compare_logits(page, model, prompts, tmp_path)
    assert largest < 1e-3 and same


def test_stories_are_those_of_06_to_the_last_token(world, tokenizer, tmp_path):
    page, model = world
    beginnings = ["", "Once upon a time", "x" * 40, "The dog and the cat went"]
    wanted = [  # 100 tokens: more than the context of 64, which must slide
        [[BOS, *tokenizer.encode(text)], 100, settings, seed]
        for seed, (text, settings) in enumerate(zip(beginnings * 2, SETTINGS))
    ]
    pairs = compare_stories(page, model, wanted, tmp_path)
    for (_, _, settings, seed), (theirs, ours) in zip(wanted, pairs):
        assert theirs == ours, (settings, seed)
    assert sum(len(ours) > 70 for _, ours in pairs) > 3, "no story slides"


def test_token_ids_are_those_of_python(world, tokenizer, tmp_path):
    rng = random.Random(4)
    known = map(chr, range(1, 0x20000))
    known = [c for c in known if unicodedata.category(c)[0] != "C"]
    strings = [random_string(rng, known) for _ in range(1500)]
    strings += ["", NASTY, "\ud800", "a\udc00b", "\ufeffx", "é" * 300]
    given = [text.encode("utf-16-le", "surrogatepass").hex() for text in strings]
    script = """
        const whole = (hex) => Buffer.from(hex, "hex").toString("utf16le");
        return given.map((hex) => {
          const ids = tokenizer.encode(whole(hex));
          return [ids, tokenizer.decode([BOS, ...ids, EOS])];
        });"""
    answers = in_node(world[0], script, given, tmp_path)
    for text, (ids, decoded) in zip(strings, answers):
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        assert ids == tokenizer.encode(text) and decoded == text, repr(text)


def test_an_edit_of_03_that_the_page_does_not_know_is_noticed(
    bpe, gpt, quest, tokenizer, tmp_path, monkeypatch
):
    # README's experiment 19: the same weights, another activation function
    relu = lambda x, approximate: torch.nn.functional.relu(x)  # noqa: E731
    monkeypatch.setattr(gpt.F, "gelu", relu)
    page, _ = write_page(bpe, quest, lively(gpt), tokenizer, tmp_path)
    assert "03_model.py" in in_node(page, "return wrong;", [], tmp_path)


def test_the_random_numbers_are_those_of_torch(world, tmp_path):
    # 700 numbers of 64 bits: the state of 624 words is made anew twice
    script = """
        return given.map((seed) => {
          const rng = new MersenneTwister(seed);
          return Array.from({ length: 700 }, () => rng.random());
        });"""
    seeds = [0, 1, 2**31]
    for seed, numbers in zip(seeds, in_node(world[0], script, seeds, tmp_path)):
        rng = torch.Generator().manual_seed(seed)
        assert numbers == torch.rand(700, generator=rng, dtype=torch.float64).tolist()


# ------------------------------------------------------------------ in a real browser

TOOLS = """
    const tokens = () => [...document.querySelectorAll('.token')];
    const textOf = (id) => $(id).textContent;
    const set = (id, value) => {
      $(id).value = value;
      $(id).dispatchEvent(new Event('input', { bubbles: true }));
    };
    const press = (node, key) => node.dispatchEvent(
      new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }));
    const tick = () => new Promise((done) => setTimeout(done, 5));
    const until = async (condition) => {
      for (let i = 0; !condition(); i++) {
        if (i > 4000) throw 'it has not happened: ' + condition;
        await tick();
      }
    };
    const quiet = () => until(() => $('stop').disabled);
    const rows = () => [...document.querySelectorAll('#candidates tr')].map((row) =>
      [...row.children].map((cell) => cell.textContent));
    const tell = async (text, more = {}) => {
      const wish = { beginning: text, temperature: 1, top_k: ks.length - 1, top_p: 1,
                     min_p: 0, length: 30, seed: 7, ...more };
      for (const [id, value] of Object.entries(wish)) set(id, value);
      $('go').click();
      await quiet();
    };
"""


def in_page(page, script, folder, expected="nothing"):
    """Open the page with one script more; -> what it returns. Nothing but `expected`
    may be written to the console, and nothing may be asked for from elsewhere."""
    if not CHROMIUM:
        pytest.skip("no Chromium to open the page with")
    more = (
        "<script>(async () => {"
        "await new Promise((done) => addEventListener('load', done));"
        + TOOLS + script + "})().catch(String).then((answer) => {\n"
        "const pre = document.createElement('pre'); pre.id = 'answer';\n"
        "const asked = performance.getEntriesByType('resource').map((r) => r.name);\n"
        "pre.textContent = JSON.stringify([answer, asked]);\n"
        "document.body.append(pre); });"
        "</script>"
    )  # fmt: skip
    head, tail = page.read_text("utf-8").rsplit("</body>", 1)
    changed = folder / "with_script.html"
    changed.write_text(head + more + "</body>" + tail, "utf-8", "surrogatepass")
    profile = f"--user-data-dir={folder / 'profile'}"
    done = subprocess.run(
        [CHROMIUM, *FLAGS, profile, changed.as_uri()], capture_output=True, timeout=120
    )
    console = done.stderr.decode("utf-8", "replace")
    said = [line for line in console.splitlines() if "CONSOLE" in line]
    assert all(expected in line for line in said), said
    found = re.search(rb'<pre id="answer">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, f"the script did not finish:\n{console}"
    answer, asked = json.loads(html.unescape(found[1].decode("utf-8")))
    assert not isinstance(answer, str), answer
    assert asked == []
    return answer


# Each step leaves what it saw in `seen`; the tests below look at one of them each.
VISIT = """
    const seen = {};
    await tell('Tom said');
    seen.story = { ids: [...ids], given, status: textOf('status'),
      shown: textOf('story'), bars: document.querySelectorAll('#chart rect').length, plain: textOf('plain'),
      sure: $('chart').firstChild.getAttribute('aria-label') };
    tokens()[9].click();
    $('layer').value = '1'; $('head').value = '0';
    $('head').dispatchEvent(new Event('change'));
    seen.token = { selected, what: textOf('what'), facts: textOf('facts'), rows: rows(),
      attended: [...document.querySelectorAll('#attended li')].map((li) =>
        [li.firstChild.textContent, parseFloat(li.lastChild.textContent)]) };
    set('top_k', 1);  // two tokens: the column of the samplers follows the slider
    seen.kept = textOf('facts');
    set('top_k', ks.length - 1);
    seen.walked = [];
    tokens()[9].focus();
    for (const key of ['ArrowRight', 'ArrowLeft', 'ArrowLeft', 'Home', 'ArrowLeft',
                       'End', 'ArrowRight']) {
      press(document.activeElement, key);
      seen.walked.push([selected, Number(document.activeElement.dataset.t)]);
    }
    seen.stops = tokens().filter((token) => token.tabIndex === 0).length;
    tokens()[9].click();
    const other = [...document.querySelectorAll('#candidates button:enabled')][1];
    seen.label = other.getAttribute('aria-label');
    other.click();
    await quiet();
    seen.branch = { ids: [...ids],
      mine: tokens().findIndex((t) => t.classList.contains('mine')) };

    await tell('Tom said', { length: 12 });
    seen.cut = { ids: [...ids], status: textOf('status') };
    $('continue').click();
    await quiet();
    seen.continued = [...ids];

    const box = document.querySelectorAll('#switches input')[1];  // layer 1, head 2
    const probabilities = () => steps.map((step) => step.probability);
    seen.on = probabilities();
    box.click();
    await quiet();
    seen.off = { probabilities: probabilities(), effect: textOf('effect'),
      full: [...full] };
    const mlp = document.querySelectorAll('#switches input')[2];
    mlp.click();
    await tell('Tom said', { length: 12 });
    seen.without = [...ids];
    $('all-on').click();
    await quiet();
    seen.again = { effect: textOf('effect'),
      boxes: document.querySelectorAll('#switches input:checked').length };

    let now = 0;  // a clock that runs while the page computes, so that it pauses
    const clock = performance.now;
    performance.now = () => (now += 10);
    new MutationObserver((_, self) => {
      if (tokens().length < 20) return;
      press(document.body, 'Escape');
      self.disconnect();
    }).observe($('story'), { childList: true });
    await tell('Tom', { length: 1000 });
    seen.stopped = [textOf('story').length, textOf('status'), $('continue').disabled];
    const count = ids.length;
    await tick();
    seen.stopped.push(ids.length, count);
    performance.now = clock;
    $('copy').click();
    await until(() => textOf('status').startsWith('Copied'));
    $('view').click();
    seen.source = [$('source').hidden, $('view').getAttribute('aria-expanded'),
      textOf('source')];

    seen.odd = {};
    for (const text of ['', 'a '.repeat(100), NASTY, 'x\\ud800é😀 ']) {
      await tell(text, { length: 3 });
      seen.odd[text.replace('\\ud800', '?')] = { ids: ids.slice(0, given),
        status: textOf('status'), shown: textOf('story'),
        foreign: document.querySelectorAll('#story b, #story script').length };
    }
    set('seed', '');
    seen.seed = textOf('settings');
    seen.title = document.title;
    const controls = [...document.querySelectorAll('input, select, textarea, button')];
    seen.unnamed = controls.filter((node) =>
      !(node.labels && node.labels.length) && !node.textContent).length;
    seen.overflow = document.documentElement.scrollWidth - innerWidth;
    return seen;
"""


@pytest.fixture(scope="module")
def seen(world, tmp_path_factory):
    nasty = json.dumps(NASTY).replace("</", "<\\/")
    script = VISIT.replace("NASTY", nasty)
    return in_page(world[0], script, tmp_path_factory.mktemp("visit"))


def generated(model, prompt, length, seed=7, skip=0):
    """By 06: the prompt and what follows; `skip` random numbers are used up before."""
    sample = importlib.import_module("06_sample")
    rngs = sample.make_rngs(1, seed)
    torch.rand(skip, generator=rngs[0], dtype=torch.float64)
    columns = sample.generate(model, [prompt], length, PLAIN, rngs)
    return prompt + [token for (token,) in columns if token is not None]


def test_a_story_is_written_and_shown(world, seen, tokenizer):
    prompt, story = [BOS, *tokenizer.encode("Tom said")], seen["story"]
    assert story["ids"] == generated(world[1], prompt, 30)
    assert story["given"] == len(prompt)
    text = tokenizer.decode(story["ids"])
    assert story["plain"] == text
    assert "Tom said" in story["shown"] and "<BOS>" in story["shown"]
    new = len(story["ids"]) - len(prompt)
    assert f"{new} tokens" in story["status"]
    assert story["bars"] == len(story["ids"]) - 1 + 1  # a bar per token, and the mark
    assert "least likely" in story["sure"]


def test_a_click_shows_ten_alternatives_and_the_attention_weights(
    world, seen, tokenizer
):
    sample = importlib.import_module("06_sample")
    token, ids = seen["token"], seen["story"]["ids"]
    logits, attention = sample.look_inside(world[1], torch.tensor(ids))
    probs = logits[8].softmax(dim=0)
    best = probs.topk(10).indices.tolist()
    if ids[9] not in best:
        best.append(ids[9])
    assert token["selected"] == 9 and token["what"].startswith("Token 9: ")
    assert len(token["rows"]) == len(best)
    for i, (_, before, after) in zip(best, token["rows"]):
        assert before == after  # no sampler is on
        assert float(before[:-1]) == pytest.approx(100 * probs[i].item(), abs=0.06)
    entropy = sample.entropy(logits[8])
    assert f"Entropy {entropy:.2f} bits" in token["facts"]
    assert "they keep 400 tokens" in token["facts"]
    assert "they keep 2 tokens" in seen["kept"]
    weights = attention[1, 0, 8, :9]
    expected = (100 * weights.sort(descending=True).values[:5]).tolist()
    shown = [weight for _, weight in token["attended"]]
    assert shown == pytest.approx(expected, abs=0.06)


def test_the_arrow_keys_walk_and_the_focus_follows(seen):
    last = len(seen["story"]["ids"]) - 1
    assert seen["walked"] == [[t, t] for t in (10, 9, 8, 0, 0, last, last)]
    assert seen["stops"] == 1  # the story is one stop of the Tab key


def test_another_token_can_be_chosen_and_the_story_continues_from_there(world, seen):
    before, branch = seen["story"]["ids"], seen["branch"]["ids"]
    assert seen["label"].startswith("choose ") and seen["branch"]["mine"] == 9
    assert branch[:9] == before[:9] and branch[9] != before[9]
    used = 10 - seen["story"]["given"]  # random numbers up to the token that was chosen
    assert branch == generated(world[1], branch[:10], 30, skip=used)


def test_continue_goes_on_as_if_it_had_never_stopped(world, seen):
    cut, continued = seen["cut"], seen["continued"]
    assert "Length reached: 12 tokens" in cut["status"]
    assert continued[: len(cut["ids"])] == cut["ids"]
    prompt = cut["ids"][:-12]
    assert continued == generated(world[1], prompt, 24)


def test_a_head_that_is_switched_off_changes_what_python_says_it_changes(world, seen):
    small, ids = copy.deepcopy(world[1]), torch.tensor([seen["continued"]])

    def probabilities(model):
        with torch.no_grad():
            rows = model(ids[:, :-1])[0][0].softmax(dim=-1)  # (T, V)
        return rows.gather(1, ids[0, 1:, None])[:, 0].tolist()

    assert seen["on"][1:] == pytest.approx(probabilities(small), abs=1e-5)
    with torch.no_grad():
        small.h[0].attn.c_proj.weight[:, 16:] = 0  # what head 2 adds: D = 16
    assert seen["off"]["probabilities"][1:] == pytest.approx(
        probabilities(small), abs=1e-5
    )
    assert seen["off"]["full"][1:] == pytest.approx(seen["on"][1:])
    given = len(seen["cut"]["ids"]) - 12
    for probs in (seen["on"], seen["off"]["probabilities"]):
        loss = -np.log(probs[given:]).mean()
        assert f"{loss:.3f}" in seen["off"]["effect"]
    with torch.no_grad():
        small.h[0].mlp.c_proj.weight[:] = 0
    prompt = seen["cut"]["ids"][:given]
    assert seen["without"] == generated(small, prompt, 12)
    assert seen["again"] == {"effect": "Everything is on.", "boxes": 6}


def test_escape_stops_and_the_story_stays(seen):
    shown, status, cannot_continue, later, count = seen["stopped"]
    assert 20 <= count == later < 100 and status.startswith("Stopped: ")
    assert shown > 20 and cannot_continue is False


def test_the_button_shows_exactly_the_model(seen):
    hidden, expanded, source = seen["source"]
    text = (PAGES / "pocket.html").read_text("utf-8")
    assert not hidden and expanded == "true"
    begin, end = '<script id="model">', "</script>"
    assert source == text.partition(begin)[2].partition(end)[0].strip()
    for name in ("linear", "layer_norm", "attention", "keep_top_p", "Tokenizer"):
        assert re.search(rf"(class|function|const) {name}\b", source), name


def test_odd_beginnings(world, seen, tokenizer):
    odd = seen["odd"]
    assert odd[""]["ids"] == [BOS] and "empty beginning" in odd[""]["status"]
    long = odd["a " * 100]
    whole = [BOS, *tokenizer.encode("a " * 99 + "a")]
    assert long["ids"] == [BOS, *whole[-48:]]  # 3/4 of the context of 64
    assert "sees 64 at once" in long["status"] and "last 48" in long["status"]
    nasty = odd[NASTY]
    assert nasty["foreign"] == 0 and seen["title"] == "A language model in one file"
    assert NASTY in nasty["shown"] and EOS not in nasty["ids"]
    assert odd["x?é😀 "]["ids"] == [BOS, *tokenizer.encode("x\ufffdé😀")]
    assert "seed 0" in seen["seed"]


def test_everything_has_a_label_and_fits(seen):
    assert seen["unnamed"] == 0
    assert seen["overflow"] <= 0


def test_a_broken_page_says_so_in_one_sentence(world, bpe, quest, tmp_path):
    page = world[0].read_text("utf-8")
    content = quest.read_page(page)

    def changed(**changes):
        return bpe.fill_page("pocket.html", content | changes)

    data, middle = page.index(quest.DATA_BEGINS), content["base64"][5000:5010]
    other = "AAAAAAAAAA" if middle != "AAAAAAAAAA" else "BBBBBBBBBB"
    app = page.index("<script>\n")
    old = page.replace("<head>", "<head><script>delete window.TextDecoder</script>", 1)
    pages = {  # a page, and what its sentence must hold
        "cut in the data": (page[: data + 9000], "cut short"),
        "cut before the data": (page[:data], "cut short"),
        "cut in its program": (page[: app + 2000], "cut short"),
        "a letter changed": (page.replace(middle, other, 1), "damaged"),
        "not base64": (page.replace(middle, "!" * 10, 1), "damaged"),
        "another format": (changed(format="pocket/0"), "pocket/0"),
        "another vocabulary": (changed(merges=content["merges"][:-5]), "another model"),
        "fewer weights": (changed(tensors=content["tensors"][:-1]), "03_model.py"),
        "an old browser": (old, "too old"),
        "the template": ((PAGES / "pocket.html").read_text("utf-8"), "page is empty"),
    }
    given = json.dumps([text for text, _ in pages.values()]).replace("<", "\\u003c")
    script = f"""
        const sentences = [];
        const open = async (text, sandbox) => {{
          const frame = document.createElement('iframe');
          if (sandbox) frame.setAttribute('sandbox', 'allow-same-origin');
          frame.srcdoc = text;
          const loaded = new Promise((done) => frame.addEventListener('load', done));
          document.body.append(frame);
          await loaded;
          const inside = frame.contentDocument;
          const answer = inside.body.innerText;
          frame.remove();
          const app = inside.getElementById('app');
          return [answer, app === null || app.hidden];
        }};
        for (const text of {given}) sentences.push(await open(text));
        return [sentences, await open({given}[0], true)];"""
    # A page of its own opens these: it must not be one that fails.
    opener = tmp_path / "opener.html"
    opener.write_text("<body><script>const $ = 0</script></body>", "utf-8")
    sentences, no_script = in_page(opener, script, tmp_path, "sandboxed")
    for (name, (_, words)), (text, hidden) in zip(pages.items(), sentences):
        assert hidden, name
        assert words in text, (name, text)
    assert "JavaScript, which is switched off" in no_script[0]
    assert "being loaded" not in no_script[0]


# -------------------------------------------------------------------------- the script


def test_the_examples_in_the_docstrings_are_true(quest):
    failed, tried = doctest.testmod(quest)
    assert tried >= 4 and failed == 0


@pytest.mark.parametrize("bits", [8, 32])
def test_bytes_become_the_weights_again(gpt, quest, bits):
    model = lively(gpt)
    with torch.no_grad():
        model.wpe.weight[3] = 0  # a row whose scale is 0
    tensors, data = quest.pack(model, bits)
    weights = quest.unpack(tensors, data)
    for name, weight in model.state_dict().items():
        if bits == 32 or weight.dim() == 1:
            assert torch.equal(weights[name], weight), name
        else:  # half a step of the row at most
            step = weight.abs().amax(dim=1, keepdim=True) / 127
            assert ((weights[name] - weight).abs() <= 0.501 * step).all(), name
    count = sum(map(torch.numel, weights.values()))
    assert len(data) < (1.2 if bits == 8 else 4.1) * count


def fill(workshop, small_tokenizer, bpe, gpt, alibi=0.0, **sizes):
    shop = small_tokenizer(workshop)
    tokenizer = shop.folder / "artifacts/01_bpe/tokenizer.json"
    model = lively(gpt, **sizes)
    content = {"format": "04_train/3", "config": dataclasses.asdict(model.config)}
    content |= {"weights": model.state_dict(), "step": 1, "loss": 1.0}
    content |= {"tokenizer": bpe.sha256_of(tokenizer), "alibi": alibi}
    gpt.save_checkpoint(shop.folder / "artifacts/04_train/best.pt", content)
    return shop


def test_the_script_writes_the_page_and_says_what_it_did(
    workshop, small_tokenizer, bpe, gpt, quest
):
    shop = fill(workshop, small_tokenizer, bpe, gpt)
    done = shop.run(ME)
    assert done.returncode == 0, done.stderr
    for mark in ("[read]", "[plan] 8 bits", "[check]", "[wrote]", "Next: "):
        assert mark in done.stdout, done.stdout
    page = (shop.folder / "artifacts/pocket/model.html").read_text("utf-8")
    config = quest.read_page(page)["config"]
    assert config["vocab_size"] == 400 and config["block_size"] == 64
    assert not list(shop.folder.rglob("*.part"))


@pytest.mark.parametrize("alibi", [0.0, 0.4])
def test_a_model_with_a_distance_penalty_comes_with_a_note(
    workshop, small_tokenizer, bpe, gpt, alibi
):
    # best.pt was saved at 0.4 of the penalty. The page computes without it, so its
    # stories would be those of another model.
    done = fill(workshop, small_tokenizer, bpe, gpt, alibi).run(ME)
    assert done.returncode == 0, done.stderr
    assert ("distance penalty" in done.stdout) == bool(alibi)


def test_what_is_missing_or_does_not_fit_is_three_lines(
    workshop, small_tokenizer, bpe, gpt
):
    workshop.refuses(ME, "tokenizer.json is missing", "python 01_bpe.py")
    shutil.rmtree(workshop.folder / "artifacts")
    shop = small_tokenizer(workshop)
    shop.refuses(ME, "best.pt is missing", "python 04_train.py")
    fill(workshop, lambda w: w, bpe, gpt, vocab_size=300)
    shop.refuses(ME, "400 tokens, the model 300")
    fill(workshop, lambda w: w, bpe, gpt)
    shop.edit(ME, BITS=4)
    shop.refuses(ME, "BITS = 4", "8, 32")
    shop.edit(ME, BITS=8)
    for name in ("common.js", "pocket.html"):
        (shop.folder / "lessons/pages" / name).unlink()
        shop.refuses(ME, f"pages/{name} is missing", "git checkout")
    assert not (shop.folder / "artifacts/pocket").exists()


# --------------------------------------------------------------------------- the pages


def test_no_two_pages_repeat_six_lines():
    places = {}
    for page in sorted(PAGES.iterdir()):
        lines = [line.strip() for line in page.read_text("utf-8").splitlines()]
        lines = [line for line in lines if line]
        for i in range(len(lines) - 5):
            places.setdefault(tuple(lines[i : i + 6]), set()).add(page.name)
    repeated = {block[0]: names for block, names in places.items() if len(names) > 1}
    assert len(places) > 500 and not repeated


def test_every_page_takes_what_is_common_from_one_place(bpe, capsys):
    names = [path.name for path in PAGES.glob("*.html")]
    assert len(names) >= 10
    for name in names:
        filled = bpe.fill_page(name, {"text": "/*common.js*/ </script>"})
        assert "const $ = " in filled and "--accent:" in filled, name
        assert filled.count("/*common.") == 1  # in the data: it is not replaced there
        assert (PAGES / name).read_text("utf-8").count("/*DATA*/null") == 1
    source = (PAGES / "pocket.html").read_text("utf-8")
    assert not re.search(r"https?:|<link|src=|@import|innerHTML", source)


def test_without_the_common_part_a_stage_goes_on(bpe, monkeypatch, tmp_path, capsys):
    shutil.copytree(PAGES, tmp_path / "lessons" / "pages")
    (tmp_path / "lessons" / "pages" / "common.css").unlink()
    monkeypatch.setattr(bpe, "HERE", tmp_path)
    assert bpe.fill_page("story.html", {}) is None
    assert "common.css is missing" in capsys.readouterr().out


def test_the_data_are_base64_of_the_bytes_that_pack_makes(world, gpt, quest):
    content = quest.read_page(world[0].read_text("utf-8"))
    _, data = quest.pack(lively(gpt), 8)
    assert base64.b64decode(content["base64"]) == data
    assert content["bytes"] == len(data)


def test_the_excerpts_of_the_lesson_stand_in_the_page():
    text = (ROOT / "lessons" / "quests" / "pocket.md").read_text("utf-8")
    source = (PAGES / "pocket.html").read_text("utf-8")
    fence = r"```js\n// lessons/pages/pocket.html\n(.*?)```"
    excerpts = re.findall(fence, text, re.DOTALL)
    assert len(excerpts) == 2
    for excerpt in excerpts:
        assert excerpt in source, excerpt


# ------------------------------------------------------------------------- the picture


@pytest.fixture(scope="module")
def camera():
    sys.path.append(str(ROOT / "lessons" / "images"))
    return importlib.import_module("take_picture")


def filtered(picture):
    """A PNG whose rows use the five filters in turn: the encoder of the standard."""
    height, width, step = picture.shape
    rows, up = b"", [0] * (width * step)
    for n, line in enumerate(picture.reshape(height, -1).tolist()):
        how, row = n % 5, []
        for i, x in enumerate(line):
            a, c = (line[i - step], up[i - step]) if i >= step else (0, 0)
            b = up[i]
            p = a + b - c
            distances = [abs(p - a), abs(p - b), abs(p - c)]
            paeth = (a, b, c)[distances.index(min(distances))]
            row.append((x - (0, a, b, (a + b) // 2, paeth)[how]) % 256)
        rows, up = rows + bytes([how, *row]), line
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + b"\0\0\0\0" for kind, body in parts
    )


def test_a_picture_is_read_and_keeps_its_colors(camera):
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (11, 7, 3), dtype=np.uint8)
    assert (camera.read_png(filtered(picture)) == picture).all()
    written = camera.write_png(picture)  # 77 colors: fewer than a palette has
    palette = written[written.index(b"PLTE") + 4 :]
    begin = written.index(b"IDAT")
    size = struct.unpack(">I", written[begin - 4 : begin])[0]
    rows = zlib.decompress(written[begin + 4 : begin + 4 + size])
    indices = np.frombuffer(rows, np.uint8).reshape(11, 8)[:, 1:]
    colors = np.frombuffer(palette[: 77 * 3], np.uint8).reshape(-1, 3)
    assert (colors[indices] == picture).all()


def test_the_picture_is_small_and_the_lesson_shows_it(camera):
    data = camera.PICTURE.read_bytes()
    assert data.startswith(camera.SIGNATURE) and len(data) <= 120_000
    size = struct.unpack(">II", data[16:24])
    assert size == (camera.WIDTH, camera.HEIGHT)
    lesson = ROOT / "lessons" / "quests" / "pocket.md"
    assert "../images/pocket.png" in lesson.read_text("utf-8")
