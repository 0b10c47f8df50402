# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.13.0", "numpy", "regex", "tqdm"]
# ///
"""Side quest: put your model into one HTML file that needs nothing but a browser.

READS   artifacts/04_train/best.pt, artifacts/01_bpe/tokenizer.json,
        lessons/pages/pocket.html and the common.css and common.js beside it
WRITES  artifacts/pocket/model.html   the weights, the tokenizer, and a page that runs
        them: no server, no network, no library; copy it to a phone, mail it
RUN     python lessons/quests/pocket.py
LESSON  lessons/quests/pocket.md

The page holds the model again, in plain JavaScript, under the names of 03_model.py and
06_sample.py. This script only rounds the weights, packs them and checks the result.
"""
# =========================================================================== 1. Imports
import base64
import importlib
import json
import math
import shlex
import sys
import zlib
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT)]
# `import 01_bpe` is a syntax error (a name cannot start with a digit), hence:
bpe = importlib.import_module("01_bpe")
gpt = importlib.import_module("03_model")
sample = importlib.import_module("06_sample")

import numpy as np  # noqa: E402  01 and 03 have said so if a package is missing
import torch  # noqa: E402

# ============================================================= 2. Constants: edit these
BITS = 8  # per weight; 32: exactly as trained, and a page almost four times as large

ME = "lessons/quests/pocket.py"
FORMAT = "pocket/1"  # of what the page reads; pocket.html knows this one
PAGES = ROOT / "lessons" / "pages"
PAGE = ROOT / "artifacts" / "pocket" / "model.html"
LARGE = 15e6  # bytes of a page: beyond this a phone has too much to do
DATA_BEGINS = '<script type="application/json" id="data">'  # the page's last element

# ============================================================= 3. Glossary of this file
# N, K    rows and columns of a matrix of weights; a vector is one row
# scale   of a row: what the whole number 1 stands for there
# int8    a whole number from -128 to 127: one byte    float32   four bytes
# base64  bytes as text: 64 letters, digits and signs stand for 6 bits each

# ====================================================== 4. The idea: bytes inside text
# An HTML file is text, so the weights must be, too. Rounded to int8, a weight is one
# byte (see take_home.py; here a scale serves a whole row, which is simpler to read in
# JavaScript). Three bytes are 24 bits, and base64 writes them as four characters of 6
# bits each. So a page needs 4/3 bytes per weight, where a checkpoint needs 4.

def pack_by_hand(rows):  # -> str
    """Rows of weights in base64: all scales, then all whole numbers.

    >>> text = pack_by_hand([[0.5, -2.54], [1.27, 0.0]])  # steps of 0.02 and of 0.01
    >>> data = base64.b64decode(text)
    >>> np.frombuffer(data, "<f4", 2).tolist() == [np.float32(0.02), np.float32(0.01)]
    True
    >>> np.frombuffer(data, np.int8, offset=8).tolist()
    [25, -127, 127, 0]
    """
    return base64.b64encode(pack_matrix(torch.tensor(rows))).decode("ascii")

# ====================================================== 5. Weights to bytes, and back

def pack_matrix(weight):  # (N, K) -> 4 N + N K bytes
    """Absmax rounding: the largest weight of a row becomes 127 or -127."""
    scales = weight.abs().amax(dim=1, keepdim=True) / 127  # (N, 1)
    # clamp: a row of zeros has the scale 0, by which we must not divide.
    numbers = (weight / scales.clamp(min=1e-30)).round().clamp(-127, 127)  # (N, K)
    both = scales.numpy().astype("<f4"), numbers.numpy().astype(np.int8)
    return b"".join(part.tobytes() for part in both)

def pack(model, bits):  # GPT -> [[name, N, K, is it in 8 bits]], bytes
    """All weights in Python's order. Vectors (the layer norms) stay float32: they are
    few, and everything passes through them.
    """
    tensors, parts = [], []
    for name, weight in model.state_dict().items():
        weight = weight.detach().float().cpu()
        N, K = weight.shape if weight.dim() == 2 else (1, len(weight))
        small = bits == 8 and weight.dim() == 2
        tensors.append([name, N, K, small])
        floats = weight.numpy().astype("<f4").tobytes
        parts.append(pack_matrix(weight) if small else floats())
    return tensors, b"".join(parts)

def unpack(tensors, data):  # -> {name: (N, K) or (K,) float32}
    """What the page does when it opens: whole number times scale of its row."""
    weights, at = {}, 0
    for name, N, K, small in tensors:
        count = N if small else N * K
        floats = torch.tensor(np.frombuffer(data, "<f4", count, at))
        at += 4 * count
        if small:
            numbers = np.frombuffer(data, np.int8, N * K, at).reshape(N, K)
            at += N * K
            weights[name] = torch.tensor(numbers) * floats[:, None]  # (N, K) * (N, 1)
        else:
            weights[name] = floats if N == 1 else floats.view(N, K)
    return weights

def page_model(content):  # the data of a page -> GPT
    """The model that a page holds, as Python understands it."""
    model = gpt.GPT(gpt.GPTConfig(**content["config"])).eval()
    data = base64.b64decode(content["base64"])
    weights, shapes = unpack(content["tensors"], data), model.state_dict()
    # A matrix of one row has been packed like a vector.
    model.load_state_dict({n: w.view(shapes[n].shape) for n, w in weights.items()})
    return model

# ================================================================ 6. What the page gets

def page_data(model, tokenizer, bits):  # -> dict
    """Everything the page must know; its settings begin as those of 06_sample.py."""
    config = asdict(model.config) | {"dropout": 0.0}
    tensors, data = pack(model, bits)
    content = {
        "format": FORMAT, "config": config, "bits": bits, "tensors": tensors,
        "merges": tokenizer.merges, "bytes": len(data), "adler32": zlib.adler32(data),
        "special": bpe.SPECIAL_TOKENS,
        "start": {
            "prompt": str(sample.PROMPT or ""), "length": sample.MAX_TOKENS,
            "temperature": sample.TEMPERATURE, "top_k": sample.TOP_K,
            "top_p": sample.TOP_P, "min_p": sample.MIN_P, "seed": sample.SEED,
        },
        "base64": base64.b64encode(data).decode("ascii"),
    }  # fmt: skip
    return content | {"check": expected_logits(page_model(content))}

@torch.no_grad()
def expected_logits(model):  # -> {"ids": 8 ids, "logits": [[id, logit], ...]}
    """For the page's own check. Was 03_model.py edited so that the same weights mean
    another model (rotary positions, a sliding window)? Then the page computes other
    logits, and must say so instead of writing nonsense.
    """
    ids = [bpe.BOS, *range(4, 11)]
    logits = model(torch.tensor([ids]))[0][0, -1]  # (1, T, V) -> (V,)
    best = logits.topk(min(10, len(logits))).indices.tolist()
    return {"ids": ids, "logits": [[i, round(logits[i].item(), 4)] for i in best]}

def read_page(page):  # the text of a page -> its data
    begin = page.rindex(DATA_BEGINS) + len(DATA_BEGINS)
    return json.loads(page[begin : page.index("</script>", begin)])

# ============================================================================ 7. Checks

def check_inputs():  # -> GPT, Tokenizer
    """SystemExit unless the constants are in range and all files are there."""
    bpe.one_of(ME, "BITS", BITS, [8, 32])
    model, tokenizer = sample.check_inputs()
    if model.alibi is not None:
        print("[note] best.pt was saved while attention had a distance penalty, which")
        print("       the page lacks. Stopped early? Let python 04_train.py finish.")
    for name in ("pocket.html", "common.css", "common.js"):
        path = PAGES / name
        if not path.exists():
            why = "It is a part of the course, and of the page."
            how = f"git checkout {shlex.quote(bpe.shown(path))} && python {ME}"
            raise bpe.stop(f"{bpe.shown(path)} is missing.", why, how)
    if len(tokenizer) != model.config.vocab_size:
        what = f"The tokenizer has {len(tokenizer):,} tokens, the model"
        what += f" {model.config.vocab_size:,}."
        why = "The page must know the text of every token that the model can choose."
        how = "python 02_prepare.py && python 03_model.py && python 04_train.py"
        raise bpe.stop(what, why, how)
    return model, tokenizer

def check_page(page, model):
    """The page, read back, must hold the weights that were packed."""
    again, (tensors, data) = page_model(read_page(page)), pack(model, BITS)
    expected = unpack(tensors, data)
    for name, weight in again.state_dict().items():
        if not torch.equal(weight.flatten(), expected[name].flatten()):
            why = f"Read back from it, {name} is not what was packed."
            raise bpe.stop("The page does not hold the model.", why, f"python {ME}")
    return again

@torch.no_grad()
def show_rounding(model, small):
    """Four weights, there and back; then what it does to the logits of a story."""
    before, after = (m.wte.weight[4] for m in (model, small))
    scale = before.abs().max().item() / 127
    if BITS == 8 and scale > 0:
        print("\nFour weights, as whole numbers, and back:")
        print("  float32", *(f"{w:9.5f}" for w in before[:4].tolist()))
        numbers = [round(w / scale) for w in after[:4].tolist()]
        print("  int8   ", *(f"{n:9}" for n in numbers), f"  x {scale:.7f}")
        print("  back   ", *(f"{w:9.5f}" for w in after[:4].tolist()), "\n")
    rng, length = torch.Generator().manual_seed(1), min(200, model.config.block_size)
    idx = model.generate(torch.tensor([[bpe.BOS]]), length - 1, rng=rng)  # (1, length)
    both = [m(idx)[0][0] for m in (model, small)]  # (1, T, V) -> (T, V) each
    same = int((both[0].argmax(dim=1) == both[1].argmax(dim=1)).sum())
    losses = [m(idx[:, :-1], idx[:, 1:])[1].item() for m in (model, small)]
    print(f"[check] on a story of its own, in {BITS} bits the most probable token is")
    print(f"        the same at {same} of {length} positions; loss", end=" ")
    print(f"{losses[1]:.4f}, as trained {losses[0]:.4f}")

# ============================================================================== 8. Main
def main():
    model, tokenizer = check_inputs()
    count, rows = model.config.n_params, 0
    print(f"[read] {bpe.shown(sample.MODEL)}: {count:,} parameters")
    content = page_data(model, tokenizer, BITS)
    for _, N, _, small in content["tensors"]:
        rows += N * small
    print(f"[plan] {BITS} bits: {content['bytes']:,} bytes", end=" ")
    print(f"({4 * rows:,} of them scales), as text {len(content['base64']):,}")
    page = bpe.fill_page("pocket.html", content)
    small = check_page(page, model)
    show_rounding(model, small)
    print("[check] read back from the page, every weight is the one that was packed")
    size = len(page.encode())
    if size > LARGE:
        print(f"[note] {size / 1e6:,.0f} MB is a lot for a phone, and JavaScript uses")
        print("       one core; 06_sample.py runs such a model at full speed")
    bpe.write_all({PAGE: page})
    print(f"[wrote] {bpe.shown(PAGE)}: {size:,} bytes")
    print("Next: open it in a browser, put it on your phone, send it to a friend")

if __name__ == "__main__":
    bpe.run_stage(main, ME)
