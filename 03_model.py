# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.13.0", "numpy", "regex", "tqdm"]
# ///
"""Stage 3 of 6: build the model, a GPT, and look at what one sentence does inside it.

    text --> 01_bpe --> 02_prepare --> [03_model] --> 04_train --> 05_eval --> 06_sample
                                        you are here

READS   artifacts/01_bpe/tokenizer.json
WRITES  artifacts/03_model/model.pt   the model before its first lesson: architecture
                                      and random weights
RUN     python 03_model.py
TAKES   about 3 seconds with the practice stories (2 cores of an AMD EPYC (Zen 3),
        torch 2.13.0, 2026-11-23)
LESSON  lessons/04_transformer.md (the concepts), lessons/05_model.md (this code)
"""

# ======================================================================= 2. IMPORTS
import importlib
import math
import os
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE / "lessons"))
import machine  # lessons/machine.py: devices, memory, checkpoints
from plumbing import in_range, need, one_of, run_stage, sha256_of, shown, stop

# `import 01_bpe` is a syntax error, because a name cannot begin with a digit; this says
# the same. We take the class Tokenizer from there: one copy, so that an edit of stage 1
# is an edit everywhere.
bpe = importlib.import_module("01_bpe")

# ===================================================================== 3. CONSTANTS
# -- which model
SIZE = "nano"  # "nano", "tiny", "small", "medium": 1, 10, 28, 70 million parameters at
#                vocabulary 8,192; or your own numbers, e.g. (4, 4, 128, 256)
SEED = 1  # of the random weights; another seed, another model of the same quality
SIZES = {  # (blocks, heads, width, context in tokens)
    "nano": (2, 3, 96, 256),
    "tiny": (6, 5, 320, 256),
    "small": (10, 7, 448, 512),
    "medium": (9, 12, 768, 512),
}

IN = HERE / "artifacts" / "01_bpe"
OUT = HERE / "artifacts" / "03_model"
FORMAT = "03_model/1"  # changes when model.pt changes its form

# ========================================================================= 4. WORDS
# Every tensor in this file has some of these dimensions, in this order:
# B   batch: texts side by side, which never see each other
# T   time: tokens of a text, at most the context (256)
# S   tokens that can be looked at: T, or with a cache the earlier ones and these T
# C   channels, the width: numbers that stand for one token (96 for nano)
# H   heads of attention (3)                D   width of a head, C / H (32)
# V   vocabulary (2,048): ids run from 0 to V-1
# weight    a number that training changes; parameters are all of them together
# logits    V numbers per token: the larger, the likelier the next token is this one

# ====================================================================== 5. THE IDEA
# A token is a row of C numbers. Attention lets each token fetch from the tokens before
# it: it asks (query), every earlier token says what it offers (key); the better the
# two fit, the more of that token's value is added. Softmax makes the shares sum to 1.


def attention_by_hand(q, k, v):  # (B,H,T,D), (B,H,S,D) twice -> (B,H,T,D), (B,H,T,S)
    """Scaled dot-product attention (Vaswani et al., arXiv 1706.03762), step by step.

    Returns what each token fetched, and the shares with which it did. The T queries are
    the last T of the S tokens; none sees a token after itself.

    >>> one = torch.ones(1, 1, 2, 1)  # two tokens that agree in everything ...
    >>> value = torch.tensor([10.0, 20.0]).view(1, 1, 2, 1)  # (2,) -> (1, 1, 2, 1)
    >>> out, shares = attention_by_hand(one, one, value)
    >>> shares[0, 0].tolist()  # ... the first sees itself, the second both, equally
    [[1.0, 0.0], [0.5, 0.5]]
    >>> out.flatten().tolist()
    [10.0, 15.0]
    """
    T, S, D = q.shape[2], k.shape[2], q.shape[3]
    # SUBTLE: without / sqrt(D) the scores grow with D, and softmax picks one winner.
    scores = q / math.sqrt(D) @ k.transpose(2, 3)  # (B,H,T,D) @ (B,H,D,S) -> (B,H,T,S)
    future = q.new_full((T, S), -math.inf).triu(S - T + 1)  # elsewhere 0
    shares = (scores + future).softmax(dim=-1)  # (B,H,T,S); exp(-inf) = 0
    return shares @ v, shares  # (B,H,T,S) @ (B,H,S,D) -> (B,H,T,D)


# ======================================================================== 6. PIECES
class Cache:
    """The keys and values of one block so far: those of earlier tokens do not change.

    Room for a whole context is taken at once: to make the tensors one token longer each
    time would copy everything again and again. For writing, not for training.
    """

    def __init__(self, context):
        self.context, self.length = context, 0

    def append(self, k, v):  # (B, H, T, D) twice -> (B, H, S, D) twice
        if self.length == 0:
            B, H, _, D = k.shape
            self.room = k.new_empty(2, B, H, self.context, D)
        past, self.length = self.length, self.length + k.shape[2]
        self.room[0, :, :, past : self.length] = k
        self.room[1, :, :, past : self.length] = v
        return self.room[0, :, :, : self.length], self.room[1, :, :, : self.length]


class Attention(nn.Module):
    """Every token fetches from the tokens before it, in H heads at once."""

    def __init__(self, n_head, n_embd, dropout):
        super().__init__()
        self.n_head = n_head
        self.dropout = dropout
        self.c_attn = nn.Linear(n_embd, 3 * n_embd, bias=False)  # q, k and v in one go
        self.c_proj = nn.Linear(n_embd, n_embd, bias=False)

    def split(self, x):  # (B, T, C) -> three times (B, H, T, D)
        B, T, C = x.shape
        qkv = self.c_attn(x)  # (B, T, C) -> (B, T, 3C)
        # view cuts each row of C into H pieces of D; only then may H and T change
        # places. A single view to (B, H, T, D) would mix numbers of different tokens.
        return (
            part.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
            for part in qkv.split(C, dim=2)  # (B, T, 3C) -> 3 x (B, T, C)
        )

    def forward(self, x, cache=None):  # (B, T, C) -> (B, T, C)
        B, T, C = x.shape
        q, k, v = self.split(x)
        if cache is not None:  # (B, H, T, D) -> (B, H, S, D), the past included
            k, v = cache.append(k, v)
        drop = self.dropout if self.training else 0.0
        # In bfloat16 on a CPU torch's operation is slower than ours (bench_train.py).
        slow = q.dtype == torch.bfloat16 and q.device.type == "cpu" and not drop
        if k.shape[2] == T and not slow:
            # What attention_by_hand does, as one operation of torch (a test compares).
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=drop, is_causal=True)
        elif T == 1:  # one new token may see all that there is: no mask
            y = F.scaled_dot_product_attention(q, k, v)
        else:  # with a past, torch's is_causal would align the mask at the wrong corner
            y, _ = attention_by_hand(q, k, v)
        y = y.transpose(1, 2).reshape(B, T, C)  # (B,H,T,D) -> (B,T,H,D) -> (B,T,C)
        return F.dropout(self.c_proj(y), self.dropout, self.training)


class MLP(nn.Module):
    """Every token, by itself, thinks about what it has fetched."""

    def __init__(self, n_embd, dropout):
        super().__init__()
        self.dropout = dropout
        self.c_fc = nn.Linear(n_embd, 4 * n_embd, bias=False)
        self.c_proj = nn.Linear(4 * n_embd, n_embd, bias=False)

    def forward(self, x):  # (B, T, C) -> (B, T, 4C) -> (B, T, C)
        x = F.gelu(self.c_fc(x), approximate="tanh")  # GELU, arXiv 1606.08415
        return F.dropout(self.c_proj(x), self.dropout, self.training)


class Block(nn.Module):
    """Attention, then MLP; each reads a normalised copy and adds to the stream x.

    Normalising before, not after (pre-norm, arXiv 2002.04745), leaves a path from the
    first to the last block on which nothing but additions happen.
    """

    def __init__(self, n_head, n_embd, dropout):
        super().__init__()
        self.ln_1 = nn.LayerNorm(n_embd, bias=False)
        self.attn = Attention(n_head, n_embd, dropout)
        self.ln_2 = nn.LayerNorm(n_embd, bias=False)
        self.mlp = MLP(n_embd, dropout)

    def forward(self, x, cache=None):  # (B, T, C) -> (B, T, C)
        x = x + self.attn(self.ln_1(x), cache)
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """The model: ids in, for each the logits of the next id out.

    config: dict of vocab_size, context, n_layer, n_head, n_embd (plain integers).
    The form is GPT-2's (Radford et al. 2019), without its biases; the names of the
    weights are GPT-2's too, so that other tools can read them.
    """

    def __init__(self, config, dropout=0.0):
        super().__init__()
        self.config = dict(config)
        self.checkpointing = False  # True: less memory, a third more time, same result
        C, L = config["n_embd"], config["n_layer"]
        self.wte = nn.Embedding(config["vocab_size"], C)  # what a token is
        self.wpe = nn.Embedding(config["context"], C)  # where it stands
        self.h = nn.ModuleList(Block(config["n_head"], C, dropout) for _ in range(L))
        self.ln_f = nn.LayerNorm(C, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                # GPT-2 starts all at 0.02, and is 768 wide. A narrower matrix adds up
                # fewer numbers, so they must be larger for an equal sum; embeddings
                # are larger still, lest they drown in what the blocks add to them.
                std = (1.0 if name.startswith("w") else 0.55) / math.sqrt(C)
                if name.endswith("c_proj.weight"):
                    # 2 L additions into one stream: keep their sum as large as one.
                    std /= math.sqrt(2 * L)
                nn.init.normal_(weight, std=std)
        with torch.no_grad():
            # A head starts as a copier: it hands on, a little, just what it looks at.
            # To write the hero's name again it then has only to learn where to look.
            for block in self.h:
                block.attn.c_attn.weight[2 * C :] += 0.5 * torch.eye(C)  # (C, C)
                # Copies are alike and add up in full: by L, not by its root.
                block.attn.c_proj.weight += torch.eye(C) / L

    def hidden(self, ids, cache=None):  # (B, T) -> (B, T, C)
        """The stream after the last block; cache: of new_cache(), or None."""
        past = cache[0].length if cache else 0
        places = torch.arange(past, past + ids.shape[1], device=ids.device)  # (T,)
        x = self.wte(ids) + self.wpe(places)  # (B, T, C) + (T, C) -> (B, T, C)
        for i, block in enumerate(self.h):
            if self.checkpointing and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x, cache[i] if cache is not None else None)
        return self.ln_f(x)

    def forward(self, ids, cache=None):  # (B, T) -> (B, T, V)
        """Logits: how well each token of the vocabulary would continue. The embedding
        serves again as the last layer (tied, arXiv 1608.05859): V x C weights saved.
        """
        return F.linear(self.hidden(ids, cache), self.wte.weight)

    def loss(self, ids, targets, reduction="mean"):  # (B, T), (B, T) -> () or (B, T)
        """Cross-entropy in nats: -log of the probability given to the right next id.

        Targets of -1 are not counted. Computed R rows at a time, because B x T x V
        logits at once are by far the largest tensor of all.
        """
        x, right = self.hidden(ids).flatten(0, 1), targets.flatten()  # (B*T, C), (B*T,)
        W, V = self.wte.weight, self.config["vocab_size"]  # W: (V, C)
        R = max(1, 2 ** (26 if x.is_cuda else 22) // V)  # logits of 256 or 16 MB
        exact = x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        if exact and reduction == "mean" and torch.is_grad_enabled():
            # What the loop below does, as one operation of torch (a test compares). It
            # takes a piece's gradient at once, and so it need not keep the logits. Not
            # for bfloat16, where it is slow, nor for GPUs, where we have not tried it.
            how = nn.LinearCrossEntropyOptions(batch_chunk_size=R, chunking_method=None)
            return F.linear_cross_entropy(x, W, right, ignore_index=-1, options=how)
        losses = []
        for rows, ids in zip(x.split(R), right.split(R)):  # (R, C), (R,)
            logits = F.linear(rows, W)  # (R, C) -> (R, V)
            losses += [F.cross_entropy(logits, ids, reduction="none", ignore_index=-1)]
        losses = torch.cat(losses).view(targets.shape)  # (B*T,) -> (B, T)
        return losses if reduction == "none" else losses.sum() / (targets >= 0).sum()

    def new_cache(self):
        """An empty cache for forward: per block, the keys and values seen so far."""
        return [Cache(self.config["context"]) for _ in self.h]

    @classmethod
    def load(cls, path, writer, dropout=0.0):
        """A file of stage 3 or 4 -> (GPT, everything else in the file).

        Raises SystemExit, naming the stage to run, if it is missing or damaged.
        """
        need(path, writer)
        again = f"python {writer}"
        content = machine.load_checkpoint(path, again)
        try:
            model = cls(content["config"], dropout)
            model.load_state_dict(content.pop("weights"))
        except (KeyError, RuntimeError, TypeError, ValueError):
            why = "Its weights are not those of the GPT that 03_model.py describes now."
            raise stop(f"{shown(path)} does not fit.", why, again) from None
        return model, content


# ---- counting


def count_parameters(config):  # -> {part: number of weights}
    """The weights of each part; their sum is what people call the size of a model."""
    C, L = config["n_embd"], config["n_layer"]
    return {
        "token embedding   V x C": config["vocab_size"] * C,
        "position embedding  T x C": config["context"] * C,
        f"attention   {L} x 4 C x C": L * 4 * C * C,
        f"MLP         {L} x 8 C x C": L * 8 * C * C,
        f"layer norms ({L} x 2 + 1) C": (2 * L + 1) * C,
    }


def flops_per_token(config):  # -> floating-point operations of forward, per token
    """Multiplications and additions of one token on its way through the model.

    A matrix of n weights costs 2 n (arXiv 2001.08361); attention adds 2 T C for the
    scores and 2 T C for the sum, per block. Backward costs twice as much again.
    """
    C, L = config["n_embd"], config["n_layer"]
    matrices = 12 * C * C * L + config["vocab_size"] * C  # with the tied last layer
    return 2 * matrices + 4 * config["context"] * C * L


# ======================================================================== 7. CHECKS
def check_constants(vocab_size):
    """SIZE -> config. Raises SystemExit, naming what is wrong with it."""
    in_range("03_model.py", "SEED", SEED, int, 0, 2**63 - 1)
    if isinstance(SIZE, tuple) and len(SIZE) == 4:
        names, highest = ("blocks", "heads", "width", "context"), (96, 64, 8192, 8192)
        for i, (name, high) in enumerate(zip(names, highest)):
            in_range("03_model.py", f"SIZE[{i}] ({name})", SIZE[i], int, 1, high)
        numbers = SIZE
    else:
        one_of("03_model.py", "SIZE", SIZE, [*SIZES, "(blocks, heads, width, context)"])
        numbers = SIZES[SIZE]
    n_layer, n_head, n_embd, context = numbers
    if n_embd % n_head:
        raise stop(
            f"SIZE: a width of {n_embd} cannot be shared by {n_head} heads.",
            f"{n_embd} / {n_head} must be a whole number; 32 and 64 are good ones.",
            "Edit SIZE at the top of 03_model.py, then: python 03_model.py",
        )
    config = {"vocab_size": vocab_size, "context": context}
    return config | {"n_layer": n_layer, "n_head": n_head, "n_embd": n_embd}


@torch.no_grad()
def check_causality(model, ids):  # (1, T) -> largest change, before and after the place
    """Change one token in the middle: what comes before it must not notice."""
    middle = ids.shape[1] // 2
    other = ids.clone()
    other[0, middle] = (ids[0, middle] + 1) % model.config["vocab_size"]
    change = (model(ids) - model(other)).abs().amax(dim=(0, 2))  # (1, T, V) -> (T,)
    return change[:middle].max().item(), change[middle:].max().item()


# ========================================================================== 8. MAIN
def main():
    tokenizer = bpe.Tokenizer.load(IN / "tokenizer.json")
    print(f"[read] {shown(IN / 'tokenizer.json')}: vocabulary V = {len(tokenizer):,}")
    config = check_constants(len(tokenizer))
    name = f"SIZE {SIZE!r}" if isinstance(SIZE, str) else "your own size"
    print(
        f"[plan] {name}: {config['n_layer']} blocks, {config['n_head']} heads,"
        f" width {config['n_embd']}, context {config['context']}"
    )
    torch.manual_seed(SEED)
    model = GPT(config).eval()
    tour(model, tokenizer)
    table(model)
    with torch.no_grad():
        ids = torch.randint(len(tokenizer), (16, config["context"] + 1))
        loss = model.loss(ids[:, :-1], ids[:, 1:]).item()
    blind = math.log(len(tokenizer))
    print(f"[check] untrained loss {loss:.3f}; blind guesses cost ln V = {blind:.3f};")
    print(f"        random weights have opinions, {loss - blind:.2f} worse than none")
    before, after = check_causality(model, ids[:1, :-1])
    middle = config["context"] // 2
    if not before == 0 < after:  # so written, `nan` is refused as well
        what = "The causal mask is broken: a token sees the future."
        why = f"Token {middle} changed: the logits before it moved by {before:g}."
        raise stop(what, why, "Mend Attention in 03_model.py: python 03_model.py")
    print(f"[check] token {middle} changed: the logits before it moved by {before:g},")
    print(f"        from it on by up to {after:.3f}: no future leaks into the past")
    content = {"format": FORMAT, "config": config, "weights": model.state_dict()}
    content |= {"tokenizer": sha256_of(IN / "tokenizer.json"), "seed": SEED}
    content |= {"source": sha256_of(Path(__file__))}
    machine.save_checkpoint(OUT / "model.pt", content)
    size = os.path.getsize(OUT / "model.pt")
    print(f"[wrote] {shown(OUT / 'model.pt')}: {size:,} bytes, 4 per parameter")
    print("Next: python 04_train.py")


@torch.no_grad()
def tour(model, tokenizer, sentence="Once upon a time, there"):
    """Print every shape on the way of one sentence through the first block."""
    ids = torch.tensor([tokenizer.encode(sentence)])  # (1, T)
    tokens = [bpe.show(tokenizer.token_bytes[i]) for i in ids[0].tolist()]

    def line(what, tensor, why):
        first = ", ".join(f"{x:.2f}" for x in tensor.flatten()[:3].tolist())
        print(f"  {what:22}{str(tuple(tensor.shape)):18}{first:20} {why}")

    print(f"\n[start] a tour with {sentence!r}: {'|'.join(tokens)}\n")
    print(f"  {'':22}{'shape':18}{'first numbers':20} what it is")
    line("ids", ids, "B = 1 text of T tokens")
    x = model.wte(ids)
    line("wte(ids)", x, "each id became its row of C numbers")
    x = x + model.wpe(torch.arange(ids.shape[1]))
    line("+ wpe(0..T-1)", x, "the stream: now it knows the places too")
    block = model.h[0]
    normed = block.ln_1(x)
    line("ln_1(x)", normed, "each row: mean 0, variance 1")
    q, k, v = block.attn.split(normed)
    line("q", q, "H queries per token: what am I looking for?")
    line("k", k, "H keys: what have I to offer?")
    line("v", v, "H values: what do I hand over?")
    y, shares = attention_by_hand(q, k, v)
    line("shares", shares, "softmax(q k / sqrt(D)): T x T, rows sum to 1")
    line("shares @ v", y, "what each token fetched, per head")
    y = block.attn.c_proj(y.transpose(1, 2).flatten(2))  # (1,H,T,D) -> (1,T,C)
    line("c_proj(...)", y, "the heads side by side, mixed")
    x = x + y
    line("x + ...", x, "added to the stream")
    hidden = F.gelu(block.mlp.c_fc(block.ln_2(x)), approximate="tanh")
    line("gelu(c_fc(ln_2(x)))", hidden, "4C wide: room to think")
    x = x + block.mlp.c_proj(hidden)
    line("x + c_proj(...)", x, "the end of the first block")
    line("logits", model(ids), "after all blocks: V numbers for the next token\n")
    print("  Whom the first head looks at (before training, at nobody in particular):")
    for i, token in enumerate(tokens):
        row = " ".join(f"{share:4.2f}" for share in shares[0, 0, i, : i + 1].tolist())
        print(f"  {token:>10}  {row}")
    print(f"  {'':10}  {' '.join(f'{token[:4]:4}' for token in tokens)}\n")


def table(model):
    """Print the parameter table, and that it adds up to what torch counts."""
    parts = count_parameters(model.config)
    for part, number in parts.items():
        print(f"  {part:28}{number:12,}")
    total = sum(weight.numel() for weight in model.parameters())
    print(f"  {'together':28}{sum(parts.values()):12,}   torch counts {total:,}")
    flops = flops_per_token(model.config)
    print(f"  {flops / 1e6:.1f} million operations per token to predict the next,")
    print("  three times as many to learn from it\n")
    if sum(parts.values()) != total:
        what = f"The table counts {sum(parts.values()):,} weights, torch {total:,}."
        why = "count_parameters() does not tell of all that GPT has, or of too much."
        raise stop(what, why, "Mend it in 03_model.py, then: python 03_model.py")


# ========================================================================= 9. GUARD
if __name__ == "__main__":
    run_stage(main, "03_model.py")
