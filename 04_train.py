# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.13.0", "numpy", "regex", "tqdm"]
# ///
"""Stage 4 of 6: train the model that stage 3 built on the tokens that stage 2 wrote.

    text --> 01_bpe --> 02_prepare --> 03_model --> [04_train] --> 05_eval --> 06_sample
                                                     you are here

READS   artifacts/02_prepare/ (train.bin, valid.bin, meta.json),
        artifacts/03_model/model.pt and, to speak, artifacts/01_bpe/tokenizer.json
WRITES  artifacts/04_train/: best.pt, the weights with the lowest validation loss;
        last.pt, all it takes to go on; log.csv and run.html, the course of the run
RUN     python 04_train.py   (stopped? the same command goes on)
        torchrun --nproc-per-node 2 04_train.py   the same in two processes
TAKES   about 3 minutes on 2 cores of an AMD EPYC (Zen 4), torch 2.13.0, 2026-11-25
LESSON  lessons/06_training.md
"""

# ======================================================================= 2. IMPORTS
import functools
import importlib
import math
import statistics
import sys
import time
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE / "lessons"))
import forecast  # lessons/forecast.py: what a run will take
import machine  # lessons/machine.py: devices, memory, checkpoints
import team  # lessons/team.py: several processes as one; alone, it does nothing
from plumbing import ctrl_c_noted, fill_page, in_range, need, one_of, read_json
from plumbing import run_stage, same_tokenizer, sha256_of, shown, stop, write_whole

# `import 03_model` is a syntax error, because a name cannot begin with a digit; this
# says the same. We take the classes Tokenizer and GPT from there: one copy of each, so
# that an edit of stage 3 is an edit everywhere.
bpe = importlib.import_module("01_bpe")
gpt = importlib.import_module("03_model")

# ===================================================================== 3. CONSTANTS
# -- how long; "auto" is looked up in PRESETS, here and below
TOKENS = "auto"  # tokens to train on; twice as many: twice the time, a better model
# -- how large a step
MICRO_BATCH = "auto"  # texts at once; out of memory? halve this ...
ACCUMULATE = "auto"  # ... and double this: passes per step; the result stays the same
MAX_LR = "auto"  # highest learning rate; ten times more: it learns next to nothing
WARMUP = 0.05  # share of the steps in which the rate rises from 0 to MAX_LR
# -- against learning by heart
DROPOUT = 0.0  # share of the numbers blanked out; try 0.1 when the text is read often
WEIGHT_DECAY = 0.1  # pull of every matrix towards zero
# -- how to run
PRECISION = "float32"  # or "bfloat16": half the bits; faster on some machines only
COMPILE = False  # True: torch.compile; slow start, faster steps on NVIDIA
CHECKPOINTING = False  # True: less memory, a third more time
DEVICE = "auto"  # "mps", "cuda" or "cpu"; "auto" times a few steps on each there is
SEED = 1  # of the order of the stories and of dropout
START_FROM = None  # path of another run's best.pt to go on from (fine-tuning)

PRESETS = [  # parameters up to, TOKENS, texts per step, MAX_LR
    (3_000_000, 5_000_000, 4, 6e-3),
    (20_000_000, 40_000_000, 32, 1.5e-3),
    (50_000_000, 100_000_000, 32, 8e-4),
    (math.inf, 100_000_000, 64, 5e-4),
]
RECIPES = [  # GB of memory up to, largest MICRO_BATCH, passes per step if it has texts
    (12, 8, 4), (24, 16, 2), (48, 32, 2), (math.inf, 32, 1),
]  # fmt: skip
EVALUATIONS = 10  # how often per run to measure, speak and save
SAVE_MINUTES = 5  # save at least this often
DATA = HERE / "artifacts" / "02_prepare"
MODEL = HERE / "artifacts" / "03_model" / "model.pt"
OUT = HERE / "artifacts" / "04_train"
FORMAT = "04_train/1"  # changes when the checkpoints change their form

# ========================================================================= 4. WORDS
# B, T    texts at once (MICRO_BATCH), tokens of each (the model's context)
# step    one change of the weights, after ACCUMULATE passes over B x T tokens each
# loss    mean of -log(probability of the right next token), in nats; ln V at first
# lr      learning rate: how far a step goes
# norm    length of the gradient, all weights taken as one vector

# ====================================================================== 5. THE IDEA
# Ask the model for the next token, everywhere at once; measure how surprised it was
# (the loss); ask backward() in which direction each weight makes it less surprised (the
# gradient, downhill); go a little way in it; repeat. For one weight w and the loss
# (w - 3)**2, which is lowest at 3:


def descend(w=0.0, lr=0.1, steps=25):
    """
    >>> round(descend(steps=1), 3), round(descend(steps=25), 3)
    (0.6, 2.989)
    """
    for _ in range(steps):
        gradient = 2 * (w - 3)
        w -= lr * gradient
    return w


# ======================================================================== 6. PIECES
# ---- data


class Batches:
    """Batches of texts from a file of tokens, in an order that the seed fixes.

    Every text begins at a story's <BOS>, because that is how we shall use the model; it
    runs on over the next stories until it has T + 1 tokens. Each story begins a text
    once before any begins one again. Batch n depends on n and the seed alone, so a run
    that goes on after a stop needs no memory of what it has read. The i-th of k
    processes (share = i, k) takes batches i, k + i, 2 k + i ... of those of one alone.
    """

    def __init__(self, path, context, seed, share=(0, 1)):
        need(path, "02_prepare.py")
        self.ids, self.share = np.memmap(path, dtype="<u2", mode="r"), share
        # (N,) places of <BOS> (id 2) at which T + 1 tokens are left
        blocks = range(0, len(self.ids), 2**24)  # so that memory holds one at a time
        found = (np.flatnonzero(self.ids[i : i + 2**24] == 2) + i for i in blocks)
        self.starts = np.concatenate([*found])
        self.starts = self.starts[self.starts < len(self.ids) - context]
        self.context, self.seed = context, seed
        self.epoch, self.order = None, None

    def batch(self, n, size):  # -> (B, T) inputs, (B, T) targets: one token later
        rows, (i, k) = [], self.share
        n = n * k + i
        for place in range(n * size, (n + 1) * size):
            epoch, i = divmod(place, len(self.starts))
            if epoch != self.epoch:  # a new pass over the stories, a new order
                shuffle = torch.Generator().manual_seed(self.seed * 100_003 + epoch)
                self.order = torch.randperm(len(self.starts), generator=shuffle).numpy()
                self.epoch = epoch
            start = self.starts[self.order[i]]
            rows.append(self.ids[start : start + self.context + 1])
        rows = torch.from_numpy(np.stack(rows).astype(np.int64))  # (B, T + 1)
        # SUBTLE: the target of token t is token t + 1; unshifted, the model would learn
        # to repeat what it sees, with a loss near 0 and nothing learnt.
        return rows[:, :-1], rows[:, 1:]


# ---- the step


def learning_rate(step, steps, max_lr, warmup):  # -> rate of this step, from 0
    """Up in a straight line, down to a tenth in half a cosine (arXiv 1608.03983).

    >>> [round(learning_rate(s, 100, 1.0, 0.1), 2) for s in (0, 9, 54, 99)]
    [0.1, 1.0, 0.57, 0.1]
    """
    rising = max(1, round(warmup * steps))
    if step < rising:
        return max_lr * (step + 1) / rising
    done = (step - rising) / max(1, steps - rising)  # 0 to 1
    return max_lr * (0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2)


def make_optimizer(model):
    """AdamW (arXiv 1711.05101); only matrices decay: a norm's scale has its value for a
    reason, and pulling it to zero would only weaken the layer after it.
    """
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2]},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    # fused: one kernel for all weights instead of several per weight.
    return torch.optim.AdamW(
        groups, lr=0.0, betas=(0.9, 0.99), weight_decay=WEIGHT_DECAY, fused=True
    )


@machine.faster_products()  # a faster library of products, on some CPUs
def train_step(model, optimizer, batches, step, plan, device):
    """One step; returns loss and gradient norm as tensors (reading them would wait)."""
    rate = learning_rate(step, plan["steps"], plan["max_lr"], WARMUP)
    for group in optimizer.param_groups:
        group["lr"] = rate
    total = 0.0
    for micro in range(plan["accumulate"]):
        n = step * plan["accumulate"] + micro
        x, y = (t.to(device) for t in batches.batch(n, plan["micro_batch"]))
        with precision(device):
            # Divided, so that ACCUMULATE passes add up to the mean of one large batch.
            loss = model.loss(x, y) / plan["accumulate"]
        loss.backward()
        total = total + loss.detach()
    # A gradient longer than 1 is cut to length 1: one odd batch moves nothing far.
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total, norm


def precision(device):
    """The context in which forward runs: bfloat16 where it is safe, if so wished."""
    return torch.autocast(device.type, torch.bfloat16, PRECISION == "bfloat16")


@torch.no_grad()
def validation_loss(model, batches, device, texts=64):  # -> mean loss in nats
    """Loss on the same texts of valid.bin each time; stage 5 takes all of them."""
    model.eval()
    size = min(16, len(batches.starts))
    count = max(1, min(texts, len(batches.starts)) // size)
    with precision(device):
        pairs = (batches.batch(n, size) for n in range(count))
        losses = [model.loss(x.to(device), y.to(device)) for x, y in pairs]
    model.train()
    return torch.stack(losses).mean().item()


@torch.no_grad()
def speak(model, tokenizer, prompt, device, temperature=0.8):
    """The story it tells now; always the same prompt and dice. See stage 6."""
    model.eval()
    dice = torch.Generator().manual_seed(SEED)
    ids, cache = [tokenizer.bos, *tokenizer.encode(prompt)], model.new_cache()
    new = ids
    while len(ids) < model.config["context"] and ids[-1] != tokenizer.eos:
        logits = model(torch.tensor([new], device=device), cache)[0, -1].float().cpu()
        chances = (logits / temperature).softmax(dim=0)
        new = [torch.multinomial(chances, 1, generator=dice).item()]
        ids = ids + new
    model.train()
    return tokenizer.decode(ids)


# ---- the record: what a run leaves behind, and how it goes on


class Run:
    """One training run: the loop, and what it leaves behind at every step."""

    def __init__(self, model, tokenizer, valid, plan, identity, device):
        self.model, self.tokenizer, self.valid = model, tokenizer, valid
        self.plan, self.device = plan, device
        self.optimizer = make_optimizer(model)
        self.step, self.rows, self.pending = 0, [], []
        self.best, self.is_best = math.inf, False
        self.about = {"format": FORMAT, "config": model.config, "identity": identity}
        self.about["tokenizer"] = sha256_of(bpe.OUT / "tokenizer.json")
        self.prompt = " ".join(tokenizer.decode(valid.ids[1:40].tolist()).split()[:4])

    def train(self, batches, last):
        """Step, look, save; raises SystemExit if the loss explodes or at Ctrl-C."""
        torch.manual_seed(SEED + team.rank())
        self.model.train()
        if COMPILE:
            machine.compile_loss(self.model, *self.valid.batch(0, 2), self.device)
        team.share_gradients(self.model)
        if last:
            self.restore(last)
        steps = self.plan["steps"]
        look_every = max(1, steps // 200)
        evaluate_at = {round(steps * (i + 1) / EVALUATIONS) for i in range(EVALUATIONS)}
        print(f"[start] at each evaluation it goes on from {self.prompt!r}")
        bar = tqdm(desc="training", total=steps, initial=self.step, unit="step",
                   disable=team.rank() > 0)  # fmt: skip
        self.since, saved = (time.perf_counter(), self.step), time.perf_counter()
        with bar, ctrl_c_noted() as asked:
            while self.step < steps:
                done = train_step(self.model, self.optimizer, batches, self.step,
                                  self.plan, self.device)  # fmt: skip
                self.pending.append(done)
                self.step += 1
                bar.update()
                evaluating = self.step in evaluate_at
                if evaluating or self.step % look_every == 0:
                    bar.set_postfix(loss=f"{self.look():.3f}")
                if evaluating and team.rank() == 0:
                    bar.clear()
                    self.evaluate()
                late = time.perf_counter() - saved > 60 * SAVE_MINUTES
                late, stopping = team.anyone(late, asked)
                if evaluating or late or stopping:
                    self.save()
                    saved = time.perf_counter()
                    self.since = saved, self.step
                if stopping:
                    why = f"Step {self.step:,} of {steps:,} is saved; nothing is lost."
                    how = f"Go on: {team.command('04_train.py')}"
                    raise stop("\nStopped by Ctrl-C.", why, how)
        speed = statistics.median(row["tokens_per_s"] for row in self.rows)
        print(f"[check] lowest validation loss {self.best:.3f}; {speed:,.0f} tokens a")
        print(f"        second; {machine.most_megabytes(self.device):,.0f} MB at most")
        print(f"[wrote] {shown(OUT)}/: best.pt last.pt log.csv run.html")

    def restore(self, last):
        """Put everything back as save() found it: the run does not notice the stop."""
        self.model.load_state_dict(last["weights"])
        self.optimizer.load_state_dict(last["optimizer"])
        machine.set_rng_state(last["rng"][team.rank()], self.device)
        self.step, self.rows, self.best = last["step"], last["rows"], last["best"]
        pending = last["pending"][team.rank()].to(self.device)
        self.pending = [tuple(pair) for pair in pending]
        print(f"[read] {shown(OUT / 'last.pt')}: going on after step {self.step:,}")
        last.clear()  # twelve bytes per parameter that nobody needs any more

    def look(self):  # -> mean loss since the last look
        """Read the losses of the last steps: only here do we wait for the GPU."""
        pairs = torch.stack([torch.stack(pair) for pair in self.pending])  # (steps, 2)
        losses, norms = team.mean(pairs).T.tolist()
        loss, norm, self.pending = sum(losses) / len(losses), max(norms), []
        if not (math.isfinite(loss) and math.isfinite(norm)):
            why = f"Loss {loss}, gradient {norm}; what {shown(OUT)} holds is good."
            how = f"Halve MAX_LR (now {self.plan['max_lr']:g}): python 04_train.py"
            raise stop(f"The training exploded by step {self.step:,}.", why, how)
        per_step, (then, step) = self.plan["tokens_per_step"], self.since
        self.since = time.perf_counter(), self.step
        row = {"step": self.step, "tokens": self.step * per_step, "train_loss": loss}
        row |= {"grad_norm": norm, "lr": self.optimizer.param_groups[0]["lr"]}
        row["tokens_per_s"] = (self.step - step) * per_step / (self.since[0] - then)
        self.rows.append(row | {"valid_loss": ""})
        return loss

    def evaluate(self):
        """Measure, speak, and keep the weights if they are the best so far."""
        row = self.rows[-1]
        row["valid_loss"] = loss = validation_loss(self.model, self.valid, self.device)
        row["story"] = speak(self.model, self.tokenizer, self.prompt, self.device)
        print(
            f"\nstep {self.step:,} of {self.plan['steps']:,}: training loss"
            f" {row['train_loss']:.3f}, validation loss {loss:.3f}"
            f" (perplexity {math.exp(loss):.1f}). It says:"
        )
        print("  " + row["story"].replace("\n", "\n  ") + "\n", flush=True)
        self.is_best, self.best = loss < self.best, min(loss, self.best)

    def save(self):
        """All that is needed to go on, and what people look at. If there is no room,
        the training goes on all the same, and the next save tries again.
        """
        about = self.about | {"step": self.step, "weights": self.model.state_dict()}
        state = about | {"rows": self.rows, "best": self.best}
        state["optimizer"] = self.optimizer.state_dict()
        state["pending"] = team.gather(torch.tensor(self.pending).reshape(-1, 2))
        state["rng"] = team.gather(machine.rng_state(self.device))
        if team.rank() > 0:
            return
        # log.csv holds no times, so that equal runs leave equal files.
        names = ["step", "tokens", "lr", "train_loss", "grad_norm", "valid_loss"]
        lines = [names] + [[str(row[name]) for name in names] for row in self.rows]
        text = "".join(",".join(line) + "\n" for line in lines)
        data = {"rows": self.rows, "plan": self.plan, "prompt": self.prompt}
        try:
            if self.is_best:
                machine.save_checkpoint(OUT / "best.pt", about | {"loss": self.best})
            machine.save_checkpoint(OUT / "last.pt", state)
            write_whole(OUT / "log.csv", text.encode())
            fill_page("run.html", data, OUT / "run.html")
        except OSError as error:
            tqdm.write(f"[note] not saved ({error}); the training goes on")


# ======================================================================== 7. CHECKS
def check_constants():
    """Raise SystemExit, naming the constant and its range, unless all can be used."""
    me = "04_train.py"
    for name, kind, low, high in [
        ("TOKENS", int, 1, 10**13), ("MICRO_BATCH", int, 1, 4096),
        ("ACCUMULATE", int, 1, 4096), ("MAX_LR", float, 1e-7, 10.0),
        ("WARMUP", float, 0.0, 0.9), ("DROPOUT", float, 0.0, 0.9),
        ("WEIGHT_DECAY", float, 0.0, 10.0), ("SEED", int, 0, 2**31),
        ("EVALUATIONS", int, 1, 10_000), ("SAVE_MINUTES", float, 0.0, 10_000),
    ]:  # fmt: skip
        if globals()[name] != "auto":
            in_range(me, name, globals()[name], kind, low, high)
    one_of(me, "PRECISION", PRECISION, ["float32", "bfloat16"])
    one_of(me, "COMPILE", COMPILE, [False, True])
    one_of(me, "CHECKPOINTING", CHECKPOINTING, [False, True])
    one_of(me, "DEVICE", DEVICE, ["auto", *(d.type for d in machine.devices())])


def check_inputs():
    """-> (model, tokenizer, Batches to learn, to test, fingerprints), or SystemExit."""
    tokenizer = bpe.Tokenizer.load()
    meta = read_json(DATA / "meta.json", "02_prepare.py", "02_prepare/2")
    path = HERE / START_FROM if START_FROM else MODEL
    writer = "04_train.py" if START_FROM else "03_model.py"
    model, content = gpt.GPT.load(path, writer, DROPOUT)
    model.checkpointing = CHECKPOINTING
    same_tokenizer(bpe.OUT, meta["tokenizer"], "train.bin", "python 02_prepare.py")
    same_tokenizer(bpe.OUT, content["tokenizer"], path.name, f"python {writer}")
    T, share = model.config["context"], (team.rank(), team.size())
    batches = Batches(DATA / "train.bin", T, SEED, share)
    valid = Batches(DATA / "valid.bin", T, 0)
    forecast.check_tokens("train.bin", batches, meta["train"]["tokens"], model.config)
    forecast.check_tokens("valid.bin", valid, meta["valid"]["tokens"], model.config)
    first = sha256(b"".join(w.numpy().tobytes() for w in model.state_dict().values()))
    inputs = {"model": first.hexdigest(), "03_model.py": sha256_of(Path(gpt.__file__))}
    return model, tokenizer, batches, valid, inputs | {"data": meta["train"]["sha256"]}


# ========================================================================== 8. MAIN
def preset(size):
    """Number of parameters -> (TOKENS, texts per step, MAX_LR)."""
    return next(row[1:] for row in PRESETS if size <= row[0])


def recipe(texts, memory):  # texts per step, GB -> texts at once, passes
    """Split a step as the machine's memory allows; the result does not depend on it."""
    _, most, passes = next(row for row in RECIPES if memory <= row[0])
    at_once = min(texts, most, max(4, texts // passes))
    return at_once, max(1, texts // at_once)


def make_plan(model):
    """The constants, with "auto" replaced; prints the arithmetic and the reasons."""
    size, T = sum(w.numel() for w in model.parameters()), model.config["context"]
    tokens, texts, max_lr = preset(size)
    texts = max(1, texts // team.size())
    memory = machine.gigabytes()
    micro, accumulate = recipe(texts, memory)
    if MICRO_BATCH != "auto":
        micro, accumulate = MICRO_BATCH, max(1, texts // MICRO_BATCH)
    accumulate = accumulate if ACCUMULATE == "auto" else ACCUMULATE
    tokens = tokens if TOKENS == "auto" else TOKENS
    max_lr = max_lr if MAX_LR == "auto" else MAX_LR
    per_step = micro * accumulate * T * team.size()
    steps = max(1, round(tokens / per_step))
    print(f"[plan] {size:,} parameters: {tokens:,} tokens, learning rate {max_lr:g}")
    times = f"{accumulate} passes" + f" x {team.size()} processes" * (team.size() > 1)
    print(f"[plan] {micro} texts x {T} tokens x {times} = {per_step:,}")
    print(f"       tokens per step (RECIPES for {memory:.0f} GB of memory)")
    plan = {"steps": steps, "micro_batch": micro, "accumulate": accumulate}
    return plan | {"max_lr": max_lr, "tokens_per_step": per_step}


def look_ahead(model, batches, valid, plan, done):
    """Choose the device, check that it can be trusted, tell what the run will take."""
    config, before = model.config, machine.peak_megabytes()
    tools = model, batches, make_optimizer, train_step
    trial = functools.partial(forecast.Trial, *tools)
    device, seconds = machine.choose_device(DEVICE, lambda d: trial(d).seconds(plan))
    rows, V = plan["micro_batch"] * config["context"], config["vocab_size"]
    machine.check_limits(device, rows, V, DROPOUT, CHECKPOINTING)
    machine.check_device(model, *valid.batch(0, 2), device, gpt.check_causality)
    trial(device).check_learning()
    per_token = 3 * gpt.flops_per_token(config)  # forward, and twice that backward
    speed = per_token * plan["tokens_per_step"] / seconds
    best = team.size() * forecast.matmul_rate(device, getattr(torch, PRECISION))
    memory = before, machine.most_megabytes(device)
    forecast.tell(plan["steps"] - done, seconds, speed, best, memory, device)
    forecast.tell_others(gpt, config, speed, preset)
    return device


def main():
    lock = machine.lock(OUT.parent / "04_train.lock", "04_train.py")
    with lock, team.joined(), machine.out_of_memory_told("04_train.py"):
        check_constants()
        machine.keep_memory()
        model, tokenizer, batches, valid, inputs = check_inputs()
        plan = make_plan(model)
        constants = "WARMUP DROPOUT WEIGHT_DECAY SEED PRECISION EVALUATIONS".split()
        identity = plan | inputs | {name: globals()[name] for name in constants}
        resume = functools.partial(machine.resume, OUT, identity, "04_train.py")
        last = team.first_then_others(resume)
        if last and last["step"] == plan["steps"]:
            print(f"[note] This run has finished its {plan['steps']:,} steps. To train")
            print("       anew, change a constant, or rename artifacts/04_train.")
        else:
            done = last["step"] if last else 0
            device = look_ahead(model, batches, valid, plan, done)
            run = Run(model.to(device), tokenizer, valid, plan, identity, device)
            run.train(batches, last)
        print("Next: python 05_eval.py")


# ========================================================================= 9. GUARD
if __name__ == "__main__":
    run_stage(main, "04_train.py")
