"""How fast does stage 4 train, and how much has it learned after some minutes? Beside a
model and a training loop like nanoGPT's, written here anew, on the same machine.

    python tests/bench_train.py                         tokens per second, 1M and 10M
    python tests/bench_train.py --dtype bfloat16 --nano-dtype float32
    python tests/bench_train.py --sizes small --batch 64 --dtype bfloat16 --compile
    python tests/bench_train.py --minutes 3 --text stories.txt    bits per byte
    python tests/bench_train.py --minutes 10 --text stories.txt --dtype bfloat16 \\
        --shape 3,4,128,256 --batch 8 --lr 7e-3 --seeds 1 2 3

Run by hand, never by pytest. Each contender is a process of its own. For the speed they
take turns, round by round; what counts is the median over the rounds of the ratio in
the same round, because the speed of a shared machine drifts. For what is learned they
train one after the other, each alone, on the same 90% of the stories (chosen by seed
--split, 0) and with the same vocabulary; then stage 5's score gives the bits per byte
of all other stories. The learning rate follows the clock, so the last step falls into
the last second. Constants of stage 4 can be set, too: --set WARMUP=0.02.
"""
import argparse
import ast
import contextlib
import functools
import hashlib
import importlib
import inspect
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
UNTOUCHED = dict(os.environ)  # before stage 4 sets a variable for its threads
bpe, prepare, gpt, train, ev = (
    importlib.import_module(name)
    for name in ("01_bpe", "02_prepare", "03_model", "04_train", "05_eval")
)
SIZES = {"1M": gpt.SIZES["nano"], "10M": gpt.SIZES["tiny"], **gpt.SIZES}
# nanoGPT's README has these for a CPU, with the learning rate of its small examples.
NANO = {"shape": (4, 4, 128, 64), "batch": 12, "lr": 1e-3}


# ------------------------------------------------------------------ nanoGPT's model


class NanoAttention(nn.Module):
    """All heads at once; with dropout modules even at 0."""

    def __init__(self, C, H, bias):
        super().__init__()
        self.H = H
        self.c_attn = nn.Linear(C, 3 * C, bias=bias)
        self.c_proj = nn.Linear(C, C, bias=bias)
        self.resid_dropout = nn.Dropout(0.0)

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(C, dim=2)
        k = k.view(B, T, self.H, C // self.H).transpose(1, 2)
        q = q.view(B, T, self.H, C // self.H).transpose(1, 2)
        v = v.view(B, T, self.H, C // self.H).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=0, is_causal=True)
        y = y.transpose(1, 2).contiguous().view(B, T, C)
        return self.resid_dropout(self.c_proj(y))


class NanoNorm(nn.Module):
    """A layer norm whose bias can be left out."""

    def __init__(self, C, bias):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(C))
        self.bias = nn.Parameter(torch.zeros(C)) if bias else None

    def forward(self, x):
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class NanoBlock(nn.Module):
    """Pre-norm; GELU without approximation; 4C wide."""

    def __init__(self, C, H, bias):
        super().__init__()
        self.ln_1, self.attn = NanoNorm(C, bias), NanoAttention(C, H, bias)
        self.ln_2, self.dropout = NanoNorm(C, bias), nn.Dropout(0.0)
        self.c_fc = nn.Linear(C, 4 * C, bias=bias)
        self.gelu = nn.GELU()
        self.c_proj = nn.Linear(4 * C, C, bias=bias)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.dropout(self.c_proj(self.gelu(self.c_fc(self.ln_2(x)))))


class NanoGPT(nn.Module):
    """Embeddings, blocks, tied output layer; all logits at once; GPT-2's weights."""

    def __init__(self, config, bias):
        super().__init__()
        self.config = config
        C, L = config.n_embd, config.n_layer
        self.wte = nn.Embedding(config.vocab_size, C)
        self.wpe = nn.Embedding(config.block_size, C)
        self.drop = nn.Dropout(0.0)
        self.h = nn.ModuleList(NanoBlock(C, config.n_head, bias) for _ in range(L))
        self.ln_f = NanoNorm(C, bias)
        self.lm_head = nn.Linear(C, config.vocab_size, bias=False)
        self.wte.weight = self.lm_head.weight
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                narrow = math.sqrt(2 * L) if name.endswith("c_proj.weight") else 1
                nn.init.normal_(weight, std=0.02 / narrow)

    def forward(self, ids, targets=None):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        x = self.drop(x)
        for block in self.h:
            x = block(x)
        logits = self.lm_head(self.ln_f(x))
        if targets is None:
            return logits, None
        flat = logits.view(-1, logits.size(-1)), targets.reshape(-1)
        return logits, F.cross_entropy(*flat, ignore_index=-1)


# ------------------------------------------------------------------ two contenders


class Nano:
    """nanoGPT's loop: random positions, memmap opened anew for each batch, the next one
    drawn after the forward pass, the loss read at every tenth step.
    """

    def __init__(self, wanted, config, path, device):
        self.path, self.device, self.T = path, device, config.block_size
        self.batch = wanted.batch
        self.dtype = getattr(torch, wanted.dtype)
        self.model = NanoGPT(config, wanted.bias).to(device)
        decay = [p for p in self.model.parameters() if p.dim() >= 2]
        plain = [p for p in self.model.parameters() if p.dim() < 2]
        groups = [{"params": decay, "weight_decay": 0.1}]
        groups += [{"params": plain, "weight_decay": 0.0}]
        has_fused = "fused" in inspect.signature(torch.optim.AdamW).parameters
        extra = {"fused": True} if has_fused and device.type == "cuda" else {}
        # 0.99 is what its README's configurations for small batches take, not 0.95.
        self.optimizer = torch.optim.AdamW(
            groups, lr=wanted.lr, betas=(0.9, 0.99), **extra
        )
        if device.type == "cuda":  # as its train.py does
            torch.backends.cuda.matmul.allow_tf32 = True
            torch.backends.cudnn.allow_tf32 = True
        self.run = torch.compile(self.model) if wanted.compile else self.model
        self.x, self.y = self.get_batch()

    def get_batch(self):
        data = np.memmap(self.path, dtype=np.uint16, mode="r")
        ix = torch.randint(len(data) - self.T, (self.batch,))
        rows = [data[i : i + self.T + 1].astype(np.int64) for i in ix]
        x = torch.stack([torch.from_numpy(row[:-1]) for row in rows])
        y = torch.stack([torch.from_numpy(row[1:]) for row in rows])
        if self.device.type == "cuda":
            x, y = x.pin_memory(), y.pin_memory()
            return x.to(self.device, non_blocking=True), y.to(
                self.device, non_blocking=True
            )
        return x, y

    def step(self, number, steps, max_lr):
        warm = max(1, min(100, steps // 20))
        rate = max_lr * (number + 1) / warm
        if number >= warm:
            done = min(1.0, (number - warm) / max(1, steps - warm))
            rate = max_lr * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        half = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype, half):
            _, loss = self.run(self.x, self.y)
        self.x, self.y = self.get_batch()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if number % 10 == 0:
            loss.item()


class Ours:
    """Stage 4's own batches, optimizer and step; the loss read at every tenth."""

    def __init__(self, wanted, config, path, device):
        train.tune_memory()
        self.device, train.PRECISION = device, wanted.dtype
        self.fades = bool(wanted.minutes)
        config.dropout = train.DROPOUT
        self.model = gpt.GPT(config).to(device).train()
        tokens = train.Tokens(path, config.block_size, wanted.seed)
        if wanted.offsets == "random":
            rng = np.random.default_rng(wanted.seed)
            tokens.order = rng.permutation(len(tokens.ids) - config.block_size)
            tokens.count, tokens.epoch = len(tokens.order), 0
        self.next_batch = functools.partial(train.get_batch, tokens)
        self.optimizer = train.configure_optimizer(self.model)
        self.plan = {"accumulate": 1, "micro_batch": wanted.batch}
        self.run = torch.compile(self.model) if wanted.compile else self.model

    def step(self, number, steps, max_lr):
        plan = self.plan | {"steps": steps, "max_lr": max_lr}
        if self.fades:  # for the speed alone, steps are those of the second half
            alibi = train.get_alibi(number, steps)
            alibi = torch.tensor(alibi, device=self.device) if alibi else None
            self.model.alibi = alibi
        rest = self.next_batch, number, plan, self.device
        loss, _ = train.train_step(self.run, self.optimizer, *rest)
        if number % 10 == 0:
            loss.item()


# ----------------------------------------------------------------- a process of each


def config_of(shape, vocabulary):
    """(blocks, heads, width, context) -> GPTConfig."""
    n_layer, n_head, n_embd, block_size = shape
    return gpt.GPTConfig(vocabulary, block_size, n_layer, n_head, n_embd)


def wait_for(device):
    """GPUs work in the background; before reading the clock, let them finish."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def worker(order):
    """A contender: JSON in, JSON out. Reads orders until its input ends."""
    wanted = argparse.Namespace(**order)
    if wanted.threads:
        torch.set_num_threads(wanted.threads)
    for text in wanted.set:
        name, value = text.split("=", 1)
        assert hasattr(train, name), f"04_train.py has no {name}"
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(value)
        setattr(train, name, value)
    torch.manual_seed(wanted.seed)
    device = torch.device(wanted.device)
    vocabulary = wanted.vocab
    config = config_of(wanted.shape, vocabulary)
    contender = {"ours": Ours, "nanoGPT": Nano}[wanted.who]
    contender = contender(wanted, config, Path(wanted.path), device)
    size = sum(weight.numel() for weight in contender.model.parameters())
    answer({"parameters": size})
    number = 0
    for line in sys.stdin:
        command = json.loads(line)
        wait_for(device)
        started = time.perf_counter()
        if "steps" in command:
            for _ in range(command["steps"]):
                contender.step(number, 10_000, wanted.lr)
                number += 1
            wait_for(device)
            answer({"seconds": time.perf_counter() - started})
            continue
        budget, passed = 60 * command["minutes"], 0.0
        last = wanted.stop_after or math.inf
        while number < last and (wanted.stop_after or passed < budget):
            # As many steps as there will be if they go on as fast as until now.
            steps = max(number + 1, round(number * budget / max(passed, 1e-9)))
            steps = 2000 if number < 10 else steps  # the first are slower than the rest
            steps = wanted.stop_after or steps
            contender.step(number, steps, wanted.lr)
            number += 1
            if number % 10 == 0 or passed == 0:
                wait_for(device)
            passed = time.perf_counter() - started
        found = bits_per_byte(contender.model.eval(), wanted, device)
        memory = gpt.peak_megabytes(device)
        tokens = number * wanted.batch * config.block_size
        answer(found | {"steps": number, "tokens": tokens, "megabytes": memory})


def answer(content):
    print("ANSWER " + json.dumps(content), flush=True)


def bits_per_byte(model, wanted, device):
    """Of all stories of the other part, as stage 5 counts."""
    ids = np.memmap(wanted.valid, dtype="<u2", mode="r")
    tokenizer = bpe.Tokenizer.load(Path(wanted.tokenizer))
    starts = np.flatnonzero(ids == bpe.BOS)
    nats = ev.score(model, ids, starts, device, "scoring")
    lengths = [len(token) for token in tokenizer.token_bytes]
    lengths[:4] = [0] * 4
    found = ev.summary(nats, ids, starts, np.array(lengths))
    return {name: found[name] for name in ("bits_per_byte", "plus_minus", "loss")}


class Process:
    """A worker, seen from outside."""

    def __init__(self, order):
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--worker", json.dumps(order)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ if order["who"] == "ours" else UNTOUCHED,
        )  # fmt: skip
        self.parameters = self.answer()["parameters"]

    def answer(self):
        for line in self.process.stdout:
            if line.startswith("ANSWER "):
                return json.loads(line.removeprefix("ANSWER "))
        raise SystemExit("a worker died; its error is above")

    def ask(self, **command):
        print(json.dumps(command), file=self.process.stdin, flush=True)
        return self.answer()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


# ------------------------------------------------------------------------- the files


def random_file(folder, vocabulary):
    """A file of random tokens in stories of 200: the speed is that of a real text."""
    path = folder / f"random-{vocabulary}.bin"
    if not path.exists():
        ids = np.random.default_rng(0).integers(4, vocabulary, size=4_000_000)
        ids[::200], ids[199::200] = 2, 3
        ids.astype("<u2").tofile(path)
    return path


def split_file(text, vocabulary, split, folder):
    """A text -> files: its tokenizer, the tokens of 90% and of 10% of its stories."""
    source = Path(text)
    print_of = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    folder = folder / f"{print_of}-{vocabulary}-{split}"
    found = {name: folder / name for name in ("tokenizer.json", "train", "valid")}
    if all(path.exists() for path in found.values()):
        return found
    folder.mkdir(parents=True, exist_ok=True)
    tasks = bpe.split_file(source)
    stories = [story for task in tasks for story in bpe.read_stories(*task)]
    random.Random(split).shuffle(stories)
    cut = len(stories) * 9 // 10
    learn = folder / "learn.txt"
    learn.write_text("\n<|endoftext|>\n".join(stories[:cut]) + "\n", "utf-8")
    tokenizer, _ = bpe.train(bpe.count_text(bpe.split_file(learn), 1), vocabulary, 2)
    learn.unlink()
    encode = prepare.Encoder(tokenizer).encode
    for name, part in (("train", stories[:cut]), ("valid", stories[cut:])):
        found[name].write_bytes(b"".join(map(encode, part)))
    found["tokenizer.json"].write_text(tokenizer.to_json(), "utf-8")
    return found


# --------------------------------------------------------------------------- the races


def race(wanted, order, who):
    """Tokens per second, in turns."""
    beside = f" (nanoGPT {wanted.nano_dtype})" if wanted.nano_dtype else ""
    print(f"{wanted.dtype}{beside}{', compiled' * wanted.compile}, on {wanted.device}:"
          f" tokens per second, medians of {wanted.rounds} rounds")  # fmt: skip
    for size in wanted.sizes:
        shape = SIZES[size]
        this = order | {"shape": shape, "batch": wanted.batch or 4096 // shape[3]}
        this |= {"path": str(random_file(wanted.folder, wanted.vocab))}
        theirs = {"dtype": wanted.nano_dtype or wanted.dtype}
        runners = {
            name: Process(this | {"who": name} | (theirs if name == "nanoGPT" else {}))
            for name in who
        }
        speeds = {name: [] for name in who}
        for runner in runners.values():
            runner.ask(steps=3)  # the first of anything is slower
        for turn in range(wanted.rounds):
            for name in who[:: 1 if turn % 2 else -1]:
                seconds = runners[name].ask(steps=wanted.steps)["seconds"]
                tokens = wanted.steps * this["batch"] * shape[3]
                speeds[name].append(tokens / seconds)
        print(f"\n{size} {shape}, vocabulary {wanted.vocab:,}, batch {this['batch']}")
        for name, runner in runners.items():
            runner.close()
            ratios = [a / b for a, b in zip(speeds[name], speeds[who[0]])]
            speed, ratio = statistics.median(speeds[name]), statistics.median(ratios)
            print(f"  {name:8} {runner.parameters:12,} parameters {speed:12,.0f}"
                  f"   x {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                  flush=True)  # fmt: skip


def learn(wanted, order, who):
    """Bits per byte after some minutes, one after the other."""
    files = split_file(wanted.text, wanted.vocab, wanted.split, wanted.folder)
    order |= {"path": str(files["train"]), "valid": str(files["valid"])}
    order |= {"tokenizer": str(files["tokenizer.json"])}
    print(f"{wanted.minutes:g} minutes on {wanted.device}, vocabulary {wanted.vocab:,}")
    for seed in wanted.seeds:
        for name in who:
            mine = {"shape": wanted.shape, "batch": wanted.batch or 16, "lr": wanted.lr}
            this = order | {"who": name, "seed": seed}
            runner = Process(this | (NANO if name == "nanoGPT" else mine))
            found = runner.ask(minutes=wanted.minutes)
            runner.close()
            print(f"  {name:8} seed {seed}: {found['bits_per_byte']:.4f} bits per byte"
                  f" (+- {found['plus_minus']:.4f}), {runner.parameters:,} parameters,"
                  f" {found['steps']:,} steps, {found['tokens']:,} tokens,"
                  f" {found['megabytes']:,.0f} MB", flush=True)  # fmt: skip


def main():
    if sys.argv[1:2] == ["--worker"]:
        return worker(json.loads(sys.argv[2]))
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", nargs="+", default=["1M", "10M"], choices=SIZES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="per round")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's choice")
    best = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=best)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--nano-dtype", choices=["float32", "bfloat16"],
                        help="of nanoGPT alone; else the same")
    parser.add_argument("--compile", action="store_true", help="both of them")
    parser.add_argument("--bias", action="store_true",
                        help="nanoGPT with biases (its train.py has none by default)")
    parser.add_argument("--vocab", type=int, default=0, help="8,192; with --text 4,096")
    parser.add_argument("--batch", type=int, default=0, help="sequences per step")
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--stop-after", type=int, default=0, metavar="STEPS",
                        help="instead of the clock: as many as another seed made")
    parser.add_argument("--text", help="stories, as stage 1 reads them")
    parser.add_argument("--who", default="both", choices=["both", "ours", "nanoGPT"])
    parser.add_argument("--shape", default="2,3,96,256",
                        help="of ours with --text: blocks,heads,width,context")
    parser.add_argument("--lr", type=float, default=6e-3, help="of ours with --text")
    parser.add_argument("--offsets", default="story", choices=["story", "random"],
                        help="where our sequences start")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--split", type=int, default=0, help="seed of the 90%%")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE",
                        help="constants of 04_train.py, for ours")
    parser.add_argument("--folder", type=Path,
                        default=Path(tempfile.gettempdir()) / "bench_train")
    wanted = parser.parse_args()
    wanted.vocab = wanted.vocab or (4096 if wanted.text else 8192)
    wanted.shape = [int(number) for number in wanted.shape.split(",")]
    wanted.folder.mkdir(parents=True, exist_ok=True)
    if bool(wanted.minutes) != bool(wanted.text):
        parser.error("--minutes and --text go together")
    who = {"both": ["nanoGPT", "ours"]}.get(wanted.who, [wanted.who])
    order = {name: value for name, value in vars(wanted).items() if name != "folder"}
    order |= {"seed": wanted.seeds[0]}
    print(f"torch {torch.__version__}, {wanted.threads or torch.get_num_threads()}"
          f" threads, {os.cpu_count()} cores")  # fmt: skip
    (learn if wanted.text else race)(wanted, order, who)


if __name__ == "__main__":
    main()
