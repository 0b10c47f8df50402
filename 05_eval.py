# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.13.0", "numpy", "regex", "tqdm"]
# ///
"""Stage 5 of 6: find out how good the model is, whether it cheats, and how we know.

    text --> 01_bpe --> 02_prepare --> 03_model --> 04_train --> [05_eval] --> 06_sample
                                                                  you are here

READS   artifacts/04_train/best.pt (and log.csv, if it is there), artifacts/02_prepare/,
        artifacts/01_bpe/, lessons/quiz.txt
WRITES  artifacts/05_eval/report.html   the answer, to open in a browser
        artifacts/05_eval/eval.json     every number of it; equal runs, equal file
RUN     python 05_eval.py
TAKES   about 20 seconds on 2 cores of an AMD EPYC (Zen 3), torch 2.13.0, 2026-11-23
LESSON  lessons/07_evaluation.md
"""

# ======================================================================= 2. IMPORTS
import csv
import importlib
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE / "lessons"))
import machine  # lessons/machine.py: devices, memory
import ngrams  # lessons/ngrams.py: counts runs of tokens in large files
import quiz  # lessons/quiz.py: reads quiz.txt
from plumbing import fill_page, in_range, need, read_json
from plumbing import run_stage, sha256_of, shown, stop, write_whole

# `import 03_model` is a syntax error, because a name cannot begin with a digit; this
# says the same. We take the classes Tokenizer and GPT from there: one copy of each, so
# that an edit of stage 3 is an edit everywhere.
bpe = importlib.import_module("01_bpe")
gpt = importlib.import_module("03_model")

# ===================================================================== 3. CONSTANTS
# -- what it shall tell
SAMPLES = 10  # stories per temperature; more make every figure about them steadier
TEMPERATURES = (0.5, 0.8, 1.0, 1.2)  # low: tidy and alike; high: wild and broken
SEED = 1  # of the dice; another seed, other stories
# -- how to run
TOKENS_AT_ONCE = 8192  # scored in one pass; out of memory? halve it; same result

DATA = HERE / "artifacts" / "02_prepare"
MODEL = HERE / "artifacts" / "04_train" / "best.pt"
QUIZ = HERE / "lessons" / "quiz.txt"
OUT = HERE / "artifacts" / "05_eval"
FORMAT = "05_eval/1"  # changes when eval.json changes its form
SOME_STORIES = 64  # to try the untrained model on; of learnt ones, four times as many

# ========================================================================= 4. WORDS
# loss         mean of -log(probability given to the right next token), nats per token
# perplexity   exp(loss): between how many equally likely tokens it hesitates
# bits/byte    all nats / ln 2 / bytes of the stories: does not depend on the tokenizer,
#              so models with different vocabularies can be compared
# T            context: the most tokens that the model can look back on
# window       (first, scored, stop): the model reads tokens first .. stop-2 and is
#              scored on tokens scored .. stop-1, each predicted from those before it
# control      real validation stories, put through the same test as the model's own

# ====================================================================== 5. THE IDEA
# A model that knows a language is seldom surprised by it. So we let it read stories
# that it has never seen and add up its surprise, token by token. A token to which it
# gave the probability p costs -log2(p) bits: an ideal compressor (Shannon 1948) would
# need exactly so many to store the stories. Understanding, here, is compression.


def bits_per_byte(probabilities, size):
    """Three tokens, "the cat sat": 11 bytes, guessed with probability 1/2, 1/8 and 1/4.

    >>> round(bits_per_byte([1 / 2, 1 / 8, 1 / 4], size=11), 3)  # (1 + 3 + 2) / 11
    0.545
    """
    nats = -sum(math.log(p) for p in probabilities)
    return nats / math.log(2) / size


# ======================================================================== 6. PIECES
# ---- the loss: every token once. Cutting the file into blocks would be simpler, but
# then many tokens are judged with hardly any past, and the number says more about the
# cuts than about the model.


def windows(begin, end, context):  # -> [(first, scored, stop)]
    """Score tokens begin+1 .. end-1 once each, with at most `context` tokens of past.

    What is longer than the context goes on in windows that overlap by half of it: every
    token sees its whole past or at least context/2 tokens of it.

    >>> windows(0, 9, context=4)
    [(0, 1, 5), (2, 5, 7), (4, 7, 9)]
    """
    found, first, scored = [], begin, begin + 1
    while scored < end:
        stop_here = min(first + context + 1, end)
        found.append((first, scored, stop_here))
        first, scored = first + (context + 1) // 2, stop_here
    return found


@torch.no_grad()
def score(model, ids, parts, device, desc):  # (N,), windows -> (N,) nats, 0: not scored
    """What each token of ids costs the model. Longest windows first: those of one batch
    are about equally long, and if the memory is too small we learn it at once.
    """
    nats = np.zeros(len(ids), dtype=np.float64)
    parts, done = np.array(sorted(parts, key=lambda part: part[0] - part[2])), 0
    bar = tqdm(total=len(parts), desc=desc, leave=False)
    while done < len(parts):
        # Lengths in steps of 32, because a GPU prepares anew for each new shape.
        longest = parts[done][2] - parts[done][0] - 1
        T = min(-(-longest // 32) * 32, model.config["context"])
        now = parts[done : done + max(1, TOKENS_AT_ONCE // T)]
        x = torch.zeros(len(now), T, dtype=torch.int64)  # (B, T)
        y = torch.full((len(now), T), -1)  # (B, T), -1: not scored
        for row, (first, scored, end) in enumerate(now):
            text = torch.from_numpy(ids[first:end].astype(np.int64))
            x[row, : end - first - 1] = text[:-1]
            y[row, scored - first - 1 : end - first - 1] = text[scored - first :]
        # SUBTLE: after <EOS> always comes <BOS>. Scoring that sure guess would flatter
        # the loss, so no <BOS> (id 2) is scored, here or in the n-grams.
        y[y == 2] = -1
        losses = model.loss(x.to(device), y.to(device), reduction="none").cpu()
        for (first, scored, end), row in zip(now, losses.double().numpy()):
            nats[scored:end] = row[scored - first - 1 : end - first - 1]
        done += len(now)
        bar.update(len(now))
    return nats


def summary(nats, ids, starts, byte_lengths):  # (N,), (N,), (S,), (V,) -> dict
    """Loss, perplexity and bits per byte of the stories that begin at `starts`.

    <EOS> costs nats like any token, for ending in the right place is part of telling;
    but it has no bytes, so the bytes are those of the stories and nothing else.
    """
    cost = np.add.reduceat(nats, starts)  # (S,) nats of each story
    size = np.add.reduceat(byte_lengths[ids], starts)  # (S,) bytes of each story
    loss = float(cost.sum() / (ids != 2).sum())
    bits = cost / math.log(2)
    per_byte = float(bits.sum() / size.sum())
    # Other stories would give another figure: the spread over ours says how far off.
    spread = (bits - per_byte * size).std() / size.mean() / math.sqrt(len(size))
    found = {"loss": loss, "perplexity": math.exp(loss), "bits_per_byte": per_byte}
    return found | {"plus_minus": float(1.96 * spread), "tokens": int((ids != 2).sum())}


def by_position(nats, starts):  # (N,), (S,) -> [(first, last, tokens, mean nats)]
    """The loss by place in the story: place 1 is the first token after <BOS>."""
    place = np.arange(len(nats)) - np.repeat(starts, np.diff([*starts, len(nats)]))
    edges = np.unique(np.geomspace(1, place.max() + 1, 33).astype(int))
    which = np.searchsorted(edges, place, side="right")  # 0: <BOS> itself
    count, total = np.bincount(which), np.bincount(which, weights=nats)
    return [
        (int(low), int(high) - 1, int(count[i]), float(total[i] / count[i]))
        for i, (low, high) in enumerate(zip(edges, edges[1:]), start=1)
    ]


def some_stories(ids, count):  # (N,) -> (M,), (S,)
    """About `count` stories, evenly spread over a file, and where each begins."""
    stories = {}
    for place in np.linspace(0, len(ids), count, endpoint=False).astype(int):
        part = np.asarray(ids[place : place + 2**16])
        begin = np.flatnonzero(part == 2)[:1]
        end = np.flatnonzero(part == 3) + 1
        if len(begin) and (end > begin[0]).any():
            stories[place + begin[0]] = part[begin[0] : end[end > begin[0]][0]]
    sizes = [len(story) for story in stories.values()]
    return np.concatenate(list(stories.values())), np.cumsum([0, *sizes[:-1]])


def story_windows(ids, starts, context):
    """The windows of every story by itself, from its <BOS> to its <EOS>."""
    ends = [*starts[1:], len(ids)]
    return [w for begin, end in zip(starts, ends) for w in windows(begin, end, context)]


# ---- telling: stage 6 explains how. Here many stories are told side by side.


@torch.no_grad()
def tell(model, count, temperature, device):  # -> count lists of ids, <BOS> first
    """Stories from nothing but <BOS>, until <EOS> or until the context is full."""
    dice = torch.Generator().manual_seed(SEED)
    stories = new = torch.full((count, 1), 2)
    cache, T = model.new_cache(), model.config["context"]
    while stories.shape[1] < T and not (stories == 3).any(dim=1).all():
        logits = model(new.to(device), cache)[:, -1].float().cpu()  # (count, V)
        logits[:, :3] = -math.inf  # <PAD>, <UNK>, <BOS> are no part of a story
        new = torch.multinomial((logits / temperature).softmax(-1), 1, generator=dice)
        stories = torch.cat([stories, new], dim=1)  # (count, t) -> (count, t + 1)
    return [row[: row.index(3) + 1 if 3 in row else None] for row in stories.tolist()]


# ---- does it cheat? A model that has learnt stories by heart tells fine stories, none
# of them its own. Only a search of the training text shows it: ngrams.find_copies looks
# up every run of tokens of a story in train.bin, exactly, and finds the longest. Real
# stories share runs with it too ("Once upon a time"): they tell us how much is much.


def is_copy(story, control):
    """Is half of it or more one run, and longer than that of any real story?"""
    longest = max(other["run"] for other in control)
    return story["run"] > longest and story["run_share"] >= 0.5


# ---- the quiz: two endings, one sensible. No judge is needed and nothing is generated:
# whichever ending the model finds more probable is its answer.


def wilson(right, count):  # -> (low, high)
    """The 95 % interval of a share (Wilson 1927): what luck alone may have changed.

    >>> [round(share, 2) for share in wilson(8, 10)]
    [0.49, 0.94]
    """
    z = 1.96
    middle, n = (right + z * z / 2) / (count + z * z), count + z * z
    half = z * math.sqrt(right * (count - right) / count + z * z / 4) / n
    return middle - half, middle + half


def take_quiz(model, tokenizer, items, device):
    """Score both endings of each item after <BOS> and its text, and note it there."""
    ids, parts = [], []
    for item in items:
        for ending in (item["right"], item["wrong"]):
            begin = len(ids)
            ids += [tokenizer.bos, *tokenizer.encode(item["text"])]
            scored = len(ids)
            ids += tokenizer.encode(" " + ending)
            first = max(begin, len(ids) - model.config["context"] - 1)
            parts.append((first, max(scored, first + 1), len(ids)))
    nats = score(model, np.array(ids), parts, device, "quiz")
    costs = [float(nats[scored:end].sum()) for _, scored, end in parts]
    for i, item in enumerate(items):
        # Per byte, or else the shorter ending would mostly win.
        for cost, side in zip(costs[2 * i :], ("right", "wrong")):
            item[f"{side}_nats"] = cost / len((" " + item[side]).encode())
        item["solved"] = item["right_nats"] < item["wrong_nats"]
    return items


def marks(items):  # -> {"solved", "of", "share", "low", "high"}
    """How many of the items were solved, and the interval of that share."""
    solved = sum(item["solved"] for item in items)
    low, high = wilson(solved, len(items))
    found = {"solved": solved, "of": len(items), "share": solved / len(items)}
    return found | {"low": low, "high": high}


# ======================================================================== 7. CHECKS
def check_constants():
    """Raise SystemExit, naming the constant and its range, unless all can be used."""
    in_range("05_eval.py", "SAMPLES", SAMPLES, int, 1, 10_000)
    in_range("05_eval.py", "SEED", SEED, int, 0, 2**31)
    in_range("05_eval.py", "TOKENS_AT_ONCE", TOKENS_AT_ONCE, int, 1, 10**7)
    if not isinstance(TEMPERATURES, (tuple, list)) or not TEMPERATURES:
        what = f"TEMPERATURES = {TEMPERATURES!r} in 05_eval.py cannot be used."
        why = "It must be a row of numbers, such as (0.5, 0.8, 1.0, 1.2)."
        raise stop(what, why, "Edit TEMPERATURES, then: python 05_eval.py")
    for i, temperature in enumerate(TEMPERATURES):
        in_range("05_eval.py", f"TEMPERATURES[{i}]", temperature, float, 0.01, 10)


def check_inputs():
    """-> (tokenizer, TEXT, stage 2's meta, model, fingerprints); SystemExit if they do
    not belong together.
    """
    tokenizer = bpe.Tokenizer.load(bpe.OUT / "tokenizer.json")
    meta = read_json(DATA / "meta.json", "02_prepare.py", "02_prepare/2")
    model, content = gpt.GPT.load(MODEL, "04_train.py")
    now = {"tokenizer": sha256_of(bpe.OUT / "tokenizer.json")}
    now["model"] = sha256_of(MODEL)
    for what, theirs, again in [
        ("train.bin", meta["tokenizer"], "python 02_prepare.py"),
        ("best.pt", content.get("tokenizer"), "python 04_train.py"),
    ]:
        if theirs != now["tokenizer"]:
            why = "Its ids would mean other words: stage 1 has run again since."
            raise stop(f"{what} was made with another tokenizer.", why, again)
    for part in ("train", "valid"):
        path = DATA / f"{part}.bin"
        need(path, "02_prepare.py")
        now[part] = sha256_of(path)
        if now[part] != meta[part]["sha256"]:
            why = "Its fingerprint is not the one in meta.json: cut short, or changed."
            raise stop(f"{shown(path)} is damaged.", why, "python 02_prepare.py")
    if content.get("identity", {}).get("data") != now["train"]:
        why = "Stage 2 has run again since: it may have learnt what is now the test."
        again = "python 04_train.py"
        raise stop("best.pt was trained on another train.bin.", why, again)
    return tokenizer, meta["constants"]["TEXT"], meta, model.eval(), now


def choose_device(model, ids, parts):
    """The first GPU there is, if it gives the loss that the CPU gives; else the CPU."""
    device = machine.devices()[0]
    if device.type == "cpu":
        print("[plan] device cpu: no Apple or NVIDIA GPU found")
        return model, device
    here = score(model, ids, parts, torch.device("cpu"), "checking").sum()
    model = model.to(device)
    there = score(model, ids, parts, device, "checking").sum()
    if math.isclose(here, there, rel_tol=1e-3):
        print(f"[plan] device {device}: found, and it computes what the CPU does")
        return model, device
    print(f"[plan] device cpu: {device} says {there:.2f} nats, but {here:.2f} is right")
    return model.cpu(), torch.device("cpu")


# ========================================================================== 8. MAIN
def measure(model, device, train, valid, starts, byte_lengths):
    """-> all about the loss: by story, sliding, by place in the story, the ladder."""
    T, V = model.config["context"], model.config["vocab_size"]
    everything = valid, starts, byte_lengths
    nats = score(model, valid, story_windows(valid, starts, T), device, "stories")
    found = {"context": T, "stories": summary(nats, *everything)}
    found["by_position"] = by_position(nats, starts)
    nats = score(model, valid, windows(0, len(valid), T), device, "sliding")
    found["sliding"] = summary(nats, *everything)

    torch.manual_seed(SEED)
    untrained = gpt.GPT(model.config).eval().to(device)
    few = some_stories(valid, SOME_STORIES)
    nats = score(untrained, few[0], story_windows(*few, T), device, "untrained")
    found["untrained"] = summary(nats, *few, byte_lengths)
    known = some_stories(train, 4 * SOME_STORIES)
    nats = score(model, known[0], story_windows(*known, T), device, "training stories")
    found["training_stories"] = summary(nats, *known, byte_lengths)

    tokens, size = int((valid != 2).sum()), int(byte_lengths[valid].sum())
    counted, found["ngrams"] = ngrams.ngram_losses(train, valid, V)
    counted = {"uniform": tokens * math.log(V)} | counted
    rungs = {name: nats / math.log(2) / size for name, nats in counted.items()}
    rungs["untrained model"] = found["untrained"]["bits_per_byte"]
    rungs["this model"] = found["stories"]["bits_per_byte"]
    return found | {"ladder": rungs, "bytes": size}


def stories_and_copies(model, tokenizer, device, train, valid):
    """-> (stories of the model, control stories, diversity), as plain dicts."""
    told = []
    for temperature in tqdm(TEMPERATURES, desc="telling", leave=False):
        for ids in tell(model, SAMPLES, temperature, device):
            story = {"temperature": temperature, "text": tokenizer.decode(ids)}
            told.append(story | {"ended": ids[-1] == tokenizer.eos})
    ids, starts = some_stories(valid, max(20, len(told)))
    real = [tokenizer.decode(part.tolist()) for part in np.split(ids, starts[1:])]
    copies = ngrams.find_copies(tokenizer, train, [s["text"] for s in told] + real)
    control = copies[len(told) :]
    for story, facts in zip(told, copies):
        story |= facts | {"copy": is_copy(facts, control)}
    groups = {str(temperature): [] for temperature in TEMPERATURES}
    for story in told:
        groups[str(story["temperature"])].append(story["text"])
    groups["real stories"] = real[:: max(1, len(real) // SAMPLES)][:SAMPLES]
    return told, control, {name: ngrams.diversity(g) for name, g in groups.items()}


def show_loss(found):
    """Print the loss and the ladder."""
    for name, what in [
        ("stories", "each story by itself, from its <BOS>"),
        ("sliding", "the file as one text, earlier stories in view"),
        ("training_stories", "stories it has learnt from"),
    ]:
        r = found[name]
        print(f"  loss {r['loss']:.4f}   perplexity {r['perplexity']:7.2f}", end="   ")
        bits = f"bits per byte {r['bits_per_byte']:.4f} +- {r['plus_minus']:.4f}"
        print(f"{bits}   {what}")
    print("\nThe ladder, bits per byte (lower is better):")
    for name, bits in found["ladder"].items():
        bar = "#" * round(48 * bits / max(found["ladder"].values()))
        print(f"  {name:16}{bits:7.3f} {bar}")
    for name, bits, protocol in found["landmarks"]:
        print(f"  landmark {bits:.2f}: {name}; {protocol}")


def show_copies(told, control, groups):
    """Print a story of each temperature, and whether it is the model's own."""
    print("\nOne story of each temperature (all of them are in report.html):")
    for temperature in TEMPERATURES:
        story = next(s["text"] for s in told if s["temperature"] == temperature)
        print(f"\n  [temperature {temperature}]\n  " + story.replace("\n", "\n  "))
    print(f"\nDoes it cheat? Against {len(control)} real validation stories:")
    print(f"  {'':14}{'longest run':>16}{'4-grams new':>13}{'distinct-3':>12}", end="")
    print(f"{'overlap':>9}{'repeats':>9}{'ended':>7}{'copies':>8}")
    for name, measures in groups.items():
        own = [s for s in told if str(s["temperature"]) == name]
        some = own or control
        runs = sorted(s["run"] for s in some)
        print(f"  {name:14}{runs[len(runs) // 2]:6} (max {runs[-1]:3})", end="")
        print(f"{sum(s['new4'] for s in some) / len(some):13.1%}", end="")
        print(f"{measures['distinct3']:12.3f}{measures['overlap']:9.3f}", end="")
        print(f"{measures['repetition']:9.3f}", end="")
        ended, copies = (sum(s[what] for s in own) for what in ("ended", "copy"))
        print(f"{ended:7}{copies:8}" if own else "")


def show_quiz(items, text):  # -> {group: marks}
    """Print the marks and return them: of all that counts, and of each category."""
    # A model is asked about the world of its stories; not to know more is no failure.
    others = [item for item in items if text == "practice" and not item["practice"]]
    asked = [item for item in items if item not in others]
    groups = {"practice world" if text == "practice" else "all": asked}
    for item in asked:
        groups.setdefault(item["category"], []).append(item)
    if others:
        groups["the wide world"] = others
    found = {name: marks(group) for name, group in groups.items()}
    print("The quiz (chance is 50 %):")
    for name, m in found.items():
        print(f"  {name:15}{m['solved']:4} of {m['of']:3} = {m['share']:4.0%}", end="")
        print(f"   95 % interval: {m['low']:.0%} to {m['high']:.0%}")
    return found


def main():
    started = time.perf_counter()
    check_constants()
    tokenizer, text, meta, model, made_from = check_inputs()
    found = {"format": FORMAT, "text": text, "made_from": made_from}
    if (OUT / "judge.json").exists():  # somebody has run that quest
        judge = read_json(OUT / "judge.json", "lessons/quests/judge.py", "judge/1")
        if judge["model"] == made_from["model"]:
            found["judge"] = judge
    train = np.memmap(DATA / "train.bin", dtype="<u2", mode="r")
    valid = np.fromfile(DATA / "valid.bin", dtype="<u2")
    starts = np.flatnonzero(valid == 2)
    byte_lengths = np.array([0] * 4 + [len(t) for t in tokenizer.token_bytes[4:]])
    size = int(byte_lengths[valid].sum())
    weights = sum(w.numel() for w in model.parameters())
    print(f"[read] {shown(MODEL)}: {weights:,} parameters")
    print(f"[read] valid.bin: {len(starts):,} stories, {len(valid):,} tokens,", end=" ")
    print(f"{size:,} bytes")
    assert size == meta["valid"]["bytes"], "the tokens do not decode to the stories"
    T = model.config["context"]
    model, device = choose_device(model, valid, windows(0, min(2 * T, len(valid)), T))

    print(f"[start] every token but <BOS> once, at most {T} tokens before it in view")
    found |= measure(model, device, train, valid, starts, byte_lengths)
    found["landmarks"] = ngrams.LANDMARKS if text.startswith("tinystories") else []
    show_loss(found)
    told, control, groups = stories_and_copies(model, tokenizer, device, train, valid)
    show_copies(told, control, groups)
    found |= {"samples": told, "control": control, "diversity": groups}
    copies = sum(story["copy"] for story in told)
    found["copies"], found["copier"] = copies, copies > len(told) / 10
    verdict = "It copies." if found["copier"] else "It does not copy."
    print(f"[check] {copies} of {len(told)} stories are copies. {verdict}\n")

    found["quiz"] = take_quiz(model, tokenizer, quiz.read_items(QUIZ), device)
    found["marks"] = show_quiz(found["quiz"], text)
    log = OUT.parent / "04_train" / "log.csv"
    if log.exists():
        found["log"] = list(csv.DictReader(log.read_text("utf-8").splitlines()))
    write_whole(OUT / "eval.json", json.dumps(found, indent=1).encode())
    fill_page("report.html", found, OUT / "report.html")
    print(f"[wrote] {shown(OUT)}/: report.html eval.json in", end=" ")
    print(f"{time.perf_counter() - started:.0f} s, {machine.peak_megabytes():,.0f} MB")
    print("Next: python 06_sample.py")


# ========================================================================= 9. GUARD
if __name__ == "__main__":
    run_stage(main, "05_eval.py")
