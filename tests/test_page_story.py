"""story.html shows the alternatives and the attention weights of each token.

Headless Chromium opens the page (tests/browser.py), and a script of ours points,
clicks, types and slides as a reader would and returns what the page then shows.
"""
import importlib
import json
import re
from collections import Counter
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "lessons" / "pages" / "story.html"
BOS, EOS = 2, 3
# What would end the page's script, and its page, if a text could; and é, which is two tokens.
NASTY = "</script><script>document.title = 'broken'</script><b>é</b>\n the end"
SETTINGS = {"temperature": 0.8, "top_k": 5, "top_p": 1.0, "min_p": 0.0,
            "repetition_penalty": 1.0}  # fmt: skip
TOOLS = """
    const tokens = () => [...document.querySelectorAll('.token')];
    const textOf = (id) => document.getElementById(id).textContent;
    const send = (node, kind, more) => node.dispatchEvent(
      new (more ? KeyboardEvent : /^pointer/.test(kind) ? PointerEvent : Event)(
        kind, { bubbles: true, cancelable: true, ...more }));
    const hover = (t) => send(tokens()[t].querySelector('.ink'), 'pointerover');
    const set = (id, value, kind) => {
      document.getElementById(id).value = value;
      send(document.getElementById(id), kind);
    };
    const selected = () => tokens().findIndex((t) => t.classList.contains('selected'));
    const rows = () => [...document.querySelectorAll('#candidates tr')].map((row) =>
      [...row.children].map((cell) => cell.textContent));
    const attended = () => [...document.querySelectorAll('#attended li')].map((li) =>
      [li.firstChild.textContent, parseFloat(li.lastChild.textContent)]);
    const lit = () =>
      tokens().map((t) => Number(t.querySelector('i').style.opacity));
    const wait = (ms) => new Promise((done) => setTimeout(done, ms));
"""


@pytest.fixture(scope="module")
def world(bpe, gpt, tmp_path_factory):
    """(data, filled page) of a story of bytes; the model: random, 3 blocks, 2 heads."""
    sample = importlib.import_module("06_sample")
    tokenizer, _ = bpe.train(Counter(), 260, 1)  # no merges: a token is a byte
    torch.manual_seed(4)
    model = gpt.GPT(gpt.GPTConfig(260, 128, n_layer=3, n_head=2, n_embd=16)).eval()
    for weight in model.parameters():
        weight.data *= 5 if weight.dim() == 2 else 1
    ids = [BOS, *tokenizer.encode("Tom: "), *tokenizer.encode(NASTY), EOS]
    data = sample.page_data(model, tokenizer, ids, 6, SETTINGS)
    page = tmp_path_factory.mktemp("page") / "story.html"
    page.write_text(bpe.fill_page("story.html", data), "utf-8")
    return data, page


def expected_rows(data, t):
    """The table of candidates for token t, according to the data."""
    step = data["steps"][t - data["prompt"]]
    rows = [row[1:] for row in step["candidates"]]
    if data["ids"][t] not in [row[0] for row in step["candidates"]]:
        rows.append([data["tokens"][t].replace(" ", "_"), *step["probability"]])
    return [[name, *(f"{100 * p:.1f}%" for p in probs)] for name, *probs in rows]


def close(shown, expected):
    """Equal tables, but for the last digit of numbers: Python and JavaScript round
    halves differently."""
    numbers = re.compile(r"\d+\.\d+")
    texts = [numbers.sub("#", str(table)) for table in (shown, expected)]
    these, those = (map(float, numbers.findall(str(t))) for t in (shown, expected))
    return texts[0] == texts[1] and all(abs(a - b) < 0.11 for a, b in zip(these, those))


def expected_attention(data, t, layer=None, head=None):
    """Attention weights, in percent, with which t was sampled: mean over the heads."""
    layers = data["attention"] if layer is None else [data["attention"][layer]]
    rows = [
        row[t - 1]
        for heads in layers
        for row in (heads if head is None else [heads[head]])
    ]
    return [sum(column) / len(rows) / 10 for column in zip(*rows)]


def test_pointing_at_a_token_shows_its_candidates_entropy_and_probability(world, browser):
    data, page = world
    positions = [6, 20, len(data["tokens"]) - 1]
    script = f"""
        const found = [];
        for (const t of {positions}) {{
          hover(t);
          found.push([selected(), textOf('what'), textOf('facts'), rows()]);
        }}
        return found;"""
    answer = browser.run(page, TOOLS + script)
    for t, (selected, what, facts, rows) in zip(positions, answer):
        step = data["steps"][t - 6]
        assert selected == t and what.startswith(f"Token {t}: ")
        assert close(rows, expected_rows(data, t)), (rows, expected_rows(data, t))
        assert 10 <= len(rows) <= 11
        before, after = (f"{bits:.2f}" for bits in step["entropy"])
        assert f"entropy was {before} bits, after the samplers {after}." in facts
        assert "They kept 5 tokens." in facts


def test_any_layer_and_head_shows_what_it_attended_to(world, browser):
    data, page = world
    script = """
        const found = {};
        hover(30);
        for (const layer of ['all', 0, 2])
          for (const head of ['all', 0, 1]) {
            set('layer', layer, 'change');
            set('head', head, 'change');
            found[layer + ' ' + head] = [attended(), lit()];
          }
        return found;"""
    answer = browser.run(page, TOOLS + script)
    assert len(answer) == 9
    for name, (attended, lit) in answer.items():
        choice = [None if part == "all" else int(part) for part in name.split()]
        weights = expected_attention(data, 30, *choice)
        assert len(weights) == 30
        best = sorted(weights, reverse=True)[:5]
        assert [weight for _, weight in attended] == pytest.approx(best, abs=0.06)
        # The line under a token has the square root of its weight as opacity; there is
        # none under later tokens.
        assert lit[:30] == pytest.approx([(w / 100) ** 0.5 for w in weights], abs=0.001)
        assert not any(lit[30:])
    assert len({json.dumps(found) for found in answer.values()}) == 9


def test_a_click_pins_a_token_until_the_second_click(world, browser):
    _, page = world
    script = """
        const seen = [];
        const click = (t) => { tokens()[t].click(); seen.push(selected()); };
        hover(8); seen.push(selected());
        click(12);
        hover(15); seen.push(selected());
        click(20);
        hover(15); seen.push(selected());
        click(20);
        hover(15); seen.push(selected());
        return [seen, textOf('what')];"""
    seen, what = browser.run(page, TOOLS + script)
    assert seen == [8, 12, 12, 20, 20, 20, 15]
    assert "pinned" not in what


def test_arrow_keys_walk_through_the_story_and_focus_follows(world, browser):
    data, page = world
    script = """
        const seen = [];
        const press = (key) => {
          send(document.activeElement, 'keydown', { key });
          seen.push([selected(), Number(document.activeElement.dataset.t)]);
        };
        tokens()[10].focus();
        seen.push([selected(), Number(document.activeElement.dataset.t)]);
        for (const key of ['ArrowRight', 'ArrowRight', 'ArrowLeft', 'Home', 'ArrowLeft',
                           'End', 'ArrowRight']) press(key);
        return [seen, tokens().filter((t) => t.tabIndex === 0).length];"""
    seen, stops = browser.run(page, TOOLS + script)
    last = len(data["tokens"]) - 1
    positions = [10, 11, 12, 11, 0, 0, last, last]
    assert seen == [[t, t] for t in positions]
    assert stops == 1  # the story is one stop of the Tab key, not a hundred


def test_the_slider_and_the_button_replay_the_story(world, browser):
    data, page = world
    script = """
        const shown = () => tokens().filter(
          (t) => getComputedStyle(t).visibility === 'visible').length;
        const seen = [shown()];
        set('time', 9, 'input');
        seen.push(shown(), selected(), textOf('told'));
        document.getElementById('play').click();
        seen.push(textOf('play'));
        await wait(800);
        seen.push(shown() > 10);
        document.getElementById('play').click();
        const stopped = shown();
        await wait(800);
        seen.push(shown() === stopped, textOf('play'));
        set('time', 1000, 'input');
        document.getElementById('play').click();  // at the end: from the beginning
        seen.push(shown());
        await wait(40000);
        seen.push(shown(), textOf('play'));
        return seen;"""
    answer = browser.run(page, TOOLS + script)
    count = len(data["tokens"])
    assert answer == [
        count, 10, 9, f"token 9 of {count - 1}", "❚❚ Pause", True, True, "▶ Replay",
        7, count, "▶ Replay",
    ]  # fmt: skip


def test_surprises_are_colored_and_the_prompt_is_not(world, bpe, browser, tmp_path):
    data, page = json.loads(json.dumps(world[0])), tmp_path / "story.html"
    for i, step in enumerate(data["steps"]):  # 0 to 7 bits, again and again
        step["probability"][0] = 0.5 ** (i % 8)
    page.write_text(bpe.fill_page("story.html", data), "utf-8")
    script = """
        return tokens().map((t) => [t.classList.contains('given'),
          t.querySelector('.ink').style.backgroundColor]);"""
    answer = browser.run(page, TOOLS + script)
    assert [given for given, _ in answer] == [t < 6 for t in range(len(answer))]
    assert not any(color for _, color in answer[:6])
    strength = [float(re.search(r"([\d.]+)\)$", c)[1]) for _, c in answer[6:]]
    # The less likely, the stronger, up to 6 bits; nothing for what was certain.
    assert strength == [pytest.approx(min(i % 8, 6) / 10) for i in range(len(strength))]


def test_text_of_a_story_stays_text(world, browser):
    _, page = world
    script = """
        hover(30);
        return [document.title, tokens().map((t) => t.textContent).join(''),
                document.querySelectorAll('#story b').length];"""
    title, text, bold = browser.run(page, TOOLS + script)
    assert title == "How a story was sampled" and bold == 0
    # é is two tokens here, each half a character: they appear as their bytes.
    nasty = NASTY.replace("é", r"\xc3\xa9").replace("\n", "↵\n")
    assert text == f"<BOS>Tom: {nasty}<EOS>"
    assert page.read_text("utf-8").count("</script>") == 1


def test_the_empty_page_says_how_to_fill_it(browser):
    answer = browser.run(PAGE, TOOLS + "return textOf('intro');")
    assert "python 06_sample.py" in answer


def test_the_page_needs_nothing_from_elsewhere():
    source = PAGE.read_text("utf-8")
    assert source.count("/*DATA*/null") == 1
    assert not re.search(r"https?:|<link|src=|@import|innerHTML", source)
