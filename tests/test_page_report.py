"""report.html shows what eval.json says, run.html the curves; and any text as text.

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
for (const id of ["measured", "facts", "kinds", "wrong", "flawless", "chosen", 
  "baselines", "protocols", "verdict", "judged", "made"]) found[id] = text(id);
for (const id of ["measures", "groups", "right", "results", "scores", "ages"])
  found[id] = rows(id);
found.marks = [...document.querySelectorAll("#wrong mark")].map(mark =>
  mark.textContent);
found.checked = !document.getElementById("checked").hidden;
found.dots = document.querySelectorAll("#matches circle").length;
const slide = document.getElementById("which"), pick = document.getElementById("pick");
found.samples = [];
for (let i = 0; i <= +slide.max; i++) {
  slide.value = i;
  slide.dispatchEvent(new Event("input"));
  const stories = [...document.querySelectorAll("#samples .story")];
  found.samples.push(stories.map(node => node.textContent));
}
found.matches = [];
for (const option of pick.options) {
  pick.value = option.value;
  pick.dispatchEvent(new Event("change"));
  found.matches.push([text("own"), document.querySelector("#own mark").textContent,
    text("source"), text("about")]);
}
found.asked = !document.getElementById("asked").hidden;
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


def open_page(page, folder, read=READ):
    """-> what this script finds in the page; nothing may be written to the console."""
    if not CHROMIUM:
        pytest.skip("no Chromium to open the page with")
    more = (
        "<script>const answer = (() => {" + read + "})();\n"
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
    """(eval.json as stage 5 wrote it, what READ finds in its page)."""
    folder = tmp_path_factory.mktemp("report")
    stories = short_stories(90, seed=6) + [NASTY + " And that was all."]
    build(folder, bpe, gpt, stories[:60], stories[60:], text="tinystories-mini")
    ev = importlib.import_module("05_eval")
    with inside(folder, ev, bpe) as patch:
        patch.setattr(ev, "TEMPERATURES", (0.5, 2, 1))  # JavaScript would sort 1 and 2
        ev.main()
    result = folder / "artifacts/05_eval"
    data = json.loads((result / "eval.json").read_text())
    return data, open_page(result / "report.html", folder)


def samples(data):
    """All samples, in the order of the page."""
    return sum((data["groups"][name]["stories"] for name in ("0.5", "1", "2")), [])


def test_the_numbers_on_the_page_are_those_of_eval_json(report):
    data, found = report
    assert found["headings"] == 1 and found["title"] == "How good is the model?"
    main = data["stories"]
    assert f"{main['bits_per_byte']:.4f} ± {main['plus_minus']:.4f}" in found["facts"]
    assert f"{main['loss']:.4f}" in found["facts"]
    assert f"{data['copies']} of {data['samples']}" in found["facts"]
    assert f"{data['bytes']:,} bytes" in found["measured"]
    for name, bits in data["baselines"].items():
        assert f"{name}{bits:.3f}" in found["baselines"]
    # The text is TinyStories, it says, so there are published results to compare with.
    assert "TinyStories paper, 64 wide x 12 layers0.72" in found["baselines"]
    assert not found["checked"]  # and no grammar
    assert f"{data['ngram_tokens']:,} training tokens" in found["protocols"]
    keys = ["stories", "sliding", "training_stories"]
    results = [data[key] for key in keys]
    for row, result in zip(found["measures"][1:], results, strict=True):
        assert row[1:] == [f"{result['loss']:.4f}", f"{result['perplexity']:,.2f}",
                           f"{result['bits_per_byte']:.4f}",
                           f"{result['plus_minus']:.4f}",
                           f"{result['tokens']:,}"]  # fmt: skip
    names = ["0.5", "1", "2", "held out"]
    assert [row[0] for row in found["groups"][1:]] == names
    for name, row in zip(names, found["groups"][1:]):
        group = data["groups"][name]
        assert float(row[1]) == pytest.approx(group["match"], abs=0.051)
        assert float(row[3]) == pytest.approx(group["distinct3"], abs=0.00051)
    solved = [[name, str(result["solved"]), str(result["of"])]
              for name, result in data["quiz_results"].items()]  # fmt: skip
    assert [row[:3] for row in found["results"][1:]] == solved
    stories = [story for group in data["groups"].values() for story in group["stories"]]
    assert found["dots"] == len(stories)
    assert f"over {data['longest_held_out']} tokens" in found["verdict"]
    assert "Nobody has graded" in found["judged"]
    assert data["made_from"]["model"][:12] in found["made"]


def test_every_sample_and_every_item_of_the_quiz_is_there(report):
    data, found = report
    assert len(found["samples"]) == 5
    for i, texts in enumerate(found["samples"]):
        for name, text in zip(("0.5", "1", "2"), texts, strict=True):
            story = data["groups"][name]["stories"][i]
            assert text == story["text"] + ("" if story["ended"] else " …")
    assert len(found["matches"]) == data["samples"] == 15
    for story, (text, match, source, about) in zip(samples(data), found["matches"]):
        assert text == story["text"] and match == story["parts"][1]
        assert source == (story["source"] or "none")
        assert f"of {story['tokens']};" in about
    solved = [item for item in data["quiz"] if item["solved"]]
    assert len(found["quiz"]["all"]) == len(data["quiz"])
    assert len(found["quiz"]["solved"]) == len(solved)
    assert len(found["quiz"]["wrong"]) == len(data["quiz"]) - len(solved)
    assert len(found["quiz"]["names"]) == 18
    assert found["asked"]
    assert found["fits"], "the page is wider than the window"


def show(bpe, data, folder):
    """-> what READ finds in a page that shows these data."""
    page = folder / "report.html"
    page.write_text(bpe.fill_page("report.html", data), "utf-8")
    return open_page(page, folder)


def test_the_first_wrong_story_shows_its_mistake_and_what_was_expected(
    report, tmp_path, bpe
):
    data = json.loads(json.dumps(report[0])) | {"text": "practice"}
    data["baselines"]["the grammar itself"] = data["stories"]["bits_per_byte"] - 0.25
    # A sign outside the first 65,536 counts as one in Python and as two in JavaScript.
    text = "Tom met Lily. \U0001f600 \"Hi!\" said Tim and left. Tom was sad."
    names = [text.index("Tim"), 0.5, "Tim", ["Tom"], "name"]
    many = [text.index("sad"), 0.9, "sad", ["glad", "full", "home", "old"], "wording"]
    early = [len(NASTY), 1, "", [""], "an end too early"]
    stories = [{"text": "A right one.", "mistake": None},
               {"text": text, "mistake": names}, {"text": text, "mistake": many},
               {"text": NASTY, "mistake": early}]  # fmt: skip
    group = {"min_p": 0, "right": 1, "interval": [0.046, 0.699], "stories": stories}
    last = {"min_p": 0.1, "right": 0, "interval": [0, 0.79], "stories": stories[3:]}
    data["grammar"] = [group, last]
    found = show(bpe, data, tmp_path)
    assert found["checked"] and found["bold"] == 0 and found["fits"]
    shown = text.replace("Tim", "Tim (expected: Tom)")
    assert found["wrong"] == shown and found["marks"] == ["Tim"]
    assert found["flawless"] == "A right one."
    assert "of the 4 stories with MIN_P = 0, they are the first" in found["chosen"]
    assert found["right"][1:] == [
        ["0", "1", "4", "4.6% to 69.9%", "after 80% of the story"],
        ["0.1", "0", "1", "0.0% to 79.0%", "after 100% of the story"],
    ]
    kinds = found["kinds"]
    assert "name 1 of 3 with MIN_P = 0, 0 of 1 with MIN_P = 0.1" in kinds
    assert "said Tim (expected: Tom) and left" in kinds  # in its sentence
    assert "Tom was sad (expected: glad or full or home or …)" in kinds
    assert "(it ends here) (expected: the end)" in kinds
    assert "right stories, MIN_P = 0.10 of 1" in found["facts"]
    assert "This model needs 0.250 more." in found["protocols"]
    assert "TinyStories paper" not in found["baselines"]


def test_a_story_that_ends_the_script_stays_a_text_and_grades_are_shown(
    report, tmp_path, bpe
):
    data = json.loads(json.dumps(report[0]))
    story = data["groups"]["0.5"]["stories"][0]
    story |= {"text": NASTY, "parts": [NASTY, NASTY, NASTY], "source": "x" + NASTY}
    data["quiz"][0] |= {"text": NASTY, "right": NASTY, "wrong": NASTY}
    data["text"] = NASTY
    score = {"mean": 7.25, "low": 6.5, "high": 8.0}
    group = {"stories": 44, "grammar": score, "creativity": score, "consistency": score,
             "plot": None, "ages": {"B": 40}}  # fmt: skip
    data["judge"] = {"judge": NASTY, "asked": 132, "failed": 3, "ages": ["A", "B"],
                     "groups": {"this model": group, "real": group}}  # fmt: skip
    found = show(bpe, data, tmp_path)
    assert found["title"] == "How good is the model?" and found["bold"] == 0
    assert found["samples"][0][0].removesuffix(" …") == NASTY
    assert found["matches"][0][:3] == [3 * NASTY, NASTY, "x" + NASTY]
    assert NASTY in found["quiz"]["all"][0] and NASTY in found["measured"]
    assert found["judged"].startswith(NASTY)
    assert "3 answers could not" in found["judged"]
    marks = ["7.25 (6.50 to 8.00)"] * 3
    assert found["scores"][1] == ["this model", "44", *marks, "none"]
    assert found["ages"][2] == ["B", "40", "40"]


def test_without_quiz_and_interval_and_with_half_of_the_grades_the_page_is_whole(
    report, tmp_path, bpe
):
    data = json.loads(json.dumps(report[0])) | {"quiz": [], "quiz_results": {}}
    data["stories"]["plus_minus"] = None  # a single held-out document
    data["judge"] = {"format": "judge/1", "judge": "a model"}
    found = show(bpe, data, tmp_path)
    assert not found["asked"] and found["quiz"]["all"] == []
    assert "±" not in found["facts"] and found["measures"][1][4] == "unknown"
    assert "Nobody has graded" in found["judged"] and len(found["made"]) > 20


RUN = """
const all = name => [...document.querySelectorAll(name)].map(node => node.textContent);
const line = document.querySelector("#loss line.limit");
const points = document.querySelector("#loss polyline").getAttribute("points");
return {ticks: all("#loss text"), limit: line && +line.getAttribute("y1"),
  heights: points.split(" ").map(point => +point.split(",")[1]),
  bottom: +document.querySelector("#loss svg").viewBox.baseVal.height,
  facts: document.getElementById("facts").textContent};
"""


def curves(bpe, folder, losses, **more):
    """-> what RUN finds in run.html for a run with these training losses."""
    row = {"tokens": 100, "lr": 0.001, "grad_norm": 1.0, "tokens_per_s": 9}
    rows = [row | {"step": i + 1, "train_loss": loss, "valid_loss": ""}
            for i, loss in enumerate(losses)]  # fmt: skip
    rows[-1] |= {"valid_loss": losses[-1], "sample": NASTY}
    data = {"rows": rows, "plan": {"steps": len(rows)}, "prompt": "Once"} | more
    page = folder / "run.html"
    page.write_text(bpe.fill_page("run.html", data), "utf-8")
    return open_page(page, folder, RUN)


def test_halving_the_loss_is_the_same_distance_everywhere(bpe, tmp_path):
    found = curves(bpe, tmp_path, [8, 4, 2, 1, 0.5, 0.25], limit=0.125)
    steps = [b - a for a, b in zip(found["heights"], found["heights"][1:])]
    assert steps == [pytest.approx(steps[0], abs=0.1)] * 5 and steps[0] > 20
    assert found["limit"] - found["heights"][-1] == pytest.approx(steps[0], abs=0.1)
    assert found["limit"] < found["bottom"]
    assert found["ticks"][:6] == ["0.1", "0.2", "0.5", "1", "2", "5"]
    assert any("0.125: the grammar itself" in words for words in found["ticks"])
    assert "loss of the grammar itself0.125" in found["facts"]


@pytest.mark.parametrize("more", [{"limit": None}, {}])
def test_without_a_limit_there_is_no_line_and_few_losses_have_ticks_too(
    bpe, tmp_path, more
):
    found = curves(bpe, tmp_path, [7.33, 6.1, 5.29], **more)  # the first log steps
    assert found["limit"] is None and "grammar" not in found["facts"]
    assert found["ticks"][:5] == ["5.29", "5.8", "6.31", "6.82", "7.33"]
