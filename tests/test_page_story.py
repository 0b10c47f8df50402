"""story.html shows every choice, and whom the model looked at, to whoever points at it.

A copy of the page gets one more script, which points, clicks, types and slides as a
reader would and writes down what the page then shows; headless Chromium opens it and
prints the page as it stands at the end (--dump-dom).
"""
import html
import importlib
import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import plumbing
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "lessons" / "pages" / "story.html"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    " --disable-background-networking --disable-component-update --disable-sync"
    " --enable-logging=stderr --virtual-time-budget=60000 --dump-dom"
).split()
BOS, EOS = 2, 3
# What would end the page's script, and its page, if a text could; and a broken 🙂.
NASTY = "</script><script>document.title = 'broken'</script><b>é</b>\n the end"
HOW = {"temperature": 0.8, "top_k": 5, "top_p": 1.0, "min_p": 0.0,
       "repetition_penalty": 1.0}  # fmt: skip


@pytest.fixture(scope="module")
def world(bpe, gpt, tmp_path_factory):
    """(data, filled page) of a story of bytes; the model: random, 3 blocks, 2 heads."""
    sample, showing = map(importlib.import_module, ("06_sample", "showing"))
    tokenizer, _ = bpe.train(Counter(), 260, 1)  # no merges: a token is a byte
    sizes = {"vocab_size": 260, "context": 128, "n_layer": 3, "n_head": 2, "n_embd": 16}
    torch.manual_seed(4)
    model = gpt.GPT(sizes).eval()
    for weight in model.parameters():
        weight.data *= 5 if weight.dim() == 2 else 1
    ids = [BOS, *tokenizer.encode("Tom: "), *tokenizer.encode(NASTY), EOS]
    data = showing.page_data(model, tokenizer, ids, 6, HOW, sample.shape)
    page = tmp_path_factory.mktemp("page") / "story.html"
    plumbing.fill_page("story.html", data, page)
    return data, page


def run_in_page(page, script, folder):
    """Open the page with one script more; returns what that script returns, and the
    whole page as text. Nothing may be written to the browser's console."""
    if not CHROMIUM:
        pytest.skip("no Chromium to open the page with")
    tools = """
        const tokens = () => [...document.querySelectorAll('.token')];
        const say = (id) => document.getElementById(id).textContent;
        const send = (node, kind, more) => node.dispatchEvent(
          new (more ? KeyboardEvent : /^pointer/.test(kind) ? PointerEvent : Event)(
            kind, { bubbles: true, cancelable: true, ...more }));
        const hover = (t) => send(tokens()[t].querySelector('.ink'), 'pointerover');
        const set = (id, value, kind) => {
          document.getElementById(id).value = value;
          send(document.getElementById(id), kind);
        };
        const chosen = () => tokens().findIndex((t) => t.classList.contains('chosen'));
        const rows = () => [...document.querySelectorAll('#candidates tr')].map((row) =>
          [...row.children].map((cell) => cell.textContent));
        const looked = () => [...document.querySelectorAll('#looked li')].map((li) =>
          [li.firstChild.textContent, parseFloat(li.lastChild.textContent)]);
        const lit = () =>
          tokens().map((t) => Number(t.querySelector('i').style.opacity));
        const wait = (ms) => new Promise((done) => setTimeout(done, ms));
    """
    more = (
        "<script>(async () => {" + tools + script + "})().then((answer) => {\n"
        "const place = document.createElement('pre'); place.id = 'answer';\n"
        "place.textContent = JSON.stringify(answer); document.body.append(place); });"
        "</script>"
    )
    head, tail = page.read_text("utf-8").rsplit("</body>", 1)
    copy = folder / "with_script.html"
    copy.write_text(head + more + "</body>" + tail, "utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    done = subprocess.run(
        [CHROMIUM, *FLAGS, profile, copy.as_uri()], capture_output=True, timeout=120
    )
    said = done.stderr.decode("utf-8", "replace")
    assert "CONSOLE" not in said, said
    dom = done.stdout.decode("utf-8")
    answer = re.search(r'<pre id="answer">(.*?)</pre>', dom, re.DOTALL)
    assert answer, f"the page came to no end:\n{said}\n{dom[-2000:]}"
    return json.loads(html.unescape(answer[1])), dom


def expected_rows(data, t):
    """The candidates' table for token t, as the data say it."""
    step = data["steps"][t - data["prompt"]]
    rows = [row[1:] for row in step["candidates"]]
    if data["ids"][t] not in [row[0] for row in step["candidates"]]:
        rows.append([data["tokens"][t].replace(" ", "_"), *step["chance"]])
    return [[name, *(f"{100 * c:.1f} %" for c in chances)] for name, *chances in rows]


def close(shown, expected):
    """Equal tables, but for the last digit of numbers: Python and JavaScript round
    halves differently."""
    numbers = re.compile(r"\d+\.\d+")
    texts = [numbers.sub("#", str(table)) for table in (shown, expected)]
    these, those = (map(float, numbers.findall(str(t))) for t in (shown, expected))
    return texts[0] == texts[1] and all(abs(a - b) < 0.11 for a, b in zip(these, those))


def expected_look(data, t, layer=None, head=None):
    """Share by place of the tokens before t, in percent: mean over layers and heads."""
    layers = data["attention"] if layer is None else [data["attention"][layer]]
    rows = [
        row[t - 1]
        for heads in layers
        for row in (heads if head is None else [heads[head]])
    ]
    return [sum(column) / len(rows) / 10 for column in zip(*rows)]


def test_pointing_at_a_token_shows_its_candidates_entropy_and_chance(world, tmp_path):
    data, page = world
    places = [6, 20, len(data["tokens"]) - 1]
    script = f"""
        const found = [];
        for (const t of {places}) {{
          hover(t);
          found.push([chosen(), say('what'), say('facts'), rows()]);
        }}
        return found;"""
    answer, _ = run_in_page(page, script, tmp_path)
    for t, (chosen, what, facts, rows) in zip(places, answer):
        step = data["steps"][t - 6]
        assert chosen == t and what.startswith(f"Token {t}: ")
        assert close(rows, expected_rows(data, t)), (rows, expected_rows(data, t))
        assert 10 <= len(rows) <= 11
        before, after = (f"{bits:.2f}" for bits in step["entropy"])
        assert f"{before} bits of entropy, then {after}; 5 tokens were left." in facts


def test_any_layer_and_head_shows_whom_it_looked_at(world, tmp_path):
    data, page = world
    script = """
        const found = {};
        hover(30);
        for (const layer of ['all', 0, 2])
          for (const head of ['all', 0, 1]) {
            set('layer', layer, 'change');
            set('head', head, 'change');
            found[layer + ' ' + head] = [looked(), lit()];
          }
        return found;"""
    answer, _ = run_in_page(page, script, tmp_path)
    assert len(answer) == 9
    for name, (looked, lit) in answer.items():
        choice = [None if part == "all" else int(part) for part in name.split()]
        shares = expected_look(data, 30, *choice)
        assert len(shares) == 30
        best = sorted(shares, reverse=True)[:5]
        assert [share for _, share in looked] == pytest.approx(best, abs=0.06)
        # The line under a token is as strong as the root of its share; none lies ahead.
        assert lit[:30] == pytest.approx([(s / 100) ** 0.5 for s in shares], abs=0.001)
        assert not any(lit[30:])
    assert len({json.dumps(found) for found in answer.values()}) == 9


def test_a_click_holds_a_token_until_the_second_click(world, tmp_path):
    _, page = world
    script = """
        const seen = [];
        const click = (t) => { tokens()[t].click(); seen.push(chosen()); };
        hover(8); seen.push(chosen());
        click(12);
        hover(15); seen.push(chosen());
        click(20);
        hover(15); seen.push(chosen());
        click(20);
        hover(15); seen.push(chosen());
        return [seen, say('what')];"""
    (seen, what), _ = run_in_page(page, script, tmp_path)
    assert seen == [8, 12, 12, 20, 20, 20, 15]
    assert "held" not in what


def test_arrow_keys_walk_through_the_story_and_focus_follows(world, tmp_path):
    data, page = world
    script = """
        const seen = [];
        const press = (key) => {
          send(document.activeElement, 'keydown', { key });
          seen.push([chosen(), Number(document.activeElement.dataset.t)]);
        };
        tokens()[10].focus();
        seen.push([chosen(), Number(document.activeElement.dataset.t)]);
        for (const key of ['ArrowRight', 'ArrowRight', 'ArrowLeft', 'Home', 'ArrowLeft',
                           'End', 'ArrowRight']) press(key);
        return [seen, tokens().filter((t) => t.tabIndex === 0).length];"""
    (seen, stops), _ = run_in_page(page, script, tmp_path)
    last = len(data["tokens"]) - 1
    places = [10, 11, 12, 11, 0, 0, last, last]
    assert seen == [[t, t] for t in places]
    assert stops == 1  # the story is one stop of the Tab key, not a hundred


def test_the_slider_and_the_button_replay_the_story(world, tmp_path):
    data, page = world
    script = """
        const shown = () => tokens().filter(
          (t) => getComputedStyle(t).visibility === 'visible').length;
        const seen = [shown()];
        set('time', 9, 'input');
        seen.push(shown(), chosen(), say('told'));
        document.getElementById('play').click();
        seen.push(say('play'));
        await wait(800);
        seen.push(shown() > 10);
        document.getElementById('play').click();
        const stopped = shown();
        await wait(800);
        seen.push(shown() === stopped, say('play'));
        set('time', 1000, 'input');
        document.getElementById('play').click();  // at the end: from the beginning
        seen.push(shown());
        await wait(40000);
        seen.push(shown(), say('play'));
        return seen;"""
    answer, _ = run_in_page(page, script, tmp_path)
    count = len(data["tokens"])
    assert answer == [
        count, 10, 9, f"token 9 of {count - 1}", "❚❚ Pause", True, True, "▶ Replay",
        7, count, "▶ Replay",
    ]  # fmt: skip


def test_surprises_are_coloured_and_given_tokens_are_not(world, tmp_path):
    data, page = world
    script = """
        return tokens().map((t) => [t.classList.contains('given'),
          t.querySelector('.ink').style.backgroundColor]);"""
    answer, _ = run_in_page(page, script, tmp_path)
    assert [given for given, _ in answer] == [t < 6 for t in range(len(answer))]
    assert not any(colour for _, colour in answer[:6])
    strength = [float(re.search(r"([\d.]+)\)$", c)[1]) for _, c in answer[6:]]
    chances = [step["chance"][0] for step in data["steps"]]
    by_chance = [s for _, s in sorted(zip(chances, strength), key=lambda p: -p[0])]
    assert by_chance == sorted(by_chance)  # the less likely, the stronger


def test_text_of_a_story_stays_text(world, tmp_path):
    _, page = world
    script = """
        hover(30);
        return [document.title, tokens().map((t) => t.textContent).join(''),
                document.querySelectorAll('#story b').length];"""
    (title, text, bold), dom = run_in_page(page, script, tmp_path)
    assert title == "How a story was chosen" and bold == 0
    # é is two tokens here, each half a character: they show as their bytes.
    nasty = NASTY.replace("é", "<c3><a9>").replace("\n", "↵\n")
    assert text == f"<BOS>Tom: {nasty}<EOS>"
    assert page.read_text("utf-8").count("</script>") == 1


def test_the_empty_page_says_how_to_fill_it(tmp_path):
    answer, _ = run_in_page(PAGE, "return say('intro');", tmp_path)
    assert "python 06_sample.py" in answer


def test_the_page_needs_nothing_from_elsewhere():
    source = PAGE.read_text("utf-8")
    assert source.count("/*DATA*/null") == 1
    assert not re.search(r"https?:|<link|src=|@import|innerHTML", source)
