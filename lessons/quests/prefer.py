# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.13.0", "numpy", "regex", "tqdm"]
# ///
"""Side quest: say which of two stories you prefer, and your model learns your taste.

READS   artifacts/04_train/best.pt, artifacts/02_prepare/meta.json, artifacts/01_bpe/,
        lessons/practice_stories.py, if it is there
WRITES  artifacts/prefer/: pairs.json, stories of your model; votes-you.json, and
        votes-animals.json of the built-in voter; model-you.pt, model-animals.pt, each
        like 04's best.pt, with the training state; prefer.html, to open in a browser
RUN     python lessons/quests/prefer.py, or with one word: vote (you compare stories),
        train (on your votes; if there are none, built-in ones), show (before and after)
TAKES   about 2 minutes on 2 cores of an Intel Xeon, torch 2.13.0, 2026-11-26
LESSON  lessons/quests/prefer.md
"""
# =========================================================================== 1. Imports
import copy
import importlib
import itertools
import json
import re
import shlex
import shutil
import signal
import sys
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT)]
# `import 01_bpe` is a syntax error (a name cannot start with a digit), hence:
bpe = importlib.import_module("01_bpe")
training = importlib.import_module("04_train")  # before 03: it sets up torch
gpt = importlib.import_module("03_model")
evaluation = importlib.import_module("05_eval")

import torch  # noqa: E402  the stages have said so if a package is missing
import torch.nn.functional as F  # noqa: E402
from tqdm import tqdm  # noqa: E402

# ============================================================= 2. Constants: edit these
TASTE = "animals"  # what the built-in voter prefers: animals as heroes; or "short"
VOTES = 240  # of the built-in voter; every sixth is held out: 200 to train on
BETA = 0.1  # the price of change; smaller, in a long run: the model drifts further
EPOCHS = 1  # how often training sees each vote; 5, with MAX_LR 3e-4: stories break
BATCH = 8  # votes per step; fewer: noisier steps
MAX_LR = 1e-4  # highest learning rate, 1/60 of 04's: a taste is a small change
PAIRS = 896  # pairs to vote on; the built-in voter skips about 70%
TEMPERATURE = 0.8  # of these stories; 1.0: far fewer of them are right
PROMPT = "Once upon a time"  # how each story begins; "": the model begins by itself
SEED = 1  # of the random generators; another seed: other stories to vote on

ME = "lessons/quests/prefer.py"
OUT = ROOT / "artifacts" / "prefer"
SAMPLES = 200  # stories for the table before and after training
LEAST = 24  # fewest votes for training: 20 to learn from and 4 held out
AT_ONCE = 64  # stories that are sampled, or scored, side by side
COMMAND = shlex.join(["python", ME, *sys.argv[1:]])  # what you typed

# ============================================================= 3. Glossary of this file
# B, S, T, V   duels in a batch; stories; tokens of the longest one; vocabulary (2,048)
# log-prob     ln p of a whole story: the sum over its tokens after the prompt, in nats
# duel         a pair after the vote: (ids of the chosen story, ids of the rejected one)
# reference    the model before training, frozen
# reward       BETA * (log-prob by the model - log-prob by the reference), per story

# ============================== 4. The idea: raise the chosen story above the rejected
# The model gives each story a probability. We want more of what was chosen, less of
# what was rejected, and nothing else changed. So a story's reward is how much MORE
# probable it is now than it was before, and the loss compares two rewards: -ln sigmoid
# is near 0 where the chosen one is far ahead, and grows where it is behind.

def dpo_loss(log_probs, ref_log_probs, beta):  # (B, 2), (B, 2) -> (), (B, 2)
    """Direct preference optimization (DPO, Rafailov et al., arXiv 2305.18290): the mean
    loss, and the rewards. Log-probs in nats; column 0: chosen, column 1: rejected.

    At first the model is the reference: both rewards are 0, and the loss is ln 2. Then
    p is multiplied by e**2 for the chosen story and divided by e**3 for the other one:
    >>> ref, now = torch.tensor([[-40.0, -38.0]]), torch.tensor([[-38.0, -41.0]])
    >>> round(dpo_loss(ref, ref, beta=0.1)[0].item(), 3)
    0.693
    >>> loss, rewards = dpo_loss(now, ref, beta=0.1)
    >>> [round(x, 3) for x in (*rewards[0].tolist(), loss.item())]  # margin 0.5
    [0.2, -0.3, 0.474]
    """
    rewards = beta * (log_probs - ref_log_probs)  # (B, 2)
    margins = rewards[:, 0] - rewards[:, 1]  # (B,)
    return -F.logsigmoid(margins).mean(), rewards

# ==================================================== 5. The log-probability of a story
def story_log_probs(model, stories, prompt):  # S lists of ids -> (S,)
    """ln p(story | prompt): the sum of ln p over all tokens after the prompt."""
    idx = torch.nn.utils.rnn.pad_sequence([*map(torch.tensor, stories)], True)  # (S, T)
    logits, targets = model(idx[:, :-1])[0], idx[:, len(prompt) :]  # (S, T - 1, V)
    logits = logits[:, len(prompt) - 1 :].flatten(0, 1)  # one row per target
    how = {"ignore_index": bpe.PAD, "reduction": "none"}  # short stories end in PAD, 0
    nats = F.cross_entropy(logits, targets.flatten(), **how).view_as(targets)
    return -nats.sum(dim=1)  # (S, T - prompt) -> (S,)

@torch.no_grad()
def score(model, stories, prompt):  # the same for many stories, without gradients
    parts = [stories[i : i + AT_ONCE] for i in range(0, len(stories), AT_ONCE)]
    return torch.cat([story_log_probs(model, part, prompt) for part in parts])

def flat(duels):  # B duels -> 2B stories: chosen, rejected, chosen, rejected, ...
    return list(itertools.chain(*duels))

# ======================================================= 6. Sample stories, two by two
def sample(model, count, temperature, prompt, seed):  # -> lists of ids, prompt first
    evaluation.SEED = seed  # where 05's sample() looks for it
    return evaluation.sample(model, "cpu", count, temperature, 0.0, prompt)

def get_pairs(model, prompt, made_from):  # -> [(ids, ids)]
    """Sampled once and kept, because the votes belong to them. Stopped? It resumes."""
    stories = read("pairs.json", made_from, OUT)
    batches = range(len(stories) // AT_ONCE, -(-2 * PAIRS // AT_ONCE))
    for n in tqdm(batches, f"sampling {PAIRS} pairs", unit="batch", delay=1):
        stories += sample(model, AT_ONCE, TEMPERATURE, prompt, SEED * 100_003 + n + 1)
        write("pairs.json", made_from, stories)
    return list(zip(stories[::2], stories[1::2]))

# ============================================================================== 7. Vote
def hero(text, grammar):  # -> "animal", "child", "toy", or None
    """As the story introduces it: "there was a little fox named Rusty" is an animal."""
    rows = itertools.chain(*grammar.TABLES.values())
    lives = {row["kind"]: row["lives"] for row in rows if "lives" in row}
    found = re.search(rf"\blittle ({'|'.join(lives)})\b", text)
    return lives[found[1]] if found else None

def builtin_votes(texts, grammar):  # [(str, str)] -> list of 1, 2, 0
    """Votes by TASTE, until VOTES pairs have a winner. 0 skips a pair without one."""
    votes = []
    for pair in texts:
        a, b = [hero(text, grammar) == "animal" if TASTE == "animals" else -len(text)
                for text in pair]  # fmt: skip
        if len(votes) - votes.count(0) < VOTES:
            votes.append(1 if a > b else 2 if b > a else 0)
    return votes

def side_by_side(pair, width=None):  # two texts -> lines, as wide as the terminal
    column = max(6, ((width or shutil.get_terminal_size().columns) - 5) // 2)
    left, right = (textwrap.wrap(text, column) for text in pair)
    rows = itertools.zip_longest(left, right, fillvalue="")
    return [f"{a:{column}}  |  {b}".rstrip() for a, b in rows]

def vote(texts, made_from):
    """Ask until you quit; each vote is on disk before the next question."""
    votes, answer = read("votes-you.json", made_from, OUT / "votes-you.json"), ""
    print("[start] Which story do you prefer? 1: left, 2: right, s: skip, q: quit")
    while len(votes) < len(texts) and answer != "q":
        print(f"\n--- pair {len(votes) + 1} of {len(texts)} ---")
        print(*side_by_side(texts[len(votes)]), sep="\n")
        print("1, 2, s, or q, then Enter > ", end="", flush=True)
        answer = (sys.stdin.readline() or "q").strip().lower()  # "": Ctrl-D
        if answer in ("1", "2", "s"):
            votes.append({"1": 1, "2": 2, "s": 0}[answer])
            write("votes-you.json", made_from, votes)
    count = len(votes) - votes.count(0)
    print(f"\n[check] votes-you.json: {count} votes, {len(votes) - count} skips")
    print(f"Next: python {ME} {'train' if count >= LEAST else 'vote'}")

# ============================================================================= 8. Train
def describe(stories, tokenizer, grammar):  # lists of ids -> dict of counts, texts
    """Counts: stories with an animal hero, right stories, and those that are both."""
    texts = [tokenizer.decode(ids).strip() for ids in stories]
    counts = {"stories": len(texts), "tokens": sum(map(len, stories)) / len(texts)}
    if grammar:
        animals = [hero(text, grammar) == "animal" for text in texts]
        right = [ids[-1] == bpe.EOS and not grammar.check(text)
                 for ids, text in zip(stories, texts)]  # fmt: skip
        counts |= {"animals": sum(animals), "right": sum(right)}
        counts["both"] = sum(a and r for a, r in zip(animals, right))
    return counts, texts

def evaluate(model, reference, duels, refs, prompt, tokenizer, grammar):  # -> a row
    """Accuracy and rewards of the duels; counts and KL divergence of a new sample."""
    log_probs = score(model, flat(duels), prompt).view(-1, 2)  # (2N,) -> (N, 2)
    _, rewards = dpo_loss(log_probs, refs, BETA)  # (N, 2)
    chosen, rejected = rewards.mean(dim=0).tolist()  # (N, 2) -> (2,)
    wins = (rewards[:, 0] - rewards[:, 1]).sign().mean().item()  # 1: all, -1: none
    stories = sample(model, AT_ONCE, 1.0, prompt, SEED + 1)
    # Kullback-Leibler divergence: how much larger, in nats, the model's log-prob of its
    # own stories is than the reference's. A mean over samples, so an estimate.
    kl = (score(model, stories, prompt) - score(reference, stories, prompt)).mean()
    row = dict(accuracy=(wins + 1) / 2, chosen=chosen, rejected=rejected, kl=kl.item())
    return row | describe(stories, tokenizer, grammar)[0]

def train_step(model, optimizer, duels, refs, prompt, step, steps):
    """One step on BATCH duels, which are chosen by the step and SEED alone."""
    epoch, n = divmod(step, -(-len(duels) // BATCH))
    rng = torch.Generator().manual_seed(SEED * 100_003 + epoch)
    batch = torch.randperm(len(duels), generator=rng)[n * BATCH :][:BATCH]  # (B,)
    for group in optimizer.param_groups:
        group["lr"] = training.get_lr(step, steps, MAX_LR, warmup=0.1)
    stories = flat(duels[i] for i in batch)
    log_probs = story_log_probs(model, stories, prompt).view(-1, 2)  # (2B,) -> (B, 2)
    loss, _ = dpo_loss(log_probs, refs[batch], BETA)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)

def train(model, reference, content, duels, prompt, run, path, tokenizer, grammar):
    """DPO from the first step to the last, or from where the same run was stopped."""
    learn, test = [d for i, d in enumerate(duels) if i % 6 < 5], duels[5::6]
    # The reference never changes, so its log-probs are computed only here: (N, 2) each.
    refs, test_refs = [score(reference, flat(part), prompt).view(-1, 2)
                       for part in (learn, test)]  # fmt: skip
    steps = EPOCHS * -(-len(learn) // BATCH)
    optimizer, step, rows = training.configure_optimizer(model), 0, []
    how = f"rm {bpe.shown(path)} && {COMMAND}"  # in case it is damaged
    state = gpt.load_checkpoint(path, how) if path.exists() else {}
    if state.get("run") == run:  # otherwise votes or settings have changed: a new run
        model.load_state_dict(state["weights"])
        optimizer.load_state_dict(state["optimizer"])
        step, rows = state["prefer_step"], state["rows"]
        print(f"[read] {path.name}: resuming after step {step}")
    print(f"[start] {steps} steps, {len(learn)} votes; {len(test)} are held out\n")
    print("  step   held-out accuracy   KL, nats   animals of 64   right of 64")
    asked = []  # Ctrl-C only sets a flag, so that the current step can finish
    handler = signal.signal(signal.SIGINT, lambda *_: asked.append("Ctrl-C"))
    for step in tqdm(range(step, steps + 1), "training", unit="step", leave=False):
        due = {round(steps * i / 8) for i in range(9)} - {row["step"] for row in rows}
        if step in due:
            rest = test, test_refs, prompt, tokenizer, grammar
            rows.append(row := {"step": step} | evaluate(model, reference, *rest))
            tqdm.write(f"{step:6}{row['accuracy']:20.0%}{row['kl']:11.1f}"
                       f"{row.get('animals', '-'):>16}{row.get('right', '-'):>14}")
        if step in due or asked:
            state = {"weights": model.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {"run": run, "prefer_step": step, "rows": rows}
            gpt.save_checkpoint(path, content | state)
        if step == steps or asked:
            break
        train_step(model, optimizer, learn, refs, prompt, step, steps)
    signal.signal(signal.SIGINT, handler)
    if step < steps:  # Ctrl-C
        why = f"Step {step} of {steps} is saved; nothing is lost."
        raise bpe.stop("\nStopped by Ctrl-C.", why, f"Resume with: {COMMAND}")
    print(f"[wrote] {bpe.shown(path)}")

# ============================================================================== 9. Show
def show(before, after, rows, who, prompt, tokenizer, grammar):
    """Sample from both models with the same seed; print a table, write the page."""
    print(f"\n[start] {SAMPLES} stories before and after, same seed, temperature 0.8\n")
    (old, texts), (new, texts_after) = [
        describe(sample(model.eval(), SAMPLES, 0.8, prompt, SEED), tokenizer, grammar)
        for model in (before, after)]  # fmt: skip
    table = [("animal hero", "animals", "stories"), ("right", "right", "stories"),
             ("right, if animal", "both", "animals")] if grammar else []  # fmt: skip
    print(f"{'':21}{'before':33}after (95% intervals)")
    for name, part, whole in table:
        print(f"  {name:16}", end="")
        for n, of in [(counts[part], counts[whole]) for counts in (old, new)]:
            low, high = evaluation.wilson(n, max(1, of))
            interval = f"{n / max(1, of):4.0%} ({low:.0%} to {high:.0%})"
            print(f"   {n:3} of {of:3} = {interval:17}", end="")
        print()
    print(f"  tokens per story   {old['tokens']:3.0f}{new['tokens']:33.0f}\n")
    pairs = list(zip(texts, texts_after))[:10]
    print(*side_by_side(pairs[0]), "", *side_by_side(pairs[1]), "", sep="\n")
    data = dict(who=who, beta=BETA, rows=rows, both=(old, new))
    if page := bpe.fill_page("prefer.html", data | {"pairs": pairs}):
        bpe.write_all({OUT / "prefer.html": page})
        print(f"[wrote] {bpe.shown(OUT / 'prefer.html')}: open it in a browser")

# ================================================================= 10. Files and checks
def write(name, made_from, items):
    bpe.write_all({OUT / name: json.dumps({"made_from": made_from, "items": items})})

def read(name, made_from, to_move):  # -> the items in a file; [] if there is no file
    """SystemExit, with a command that loses nothing, if the file cannot be used."""
    path, to_move = OUT / name, bpe.shown(to_move)
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["made_from"] != made_from:
            raise ValueError("from another model, SEED, PROMPT, or TEMPERATURE")
        if "votes" in name and not set(content["items"]) <= {0, 1, 2}:
            raise ValueError("a vote must be 1, 2, or 0 for skipped")
        return content["items"]
    except (ValueError, LookupError, TypeError) as error:
        how = ["mv", to_move, to_move + time.strftime(".%m%d-%H%M%S")]
        what = f"{bpe.shown(path)} cannot be used: {error}."
        why = "Restore what it was made with, or move it away, which loses nothing:"
        raise bpe.stop(what, why, f"{shlex.join(how)} && {COMMAND}") from None

def check_inputs():  # -> which command, GPT, checkpoint, Tokenizer, grammar or None
    limits = dict(VOTES=(LEAST, 10**5), PAIRS=(LEAST, 10**5), EPOCHS=(1, 1000))
    limits |= dict(BATCH=(1, 1000), SEED=(0, 10**9), BETA=(1e-6, 100.0))
    limits |= dict(MAX_LR=(1e-9, 0.1), TEMPERATURE=(0.01, 10.0))
    for name, (low, high) in limits.items():
        bpe.in_range(ME, name, globals()[name], type(low), low, high)
    bpe.one_of(ME, "TASTE", TASTE, ["animals", "short"])
    if sys.argv[1:] not in ([], ["vote"], ["train"], ["show"]):
        why = "The word can be vote, train, or show; without one, it trains and shows."
        raise bpe.stop(f"Unknown command: {COMMAND}", why, f"python {ME}")
    if sys.argv[1:] == ["vote"] and not (sys.stdin and sys.stdin.isatty()):
        why = "You vote by typing; here standard input is closed, or not a terminal."
        raise bpe.stop("Nobody can vote here.", why, f"In a terminal: python {ME} vote")
    tokenizer = bpe.Tokenizer.load()
    model, content = gpt.GPT.load(evaluation.MODEL, "04_train.py")
    bpe.check_tokenizer(content.get("tokenizer"), "best.pt", "python 04_train.py")
    meta = bpe.read_json(evaluation.DATA / "meta.json", "02_prepare.py", "02_prepare/2")
    grammar = evaluation.load_grammar(meta["constants"]["TEXT"])
    print(f"[read] {bpe.shown(evaluation.MODEL)}: {model.config.n_params:,} parameters")
    return "".join(sys.argv[1:]), model.eval(), content, tokenizer, grammar

def get_duels(who, pairs, texts, made_from, grammar):  # -> votes, duels
    if who == "you":
        votes = read("votes-you.json", made_from, OUT / "votes-you.json")
    elif TASTE == "animals" and not grammar:
        why = 'Only the practice stories have known animals. Set TASTE = "short", or:'
        raise bpe.stop('TASTE = "animals" cannot vote here.', why, f"python {ME} vote")
    else:
        votes = builtin_votes(texts, grammar)
        write(f"votes-{who}.json", made_from, votes)
    duels = [pair if v == 1 else pair[::-1] for v, pair in zip(votes, pairs) if v]
    print(f"[read] votes-{who}.json: {len(duels)} votes, {votes.count(0)} skips")
    if len(duels) < LEAST:
        what = f"{len(duels)} votes are too few to train: the minimum is {LEAST}."
        raise bpe.stop(what, "Vote on more pairs, or raise PAIRS.", f"python {ME} vote")
    return votes, duels

# ============================================================================= 11. Main
def main():
    what, model, content, tokenizer, grammar = check_inputs()
    prompt = [bpe.BOS, *tokenizer.encode(PROMPT)][: model.config.block_size // 2]
    made_from = [bpe.sha256_of(evaluation.MODEL), prompt, SEED, TEMPERATURE]
    pairs = get_pairs(model, prompt, made_from)
    texts = [[tokenizer.decode(ids).strip() for ids in pair] for pair in pairs]
    if what == "vote":
        return vote(texts, made_from)
    who = "you" if what and (OUT / "votes-you.json").exists() else TASTE
    votes, duels = get_duels(who, pairs, texts, made_from, grammar)
    before, path = copy.deepcopy(model), OUT / f"model-{who}.pt"
    if what != "show":
        run = [made_from, votes, BETA, EPOCHS, BATCH, MAX_LR]
        train(model, before, content, duels, prompt, run, path, tokenizer, grammar)
    if what == "train":
        return print(f"Next: python {ME} show")
    after, content = gpt.GPT.load(path, f"{ME} train")
    show(before, after, content["rows"], who, prompt, tokenizer, grammar)
    print(f"Next: python {ME} vote   (now your own taste)")

if __name__ == "__main__":
    bpe.run_stage(main, " ".join([ME, *sys.argv[1:]]))
