"""What stage 6 shows: text as it comes, bars, columns, the data of story.html.

Nothing here chooses a token; that is done in 06_sample.py. A first reader may skip this
file, but look_inside() is worth a look: so little code is needed to see attention.
"""
import codecs
import importlib
import itertools
import math
import textwrap

import torch
import torch.nn.functional as F

bpe = importlib.import_module("01_bpe")
gpt = importlib.import_module("03_model")

# --------------------------------------------------------------------- in the terminal


def stream(tokenizer, ids):
    """ids, one after the other -> their text, as soon as a character is whole.

    A token can end in the middle of a character; its bytes wait for the rest.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for i in ids:
        yield decoder.decode(tokenizer.decode_bytes([i]))
    yield decoder.decode(b"", final=True)


def tell(beginning, pieces=(), width=86):
    """Print a text, and what follows in pieces, word by word, in lines of `width`."""
    column, gap, word = 0, "", ""
    for letter in itertools.chain(beginning, *pieces, "\n"):
        if letter not in " \n":
            word += letter
            continue
        if column and column + len(gap + word) > width:
            print()
            column, gap = 0, ""
        gap = gap if column else "  " + gap
        print(gap + word, end="", flush=True)
        column, gap, word = column + len(gap + word), letter, ""
        if letter == "\n":
            print()
            column, gap = 0, ""


def side_by_side(titles, texts, width=19, space=3):
    """Yield the lines of a table: a column per text, wrapped.

    >>> print("\\n".join(side_by_side(["a", "b"], ["one two", "three"], width=5)))
      a       b
      one     three
      two
    """
    columns = [
        [title, *itertools.chain(*(textwrap.wrap(p, width) for p in text.split("\n")))]
        for title, text in zip(titles, texts)
    ]
    for row in itertools.zip_longest(*columns, fillvalue=""):
        yield ("  " + (" " * space).join(f"{cell:{width}}" for cell in row)).rstrip()


def bar(chance, width=20):
    """A chance as a number and a bar.

    >>> bar(0.5, width=8)
    ' 50.0% ####    '
    """
    return f"{chance:6.1%} {'#' * round(chance * width):{width}}"


def bars(tokenizer, logits, shaped):
    """Yield the lines of a chart: the ten likeliest tokens, before and after."""
    yield f"  {'token':>14}  {'as learnt':27}  after the samplers"
    for i, before, after in candidates(logits, shaped):
        name = bpe.show(tokenizer.token_bytes[i])
        yield f"  {name:>14}  {bar(before)}  {bar(after)}".rstrip()


# -------------------------------------------------------------------- inside the model


def candidates(logits, shaped, count=10):  # (V,), (V,) -> [(id, chance before, after)]
    """The likeliest tokens, with their chances before and after the samplers."""
    before, after = logits.softmax(dim=-1), shaped.softmax(dim=-1)
    best = before.topk(min(count, len(before))).indices
    return list(zip(best.tolist(), before[best].tolist(), after[best].tolist()))


def entropy(logits):  # (V,) -> bits
    """How open the choice is: 0 bits, not at all; 3 bits, as among 8 equal tokens.

    >>> entropy(torch.zeros(8)), entropy(torch.tensor([0.0, -math.inf]))
    (3.0, 0.0)
    """
    chances = logits.double().softmax(dim=-1)
    # entr(p) is -p log p, and 0 for p = 0, where the formula itself gives no number.
    return torch.special.entr(chances).sum().item() / math.log(2)


@torch.no_grad()
def look_inside(model, ids):  # (T,) -> (T, V), (L, H, T, T)
    """Logits after every token; shares of attention: row t, whom token t looked at."""
    x = model.wte(ids[None]) + model.wpe.weight[: len(ids)]  # (1, T, C)
    shares = []
    for block in model.h:
        q, k, v = block.attn.split(block.ln_1(x))  # 3 x (1, H, T, D)
        shares.append(gpt.attention_by_hand(q, k, v)[1][0])  # (1, H, T, T) -> (H, T, T)
        x = block(x)
    return F.linear(model.ln_f(x)[0], model.wte.weight), torch.stack(shares)


def page_data(model, tokenizer, ids, prompt, how, shape):
    """What story.html shows: every token, what else might have stood there, and why.

    ids: the story, of which the first `prompt` were given; how: the settings; shape:
    the function of stage 6 that applies them. Chances are rounded to 4 digits,
    attention to thousandths. Of a story longer than the context only the beginning is
    shown, and of a large model's no more than keeps the page at some megabytes.
    """
    heads = model.config["n_layer"] * model.config["n_head"]
    length = min(len(ids), model.config["context"], math.isqrt(3_000_000 // heads))
    logits, shares = look_inside(model, torch.tensor(ids[:length]))
    steps = []
    for t in range(prompt, length):
        both = logits[t - 1], shape(logits[t - 1], torch.tensor(ids[:t]), how)
        steps.append({
            "chance": [round(row.softmax(dim=-1)[ids[t]].item(), 4) for row in both],
            "entropy": [round(entropy(row), 2) for row in both],
            "left": int(both[1].isfinite().sum()),
            "candidates": [
                [i, bpe.show(tokenizer.token_bytes[i]), round(before, 4), round(now, 4)]
                for i, before, now in candidates(*both)
            ],
        })  # fmt: skip
    shares = (shares * 1000).round().int()
    return {
        "settings": how, "prompt": prompt, "left_out": len(ids) - length,
        "ids": ids[:length], "steps": steps,
        "tokens": [in_story(tokenizer, i) for i in ids[:length]],
        "attention": [  # layer, head, token, the tokens up to it
            [[row[: t + 1].tolist() for t, row in enumerate(head)] for head in block]
            for block in shares
        ],
    }  # fmt: skip


def in_story(tokenizer, i):
    """A token as it stands in the text; a broken character as its bytes, <c3>."""
    try:
        return tokenizer.token_bytes[i].decode("utf-8")
    except UnicodeDecodeError:
        return bpe.show(tokenizer.token_bytes[i])
