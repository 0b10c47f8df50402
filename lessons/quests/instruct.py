# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.13.0", "numpy", "regex", "tqdm"]
# ///
"""Side quest: ask for a story. Fine-tune your model so that it follows requests.

READS   artifacts/04_train/best.pt, artifacts/02_prepare/, artifacts/01_bpe/, and
        lessons/practice_stories.py, which makes and checks pairs of request and story
WRITES  artifacts/instruct/: model.pt, the fine-tuned model, in the format of best.pt;
        last.pt, the full training state
RUN     python lessons/quests/instruct.py   fine-tune, then measure
        python lessons/quests/instruct.py "a story with ice and sleigh, sad ending"
TAKES   4 minutes, a story 3 seconds (2 cores of an Intel Xeon, torch 2.13, 2026-11-26)
LESSON  lessons/quests/instruct.md
"""
# =========================================================================== 1. Imports
import copy
import importlib
import random
import re
import signal
import sys
import textwrap
import time
import zlib
from collections import namedtuple
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT)]
# `import 01_bpe` is a syntax error (a name cannot start with a digit), hence:
bpe = importlib.import_module("01_bpe")
train = importlib.import_module("04_train")
gpt = importlib.import_module("03_model")
evaluation = importlib.import_module("05_eval")
sample = importlib.import_module("06_sample")

import numpy as np  # noqa: E402  01 and 03 have said so if a package is missing
import torch  # noqa: E402
from tqdm import tqdm  # noqa: E402

# ============================================================= 2. Constants: edit these
STEPS = 3000  # weight updates; 2000: less time, and more words are missed
PAIRS = 7  # rows of a batch that are a request and its story, and ...
PLAIN = 2  # ... rows of train.bin; 0: nothing reminds the model of plain stories
CUT = 0.8  # until then, 2 of 3 batches are cut; 0.0: fewer pairs, more words missed
SPARE = 8  # drawn but left out, for every PAIRS used; 0: late words are missed
SAD = 0.15  # fraction of sad endings in training; 0.5: fewer pairs per happy plot
MAX_LR = 4.5e-3  # highest learning rate; pretraining used 6e-3
REQUESTS = 200  # in the evaluation; more: narrower intervals, but more time
TEMPERATURE = 0.0  # the most probable token each time; at 0.8, fewer wishes are kept
SEED = 1  # of pairs and samples; another seed: other requests, other stories

ME = "lessons/quests/instruct.py"
OUT = ROOT / "artifacts" / "instruct"
DATA, CPU = evaluation.DATA, torch.device("cpu")
TRY = f'python {ME} "a story about Lily with ice, cold and sleigh, sad ending"'
RESTART = f"mv artifacts/instruct artifacts/instruct.{time.time():.0f} && python {ME}"
SAVE_EVERY = 200  # steps between two saves of the training state
PHRASINGS = [  # the second is like those of TinyStories-Instruct
    "a story{about} with {words}, {ending} ending",
    "Words: {commas}\nFeatures: BadEnding\nStory{about}:",
    "Tell me a {ending} story{about}: {commas}",
]

# ============================================================= 3. Glossary of this file
# B, T      rows x positions of a batch: 9 x 256, or cut 14 x 128 or 21 x 85
# request   what a user asks for: three words, an ending, and perhaps a hero: the wishes
# answer    the story that the model generates; pair: a request and a story that fits it
Request = namedtuple("Request", "words hero ending")

# ============================ 4. The idea: train on the answer, and not on the request
# A pretrained model only continues a text. To make it answer requests, train it further
# on requests and their answers: supervised fine-tuning (SFT, arXiv 2203.02155). It
# should learn to answer, not to ask, so the targets inside the request are masked.

def masked_loss(losses, targets):  # T losses in nats, T targets -> their mean
    """Two tokens of a request, then an answer of two tokens: (0.5 + 0.1) / 2.
    >>> masked_loss([7.0, 9.0, 0.5, 0.1], [gpt.IGNORE, gpt.IGNORE, 41, 42])
    0.3
    >>> masked_loss([7.0, 9.0], [gpt.IGNORE, gpt.IGNORE])  # 03_model.py: NaN
    0.0
    """
    counted = [loss for loss, i in zip(losses, targets) if i != gpt.IGNORE]
    return sum(counted) / max(1, len(counted))

# ====================================================== 5. From requests to tokens
def write_request(request, phrasing):  # Request, one of PHRASINGS -> str
    """
    >>> write_request(Request(["ice", "cold", "sleigh"], "Lily", "sad"), PHRASINGS[0])
    'a story about Lily with ice, cold and sleigh, sad ending'
    """
    if request.ending == "happy":  # TinyStories-Instruct names only bad endings
        phrasing = phrasing.replace("\nFeatures: BadEnding", "")
    commas = ", ".join(request.words)
    words = " and ".join(commas.rsplit(", ", 1))
    about = f" about {request.hero}" if request.hero else ""
    fields = {"commas": commas, "words": words, "about": about}
    return phrasing.format(**fields, ending=request.ending)

def prompt_of(tokenizer, text):  # -> list of ids
    """<BOS> request <BOS>. The second <BOS> does what <|assistant|> does in the chat
    template of a large model: it ends the request, and the answer follows.
    """
    return [bpe.BOS, *tokenizer.encode(text), bpe.BOS]

def pair_row(prompt, story, T):  # ids, ids -> (T,) inputs, (T,) targets; or None
    """Targets are IGNORE in the request and after <EOS>. None if too long for T."""
    ids = [*prompt, *story, bpe.EOS]
    if len(ids) > T + 1:
        return None
    row = torch.tensor(ids + [bpe.PAD] * (T + 1 - len(ids)))  # (T + 1,)
    x, y = row[:-1], row[1:].clone()
    # SUBTLE: y[i] is the token after x[i], so the second <BOS> is y[len(prompt) - 2].
    y[: len(prompt) - 1] = gpt.IGNORE
    y[len(ids) - 1 :] = gpt.IGNORE
    return x, y

def is_held_out(words):  # -> bool: one combination in ten is for the evaluation only
    return zlib.crc32(" ".join(sorted(words)).encode()) % 10 == 0

def requests(grammar, seed, held_out, count=10**9):  # -> (Request, its text, a story)
    """Yield `count`, no combination of words twice; about half name a hero."""
    rng, seen, sad = random.Random(str(seed)), set(), 0.5 if held_out else SAD
    for words, hero, ending, story in grammar.pairs(10**9, seed, sad):
        if is_held_out(words) == held_out and frozenset(words) not in seen:
            seen.add(frozenset(words))
            request = Request(words, grammar.pick(rng, [hero, None]), ending)
            yield request, write_request(request, grammar.pick(rng, PHRASINGS)), story
            if len(seen) == count:
                break

# ============================================================= 6. Batches, and training
def get_batch(grammar, tokenizer, tokens, n):  # -> (B, T) inputs, (B, T) targets
    """Batch n is always the same, so a run can resume. Its loss is never 0 / 0."""
    # The first sentences of a story choose its plot: there, a request matters most. So
    # at first, two of three batches hold more pairs, cut to a half or to a third.
    cut, T, pairs = 1 + n % 3 if n < CUT * STEPS else 1, tokens.block_size, []
    for request, text, story in requests(grammar, SEED * 10**6 + n, held_out=False):
        row = pair_row(prompt_of(tokenizer, text), tokenizer.encode(story), T)
        # Early words are learned best, so use the pairs whose words come latest. A word
        # that is cut off teaches nothing. (0.9 is rough: the request takes space, too.)
        places = [story.find(word) / len(story) for word in request.words]
        late = sum(place for place in places if place < 0.9 / cut)
        pairs += [(late, row)] * (row is not None)
        if len(pairs) == cut * (PAIRS + SPARE):
            break
    pairs = sorted(pairs, key=lambda pair: -pair[0])[: cut * PAIRS]
    plain = zip(*train.get_batch(tokens, n, PLAIN)) if PLAIN and cut == 1 else []
    x, y = (torch.stack(part) for part in zip(*[row for _, row in pairs], *plain))
    return x[:, : T // cut], y[:, : T // cut]  # (B, T // cut) twice

def configure_optimizers(model):  # -> AdamW, and Muon for matrices (see exercise 33)
    adamw = train.configure_optimizer(model)
    matrices = [weight for weight in model.h.parameters() if weight.dim() == 2]
    muon = torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw", ns_steps=3)
    def move_matrices(*_):
        muon.param_groups[0]["lr"] = adamw.param_groups[0]["lr"]
        muon.step()
        muon.zero_grad()  # and what has no gradient, AdamW leaves as it is
    adamw.register_step_pre_hook(move_matrices)
    return adamw, muon

def fine_tune(model, grammar, tokenizer, tokens, state, header):
    """STEPS steps as in 04_train.py; SystemExit at Ctrl-C. state: last.pt, or None."""
    both, step = configure_optimizers(model.train()), 0
    if state:
        model.load_state_dict(state["weights"])
        for optimizer, its_state in zip(both, state["optimizers"]):
            optimizer.load_state_dict(its_state)
        step = state["step"]
        print(f"[read] last.pt: resuming after step {step:,}")
    def save(name, **more):
        content = {"step": step, "weights": model.state_dict()}
        gpt.save_checkpoint(OUT / name, header | content | more)

    plan = {"steps": STEPS, "max_lr": MAX_LR, "accumulate": 1, "micro_batch": None}
    asked, losses = [], []  # Ctrl-C only sets a flag, so that the step can finish
    handler = signal.signal(signal.SIGINT, lambda *_: asked.append("Ctrl-C"))
    bar = tqdm(desc="fine-tuning", total=STEPS, initial=step, unit="step")
    while step < STEPS and not asked:
        batch = get_batch(grammar, tokenizer, tokens, step)
        loss, _ = train.train_step(model, both[0], lambda *_: batch, step, plan, CPU)
        losses.append(loss.item())
        bar.set_postfix(loss=f"{np.mean(losses[-100:]):.3f}")
        bar.update()
        step += 1
        if step % SAVE_EVERY == 0 or step == STEPS or asked:
            save("last.pt", optimizers=[part.state_dict() for part in both])
    bar.close()
    signal.signal(signal.SIGINT, handler)
    if step < STEPS:
        why = f"Step {step:,} of {STEPS:,} is saved; nothing is lost."
        raise bpe.stop("\nStopped by Ctrl-C.", why, f"Resume with: python {ME}")
    save("model.pt")
    print(f"[wrote] {bpe.shown(OUT / 'model.pt')}: the model after {step:,} steps")

# ================================================= 7. Answers, and the wishes they keep
def answer(model, tokenizer, texts, seed):  # requests -> [(story, did it end?)]
    """Requests with equally many tokens are answered side by side as one batch."""
    settings = sample.SETTINGS | {"temperature": TEMPERATURE}
    prompts, answers = [prompt_of(tokenizer, text) for text in texts], {}
    for length in tqdm(sorted({*map(len, prompts)}), "answering", leave=False, delay=1):
        numbers = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
        batch, new = [prompts[i] for i in numbers], model.config.block_size - length
        first = (seed * 1000 + length) * 10_000  # each length has its own seeds
        rows = sample.generate_all(model, batch, new, settings, first)
        for i, ids in zip(numbers, rows):
            answers[i] = tokenizer.decode(ids).strip(), ids[-1] == bpe.EOS
    return [answers[i] for i in range(len(texts))]

def wishes_kept(grammar, request, story):  # -> {wish: [bool, ...]}
    """One bool per word; no bool for the hero if the request names none."""
    used = [word in grammar.WHOLE_WORD.findall(story) for word in request.words]
    hero = [grammar.hero_of(story) == request.hero] if request.hero else []
    ending = [grammar.ending_of(story) == request.ending]
    return {"each word": used, "all words": [all(used)], "hero": hero, "ending": ending}

def measure(grammar, asked, answers):  # -> {wish: [bool, ...]} over all requests
    """And, as if it were a wish: did the story end, and is it without a mistake?"""
    total = {}
    for request, (story, ended) in zip(tqdm(asked, "checking", leave=False), answers):
        right = {"story right": [ended and not grammar.check(story)]}
        for wish, bools in (wishes_kept(grammar, request, story) | right).items():
            total[wish] = total.get(wish, []) + bools
    return total

def print_table(columns):  # {title: {wish: [bool, ...]}}
    print("\n" + " " * 14 + "".join(f"{title:>22}" for title in columns))
    for wish in columns["after"]:
        print(f"  {wish:12}", end="")
        for bools in (column[wish] for column in columns.values()):
            low, high = evaluation.wilson(sum(bools), n := max(1, len(bools)))
            print(f"{sum(bools) / n:9.0%} ({low:4.0%} to {high:4.0%})", end="")
        print()

def bits_per_byte(model, tokenizer, valid):  # held-out plain stories -> float
    starts = np.flatnonzero(valid == bpe.BOS)
    lengths = np.array([0] * 4 + [len(t) for t in tokenizer.token_bytes[4:]])  # (V,)
    nats = evaluation.score(model, valid, starts, CPU, "plain stories")  # (N,)
    return evaluation.summary(nats, valid, starts, lengths)["bits_per_byte"]

# ============================================================================ 8. Checks
def check_constants():  # SystemExit, naming the constant and its range
    limits = dict(STEPS=(1, 10**6), PAIRS=(1, 999), PLAIN=(0, 999), SPARE=(0, 999))
    limits |= dict(CUT=(0.0, 1.0), MAX_LR=(1e-7, 1.0), SEED=(0, 10**6), SAD=(0.0, 1.0))
    limits |= dict(TEMPERATURE=(0.0, 9.0), REQUESTS=(2, 999))
    for name, (low, high) in limits.items():
        bpe.in_range(ME, name, globals()[name], type(low), low, high)

def need_grammar(text):  # TEXT of stage 1 -> the module practice_stories
    if grammar := evaluation.load_grammar(text):
        return grammar
    why = "It makes the pairs. A finished model.pt of this tokenizer still answers."
    how = f"git checkout lessons/practice_stories.py && python {ME}"
    how = how if text == "practice" else 'Set TEXT = "practice" in 01; python 01_bpe.py'
    raise bpe.stop("Fine-tuning needs the grammar of the practice stories.", why, how)

def find_state(fingerprint):  # -> content of last.pt, or None; or SystemExit
    if not (OUT / "last.pt").exists():
        return None
    state = gpt.load_checkpoint(OUT / "last.pt", RESTART)
    old = state.get("fingerprint", {})
    if changed := [name for name, new in fingerprint.items() if old.get(name) != new]:
        what = f"{bpe.shown(OUT)} holds another run. Changed: {', '.join(changed)}."
        why = "Put that back to resume the run, or move it away to start a new one:"
        raise bpe.stop(what, why, RESTART)
    return state

def read_request(grammar, text):  # what a user typed -> Request
    """SystemExit if no word can be asked for. An ending that is not named is happy."""
    hero, text, (_, drawn) = grammar.hero_of(text), text.lower(), grammar.word_plots()
    names = hero.lower().split() if hero else []
    words = [word for word in grammar.known_words(text) if word not in names]
    if not words:
        what = f"No word of {text!r} is one of the words that you can ask for."
        why = f"The {len(drawn)} are: {', '.join(random.sample(sorted(drawn), 7))}, ..."
        raise bpe.stop(what, why, TRY)
    odd = {*grammar.WHOLE_WORD.findall(text)} - {*names, *words[:3]}
    if odd := sorted(odd - {*grammar.FUNCTION_WORDS}):
        print(f"[note] left out (unknown, or a fourth word): {', '.join(odd)}")
    if not set.intersection(*(drawn[word] for word in words[:3])):
        print("[note] no plot draws all of these words: expect one to be missing")
    ending = "sad" if re.search(r"\bsad|\bbad ?ending|unhapp", text) else "happy"
    return Request(words[:3], hero, ending)

# ============================================================================== 9. Main
def main():
    check_constants()
    if sys.argv[1:]:
        return tell(" ".join(sys.argv[1:]))
    tokenizer, base, meta, hashes = evaluation.check_inputs()
    grammar = need_grammar(meta["constants"]["TEXT"])
    print(f"[read] {bpe.shown(evaluation.MODEL)}: {base.config.n_params:,} parameters")
    names = "SEED", "STEPS", "PAIRS", "PLAIN", "CUT", "SPARE", "SAD", "MAX_LR"
    fingerprint = hashes | {name: globals()[name] for name in names}
    fingerprint["grammar"] = bpe.sha256_of(evaluation.GRAMMAR)
    header = {"config": vars(base.config), "fingerprint": fingerprint}
    header |= {"alibi": float(base.alibi or 0), "tokenizer": hashes["tokenizer"]}
    state, T = find_state(fingerprint), base.config.block_size
    print(f"[plan] {STEPS:,} steps, up to ({PAIRS} pairs + {PLAIN} plain) x {T} tokens")
    rows = [pair_row(prompt_of(tokenizer, text), tokenizer.encode(story), T)
            for _, text, story in requests(grammar, SEED * 10**6, False, 500)]
    print(f"[plan] {rows.count(None)} of 500 pairs do not fit {T} tokens: left out")
    if rows.count(None) > 250:
        why = "The context length of best.pt is too short for requests and stories."
        how = 'Set SIZE = "nano" in 03, then: python 03_model.py && python 04_train.py'
        raise bpe.stop("Too few fit.", why, how)
    model, tokens = copy.deepcopy(base), train.Tokens(DATA / "train.bin", T, SEED)
    fine_tune(model, grammar, tokenizer, tokens, state, header)
    evaluate(base, model.eval(), grammar, tokenizer)
    print(f"Next: {TRY}")

def evaluate(base, model, grammar, tokenizer):  # prints the table, and bits per byte
    asked, texts, _ = zip(*requests(grammar, 10**15 + SEED, True, REQUESTS))
    print(f"\n[start] {REQUESTS} requests, temperature {TEMPERATURE}; wishes kept:")
    before, after = (answer(m, tokenizer, texts, SEED) for m in (base, model))
    shuffled = after[1:] + after[:1]  # a control: each request with another's answer
    columns = {"before": before, "after": after, "control: shuffled": shuffled}
    print_table({name: measure(grammar, asked, rows) for name, rows in columns.items()})
    valid = np.fromfile(DATA / "valid.bin", dtype="<u2")
    old, new = (bits_per_byte(m, tokenizer, valid) for m in (base, model))
    change = f"{old:.4f} before, {new:.4f} after ({new / old - 1:+.1%})"
    print(f"\n[check] plain stories, bits per byte: {change}")

def tell(text):  # answer one request, and say which wishes the story keeps
    tokenizer, grammar = bpe.Tokenizer.load(), evaluation.load_grammar("practice")
    model, content = gpt.GPT.load(OUT / "model.pt", ME)
    bpe.check_tokenizer(content.get("tokenizer"), "model.pt", RESTART)
    if grammar:
        request = read_request(grammar, text)
        text = write_request(request, PHRASINGS[0])
    else:  # as typed, but shortened, so that a story fits the context, too
        text = text.encode(errors="replace")[:100].decode(errors="ignore")
    print(f"[start] {bpe.shown(OUT / 'model.pt')} reads {text!r}:\n")
    ((story, ended),) = answer(model.eval(), tokenizer, [text], SEED)
    if not story:
        raise bpe.stop("The answer is empty.", "Its first token was <EOS>.", TRY)
    for line in story.split("\n"):
        print(textwrap.fill(line, 76, initial_indent="  ", subsequent_indent="  "))
    if grammar:
        kept = wishes_kept(grammar, request, story)
        wishes = [*request.words, *[request.hero] * len(kept["hero"]), request.ending]
        bools = kept["each word"] + kept["hero"] + kept["ending"]
        marks = [f"{wish} {'yes' if b else 'NO'}" for wish, b in zip(wishes, bools)]
        right = "right" if ended and not grammar.check(story) else "wrong"
        print(f"\n[check] wishes kept: {', '.join(marks)}; by the grammar: {right}")

if __name__ == "__main__":
    bpe.run_stage(main, ME, lock=not sys.argv[1:])
