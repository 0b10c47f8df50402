# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.13.0", "numpy", "regex", "tqdm"]
# ///
"""Side quest: teach your model to see. It looks at a picture and generates a story.

READS   artifacts/ (01_bpe/tokenizer.json, 02_prepare/meta.json, 04_train/best.pt),
        lessons/practice_stories.py, lessons/quests/drawings.json
WRITES  artifacts/picture/: model.pt, the model that sees, and its training state;
        picture.html, which shows where the model looked before each word
RUN     python lessons/quests/picture.py   (stopped? the same command resumes)
        python lessons/quests/picture.py "red kite, fox, beach, rain"   your own picture
TAKES   about 4 minutes on 2 cores of an Intel Xeon, torch 2.13.0, 2026-11-26
LESSON  lessons/quests/picture.md
"""
# =========================================================================== 1. Imports
import base64
import importlib
import json
import re
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT)]
# `import 01_bpe` is a syntax error (a name cannot start with a digit), hence:
names = "01_bpe", "04_train", "03_model", "05_eval", "06_sample"  # 04 sets up torch
bpe, train, gpt, evaluate, sample = map(importlib.import_module, names)

import numpy as np  # noqa: E402  the scripts have said so if a package is missing
import torch  # noqa: E402
from torch import nn  # noqa: E402
from tqdm import tqdm  # noqa: E402

# ============================================================= 2. Constants: edit these
STEPS = 3000  # of training; 500: it sees animals, places, and weather, but few toys
BATCH = 16  # pictures with stories per step; 4: more noise, less time
MAX_LR = 2e-3  # highest learning rate; a third of what pretraining used
TESTS = 300  # pictures per row of the table at the end; more: narrower intervals
PATCH = 8  # pixels along a side of a patch; 16: 9 patches and a coarser map on the page
SEED = 1  # of pictures, stories, and samples; another seed: different ones

ME = "lessons/quests/picture.py"
DRAWINGS = ROOT / "lessons" / "quests" / "drawings.json"
MODEL = ROOT / "artifacts" / "picture" / "model.pt"
REPAIR = "git checkout lessons/practice_stories.py lessons/quests/drawings.json"
SIDE = 48  # pixels along a side of a picture
bpe.one_of(ME, "PATCH", PATCH, [6, 8, 12, 16, 24, 48])  # divisors of SIDE
P = (SIDE // PATCH) ** 2  # patches of a picture
SAMPLERS = {"temperature": 0.8, "min_p": 0.1}  # as in the story check of 05_eval.py

# ============================================================= 3. Glossary of this file
# B, T    pictures and stories side by side (16); tokens of the longest one (about 110)
# P       patches of a picture (36), each of 8 x 8 pixels x 3 colors = 192 numbers
# C, V    width of the model (128); vocabulary size (2,048)
# scene   {"animal": "fox", "color": "red", "toy": "kite", ...}: what a picture shows
# kind    of a scene: "seen" in training, or a "new pair" or "new triple" (section 6)

# =========================================================== 4. The idea: visual tokens
# A transformer reads vectors. Those of a story come from the embedding table, one for
# each token. Nothing says that all of them must. Cut a picture into patches, turn each
# patch into a vector of the same length with one matrix, and put these vectors before
# the story's. Attention then looks back at patches as it looks back at words.

def cut(pictures, patch=PATCH):  # (B, S, S, colors) -> (B, P, patch^2 * colors)
    """Patches in reading order, row by row (vision transformer, arXiv 2010.11929).

    >>> tiny = np.arange(16).reshape(1, 4, 4, 1)  # rows 0 1 2 3, 4 5 6 7, and so on
    >>> cut(tiny, patch=2).tolist()
    [[[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]]
    """
    B, S, _, colors = pictures.shape
    n = S // patch  # patches along a side
    # SUBTLE: without swapaxes a patch would be a stripe of 64 pixels, not a square.
    x = pictures.reshape(B, n, patch, n, patch, colors).swapaxes(2, 3)
    return x.reshape(B, n * n, patch * patch * colors)

# ====================================================================== 5. Draw a scene
try:  # {"toy": {"ball": ["disc * 0 0 6 6", "disc white 0 0 2 6"], ...}, ...}
    THINGS = json.loads(DRAWINGS.read_text("utf-8"))
    WORDS = {what: [*THINGS[what]] for what in "animal color toy place weather".split()}
    PAINT = THINGS["color"] | THINGS["paint"]  # {"red": [215, 45, 40], ...}
except (OSError, LookupError, TypeError, ValueError) as error:
    why = f"Fix it ({error!r}), or undo all edits of both files with:"
    raise bpe.stop(f"{bpe.shown(DRAWINGS)} cannot be read.", why, REPAIR) from None
Y, X = np.ogrid[:SIDE, :SIDE]  # (SIDE, 1), (1, SIDE)
# Half the width of a shape at height y, which runs from -1 (top) to 1 (bottom):
WIDTH = {"box": lambda y: 1, "disc": lambda y: (1 - y * y).clip(0) ** 0.5,
         "diamond": lambda y: 1 - abs(y), "peak": lambda y: (1 + y) / 2,
         "bowl": lambda y: (3 - y) / 4}  # fmt: skip

def paint(canvas, shapes, x, y, size, outline, color):
    """Paint a thing at (x, y): larger and black first, if it has an outline."""
    for edge in [outline, 0.0] if outline else [0.0]:
        for kind, tone, *numbers in map(str.split, shapes):
            dx, dy, w, h = map(float, numbers)
            along = (X - x - size * dx) / (size * w + edge)  # (1, SIDE), -1 to 1 inside
            down = (Y - y - size * dy) / (size * h + edge)  # (SIDE, 1)
            inside = (abs(down) <= 1) & (abs(along) <= WIDTH[kind](down))  # (SIDE,SIDE)
            canvas[inside] = PAINT["black" if edge else color if tone == "*" else tone]

def draw(scene, rng):  # -> (SIDE, SIDE, 3) uint8, a new picture each time
    canvas, some, sky = np.zeros((SIDE, SIDE, 3)), rng.uniform, scene["toy"] == "kite"
    side = 1 if rng.random() < 0.5 else -1  # of the animal; the toy is opposite
    for what, *where in [  # x, y, size, outline; a kite flies 24 pixels higher
        ("weather", some(6, 42), some(6, 9), 1, 0),
        ("place", some(21, 27), some(22, 26), 1, 0),
        ("animal", 24 + side * some(10, 14), some(31, 35), some(0.85, 1.1), 0.8),
        ("toy", 24 - side * some(9, 14), some(34, 40) - 24 * sky, some(0.9, 1.2), 0.8),
    ]:
        paint(canvas, THINGS[what][scene[what]], *where, scene["color"])
    if scene["weather"] in PAINT:  # 50 drops of rain or flakes of snow, 1 x 2 pixels
        y, x = rng.integers(SIDE - 1, size=(2, 50))  # (50,) twice
        canvas[y, x] = canvas[y + 1, x] = PAINT[scene["weather"]]
    canvas += some(-6, 6, canvas.shape)
    return canvas.clip(0, 255).astype(np.uint8)

# ============================================================= 6. Examples for training
def kind_of(scene):
    """Training uses only "seen" scenes. "new pair": training never has this toy in this
    color (8 of 72 pairs). "new triple": it does, but never at this place."""
    color, toy, place = (WORDS[w].index(scene[w]) for w in ("color", "toy", "place"))
    if (color + toy) % len(WORDS["color"]) == 0:
        return "new pair"
    return "new triple" if (color + toy + place) % len(WORDS["place"]) == 0 else "seen"

def make_examples(grammar, count, stream, kind="seen"):
    """-> scenes, (count, SIDE, SIDE, 3) uint8 pictures, stories: fixed by SEED."""
    rng, examples = np.random.default_rng([SEED, stream]), []
    while len(examples) < count:
        scene, story = grammar.tell_scene(rng)
        if kind_of(scene) == kind:
            examples.append((scene, draw(scene, rng), story))
    scenes, pictures, stories = zip(*examples)
    return scenes, np.stack(pictures), stories

def encode(tokenizer, stories):  # B stories -> (B, T) inputs, (B, T) targets
    rows = [torch.tensor([bpe.BOS, *tokenizer.encode(s), bpe.EOS]) for s in stories]
    ids = nn.utils.rnn.pad_sequence(rows, True, gpt.IGNORE)  # (B, T + 1)
    return ids[:, :-1].clamp(min=bpe.PAD), ids[:, 1:]  # no target after the end

# =============================================================== 7. The model that sees
class SeeingGPT(nn.Module):
    """The GPT of 03_model.py, with a matrix as its eye (LLaVA, arXiv 2304.08485)."""

    def __init__(self, model):  # GPT
        super().__init__()
        self.gpt = model
        self.projection = nn.Linear(3 * PATCH**2, model.config.n_embd)  # 192 -> C
        # Small, so that at first the patches disturb the trained model little.
        nn.init.normal_(self.projection.weight, std=0.02)

    def hidden(self, pictures, idx, cache=None, weights=None):
        # (B, SIDE, SIDE, 3) uint8, (B, T) -> (B, T, C). The list `weights` gets
        # the attention weights of each block, (B, H, P + T, P + T).
        patches = torch.from_numpy(cut(pictures)) / 127.5 - 1  # (B, P, 192), -1 to 1
        x = torch.cat([self.projection(patches), self.gpt.wte(idx)], dim=1)
        x = x + self.gpt.wpe.weight[: x.shape[1]]  # (B, P + T, C) + (P + T, C)
        for i, block in enumerate(self.gpt.h):
            if weights is not None:
                q, k, v = block.attn.qkv(block.ln_1(x))  # 3 x (B, H, P + T, D)
                weights.append(gpt.attention_by_hand(q, k, v)[1])
            x = block(x, cache[i] if cache else None)
        return self.gpt.ln_f(x)[:, P:]  # (B, P + T, C) -> (B, T, C): the story's part

    def forward(self, pictures, idx, targets):  # -> () loss, on the story alone
        x = self.hidden(pictures, idx)  # (B, T, C)
        return self.gpt.chunked_loss(x.flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def tell(self, pictures):  # (B, SIDE, SIDE, 3) -> B lists of ids, <BOS> first
        B, most = len(pictures), self.gpt.config.block_size - P - 2
        rngs, cache = sample.make_rngs(B, SEED), self.gpt.new_cache()
        idx = torch.full((B, 1), bpe.BOS)
        x = self.hidden(pictures, idx, cache)  # (B, 1, C)
        for _ in tqdm(range(most), desc="stories", delay=2, leave=False, unit="token"):
            logits = self.gpt.output(x[:, -1])  # (B, C) -> (B, V)
            new = sample.choose(logits, idx, SAMPLERS, rngs)[:, None]  # (B, 1)
            idx = torch.cat([idx, new], dim=1)  # (B, T) -> (B, T + 1)
            if (idx == bpe.EOS).any(dim=1).all():
                break
            x = self.gpt.hidden(new, cache)  # (B, 1, C)
        rows = (row + [bpe.EOS] for row in idx.tolist())  # some may have none yet
        return [row[: row.index(bpe.EOS) + 1] for row in rows]

# ============================================================ 8. Train, save and resume
def resume(model, optimizer, header):  # -> steps done; SystemExit if of another run
    if not MODEL.exists():
        return 0
    state = gpt.load_checkpoint(MODEL, f"rm {bpe.shown(MODEL)} && python {ME}")
    before, now = state.get("fingerprint", {}), header["fingerprint"]
    if changed := ", ".join(name for name in now if before.get(name) != now[name]):
        what = f"{bpe.shown(MODEL)} is from another run. Changed: {changed}."
        move = f"mv -i {bpe.shown(MODEL)} {bpe.shown(MODEL)}.old && python {ME}"
        raise bpe.stop(what, "Change that back, or move it away to start anew:", move)
    model.load_state_dict(state["seeing"])
    optimizer.load_state_dict(state["optimizer"])
    print(f"[read] {bpe.shown(MODEL)}: step {state['step']:,} of {STEPS:,}")
    return state["step"]

def learn(model, optimizer, grammar, tokenizer, header):  # SystemExit at Ctrl-C
    step, asked = resume(model, optimizer, header), []
    handler = signal.signal(signal.SIGINT, lambda *_: asked.append("Ctrl-C"))
    bar = tqdm(desc="training", total=STEPS, initial=step, unit="step", smoothing=0)
    while step < STEPS and not asked:
        for group in optimizer.param_groups:
            group["lr"] = train.get_lr(step, STEPS, MAX_LR, warmup=0.05)
        _, pictures, stories = make_examples(grammar, BATCH, step)  # new ones each step
        loss = model(pictures, *encode(tokenizer, stories))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        bar.update()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if step % 250 == 0 or step == STEPS or asked:
            state = {"seeing": model.state_dict(), "optimizer": optimizer.state_dict()}
            state |= header | {"weights": model.gpt.state_dict(), "step": step}
            gpt.save_checkpoint(MODEL, state)
    bar.close()
    signal.signal(signal.SIGINT, handler)
    if step < STEPS:
        why = f"Step {step:,} of {STEPS:,} is saved; nothing is lost."
        raise bpe.stop("\nStopped by Ctrl-C.", why, f"Resume with: python {ME}")

# =========================================================== 9. Does it see? Measure it
def named(scene, story):  # -> {"animal": True, "color": False, ...}
    """Does the story name the color of the scene and no other one? And so on.

    >>> named({"color": "red", "toy": "ball"}, "It was a red ball, not a kite.")
    {'color': True, 'toy': False}
    """
    return {what: [w for w in WORDS[what] if re.search(rf"\b{w}\b", story)] == [word]
            for what, word in scene.items()}  # fmt: skip

def show_row(name, scenes, stories):  # in percent, with 95% intervals
    rights = [named(*pair) for pair in zip(scenes, stories)]
    print(f"  {name:15}", end="")
    for right in (sum(row[what] for row in rights) for what in WORDS):
        low, high = (100 * limit for limit in evaluate.wilson(right, len(rights)))
        print(f"{100 * right / len(rights):5.0f} {f'({low:.0f}-{high:.0f})':8}", end="")
    print()

def measure(model, tokenizer, grammar, tests, before):  # before: stories, untrained
    print(f"\n[check] {TESTS} stories per row; percent that name the right ...\n")
    print(" " * 20 + "".join(f"{what:14}" for what in WORDS))
    show_row("before training", tests["new triple"][0], before)
    for kind, (scenes, pictures, _) in tests.items():
        stories = [tokenizer.decode(ids) for ids in model.tell(pictures)]
        show_row(kind, scenes, stories)
    show_row("other picture", [*scenes[1:], scenes[0]], stories)  # new triples
    print("  by chance     ", *(f"{100 / len(w):5.0f}{'':8}" for w in WORDS.values()))
    right = [grammar.check(s, grammar.SCENE_PLOTS) for s in stories].count(None)
    low, high = evaluate.wilson(right, TESTS)
    print(f"\n[check] {kind}s: {right} of {TESTS} stories are right from first to last")
    print(f"        word (95% interval: {low:.0%} to {high:.0%})")

@torch.no_grad()
def page_row(model, tokenizer, scene, picture, ids):  # (SIDE, SIDE, 3), (T,) -> dict
    layers = []
    model.hidden(picture[None], torch.tensor([ids]), weights=layers)
    weights = torch.stack([layer[0, :, P:, :P] for layer in layers])  # (L, H, T, P)
    tokens = [tokenizer.token_bytes[i].decode("utf-8", "replace") for i in ids]
    story, pixels = tokenizer.decode(ids), base64.b64encode(picture.tobytes()).decode()
    return {"scene": scene, "story": story, "right": named(scene, story), "ids": ids,
            "tokens": tokens, "pixels": pixels,
            "attention": (weights * 10_000).round().int().tolist()}  # fmt: skip

# =========================================================================== 10. Checks
def check_inputs():  # -> SeeingGPT, Tokenizer, grammar, header; or SystemExit
    bpe.in_range(ME, "STEPS", STEPS, int, 1, 10**6)
    bpe.in_range(ME, "BATCH", BATCH, int, 1, 999)
    bpe.in_range(ME, "TESTS", TESTS, int, 2, 999)
    bpe.in_range(ME, "SEED", SEED, int, 0, 10**9)
    bpe.in_range(ME, "MAX_LR", MAX_LR, float, 1e-7, 0.1)
    model, tokenizer = sample.check_inputs()
    model.alibi = None  # a number if 04 was stopped early; not needed from here on
    meta = bpe.read_json(train.DATA / "meta.json", "02_prepare.py", "02_prepare/2")
    if meta["constants"]["TEXT"] != "practice":
        print("[note] best.pt was trained on another text: these words are new to it")
    grammar = evaluate.load_grammar("practice")
    if grammar is None:
        why = "practice_stories.py, which generates them, is missing."
        raise bpe.stop("There are no stories about the pictures.", why, REPAIR)
    try:
        ids, _ = encode(tokenizer, make_examples(grammar, 300, stream=2**41)[2])
    except (LookupError, TypeError, ValueError) as error:
        why = f"Fix a wrong word, shape, color, or number ({error}), or undo all edits:"
        raise bpe.stop(f"{bpe.shown(DRAWINGS)} cannot be drawn.", why, REPAIR) from None
    if P + ids.shape[1] > model.config.block_size:
        what = f"{P} patches and a story of {ids.shape[1]} tokens are too many."
        why = f"The context of best.pt is {model.config.block_size} (its block_size)."
        how = "Choose a larger one in SIZE in 03_model.py, then: python 03_model.py"
        raise bpe.stop(what, why, how)
    header = {"format": "picture/1", "config": vars(model.config)}
    header["tokenizer"] = bpe.sha256_of(bpe.OUT / "tokenizer.json")
    numbers = dict(STEPS=STEPS, BATCH=BATCH, MAX_LR=MAX_LR, PATCH=PATCH, SEED=SEED)
    files = {"drawings.json": THINGS, "SCENE_PLOTS": grammar.SCENE_PLOTS}
    files["best.pt"] = bpe.sha256_of(sample.MODEL)
    header["fingerprint"] = numbers | files
    torch.manual_seed(SEED)
    return SeeingGPT(model), tokenizer, grammar, header

def read_request(text):  # "red kite, rain" -> {"color": "red", "toy": "kite", ...}
    """The scene that the user describes; what is left out gets the first word."""
    found = {what: word for what, words in WORDS.items() for word in words
             if re.search(rf"\b{word.split()[-1]}\b", text.lower())}  # fmt: skip
    if not found:
        why = "It can draw: " + "; ".join(", ".join(words) for words in WORDS.values())
        how = f'python {ME} "red kite, fox, beach, rain"'
        raise bpe.stop(f"{text!r} names nothing that can be drawn.", why, how)
    return {what: found.get(what, words[0]) for what, words in WORDS.items()}

def show(picture):  # (SIDE, SIDE, 3): each ▀ is two pixels, one above the other
    for pair in zip(picture[::2], picture[1::2]):  # (SIDE, 3) twice
        colors = np.concatenate(pair, axis=1).tolist()  # (SIDE, 6)
        blocks = ["\x1b[38;2;{};{};{};48;2;{};{};{}m▀".format(*six) for six in colors]
        print("  " + "".join(blocks) + "\x1b[0m")

# ============================================================================= 11. Main
def main():
    request = " ".join(sys.argv[1:])
    wanted = read_request(request) if request else None  # mistakes show at once
    model, tokenizer, grammar, header = check_inputs()
    print(f"[read] {bpe.shown(sample.MODEL)}: {model.gpt.config.n_params:,} parameters")
    print(f"[plan] {STEPS:,} steps x {BATCH} pictures of {P} patches, with stories")
    kinds = ("seen", "new pair", "new triple")  # 2**40: a stream that no step reaches
    tests = {kind: make_examples(grammar, TESTS, 2**40, kind) for kind in kinds}
    scenes, pictures, _ = tests["new triple"]
    before = [] if request else [tokenizer.decode(ids) for ids in model.tell(pictures)]
    learn(model, train.configure_optimizer(model), grammar, tokenizer, header)
    if request:
        scenes, pictures = [wanted], draw(wanted, np.random.default_rng(SEED))[None]
        show(pictures[0])
    else:
        measure(model, tokenizer, grammar, tests, before)
    which = [*{scene["toy"]: i for i, scene in enumerate(scenes)}.values()]  # 1 per toy
    told = zip(which, model.tell(pictures[which]))
    rows = [page_row(model, tokenizer, scenes[i], pictures[i], ids) for i, ids in told]
    print("", ", ".join(rows[0]["scene"].values()), rows[0]["story"], "", sep="\n")
    data = dict(side=SIDE, patch=PATCH, special=len(bpe.SPECIAL_TOKENS), scenes=rows)
    if page := bpe.fill_page("picture.html", data):
        bpe.write_all({(path := MODEL.with_name("picture.html")): page})
        print(f"[wrote] {bpe.shown(path)}: tap a word to see where the model looked")
    print(f'Next: python {ME} "red kite, fox, beach, rain"')

if __name__ == "__main__":
    bpe.run_stage(main, ME)
