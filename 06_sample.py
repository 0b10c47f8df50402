# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.13.0", "numpy", "regex", "tqdm"]
# ///
"""Stage 6 of 6: let the model write stories, and watch how it chooses every token.

    text --> 01_bpe --> 02_prepare --> 03_model --> 04_train --> 05_eval --> [06_sample]
                                                                            you are here

READS   artifacts/04_train/best.pt, artifacts/01_bpe/tokenizer.json
WRITES  stories, to the terminal
        artifacts/06_sample/story.html   one of them, token by token: what else it might
                                         have said, and what it looked back at
RUN     python 06_sample.py, or with your own beginning: python 06_sample.py "Once upon"
TAKES   about 20 seconds on 2 cores of an AMD EPYC (Zen 3), torch 2.13.0, 2026-11-23
LESSON  lessons/08_inference.md
"""

# ======================================================================= 2. IMPORTS
import copy
import importlib
import itertools
import math
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE / "lessons"))
import machine  # lessons/machine.py: which devices there are
from plumbing import fill_page, in_range, one_of, run_stage
from plumbing import sha256_of, shown, stop

# `import 03_model` is a syntax error, because a name cannot begin with a digit; this
# says the same. We take the classes Tokenizer and GPT from there: one copy of each, so
# that an edit of stage 3 is an edit everywhere.
bpe = importlib.import_module("01_bpe")
gpt = importlib.import_module("03_model")
showing = importlib.import_module("showing")  # lessons/showing.py: bars, pages' data

# ===================================================================== 3. CONSTANTS
# -- what to write
PROMPT = "Once upon a time"  # how each story begins; "": the model begins by itself
SAMPLES = 10  # stories, written side by side as one batch
MAX_TOKENS = 400  # of a story, if it does not end by itself before
CHAT = False  # True: you type a beginning, it writes the ending, again and again
# -- how daring to be
TEMPERATURE = 0.8  # 0: always the likeliest token; 1: as learnt; 1.5: wild
TOP_K = None  # keep only the so many likeliest tokens; try 1: the same as temperature 0
TOP_P = 1.0  # keep the likeliest ones that together have this chance; try 0.9
MIN_P = 0.1  # drop tokens below this share of the best one's chance; 0: none
REPETITION_PENALTY = 1.0  # above 1: tokens already there lose; 1.3 breaks "a big, big"
SEED = 1  # of the dice; another seed, other stories

MODEL = HERE / "artifacts" / "04_train" / "best.pt"
OUT = HERE / "artifacts" / "06_sample"

# ========================================================================= 4. WORDS
# B     stories written side by side                V   vocabulary (2,048)
# S     tokens the model sees now: at most its context, T
# logits   V numbers, the last row only: what might come next
# chance   probability: softmax of the logits; V of them, sum 1
# dice     a random generator; each story has its own
# cache    keys and values of the tokens seen so far

# ====================================================================== 5. THE IDEA
# Ask the model for the next token, append it, ask again. The model gives chances, not
# a token: which one to take is our choice. Lay the chances end to end on a ruler and
# throw a dart: a token is hit as often as it is long.


def throw_dart(chances, dart):
    """The token that a dart from 0 to 1 hits.

    >>> [throw_dart([0.5, 0.25, 0.25], dart) for dart in (0.1, 0.6, 0.9)]
    [0, 1, 2]
    """
    for token, end in enumerate(itertools.accumulate(chances)):
        if dart < end:
            return token


# ======================================================================== 6. PIECES
# ---- samplers: (..., V) -> (..., V), for one or many rows of logits. What may not be
# taken gets minus infinity: after softmax, a chance of exactly 0.


def temper(logits, temperature):
    """Divide by the temperature: gaps grow below 1, shrink above.

    >>> temper(torch.tensor([2.0, 1.0]), 0.5).tolist()
    [4.0, 2.0]
    """
    return logits / temperature


def top_k(logits, k):
    """Keep the k likeliest tokens (Fan et al., arXiv 1805.04833).

    >>> top_k(torch.tensor([1.0, 3.0, 2.0]), 2).tolist()
    [-inf, 3.0, 2.0]
    """
    values, places = logits.topk(k)  # (..., V) -> (..., k) twice
    return torch.full_like(logits, -math.inf).scatter(-1, places, values)


def top_p(logits, p):
    """Keep the fewest tokens that together have chance p (Holtzman, arXiv 1904.09751).

    >>> top_p(torch.tensor([0.5, 0.3, 0.2]).log(), 0.7).isinf().tolist()  # .5+.3 >= .7
    [False, False, True]
    """
    values, places = logits.sort(dim=-1, descending=True)
    chances = values.softmax(dim=-1)
    likelier = chances.cumsum(dim=-1) - chances  # what the tokens before it have
    values = values.masked_fill(likelier >= p, -math.inf)  # never the first: 0 < p
    return torch.full_like(logits, -math.inf).scatter(-1, places, values)


def min_p(logits, share):
    """Keep tokens with at least this share of the best one's chance (arXiv 2407.01082).

    >>> min_p(torch.tensor([0.5, 0.3, 0.2]).log(), 0.5).isinf().tolist()  # 0.2 < 0.25
    [False, False, True]
    """
    least = logits.amax(dim=-1, keepdim=True) + math.log(share)
    return logits.masked_fill(logits < least, -math.inf)


def repetition_penalty(logits, seen, penalty):
    """Make tokens that stand in `seen`, (..., S), less likely (CTRL, arXiv 1909.05858).

    >>> logits, seen = torch.tensor([3.0, -1.0, 2.0]), torch.tensor([0, 1])
    >>> repetition_penalty(logits, seen, 2).tolist()
    [1.5, -2.0, 2.0]
    """
    old = logits.gather(-1, seen)
    # SUBTLE: dividing a negative logit would raise it: the repeated token would gain.
    return logits.scatter(-1, seen, torch.where(old > 0, old / penalty, old * penalty))


def settings(**changes):
    """The constants above as a dict, with changes: what shape() goes by."""
    mine = {"temperature": TEMPERATURE, "top_k": TOP_K, "top_p": TOP_P, "min_p": MIN_P}
    return mine | {"repetition_penalty": REPETITION_PENALTY} | changes


def shape(logits, seen, how):  # (..., V), (..., S) -> (..., V)
    """All samplers in their usual order, without those that would change nothing."""
    if how["repetition_penalty"] != 1:
        logits = repetition_penalty(logits, seen, how["repetition_penalty"])
    if how["temperature"] < 0.001:  # 0, greedy: the best token keeps all the chance
        return top_k(logits, 1)
    logits = temper(logits, how["temperature"])
    if how["top_k"] is not None:
        logits = top_k(logits, how["top_k"])
    if how["top_p"] < 1:
        logits = top_p(logits, how["top_p"])
    return min_p(logits, how["min_p"]) if how["min_p"] > 0 else logits


def draw(logits, dice):  # (B, V), B generators -> (B,)
    """Throw one dart per row: the idea above, for all rows at once."""
    # (B, V): where each ends; double, because rounding errors of V chances add up
    ruler = logits.double().softmax(dim=-1).cumsum(dim=-1)
    darts = [torch.rand(1, generator=one, dtype=torch.float64) for one in dice]
    darts = torch.stack(darts) * ruler[:, -1:]  # (B, 1), below the end of the ruler
    return torch.searchsorted(ruler, darts, right=True).squeeze(1)  # (B, 1) -> (B,)


def choose(logits, seen, how, dice):  # (B, V), (B, S), dict, B generators -> (B,)
    """The next token of each row: greedy, or shaped and drawn."""
    if how["temperature"] < 0.001 and how["repetition_penalty"] == 1:
        return logits.argmax(dim=-1)
    return draw(shape(logits, seen, how), dice)


# ---- writing: read, choose, append


def lay_out(model):  # -> the same model, with the same numbers
    """Store what is higher than wide column by column. For one token at a time, the CPU
    of bench_sample.py (x86) reads such a matrix faster so; nobody has tried a Mac's.
    """
    for weight in model.parameters():
        if weight.dim() == 2 and weight.shape[0] >= weight.shape[1]:
            weight.data = weight.data.T.contiguous().T  # (out, in), stored as (in, out)
    return model


@torch.inference_mode()
def last_logits(model, ids, cache=None):  # (B, S) -> (B, V)
    """Logits after the last token, on the CPU: draws on Apple GPUs have been wrong."""
    x = model.hidden(ids.to(model.wte.weight.device), cache)[:, -1]  # (B, C)
    return F.linear(x, model.wte.weight).float().cpu()


def slide(ids, context):  # (B, S) -> (B, 1 + context * 3 // 4)
    """Make room: keep the first token, <BOS>, and the last three quarters of a window.
    In training <BOS> always stood first; heads rely on it (arXiv 2309.17453).

    >>> slide(torch.tensor([[2, 11, 12, 13, 14]]), 4).tolist()
    [[2, 12, 13, 14]]
    """
    return torch.cat([ids[:, :1], ids[:, ids.shape[1] - context * 3 // 4 :]], dim=1)


def generate(model, prompts, max_tokens, how, dice, stop_id=3, cached=True):
    """Write on from B prompts (lists of ids, <BOS> first, at most the context long).

    Yields once per column a list of B: the token that this row has just written; None
    if it is still reading its prompt, or has finished: at <EOS> (stop_id; None: never)
    or after max_tokens. Prompts of different lengths need no padding: all rows move
    column by column, and a row that has prompt left takes its token from there.
    """
    context, rows = model.config["context"], range(len(prompts))
    shortest = min(map(len, prompts))
    column = shortest  # where the next token will stand
    seen = torch.tensor([prompt[:shortest] for prompt in prompts])  # (B, S)
    unread, cache = seen, model.new_cache()
    left = [max_tokens] * len(prompts)
    while any(left):
        if seen.shape[1] > context:
            # Every key and value knows its token's place: slid, all is read again.
            seen = unread = slide(seen, context)
            cache = model.new_cache()
        logits = last_logits(model, *(unread, cache) if cached else (seen,))
        writing = [row for row in rows if left[row] and column >= len(prompts[row])]
        # Who has prompt left reads on; what a finished row reads concerns nobody.
        new = [prompt[column] if column < len(prompt) else 0 for prompt in prompts]
        news = [None] * len(prompts)
        if writing:
            mine = [dice[row] for row in writing]
            chosen = choose(logits[writing], seen[writing], how, mine).tolist()
            for row, token in zip(writing, chosen):
                new[row] = news[row] = token
                left[row] = 0 if token == stop_id else left[row] - 1
        yield news
        unread = torch.tensor(new)[:, None]  # (B,) -> (B, 1)
        seen = torch.cat([seen, unread], dim=1)  # (B, S) -> (B, S + 1)
        column += 1


def dice_for(rows, seed):
    """A generator per story, so that story 3 is the same alone and among others."""
    return [torch.Generator().manual_seed(seed + row) for row in range(rows)]


def write(model, prompts, max_tokens, how, seed):  # -> B lists of new ids
    """All of generate() at once."""
    columns = generate(model, prompts, max_tokens, how, dice_for(len(prompts), seed))
    return [[token for token in row if token is not None] for row in zip(*columns)]


def tokens_per_second(model, ids, length, cached):  # -> speed, ids
    """Write `length` tokens greedily, whatever they are, and look at the clock."""
    greedy, dice = settings(temperature=0, repetition_penalty=1.0), dice_for(1, SEED)
    started = time.perf_counter()
    columns = list(generate(model, [ids], length, greedy, dice, None, cached))
    return length / (time.perf_counter() - started), columns


# ======================================================================== 7. CHECKS
def check_constants():
    """Raise SystemExit, naming the constant and its range, unless all can be used."""
    for name, kind, low, high in [
        ("SAMPLES", int, 1, 1000), ("MAX_TOKENS", int, 1, 10**5),
        ("TEMPERATURE", float, 0.0, 100.0), ("TOP_P", float, 1e-6, 1.0),
        ("MIN_P", float, 0.0, 1.0), ("REPETITION_PENALTY", float, 1.0, 100.0),
        ("SEED", int, 0, 2**31),
    ]:  # fmt: skip
        in_range("06_sample.py", name, globals()[name], kind, low, high)
    one_of("06_sample.py", "CHAT", CHAT, [True, False])


def check_inputs():  # -> GPT, Tokenizer
    """Raise SystemExit unless both are there and belong together."""
    tokenizer = bpe.Tokenizer.load()
    model, content = gpt.GPT.load(MODEL, "04_train.py")
    if content.get("tokenizer") != sha256_of(bpe.OUT / "tokenizer.json"):
        why = "Its ids would mean other words: stage 1 has run again since."
        how = "python 02_prepare.py && python 03_model.py && python 04_train.py"
        raise stop(f"{shown(MODEL)} was trained with another tokenizer.", why, how)
    if TOP_K is not None:
        in_range("06_sample.py", "TOP_K", TOP_K, int, 1, len(tokenizer))
    return model.eval(), tokenizer


def read_prompt(tokenizer, prompt, context):  # -> ids, <BOS> first
    """Encode a beginning; say what had to be done to it."""
    # What is no Unicode (a terminal can hand it over) becomes U+FFFD.
    text = prompt.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    # SUBTLE: " time" is one token; after a blank of its own, none such can follow.
    ids = [tokenizer.bos, *tokenizer.encode(text.rstrip(" "))]
    if len(ids) == 1:
        print("[note] an empty prompt: the model begins by itself")
    strange = sorted({c for c in text if len(tokenizer.encode(c)) > 1})[:20]
    if strange:
        print(f"[note] rare or never seen, so read byte by byte: {' '.join(strange)}")
    if len(ids) > context:
        print(f"[note] a prompt of {len(ids):,} tokens, but the model sees", end=" ")
        print(f"{context:,} at once: it goes on from the last {context * 3 // 4:,}")
        ids = slide(torch.tensor([ids]), context)[0].tolist()
    return ids


# ========================================================================== 8. MAIN
def choose_device(model):
    """The CPU, unless a GPU writes clearly faster: starting a GPU's many small steps
    takes longer than a small model's arithmetic for one token.
    """
    speeds, cpu = {}, torch.device("cpu")
    for device in machine.devices():
        trial = copy.deepcopy(model).to(device)
        trial = lay_out(trial) if device == cpu else trial
        for length in (3, 20):  # once to warm up
            speeds[device], _ = tokens_per_second(trial, [2], length, True)
    best = max(speeds, key=speeds.get)
    # A clear win only, or the choice, and the stories with it, would change by chance.
    best = best if speeds[best] > 1.5 * speeds[cpu] else cpu
    told = ", ".join(f"{device} {speed:,.0f}" for device, speed in speeds.items())
    print(f"[plan] device {best} (tokens per second: {told})")
    return lay_out(model) if best == cpu else model.to(best)


def main():
    sys.stdout.reconfigure(errors="replace")  # plumbing: a terminal without, say, "é"
    prompt = " ".join(sys.argv[1:]) if sys.argv[1:] else str(PROMPT or "")
    check_constants()
    model, tokenizer = check_inputs()
    size = sum(weight.numel() for weight in model.parameters())
    print(f"[read] {shown(MODEL)}: {size:,} parameters, trained by you")
    model, how = choose_device(model), settings()
    print("[plan]", ", ".join(f"{name} {value}" for name, value in how.items()))
    if CHAT:
        return chat(model, tokenizer, how)
    ids = read_prompt(tokenizer, prompt, model.config["context"])
    show_one_step(model, tokenizer, ids, how)
    print("\n[start] A story, as it is written:\n")
    story = ids + tell_story(model, tokenizer, ids, how, dice_for(1, SEED))
    show_temperatures(model, tokenizer, ids)
    show_cache(model, ids)
    show_samples(model, tokenizer, ids, how)
    data = showing.page_data(model.cpu(), tokenizer, story, len(ids), how, shape)
    fill_page("story.html", data, OUT / "story.html")
    if (OUT / "story.html").exists():
        print(f"[wrote] {shown(OUT / 'story.html')}: open it in a browser")
    print("\nThat was the last stage: you have built a language model. Well done!")
    print('Next: python 06_sample.py "The dragon"; then README.md and lessons/quests/')


def tell_story(model, tokenizer, ids, how, dice):  # -> new ids
    """Write one story to the terminal, word by word, and how it ended."""
    new = []

    def taken():
        for (token,) in generate(model, [ids], MAX_TOKENS, how, dice):
            new.append(token)
            yield token

    showing.tell(tokenizer.decode(ids), showing.stream(tokenizer, taken()))
    print(f"  ({ending(new, tokenizer.eos)})")
    return new


def ending(new, eos):
    """Did the story find its own end?"""
    how = "stopped by itself, at <EOS>" if new[-1] == eos else "cut off by MAX_TOKENS"
    return f"{len(new):,} tokens; {how}"


def show_one_step(model, tokenizer, ids, how):
    """Ten candidates for one token; if it is a sure thing, for one of the next."""
    for _ in range(20):
        logits = last_logits(model, torch.tensor([ids]))[0]  # (1, V) -> (V,)
        if showing.entropy(logits) > 1.5 or len(ids) == model.config["context"]:
            break
        ids = [*ids, logits.argmax().item()]
    shaped = shape(logits, torch.tensor(ids), how)
    print(f"[start] Which token after {tokenizer.decode(ids)[-40:]!r}? Of", end=" ")
    print(f"{len(logits):,} the samplers leave {int(shaped.isfinite().sum()):,}.\n")
    print("\n".join(showing.bars(tokenizer, logits, shaped)))


def show_temperatures(model, tokenizer, ids, temperatures=(0, 0.5, 1.0, 1.5)):
    """The same dice at four temperatures: from a parrot to a babbler."""
    print("\n[start] The same beginning, the same dice, four temperatures:\n")
    hows = [settings(temperature=t, top_p=1.0) for t in temperatures]
    texts = [tokenizer.decode(ids + write(model, [ids], 60, h, SEED)[0]) for h in hows]
    print("\n".join(showing.side_by_side([f"{t:.1f}" for t in temperatures], texts)))


def show_cache(model, ids):
    """Why there is a cache: the speed with and without."""
    length = max(20, min(200, model.config["context"] - len(ids)))
    slow, tokens = tokens_per_second(model, ids, length, cached=False)
    fast, same = tokens_per_second(model, ids, length, cached=True)
    print(f"\n[check] {length} tokens without and with cache; equal: {tokens == same}")
    print(f"  {slow:9,.0f} tokens per second, reading the whole text again for each")
    print(f"  {fast:9,.0f}, keeping keys and values: {fast / slow:.1f} times as fast")


def show_samples(model, tokenizer, ids, how):
    """SAMPLES stories, written side by side, and how many found their own end."""
    print(f"\n[start] {SAMPLES} stories, side by side in one batch:")
    started = time.perf_counter()
    stories = write(model, [ids] * SAMPLES, MAX_TOKENS, how, SEED + 1)
    speed = sum(map(len, stories)) / (time.perf_counter() - started)
    for number, new in enumerate(stories, start=1):
        print(f"\nStory {number} ({ending(new, tokenizer.eos)})")
        showing.tell(tokenizer.decode(ids + new))
    whole = sum(new[-1] == tokenizer.eos for new in stories)
    print(f"\n[check] {whole} of {SAMPLES} stopped by themselves;", end=" ")
    print(f"{speed:,.0f} tokens per second, all together")


def chat(model, tokenizer, how):
    """You begin, it ends; an empty line or Ctrl-D leaves."""
    dice = dice_for(1, SEED)  # one generator for the whole talk: no story comes twice
    print("[start] Type a beginning; an empty line leaves.\n> ", end="", flush=True)
    for line in sys.stdin:
        if not line.strip():
            break
        ids = read_prompt(tokenizer, line.rstrip("\n"), model.config["context"])
        tell_story(model, tokenizer, ids, how, dice)
        print("> ", end="", flush=True)


# ========================================================================= 9. GUARD
if __name__ == "__main__":
    run_stage(main, "06_sample.py")
