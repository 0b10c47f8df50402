"""Draw the figures of the lessons, from the artifacts of a finished run.

READS   artifacts/01_bpe to artifacts/05_eval
WRITES  lessons/images/: learning.svg (README), lengths.svg (lesson 02), similar.svg,
        attention.svg and stream.svg (04), loss.svg and rate.svg (06); equal artifacts,
        equal files
RUN     python lessons/images/make_figures.py   (after python 05_eval.py)

An SVG file is text: lines, rectangles and words, each with its position in pixels,
counted from the upper left corner. So a figure needs no library, and its words can be
searched.
"""
# =========================================================================== 1. Imports
import csv
import datetime
import hashlib
import importlib
import itertools
import math
import sys
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))
# `import 01_bpe` is a syntax error (a name cannot start with a digit), hence:
bpe = importlib.import_module("01_bpe")
gpt = importlib.import_module("03_model")
train = importlib.import_module("04_train")

import numpy as np  # noqa: E402  01 and 03 have said so if a package is missing
import torch  # noqa: E402

# ============================================================= 2. Constants: edit these
# Appears in every figure, before the date of the run: edit it if yours ran elsewhere.
MACHINE = "2 cores of an Intel Xeon cloud machine, torch 2.13.0 CPU"
SENTENCE = "There once was a little girl named Emma. Emma loved animals. One day,"
PROMPT = "Once upon a time, there"  # stream.svg follows its last token
WORDS = " Tom| Sam| Emma| cat| dog| parrot| red| purple| was| lived|.|!"  # similar.svg
HEAD = (2, 4)  # block and head, counted from 1, whose attention attention.svg shows
UNLIKELY, ABSURD = 0.05, 0.001  # learning.svg colors tokens less probable than these

ME = "lessons/images/make_figures.py"
IN = HERE.parent.parent / "artifacts"
OUT = HERE
COLORS = {  # name: in light mode, in dark mode
    "paper": ("#ffffff", "#0d1117"), "ink": ("#1f2328", "#e6edf3"),
    "soft": ("#59636e", "#9198a1"), "grid": ("#d1d9e0", "#3d444d"),
    "blue": ("#0757ba", "#58a6ff"), "gray": ("#afb8c1", "#656c76"),
    "orange": ("#bc4c00", "#f0883e"), "amber": ("#9a6700", "#d8a530"),
    "red": ("#cf222e", "#ff7b72"),
}  # fmt: skip


# =================================================================== 3. Write SVG files
def css(mode):  # 0 or 1 -> the rules of light or of dark mode
    """Each color as two classes: to fill with it (blue) and to draw (blue-line)."""
    rules = [
        f".{name} {{ fill: {both[mode]} }} .{name}-line {{ stroke: {both[mode]} }}"
        for name, both in COLORS.items()
    ]
    # A rim in the color of the paper keeps a label legible where it meets a line.
    rim = f"stroke: {COLORS['paper'][mode]}; stroke-width: 4px; paint-order: stroke"
    return "\n".join([*rules, f"text.orange {{ {rim} }}"])


def safe(words):
    """Text as XML allows it: "<" and "&" as codes, and no control characters."""
    return escape("".join(c if c.isprintable() else "\ufffd" for c in words))


def ticks(top, most):
    """Round numbers from 0 to top, in at most `most` steps: ticks(5, 5) is 0 to 5."""
    power = 10.0 ** math.floor(math.log10(top / most))
    step = next(power * n for n in (1, 2, 5, 10) if top / (power * n) <= most)
    return [round(n * step, 12) for n in range(int(top / step + 1e-9) + 1)]


def log_ticks(low, top):
    """Round numbers for a logarithmic scale: log_ticks(0.3, 8) is 0.5, 1, 2 and 5."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(top)) + 1)
    numbers = [float(f"{n}e{power}") for power in powers for n in (1, 2, 5)]
    return [number for number in numbers if low <= number <= top]


class Picture:
    """An SVG file that grows: every method adds an element to it."""

    def __init__(self, width, height, title, subtitle):
        self.height, size = height, f'width="{width}" height="{height}"'
        dark = f"@media (prefers-color-scheme: dark) {{\n{css(1)}\n}}"
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"'
            f' viewBox="0 0 {width} {height}" xml:space="preserve">',
            f"<title>{safe(title)}</title>\n<desc>{safe(subtitle)}</desc>\n<style>",
            "text { font-family: Helvetica, Arial, sans-serif }",
            "text.story { font-family: Georgia, 'Times New Roman', serif }",
            "tspan.red { text-decoration: underline }  /* for those who see no red */",
            f"{css(0)}\n{dark}\n</style>",
            f'<rect {size} rx="8" class="paper grid-line"/>',
        ]
        self.text(24, 38, title, size=20, font_weight="bold")
        self.text(24, 60, subtitle, "soft")

    def add(self, tag, inside="", **attributes):
        """<tag a="1">inside</tag>; class_ means class, and stroke_width stroke-width"""
        words = [f"<{tag}"]
        for name, value in attributes.items():
            value = f"{value:.4g}" if isinstance(value, float) else value
            words.append(f'{name.rstrip("_").replace("_", "-")}="{value}"')
        self.parts.append(f"{' '.join(words)}>{inside}</{tag}>")

    def text(self, x, y, words, color="ink", size=13, anchor="start", **more):
        """Words at (x, y), or [(color, words)] one after the other."""
        parts = [] if isinstance(words, str) else words
        spans = [f'<tspan class="{c}">{safe(part)}</tspan>' for c, part in parts]
        inside = "".join(spans) or safe(words)
        more |= {"class_": color, "font_size": size, "text_anchor": anchor}
        self.add("text", inside, x=x, y=y, **more)

    def line(self, points, color="grid", width=1, dashes="none"):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.add("polyline", points=path, class_=f"{color}-line", fill="none",
                 stroke_width=width, stroke_dasharray=dashes)  # fmt: skip

    def bar(self, x, y, width, height, color, opacity=1):
        self.add("rect", x=x, y=y, width=width, height=height, class_=color,
                 fill_opacity=opacity)  # fmt: skip

    def dot(self, x, y, color="ink", radius=4):
        self.add("circle", cx=x, cy=y, r=radius, class_=color)

    def axes(self, box, x_top, y_top, x_name, y_name, most=6, y_low=None):
        """Lines, numbers and names; returns to_x and to_y, from numbers to pixels.
        With y_low, where it begins, the vertical scale is logarithmic.
        """
        left, top, right, bottom = box

        def to_x(value):
            return left + value / x_top * (right - left)

        def to_y(value):
            if y_low is None:
                return bottom - value / y_top * (bottom - top)
            part = math.log(value / y_low) / math.log(y_top / y_low)
            return bottom - part * (bottom - top)

        for value in ticks(y_top, 5) if y_low is None else log_ticks(y_low, y_top):
            self.line([(left, to_y(value)), (right, to_y(value))])
            self.text(left - 14, to_y(value) + 4, f"{value:g}", "soft", 12, "end")
        for value in ticks(x_top, most):
            self.text(to_x(value), bottom + 20, f"{value:g}", "soft", 12, "middle")
        self.text((left + right) / 2, bottom + 40, x_name, "soft", 12, "middle")
        self.text(24, top - 14, y_name, "soft", 12)
        return to_x, to_y

    def finish(self, caption):  # -> the whole file as str
        self.text(24, self.height - 14, caption, "soft", 11)
        return "\n".join(self.parts) + "\n</svg>\n"


# ======================================================================== 4. Read a run
def read_run():
    """All that the figures show, as a dict; SystemExit if a stage has not run."""
    before, folder = IN / "03_model" / "model.pt", IN / "04_train"
    best, last, log = (folder / name for name in ("best.pt", "last.pt", "log.csv"))
    run, command = {}, "python 04_train.py"
    tokenizer = run["tokenizer"] = bpe.Tokenizer.load(IN / "01_bpe" / "tokenizer.json")
    for name in ("train.bin", "valid.bin"):
        bpe.need(IN / "02_prepare" / name, "02_prepare.py")
        run[name] = np.memmap(IN / "02_prepare" / name, dtype="<u2", mode="r")
    run["before"], _ = gpt.GPT.load(before, "03_model.py")
    for path in (last, log):
        bpe.need(path, "04_train.py")
    run["model"], content = gpt.GPT.load(best, "04_train.py")
    bpe.check_tokenizer(content["tokenizer"], bpe.shown(best), command)
    weights = b"".join(w.numpy().tobytes() for w in run["before"].state_dict().values())
    if hashlib.sha256(weights).hexdigest() != content["fingerprint"]["model"]:
        why = "03_model.py has run again since, or START_FROM chose another model."
        raise bpe.stop(f"The run did not begin with {bpe.shown(before)}.", why, command)
    run["eval"] = bpe.read_json(IN / "05_eval" / "eval.json", "05_eval.py", "05_eval/3")
    if run["eval"]["made_from"]["model"] != bpe.sha256_of(best):
        why = f"{bpe.shown(best)} has changed since it was measured."
        raise bpe.stop("eval.json is about another model.", why, "python 05_eval.py")
    rows = gpt.load_checkpoint(last, command)["rows"]
    run["evaluations"] = [row for row in rows if row.get("sample")]
    with open(log, newline="", encoding="utf-8") as file:
        run["log"] = list(csv.DictReader(file))
    day = datetime.datetime.fromtimestamp(last.stat().st_mtime, datetime.timezone.utc)
    run["caption"] = f"{MACHINE}, {day:%Y-%m-%d}"
    return run | {"prompt": train.choose_prompt(tokenizer, run["valid.bin"])}


def column(run, name):  # -> [(millions of tokens read, value)] of log.csv
    rows = [(row["tokens"], row[name]) for row in run["log"] if row[name]]
    return [(int(tokens) / 1e6, float(value)) for tokens, value in rows]


def baseline(run, name):  # stage 5 has it in bits per byte -> nats per token
    result = run["eval"]
    bits = result["baselines"][name] * result["bytes"] / result["stories"]["tokens"]
    return bits * math.log(2)


# ================================================================== 5. Draw the figures
def draw_loss(run):
    trained, validated = column(run, "train_loss"), column(run, "valid_loss")
    what = "Dashed: baselines, which only count how often tokens follow each other"
    lines = {"uniform": f"uniform: ln {len(run['tokenizer']):,}",
             "unigram": "unigram: how frequent each is",
             "bigram": "bigram: one token before",
             "trigram": "trigram: two before"}  # fmt: skip
    if "the grammar itself" in run["eval"]["baselines"]:
        lines["the grammar itself"] = "the grammar itself"
        what += "; and the limit"
    picture = Picture(880, 448, "How the loss falls", what)
    losses = [loss for _, loss in trained + validated]
    losses += [baseline(run, name) for name in lines]
    low, top = 0.9 * min(losses), 1.04 * max(losses)
    names = "tokens read (millions)", "loss (nats per token), on a logarithmic scale"
    box = (64, 104, 630, 366)
    to_x, to_y = picture.axes(box, trained[-1][0], top, *names, y_low=low)
    for name, knows in lines.items():
        y = to_y(baseline(run, name))
        picture.line([(64, y), (636, y)], "orange", dashes="6 4")
        picture.text(644, y + 4, f"{baseline(run, name):.2f} {knows}", "orange", 12)
    picture.line([(to_x(x), to_y(y)) for x, y in trained], "blue", 2)
    for x, y in validated:
        picture.dot(to_x(x), to_y(y))
    x, y = 644, to_y(validated[-1][1]) + 4
    picture.text(x, y, f"{validated[-1][1]:.2f} the model", size=12, font_weight="bold")
    picture.bar(420, 178, 140, 40, "paper")  # no line crosses the legend
    picture.line([(428, 188), (452, 188)], "blue", 2)
    picture.text(462, 192, "training loss", size=12)
    picture.dot(440, 208)
    picture.text(462, 212, "validation loss", size=12)
    return picture.finish(run["caption"])


def draw_rate(run):
    rate = column(run, "lr")
    peak, end = max(rate, key=lambda point: point[1]), rate[-1]
    what = "A linear warmup, then a straight line down to 0"
    picture = Picture(880, 320, "The learning-rate schedule of the run", what)
    names = "tokens read (millions)", "learning rate"
    to_x, to_y = picture.axes((74, 104, 856, 246), end[0], 1.1 * peak[1], *names)
    picture.line([(to_x(x), to_y(y)) for x, y in rate], "blue", 2.5)
    for (x, y), right, down, anchor, words in [
        (peak, 12, -6, "start", f"{peak[1]:.2g} at the end of the warmup"),
        (end, 0, -34, "end", f"{end[1]:.2g} at the end"),
    ]:
        picture.dot(to_x(x), to_y(y), "blue")
        picture.text(to_x(x) + right, to_y(y) + down, words, size=12, anchor=anchor)
    return picture.finish(run["caption"])


def draw_lengths(run):
    tokens, ids = run["tokenizer"].token_bytes, run["train.bin"]
    size = np.array([len(token) for token in tokens[4:]])  # special ones have no bytes
    used = np.zeros(len(tokens), dtype=np.int64)
    for start in range(0, len(ids), 2**20):  # in parts: the file may be large
        used += np.bincount(ids[start : start + 2**20], minlength=len(tokens))
    counts = [(np.ones(len(size)), "gray", "in the vocabulary, each token once")]
    counts += [(used[4:], "blue", "in the text, as often as each occurs")]
    percent = [np.bincount(size, weights=n) / n.sum() * 100 for n, *_ in counts]
    what = "What percentage of the tokens has how many bytes"
    picture = Picture(880, 400, "How long tokens are", what)
    right, top = size.max() + 1, 1.05 * np.max(percent)
    names = "bytes of the token", "tokens (%)"
    to_x, to_y = picture.axes((64, 104, 856, 326), right, top, *names, most=16)
    picture.bar(470, 96, 386, 64, "paper")
    wide = to_x(0.4) - to_x(0)
    for which, (n, color, words) in enumerate(counts):
        for length in range(1, right):
            y = to_y(percent[which][length])
            x = to_x(length) + (which - 1) * wide
            picture.bar(x, y, wide, to_y(0) - y, color)
        picture.bar(480, 106 + 26 * which, 16, 16, color)
        words += f": {np.average(size, weights=n):.2f} on average"
        picture.text(504, 119 + 26 * which, words)
    return picture.finish(run["caption"])


@torch.no_grad()
def draw_attention(run):
    model, token_bytes = run["model"].eval(), run["tokenizer"].token_bytes
    (block, head), L, H = HEAD, model.config.n_layer, model.config.n_head
    if not (1 <= block <= L and 1 <= head <= H):
        why = f"The model has {L} blocks of {H} heads, counted from 1."
        how = f"Edit HEAD at the top of {ME}, then: python {ME}"
        raise bpe.stop(f"HEAD = {HEAD}: there is no such head.", why, how)
    idx = torch.tensor([[bpe.BOS, *run["tokenizer"].encode(SENTENCE)]])  # (1, T)
    names = [bpe.show(token_bytes[i]) for i in idx[0].tolist()]
    x = model.wte(idx) + model.wpe(torch.arange(idx.shape[1]))  # (1, T, C)
    for earlier in model.h[: block - 1]:
        x = earlier(x)
    q, k, v = model.h[block - 1].attn.qkv(model.h[block - 1].ln_1(x))
    attn_weights = gpt.attention_by_hand(q, k, v)[1][0, head - 1]  # (1,H,T,T) -> (T,T)
    probs = model(idx)[0][0].softmax(dim=1)  # (1, T, V) -> (T, V)
    sure, guess = probs.max(dim=1)  # (T,), (T,)
    left, top, cell = 104, 160, 32
    right, bottom = left + cell * len(names), top + cell * len(names)
    picture = Picture(
        right + 200, bottom + 48,
        f"What each token attends to: block {block}, head {head}",
        "The attention weights of a row sum to 100%; from 10% on they are written out",
    )  # fmt: skip
    picture.text(right + 20, top - 26, "what the model", "soft", 12)
    picture.text(right + 20, top - 10, "predicts next", "soft", 12)
    for i, name in enumerate(names):
        x, y = left + cell * i, top + cell * i
        picture.text(left - 10, y + 20, name, anchor="end")
        picture.text(0, 0, name, transform=f"translate({x + 18} {top - 8}) rotate(-50)")
        for j, weight in enumerate(attn_weights[i, : i + 1].tolist()):
            x = left + cell * j
            picture.bar(x, y, cell - 2, cell - 2, "grid", 0.35)
            picture.bar(x, y, cell - 2, cell - 2, "blue", round(weight, 3))
            if weight >= 0.1:
                ink = "paper" if weight > 0.7 else "ink"
                picture.text(x + 15, y + 20, f"{100 * weight:.0f}", ink, 12, "middle")
        words = f"{bpe.show(token_bytes[guess[i]])}  {sure[i].item():.0%}"
        picture.text(right + 20, y + 20, words)
    return picture.finish(run["caption"])


@torch.no_grad()
def draw_similar(run):
    tokenizer = run["tokenizer"]
    words = WORDS.split("|")  # one token each, if the tokenizer is the default one
    ids = dict.fromkeys(tokenizer.encode(word)[-1] for word in words)
    names = [bpe.show(tokenizer.token_bytes[i]) for i in ids]
    vectors = run["model"].wte.weight[list(ids)]  # (N, C)
    vectors = vectors / vectors.norm(dim=1, keepdim=True)  # (N, C) / (N, 1): length 1
    cosines = (vectors @ vectors.T).tolist()  # (N, C) @ (C, N) -> (N, N)
    left, top, cell = 104, 128, 46
    picture = Picture(
        max(left + cell * len(names) + 24, 640), top + cell * len(names) + 48,
        "Which tokens have similar embeddings",
        "Dot products of embeddings scaled to length 1: they lie between -1 and 1",
    )  # fmt: skip
    for i, name in enumerate(names):
        x, y = left + cell * i, top + cell * i
        picture.text(left - 10, y + 28, name, anchor="end")
        picture.text(x + 22, y - 12, name, anchor="middle")
        for j, cosine in enumerate(cosines[i][: i + 1]):
            cosine = round(cosine, 2) or 0.0  # "or": there is a -0.0
            x, color = left + cell * j, "blue" if cosine > 0 else "orange"
            picture.bar(x, y, cell - 2, cell - 2, "grid", 0.35)
            picture.bar(x, y, cell - 2, cell - 2, color, abs(cosine))
            ink = "paper" if cosine > 0.6 else "ink"
            picture.text(x + 22, y + 27, f"{cosine:.2f}", ink, 12, "middle")
    return picture.finish(run["caption"])


@torch.no_grad()
def draw_stream(run):
    """What the model would predict if it ended after each addition to the stream."""
    model, token_bytes = run["model"].eval(), run["tokenizer"].token_bytes
    idx = torch.tensor([[bpe.BOS, *run["tokenizer"].encode(PROMPT)]])  # (1, T)
    x = model.wte(idx) + model.wpe(torch.arange(idx.shape[1]))  # (1, T, C)
    rows = [("token and position embeddings", x[0, -1])]
    for number, block in enumerate(model.h, start=1):
        x = x + block.attn(block.ln_1(x))
        rows.append((f"attention of block {number}", x[0, -1]))
        x = x + block.mlp(block.ln_2(x))
        rows.append((f"MLP of block {number}", x[0, -1]))
    top, high, last = 132, 52, bpe.show(token_bytes[idx[0, -1]])
    picture = Picture(
        880, top + high * len(rows) + 24, f"The residual stream at {last}",
        f"After {PROMPT!r}: if the model ended here, what would it predict next?",
    )  # fmt: skip
    picture.text(64, top - 30, "what is added to the stream", "soft", 12)
    picture.text(322, top - 30, "length of the sum", "soft", 12, "middle")
    picture.text(400, top - 30, "the three most probable tokens", "soft", 12)
    picture.line([(40, top), (40, top + high * (len(rows) - 1))], "blue", 6)
    for number, (what, vector) in enumerate(rows):
        y = top + high * number
        picture.dot(40, y, "blue", 12)
        picture.text(40, y + 5, "+", "paper", 16, "middle", font_weight="bold")
        picture.text(64, y + 5, what)
        picture.text(322, y + 5, f"{vector.norm().item():.1f}", anchor="middle")
        probs = model.output(model.ln_f(vector)).softmax(dim=0)  # (C,) -> (V,)
        for column, (p, i) in enumerate(zip(*(t.tolist() for t in probs.topk(3)))):
            x = 400 + 156 * column
            picture.bar(x, y - 14, 144, 28, "grid", 0.35)
            picture.bar(x, y - 14, round(144 * p, 1), 28, "blue", 0.45)
            picture.text(x + 8, y + 5, f"{bpe.show(token_bytes[i])}  {p:.1%}")
    return picture.finish(run["caption"])


@torch.no_grad()
def surprise(run, story, width, most):  # -> at most `most` lines of [(color, text)]
    """The beginning of a story, every token colored by how probable it is to the
    trained model; a line has about `width` characters and ends between words.
    """
    tokenizer, model = run["tokenizer"], run["model"].eval()
    ids = [bpe.BOS, *tokenizer.encode(story)][: model.config.block_size]
    probs = model(torch.tensor([ids[:-1]]))[0][0].softmax(dim=1)  # (T, V)
    given, words = len(tokenizer.encode(run["prompt"])), [[]]

    def wide(parts):  # the sign for a broken character is wide
        return sum(len(text) + 2 * text.count("\ufffd") for _, text in parts)

    for i, token in enumerate(ids[1:]):
        p, text = probs[i, token].item(), tokenizer.decode([token]).replace("\n", " ")
        color = "red" if p < ABSURD else "amber" if p < UNLIKELY else "ink"
        if text.startswith(" ") or wide(words[-1]) > 20:
            words.append([("ink", " ")] * text.startswith(" "))  # never underlined
        words[-1].append(("soft" if i < given else color, text.removeprefix(" ")))
    lines = [[]]
    for word in words:
        if wide(lines[-1] + word) > width:
            lines.append([])
            word = word[word[0] == ("ink", " ") :]  # no line begins with a space
        lines[-1] += word
    if len(lines) > most:
        lines[most - 1].append(("soft", " ..."))
    return lines[:most]


def draw_learning(run):
    rows, trained = run["evaluations"], column(run, "train_loss")
    untrained = train.sample(run["before"], run["tokenizer"], run["prompt"], "cpu")
    moments = [(0, run["eval"]["untrained"]["loss"], untrained)]
    for row in (rows[0], rows[(len(rows) - 1) // 2], rows[-1]):
        moments.append((row["tokens"], row["valid_loss"], row["sample"]))
    size = sum(weight.numel() for weight in run["model"].parameters())
    what = f"{size:,} parameters, {moments[-1][0]:,} tokens of short stories: one run"
    picture = Picture(880, 750, "A model learns to generate stories", what)
    names = "tokens read (millions)", "loss"
    top = 1.05 * max(moments[0][1], baseline(run, "uniform"))
    to_x, to_y = picture.axes((64, 104, 850, 236), trained[-1][0], top, *names)
    for name, words in [
        ("uniform", "uniform baseline: all tokens equally probable"),
        ("trigram", "trigram baseline: counts which token follows which two"),
    ]:
        y = to_y(baseline(run, name))
        picture.line([(64, y), (850, y)], "orange", dashes="6 4")
        picture.text(800, y + 4, words, "orange", 12, "end")
    points = [(to_x(x), to_y(y)) for x, y in [(0, moments[0][1]), *trained]]
    picture.line(points, "blue", 2.5)
    for number, (tokens, loss, story) in enumerate(moments):
        at, top = (to_x(tokens / 1e6), to_y(loss)), 314 + 98 * number
        for x, y in (at, (36, top - 5)):
            picture.dot(x, y, "blue", 10)
            n, bold = f"{number + 1}", {"font_weight": "bold"}
            picture.text(x, y + 4, n, "paper", 12, "middle", **bold)
        when = f"after {tokens / 1e6:.1f} million" if tokens else "before training"
        picture.text(54, top, when, **bold)
        picture.text(54, top + 20, f"loss {loss:.2f}", "soft")
        for row, words in enumerate(surprise(run, story, 78, 4)):
            parts = itertools.groupby(words, key=lambda part: part[0])
            spans = [(c, "".join(text for _, text in same)) for c, same in parts]
            picture.text(184, top + 21 * row, spans, "story", 15)
    picture.text(54, 704, [
        ("soft", "Gray: given. The trained model finds the other tokens "),
        ("ink", "likely"), ("soft", ", "),
        ("amber", f"unlikely (below {UNLIKELY:.0%})"), ("soft", " or "),
        ("red", f"very unlikely (below {ABSURD:.1%})"), ("soft", "."),
    ], size=12)  # fmt: skip
    return picture.finish(run["caption"])


# ============================================================================== 6. Main
def main():
    run = read_run()
    print(f"[read] {bpe.shown(IN)}: a run with {len(run['evaluations'])} evaluations")
    figures = [draw_learning, draw_lengths, draw_similar, draw_attention, draw_stream]
    figures += [draw_loss, draw_rate]
    files = {OUT / f"{draw.__name__[5:]}.svg": draw(run) for draw in figures}
    bpe.write_all(files)
    print(f"[note] All of them say: {run['caption']}.")
    print(f"       Another machine? Edit MACHINE in {ME}.")
    print(f"[wrote] {bpe.shown(OUT)}/: {' '.join(path.name for path in files)}")


if __name__ == "__main__":
    bpe.run_stage(main, ME, lock=False)
