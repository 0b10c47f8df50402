"""report.html shows what eval.json says, and any text as text.

Stage 5 runs in a small world, once. Its page gets stories that try to end the script,
and one more script that reads the page as a person would; headless Chromium opens it
and prints what it found (--dump-dom).
"""

import html
import importlib
import json
import re
import shutil
import subprocess

import plumbing
import pytest
from test_05_eval import build, inside, short_stories

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    " --disable-background-networking --disable-component-update --disable-sync"
    " --enable-logging=stderr --virtual-time-budget=60000 --dump-dom"
).split()
NASTY = "Tom:</script><script>document.title = 'broken'</script><!-- <b>Ow</b> &lt;"

# Reads the page: the text of each part, each table, what the controls do.
READ = """
const text = id => document.getElementById(id).textContent;
const rows = id => [...document.querySelectorAll(`#${id} tr`)].map(row =>
  [...row.children].map(cell => cell.textContent));
const found = {title: document.title, bold: document.querySelectorAll("b").length,
  headings: document.querySelectorAll("h1").length};
for (const id of ["what", "facts", "ladder", "protocols", "verdict", "judged", "made"])
  found[id] = text(id);
for (const id of ["measures", "diversity", "marks", "scores", "ages"])
  found[id] = rows(id);
found.curves = document.querySelectorAll("#curves polyline").length;
found.places = document.querySelectorAll("#position circle").length;
found.dots = document.querySelectorAll("#runs circle").length;
const slide = document.getElementById("which"), pick = document.getElementById("pick");
found.samples = [];
for (let i = 0; i <= +slide.max; i++) {
  slide.value = i;
  slide.dispatchEvent(new Event("input"));
  const stories = [...document.querySelectorAll("#samples .story")];
  found.samples.push(stories.map(node => node.textContent));
}
found.copies = [];
for (const option of pick.options) {
  pick.value = option.value;
  pick.dispatchEvent(new Event("change"));
  found.copies.push([text("own"), document.querySelector("#own mark").textContent,
    text("nearest"), text("about")]);
}
found.quiz = {};
for (const button of document.querySelectorAll("#filters button")) {
  button.click();
  found.quiz[button.textContent] = [...document.querySelectorAll("#quiz .item > div")]
    .map(node => node.textContent);
}
document.querySelector("#filters button:nth-child(3)").click();
const all = document.documentElement;
found.fits = all.scrollWidth <= all.clientWidth;
return found;
"""


def open_page(page, folder):
    """-> what READ finds in the page; nothing may be written to the console."""
    if not CHROMIUM:
        pytest.skip("no Chromium to open the page with")
    more = (
        "<script>const answer = (() => {" + READ + "})();\n"
        "const place = document.createElement('pre'); place.id = 'answer';\n"
        "place.textContent = JSON.stringify(answer); document.body.append(place);"
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
    answer = re.search(
        r'<pre id="answer">(.*?)</pre>', done.stdout.decode("utf-8"), re.DOTALL
    )
    assert answer, f"the page came to no end:\n{said}"
    return json.loads(html.unescape(answer[1]))


@pytest.fixture(scope="module")
def report(tmp_path_factory, bpe, gpt):
    """(eval.json as stage 5 wrote it, the page it wrote)."""
    folder = tmp_path_factory.mktemp("report")
    stories = short_stories(90, seed=6) + [NASTY + " And that was all."]
    build(folder, bpe, gpt, stories[:60], stories[60:], text="tinystories-mini")
    log = "step,tokens,lr,train_loss,grad_norm,valid_loss\n1,64,0.1,6.5,1.0,\n"
    log += "2,128,0.1,6.0,1.0,6.1\n3,192,0.1,5.5,1.0,5.6\n"
    plumbing.write_whole(folder / "artifacts/04_train/log.csv", log.encode())
    ev = importlib.import_module("05_eval")
    with inside(folder, ev, bpe):
        ev.main()
    result = folder / "artifacts/05_eval"
    return json.loads((result / "eval.json").read_text()), result / "report.html"


def test_the_figures_on_the_page_are_those_of_eval_json(report, tmp_path):
    data, page = report
    found = open_page(page, tmp_path)
    assert found["headings"] == 1 and found["title"] == "How good is it?"
    main = data["stories"]
    assert f"{main['bits_per_byte']:.4f} ± {main['plus_minus']:.4f}" in found["facts"]
    assert f"{main['loss']:.4f}" in found["facts"]
    assert f"{data['copies']} of {len(data['samples'])}" in found["facts"]
    assert f"{data['bytes']:,} bytes" in found["what"]
    for name, bits in data["ladder"].items():
        assert f"{name}{bits:.3f}" in found["ladder"]
    for name, bits, protocol in data["landmarks"]:
        assert f"{name}{bits:.2f}" in found["ladder"]
        assert f"{name}: {protocol}." in found["protocols"]
    for row, key in zip(
        found["measures"][1:], ["stories", "sliding", "training_stories"]
    ):
        r = data[key]
        assert row[1:] == [f"{r['loss']:.4f}", f"{r['perplexity']:,.2f}",
                           f"{r['bits_per_byte']:.4f}", f"{r['plus_minus']:.4f}",
                           f"{r['tokens']:,}"]  # fmt: skip
    assert len(found["diversity"]) == 1 + len(data["diversity"]) == 6
    for row, (name, d) in zip(found["diversity"][1:], data["diversity"].items()):
        assert row[0] == name and row[3] == f"{d['distinct3']:.3f}"
        ended = [s["ended"] for s in data["samples"] if str(s["temperature"]) == name]
        assert row[6] == (f"{sum(ended)} of {len(ended)}" if ended else "")
    for row, (name, m) in zip(found["marks"][1:], data["marks"].items()):
        assert row[:3] == [name, str(m["solved"]), str(m["of"])]
    assert found["curves"] == 2 and found["places"] == len(data["by_position"])
    assert found["dots"] == len(data["samples"]) + len(data["control"])
    assert "No judge has read" in found["judged"]
    assert data["made_from"]["model"][:12] in found["made"]


def test_every_story_and_every_item_of_the_quiz_is_there(report, tmp_path):
    data, page = report
    found = open_page(page, tmp_path)
    temperatures = list(dict.fromkeys(s["temperature"] for s in data["samples"]))
    for i, stories in enumerate(found["samples"]):
        for temperature, text in zip(temperatures, stories):
            own = [s for s in data["samples"] if s["temperature"] == temperature]
            assert text.removesuffix(" …") == own[i]["text"]
    for story, (text, run, nearest, about) in zip(data["samples"], found["copies"]):
        assert text == story["text"] and run == story["cut"][1]
        assert nearest == story["nearest"]
        assert f"Longest run {story['run']} of {story['tokens']} tokens" in about
    solved = [item for item in data["quiz"] if item["solved"]]
    assert len(found["quiz"]["all"]) == len(data["quiz"])
    assert len(found["quiz"]["solved"]) == len(solved)
    assert len(found["quiz"]["wrong"]) == len(data["quiz"]) - len(solved)
    assert len(found["quiz"]["names"]) == 18
    assert found["fits"], "the page is wider than the window"


def test_a_story_that_ends_the_script_stays_a_text_and_a_judge_is_shown(
    report, tmp_path
):
    data = json.loads(json.dumps(report[0]))
    story = data["samples"][0]
    story |= {"text": NASTY, "cut": [NASTY, NASTY, NASTY], "nearest": NASTY}
    data["quiz"][0] |= {"text": NASTY, "right": NASTY, "wrong": NASTY}
    data["text"] = NASTY
    del data["log"]
    score = {"mean": 7.25, "low": 6.5, "high": 8.0}
    group = {"stories": 44, "grammar": score, "creativity": score, "consistency": score,
             "plot": None, "ages": {"B": 40}}  # fmt: skip
    data["judge"] = {"judge": NASTY, "asked": 132, "failed": 3, "ages": ["A", "B"],
                     "groups": {"this model": group, "real": group}}  # fmt: skip
    page = tmp_path / "report.html"
    plumbing.fill_page("report.html", data, page)
    found = open_page(page, tmp_path)
    assert found["title"] == "How good is it?" and found["bold"] == 0
    assert found["samples"][0][0].removesuffix(" …") == NASTY
    assert found["copies"][0][:3] == [3 * NASTY, NASTY, NASTY]
    assert NASTY in found["quiz"]["all"][0] and NASTY in found["what"]
    assert found["curves"] == 0
    assert (
        found["judged"].startswith(NASTY) and "3 answers could not" in found["judged"]
    )
    assert found["scores"][1] == [
        "this model",
        "44",
        *["7.25 (6.50 to 8.00)"] * 3,
        "none",
    ]
    assert found["ages"][2] == ["B", "40", "40"]
