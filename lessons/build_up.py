"""Build up a GPT: seven models, from a bigram to a GPT, each extending the one before.

READS   artifacts/01_bpe/tokenizer.json, artifacts/02_prepare/ (train.bin, valid.bin)
WRITES  artifacts/build_up/build_up.html   their learning curves, and a sample of each
RUN     python lessons/build_up.py
TAKES   about 4 minutes of one core of an Intel Xeon, torch 2.13.0, 2026-11-26
LESSON  lessons/04_transformer.md

All seven have stage 3's size "nano" and are trained by stage 4's train_step. "# NEW"
marks the main differences between two neighbors.
"""
# =========================================================================== 1. Imports
import importlib
import math
import sys
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))
# `import 01_bpe` is a syntax error (a name cannot start with a digit), hence:
bpe = importlib.import_module("01_bpe")
stage4 = importlib.import_module("04_train")  # it says so where a package is missing
gpt = importlib.import_module("03_model")
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

# ============================================================= 2. Constants: edit these
TOKENS_EACH = 1_000_000  # tokens that each model trains on; try 300_000, with which one
#                          head has not yet caught up with the bigram
LEARNING_RATE = 1e-2  # max_lr of stage 4's get_lr(); the same for all; try 3e-3
SEED = 1  # of first weights, order of sequences, samples; another one: see the noise

# Why equal tokens, and not equal seconds? All seven read the same stories in the same
# order, and the result does not depend on the machine, so anyone can repeat it. But it
# favors the later models, which compute more per token. So the page can also draw the
# loss over the seconds that each model took.
SEQUENCES = 4  # per step; stage 4 takes 8 for a model of this size
NEW_TOKENS = 60  # in a sample
CPU = torch.device("cpu")  # the models are small enough not to need a GPU
DATA = bpe.HERE / "artifacts" / "02_prepare"
OUT = bpe.HERE / "artifacts" / "build_up"
SCRIPT = "lessons/build_up.py"

# ============================================================= 3. Glossary of this file
# B, T   sequences in a batch (4); positions in a sequence, at most block_size (256)
# C, H   length n_embd of a token's vector (128); heads (4)
# V   vocabulary size (2,048)

# ===================================================== 4. What all seven have in common
class LanguageModel(nn.Module):
    """A subclass turns token ids into vectors; here these become logits, loss, text."""

    @torch.no_grad()
    def init_weights(self):
        """One plain rule for all: a sum of C products is as large as its inputs."""
        for weight in self.parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=self.config.n_embd**-0.5)
        return self

    def forward(self, idx, targets=None, return_logits=True):  # stage 4 wants none
        """(B, T) ids, (B, T) targets -> (B, T, V) logits, () loss or None."""
        logits = self.lm_head(self.hidden(idx))  # (B, T, C) -> (B, T, V)
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def generate(self, idx, rng):  # (1, T) -> (1, T + at most NEW_TOKENS)
        """Get the probabilities, sample a token, append it, repeat."""
        for _ in range(NEW_TOKENS):
            logits, _ = self(idx[:, -self.config.block_size :])
            probs = (logits[:, -1] / 0.8).softmax(dim=-1)  # (1, V)
            idx = torch.cat([idx, torch.multinomial(probs, 1, generator=rng)], dim=1)
            if idx[0, -1] == bpe.EOS:
                break
        return idx

# ======================================================================== 5. The seven
class Bigram(LanguageModel):
    """1. Predict from the last token alone."""

    def __init__(self, config):
        super().__init__()
        self.config, V, C = config, config.vocab_size, config.n_embd
        self.wte = nn.Embedding(V, C)  # a vector per token
        # Scores of the next token. Stage 3 uses wte again here, but a bigram model with
        # tied weights would score "b after a" like "a after b".
        self.lm_head = nn.Linear(C, V, bias=False)

    def hidden(self, idx):  # (B, T) -> (B, T, C)
        return self.wte(idx)

class Positions(Bigram):
    """2. Predict from the last token and its position in the sequence."""

    def __init__(self, config):
        super().__init__(config)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)  # NEW

    def hidden(self, idx):  # (B, T) -> (B, T, C)
        return self.wte(idx) + self.wpe.weight[: idx.shape[1]]  # NEW: + (T, C)

class Averaging(Positions):
    """3. Predict from the mean of the vectors so far."""

    def mix(self, x):  # (B, T, C) -> (B, T, C)
        T = x.shape[1]
        weights = torch.ones(T, T).tril()  # NEW: row t has ones up to column t ...
        weights = weights / weights.sum(dim=1, keepdim=True)  # ... and now sums to 1
        return weights @ x  # (T, T) @ (B, T, C) -> (B, T, C)

    def hidden(self, idx):  # (B, T) -> (B, T, C)
        return self.mix(super().hidden(idx))  # NEW

class OneHead(Averaging):
    """4. A weighted mean: the weights come from the tokens themselves."""

    def __init__(self, config):
        super().__init__(config)
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=False)  # NEW

    def mix(self, x):  # (B, T, C) -> (B, T, C)
        T, C = x.shape[1:]
        q, k, v = self.c_attn(x).split(C, dim=2)  # (B, T, 3C) -> 3 x (B, T, C)
        scores = q @ k.transpose(1, 2) / math.sqrt(C)  # NEW: (B, T, T)
        future = torch.ones(T, T).triu(1).bool()  # True above the diagonal
        weights = scores.masked_fill(future, -math.inf).softmax(dim=-1)  # NEW
        return weights @ v  # (B, T, T) @ (B, T, C) -> (B, T, C)

class SeveralHeads(OneHead):
    """5. H weighted means side by side, each of C / H of the numbers."""

    def __init__(self, config):
        super().__init__(config)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=False)  # NEW

    def mix(self, x):  # (B, T, C) -> (B, T, C)
        (B, T, C), H = x.shape, self.config.n_head
        heads = (part.view(B, T, H, C // H).transpose(1, 2)  # NEW: (B, H, T, C/H)
                 for part in self.c_attn(x).split(C, dim=2))  # fmt: skip
        y, _ = gpt.attention_by_hand(*heads)  # what mix did above, for each head
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C))  # NEW: mixes the heads

class WithMLP(SeveralHeads):
    """6. Compute something new from what was collected."""

    def __init__(self, config):
        super().__init__(config)
        C = config.n_embd
        wide, narrow = nn.Linear(C, 4 * C, bias=False), nn.Linear(4 * C, C, bias=False)
        self.mlp = nn.Sequential(wide, nn.GELU(approximate="tanh"), narrow)  # NEW

    def hidden(self, idx):  # (B, T) -> (B, T, C)
        return self.mlp(super().hidden(idx))  # NEW

class Block(nn.Module):
    """Attention and MLP of models 5 and 6, now added to x instead of replacing it."""

    def __init__(self, config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=False)  # NEW
        self.attn = gpt.CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=False)  # NEW
        self.mlp = gpt.MLP(config)

    def forward(self, x):  # (B, T, C) -> (B, T, C)
        x = x + self.attn(self.ln_1(x))  # NEW: "x +", and the layer norm
        return x + self.mlp(self.ln_2(x))  # NEW, likewise

class Residual(Positions):
    """7. Residual connections and layer norm, and so several blocks: a GPT."""

    def __init__(self, config):
        super().__init__(config)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))  # NEW
        self.ln_f = nn.LayerNorm(config.n_embd, bias=False)  # NEW

    def hidden(self, idx):  # (B, T) -> (B, T, C)
        x = super().hidden(idx)
        for block in self.h:
            x = block(x)
        return self.ln_f(x)

STEPS = [  # class, what it adds, what that can and cannot do
    (Bigram, "one vector per token",
     "It sees one token, so it can do no better than a table of counted pairs."),
    (Positions, "a vector per position",
     "Stories begin alike, and most are about equally long. So the position says which"
     " words are likely here, whatever the last token is."),
    (Averaging, "the mean over the past",
     "It sees every token so far, but after 100 tokens each is 1/100 of the mean. It no"
     " longer knows which one came last, and that is all a bigram has."),
    (OneHead, "attention weights (one head)",
     "Now a token can take most from the last ones, or from one that matters. But what"
     " it takes replaces its own vector."),
    (SeveralHeads, "several heads",
     "One head can stay with the last token while others look further back."),
    (WithMLP, "an MLP",
     "It can react to combinations of what the heads collected, which no sum can."),
    (Residual, "residual connections, layer norm, blocks",
     "Layers add to a token's vector instead of replacing it, so nothing is lost. Layer"
     " norm keeps the numbers in range, and blocks can be stacked."),
]  # fmt: skip

# ============================================================= 6. Train and measure one
def count_table_loss(ids, valid, V):  # (N,) ids of train.bin -> nats per token
    """The loss of a table of which token followed which: what a bigram can learn."""
    ids = np.asarray(ids[:20_000_000]).astype(np.int64)  # these are enough
    # A pair of ids is one number in base V, so counting pairs is counting numbers.
    pairs, counts = np.unique(ids[:-1] * V + ids[1:], return_counts=True)
    x, y = (t.numpy() for t in stage4.get_batch(valid, 0, min(64, valid.count)))
    place = np.searchsorted(pairs, x * V + y).clip(max=len(pairs) - 1)  # (B, T)
    pair_counts = np.where(pairs[place] == x * V + y, counts[place], 0)  # (B, T)
    firsts = np.bincount(ids[:-1], minlength=V)[x]  # (B, T)
    # 0.01 more for each, because a pair that never occurred is not impossible.
    return -np.log((pair_counts + 0.01) / (firsts + 0.01 * V)).mean().item()

def train_one(model, train, valid):  # -> [[tokens, seconds, validation loss]]
    """Train with stage 4's step; measure ever less often, as learning gets slower."""
    steps = max(1, TOKENS_EACH // (SEQUENCES * train.block_size))
    plan = dict(steps=steps, max_lr=LEARNING_RATE, accumulate=1, micro_batch=SEQUENCES)
    batch, seconds, rows = partial(stage4.get_batch, train), 0.0, []
    optimizer = stage4.configure_optimizer(model)
    measure_at = set(np.geomspace(1, steps, 24).round())
    for step in tqdm(range(steps), type(model).__name__, unit="step", leave=False):
        started = time.perf_counter()
        stage4.train_step(model, optimizer, batch, step, plan, CPU)
        seconds += time.perf_counter() - started  # without the measurements
        if step + 1 in measure_at:
            loss = stage4.estimate_loss(model, valid, CPU)
            if not math.isfinite(loss):
                how = f"Lower LEARNING_RATE in {SCRIPT}, then: python {SCRIPT}"
                raise bpe.stop("Training diverged.", f"The loss is {loss}.", how)
            rows.append([(step + 1) * SEQUENCES * train.block_size, seconds, loss])
    return rows

def read_inputs():  # -> tokenizer, Tokens to train on, Tokens to validate on
    """SystemExit unless what stages 1 and 2 wrote is there and fits together."""
    bpe.in_range(SCRIPT, "TOKENS_EACH", TOKENS_EACH, int, 1_000, 10**10)
    bpe.in_range(SCRIPT, "LEARNING_RATE", LEARNING_RATE, float, 1e-7, 10.0)
    bpe.in_range(SCRIPT, "SEED", SEED, int, 0, 2**31)
    T, tokens = gpt.GPTConfig().block_size, []
    tokenizer = bpe.Tokenizer.load(bpe.OUT / "tokenizer.json")
    meta = bpe.read_json(DATA / "meta.json", "02_prepare.py", "02_prepare/2")
    bpe.check_tokenizer(meta["tokenizer"], "train.bin", "python 02_prepare.py")
    for part, seed in (("train", SEED), ("valid", 0)):
        path, count = DATA / f"{part}.bin", meta[part]["tokens"]
        bpe.need(path, "02_prepare.py")
        if path.stat().st_size != 2 * count or count <= T:  # two bytes per id
            why = f"It should hold {count:,} tokens, and more than {T:,} are needed."
            how = "python 02_prepare.py   # perhaps with a longer TEXT"
            raise bpe.stop(f"{bpe.shown(path)} is damaged or too short.", why, how)
        print(f"[read] {bpe.shown(path)}: {count:,} tokens")
        tokens.append(stage4.Tokens(path, T, seed))
    return tokenizer, *tokens

# ============================================================================== 7. Main
def main():
    tokenizer, train, valid = read_inputs()
    config = gpt.GPTConfig(vocab_size=len(tokenizer))
    uniform = math.log(len(tokenizer))
    counted = count_table_loss(train.ids, valid, len(tokenizer))
    prompt = stage4.choose_prompt(tokenizer, valid.ids)
    idx = torch.tensor([[bpe.BOS, *tokenizer.encode(prompt)]])  # (1, T)
    print(f"[plan] {len(STEPS)} models, {TOKENS_EACH:,} tokens each, on the CPU")
    print(f"[check] uniform baseline ln V = {uniform:.3f}; counted pairs {counted:.3f}")
    print(f"[start] each model continues {prompt!r}\n\n"
          "      loss  change  parameters  what was added, and a sample")  # fmt: skip
    models, before = [], uniform
    for number, (kind, added, why) in enumerate(STEPS, start=1):
        torch.manual_seed(SEED)
        model = kind(config).init_weights()
        if gpt.check_causality(model, stage4.get_batch(valid, 0, 1)[0])[0] > 0:
            why_how = "An edit has broken its mask.", f"Fix it, then: python {SCRIPT}"
            raise bpe.stop(f"{kind.__name__} sees the future.", *why_how)
        rows = train_one(model, train, valid)
        new = model.generate(idx, torch.Generator().manual_seed(SEED))[0].tolist()
        text = tokenizer.decode(new)
        parameters = sum(weights.numel() for weights in model.parameters())
        print(f"{number}  {rows[-1][2]:7.3f} {rows[-1][2] - before:+7.3f}"
              f" {parameters:11,}  {added}")  # fmt: skip
        print(f"{'':30}{' '.join(text[len(prompt) :].split())[:56]}", flush=True)
        models.append({"name": kind.__name__, "added": added, "why": why, "rows": rows,
                       "parameters": parameters, "sample": text})  # fmt: skip
        before = rows[-1][2]
    data = {"models": models, "prompt": prompt, "uniform": uniform, "counted": counted}
    if page := bpe.fill_page("build_up.html", data):
        bpe.write_all({OUT / "build_up.html": page})
        print(f"\n[wrote] {bpe.shown(OUT / 'build_up.html')}: the learning curves")
    print("Next: lessons/04_transformer.md walks through these models")

if __name__ == "__main__":
    bpe.run_stage(main, SCRIPT)
