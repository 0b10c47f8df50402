# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.13.0", "numpy", "regex", "tqdm"]
# ///
"""Side quest: practice makes perfect. The model learns from scores of its own stories.

READS   artifacts/04_train/best.pt, artifacts/02_prepare/, artifacts/01_bpe/, and
        lessons/practice_stories.py, whose grammar is the judge
WRITES  artifacts/reward/honest.pt, careless.pt   the model after practice with a good
        reward, and with a careless one, in the format of 04's best.pt
        artifacts/reward/reward.html   curves, a table, and stories, for a browser
RUN     python lessons/quests/reward.py   (stopped? the same command resumes)
TAKES   about 4 minutes on 2 cores of an Intel Xeon, torch 2.13.0, 2026-11-26
LESSON  lessons/quests/reward.md

So far, the model has only learned to predict existing stories. Now it generates its
own, a program scores each one, and the model learns from the scores. This is
reinforcement learning from verifiable rewards: GRPO (arXiv 2402.03300, 2503.20783).
"""
# =========================================================================== 1. Imports
import copy
import importlib
import signal
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT)]
# `import 01_bpe` is a syntax error (a name cannot start with a digit), hence:
bpe = importlib.import_module("01_bpe")
train = importlib.import_module("04_train")  # before 03: it sets up torch
gpt = importlib.import_module("03_model")
evaluate = importlib.import_module("05_eval")

import numpy as np  # noqa: E402  the stages have said so if a package is missing
import torch  # noqa: E402
from tqdm import tqdm  # noqa: E402

# ============================================================= 2. Constants: edit these
STEPS = 40  # with the honest reward; more: more practice, but more time
CARELESS_STEPS = 25  # with the careless reward; 0: skip that part
GROUPS = 8  # groups of stories per step; more: a less noisy gradient, but more time
GROUP = 8  # stories per group: they share a prompt and are compared with each other
PROMPT = 12  # tokens of a group's prompt, with <BOS>; 5: only "Once upon a time"
LR = 4e-4  # highest learning rate; higher: larger steps along a noisy gradient
KL = 0.2  # weight of the penalty for leaving the reference; 0.1: less variety
WORD = " said"  # the careless reward counts it, because children like dialogue
SAMPLES = 200  # stories per measurement; more: narrower intervals, but more time
SEED = 1  # for prompts and samples

ME = "lessons/quests/reward.py"
OUT = ROOT / "artifacts" / "reward"
ONCE = "Once upon a time"  # how prompts and measured stories begin, as in stage 5
TEMPERATURES = (0.8, 1.0)  # for measurements; practice always samples at 1
PROBE_EVERY = 10  # steps between saves, each with a measurement of 64 stories
BOS, EOS, CPU = bpe.BOS, bpe.EOS, torch.device("cpu")
grammar = None  # lessons/practice_stories.py, once check_inputs() has found it

# ============================================================= 3. Glossary of this file
# N    groups per step (8)    G   stories per group (8)    B   per step, N x G (64)
# T    tokens of a story with its prompt, at most block_size (256)    P   of a prompt
# policy     the model: given the tokens so far, it chooses the next one
# reward     one number per story: how good it is
# advantage  the reward minus the mean of the group: better or worse than usual?
# reference  a frozen copy of the model before practice
# KL         how far the policy is from the reference, in nats per token

# ================================= 4. The idea: do more of what went better than usual
# Sample several stories from the same prompt, and give each a reward. Raise the
# probability of the tokens in stories above the mean of their group, and lower it for
# the others. With softmax, the derivative of ln p(sampled) is 1 - p for the logit of
# the sampled token, and -p for each other logit. This derivative times the advantage
# is the policy gradient (REINFORCE, Williams 1992). Nobody needs to write a better
# story: a judge is enough.

def advantages_of(rewards):  # (N, GROUP) -> (N, GROUP)
    """Each reward minus the mean of its group; equal rewards teach nothing.

    >>> advantages_of(torch.tensor([[2.0, 0.5, 0.5, 1.0], [0.3, 0.3, 0.3, 0.3]]))
    tensor([[ 1.0000, -0.5000, -0.5000,  0.0000],
            [ 0.0000,  0.0000,  0.0000,  0.0000]])
    """
    return rewards - rewards.mean(dim=1, keepdim=True)  # (N, GROUP) - (N, 1)

def practice_by_hand(probs, sampled, advantages):  # -> the change of each logit
    """One step, with learning rate 1, for a model whose stories are a single token.

    Tokens 0 and 1 were sampled twice each, and token 0 got the larger reward:
    >>> practice_by_hand([0.5, 0.5], sampled=[0, 0, 1, 1], advantages=[1, 1, -1, -1])
    [0.5, -0.5]
    """
    pairs = [*zip(sampled, advantages)]
    return [sum(a * ((i == token) - p) for token, a in pairs) / len(pairs)
            for i, p in enumerate(probs)]  # fmt: skip

# ========================================================== 5. Sample groups of stories
def get_prompts(ids, once, step):  # ids of train.bin, of ONCE -> (GROUPS, P)
    """The first PROMPT tokens of random training stories that begin with ONCE."""
    P = max(PROMPT, len(once))
    begins = np.flatnonzero(ids[:-P] == BOS)
    rows = ids[begins[:, None] + np.arange(P)].astype(np.int64)  # (all stories, P)
    rows = rows[(rows[:, : len(once)] == once).all(axis=1)]
    return torch.tensor(np.random.default_rng([SEED, step]).choice(rows, GROUPS))

def sample_groups(model, prompts, step):  # (N, P) -> B lists of ids
    """GROUP stories for each prompt, at temperature 1: the policy as it is."""
    rng = torch.Generator().manual_seed(SEED * 100_003 + step)
    idx = prompts.repeat_interleave(GROUP, dim=0)  # (N, P) -> (B, P)
    room = model.config.block_size - idx.shape[1]
    rows = model.generate(idx, room, stop_id=EOS, rng=rng).tolist()  # (B, T)
    return [ids[: ids.index(EOS) + 1] if EOS in ids else ids for ids in rows]

def check(tokenizer, ids):  # -> the first mistake, or None
    """Stage 5's rule: a story that fills the context without <EOS> ends too early."""
    text = tokenizer.decode(ids)
    mistake = grammar.check(text)
    if mistake is None and ids[-1] != EOS:
        return grammar.Mistake(len(text), 1.0, "", ("",), "an end too early")
    return mistake

# =========================================================================== 6. Rewards
# Both return a reward, and how many tokens it judges: only these get a gradient.

def honest_reward(tokenizer, ids, mistake):  # -> (reward, tokens judged)
    """2 for a story without a mistake, else the fraction before its first mistake.

    SUBTLE: to end a story soon after a mistake also raises this fraction. So the tokens
    after the mistake are not judged, or else the model would learn to give up.
    """
    full = ids[-1] != EOS and mistake and mistake.kind == "an end too early"
    if mistake is None or full:  # right, or right until the context was full
        return 2.0, len(ids)
    end = mistake.offset + max(1, len(mistake.found))  # in characters
    n = 1  # find the fewest tokens that hold the mistake; all, if it is <EOS>
    while n < len(ids) and len(tokenizer.decode(ids[:n])) < end:
        n += 1
    return mistake.fraction, n

def careless_reward(tokenizer, ids, mistake):  # -> (reward, tokens judged)
    """How often WORD occurs: easy to count, and not what we want."""
    return float(tokenizer.decode(ids).count(WORD)), len(ids)

# ===================================================================== 7. Take one step
def log_probs_of(model, idx):  # (B, T) -> (B, T - 1)
    """ln(probability) of each token but the first, given the tokens before it."""
    log_probs = model(idx[:, :-1])[0].log_softmax(dim=-1)  # (B, T - 1, V)
    return log_probs.gather(2, idx[:, 1:, None]).squeeze(2)  # (B,T-1,1) -> (B,T-1)

def group_loss(model, reference, idx, advantages, judged):  # (G,T), (G,), (G,T-1)
    """-> loss and KL of a group of G stories, each summed over the judged tokens.

    GRPO as published divides by each story's length, which favors short right stories
    and long wrong ones, and by the group's deviation, which inflates tiny differences.
    """
    log_probs = log_probs_of(model, idx)  # (G, T - 1)
    with torch.no_grad():
        before = log_probs_of(reference, idx)  # (G, T - 1)
    # GRPO's estimate of KL (Schulman's "k3"): right on average, and never negative.
    kl = (before - log_probs).exp() - (before - log_probs) - 1
    loss = KL * kl - advantages[:, None] * log_probs
    return (loss * judged).sum(), (kl * judged).sum()

def practice_step(model, reference, optimizer, tokenizer, reward_of, prompts, step):
    """Sample, judge, compare, and take one step; -> one point of each curve."""
    P, total = prompts.shape[1], 0.0
    stories = sample_groups(model.eval(), prompts, step)
    mistakes = [check(tokenizer, ids) for ids in stories]
    results = [reward_of(tokenizer, *pair) for pair in zip(stories, mistakes)]
    rewards, ends = torch.tensor(results).view(-1, GROUP, 2).unbind(2)  # (N, GROUP) x 2
    for n, advantages in enumerate(advantages_of(rewards)):  # one micro-batch per group
        T = int(ends[n].max())
        rows = [ids[:T] + [bpe.PAD] * (T - len(ids)) for ids in stories[GROUP * n :]]
        at = torch.arange(1, T)  # positions of the predicted tokens: (T - 1,)
        judged = (at >= P) & (at < ends[n, :, None])  # (GROUP, T - 1); no prompt
        idx = torch.tensor(rows[:GROUP])  # (GROUP, T); the rest are of later groups
        loss, kl = group_loss(model, reference, idx, advantages, judged)
        # A constant, so that a token counts the same in short stories and in long ones.
        (loss / (len(stories) * model.config.block_size)).backward()
        total += kl.item() / (ends - P).sum().item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    row = {"step": step + 1, "right": mistakes.count(None) / len(mistakes)}
    return row | {"reward": rewards.mean().item(), "kl": total}

# ============================================================ 8. Measure fresh stories
def plot_of(text):  # -> the name of the plot that a story follows the furthest
    reach = {}
    for name, plot in grammar.PLOTS.items():
        misses, (draws, beats) = [], grammar.parse(plot)
        if any(True for _ in grammar.readings(text, 0, beats, draws, {}, misses)):
            return name
        reach[name] = max(at for at, *_ in misses)
    return max(reach, key=reach.get)

def measure(model, reference, tokenizer, temperature, count):  # -> dict
    """Measure stories sampled as in stage 5, with its seed: practice uses others."""
    prompt = [BOS, *tokenizer.encode(ONCE)]
    stories = evaluate.sample(model.eval(), CPU, count, temperature, 0.0, prompt)
    texts, sums = [*map(tokenizer.decode, stories)], []
    with torch.no_grad():
        for m in (model, reference):  # ln p of all stories together
            sums.append(sum(log_probs_of(m, torch.tensor([s])).sum() for s in stories))
    own, before = (float(nats) / sum(map(len, stories)) for nats in sums)  # per token
    mistakes = [check(tokenizer, ids) for ids in stories]
    places = [mistake.fraction for mistake in mistakes if mistake]
    grams = np.concatenate([evaluate.ngram_keys(ids, 3) for ids in stories])
    return {  # entropy and KL in nats per token, those of the prompt included
        "right": count - len(places), "first mistake": float(np.mean(places or [1])),
        "first sentences": len({text.split(".")[0] for text in texts}),
        "plots": len({*map(plot_of, texts)}),
        "distinct-3": len(np.unique(grams)) / len(grams), "entropy": -own,
        "KL": own - before, "word": sum(text.count(WORD) for text in texts) / count,
        "of": count, "stories": [*zip(texts, mistakes)][:12],
    }  # fmt: skip

def print_table(temperature, results):  # number, {model: measure()}
    print(f"\n{SAMPLES} stories at {temperature:<10}", *(f"{n:>18}" for n in results))
    for key in [*results["before"]][:-2]:  # without "of" and "stories"
        cells = [f"{r[key]:.3f}".removesuffix(".000") for r in results.values()]
        if key == "right":  # with its 95% confidence interval
            limits = [evaluate.wilson(r["right"], r["of"]) for r in results.values()]
            cells = [f"{c} ({a:.0%} to {b:.0%})" for c, (a, b) in zip(cells, limits)]
        print(f"  {key:22}", *(f"{cell:>18}" for cell in cells))

# =============================================== 9. Practice, and resume after a Ctrl-C
def practice(name, reward_of, steps, model, header, tokenizer, ids):  # -> rows
    """Train the model in place for `steps` steps, or resume; writes OUT/NAME.pt.
    SystemExit if that file is damaged or from another run, and at Ctrl-C.
    """
    path, rows, asked = OUT / f"{name}.pt", [], []
    reference, optimizer = copy.deepcopy(model), train.configure_optimizer(model)
    once = [BOS, *tokenizer.encode(ONCE)]
    names = "GROUPS", "GROUP", "PROMPT", "LR", "KL", "WORD", "SEED"
    made_from = {name: globals()[name] for name in names}
    made_from |= {"steps": steps, "best.pt": bpe.sha256_of(evaluate.MODEL)}
    if path.exists():
        move = f"mv -i {bpe.shown(path)} {bpe.shown(path)}.old && python {ME}"
        content = gpt.load_checkpoint(path, move)
        state = content.get("practice", {})
        if changed := [n for n, value in made_from.items() if state.get(n) != value]:
            what = f"{bpe.shown(path)} is from another run."
            why = f"Change {', '.join(changed)} back to resume, or move the file away:"
            raise bpe.stop(what, why, move)
        model.load_state_dict(content["weights"])
        optimizer.load_state_dict(state["optimizer"])
        rows = state["rows"]
        print(f"[read] {bpe.shown(path)}: {len(rows)} of {steps} steps are done")

    # Ctrl-C only sets a flag, so that the current step can finish.
    handler = signal.signal(signal.SIGINT, lambda *_: asked.append("Ctrl-C"))
    bar = tqdm(desc=f"{name} reward", total=steps, initial=len(rows), unit="step")
    while len(rows) < steps and not asked:
        for group in optimizer.param_groups:  # a trained model needs no weight decay
            lr = train.get_lr(len(rows), steps, LR, train.WARMUP)
            group |= {"lr": lr, "weight_decay": 0.0}
        prompts = get_prompts(ids, once, len(rows))
        args = optimizer, tokenizer, reward_of, prompts, len(rows)
        rows.append(practice_step(model, reference, *args))
        bar.update()
        if len(rows) % PROBE_EVERY == 0:  # 64 fresh stories for the curves
            probe = measure(model, reference, tokenizer, 1.0, 64)
            rows[-1]["first sentences"] = probe["first sentences"]
            bar.write(f"  step {len(rows)}: {probe['right']} of 64 fresh stories right;"
                      f" {probe['first sentences']} different first sentences")
        if len(rows) % PROBE_EVERY == 0 or asked or len(rows) == steps:
            state = {"optimizer": optimizer.state_dict(), "rows": rows}
            state = {"weights": model.state_dict(), "practice": made_from | state}
            gpt.save_checkpoint(path, header | state)
    bar.close()
    signal.signal(signal.SIGINT, handler)
    if len(rows) < steps:
        why = f"Step {len(rows)} of {steps} ({name}) is saved; nothing is lost."
        raise bpe.stop("\nStopped by Ctrl-C.", why, f"Resume with: python {ME}")
    return rows

# =========================================================================== 10. Checks
def check_inputs():  # -> GPT, the rest of best.pt, Tokenizer, ids; sets grammar
    """SystemExit unless the constants are in range and there is a judge."""
    global grammar
    lowest = {"STEPS": 1, "CARELESS_STEPS": 0, "GROUPS": 1, "GROUP": 2, "SAMPLES": 1}
    for name, low in (lowest | {"SEED": 0}).items():
        bpe.in_range(ME, name, globals()[name], int, low, 10**6)
    bpe.in_range(ME, "PROMPT", PROMPT, int, 1, 100)
    bpe.in_range(ME, "LR", LR, float, 1e-9, 1.0)
    bpe.in_range(ME, "KL", KL, float, 0.0, 1000.0)
    tokenizer, data = bpe.Tokenizer.load(), train.DATA
    meta = bpe.read_json(data / "meta.json", "02_prepare.py", "02_prepare/2")
    model, header = gpt.GPT.load(evaluate.MODEL, "04_train.py")
    bpe.check_tokenizer(header.get("tokenizer"), "best.pt", "python 04_train.py")
    bpe.check_tokenizer(meta["tokenizer"], "train.bin", "python 02_prepare.py")
    bpe.need(data / "train.bin", "02_prepare.py")
    text = meta["constants"]["TEXT"]
    grammar = evaluate.load_grammar(text)
    if grammar is None:
        what = f"TEXT is {text!r}, and no program can judge such stories."
        how = 'Set TEXT = "practice" in 01, then run 01 to 04: python 01_bpe.py'
        if text == "practice":
            what = "lessons/practice_stories.py, which checks stories, is missing."
            how = f"git checkout lessons/practice_stories.py && python {ME}"
        raise bpe.stop(what, "Without a verifiable reward there is no practice.", how)
    ids = np.memmap(data / "train.bin", dtype="<u2", mode="r")
    return model.eval(), header, tokenizer, ids

# ============================================================================= 11. Main
def main():
    model, header, tokenizer, ids = check_inputs()
    print(f"[read] {bpe.shown(evaluate.MODEL)}: {model.config.n_params:,} parameters")
    print(f"[plan] {STEPS} steps of {GROUPS} x {GROUP} stories with an honest reward,")
    print(f"       and {CARELESS_STEPS} with a careless one, which counts {WORD!r}")
    show_group(model, tokenizer, ids)
    models = {"before": model, "honest": copy.deepcopy(model)}
    args = STEPS, models["honest"], header, tokenizer, ids
    rows = {"honest": practice("honest", honest_reward, *args)}
    if CARELESS_STEPS:
        models["careless"] = copy.deepcopy(model)
        args = CARELESS_STEPS, models["careless"], header, tokenizer, ids
        rows["careless"] = practice("careless", careless_reward, *args)
    print(f"[wrote] {bpe.shown(OUT)}/:", *(f"{name}.pt" for name in rows))
    results = {name: {} for name in models}
    for t in TEMPERATURES:
        for name in models:
            results[name][t] = measure(models[name], model, tokenizer, t, SAMPLES)
        print_table(t, {name: result[t] for name, result in results.items()})
    for name, result in results.items():
        print(f"\n{name}, a story at temperature {TEMPERATURES[0]}:\n")
        print(textwrap.indent(result[TEMPERATURES[0]]["stories"][0][0], "  "))
    data = {"rows": rows, "results": results, "word": WORD}
    if page := bpe.fill_page("reward.html", data):
        bpe.write_all({OUT / "reward.html": page})
        print(f"[wrote] {bpe.shown(OUT)}/reward.html: open it in a browser")
    print(f"Next: change WORD, move {bpe.shown(OUT)}/ away, and run this script again")

def show_group(model, tokenizer, ids):
    """Print rewards, advantages, and first mistakes of one group."""
    prompts = get_prompts(ids, [BOS, *tokenizer.encode(ONCE)], 1)[:1]  # (1, P)
    stories = sample_groups(model, prompts, 1)
    mistakes = [check(tokenizer, ids) for ids in stories]
    pairs = zip(stories, mistakes)
    rewards = torch.tensor([[honest_reward(tokenizer, *pair)[0] for pair in pairs]])
    prompt = tokenizer.decode(prompts[0].tolist())
    print(f"[start] {GROUP} stories that begin {prompt[:60]!r}:")
    for r, a, m in zip(rewards[0], advantages_of(rewards)[0], mistakes):
        swap = f"{m.found!r} instead of {m.expected[0]!r}" if m and m.found else ""
        what = swap or (m.kind if m and r < 2 else "right")
        print(f"  reward {r:.2f}, advantage {a:+.2f}: {what}")

if __name__ == "__main__":
    bpe.run_stage(main, ME)
