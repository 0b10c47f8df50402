# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.13.0", "numpy", "regex", "tqdm"]
# ///
"""Stage 4 of 6: train the model that stage 3 built on the tokens that stage 2 wrote.

    text --> 01_bpe --> 02_prepare --> 03_model --> [04_train] --> 05_eval --> 06_sample
                                                     you are here

READS   artifacts/02_prepare/ (train.bin, valid.bin, meta.json),
        artifacts/03_model/model.pt, artifacts/01_bpe/tokenizer.json
WRITES  artifacts/04_train/: best.pt, the weights with the lowest validation loss;
        last.pt, the full training state; log.csv and run.html, the learning curves
RUN     python 04_train.py   (stopped? the same command resumes)
        torchrun --nproc-per-node 2 04_train.py   the same in two processes
TAKES   about 3 minutes on 2 cores of an Intel Xeon, torch 2.13.0, 2026-11-26
LESSON  lessons/06_training.md
"""
# =========================================================================== 1. Imports
import ast
import copy
import ctypes
import importlib
import math
import os
import re
import shlex
import signal
import sys
import time
from functools import partial
from hashlib import sha256

# Idle threads soon sleep: faster beside busy programs. OpenMP reads this with torch.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
try:
    # `import 01_bpe` is a syntax error (a name cannot start with a digit), hence:
    bpe = importlib.import_module("01_bpe")
    import numpy as np
    import torch
    from tqdm import tqdm
    gpt = importlib.import_module("03_model")
except ModuleNotFoundError as error:
    cure = "keep the six scripts together; pip install torch numpy regex tqdm"
    raise SystemExit(f"{error.name} is missing: {cure}") from None

# ============================================================= 2. Constants: edit these
# How long ("auto", here and below: from PRESETS and RECIPES)
TOKENS = "auto"  # tokens to train on; twice as many: twice the time, a better model
# How large a step
MICRO_BATCH = "auto"  # sequences at once; out of memory? halve this ...
ACCUMULATE = "auto"  # ... and double this: micro-batches per step; same up to rounding
MAX_LR = "auto"  # highest learning rate; ten times more: it learns next to nothing
WARMUP = 0.05  # fraction of the steps in which the learning rate rises to MAX_LR
ALIBI = 0.5  # fraction of the steps with a penalty on distance in attention, which
#              fades out; 0.0: none, and fewer stories keep their names and things
# Against overfitting
DROPOUT = 0.0  # fraction of activations (layer outputs) zeroed; try 0.1 for many epochs
WEIGHT_DECAY = 0.1  # how strongly each step pulls the matrices toward zero
# How to run
PRECISION = "float32"  # or "bfloat16": half the bits; faster on some machines only
COMPILE = False  # True: torch.compile; slow start, faster steps on NVIDIA
CHECKPOINTING = False  # True: recompute activations; less memory, more time
DEVICE = "auto"  # "mps", "cuda" or "cpu"; "auto" times a few steps on each you have
SEED = 1  # of the random generators: order of the sequences, dropout, samples
START_FROM = None  # path of another run's best.pt to start from (fine-tuning)
EVALUATIONS = 10  # how often to measure the validation loss, sample and save
SAVE_MINUTES = 5  # save at least this often

PRESETS = [  # parameters up to, TOKENS, sequences per step, MAX_LR
    (3_000_000, 6_000_000, 8, 6e-3),
    (20_000_000, 40_000_000, 32, 1.5e-3),
    (50_000_000, 100_000_000, 32, 8e-4),
    (math.inf, 100_000_000, 64, 5e-4),
]
RECIPES = [  # GB of memory up to, largest MICRO_BATCH
    (12, 8),  # a Mac with 8 GB
    (24, 16),  # 16 GB
    (math.inf, 32),  # 32 GB and more
]
DATA = bpe.HERE / "artifacts" / "02_prepare"
MODEL = bpe.HERE / "artifacts" / "03_model" / "model.pt"
OUT = bpe.HERE / "artifacts" / "04_train"
FORMAT = "04_train/3"  # changes when the content of the checkpoints changes
HINT = "Halve MICRO_BATCH, double ACCUMULATE; then: python 04_train.py"
RANK = int(os.environ.get("RANK", 0))  # which process this is, from torchrun
WORLD_SIZE = int(os.environ.get("WORLD_SIZE", 1))  # and how many there are

# ============================================================= 3. Glossary of this file
# B, T   sequences in a micro-batch; tokens in a sequence, block_size (256)
# step   one weight update, from ACCUMULATE micro-batches; epoch: one pass over the text
# loss   mean of -ln(probability of the right next token), in nats; perplexity: e^loss
# lr     learning rate: how far a step moves the weights
# norm   length of the gradient, taken as one vector over all weights

# ======================================================== 4. The idea: gradient descent
# Predict the next token at every position and measure how wrong that was: the loss.
# backward() computes how the loss changes with each weight: the gradient. Move each
# weight a little against it. Repeat. For one weight w and the loss (w - 3)**2:

def descend(w=0.0, lr=0.1, steps=25):
    """
    >>> round(descend(steps=1), 3), round(descend(steps=25), 3)
    (0.6, 2.989)
    """
    for _ in range(steps):
        gradient = 2 * (w - 3)
        w -= lr * gradient
    return w

# ========================================================= 5. Read batches of sequences
class Tokens:
    """A file of token ids, and where its sequences start: at each <BOS>. After a short
    document, the sequence runs on into the next ones. A document longer than T gets
    further starts, T apart, shifted anew each epoch. The last sequence ends the file.
    """

    def __init__(self, path, block_size, seed):
        self.ids = np.memmap(path, dtype="<u2", mode="r")
        self.block_size, self.seed, self.epoch = block_size, seed, None
        # In blocks, so that no large file is copied: (N,) positions of <BOS>.
        blocks = range(0, len(self.ids), 2**24)
        found = [np.flatnonzero(self.ids[i : i + 2**24] == bpe.BOS) + i for i in blocks]
        begins, final = np.concatenate(found), len(self.ids) - 1
        ends = np.append(begins[1:], final)  # (N,) last target of each document
        self.last = final - block_size  # where the last sequence starts
        self.aligned, long = begins[begins <= self.last], ends - begins > block_size
        self.long = [*zip(begins[long].tolist(), ends[long].tolist())]
        self.count = len(self.starts(0))  # the same in every epoch

    def starts(self, epoch):  # -> (count,) in the order of this epoch
        if epoch == self.epoch:
            return self.order
        self.epoch, T, further = epoch, self.block_size, []
        shuffle = torch.Generator().manual_seed(self.seed * 100_003 + epoch)
        order = torch.randperm(len(self.aligned), generator=shuffle).numpy()
        rng = np.random.default_rng([self.seed, epoch])
        for begin, end in self.long:
            # n more sequences run `spare` tokens too far: shift them left at random.
            n, spare = (end - begin) // T, T - (end - begin) % T
            first = begin + T - int(rng.integers(spare + 1))
            further += [min(first + k * T, end - T) for k in range(n)]
        slots = rng.integers(len(order) + 1, size=len(further))
        order = np.insert(self.aligned[order], slots, rng.permutation(further))
        self.order = np.append(order, self.last)
        return self.order

def get_batch(tokens, n, batch_size):  # -> (B, T) inputs, (B, T) targets
    """Batch n depends on n and the seed alone, so a run can resume anywhere."""
    places = [divmod(n * batch_size + i, tokens.count) for i in range(batch_size)]
    starts = np.array([tokens.starts(epoch)[i] for epoch, i in places])  # (B,)
    rows = tokens.ids[starts[:, None] + np.arange(tokens.block_size + 1)]  # (B, T + 1)
    rows = torch.from_numpy(rows.astype(np.int64))
    # SUBTLE: token t's target is t + 1. Unshifted, loss nears 0 and nothing is learned.
    return rows[:, :-1], rows[:, 1:]

# =============================== 6. Schedule the learning rate, configure the optimizer
def get_lr(step, steps, max_lr, warmup):
    """Linear warmup, then linear decay to 0 after the last step (arXiv 2502.15938).

    >>> [round(get_lr(step, 100, 1.0, 0.1), 2) for step in (0, 9, 10, 55, 99)]
    [0.1, 1.0, 0.99, 0.49, 0.01]
    """
    rising = max(1, min(round(warmup * steps), steps - 1))
    if step < rising:
        return max_lr * (step + 1) / rising
    return max_lr * max(0, steps - step) / (steps - rising + 1)

def get_alibi(step, steps):  # -> strength of the distance penalty, from 1 to 0
    """Near tokens first, then all: a curriculum for attention. Not in fine-tuning."""
    return 0.0 if START_FROM or not ALIBI else max(0.0, 1 - step / (ALIBI * steps))

def configure_optimizer(model):
    """AdamW (arXiv 1711.05101); only matrices decay, not the scales of layer norms."""
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2]},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    settings = {"betas": (0.9, 0.99), "weight_decay": WEIGHT_DECAY}
    return torch.optim.AdamW(groups, lr=0.0, fused=True, **settings)

# ==================================================================== 7. Train one step
def train_step(model, optimizer, next_batch, step, plan, device):
    """One step; returns loss and norm as tensors (.item() would wait for the GPU)."""
    lr = get_lr(step, plan["steps"], plan["max_lr"], WARMUP)
    for group in optimizer.param_groups:
        group["lr"] = lr
    # Step and rank seed dropout, too, so no random generator state has to be saved.
    torch.manual_seed(SEED * 100_003 + step * WORLD_SIZE + RANK)
    total = 0.0
    for micro_step in range(plan["accumulate"]):
        n = (step * plan["accumulate"] + micro_step) * WORLD_SIZE + RANK
        x, y = (t.to(device) for t in next_batch(n, plan["micro_batch"]))
        with torch.autocast(device.type, torch.bfloat16, PRECISION == "bfloat16"):
            _, loss = model(x, y, return_logits=False)
        # Divided, so that the gradients add up to the gradient of the mean loss.
        loss = loss / plan["accumulate"]
        loss.backward()
        total = total + loss.detach()
    # A gradient longer than 1 is cut to length 1, so one odd batch does little harm.
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total, norm

# ====================================================== 8. Estimate the loss and sample
@torch.no_grad()
def estimate_loss(model, tokens, device, sequences=64):  # -> mean loss in nats
    """The loss on the same sequences each time; stage 5 takes all of valid.bin."""
    size, losses = min(16, tokens.count), []
    for n in range(max(1, min(sequences, tokens.count) // size)):
        x, y = (t.to(device) for t in get_batch(tokens, n, size))
        with torch.autocast(device.type, torch.bfloat16, PRECISION == "bfloat16"):
            losses.append(model(x, y, return_logits=False)[1])
    return torch.stack(losses).mean().item()

def choose_prompt(tokenizer, ids):  # ids of valid.bin -> str
    """The first words of the first document, at most a quarter of it."""
    end = np.flatnonzero(ids[:1000] == bpe.EOS)
    text = tokenizer.decode(ids[1 : end[0] if len(end) else 1000].tolist())
    longest = min(28, len(text) // 4)
    spaces = [i for i in range(1, longest + 1) if text[i].isspace()]
    return text[: spaces[-1] if spaces else longest]

def sample(model, tokenizer, prompt, device):  # -> str
    """What the model generates now: always the same prompt and the same seed."""
    idx = torch.tensor([[bpe.BOS, *tokenizer.encode(prompt)]], device=device)  # (1, T)
    new = max(1, model.config.block_size - idx.shape[1])
    rng = torch.Generator().manual_seed(SEED)
    idx = model.generate(idx, new, temperature=0.8, stop_id=bpe.EOS, rng=rng)
    return tokenizer.decode(idx[0].tolist())

# ===================================================== 9. Choose a device, and check it
def tune_memory():
    """Macs: fail rather than swap for hours. Linux: keep memory from step to step."""
    if torch.backends.mps.is_available():
        torch.mps.set_per_process_memory_fraction(1.0)
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap, too,
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: and the heap does not shrink

def choose_device(model, tokens, plan, threads=None):  # -> (device, seconds per step)
    """DEVICE, or the fastest. A resumed run keeps its thread count, to round alike."""
    devices, seconds, why = gpt.available_devices(), {}, "the fastest here"
    if DEVICE != "auto":
        devices, why = [d for d in devices if d.type == DEVICE], "set by DEVICE"
    elif WORLD_SIZE > 1:  # all processes must choose the same; Apple GPUs cannot join
        devices = [d for d in devices if d.type != "mps"][:1]
    counts = [threads] if threads else sorted({torch.get_num_threads(), 1})
    for device, count in [(d, n) for d in devices for n in counts]:
        if device.type != "cpu" and count != counts[-1]:
            continue
        torch.set_num_threads(count)
        twin, times = copy.deepcopy(model).to(device).train(), []
        optimizer, batch = configure_optimizer(twin), partial(get_batch, tokens)
        for step in range(5):
            started = time.perf_counter()
            train_step(twin, optimizer, batch, step, plan, device)[0].item()
            times.append(time.perf_counter() - started)
            if times[0] > 5 * min(seconds.values(), default=math.inf):
                break  # hopelessly slow: a large model on the CPU beside a GPU
        seconds[device, count] = sorted(times)[len(times) // 2]  # the first is slower
    device, count = min(seconds, key=seconds.get)
    torch.set_num_threads(count)
    measured = ", ".join(f"{d} {n}: {s:.3f} s" for (d, n), s in seconds.items())
    print(f"[plan] device {device}, {count} CPU thread(s): {why}")
    print(f"       (seconds per step by device and threads: {measured})")
    return device, seconds[device, count]

def check_device(model, tokens, plan, device):
    """SystemExit if the device computes garbage silently: in known cases on Apple GPUs
    (pytorch 183535, 195163, 194478), or if loss or gradient are not the CPU's.
    """
    (x, y), V, results = get_batch(tokens, 0, 2), model.config.vocab_size, []  # (2, T)
    rows = plan["micro_batch"] * x.shape[1]
    how = 'Set DEVICE = "cpu", COMPILE = False, then: python 04_train.py'
    if device.type == "mps" and (max(rows, V) > 32_766 or CHECKPOINTING and DROPOUT):
        what = f"Wrong on an Apple GPU: {rows:,} tokens at once, vocabulary {V:,}."
        why = "Both must be below 32,767, and CHECKPOINTING needs DROPOUT = 0.0."
        raise bpe.stop(what, why, HINT if rows > 32_766 else how)
    for place in ("cpu", device):
        twin = copy.deepcopy(model).to(place).eval()
        run = torch.compile(twin) if COMPILE and results else twin
        for alibi in (torch.tensor(1.0), None):  # with the distance penalty and without
            twin.alibi = alibi
            try:
                _, loss = run(x.to(place), y.to(place), return_logits=False)
            except Exception as error:
                if run is twin:
                    raise
                why = str(error).strip().splitlines()[0][:200]  # often: no C++ compiler
                how = "Set COMPILE = False, then: python 04_train.py"
                raise bpe.stop("torch.compile does not work here.", why, how) from None
            (loss / 2).backward()
        gradients = [p.grad for p in twin.parameters() if p.grad is not None]
        squares = sum(g.cpu().double().square().sum() for g in gradients)
        results += [loss.item(), math.sqrt(squares)]
    loss, norm, its_loss, its_norm = results
    print(f"[check] first loss {its_loss:.4f}, gradient {its_norm:.4f} on {device};")
    print(f"        {loss:.4f}, {norm:.4f} on cpu; uniform baseline {math.log(V):.4f}")
    if not math.isfinite(loss + norm):
        why = "This is before training, so the weights or 03_model.py are at fault."
        raise bpe.stop(f"First loss {loss}, gradient {norm}", why, "python 03_model.py")
    if not (abs(its_loss - loss) < 1e-3 * loss and abs(its_norm - norm) < 1e-2 * norm):
        what = f"{device} does not compute what the CPU computes."
        raise bpe.stop(what, "It cannot be trusted with this model.", how)
    before, after = gpt.check_causality(twin, x[:1].to(device))
    if not before <= 1e-4 * after:
        why = f"A token changed the logits before it by {before:g}: no causal mask?"
        how = "Fix CausalSelfAttention in 03_model.py, then: python 03_model.py"
        raise bpe.stop("The model sees the future.", why, how)

def overfit_one_batch(model, tokens, device, steps=30):
    """A standard test of a training loop: it must overfit a few short sequences."""
    model = copy.deepcopy(model).to(device).eval()  # eval: without dropout
    batch = [part[:, :32] for part in get_batch(tokens, 0, 4)]  # (4, T) -> (4, 32)
    # A wide model needs a smaller rate; this suits all widths from 32 to 768.
    plan = {"steps": steps, "max_lr": 0.3 / model.config.n_embd}
    plan |= {"accumulate": 1, "micro_batch": 4}
    step = partial(train_step, model, configure_optimizer(model), lambda n, B: batch)
    first, *_, last = (step(i, plan, device)[0].item() for i in range(steps))
    what = f"{steps} steps on 4 short sequences: loss {first:.3f} to {last:.3f}"
    if not last < first / 3:
        why = "A model that cannot overfit these will learn nothing from many."
        how = "Undo your last edit of 03_model.py or of 04, then: python 04_train.py"
        raise bpe.stop(what, why, how)
    print(f"[check] {what}")

# ==================================================== 10. Save and resume a run exactly
def fingerprint_of(model, meta, plan):  # -> {what a run depends on: its value}
    """Left out: device and split of a step, which affect only rounding and dropout."""
    code = ast.dump(ast.parse((bpe.HERE / "03_model.py").read_bytes()))  # no comments,
    docs = r"Expr\(value=Constant\(value=(['\"]).*?\1\)\)(, )?"  # no docstrings,
    code = re.sub(docs + r"|\w+=\[\], |(, )?\w+=\[\]", "", code)  # no [], as in 3.13
    weights = b"".join(w.numpy().tobytes() for w in model.state_dict().values())
    return {"data": meta["train"]["sha256"], "model": sha256(weights).hexdigest(),
            "code": sha256(code.encode()).hexdigest(), "format": FORMAT, "ALIBI": ALIBI,
            "MICRO_BATCH x ACCUMULATE x processes": plan["sequences"], "SEED": SEED,
            "TOKENS": plan["tokens"], "MAX_LR": plan["max_lr"], "PRECISION": PRECISION,
            "DROPOUT": DROPOUT, "WEIGHT_DECAY": WEIGHT_DECAY, "WARMUP": WARMUP}

def loss_limit(meta):  # -> nats per target of whole stories, at best; or None
    path, valid = bpe.HERE / "lessons" / "practice_stories.py", meta["valid"]
    if meta["constants"]["TEXT"] == "practice" and path.is_file():
        sys.path.append(str(path.parent))
        nats = importlib.import_module("practice_stories").limit().nats
        return nats * valid["stories"] / (valid["tokens"] - valid["stories"])

def move_command(then=" && python 04_train.py"):  # keeps this run, starts a new one
    new = bpe.shown(OUT) + time.strftime(".%m%d-%H%M%S")
    return shlex.join(["mv", bpe.shown(OUT), new]) + then

def find_state(fingerprint):  # -> content of last.pt, or None: nothing to resume
    """SystemExit if the folder holds another run: nothing is renamed unasked."""
    # best.pt alone: the run was stopped before the save that follows an evaluation.
    paths = [path for path in (OUT / "last.pt", OUT / "best.pt") if path.exists()]
    if not paths:
        return None
    state = gpt.load_checkpoint(paths[0], move_command())
    before = state.get("fingerprint", {})
    names = {"data": "train.bin (of stage 2)", "code": "the code of 03_model.py",
             "model": "the first weights (model.pt of stage 3, or START_FROM)"}
    changed = [names.get(name) or f"{name} ({before.get(name)}, now {value})"
               for name, value in fingerprint.items() if before.get(name) != value]
    if changed:
        what = f"{bpe.shown(OUT)} holds another run. Changed: {', '.join(changed)}."
        why = "Put that back to resume the run, or move it away to start a new one:"
        raise bpe.stop(what, why, move_command())
    return state if "optimizer" in state else None

# =============================== 11. Train in several processes (skip on first reading)
def join_processes():
    """Join torchrun's process group; the nccl library connects GPUs, gloo CPUs."""
    if WORLD_SIZE > 1:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backends = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        torch.distributed.init_process_group(backends)
    if RANK > 0:  # the first prints and writes for all
        sys.stdout = open(os.devnull, "w")

def average(tensor):  # -> the mean of a tensor over all processes
    if WORLD_SIZE > 1:
        torch.distributed.all_reduce(tensor)
    return tensor / WORLD_SIZE

# ================================================================ 12. The training loop
class Trainer:
    """One run: the loop, and the files it leaves behind."""

    def __init__(self, model, tokenizer, valid, plan, header, device, state, limit):
        self.model, self.tokenizer, self.valid = model, tokenizer, valid
        self.plan, self.header, self.device, self.limit = plan, header, device, limit
        self.optimizer = configure_optimizer(model)
        self.prompt = choose_prompt(tokenizer, valid.ids)
        self.has_page = bpe.fill_page("run.html", None) is not None
        self.step, self.rows, self.pending, self.best = 0, [], [], math.inf
        if state:  # restore the full training state, as if the run had never stopped
            self.model.load_state_dict(state["weights"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.pending, self.best = [*state["pending"].to(device)], state["loss"]
            self.step, self.rows = state["step"], state["rows"]
            print(f"[read] last.pt: resuming after step {self.step:,}")

    def train(self, tokens):
        """Step, log, evaluate, save; SystemExit if the loss diverges or at Ctrl-C."""
        model, plan, device = self.model.train(), self.plan, self.device
        optimizer, steps = self.optimizer, plan["steps"]
        model = torch.compile(model) if COMPILE else model
        if WORLD_SIZE > 1:  # its backward() averages the gradients of all processes
            model = torch.nn.parallel.DistributedDataParallel(model)
        # Ctrl-C only sets a flag, so that the current step can finish.
        asked, stopping, saved = [], False, time.perf_counter()
        handler = signal.signal(signal.SIGINT, lambda *_: asked.append("Ctrl-C"))
        print(f"[start] each evaluation continues {self.prompt!r}", flush=True)
        bar = tqdm(desc="training", total=steps, initial=self.step, unit="step",
                   smoothing=0, disable=RANK > 0)  # fmt: skip
        self.logged, batch = (saved, self.step), partial(get_batch, tokens)
        while self.step < steps and not stopping:
            # A tensor, because torch.compile would compile anew for each number.
            alibi = get_alibi(self.step, steps)
            self.model.alibi = torch.tensor(alibi, device=device) if alibi else None
            loss, norm = train_step(model, optimizer, batch, self.step, plan, device)
            self.pending.append(torch.stack([average(loss), norm]))
            self.step += 1
            bar.update()
            evaluating = self.step in plan["evaluate_at"]
            if evaluating or self.step % max(1, steps // 200) == 0:
                self.log(bar)
            if evaluating and RANK == 0:
                bar.clear()
                self.evaluate()
            late = time.perf_counter() - saved > 60 * SAVE_MINUTES
            votes = torch.tensor([float(late), float(len(asked))])
            late, stopping = (average(votes) > 0).tolist()  # one asks, all act
            if evaluating or late or stopping:
                if RANK == 0 and all(p.isfinite().all() for p in self.pending):  # NaN?
                    self.save()
                saved = time.perf_counter()
                self.logged = saved, self.step
        bar.close()
        if self.step < steps:
            why = f"Step {self.step:,} of {steps:,} is saved; nothing is lost."
            several = f"torchrun --nproc-per-node {WORLD_SIZE}"
            how = f"Resume with: {several if WORLD_SIZE > 1 else 'python'} 04_train.py"
            raise bpe.stop("\nStopped by Ctrl-C.", why, how)
        signal.signal(signal.SIGINT, handler)

    def log(self, bar):
        """Read the losses of the last steps: only here do we wait for a GPU."""
        losses, norms = torch.stack(self.pending).T.tolist()  # (steps, 2) -> 2 lists
        loss, norm, self.pending = sum(losses) / len(losses), max(norms), []
        if not math.isfinite(loss + norm):
            why = f"Loss {loss}, gradient {norm}. The files of the last save are good."
            how = f"Halve MAX_LR (now {self.plan['max_lr']:g}), then: {move_command()}"
            raise bpe.stop(f"\nTraining diverged by step {self.step:,}.", why, how)
        (then, step), self.logged = self.logged, (time.perf_counter(), self.step)
        seconds = (self.logged[0] - then) / (self.step - step)
        tokens = self.plan["tokens_per_step"]
        row = {"step": self.step, "tokens": self.step * tokens, "train_loss": loss}
        row |= {"grad_norm": norm, "lr": self.optimizer.param_groups[0]["lr"]}
        self.rows.append(row | {"valid_loss": "", "tokens_per_s": tokens / seconds})
        bar.set_postfix(loss=f"{loss:.3f}")

    def evaluate(self):
        """Evaluate, sample, and write best.pt if the loss is the lowest so far."""
        row, model, device = self.rows[-1], self.model.eval(), self.device
        row["valid_loss"] = loss = estimate_loss(model, self.valid, device)
        row["sample"] = sample(model, self.tokenizer, self.prompt, device)
        model.train()
        print(f"\nstep {self.step:,}: training loss {row['train_loss']:.3f}, validation"
              f" loss {loss:.3f}, perplexity {math.exp(loss):.1f}. Sample:")
        print("  " + row["sample"].replace("\n", "\n  ") + "\n", flush=True)
        if loss < self.best:  # nothing else writes best.pt: it holds what was measured
            self.best = loss
            self.write("best.pt")

    def write(self, name, **more):
        content = self.header | {"step": self.step, "loss": self.best} | more
        content["alibi"] = float(self.model.alibi or 0)
        gpt.save_checkpoint(OUT / name, content | {"weights": self.model.state_dict()})

    def save(self):
        """Write the learning curves and the full training state."""
        # log.csv holds no times, so that equal runs leave equal files.
        names = ["step", "tokens", "lr", "train_loss", "grad_norm", "valid_loss"]
        lines = [names] + [[str(row[name]) for name in names] for row in self.rows]
        log = "".join(",".join(line) + "\n" for line in lines)
        data = {"rows": self.rows, "plan": self.plan, "prompt": self.prompt}
        data["limit"] = self.limit
        page = bpe.fill_page("run.html", data) if self.has_page else None
        bpe.write_all({OUT / "log.csv": log, OUT / "run.html": page})
        pending = torch.tensor([[*pair] for pair in self.pending]).reshape(-1, 2)
        optimizer = self.optimizer.state_dict()
        self.write("last.pt", rows=self.rows, pending=pending, optimizer=optimizer)

# =========================================================================== 13. Checks
def check_constants():
    """SystemExit, naming the constant and its range, unless all can be used."""
    me, automatic = "04_train.py", ("TOKENS", "MICRO_BATCH", "ACCUMULATE", "MAX_LR")
    for name, value, low, high in [
        ("TOKENS", TOKENS, 1, 10**13), ("MICRO_BATCH", MICRO_BATCH, 1, 4096),
        ("ACCUMULATE", ACCUMULATE, 1, 4096), ("MAX_LR", MAX_LR, 1e-7, 10.0),
        ("WARMUP", WARMUP, 0.0, 0.9), ("WEIGHT_DECAY", WEIGHT_DECAY, 0.0, 10.0),
        ("ALIBI", ALIBI, 0.0, 0.9), ("DROPOUT", DROPOUT, 0.0, 0.9),
        ("SAVE_MINUTES", SAVE_MINUTES, 0.0, 10_000.0), ("SEED", SEED, 0, 2**31),
        ("EVALUATIONS", EVALUATIONS, 1, 10_000),
    ]:  # fmt: skip
        if value != "auto" or name not in automatic:
            bpe.in_range(me, name, value, type(low), low, high)
    bpe.one_of(me, "PRECISION", PRECISION, ["float32", "bfloat16"])
    bpe.one_of(me, "COMPILE", COMPILE, [False, True])
    bpe.one_of(me, "CHECKPOINTING", CHECKPOINTING, [False, True])
    bpe.one_of(me, "DEVICE", DEVICE, ["auto", *map(str, gpt.available_devices())])
    path = bpe.HERE / str(START_FROM)
    if START_FROM and not path.is_file():
        raise bpe.unusable(me, "START_FROM", START_FROM, f"None or a file, not {path}")
    if START_FROM and path.resolve().is_relative_to(OUT.resolve()):
        what = f"START_FROM = {START_FROM!r} is in the folder that this run writes to."
        why = "Move that run away, and name its new place in START_FROM:"
        raise bpe.stop(what, why, move_command(then=""))

def read_inputs():  # -> (model, tokenizer, [Tokens to train on, to validate on], meta)
    """What stages 1 to 3 wrote; SystemExit unless it is whole and fits together."""
    tokenizer, tokens = bpe.Tokenizer.load(), []
    meta = bpe.read_json(DATA / "meta.json", "02_prepare.py", "02_prepare/2")
    path = bpe.HERE / START_FROM if START_FROM else MODEL
    writer = "04_train.py  # with another START_FROM" if START_FROM else "03_model.py"
    model, content = gpt.GPT.load(path, writer, dropout=DROPOUT)
    model.checkpointing = CHECKPOINTING
    bpe.check_tokenizer(meta["tokenizer"], "train.bin", "python 02_prepare.py")
    again = "Put 01 back as it was, name your TEXT in 02; then: python 01_bpe.py"
    how = again if START_FROM else "python 03_model.py"
    bpe.check_tokenizer(content["tokenizer"], path.name, how)
    T = model.config.block_size
    for name, seed in (("train", SEED), ("valid", 0)):
        path, count = DATA / f"{name}.bin", meta[name]["tokens"]
        bpe.need(path, "02_prepare.py")
        if bpe.sha256_of(path) != meta[name]["sha256"]:
            why = "Its content is not what 02_prepare.py noted in meta.json."
            raise bpe.stop(f"{path.name} is damaged.", why, "python 02_prepare.py")
        if count <= T:
            why = f"A sequence takes {T + 1:,}. Use a longer TEXT or a smaller SIZE."
            how = "Edit TEXT (01), VALID_SHARE (02), SIZE (03); then: python 01_bpe.py"
            raise bpe.stop(f"{path.name} is too short: {count:,} tokens.", why, how)
        print(f"[read] {path.name}: {count:,} tokens")
        tokens.append(Tokens(path, T, seed))
    return model, tokenizer, tokens, meta

# ============================================================================= 14. Main
def make_plan(config, train):  # -> dict; prints the arithmetic and the reasons
    """The constants, with "auto" replaced."""
    T, gigabytes = config.block_size, 16.0
    if hasattr(os, "sysconf"):  # not on Windows
        gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    _, tokens, sequences, max_lr = next(p for p in PRESETS if config.n_params <= p[0])
    most = next(row[1] for row in RECIPES if gigabytes <= row[0])
    sequences = max(1, sequences // WORLD_SIZE)
    micro = min(sequences, most) if MICRO_BATCH == "auto" else MICRO_BATCH
    accumulate = max(1, sequences // micro) if ACCUMULATE == "auto" else ACCUMULATE
    tokens = tokens if TOKENS == "auto" else TOKENS
    max_lr = max_lr if MAX_LR == "auto" else MAX_LR
    sequences = micro * accumulate * WORLD_SIZE
    steps = max(1, round(tokens / (sequences * T)))
    epochs, each = steps * sequences / train.count, sequences * T
    print(f"[plan] {config.n_params:,} parameters: {tokens:,} tokens, {max_lr=:g}")
    print(f"[plan] {micro} sequences x {T} tokens x {accumulate} micro-batches x"
          f" {WORLD_SIZE} processes = {each:,}")  # fmt: skip
    print(f"       tokens per step (RECIPES for {gigabytes:.0f} GB of memory)")
    gaps = np.diff(np.sort(train.starts(0)))  # between the starts of sequences
    covered = (np.minimum(gaps, T).sum() + T) / (len(train.ids) - 1)
    print(f"[plan] {steps:,} steps are {epochs:.2f} epochs; in each of them"
          f" {covered:.1%} of the tokens are targets")  # fmt: skip
    evaluate_at = {round(steps * (i + 1) / EVALUATIONS) for i in range(EVALUATIONS)}
    return {"tokens": tokens, "max_lr": max_lr, "steps": steps, "sequences": sequences,
            "micro_batch": micro, "accumulate": accumulate, "tokens_per_step": each,
            "evaluate_at": sorted(evaluate_at)}  # fmt: skip

def main():
    join_processes()
    check_constants()
    tune_memory()
    for path in OUT.glob("*.part"):  # left by a run that was killed
        path.unlink(missing_ok=True)
    model, tokenizer, (train, valid), meta = read_inputs()
    plan = make_plan(model.config, train)
    fingerprint = fingerprint_of(model, meta, plan)
    state = find_state(fingerprint)
    if state and state["step"] == plan["steps"]:
        print(f"[note] This run has finished. To start a new one: {move_command()}")
        how = ["cp", *(bpe.shown(OUT / name) for name in ("last.pt", "best.pt"))]
        gpt.load_checkpoint(OUT / "best.pt", f"Use the last weights: {shlex.join(how)}")
    else:
        device, seconds = choose_device(model, train, plan, state and state["threads"])
        check_device(model, valid, plan, device)
        overfit_one_batch(model, train, device)
        header = {"format": FORMAT, "config": dict(vars(model.config)),
                  "tokenizer": meta["tokenizer"], "fingerprint": fingerprint,
                  "threads": torch.get_num_threads()}
        limit, model = loss_limit(meta), model.to(device)
        trainer = Trainer(model, tokenizer, valid, plan, header, device, state, limit)
        memory = gpt.peak_megabytes(device)  # nan on Windows
        began = time.perf_counter()  # time one evaluation, for the estimate below
        estimate_loss(model.eval(), valid, device)
        sample(model, tokenizer, trainer.prompt, device)
        seconds += (time.perf_counter() - began) * min(1, EVALUATIONS / plan["steps"])
        left = tqdm.format_interval((plan["steps"] - trainer.step) * seconds)
        print(f"[plan] {left} to go" + f", about {memory:,.0f} MB used" * (memory > 0))
        trainer.train(train)
        print(f"[check] lowest validation loss {trainer.best:.3f}")
        print(f"[wrote] {bpe.shown(OUT)}/:", *sorted(os.listdir(OUT)))
    if WORLD_SIZE > 1:
        torch.distributed.destroy_process_group()
    print("Next: python 05_eval.py")

if __name__ == "__main__":
    try:
        bpe.run_stage(main, "04_train.py", memory_hint=HINT)
    except SystemExit as mistake:  # of several processes, the first reports it
        raise SystemExit(1 if RANK > 0 else mistake.code) from None
