# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.13.0", "numpy", "regex", "tqdm"]
# ///
"""Stage 6 of 6: let the model generate stories, and watch how it chooses every token.

    text --> 01_bpe --> 02_prepare --> 03_model --> 04_train --> 05_eval --> [06_sample]
                                                                            you are here

READS   artifacts/04_train/best.pt, artifacts/01_bpe/tokenizer.json
WRITES  stories, to the terminal; artifacts/06_sample/story.html: one of them, token by
        token, with the alternatives and what the model attended to
RUN     python 06_sample.py, or with your own prompt: python 06_sample.py "Once upon"
TAKES   a few seconds on 2 cores of an Intel Xeon, torch 2.13.0, 2026-11-26
LESSON  lessons/08_inference.md
"""
# =========================================================================== 1. Imports
import codecs
import importlib
import itertools
import math
import os
import sys
import textwrap
import time

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as in 04, before torch is imported
try:
    # `import 01_bpe` is a syntax error (a name cannot start with a digit), hence:
    bpe = importlib.import_module("01_bpe")
    import torch
    from tqdm import tqdm
    gpt = importlib.import_module("03_model")
except ModuleNotFoundError as error:
    cure = "keep the six scripts together; pip install torch numpy regex tqdm"
    raise SystemExit(f"{error.name} is missing: {cure}") from None

# ============================================================= 2. Constants: edit these
PROMPT = "Once upon a time"  # how each story begins; "": the model begins by itself
SAMPLES = 10  # stories generated side by side as one batch; 100 need more memory
MAX_TOKENS = 400  # per story; if it has not ended by then, it is cut off
CHAT = False  # True: you type the beginning of a story, the model continues; repeat
TEMPERATURE = 0.8  # 0: always the most likely token; 1: as learned; 1.5: wild
TOP_K = None  # keep only this many of the most likely tokens; 1: same as temperature 0
TOP_P = 1.0  # keep the fewest tokens that together have this probability; try 0.9
MIN_P = 0.1  # drop tokens below this fraction of the highest probability; 05 does too
REPETITION_PENALTY = 1.0  # above 1: tokens already in the text get less likely; try 1.1
SEED = 1  # of the random generators; another seed, other stories
DEVICE = "auto"  # "cpu", "cuda", "mps"; "auto": a GPU if any; checked against the CPU

MODEL = bpe.HERE / "artifacts" / "04_train" / "best.pt"
PAGE = bpe.HERE / "artifacts" / "06_sample" / "story.html"
SCRIPT = "06_sample.py"
SETTINGS = {"temperature": TEMPERATURE, "top_k": TOP_K, "top_p": TOP_P, "min_p": MIN_P}
SETTINGS |= {"repetition_penalty": REPETITION_PENALTY}  # arguments of apply_samplers()

# ============================================================= 3. Glossary of this file
# B     batch size: stories generated side by side        V   vocabulary size (2,048)
# S     tokens so far; the model sees at most block_size (256). seen: their ids, (B, S)
# logits    V scores for the next token, from the last position: (B, V)
# probs     softmax of the logits: V probabilities, sum 1         rng   random generator
# sampler   a function that changes logits before sampling ("logits processor")

# =================================== 4. The idea: sample from a cumulative distribution
# Generating is a loop: get the probabilities of the next token, sample one token from
# them, append it, repeat. To sample, lay the probabilities end to end on a ruler of
# length 1. Their running sums, the cumulative distribution, say where each one ends. A
# uniform random u in [0, 1) then lands on each token with exactly its probability.

def sample_by_hand(probs, u):  # V probabilities, 0 <= u < 1 -> token id
    """The token whose part of the ruler holds u.

    >>> probs = [0.5, 0.25, 0.25]  # they end at 0.5, 0.75, and 1
    >>> [sample_by_hand(probs, u) for u in (0.1, 0.6, 0.9)]
    [0, 1, 2]
    """
    for token, end in enumerate(itertools.accumulate(probs)):
        if u < end:
            return token

# =================================================== 5. Samplers: logits in, logits out
# Each takes one row of logits or many: (..., V) -> (..., V). A token that must not be
# sampled gets the logit minus infinity: after softmax, its probability is exactly 0.
ROUNDING = 1e-6  # float32 logits fix probabilities to about this relative error
GREEDY = 1e-3  # below this temperature: greedy decoding, always the likeliest token

def apply_temperature(logits, temperature):
    """Divide the logits: below 1 their differences grow (as in arXiv 1503.02531).

    >>> apply_temperature(torch.tensor([2.0, 1.0]), 0.5).tolist()
    [4.0, 2.0]
    """
    return logits / temperature

def keep_top_k(logits, k):
    """Keep the k most likely tokens (Fan et al., arXiv 1805.04833).

    >>> keep_top_k(torch.tensor([1.0, 3.0, 2.0]), 2).tolist()
    [-inf, 3.0, 2.0]
    """
    values, ids = logits.topk(k)  # (..., V) -> (..., k) twice
    return torch.full_like(logits, -math.inf).scatter(-1, ids, values)

def keep_top_p(logits, p):
    """Nucleus sampling: keep the fewest tokens that reach p (arXiv 1904.09751).

    >>> keep_top_p(torch.tensor([0.3, 0.1, 0.1, 0.5]).log(), 0.8).isinf().tolist()
    [False, True, True, False]
    """
    values, ids = logits.sort(dim=-1, descending=True)  # (..., V) -> (..., V) twice
    probs = values.double().softmax(dim=-1)
    before = probs.cumsum(dim=-1) - probs  # the sum over all that are more likely
    # SUBTLE: 0.5 + 0.3 may round to 0.79999999, and then a third token would be kept.
    values = values.masked_fill(before >= p * (1 - ROUNDING), -math.inf)
    return torch.full_like(logits, -math.inf).scatter(-1, ids, values)  # undo the sort

def keep_min_p(logits, fraction):
    """Drop tokens below a fraction of the highest probability (arXiv 2407.01082).

    >>> keep_min_p(torch.tensor([0.5, 0.3, 0.2]).log(), 0.5).isinf().tolist()  # < .25
    [False, False, True]
    """
    lowest = logits.amax(dim=-1, keepdim=True) + math.log(fraction)  # (..., 1)
    return logits.masked_fill(logits < lowest - ROUNDING, -math.inf)

def penalize_repetition(logits, seen, penalty):
    """Make the tokens in `seen`, (..., S), less likely (CTRL, arXiv 1909.05858).

    >>> logits, seen = torch.tensor([3.0, -1.0, 2.0]), torch.tensor([0, 1])
    >>> penalize_repetition(logits, seen, 2).tolist()
    [1.5, -2.0, 2.0]
    """
    old = logits.gather(-1, seen)  # of the tokens in `seen`: (..., V) -> (..., S)
    # SUBTLE: dividing a negative logit would raise it, a reward instead of a penalty.
    return logits.scatter(-1, seen, torch.where(old > 0, old / penalty, old * penalty))

def apply_samplers(logits, seen, temperature, top_k=None, top_p=1.0, min_p=0.0,
                   repetition_penalty=1.0):  # (..., V), (..., S), ... -> (..., V)
    """All samplers, in Hugging Face's order, skipping those that change nothing."""
    if repetition_penalty != 1:
        logits = penalize_repetition(logits, seen, repetition_penalty)
    if temperature < GREEDY:
        return keep_top_k(logits, 1)
    logits = apply_temperature(logits, temperature)
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p < 1:
        logits = keep_top_p(logits, top_p)
    return keep_min_p(logits, min_p) if min_p > 0 else logits

def sample(logits, u):  # (B, V), (B, 1) -> (B,)
    """sample_by_hand() for all rows at once."""
    # (B, V): where each ends. In float64, because rounding errors of V numbers add up.
    ends = logits.double().softmax(dim=-1).cumsum(dim=-1)
    # Scale u to the last end, which rounding may leave below 1. (B, 1) -> (B,)
    return torch.searchsorted(ends, u * ends[:, -1:], right=True).squeeze(1)

def choose(logits, seen, settings, rngs):  # (B, V), (B, S), dict, B generators -> (B,)
    """The next token of each row."""
    logits = apply_samplers(logits, seen, **settings)
    if settings["temperature"] < GREEDY:
        return logits.argmax(dim=-1)
    u = [torch.rand(1, generator=rng, dtype=torch.float64) for rng in rngs]
    return sample(logits, torch.stack(u))  # B times (1,) -> (B, 1)

# =================================================== 6. Generate: read, choose, append
@torch.inference_mode()
def last_logits(model, idx, cache=None):  # (B, S) -> (B, V)
    """Logits for the next token, on the CPU: sampling on Apple GPUs has been wrong."""
    x = model.hidden(idx.to(model.wte.weight.device), cache)  # (B, S, C)
    return model.output(x[:, -1]).float().cpu()  # (B, C) -> (B, V)

def slide(idx, block_size):  # (B, S) -> (B, 1 + block_size * 3 // 4)
    """Keep <BOS> and the last three quarters of a context. Without <BOS> the loss is a
    little higher (attention sinks, arXiv 2309.17453).

    >>> slide(torch.tensor([[2, 11, 12, 13, 14]]), 4).tolist()
    [[2, 12, 13, 14]]
    """
    recent = idx[:, -max(1, block_size * 3 // 4) :]
    return torch.cat([idx[:, :1], recent], dim=1)[:, -block_size:]

def generate(model, prompts, max_tokens, settings, rngs, stop_id=bpe.EOS, cached=True):
    """Continue B prompts, lists of ids (<BOS> first), all of the same length. Yields a
    list of B per step: each row's new token, or None after its stop_id.
    """
    seen = unread = torch.tensor(prompts)  # (B, S), S at most block_size
    ended = [False] * len(prompts)
    cache = model.new_cache()
    for _ in range(max_tokens):
        if seen.shape[1] > model.config.block_size:
            # All tokens but <BOS> move to other positions, so keys and values change.
            seen = unread = slide(seen, model.config.block_size)
            cache = model.new_cache()
        logits = last_logits(model, *((unread, cache) if cached else (seen,)))
        tokens = choose(logits, seen, settings, rngs)  # (B,)
        yield [None if over else i for over, i in zip(ended, tokens.tolist())]
        ended = [over or i == stop_id for over, i in zip(ended, tokens.tolist())]
        if all(ended):
            return
        unread = tokens[:, None]  # (B,) -> (B, 1)
        seen = torch.cat([seen, unread], dim=1)  # (B, S) -> (B, S + 1)

def make_rngs(rows, seed):
    """A generator per story, so that story 3 is the same alone and among others."""
    return [torch.Generator().manual_seed(seed + row) for row in range(rows)]

def generate_all(model, prompts, max_tokens, settings, seed, *options):
    """All that generate() yields, as a list of new ids per prompt; shows progress."""
    rngs = make_rngs(len(prompts), seed)
    columns = generate(model, prompts, max_tokens, settings, rngs, *options)
    columns = tqdm(columns, "tokens", total=max_tokens, delay=2, leave=False)
    return [[token for token in row if token is not None] for row in zip(*columns)]

# ========================================= 7. Text on screen (skip on first reading)
def stream(tokenizer, ids):  # yields str
    """Decode ids as they come; bytes of an incomplete character wait for the rest."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for i in ids:
        yield decoder.decode(tokenizer.decode_bytes([i]))
    yield decoder.decode(b"", final=True)

def print_story(tokenizer, ids, tokens, width=76):  # -> list of the tokens
    """Print a prompt and its continuation as it comes, in lines of about `width`."""
    new, tokens = itertools.tee(tokens)
    parts, column = stream(tokenizer, itertools.chain(ids, tokens)), 0
    for letter in itertools.chain.from_iterable(parts):
        letter = "\n" if letter == " " and column >= width else letter
        print("  " * (column == 0 and letter != "\n") + letter, end="", flush=True)
        column = 0 if letter == "\n" else column + 1
    new = list(new)
    how = "ended by itself, with <EOS>" if new[-1] == bpe.EOS else "cut off: MAX_TOKENS"
    print(f"\n  ({len(new):,} tokens; {how})")
    return new

# ================================= 8. Inspect the candidates and the attention weights
def candidates(tokenizer, logits, shaped, count=10):  # (V,), (V,) -> rows
    """[id, name, probability before, after the samplers] of the most likely tokens."""
    before, after = logits.softmax(dim=-1), shaped.softmax(dim=-1)
    best = before.topk(min(count, len(before))).indices.tolist()
    names = [bpe.show(tokenizer.token_bytes[i]) for i in best]
    probs = [[round(p[i].item(), 4) for i in best] for p in (before, after)]
    return [list(row) for row in zip(best, names, *probs)]

def entropy(logits):  # (V,) -> bits
    """How uncertain the choice is: 0 bits if certain, 3 bits for 8 equal tokens.

    >>> entropy(torch.zeros(8)), entropy(torch.tensor([0.0, -math.inf]))
    (3.0, 0.0)
    """
    probs = logits.double().softmax(dim=-1)
    # entr(p) is -p log p, and 0 at p = 0, where the formula alone would give nan.
    return torch.special.entr(probs).sum().item() / math.log(2)

@torch.no_grad()
def look_inside(model, idx):  # (T,) -> (T, V), (L, H, T, T)
    """Logits of all positions; attention weights [layer, head, query, key position]."""
    x = model.wte(idx[None]) + model.wpe.weight[: len(idx)]  # (1, T, C)
    layers, bias = [], None
    if model.alibi is not None:  # training was stopped early
        bias = model.alibi_bias(torch.arange(len(idx)), 0)  # (1, H, T, T)
    for block in model.h:
        q, k, v = block.attn.qkv(block.ln_1(x))  # 3 x (1, H, T, D)
        attn_weights = gpt.attention_by_hand(q, k, v, bias)[1]  # (1, H, T, T)
        layers.append(attn_weights[0])
        x = block(x, bias=bias)
    return model.output(model.ln_f(x))[0], torch.stack(layers)

def page_data(model, tokenizer, ids, prompt, settings):  # -> dict
    """What story.html shows of the story `ids`, whose first `prompt` tokens were given:
    as much as fits the context and keeps the page at a few megabytes.
    """
    heads = model.config.n_layer * model.config.n_head
    length = min(len(ids), model.config.block_size, math.isqrt(3_000_000 // heads))
    logits, attention = look_inside(model, torch.tensor(ids[:length]))
    steps = []
    for t in range(prompt, length):
        shaped = apply_samplers(logits[t - 1], torch.tensor(ids[:t]), **settings)
        both = logits[t - 1], shaped
        steps.append({
            "probability": [round(row.softmax(-1)[ids[t]].item(), 4) for row in both],
            "entropy": [round(entropy(row), 2) for row in both],
            "kept": int(shaped.isfinite().sum()),
            "candidates": candidates(tokenizer, *both),
        })  # fmt: skip
    tokens = [tokenizer.token_bytes[i] for i in ids[:length]]
    layers = (attention * 1000).round().int().tolist()  # (L, H, T, T)
    return {
        # A part of a character appears as its bytes: \xc3.
        "tokens": [token.decode("utf-8", "backslashreplace") for token in tokens],
        "ids": ids[:length], "special": len(bpe.SPECIAL_TOKENS), "prompt": prompt,
        "settings": settings, "steps": steps, "left_out": len(ids) - length,
        "attention": [[[row[: t + 1] for t, row in enumerate(head)]  # no later position
                       for head in layer] for layer in layers],
    }  # fmt: skip

# ============================================================================ 9. Checks
def check_inputs():  # -> GPT, Tokenizer
    """SystemExit unless the constants are in range and both files belong together."""
    bpe.in_range(SCRIPT, "SAMPLES", SAMPLES, int, 1, 1000)
    bpe.in_range(SCRIPT, "MAX_TOKENS", MAX_TOKENS, int, 1, 10**5)
    bpe.in_range(SCRIPT, "TEMPERATURE", TEMPERATURE, float, 0.0, 100.0)
    bpe.in_range(SCRIPT, "TOP_P", TOP_P, float, 1e-6, 1.0)
    bpe.in_range(SCRIPT, "MIN_P", MIN_P, float, 0.0, 1.0)
    bpe.in_range(SCRIPT, "REPETITION_PENALTY", REPETITION_PENALTY, float, 1.0, 100.0)
    bpe.in_range(SCRIPT, "SEED", SEED, int, 0, 2**31)
    bpe.one_of(SCRIPT, "CHAT", CHAT, [True, False])
    tokenizer = bpe.Tokenizer.load()
    model, checkpoint = gpt.GPT.load(MODEL, "04_train.py")
    bpe.check_tokenizer(checkpoint.get("tokenizer"), "best.pt", "python 04_train.py")
    if TOP_K is not None:
        bpe.in_range(SCRIPT, "TOP_K", TOP_K, int, 1, len(tokenizer))
    return model.eval(), tokenizer

def read_prompt(tokenizer, prompt, block_size):  # -> ids, <BOS> first
    """Encode a prompt, and say what had to be done to it."""
    # A terminal can pass on half a UTF-16 pair or a broken byte: that becomes U+FFFD.
    text = prompt.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    # SUBTLE: a space belongs to the next word: " time". The prompt "a " would end in a
    # token that is only a space, and in training, words hardly ever follow that one.
    ids = [bpe.BOS, *tokenizer.encode(text.rstrip(" "))]
    if rare := sorted(c for c in set(text) if len(tokenizer.encode(c)) > 1)[:20]:
        print(f"[note] rare characters, several tokens each: {' '.join(rare)}")
    if len(ids) > block_size:
        print(f"[note] a prompt of {len(ids):,} tokens, but the model sees", end=" ")
        ids = slide(torch.tensor([ids]), block_size)[0].tolist()
        print(f"{block_size:,} at once: it continues from the last {len(ids) - 1:,}")
    return ids

# ============================================================================= 10. Main
def main():
    model, tokenizer = check_inputs()
    print(f"[read] {bpe.shown(MODEL)}: {model.config.n_params:,} parameters")
    model = model.to(gpt.pick_device(model, DEVICE, SCRIPT))
    print("[plan]", ", ".join(f"{name} {value}" for name, value in SETTINGS.items()))
    if CHAT:
        return chat(model, tokenizer)
    prompt = " ".join(sys.argv[1:]) if sys.argv[1:] else str(PROMPT or "")
    ids = read_prompt(tokenizer, prompt, model.config.block_size)
    show_one_step(model, tokenizer, ids)
    print("\n[start] A story, as it is generated:\n")
    story = ids + stream_story(model, tokenizer, ids, make_rngs(1, SEED))
    show_temperatures(model, tokenizer, ids)
    show_cache(model, ids)
    show_samples(model, tokenizer, ids)
    data = page_data(model.cpu(), tokenizer, story, len(ids), SETTINGS)
    if page := bpe.fill_page("story.html", data):
        bpe.write_all({PAGE: page})
        print(f"[wrote] {bpe.shown(PAGE)}: open it in a browser")
    print("\nThat was the last stage: you have built a language model. Well done!")
    print('Next: python 06_sample.py "The dragon"; then README.md and lessons/quests/')

def show_one_step(model, tokenizer, ids):
    """Ten candidates for the next token, or for a later one if the next is easy."""
    for _ in range(20):
        logits = last_logits(model, torch.tensor([ids]))[0]  # (1, V) -> (V,)
        if entropy(logits) > 1.5 or len(ids) == model.config.block_size:
            break
        ids = [*ids, logits.argmax().item()]
    shaped = apply_samplers(logits, torch.tensor(ids), **SETTINGS)
    kept, V = int(shaped.isfinite().sum()), len(logits)
    end = tokenizer.decode(ids)[-40:]
    print(f"[start] After {end!r} samplers keep {kept:,} of {V:,} tokens.\n")
    print(f"  {'token':>14}  {'as learned':27}  after the samplers")
    for _, name, *probs in candidates(tokenizer, logits, shaped):
        bars = "  ".join(f"{p:6.1%} {'#' * round(p * 20):20}" for p in probs)
        print(f"  {name:>14}  {bars}".rstrip())
    print(f"  {'entropy':>14} {entropy(logits):6.2f} bits {entropy(shaped):23.2f}\n")
    u = torch.rand(100, 1, generator=make_rngs(1, SEED)[0], dtype=torch.float64)
    by_torch = sample(shaped.expand(100, -1), u).tolist()  # (V,) -> (100, V) -> (100,)
    probs = shaped.double().softmax(dim=-1).tolist()
    equal = by_torch == [sample_by_hand(probs, x) for x in u.flatten().tolist()]
    print(f"[check] 100 tokens sampled by torch and by hand; equal: {equal}")

def stream_story(model, tokenizer, ids, rngs):  # -> new ids
    """Generate one story and print it at the same time."""
    columns = generate(model, [ids], MAX_TOKENS, SETTINGS, rngs)
    return print_story(tokenizer, ids, (token for (token,) in columns))

def show_temperatures(model, tokenizer, ids, temperatures=(0, 0.5, 1.0, 1.5)):
    """From repetitive to incoherent: temperature alone, the other samplers off."""
    print("\n[start] Four temperatures, the same seed, all other samplers off:\n")
    columns = []
    for t in temperatures:
        (new,) = generate_all(model, [ids], 60, {"temperature": t}, SEED)
        columns.append([f"{t:.1f}", *textwrap.wrap(tokenizer.decode(ids + new), 19)])
    for row in itertools.zip_longest(*columns, fillvalue=""):
        print(("  " + "   ".join(f"{cell:19}" for cell in row)).rstrip())

def show_cache(model, ids):
    """The same tokens in three ways: the KV cache changes nothing but the speed."""
    block_size, greedy = model.config.block_size, {"temperature": 0}
    ids = ids[: max(1, block_size // 2)]
    length = max(1, min(200, block_size - len(ids)))  # all of it fits the context
    idx = torch.tensor([ids], device=model.wte.weight.device)  # (1, S)
    plain = model.generate(idx, length, temperature=0)[0, len(ids) :].tolist()
    stories, speeds = [], []
    for cached in (False, True):
        started = time.perf_counter()
        stories += generate_all(model, [ids], length, greedy, SEED, None, cached)
        speeds.append(length / (time.perf_counter() - started))
    equal = stories == [plain, plain]
    print(f"\n[check] {length} tokens without KV cache, with it, by model.generate();")
    print(f"        equal: {equal}" + " (rounding, or a bug in 03?)" * (not equal))
    print(f"  {speeds[0]:9,.0f} tokens/s without the cache: each rereads all before it")
    print(f"  {speeds[1]:9,.0f} tokens/s with the cache ({speeds[1] / speeds[0]:.1f}x)")

def show_samples(model, tokenizer, ids):
    """SAMPLES stories, generated side by side, and how many ended by themselves."""
    print(f"\n[start] {SAMPLES} stories, side by side in one batch:")
    started = time.perf_counter()
    stories = generate_all(model, [ids] * SAMPLES, MAX_TOKENS, SETTINGS, SEED + 1)
    speed = sum(map(len, stories)) / (time.perf_counter() - started)
    for number, new in enumerate(stories, start=1):
        print(f"\nStory {number}:")
        print_story(tokenizer, ids, new)
    ended = sum(new[-1] == bpe.EOS for new in stories)
    print(f"\n[check] {ended} of {SAMPLES} ended by themselves; {speed:,.0f} tokens/s")

def chat(model, tokenizer):
    """You begin a story, and the model continues it; an empty line quits."""
    sys.stdin.reconfigure(errors="replace")
    rngs = make_rngs(1, SEED)  # one for the whole chat: a repeated prompt samples anew
    print("[start] Type a beginning; an empty line quits.\n> ", end="", flush=True)
    for line in itertools.takewhile(str.strip, sys.stdin):
        ids = read_prompt(tokenizer, line.rstrip("\n"), model.config.block_size)
        stream_story(model, tokenizer, ids, rngs)
        print("> ", end="", flush=True)

if __name__ == "__main__":
    hint = "Lower SAMPLES at the top of 06_sample.py, then: python 06_sample.py"
    bpe.run_stage(main, SCRIPT, lock=False, memory_hint=hint)
