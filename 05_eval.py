# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.13.0", "numpy", "regex", "tqdm"]
# ///
"""Stage 5 of 6: measure how good the model is, and whether it copies its training text.

    text --> 01_bpe --> 02_prepare --> 03_model --> 04_train --> [05_eval] --> 06_sample
                                                                  you are here

READS   artifacts/04_train/best.pt, artifacts/02_prepare/, artifacts/01_bpe/, and
        lessons/quiz.txt and lessons/practice_stories.py, if they are there
WRITES  artifacts/05_eval/report.html   the results, to open in a browser
        artifacts/05_eval/eval.json     all of its numbers; equal runs, equal file
RUN     python 05_eval.py
TAKES   about 30 seconds on 2 cores of an Intel Xeon, torch 2.13.0, 2026-11-26
LESSON  lessons/07_evaluation.md
"""
# =========================================================================== 1. Imports
import importlib
import json
import math
import os
import re
import sys
import time
from collections import Counter

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as in 04, before torch is imported
try:
    # `import 01_bpe` is a syntax error (a name cannot start with a digit), hence:
    bpe = importlib.import_module("01_bpe")
    import numpy as np
    import torch
    import torch.nn.functional as F
    from tqdm import tqdm
    gpt = importlib.import_module("03_model")
except ModuleNotFoundError as error:
    cure = "keep the six scripts together; pip install torch numpy regex tqdm"
    raise SystemExit(f"{error.name} is missing: {cure}") from None

# ============================================================= 2. Constants: edit these
SAMPLES = 10  # stories per temperature; more: a narrower interval, but more time
TEMPERATURES = (0.5, 0.8, 1.0, 1.2)  # randomness of sampling; see 06_sample.py
MIN_P = 0.1  # drop tokens below this fraction of the highest probability; as in 06
GRAMMAR_SAMPLES = 200  # stories that the grammar checks: for MIN_P 0 and above, each
SEED = 1  # of the random generator; another seed: other stories
DEVICE = "auto"  # "cpu", "cuda", "mps"; "auto": a GPU if any; checked against the CPU

DATA = bpe.HERE / "artifacts" / "02_prepare"
MODEL = bpe.HERE / "artifacts" / "04_train" / "best.pt"
QUIZ = bpe.HERE / "lessons" / "quiz.txt"
GRAMMAR = bpe.HERE / "lessons" / "practice_stories.py"
OUT = bpe.HERE / "artifacts" / "05_eval"
FORMAT = "05_eval/3"  # changes when the content of eval.json changes
LOGITS_AT_ONCE = 2**23  # per batch: 32 MB
CHUNK = 2**20  # tokens of train.bin in memory at once, however large the file is
NGRAM_TOKENS = 20_000_000  # the n-gram baselines count at most this many tokens
BOS, EOS = bpe.BOS, bpe.EOS

# ============================================================= 3. Glossary of this file
# N, S         tokens and stories in a file        V   vocabulary size (2,048)
# B, T         batch size, context length: the most tokens the model looks back on (256)
# loss         mean of -ln(probability of the right next token); 1 nat = 1.44 bits
# perplexity   exp(loss): as uncertain as a choice among that many equal options
# bits/byte    total loss / ln 2 / bytes of text: comparable across tokenizers
# held out     never trained on: the stories of valid.bin (04 did pick best.pt by them)
# match        a run of tokens in a story that occurs verbatim in train.bin

# =============================================== 4. The idea: prediction is compression
# A good language model is seldom surprised. So we let it read stories that it has never
# seen. A token to which it gave probability p costs -log2(p) bits, which is what an
# ideal compressor needs to store it (Shannon 1948). Fewer bits mean a better model.

def bits_per_byte(probs, n_bytes):
    """Three tokens, "the cat sat": 11 bytes, with probabilities 1/2, 1/8 and 1/4.

    >>> round(bits_per_byte([1 / 2, 1 / 8, 1 / 4], n_bytes=11), 3)  # (1 + 3 + 2) / 11
    0.545
    """
    return sum(-math.log2(p) for p in probs) / n_bytes

# ============================================================ 5. Score every token once
# Cutting the file into blocks of T would be simpler. But then the first tokens of each
# block are predicted from almost nothing, and the loss depends on where we cut.

def sliding_windows(begin, end, context):  # -> [(first, scored, window_end)]
    """Windows that score tokens begin+1 .. end-1 once each. In each, the model reads
    first .. window_end-2 and predicts scored .. window_end-1. Windows overlap by
    half: each token is predicted from all tokens before it, or at least context/2.

    >>> sliding_windows(0, 9, context=4)
    [(0, 1, 5), (2, 5, 7), (4, 7, 9)]
    """
    windows, first, scored = [], begin, begin + 1
    while scored < end:
        window_end = min(first + context + 1, end)
        windows.append((first, scored, window_end))
        first, scored = first + (context + 1) // 2, window_end
    return windows

@torch.no_grad()
def score(model, ids, starts, device, desc):  # (N,), (S,) -> (N,) nats
    """The loss of each token, predicted from the tokens of its story before it."""
    context, nats = model.config.block_size, np.zeros(len(ids))
    stories = zip(starts, [*starts[1:], len(ids)])
    windows = [w for story in stories for w in sliding_windows(*story, context)]
    windows.sort(key=lambda w: w[0] - w[2])  # longest first: equally long in a batch
    B = max(1, LOGITS_AT_ONCE // (context * model.config.vocab_size))
    for i in tqdm(range(0, len(windows), B), desc=desc, leave=False, delay=1):
        batch = windows[i : i + B]
        longest = batch[0][2] - batch[0][0] - 1
        # A multiple of 32, because Apple GPUs do extra work for each new shape.
        T = min(-(-longest // 32) * 32, context)
        tokens = torch.zeros(len(batch), T + 1, dtype=torch.int64)  # (B, T + 1)
        for row, (first, _, end) in zip(tokens, batch):
            row[: end - first] = torch.from_numpy(ids[first:end].astype(np.int64))
        tokens = tokens.to(device)
        logits = model(tokens[:, :-1])[0].float().flatten(0, 1)  # (B*T, V)
        losses = F.cross_entropy(logits, tokens[:, 1:].flatten(), reduction="none")
        losses = losses.view(-1, T).cpu().numpy()  # (B*T,) -> (B, T)
        for row, (first, scored, end) in zip(losses, batch):
            nats[scored:end] = row[scored - first - 1 : end - first - 1]
    # SUBTLE: <BOS> always follows <EOS>. Scoring so easy a prediction would make the
    # loss look better than it is, so we score no <BOS>, here or in the n-grams.
    nats[ids == BOS] = 0
    return nats

def summary(nats, ids, starts, byte_lengths):  # (N,), (N,), (S,), (V,) -> dict
    """Loss, perplexity and bits per byte. <EOS> is scored like any token, for ending in
    the right place is part of the task. But it adds no bytes to the text.
    """
    bits = np.add.reduceat(nats, starts) / math.log(2)  # (S,) of each story
    n_bytes = np.add.reduceat(byte_lengths[ids], starts)  # (S,)
    tokens, per_byte = int((ids != BOS).sum()), float(bits.sum() / n_bytes.sum())
    loss = float(nats.sum() / tokens)
    # 95% confidence interval over stories; seed-to-seed variance is not part of it.
    spread = (bits - per_byte * n_bytes).std() / n_bytes.mean()
    interval = 1.96 * spread / math.sqrt(len(starts)) if len(starts) > 1 else None
    result = {"loss": loss, "perplexity": math.exp(loss), "bits_per_byte": per_byte}
    return result | {"plus_minus": interval, "tokens": tokens}

def wilson(right, count):  # -> (low, high)
    """95% confidence interval of the fraction right / count (Wilson 1927).

    >>> [round(limit, 2) for limit in wilson(8, 10)]
    [0.49, 0.94]
    """
    z = 1.96
    middle, n = (right + z * z / 2) / (count + z * z), count + z * z
    half = z * math.sqrt(right * (count - right) / count + z * z / 4) / n
    return middle - half, middle + half

def some_stories(ids, count, longest=1024):  # (N,) -> (M,), (S,)
    """About `count` stories, evenly spread over the first CHUNK tokens, and where each
    begins. Of a document longer than `longest` tokens it takes passages.
    """
    ids = np.asarray(ids[:CHUNK])
    stories = np.split(ids, np.flatnonzero(ids == BOS)[1:])
    parts = [s[i : i + longest] for s in stories for i in range(0, len(s), longest)]
    parts = parts[:: max(1, len(parts) // count)]
    return np.concatenate(parts), np.cumsum([0, *map(len, parts[:-1])])

# ==================================================== 6. Baselines: predict by counting
# An n-gram model (Shannon 1948) predicts a token w from the n - 1 tokens before it by
# counting, c(), what followed them in training. With tokens u and v before w, a trigram
# model (n = 3) says p(w|uv) = (c(uvw) + k p(w|v)) / (c(uv) + k), and the bigram p(w|v)
# uses the unigram p(w) likewise. The rarer uv, the more p(w|v) weighs (Dirichlet
# smoothing, MacKay & Peto 1995). Each k is tuned on stories left out of the counts.

def ngram_keys(ids, n):  # (N,) -> (N - n + 1,) uint64
    """A hash of each n-gram. Two different n-grams share one about once in 2**64."""
    ids = np.asarray(ids).astype(np.uint64)
    length = max(0, len(ids) - n + 1)
    keys = np.zeros(length, dtype=np.uint64)
    for i in range(n):
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + ids[i : length + i]
    return keys

def count_ngrams(train, ids, n):  # (N,), (M,) -> (M - n + 1,)
    """How often each n-gram of ids occurs in train, which may be larger than memory."""
    wanted, where = np.unique(ngram_keys(ids, n), return_inverse=True)
    counts = np.zeros(len(wanted), dtype=np.int64)
    chunks = range(0, len(train), CHUNK)
    for chunk in tqdm(chunks, desc=f"counting {n}-grams", leave=False, delay=1):
        part = ngram_keys(train[chunk : chunk + CHUNK + n - 1], n)
        keys, often = np.unique(part, return_counts=True)
        place = np.searchsorted(wanted, keys).clip(max=len(wanted) - 1)
        known = wanted[place] == keys
        counts[place[known]] += often[known]
    return counts[where]

def ngram_losses(train, valid, V):  # (N,), (M,) -> {name: total nats}, tokens counted
    """The loss of uniform, unigram, bigram and trigram models of train on valid."""
    # Stories follow each other, so the two tokens before a story's first word are the
    # <EOS> of the story before and its own <BOS>. Before the first we imagine an <EOS>.
    train = np.insert(np.asarray(train[:NGRAM_TOKENS]), 0, EOS)
    cut = len(train) - min(len(train) // 20, 500_000)
    cut += int(np.argmax(train[cut:] == BOS))  # 0 if there is none
    counted, tuning = train[:cut], train[cut:]
    ids = np.concatenate([[EOS], tuning, [EOS], valid])
    v, w = ids[1:-1], ids[2:]  # w: the token to predict; v: the one before it; then u
    c_w = count_ngrams(counted[1:], np.arange(V), 1)  # (V,)
    c_v, c_uvw = c_w[v], count_ngrams(counted, ids, 3)
    pairs = count_ngrams(counted, ids, 2)
    c_uv, c_vw = pairs[:-1], pairs[1:]
    c_w[BOS] = 0  # never to be predicted
    p_w = ((c_w + 1) / (c_w.sum() + V))[w]

    def nats(i, k2, k3):  # indices of w -> [unigram's, bigram's, trigram's]
        p_vw = (c_vw[i] + k2 * p_w[i]) / (c_v[i] + k2)
        p_uvw = (c_uvw[i] + k3 * p_vw) / (c_uv[i] + k3)
        return [float(-np.log(p).sum()) for p in (p_w[i], p_vw, p_uvw)]

    scored, choices = np.flatnonzero(w != BOS), (0.3, 1, 3, 10, 30, 100, 300, 1000)
    tune, test = scored[scored < len(tuning) - 1], scored[scored >= len(tuning)]
    k2 = min(choices, key=lambda k: nats(tune, k, 1)[1])
    k3 = min(choices, key=lambda k: nats(tune, k2, k)[2])
    losses = len(test) * math.log(V), *nats(test, k2, k3)
    names = "uniform", "unigram", "bigram", "trigram"
    return dict(zip(names, losses)), len(counted) - 1

# ============================================ 7. Memorization: are the samples its own?
# A model that has memorized its training text generates fine stories that are copies.
# So we find each sample's longest match with train.bin. Held-out stories also share
# phrases with it ("Once upon a time"), so they show how much overlap is normal.

def sample(model, device, count, temperature, min_p, prompt=(BOS,)):  # -> lists of ids
    """Stories that continue the prompt until <EOS> or until the context is full."""
    rng, stories = torch.Generator().manual_seed(SEED), []
    most = max(1, model.config.block_size - len(prompt))  # new tokens
    batches = range(0, count, 64)  # at most 64 side by side, to bound the memory
    for done in tqdm(batches, desc="sampling", leave=False, delay=1):
        idx = torch.tensor([prompt] * min(64, count - done), device=device)  # (B, T)
        idx = model.generate(idx, most, temperature, min_p=min_p, stop_id=EOS, rng=rng)
        stories += idx.tolist()
    return [ids[: ids.index(EOS) + 1] if EOS in ids else ids for ids in stories]

def longest_matches(train, stories, n):  # -> [(length, start in story, start in train)]
    """For each list of ids, its longest match with train, of at least n tokens."""
    best, places = [(0, 0, 0)] * len(stories), {}
    for number, story in enumerate(stories):
        for start, key in enumerate(ngram_keys(story, n).tolist()):
            places.setdefault(key, []).append((number, start))
    wanted, longest = np.array(list(places), dtype=np.uint64), max(map(len, stories))
    stories = [story + [-1] * (longest + 1) for story in stories]  # -1 matches nothing
    chunks = range(0, len(train), CHUNK)
    for chunk in tqdm(chunks, desc="searching train.bin", leave=False, delay=1):
        part = train[chunk : chunk + CHUNK + longest]
        keys = ngram_keys(part, n)  # hashes: they only say where to compare
        hits = np.flatnonzero(np.isin(keys, wanted))
        part = part.tolist() + [-2] * (longest + 1)  # matches nothing, not even -1
        for t, key in zip(hits.tolist(), keys[hits].tolist()):
            for number, start in places[key]:
                story, length = stories[number], best[number][0]
                if story[start + length] == part[t + length]:  # may be a longer one
                    length = 0
                    while story[start + length] == part[t + length]:
                        length += 1
                    if length > best[number][0]:
                        best[number] = length, start, chunk + t
    return best

def compare_with_training(tokenizer, train, stories, n):  # lists of ids -> [dict]
    """For each story: longest match with train, fraction of 4-grams not in train."""
    rows = [{"text": tokenizer.decode(ids), "ended": ids[-1] == EOS} for ids in stories]
    # Encoded again: the model may have split a word as the tokenizer never would.
    stories = [[BOS, *tokenizer.encode(row["text"]), EOS] for row in rows]
    joined = [i for ids in stories for i in [*ids, -1]]  # no 4-gram crosses a -1
    is_new = count_ngrams(train, joined + [-1] * 3, 4) == 0
    is_new = np.split(is_new, np.cumsum([len(ids) + 1 for ids in stories]))
    matches = longest_matches(train, stories, n)
    for row, ids, new, (length, start, place) in zip(rows, stories, is_new, matches):
        around = train[max(0, place - 50) : place + length + 50] if length else []
        around = [tokenizer.byte_id[10] if i == EOS else i for i in around]  # line end
        parts = ids[:start], ids[start : start + length], ids[start + length :], around
        *row["parts"], row["source"] = map(tokenizer.decode, parts)
        row["new_4grams"] = float(new[: len(ids) - 3].mean()) if len(ids) > 3 else 0.0
        row |= {"tokens": len(ids), "match": length}
    return rows

def check_memorization(model, tokenizer, device, train, valid):  # -> dict
    """Sample stories; print what they, and held-out stories, share with train.bin."""
    groups = {str(t): sample(model, device, SAMPLES, t, MIN_P) for t in TEMPERATURES}
    total, T = sum(map(len, groups.values())), model.config.block_size
    ids, starts = some_stories(valid, max(20, total))
    # Cut at T, because no sample is longer.
    groups["held out"] = [story[:T].tolist() for story in np.split(ids, starts[1:])]
    # In a list of names, for example, most "stories" have fewer than 8 tokens.
    n = 8 if np.median([len(ids) for ids in groups["held out"]]) >= 32 else 4
    print(f"\n[start] {SAMPLES} samples each, MIN_P {MIN_P}; shortest match {n} tokens")
    rows = compare_with_training(tokenizer, train, sum(groups.values(), []), n)
    longest = max(row["match"] for row in rows[total:])
    result = {"samples": total, "shortest_match": n, "longest_held_out": longest}
    result |= {"copies": 0, "groups": {}}
    print("  longest match: mean  max  new 4-grams  distinct-3  ended  copies")
    for name, stories in groups.items():
        own, rows = rows[: len(stories)], rows[len(stories) :]
        for row in own:
            row["copy"] = row["match"] > max(longest, row["tokens"] / 2)
        # distinct-n (arXiv 1510.03055): the fraction of n-grams that are distinct. It
        # falls as stories get more alike, and as their number grows: take SAMPLES each.
        grams = np.concatenate([ngram_keys(ids, 3) for ids in stories[:SAMPLES]])
        group = {"distinct3": len(np.unique(grams)) / max(1, len(grams))}
        for what in ("match", "new_4grams", "ended", "copy"):
            group[what] = float(np.mean([row[what] for row in own]))
        most = max(row["match"] for row in own)
        print(f"  {name:9}{group['match']:10.1f}{most:5}", end="")
        print(f"{group['new_4grams']:13.1%}{group['distinct3']:12.3f}", end="")
        print(f"{group['ended']:7.0%}{group['copy']:8.0%}")
        result["copies"] += sum(row["copy"] for row in own)
        result["groups"][name] = group | {"stories": own}
    low, high = result["interval"] = wilson(result["copies"], total)
    print(f"[check] {result['copies']} of {total} samples are verbatim copies", end=" ")
    print(f"(95% interval over all temperatures: {low:.0%} to {high:.0%}).")
    print(f"        (a copy: one match is over half of it, and over {longest} tokens;")
    print("        copies with a few words changed are not counted)")
    return result

# ====================================== 8. The grammar: right from first to last word?
# A grammar generated the practice stories. So for them, and for no other text, we
# know whether a story is right, where it first goes wrong, and the best possible loss.

def load_grammar(text):  # TEXT -> the module practice_stories, or None
    if text == "practice" and GRAMMAR.is_file():
        sys.path.append(str(GRAMMAR.parent))
        return importlib.import_module("practice_stories")
    if text == "practice":
        print(f"[note] {bpe.shown(GRAMMAR)} is missing, so no story is checked")

def check_stories(grammar, model, tokenizer, device):  # -> [dict], one per MIN_P
    """Sample stories; print how many are right, and one mistake of each kind."""
    prompt, results = [BOS, *tokenizer.encode("Once upon a time")], []
    print("\n[start] 'Once upon a time ...' at temperature 0.8, checked by the grammar")
    for min_p, how in {0.0: "no token excluded", MIN_P: "as above"}.items():
        stories = []
        for ids in sample(model, device, GRAMMAR_SAMPLES, 0.8, min_p, prompt):
            text = tokenizer.decode(ids).strip()
            mistake = grammar.check(text)
            if not mistake and ids[-1] != EOS:  # the context was full
                mistake = grammar.Mistake(len(text), 1.0, "", ("",), "an end too early")
            stories.append({"text": text, "mistake": mistake})
        wrong = [(s["text"], s["mistake"]) for s in stories if s["mistake"]]
        right = len(stories) - len(wrong)
        low, high = limits = wilson(right, len(stories))
        print(f"  MIN_P = {min_p:g}, {how}: right from first to last word:", end=" ")
        print(f"{right} of {len(stories)} (95% interval: {low:.1%} to {high:.1%})")
        results.append(dict(min_p=min_p, right=right, interval=limits, stories=stories))
        if wrong:
            place = np.mean([mistake.fraction for _, mistake in wrong])
            print(f"    mean position of the first mistake: {place:.0%} of the story")
        for kind, n in Counter(m.kind for _, m in wrong).most_common():
            text, m = next(pair for pair in wrong if pair[1].kind == kind)
            before = re.split(r'[.!?]"?|\n', text[: m.offset])[-1].lstrip()
            after = re.split(r"[.!?\n]", text[m.offset + len(m.found) :])[0]
            words = " or ".join(part.strip() or "the end" for part in m.expected[:3])
            print(f"    {n:4} {kind:8} {before}[{m.found}]{after}; expected: {words}")
    return results

# ====================================================== 9. The quiz: which ending fits?
# Two endings, one of them sensible. No judge is needed and nothing is generated: the
# ending that the model finds more probable is its answer.

def read_quiz(path):  # -> [{"category", "practice", "text", "right", "wrong"}]
    """Each item: a line with its category (and "practice", if it is about the world of
    the practice stories), lines of text, a line "+ ending" and a line "- ending".
    """
    lines = path.read_text("utf-8", errors="replace").splitlines()
    lines = [line.strip() for line in lines if not line.startswith("#")]
    pattern = r"(\w+)( practice)?\n((?:[^+-].*\n)+)\+ (.+)\n- (.+)"
    items = []
    for block in re.split("\n\n+", "\n".join(lines).strip()):
        if not (match := re.fullmatch(pattern, block)):
            what = f"{bpe.shown(path)}: the item {block[:60]!r} cannot be read."
            why = "An item is its category, its text, a line '+ ...', a line '- ...'."
            raise bpe.stop(what, why, f"Fix {bpe.shown(path)}, then: python 05_eval.py")
        category, practice, text, right, wrong = match.groups()
        items.append({"category": category, "practice": bool(practice), "right": right,
                      "wrong": wrong, "text": text.strip().replace("\n", " ")})
    return items

def take_quiz(model, tokenizer, text, device):  # -> {"quiz": items, "quiz_results"}
    """Let the model choose an ending for each item; print how often it was right."""
    if not QUIZ.is_file():
        print(f"[note] {bpe.shown(QUIZ)} is missing, so there is no quiz")
        return {"quiz": [], "quiz_results": {}}
    items, groups, results = read_quiz(QUIZ), {}, {}
    for item in tqdm(items, desc="quiz", leave=False, delay=1):
        for side in ("right", "wrong"):
            ending = tokenizer.encode(" " + item[side])
            ids = [BOS, *tokenizer.encode(item["text"]), *ending]
            ids = np.array(ids[-model.config.block_size - 1 :])  # what fits
            nats = score(model, ids, [0], device, side)[-len(ending) :].sum()
            # Per byte, or else the shorter ending would mostly win.
            item[f"{side}_nats"] = float(nats) / len((" " + item[side]).encode())
        item["solved"] = item["right_nats"] < item["wrong_nats"]
    # A model of the practice stories need not know more than their world.
    first = "practice world" if text == "practice" else "all"
    for item in sorted(items, key=lambda item: not item["practice"]):
        wide = text == "practice" and not item["practice"]
        for name in ["wider world"] if wide else [first, item["category"]]:
            groups.setdefault(name, []).append(item["solved"])
    print("\nThe quiz (guessing solves 50%):")
    for name, solved in groups.items():
        right, of = sum(solved), len(solved)
        low, high = wilson(right, of)
        results[name] = {"solved": right, "of": of, "interval": (low, high)}
        print(f"  {name:15}{right:4} of {of:3} = {right / of:4.0%}", end="")
        print(f"   95% interval: {low:.0%} to {high:.0%}")
    return {"quiz": items, "quiz_results": results}

# =========================================================================== 10. Checks
def check_inputs():  # -> Tokenizer, GPT, stage 2's meta, {file: sha256}
    """SystemExit, naming what to edit or to run again, unless all fits together."""
    script = "05_eval.py"
    bpe.in_range(script, "SAMPLES", SAMPLES, int, 1, 10_000)
    bpe.in_range(script, "GRAMMAR_SAMPLES", GRAMMAR_SAMPLES, int, 1, 10_000)
    bpe.in_range(script, "MIN_P", MIN_P, float, 0, 1)
    bpe.in_range(script, "SEED", SEED, int, 0, 2**31)
    if not isinstance(TEMPERATURES, (tuple, list)) or not TEMPERATURES:
        raise bpe.unusable(script, "TEMPERATURES", TEMPERATURES, "a list of numbers")
    for temperature in TEMPERATURES:
        bpe.in_range(script, "TEMPERATURES", temperature, float, 0.01, 10)
    tokenizer = bpe.Tokenizer.load(bpe.OUT / "tokenizer.json")
    meta = bpe.read_json(DATA / "meta.json", "02_prepare.py", "02_prepare/2")
    bpe.check_tokenizer(meta["tokenizer"], "train.bin", "python 02_prepare.py")
    model, checkpoint = gpt.GPT.load(MODEL, "04_train.py")
    bpe.check_tokenizer(checkpoint.get("tokenizer"), "best.pt", "python 04_train.py")
    hashes = {"tokenizer": meta["tokenizer"], "model": bpe.sha256_of(MODEL)}
    for name in ("train", "valid"):
        bpe.need(DATA / f"{name}.bin", "02_prepare.py")
        hashes[name] = bpe.sha256_of(DATA / f"{name}.bin")
        if hashes[name] != meta[name]["sha256"]:
            what, why = f"{name}.bin is damaged.", "Its sha256 is wrong."
            raise bpe.stop(what, why, "python 02_prepare.py")
    if checkpoint.get("fingerprint", {}).get("data") != hashes["train"]:
        what = "best.pt was trained on another train.bin."
        why = "02_prepare.py has run again since: other stories may be held out now."
        raise bpe.stop(what, why, "python 04_train.py")
    return tokenizer, model.eval(), meta, hashes

# ============================================================================= 11. Main
def measure_loss(model, device, train, valid, byte_lengths, grammar):  # -> dict
    """Print the loss by several protocols, and the baselines in bits per byte."""
    torch.manual_seed(SEED)
    untrained = gpt.GPT(model.config).eval().to(device)
    held_out, result = (valid, np.flatnonzero(valid == BOS)), {}
    for name, how, tested, (ids, starts) in [
        ("stories", "each held-out story by itself", model, held_out),
        ("sliding", "valid.bin as one sequence, cut mid-story", model, held_out),
        ("training_stories", "stories of train.bin", model, some_stories(train, 256)),
        ("untrained", "before training", untrained, some_stories(valid, 64)),
    ]:
        nats = score(tested, ids, [0] if name == "sliding" else starts, device, how)
        result[name] = r = summary(nats, ids, starts, byte_lengths)
        interval = "" if r["plus_minus"] is None else f"+-{r['plus_minus']:.4f} (95%)"
        print(f"  loss {r['loss']:.4f}   perplexity {r['perplexity']:8.2f}", end="")
        print(f"   bits per byte {r['bits_per_byte']:.4f} {interval}   {how}")

    n_bytes = int(byte_lengths[valid].sum())
    losses, counted = ngram_losses(train, valid, model.config.vocab_size)
    bits = {name: nats / math.log(2) / n_bytes for name, nats in losses.items()}
    bits["untrained model"] = result["untrained"]["bits_per_byte"]
    bits["this model"] = result["stories"]["bits_per_byte"]
    if grammar:
        bits["the grammar itself"] = grammar.limit().bits_per_byte
    print("\nBits per byte (lower is better), and the difference from this model;"
          f" n-grams counted on {counted:,} tokens:")
    for name, value in bits.items():
        bar = "#" * round(48 * value / max(bits.values()))
        print(f"  {name:18}{value:6.3f}{value - bits['this model']:+8.3f} {bar}")
    return result | {"baselines": bits, "bytes": n_bytes, "ngram_tokens": counted}

def main():
    started = time.perf_counter()
    tokenizer, model, meta, hashes = check_inputs()
    text, T = meta["constants"]["TEXT"], model.config.block_size
    train = np.memmap(DATA / "train.bin", dtype="<u2", mode="r")
    valid = np.fromfile(DATA / "valid.bin", dtype="<u2")
    byte_lengths = np.array([0] * 4 + [len(t) for t in tokenizer.token_bytes[4:]])
    print(f"[read] {bpe.shown(MODEL)}: {model.config.n_params:,} parameters")
    print(f"[read] {bpe.shown(DATA / 'valid.bin')}: {len(valid):,} tokens held out")
    device = gpt.pick_device(model, DEVICE, "05_eval.py")
    result = {"format": FORMAT, "text": text, "context": T, "made_from": hashes}
    result |= dict(SAMPLES=SAMPLES, TEMPERATURES=TEMPERATURES, MIN_P=MIN_P, SEED=SEED)
    print(f"[start] scoring every token but <BOS> once, given up to {T} before it")
    if (OUT / "judge.json").exists():
        try:  # an extra, from lessons/quests/judge.py
            grades = bpe.read_json(OUT / "judge.json", "judge.py", "judge/1")
            result["judge"] = grades if grades.get("model") == hashes["model"] else None
        except SystemExit as problem:
            print("[note] no grades in the report:", str(problem).split("\n")[0])
    grammar = load_grammar(text)
    result |= measure_loss(model, device, train, valid, byte_lengths, grammar)
    result |= check_memorization(model, tokenizer, device, train, valid)
    if grammar:
        result["grammar"] = check_stories(grammar, model, tokenizer, device)
    result |= take_quiz(model, tokenizer, text, device)
    page, content = bpe.fill_page("report.html", result), json.dumps(result, indent=1)
    bpe.write_all({OUT / "eval.json": content, OUT / "report.html": page})
    seconds, memory = time.perf_counter() - started, gpt.peak_megabytes(device)
    names = "eval.json report.html" if page else "eval.json"
    print(f"[wrote] {bpe.shown(OUT)}/: {names} in {seconds:.0f} s", end="")
    print(f", {memory:,.0f} MB" if memory > 0 else "")  # nan: unknown
    print("Next: python 06_sample.py")

if __name__ == "__main__":
    bpe.run_stage(main, "05_eval.py")
