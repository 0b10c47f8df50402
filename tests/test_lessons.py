r"""The lessons say what the code does: each rule below is run over every lesson.

A lesson is lessons/0N_name.md; README.md, the other lessons/*.md, and
lessons/quests/*.md obey the same rules but the last two. A rule is a function
(text, path) -> list of complaints.

excerpts    A ```python fence begins with the line `# 0N_name.py` (or another file of
            ours, `# lessons/build.py`); the rest stands in that file word for word,
            at most 15 lines of it. All lines may be shifted left by the same width.
            A line `# ...` is an elision: what follows it comes later in the file.
            Code that stands in no file of ours (a change to make) is a ```diff fence.
diffs       A ```diff fence that begins with `--- 0N_name.py` can be applied to that
            script, and the result compiles. What it removes, and lines of context,
            stand there once; a line `@@` separates two changes.
examples    A ```pycon fence is run by doctest; the fences of a lesson share names.
constants   `NAME = value` in prose is a FACT and equals the assignment in the script
            that the paragraph names (or in any, if it names none that has it).
            It is an EDIT in a table row, in a <summary>, under a heading with
            "experiment", "exercise" or "learning path", and where "set", "change" or
            "try" stands before it in its sentence: the constant must exist, and the
            script's own check_constants() must accept the value (but not under a
            heading with "wrong": there bad values are the subject). After "add" the
            name may be new.
links       Relative links and images lead to files that exist, #anchors to headings;
            every script, lesson or test that is named exists.
mermaid     A ```mermaid fence is a flowchart; every label, of nodes, edges and
            subgraphs, stands in double quotes; no node is without a label. Where node
            and the packages mermaid and jsdom are found (in MERMAID_DIR/node_modules
            or on NODE_PATH), the real mermaid parses every fence.
hardware    A HARDWARE NUMBER is a number with a unit of time (3 s, two minutes) or of
            speed (tokens/s, MB/s), or MB or GB in a sentence with "memory" or "peak".
            The text from its heading to the next heading must name a machine, a torch
            version and a date (2026-11-23); a footnote[^cpu] that does so serves.
            Free are: a paragraph that cites arXiv or says "reported" (others'
            numbers), "every 10 minutes" (a setting), "20 minutes to read", "an 8 GB
            Mac", and a paragraph with the comment <!-- not measured: why -->.
style       Lines are at most 88 wide (tables, links and output may be wider); no TODO.
reading_time  A lesson says once how many minutes it takes to read; to 5 minutes, that
            is 200 words and 10 lines of code or output a minute.
parts       A lesson has the headings of PARTS in their order, a picture, 4 to 7
            excerpts, three experiments, five questions with <details>, and further
            reading.
length      A lesson has 1,200 to 1,800 words outside its fences.
"""
import ast
import doctest
import functools
import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LESSONS = sorted((ROOT / "lessons").glob("0*.md"))
OTHERS = [*sorted((ROOT / "lessons" / "quests").glob("*.md")), ROOT / "README.md"]
OTHERS += sorted({*(ROOT / "lessons").glob("*.md")} - {*LESSONS})
TEXTS = [path for path in LESSONS + OTHERS if path.exists()]
SOURCES = sorted(ROOT.glob("0*.py")) + sorted((ROOT / "lessons").glob("*.py"))

PARTS = [  # what the headings (## and deeper) must hold, in this order, in any case
    "run it",  # command and real output
    "by hand",  # tiny numbers
    "predict",  # predict, then check
    "wrong",  # when it goes wrong: symptom, cause, cure
    "experiment",  # three, measured
    "question",  # five, answers folded away
    "further reading",  # papers by name and arXiv number
]
MACHINE = re.compile(r"EPYC|Xeon|Ryzen|\bM[1-6]\b|[AHV][12]00|\b[LT]4\b|RTX")
IN_LETTERS = r"(?:[Tt]wo|[Tt]hree|[Ff]our|[Ff]ive|[Ss]ix|[Ss]even|[Ee]ight|[Tt]en)"
NUMBER = rf"(?:\d[\d,.]*|{IN_LETTERS})"
TIME = r"(?:ms|s|sec|seconds?|min|minutes?|h|hours?|days?)"
TIMES = re.compile(
    rf"(?<![\w.,/-]){NUMBER}[ -]?{TIME}\b"
    r"|\d[\d,.]*k? ?(?:tokens|stories|steps|[MG]B)(?:/s| (?:per|a) second)"
)
MEMORY = re.compile(r"\d[\d,.]* ?[MG]B")


# ------------------------------------------------------------------ reading Markdown


def fences(text, language=None):
    """Every fence of a text: (language, its lines without their common indentation)."""
    found = re.finditer(r"^( *)```(\w*)\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    all_of_them = [(f[2], textwrap.dedent(f[3]).splitlines()) for f in found]
    return [(kind, body) for kind, body in all_of_them if language in (None, kind)]


def prose(text):
    """The text with its fences blanked out: what a reader reads as English."""
    return re.sub(
        r"^ *```\w*\n.*?^ *```$",
        lambda found: "\n" * found[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE,
    )  # fmt: skip


def sections(text):
    """[(heading, body)]: from each heading to the next one of any depth."""
    parts, fenced = [["", ""]], False
    for line in text.splitlines(keepends=True):
        fenced ^= line.lstrip().startswith("```")
        if not fenced and re.match(r"#{1,6} ", line):
            parts.append([line.strip(), ""])
        else:
            parts[-1][1] += line
    return [(heading, body) for heading, body in parts]


def paragraphs(text):
    """Blocks between blank lines."""
    return [block for block in re.split(r"\n\s*\n", text) if block.strip()]


# --------------------------------------------------------------------------- the rules


def excerpts(text, path):
    complaints = []
    for _, body in fences(text, "python"):
        named = re.fullmatch(r"# ([\w/]+\.py)", body[0] if body else "")
        if not named:
            complaints.append(f"fence does not begin with # 0N_name.py: {body[:1]}")
            continue
        script = ROOT / named[1]
        if not script.exists():
            complaints.append(f"{named[1]} does not exist")
        elif len(body) > 16:
            complaints.append(f"{len(body) - 1} lines of {named[1]} are more than 15")
        elif not occurs(body[1:], script.read_text("utf-8").splitlines()):
            complaints.append(f"not word for word in {named[1]}: {body[1:3]}")
    return complaints


def occurs(body, lines):
    """Do the parts of a fence stand in the lines, in order, shifted by one width?"""
    parts = [[]]
    for line in body:
        if line.strip() == "# ...":
            parts.append([])
        else:
            parts[-1].append(line.rstrip())
    parts = [part for part in map(strip_blank_lines, parts) if part]
    for shift in ("", " " * 4, " " * 8, " " * 12):
        place = 0
        for part in parts:
            wanted = [shift + line if line else "" for line in part]
            tries = range(place, len(lines) - len(wanted) + 1)
            places = [i for i in tries if lines[i : i + len(wanted)] == wanted]
            if not places:
                break
            place = places[0] + len(wanted)
        else:
            return bool(parts)
    return False


def diffs(text, path):
    complaints, found = [], re.finditer(r"^```diff\n(.*?)^```$", text, re.S | re.M)
    for body in [fence[1].splitlines() for fence in found]:
        script = body[0].removeprefix("--- ")
        if script == body[0]:
            continue
        code = "\n" + (ROOT / script).read_text("utf-8")
        for change in "\n".join(body[1:]).split("\n@@\n"):
            lines = change.split("\n")
            old, new = (
                "".join(f"{line[1:]}\n" for line in lines if line[:1] in marks)
                for marks in (" -", " +")
            )
            if code.count("\n" + old) != 1 or not old:
                complaints.append(f"not once in {script}: {old}")
            code = code.replace("\n" + old, "\n" + new)
        try:
            compile(code, script, "exec")
        except SyntaxError as error:
            complaints.append(f"{script}, changed, does not compile: {error}")
    return complaints


def strip_blank_lines(lines):
    while lines and not lines[0]:
        lines = lines[1:]
    while lines and not lines[-1]:
        lines = lines[:-1]
    return lines


def examples(text, path):
    complaints, names = [], {}
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    for number, (_, body) in enumerate(fences(text, "pycon"), start=1):
        source = "\n".join(body) + "\n"
        test = doctest.DocTestParser().get_doctest(source, names, path.name, None, 0)
        if not test.examples:
            complaints.append(f"pycon fence {number} has no >>> line")
        said = []
        doctest.DocTestRunner(optionflags=flags, verbose=False).run(
            test, out=said.append, clear_globs=False
        )
        names = test.globs
        complaints += said
    return complaints


@functools.cache
def assignments():
    """{constant: {script: the expression it is set to}}, of all scripts."""
    found = {}
    for source in SOURCES:
        for node in ast.parse(source.read_text("utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            for target in targets:
                names = target.elts if isinstance(target, ast.Tuple) else [target]
                if len(names) == 1 and getattr(names[0], "id", "").isupper():
                    found.setdefault(names[0].id, {})[source.name] = node.value
    return found


def constants(text, path):
    complaints, known = [], assignments()
    for heading, body in sections(prose(text)):
        edits = re.search("experiment|exercise|learning path", heading, re.IGNORECASE)
        for block in paragraphs(body):
            for found in re.finditer(r"`([A-Z][A-Z0-9_]+)\s=\s([^`]+)`", block):
                name, value = found[1], " ".join(found[2].split())
                line_start = block.rfind("\n", 0, found.start()) + 1
                before = re.split(r"[.?!:](?=\s)", block[: found.start()])[-1]
                row = block[line_start:].lstrip().startswith("|")
                row = row or "<summary>" in block[line_start : found.start()]
                if re.search(r"\badd\b", before, re.IGNORECASE):
                    continue
                if name not in known:
                    complaints.append(f"{name} is a constant of no script")
                    continue
                scripts = {s: v for s, v in known[name].items() if s in block}
                scripts = scripts or known[name]
                try:
                    quoted = ast.parse(value, mode="eval").body
                except SyntaxError:  # perhaps a message that begins like this
                    if "wrong" not in heading.lower():
                        complaints.append(f"{name} = {value} is not Python")
                    continue
                change = r"\b(set|setting|change|changed|try)\b"
                if edits or row or re.search(change, before, re.IGNORECASE):
                    if "wrong" not in heading.lower():
                        complaints += refused(name, quoted, scripts)
                elif ast.dump(quoted) not in map(ast.dump, scripts.values()):
                    true = {s: ast.unparse(v) for s, v in scripts.items()}
                    complaints.append(f"{name} = {value}, but it is {true}")
    return complaints


def refused(name, expression, scripts):
    """Complaints about an edit that a script's own checks refuse."""
    if name in ("DEVICE", "START_FROM"):  # a learner's machine has what ours has not
        return []
    try:
        value = ast.literal_eval(expression)
    except ValueError:
        return [f"{name} = {ast.unparse(expression)} is no plain value"]
    for script in scripts:
        module = importlib.import_module(script.removesuffix(".py"))
        names = "check_constants", "read_size", "check_inputs"
        checks = [getattr(module, n) for n in names if hasattr(module, n)][:1]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, name, value)
            try:
                for check in checks:
                    check(*[2048 for _ in inspect.signature(check).parameters])
            except SystemExit as error:  # of missing artifacts it may complain
                if name in str(error):
                    return [f"{script} refuses {name} = {value!r}: {error}"]
    return []


def slug(heading):
    """The anchor that GitHub gives a heading."""
    plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading.lstrip("# "))
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")


def links(text, path):
    complaints, english = [], prose(text)
    targets = re.findall(r"\]\(([^)\s]+)[^)]*\)|(?:src|href)=\"([^\"]+)\"", english)
    for target in (a or b for a, b in targets):
        if re.match(r"https?:|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if file != path and not file.exists():
            complaints.append(f"{target} leads nowhere")
        elif "artifacts" in file.parts or "data" in file.relative_to(ROOT).parts:
            complaints.append(f"{target} does not exist before a stage has run")
        elif anchor:
            other = text if file == path else file.read_text("utf-8")
            if anchor not in [slug(heading) for heading, _ in sections(other)]:
                complaints.append(f"{target}: no such heading")
    for name in re.findall(r"(?<![\w/.])(?:lessons/|tests/)?\w+\.(?:py|md)\b", text):
        folders = [ROOT, path.parent, ROOT / "lessons", ROOT / "tests"]
        ours = re.match(r"(0\d_|lessons/|tests/)", name)
        if ours and not any((folder / name).exists() for folder in folders):
            complaints.append(f"{name} is named but does not exist")
    return complaints


KEYWORDS = {"subgraph", "end", "direction", "LR", "RL", "TB", "TD", "BT"}


def mermaid(text, path):
    complaints = []
    for _, body in fences(text, "mermaid"):
        if not re.match(r"(flowchart|graph) (LR|RL|TB|TD|BT)$", (body or [""])[0]):
            complaints.append(f"begins with {body[:1]}, not flowchart LR or the like")
        labelled, named = set(), set()
        for line in body[1:]:
            if re.match(r"\s*(%%|style |classDef |class |linkStyle )", line):
                continue
            bare = re.sub(r'"[^"]*"', '""', line)
            inside = re.findall(r"[\[({]+[/\\]?([^\[\](){}]*?)[/\\]?[\])}]+", bare)
            edges = re.findall(r"\|([^|]*)\|", bare)
            edges += re.findall(r"--+ +([\w ]+) +--", bare)
            edges += re.findall(r"subgraph +([^\"\[\s]+) *$", bare)
            complaints += [
                f"label {label!r} stands in no quotes: {line.strip()}"
                for label in inside + edges
                if label != '""'
            ]
            labelled.update(re.findall(r"(\w+) *(?=[\[({>]+[/\\]?\"\")", bare))
            ids = re.sub(r'""|[\[\](){}/\\|]|:::\w+|<?[-=.]+>?', " ", bare)
            named.update(re.findall(r"\b[A-Za-z]\w*", ids))
        without = named - labelled - KEYWORDS
        if without:
            complaints.append(f"nodes without a label: {sorted(without)}")
    return complaints


def hardware(text, path):
    complaints = []
    notes = dict(re.findall(r"^\[\^(\w+)\]: (.*(?:\n[ \t]+.*)*)", text, re.MULTILINE))
    for heading, body in sections(text):
        if re.match(r"\s*\[\^\w+\]: ", body):
            continue
        body = re.sub(r"^ *```(\w*)\n.*?^ *```$", only_output, body, flags=re.S | re.M)
        footnotes = [notes.get(name, "") for name in re.findall(r"\[\^(\w+)\]", body)]
        named = "".join([body, *footnotes])
        named = heading + " " + " ".join(named.split())
        lacks = [
            what
            for what, pattern in [
                ("machine", MACHINE),
                ("torch version", re.compile(r"torch \d+\.\d+")),
                ("date", re.compile(r"20\d\d-[01]\d-[0-3]\d")),
            ]
            if not pattern.search(named)
        ]
        if not lacks:
            continue
        for block in paragraphs(body):
            if re.search(r"arXiv|reported|<!-- not measured: ", block):
                continue
            for number in hardware_numbers(block):
                where = heading or "the beginning"
                complaints.append(f"{number!r} under {where!r}: no {', '.join(lacks)}")
    return complaints


def only_output(fence):
    """A fence -> "" if it holds code; output without what stories say of "two days"."""
    if fence[1] in ("python", "pycon", "mermaid", "diff"):
        return ""
    return re.sub(rf"\b{IN_LETTERS} ", "", fence[0])


def hardware_numbers(block):
    """The measured-looking numbers of a paragraph."""
    block = re.sub(rf"\bevery {NUMBER} {TIME}\b", "", " ".join(block.split()))
    block = re.sub(rf"{NUMBER}[ -]{TIME} (to read|of reading)", "", block)
    numbers = [found[0] for found in TIMES.finditer(block)]
    for sentence in re.split(r"[.!?;|](?=\s)", block):
        if re.search(r"\b(memory|peak)\b", sentence, re.IGNORECASE):
            sentence = re.sub(r"\d+ GB (Mac|machine)|Mac with \d+ GB", "", sentence)
            numbers += MEMORY.findall(sentence)
    return numbers


def style(text, path):
    complaints = []
    for line in prose(text).splitlines():
        free = re.search(r"^\s*(\||!\[|<img)|\]\(|://", line)
        if len(line) > 88 and not free:
            complaints.append(f"{len(line)} wide: {line[:50]} ...")
    for word in re.findall(r"\bTODO\b|\bFIXME\b|@[A-Z]+@", text):
        complaints.append(f"{word} is left in the text")
    return complaints


def parts(text, path):
    complaints, place = [], 0
    headed = sections(text)
    headings = [heading.lower() for heading, _ in headed]
    for part in PARTS:
        places = [i for i in range(place, len(headings)) if part in headings[i]]
        if places:
            place = places[0]
        else:
            complaints.append(f"no heading with {part!r} (after the ones before it)")

    def under(word):
        """The text below the heading with this word, its deeper headings included."""
        for i, (heading, body) in enumerate(headed):
            if word in heading.lower():
                for deeper, more in headed[i + 1 :]:
                    if deeper.split(" ")[0] <= heading.split(" ")[0]:
                        break
                    body += deeper + "\n" + more
                return body
        return ""

    rows = re.findall(r"^\|(?![-: |]+$)", under("experiment"), re.MULTILINE)
    items = re.findall(r"^(?:#{3,} |\d\. |\*\*\d)", under("experiment"), re.MULTILINE)
    if max(len(rows) - 1, len(items)) < 3:
        complaints.append("fewer than three experiments (rows, items or headings)")
    if under("question").count("<details>") != 5:
        complaints.append("not five questions with <details>")
    if "<details>" not in under("predict"):
        complaints.append("nothing to predict with its answer in <details>")
    if text.count("<details>") != text.count("</details>"):
        complaints.append("a <details> is not closed")
    if not fences(text, "mermaid") and "![" not in text:
        complaints.append("no picture")
    if not 4 <= len(fences(text, "python")) <= 7:
        complaints.append(f"{len(fences(text, 'python'))} excerpts, not 4 to 7")
    if not re.search(r"arXiv.?\d{4}\.\d{4,5}|https?://", under("further reading")):
        complaints.append("no further reading: no arXiv number, no address")
    return complaints


def count_words(text):
    """Words a reader reads: no fences, no tags, no addresses."""
    tags = r"</?(?:details|summary|br|img|p|a|sub|sup|kbd)\b[^>]*>|<!--.*?-->"
    plain = re.sub(tags + r"|\]\([^)]*\)", " ", prose(text), flags=re.DOTALL)
    return sum(bool(re.search(r"\w", word)) for word in plain.split())


def length(text, path):
    words = count_words(text)
    return [] if 1200 <= words <= 1800 else [f"{words:,} words, not 1,200 to 1,800"]


def reading_time(text, path):
    """Prose at 200 words a minute, code and output at 10 lines a minute, to 5 minutes."""
    said = [int(n) for n in re.findall(r"(\d+)\s+minutes\s+to\s+read", text)]
    if len(said) != (1 if path in LESSONS else min(1, len(said))):
        return [f"one line must say the minutes to read, not {len(said)}"]
    lines = sum(bool(line.strip()) for _, body in fences(text) for line in body)
    minutes = count_words(text) / 200 + lines / 10
    wrong = [n for n in said if abs(n - minutes) > 2.5]
    return [f"{n} minutes to read, but they are {minutes:.1f}" for n in wrong]


EVERYWHERE = [excerpts, diffs, examples, constants, links, mermaid, hardware, style]
EVERYWHERE += [reading_time]
LESSONS_ONLY = [parts, length]


# --------------------------------------------------------------- the rules are kept


@pytest.mark.parametrize("rule", EVERYWHERE + LESSONS_ONLY, ids=lambda r: r.__name__)
@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_every_lesson_keeps_the_rule(path, rule):
    if rule in LESSONS_ONLY and path not in LESSONS:
        pytest.skip("a rule for lessons only")
    complaints = rule(path.read_text("utf-8"), path)
    assert not complaints, f"{path.name}, {rule.__name__}:\n" + "\n".join(complaints)


PARSE = """
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
const [folder, diagrams] = process.argv.slice(2);
const require = createRequire(folder + "/any.js");
let mermaid;
try {
  const { JSDOM } = require("jsdom");  // mermaid wants a browser's window
  globalThis.window = new JSDOM("").window;
  globalThis.document = globalThis.window.document;
  mermaid = (await import(pathToFileURL(require.resolve("mermaid")))).default;
} catch (error) {
  console.log(JSON.stringify({ missing: error.message }));
  process.exit();
}
const errors = [];
for (const diagram of JSON.parse(diagrams))
  try { await mermaid.parse(diagram); errors.push(null); }
  catch (error) { errors.push(error.message); }
console.log(JSON.stringify({ errors }));
process.exit();
"""


def parse_with_mermaid(diagrams, folder):
    """[diagram] -> [what the real mermaid says against it, or None]; skips without."""
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    script = folder / "parse.mjs"
    script.write_text(PARSE)
    where = os.environ.get("MERMAID_DIR", str(ROOT))
    command = ["node", str(script), where, json.dumps(diagrams)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    if "missing" in answer:
        pytest.skip("no mermaid and jsdom of npm: set MERMAID_DIR or NODE_PATH")
    return answer["errors"]


def test_the_real_mermaid_parses_every_diagram(tmp_path):
    named = [
        (path.name, "\n".join(body))
        for path in TEXTS
        for _, body in fences(path.read_text("utf-8"), "mermaid")
    ]
    good, bad = 'flowchart LR\n  a["1 (one)"] --> b["2"]', "flowchart LR\n  a[1 (one)]"
    errors = parse_with_mermaid([good, bad] + [body for _, body in named], tmp_path)
    assert errors[0] is None and errors[1], "this check sees no difference"
    wrong = [(name, error) for (name, _), error in zip(named, errors[2:]) if error]
    assert not wrong


# ------------------------------------------------------------ each rule, broken once


def fenced(language, *lines):
    return f"```{language}\n" + "\n".join(lines) + "\n```\n"


def flowchart(*lines):
    return fenced("mermaid", "flowchart LR", *lines)


LINE = 'FORMAT = "01_bpe/1"  # changes when the files below change their form'
HERE = "2 cores of an AMD EPYC machine, torch 2.13.0 CPU, 2026-11-23"
BAD = [
    (excerpts, fenced("python", LINE), "an excerpt that names no file"),
    (excerpts, fenced("python", "# 07_nothing.py", LINE), "a file that does not exist"),
    (excerpts, fenced("python", "# 01_bpe.py", LINE.replace("1", "2")), "a typo"),
    (excerpts, fenced("python", "# 01_bpe.py", "import os", "import json"), "a gap"),
    (excerpts, fenced("python", "# 01_bpe.py", "import os", "# ...", "import json"),
     "an elision that goes backwards"),
    (excerpts, fenced("python", "# 01_bpe.py", *["import os"] * 16), "sixteen lines"),
    (excerpts, fenced("python", "# 01_bpe.py", "merged, i = [], 0", "    while True:"),
     "another indentation"),
    (diffs, fenced("diff", "--- 01_bpe.py", "-import jason"), "no such line"),
    (diffs, fenced("diff", "--- 01_bpe.py", "+import this"), "no place is named"),
    (diffs, fenced("diff", "--- 01_bpe.py", "-import json", "+import"), "no Python"),
    (examples, fenced("pycon", ">>> 1 + 1", "3"), "a wrong result"),
    (examples, fenced("pycon", ">>> unknown_name"), "an exception"),
    (examples, fenced("pycon", "1 + 1"), "an example without a prompt"),
    (constants, "By default `MIN_FREQUENCY = 3`.", "a false fact"),
    (constants, "Here `MIN_FREQUENZY = 2` holds.", "a constant that no script has"),
    (constants, "Set `MIN_FREQUENZY = 2`.", "an edit of no constant"),
    (constants, "| `VOCAB_SIZE = 100` | fewer |", "an edit that the script refuses"),
    (constants, "## Experiments\n\n`VOCAB_SIZE = 2.5`", "the same"),
    (constants, "Set it. Here `VOCAB_SIZE = 512` holds.", "'set' in another sentence"),
    (constants, "In 02_prepare.py `FORMAT = \"01_bpe/1\"`.", "another script's value"),
    (links, "See [this](nowhere.md).", "a dead link"),
    (links, "![a curve](images/nowhere.svg)", "a missing image"),
    (links, "See [this](#no-such-heading).", "a missing heading"),
    (links, "See [this](../artifacts/01_bpe/vocab.txt).", "a link into artifacts"),
    (links, "Run `python 07_nothing.py`.", "a script that does not exist"),
    (mermaid, flowchart('  a[x] --> b["y"]'), "a bare label"),
    (mermaid, flowchart('  a["x"] -->|yes| b["y"]'), "a bare edge"),
    (mermaid, flowchart('  a["x"] -- yes --> b["y"]'), "the same"),
    (mermaid, flowchart('  a["x"] --> b'), "a node with no label"),
    (mermaid, flowchart("  subgraph s [Title]", "  end"), "a title"),
    (mermaid, fenced("mermaid", "sequenceDiagram", "  a->>b: hello"), "another kind"),
    (hardware, "It takes 3 s.", "seconds without a machine"),
    (hardware, "It takes three minutes.", "a number in letters"),
    (hardware, "It learns from 20,000 tokens per second.", "a speed"),
    (hardware, "Its peak is 64 MB.", "memory"),
    (hardware, f"It takes 3 s.\n\n## Next\n\nMeasured on {HERE}.", "another section's"),
    (hardware, f"It takes 3 s on {HERE.replace('torch', '')}.", "no torch version"),
    (hardware, f"It takes 3 s on {HERE.replace('2026-11-23', '')}.", "no date"),
    (hardware, f"It takes 3 s on {HERE.replace('EPYC', '')}.", "no machine"),
    (hardware, fenced("text", "[wrote] all of it in 2.8 s"), "a time in output"),
    (style, "word " * 18, "a line of 90"),
    (style, "TODO: say more", "something unfinished"),
    (style, "It takes @TIME@.", "a placeholder"),
    (reading_time, "word " * 1400, "no minutes"),
    (reading_time, "20 minutes to read. " + "word " * 1400, "they are 7"),
    (parts, "# A lesson\n\n## Run it\n\nThe end.", "a lesson without its parts"),
    (length, "word " * 1199, "too short"),
    (length, "word " * 1801, "too long"),
    (length, fenced("python", "word " * 1500), "nothing but code"),
]  # fmt: skip
GOOD = [
    (excerpts, fenced("python", "# 01_bpe.py", "import heapq", "# ...", "import sys")),
    (excerpts, fenced("python", "# 01_bpe.py", "merged, i = [], 0")),  # shifted left
    (excerpts, fenced("diff", "-VOCAB_SIZE = 2048", "+VOCAB_SIZE = 512")),
    (diffs, fenced("diff", "--- 01_bpe.py", " import json", "+import this",
                "@@", "-import sys")),
    (examples, fenced("pycon", ">>> x = 1") + fenced("pycon", ">>> x", "1")),
    (constants, "By default `MIN_FREQUENCY = 2`. Set `MIN_FREQUENCY = 100` and see."),
    (constants, "Add `WINDOW = 64` to the constants."),
    (constants, "## When it goes wrong\n\nSet `VOCAB_SIZE = 100`: it is refused."),
    (constants, "In 02_prepare.py `FORMAT = \"02_prepare/2\"`."),
    (links, "[it](../01_bpe.py), [this](#a-heading)\n\n## A heading\n"),
    (mermaid, flowchart('  a["x (1)"] -->|"yes"| b(["y"])',
                     '  subgraph s ["A title"]', "  b --> a", "  end")),
    (hardware, f"It takes 3 s on {HERE}."),
    (hardware, f"It takes 3 s[^cpu].\n\n## More\n\nx\n\n[^cpu]: {HERE}"),
    (hardware, "The paper (arXiv 2305.07759) reports 30 hours."),
    (hardware, "It saves every 10 minutes. A lesson takes 20 minutes to read."),
    (hardware, "The download has 22.5 MB. It runs on an 8 GB Mac. 2 heads, 96 wide."),
    (hardware, fenced("text", "For two days the dog ate 3 pears.")),
    (reading_time, "5 minutes to read. " + "word " * 1400),
    (reading_time, "20 minutes to read.\n" + fenced("text", *["line"] * 200)),
]  # fmt: skip


def name_of(value):
    return getattr(value, "__name__", "")


def test_every_rule_is_broken_at_least_once():
    assert {rule for rule, *_ in BAD} == {*EVERYWHERE, *LESSONS_ONLY}


@pytest.mark.parametrize("rule, text, why", BAD, ids=name_of)
def test_a_text_that_breaks_the_rule_is_rejected(rule, text, why):
    assert rule(text, ROOT / "lessons" / "02_tokenization.md"), why


@pytest.mark.parametrize("rule, text", GOOD, ids=name_of)
def test_a_text_that_keeps_the_rule_is_let_through(rule, text):
    assert rule(text, ROOT / "lessons" / "02_tokenization.md") == []
