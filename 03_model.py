# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.13.0", "numpy", "regex", "tqdm"]
# ///
"""Stage 3 of 6: build the model, a GPT, and follow one sentence through it.

    text --> 01_bpe --> 02_prepare --> [03_model] --> 04_train --> 05_eval --> 06_sample
                                        you are here

READS   artifacts/01_bpe/tokenizer.json
WRITES  artifacts/03_model/model.pt   the untrained model: its configuration and its
                                      random weights
RUN     python 03_model.py
TAKES   about 3 seconds with the practice stories (2 cores of an AMD EPYC (Zen 3),
        torch 2.13.0, 2026-11-23)
LESSON  lessons/04_transformer.md (the concepts), lessons/05_model.md (this code)
"""
# =========================================================================== 1. Imports
import importlib
import math
import sys
from dataclasses import asdict, dataclass

try:
    # `import 01_bpe` is a syntax error (a name cannot start with a digit), hence:
    bpe = importlib.import_module("01_bpe")
    import torch
    import torch.nn.functional as F
    from torch import nn
    from torch.utils.checkpoint import checkpoint
except ModuleNotFoundError as error:
    cure = "keep the six scripts together; pip install torch numpy regex tqdm"
    raise SystemExit(f"{error.name} is missing: {cure}") from None

# ============================================================= 2. Constants: edit these
SIZE = "nano"  # "nano", "tiny", "small", "medium": 0.7, 8, 25, 66 million parameters at
#                a vocabulary of 2,048 (1.5, 10, 28, 70 at 8,192); or your own numbers:
#                (blocks n_layer, heads n_head, width n_embd, context block_size)
SEED = 1  # of the random weights; other seeds give slightly better or worse models

SIZES = {"nano": (2, 4, 128, 256), "tiny": (6, 5, 320, 256)}
SIZES |= {"small": (10, 7, 448, 512), "medium": (9, 12, 768, 512)}
OUT = bpe.HERE / "artifacts" / "03_model"
FORMAT = "03_model/2"  # changes when the content of model.pt changes
IGNORE = -1  # a target with this value is not counted in the loss

# ============================================================= 3. Glossary of this file
# Most tensors in this file have some of these dimensions:
# B   batch size: sequences side by side, which never see each other
# T   time: positions in a sequence, at most block_size, the context length (256)
# S   positions attended to: T, plus earlier ones whose keys and values are cached
# C   channels, n_embd: the length of the vector that stands for one token (128)
# H   attention heads (4)                    D   width of a head, C / H (32)
# V   vocabulary size (2,048): ids run from 0 to V - 1
# logits   V scores per position: the larger, the likelier that token comes next
# residual stream   the vectors x, (B, T, C), to which every block adds its result

# ====================================================== 4. The idea: attention, by hand
# Each token is a vector of C numbers. Attention lets a position take information from
# itself and from earlier positions. Each position has a query, a key, and a value, all
# vectors. The dot products of one query with all those keys are scores. Softmax turns
# them into weights that sum to 1. The result is the weighted sum of the values.

def attention_by_hand(q, k, v, bias=None):  # -> (B, H, T, D), (B, H, T, S)
    """Scaled dot-product attention (Vaswani et al., arXiv 1706.03762), step by step.

    q (B, H, T, D), k and v (B, H, S, D); bias (1, H, T, S) or None, added to scores.
    Returns the weighted sums of values and the attention weights. The T queries belong
    to the last T of the S positions; none sees a position after its own.

    >>> same = torch.ones(1, 1, 2, 1)  # two positions with equal queries and keys:
    >>> value = torch.tensor([10.0, 20.0]).view(1, 1, 2, 1)  # (2,) -> (1, 1, 2, 1)
    >>> y, attn_weights = attention_by_hand(same, same, value)
    >>> attn_weights[0, 0].tolist()  # the first sees itself, the second both, equally
    [[1.0, 0.0], [0.5, 0.5]]
    >>> y.flatten().tolist()
    [10.0, 15.0]
    """
    T, S, D = q.shape[2], k.shape[2], q.shape[3]
    # SUBTLE: unscaled, scores grow like sqrt(D), and softmax picks a single winner.
    scores = q / math.sqrt(D) @ k.transpose(2, 3)  # (B,H,T,D) @ (B,H,D,S) -> (B,H,T,S)
    if bias is not None:
        scores = scores + bias  # (B, H, T, S) + (1, H, T, S)
    mask = q.new_full((T, S), -math.inf).triu(S - T + 1)  # -inf in the future, else 0
    attn_weights = (scores + mask).softmax(dim=-1)  # (B,H,T,S); exp(-inf) = 0
    return attn_weights @ v, attn_weights  # (B,H,T,S) @ (B,H,S,D) -> (B,H,T,D)

# ================================================================= 5. The configuration
@dataclass
class GPTConfig:
    vocab_size: int = 2048
    block_size: int = 256  # context length: the most tokens the model can look back on
    n_layer: int = 2
    n_head: int = 4
    n_embd: int = 128
    dropout: float = 0.0  # probability of zeroing an activation while training
    bias: bool = False  # GPT-2 has biases; Llama and many later models do not

    @property
    def n_params(self):
        """Number of parameters; the output layer is the token embedding again."""
        C, bias = self.n_embd, int(self.bias)
        block = (4 + 8) * C * C + 2 * C + bias * 11 * C  # attention, MLP, layer norms
        embeddings = (self.vocab_size + self.block_size) * C
        return embeddings + self.n_layer * block + (1 + bias) * C

    @property
    def flops_per_token(self):
        """Forward pass only; the backward pass costs twice that (arXiv 2001.08361)."""
        C, L = self.n_embd, self.n_layer
        matrices = 12 * C * C * L + self.vocab_size * C  # 2 per weight: times and plus
        return 2 * matrices + 4 * self.block_size * C * L  # 2 T C each: scores, sums

# ======================================================================== 6. The layers
class KVCache:
    """Keys and values of one block so far; those of earlier tokens never change."""

    def __init__(self, block_size):
        self.block_size, self.length = block_size, 0

    def append(self, k, v):  # (B, H, T, D) twice -> (B, H, S, D) twice
        if self.length == 0:
            B, H, _, D = k.shape
            self.buffer = k.new_empty(2, B, H, self.block_size, D)
        past, self.length = self.length, self.length + k.shape[2]
        self.buffer[0, :, :, past : self.length] = k
        self.buffer[1, :, :, past : self.length] = v
        return self.buffer[0, :, :, : self.length], self.buffer[1, :, :, : self.length]

class CausalSelfAttention(nn.Module):
    """Each position attends to itself and all earlier ones, in H heads at once."""

    def __init__(self, config):
        super().__init__()
        C, bias = config.n_embd, config.bias
        self.n_head, self.dropout = config.n_head, config.dropout
        self.c_attn = nn.Linear(C, 3 * C, bias=bias)  # q, k and v in one product
        self.c_proj = nn.Linear(C, C, bias=bias)

    def qkv(self, x):  # (B, T, C) -> three times (B, H, T, D)
        B, T, C = x.shape
        # view cuts each vector of C into H vectors of D; only then may transpose swap
        # H and T. Reshaped straight to (B, H, T, D), different tokens would mix.
        return (
            part.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
            for part in self.c_attn(x).split(C, dim=2)  # (B, T, 3C) -> 3 x (B, T, C)
        )

    def forward(self, x, cache=None, bias=None):  # (B, T, C) -> (B, T, C)
        B, T, C = x.shape
        q, k, v = self.qkv(x)
        if cache is not None:
            k, v = cache.append(k, v)  # (B, H, T, D) -> (B, H, S, D)
        drop = self.dropout if self.training else 0.0
        bias = bias if bias is None else bias.to(q.dtype)  # or scores get float32
        # In bfloat16 on a CPU torch's own attention is slower than ours.
        slow = q.dtype == torch.bfloat16 and q.device.type == "cpu" and not drop
        if slow or 1 < T < k.shape[2]:  # after a past, is_causal would be misaligned
            y, _ = attention_by_hand(q, k, v, bias)
        elif bias is None:  # the same as one operation; one token may see everything
            y = F.scaled_dot_product_attention(q, k, v, None, drop, is_causal=T > 1)
        else:  # bias contains the mask
            y = F.scaled_dot_product_attention(q, k, v, bias, drop)
        y = y.transpose(1, 2).reshape(B, T, C)  # (B,H,T,D) -> (B,T,H,D) -> (B,T,C)
        return F.dropout(self.c_proj(y), self.dropout, self.training)

class MLP(nn.Module):
    """Each position by itself: widen to 4C, apply a nonlinearity, narrow again."""

    def __init__(self, config):
        super().__init__()
        C, self.dropout = config.n_embd, config.dropout
        self.c_fc = nn.Linear(C, 4 * C, bias=config.bias)
        self.c_proj = nn.Linear(4 * C, C, bias=config.bias)

    def forward(self, x):  # (B, T, C) -> (B, T, 4C) -> (B, T, C)
        x = F.gelu(self.c_fc(x), approximate="tanh")  # GELU, arXiv 1606.08415
        return F.dropout(self.c_proj(x), self.dropout, self.training)

class Block(nn.Module):
    """Attention, then MLP; each reads a normalized copy of x and adds its result to x.
    Normalizing first (pre-norm, arXiv 2002.04745) leaves a path with nothing but
    additions from the first block to the last.
    """

    def __init__(self, config):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x, cache=None, bias=None):  # (B, T, C) -> (B, T, C)
        x = x + self.attn(self.ln_1(x), cache, bias)
        return x + self.mlp(self.ln_2(x))

# ========================================================================= 7. The model
class GPT(nn.Module):
    """Token ids in; for each position the logits of the next token out. Architecture
    (without biases) and names of weights are GPT-2's (Radford et al. 2019).
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.checkpointing = False  # gradient checkpointing: less memory, more time
        self.alibi = None  # strength of the distance penalty; None in a finished model
        C, L = config.n_embd, config.n_layer
        self.wte = nn.Embedding(config.vocab_size, C)  # a vector per token
        self.wpe = nn.Embedding(config.block_size, C)  # a vector per position
        self.h = nn.ModuleList(Block(config) for _ in range(L))
        self.ln_f = nn.LayerNorm(C, bias=config.bias)
        self.init_weights(C, L)

    @torch.no_grad()
    def init_weights(self, C, L):
        """Random weights; at every SIZE the untrained logits have a std of about 1."""
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                # 0.55 / sqrt(C) is GPT-2's 0.02 at its width of 768: a narrower matrix
                # sums fewer terms, so its weights are larger. A logit is a sum of C
                # products with an embedding: 1 / sqrt(C) gives it a variance of 1.
                std = (1.0 if name in ("wte.weight", "wpe.weight") else 0.55) / C**0.5
                if name.endswith("c_proj.weight"):
                    std /= math.sqrt(2 * L)  # 2 L results are added to one stream
                nn.init.normal_(weight, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)
        # Identity initialization of the value and output projections (not in GPT-2): a
        # new head already copies part of what it attends to, as repeating a name needs.
        for block in self.h:
            block.attn.c_attn.weight[2 * C :] += 0.5 * torch.eye(C)  # (C, C), for v
            block.attn.c_proj.weight += torch.eye(C) / L  # (C, C); L of these add up

    def hidden(self, idx, cache=None):  # (B, T) -> (B, T, C)
        """The residual stream after the last block, normalized."""
        past = cache[0].length if cache else 0
        positions = torch.arange(past + idx.shape[1], device=idx.device)  # (S,)
        x = self.wte(idx) + self.wpe(positions[past:])  # (B, T, C) + (T, C)
        bias = self.alibi_bias(positions, past) if self.alibi is not None else None
        for i, block in enumerate(self.h):
            if self.checkpointing and self.training:
                x = checkpoint(block, x, None, bias, use_reentrant=False)
            else:
                x = block(x, cache[i] if cache else None, bias)
        return self.ln_f(x)

    def alibi_bias(self, positions, past):  # (S,) -> (1, H, T, S)
        """A penalty on distance (ALiBi, arXiv 2108.12409): each head's scores fall with
        the distance, by a slope of its own. Stage 4 fades it out while training.
        """
        H = self.config.n_head
        slopes = 2.0 ** (-8 / H * torch.arange(1, H + 1, device=positions.device))
        distance = positions[past:, None] - positions  # (T, 1) - (S,) -> (T, S)
        bias = -self.alibi * slopes.view(1, H, 1, 1) * distance  # (1, H, T, S)
        return bias.masked_fill(distance < 0, -math.inf)  # the future, as by hand

    def output(self, x):  # (..., C) -> (..., V)
        """Dot products with all embeddings (tied weights, arXiv 1608.05859)."""
        return F.linear(x, self.wte.weight)

    def forward(self, idx, targets=None, cache=None, return_logits=True):
        """(B, T) ids, (B, T) targets -> (B, T, V) logits, () loss; each may be None."""
        x = self.hidden(idx, cache)  # (B, T, C)
        logits = self.output(x) if return_logits else None  # (B, T, V)
        if targets is None:
            return logits, None
        # (B, T, C) -> (B*T, C), (B, T) -> (B*T,)
        return logits, self.chunked_loss(x.flatten(0, 1), targets.flatten())

    def chunked_loss(self, x, targets):  # (N, C), (N,) -> ()
        """Cross-entropy in nats: the mean of -log(probability of the right next token).
        R rows at a time, because all logits can be the largest tensor by far.
        """
        R = 2 ** (26 if x.is_cuda else 22) // self.config.vocab_size  # 256 or 16 MB
        if x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            # The loop below as one operation of torch; in bfloat16 it is slow.
            how = nn.LinearCrossEntropyOptions(batch_chunk_size=R, chunking_method=None)
            weights = self.wte.weight, targets
            return F.linear_cross_entropy(x, *weights, ignore_index=IGNORE, options=how)
        loss = 0.0
        for rows, ids in zip(x.split(R), targets.split(R)):  # (R, C), (R,)
            logits = self.output(rows)  # (R, C) -> (R, V)
            loss += F.cross_entropy(logits, ids, ignore_index=IGNORE, reduction="sum")
        return loss / (targets != IGNORE).sum()

    def new_cache(self):
        return [KVCache(self.config.block_size) for _ in self.h]

    @torch.no_grad()
    def generate(self, idx, max_new_tokens, temperature=1.0, top_k=None, min_p=0.0,
                 stop_id=-1, rng=None):  # (B, T) -> (B, T + n)  # fmt: skip
        """Get the probabilities, sample a token, append it, repeat (see stage 6). Ends
        early once every row has had stop_id; past block_size it continues from the last
        half. rng: a torch.Generator of the CPU, for repeatable samples.
        """
        block_size, prompt_length = self.config.block_size, idx.shape[1]
        cache, unread = self.new_cache(), idx[:, -block_size:]
        for _ in range(max_new_tokens):
            if cache[0].length == block_size:  # cached keys contain their positions
                cache, unread = self.new_cache(), idx[:, -(block_size // 2) :]
            logits = self.output(self.hidden(unread, cache)[:, -1])  # (B, C) -> (B, V)
            logits = logits.float().cpu()  # sampling on Apple GPUs has been wrong
            if top_k is not None:
                kth = logits.topk(min(top_k, logits.shape[1])).values[:, -1:]  # (B, 1)
                logits = logits.masked_fill(logits < kth, -math.inf)
            probs = (logits / max(temperature, 1e-9)).softmax(dim=-1)  # (B, V), sum 1
            probs[probs < min_p * probs.amax(dim=-1, keepdim=True)] = 0.0
            new = torch.multinomial(probs, 1, generator=rng)  # (B, V) -> (B, 1)
            unread = new.to(idx.device)
            idx = torch.cat([idx, unread], dim=1)  # (B, T) -> (B, T + 1)
            if (idx[:, prompt_length:] == stop_id).any(dim=1).all():
                break
        return idx

    @classmethod
    def load(cls, path, writer, dropout=0.0):
        """A checkpoint of stage 3 or 4 -> (GPT, the rest); SystemExit if damaged."""
        bpe.need(path, writer)
        content = load_checkpoint(path, f"python {writer}")
        try:
            model = cls(GPTConfig(**content["config"] | {"dropout": dropout}))
            model.load_state_dict(content.pop("weights"))
            model.alibi = content.get("alibi") or None  # a number: stopped early
        except (KeyError, RuntimeError, TypeError, ValueError):
            what = f"{bpe.shown(path)} cannot be used."
            why = "Its weights do not fit the GPT that 03_model.py describes now."
            raise bpe.stop(what, why, f"python {writer}") from None
        return model, content

# ========================================= 8. Files and devices (skip on first reading)
def save_checkpoint(path, content):  # a dict of plain data and tensors
    def save(file):
        try:
            torch.save(content, file)
        except RuntimeError as error:  # it hides an OSError, such as a full disk
            raise error.__context__ or error from None

    bpe.write_all({path: save})

def load_checkpoint(path, command):
    """Read a checkpoint to the CPU; SystemExit if it is damaged or not plain data."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for damaged files
        why = f"Missing, truncated, or of another kind ({error!r:.120})."
        raise bpe.stop(f"{bpe.shown(path)} cannot be read.", why, command) from None

def available_devices():  # -> [torch.device], the best first
    mps, cuda = torch.backends.mps.is_available(), torch.cuda.is_available()
    return [torch.device(name) for name in ["mps"] * mps + ["cuda"] * cuda + ["cpu"]]

@torch.no_grad()
def pick_device(model, wanted, script):  # -> torch.device; the model moves there
    """DEVICE of stages 5 and 6; SystemExit unless its logits agree with the CPU's."""
    devices = available_devices()
    bpe.one_of(script, "DEVICE", wanted, ["auto", *(d.type for d in devices)])
    device = devices[0] if wanted == "auto" else torch.device(wanted)
    print(f"[plan] device {device} (here are: {', '.join(d.type for d in devices)})")
    idx = torch.arange(model.config.block_size)[None] % model.config.vocab_size  # (1,T)
    right = model.cpu()(idx)[0]  # (1, T, V)
    error = (model.to(device)(idx.to(device))[0].cpu() - right).abs().max().item()
    if not error <= 1e-3 * right.abs().max():  # written this way, nan is refused too
        why = f"Its logits are off by {error:.3g}: do not trust it with this model."
        how = f'Set DEVICE = "cpu" in {script}, then: python {script}'
        raise bpe.stop(f"{device} does not compute what the CPU computes.", why, how)
    return device

def peak_megabytes(device):  # the most memory held so far; nan if nobody can tell
    if device.type == "mps":
        return torch.mps.driver_allocated_memory() / 2**20  # it gives nothing back
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved() / 2**20
    try:
        import resource  # not on Windows
    except ImportError:
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KB here

# ============================================================================ 9. Checks
def read_size(vocab_size):  # SIZE -> GPTConfig; SystemExit if it makes no model
    script = "03_model.py"
    bpe.in_range(script, "SEED", SEED, int, 0, 2**63 - 1)
    numbers = SIZES.get(SIZE) if isinstance(SIZE, str) else SIZE
    if not isinstance(numbers, tuple) or len(numbers) != 4:
        bpe.one_of(script, "SIZE", SIZE, [*SIZES, "(blocks, heads, width, context)"])
    names, lowest = ("blocks", "heads", "width", "context"), (1, 1, 2, 8)
    for name, number, low in zip(names, numbers, lowest):
        bpe.in_range(script, f"SIZE's {name}", number, int, low, 8192)
    n_layer, n_head, n_embd, block_size = numbers
    if n_embd % n_head:
        raise bpe.unusable(script, "SIZE's width", n_embd, f"a multiple of {n_head}")
    return GPTConfig(vocab_size, block_size, n_layer, n_head, n_embd)

@torch.no_grad()
def check_causality(model, idx):  # (1, T) -> largest changes before and from the middle
    """Change the token in the middle: no logits before it may change."""
    middle, other = idx.shape[1] // 2, idx.clone()
    other[0, middle] = (idx[0, middle] + 1) % model.config.vocab_size
    change = (model(idx)[0] - model(other)[0]).abs().amax(dim=(0, 2))  # (1,T,V) -> (T,)
    return change[:middle].max().item(), change[middle:].max().item()

def check_cases(model, idx):  # (1, T) -> largest difference between logits
    """Compare one pass with three parts and a KV cache: all cases of attention."""
    parts, differences = idx.split([2, 1, idx.shape[1] - 3], dim=1), []
    for alibi in (1.0, None):  # with the distance penalty and without
        model.alibi, cache = alibi, model.new_cache()
        logits = torch.cat([model(part, cache=cache)[0] for part in parts], dim=1)
        differences.append((logits - model(idx)[0]).abs().max())  # (1, T, V) -> ()
    return torch.stack(differences).max().item()  # nan if one is

@torch.no_grad()
def run_checks(model, idx):  # (B, T + 1)
    """Print how the untrained model behaves; SystemExit if an edit has broken it."""
    loss = model(idx[:, :-1], idx[:, 1:])[1].item()
    before, after = check_causality(model, idx[:1, :-1])
    difference = check_cases(model, idx[:1, :-1])
    fix = "Fix it in 03_model.py, then: python 03_model.py"
    if not (before == 0 and after > 0):  # written this way, nan is refused too
        why = f"A token was changed, and the logits before it moved by {before:g}."
        raise bpe.stop("The causal mask is broken: a token sees the future.", why, fix)
    if not difference < 1e-3:
        why = f"With a KV cache logits differ by {difference:.2g}: more than rounding."
        raise bpe.stop("The cases of attention disagree.", why, fix)
    print(f"[check] loss on random ids {loss:.3f}; the uniform baseline is ln V =")
    print(f"        {math.log(model.config.vocab_size):.3f}; random weights are worse")
    print(f"[check] one changed token moved earlier logits by {before:g}, its own and")
    print(f"        later ones by up to {after:.3f}: the causal mask works")
    print(f"[check] attention by hand and torch's differ by {difference:.1g}: rounding")

# ============================================================================= 10. Main
def main():
    tokenizer = bpe.Tokenizer.load()
    print(f"[read] {bpe.shown(bpe.OUT / 'tokenizer.json')}: {len(tokenizer):,} tokens")
    config = read_size(len(tokenizer))
    print(f"[plan] SIZE {SIZE!r}: {config}")
    torch.manual_seed(SEED)
    model = GPT(config).eval()
    tour(model, tokenizer)
    parts = {"wte": "token embedding, V x C; also the output layer",
             "wpe": "position embedding, block_size x C",
             "h": "blocks: attention 4 x C x C, MLP 8 x C x C, layer norms 2 x C",
             "ln_f": "final layer norm, C"}  # fmt: skip
    for name, what in parts.items():
        weights = sum(w.numel() for w in model.get_submodule(name).parameters())
        print(f"  {name:5}{weights:12,}  {what}")
    print(f"  {config.n_params:17,}  parameters in all")
    print(f"  {config.flops_per_token:17,}  FLOPs per token, forward, full context\n")
    run_checks(model, torch.randint(len(tokenizer), (16, config.block_size + 1)))
    content = {"format": FORMAT, "config": asdict(config), "seed": SEED}
    content["tokenizer"] = bpe.sha256_of(bpe.OUT / "tokenizer.json")
    content["weights"] = model.state_dict()
    path = OUT / "model.pt"
    save_checkpoint(path, content)
    print(f"[wrote] {bpe.shown(path)}: {path.stat().st_size:,} bytes, 4 per parameter")
    print("Next: python 04_train.py")

@torch.no_grad()
def tour(model, tokenizer, sentence="Once upon a time, there"):
    """Print every shape on the way of one sentence through the first block."""
    idx = torch.tensor([tokenizer.encode(sentence)])[:, : model.config.block_size]
    tokens = [bpe.show(tokenizer.token_bytes[i]) for i in idx[0].tolist()]

    def show(what, tensor, meaning):
        print(f"  {what:20}{str(tuple(tensor.shape)):15}{meaning}")
        return tensor

    print(f"\n[start] follow {sentence!r}: {'|'.join(tokens)}\n")
    show("idx", idx, "B = 1 sequence of T token ids")
    x = show("wte(idx)", model.wte(idx), "each id became a vector of C numbers")
    x = x + model.wpe.weight[: idx.shape[1]]  # (1, T, C) + (T, C)
    show("x = ... + wpe(...)", x, "the residual stream: tokens and positions")
    block = model.h[0]
    normed = show("ln_1(x)", block.ln_1(x), "each vector: mean 0, variance 1")
    q, k, v = block.attn.qkv(normed)
    show("q, and so k and v", q, "queries, keys and values, one per head and token")
    y, attn_weights = attention_by_hand(q, k, v)
    show("attn_weights", attn_weights, "softmax(q k / sqrt(D)); rows sum to 1")
    show("attn_weights @ v", y, "weighted sums of values, per head")
    x = x + block.attn.c_proj(y.transpose(1, 2).flatten(2))  # (1,H,T,D) -> (1,T,C)
    show("x = x + c_proj(...)", x, "heads side by side, mixed and added")
    y = F.gelu(block.mlp.c_fc(block.ln_2(x)), approximate="tanh")  # (1, T, 4C)
    show("gelu(c_fc(ln_2(x)))", y, "4C wide, after the nonlinearity")
    show("x = x + c_proj(...)", x + block.mlp.c_proj(y), "added: the end of block 1")
    show("logits", model(idx)[0], "after all blocks: V scores per position")
    print()

if __name__ == "__main__":
    hint = "Choose a smaller SIZE at the top of 03_model.py, then: python 03_model.py"
    bpe.run_stage(main, "03_model.py", memory_hint=hint)
