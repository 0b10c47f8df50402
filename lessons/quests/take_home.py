# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.13.0", "numpy", "regex", "tqdm"]
# ///
"""Side quest: make your model four times smaller, and let other programs run it.

READS   artifacts/04_train/best.pt, artifacts/01_bpe/tokenizer.json,
        artifacts/02_prepare/valid.bin, lessons/quests/int8.c
WRITES  artifacts/take_home/hugging-face/   for transformers and mlx-lm
        artifacts/take_home/story-f32.gguf  for llama.cpp, LM Studio, Ollama
        artifacts/take_home/story-q8.gguf   the same in 8 bits instead of 32
        artifacts/take_home/Modelfile       what Ollama wants to know of it
RUN     python lessons/quests/take_home.py
LESSON  lessons/quests/take_home.md

No library writes these files: each is a header, names and numbers, and you can see
every byte of them here and in containers.py beside this script.
"""
# =========================================================================== 1. Imports
import contextlib
import copy
import ctypes
import functools
import importlib
import json
import math
import re
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

QUESTS = Path(__file__).resolve().parent
ROOT = QUESTS.parent.parent
sys.path[:0] = [str(ROOT), str(QUESTS)]
import containers  # noqa: E402  safetensors and GGUF

# `import 01_bpe` is a syntax error (a name cannot start with a digit), hence:
bpe = importlib.import_module("01_bpe")
gpt = importlib.import_module("03_model")

import numpy as np  # noqa: E402  01 and 03 have said so if a package is missing
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

# ============================================================= 2. Constants: edit these
NAME = "story"  # of the model, and of the .gguf files
STORIES = 200  # validation stories on which 8 bits are compared with 32
TOKENS = 200  # to generate when the speed is measured
C_COMPILER = "cc"  # None: do without; slower, same numbers
# What the files propose to programs that generate with them
TEMPERATURE = 0.8
TOP_P = 0.95

ME = "lessons/quests/take_home.py"
MODEL = ROOT / "artifacts" / "04_train" / "best.pt"
DATA = ROOT / "artifacts" / "02_prepare"
OUT = ROOT / "artifacts" / "take_home"
GROUP = 32  # weights that share a scale: Q8_0 of llama.cpp wants 32

# ============================================================= 3. Glossary of this file
# N, K   rows and columns of a matrix of weights     G   groups in a row, K / 32
# scale  of a group: what the whole number 1 stands for there
# int8   a whole number from -128 to 127: one byte    float32   four bytes
# Q8_0   llama.cpp's name: 32 int8 and one scale of two bytes, 34 bytes instead of 128


# =========================================================== 4. The idea: whole numbers
# Weights do not need seven digits. Let the largest of a group of 32 be 127, and count
# the others in steps of a 127th of it. An outlier then spoils its 31 neighbors and no
# more, which is why the groups are small.


def quantize_by_hand(group):  # -> (whole numbers, scale)
    """The weights of a group as whole numbers times one scale (absmax).

    >>> quantize_by_hand([0.5, -2.54, 0.333, 0.001])  # steps of 2.54 / 127
    ([25, -127, 17, 0], 0.02)
    >>> [round(0.02 * number, 3) for number in (25, -127, 17, 0)]  # what comes back
    [0.5, -2.54, 0.34, 0.0]
    """
    scale = max(abs(weight) for weight in group) / 127
    return [round(weight / scale) for weight in group], scale


# ================================================================== 5. A matrix in int8
class Int8:
    """A matrix of weights as int8, used in place of the float matrix.

    numbers: int8, (N, G, 32); scales: float32, (N, G, 1). Code that hands it to torch's
    linear or embedding need not know: torch asks any object that is not a tensor for
    its __torch_function__. So GPT runs from int8 without a line of it being changed,
    and the token embedding still serves as the output layer (tied).
    """

    def __init__(self, numbers, scales):
        self.numbers, self.scales, self.device = numbers, scales, numbers.device
        self.shape = numbers.shape[0], numbers.shape[1] * GROUP  # (N, K)

    @classmethod
    def of(cls, weight):  # (N, K) -> Int8
        """quantize_by_hand, all groups at once; scales rounded to two bytes."""
        groups = weight.detach().float().unflatten(1, (-1, GROUP))  # (N, K) -> (N,G,32)
        scales = (groups.abs().amax(dim=2, keepdim=True) / 127).half().float()
        # clamp: a group of zeros has the scale 0, by which we must not divide.
        numbers = (groups / scales.clamp(min=1e-12)).round().clamp(-127, 127)
        return cls(numbers.to(torch.int8), scales)

    def float(self):  # -> (N, K)
        """The weights as they now are."""
        return (self.numbers * self.scales).flatten(1)  # (N, G, 32) -> (N, K)

    def linear(self, x):  # (..., K) -> (..., N)
        """x @ weights.T, in C straight from int8 if x has only a few rows."""
        in_c, rows = kernel(), x.numel() // x.shape[-1]
        if in_c is None or rows > 32 or x.dtype != torch.float32:
            # For many rows a temporary float copy costs little.
            return F.linear(x, self.float())
        N, K = self.shape
        x, y = x.contiguous(), x.new_empty(*x.shape[:-1], N)
        weights = self.numbers.data_ptr(), self.scales.data_ptr()
        in_c(*weights, x.data_ptr(), y.data_ptr(), rows, N, K // GROUP)
        return y

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is F.linear:  # (x, weight) or (x, weight, bias)
            y, bias = args[1].linear(args[0]), args[2] if len(args) > 2 else None
            return y if bias is None else y + bias
        if function is F.embedding:  # (ids, weight, ...)
            ids, rows = args[:2]
            return (rows.numbers[ids] * rows.scales[ids]).flatten(-2)  # (...,K)
        if function is F.linear_cross_entropy:  # (x, weight, targets, ...)
            x, rows, targets = args
            return function(x, rows.float(), targets, **kwargs)
        return NotImplemented  # anything else: torch says that it cannot


def to_int8(model):  # GPT -> GPT
    """A copy whose matrices, embeddings included, are int8; the norms stay float."""
    small = copy.deepcopy(model).cpu()
    for module in small.modules():
        weight = getattr(module, "weight", None)
        if weight is not None and weight.dim() == 2 and weight.shape[1] % GROUP == 0:
            del module.weight  # the Parameter goes ...
            module.weight = Int8.of(weight)  # ... and a plain attribute comes
    return small


# ===================================================================== 6. The same in C
# Each token needs every weight once. In a large model the time goes into fetching them
# from memory, and bytes arrive four times as fast as floats, unless they become floats
# on the way. torch has no function for this; int8.c is the matmul of llama2.c (Karpathy
# 2023), except that x stays float.

# Sums may be taken in any order: only then can eight products be added at once. (gcc's
# -ffast-math would say so, too, but can change the arithmetic of the whole process.)
ORDER = "-fassociative-math -fno-signed-zeros -fno-trapping-math -fno-math-errno"


@functools.cache
def kernel():
    """The function of int8.c, compiled; None if there is no C compiler."""
    source, cc = QUESTS / "int8.c", str(C_COMPILER)
    for flags in ("-march=native -fopenmp", "-march=native", ""):  # try the best first
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            made, library = f"{folder}/int8.o", f"{folder}/int8.so"
            compiling = [cc, "-O3", *flags.split(), *ORDER.split(), "-fPIC", "-c"]
            # Linked separately, so that it comes without threads (OpenMP) of its own:
            # it finds torch's, and two sets of them would compete for the cores.
            linking = [cc, "-shared", made, "-o", library]
            with contextlib.suppress(OSError, subprocess.CalledProcessError):
                for command in ([*compiling, str(source), "-o", made], linking):
                    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
                linear = ctypes.CDLL(library).linear
                linear.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_long] * 3
                return linear


# ================================================================== 7. Numbers as bytes
def packed(weight):  # float tensor or Int8 -> (shape, kind, bytes)
    """As write_gguf wants it; a group of Q8_0 is its scale, then 32 int8."""
    if not isinstance(weight, Int8):
        data = weight.detach().contiguous().numpy().astype("<f4").tobytes()
        return list(weight.shape), containers.FLOATS, data
    scales = weight.scales.numpy().astype("<f2").view(np.uint8)  # (N, G, 2)
    blocks = np.concatenate([scales, weight.numbers.numpy().view(np.uint8)], axis=2)
    return list(weight.shape), containers.Q8_0, blocks.tobytes()


def unpacked(shape, kind, data):  # -> float tensor
    """The reverse."""
    if kind != containers.Q8_0:
        return torch.tensor(np.frombuffer(data, "<f4").reshape(shape))
    blocks = np.frombuffer(data, np.uint8).reshape(-1, GROUP + 2)
    scales = blocks[:, :2].copy().view("<f2").astype(np.float32)  # (groups, 1)
    return torch.tensor((scales * blocks[:, 2:].view(np.int8)).reshape(shape))


# ==================================================== 8. Hugging Face: JSON and numbers
# GPT-2's code multiplies x @ W, torch's Linear x @ W.T: hence the transposes. It also
# has biases; ours are 0, unless you have set bias = True in 03_model.py.


def tensors(model):  # GPT -> {name: weight or bias}
    """All weights, by GPT-2's names; beside all but the embeddings a bias."""
    named = {}
    for name, module in model.named_modules():
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if weight is not None:
            named[f"{name}.weight"] = weight
            if not name.startswith("w"):  # not wte, wpe
                zeros = torch.zeros(weight.shape[0])
                named[f"{name}.bias"] = zeros if bias is None else bias
    return named


def turned(weights):  # {name: tensor} -> {name: tensor}
    """Matrices inside the blocks transposed."""
    inside = {n for n, w in weights.items() if n.startswith("h.") and w.dim() == 2}
    return {n: w.T if n in inside else w for n, w in weights.items()}


def hugging_face(model, tokenizer):  # -> {file name: bytes or text}
    """The folder that transformers and mlx-lm open."""
    c = model.config
    special = {"bos_token_id": bpe.BOS, "eos_token_id": bpe.EOS}
    special |= {"pad_token_id": bpe.PAD}
    config = {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2",
        "activation_function": "gelu_new",  # GELU with tanh; "gelu" would be a bit off
        "vocab_size": c.vocab_size, "n_positions": c.block_size, "n_ctx": c.block_size,
        "n_embd": c.n_embd, "n_layer": c.n_layer, "n_head": c.n_head, "n_inner": None,
        "layer_norm_epsilon": 1e-5, "attn_pdrop": 0.0, "embd_pdrop": 0.0,
        "resid_pdrop": 0.0, "tie_word_embeddings": True, "dtype": "float32", **special,
    }  # fmt: skip
    # The text itself never holds special tokens, whatever it says; but each story
    # begins with <BOS>: without it, the model reads what it has never seen in training.
    content = json.loads(tokenizer.to_json())
    bos = {"SpecialToken": {"id": "<BOS>", "type_id": 0}}
    first, second = ({"Sequence": {"id": i, "type_id": 0}} for i in "AB")
    known = {"<BOS>": {"id": "<BOS>", "ids": [bpe.BOS], "tokens": ["<BOS>"]}}
    content["post_processor"] = {
        "type": "TemplateProcessing", "single": [bos, first],
        "pair": [bos, first, second], "special_tokens": known,
    }  # fmt: skip
    roles = ["pad_token", "unk_token", "bos_token", "eos_token"]
    roles = dict(zip(roles, bpe.SPECIAL_TOKENS))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", **roles}
    about |= {"model_max_length": c.block_size, "split_special_tokens": True}
    about |= {"clean_up_tokenization_spaces": False}
    sampling = {"do_sample": True, "temperature": TEMPERATURE, "top_p": TOP_P}
    # SUBTLE: .T is only another view of the same numbers; packed() copies them.
    weights = turned(tensors(model)).items()
    numbers = {name: (list(w.shape), "F32", packed(w)[2]) for name, w in weights}
    files = {
        "config.json": config, "tokenizer.json": content,
        "tokenizer_config.json": about, "generation_config.json": sampling | special,
    }  # fmt: skip
    files = {n: json.dumps(f, ensure_ascii=False, indent=1) for n, f in files.items()}
    return files | {"model.safetensors": containers.write_safetensors(numbers)}


# ============================================================= 9. GGUF: all in one file
# The tokenizer is inside too. The names of weights and facts differ from ours.

GGUF_NAMES = {
    "wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "h.": "blk.",
    "ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip
GGUF_FACTS = {
    "block_size": "context_length", "n_embd": "embedding_length",
    "n_layer": "block_count", "n_head": "attention.head_count",
}  # fmt: skip


def gguf_name(name):
    """Our name of a weight -> llama.cpp's.

    >>> gguf_name("h.3.mlp.c_fc.weight")
    'blk.3.ffn_up.weight'
    """
    for ours, theirs in GGUF_NAMES.items():
        name = name.replace(ours, theirs)
    return name


def tokens_and_merges(tokenizer):  # -> [token], ["left right"]
    """The tokenizer as strings, in the order of ids and of ranks."""
    bpe_model = json.loads(tokenizer.to_json())["model"]
    merges = [" ".join(pair) for pair in bpe_model["merges"]]
    return sorted(bpe_model["vocab"], key=bpe_model["vocab"].get), merges


def gguf(model, tokenizer):  # -> bytes
    """What llama.cpp opens: facts about the model, its tokenizer, its weights."""
    config, (tokens, merges) = asdict(model.config), tokens_and_merges(tokenizer)
    facts = {
        "general.architecture": "gpt2", "general.name": NAME,
        "general.file_type": 7 if isinstance(model.wte.weight, Int8) else 0,
        "general.quantization_version": 2,  # of the layout of Q8_0
        **{f"gpt2.{theirs}": config[ours] for ours, theirs in GGUF_FACTS.items()},
        "gpt2.feed_forward_length": 4 * config["n_embd"],
        "gpt2.attention.layer_norm_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.token_type": [3] * 4 + [1] * (len(tokens) - 4),  # 3: special
        "tokenizer.ggml.bos_token_id": bpe.BOS, "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.eos_token_id": bpe.EOS,
        "tokenizer.ggml.padding_token_id": bpe.PAD,
    }  # fmt: skip
    numbers = {gguf_name(name): packed(w) for name, w in tensors(model).items()}
    return containers.write_gguf(facts, numbers)


# Without a template Ollama would assume a chat. Ours continues a beginning.
MODELFILE = """FROM ./{file}
TEMPLATE "{{{{ .Prompt }}}}"
PARAMETER temperature {temperature}
PARAMETER stop "<EOS>"
"""
COMMANDS = """
Install one of these tools, and let it continue a beginning:

               cd {out}
transformers   python -c "from transformers import pipeline; print(pipeline(
               'text-generation', 'hugging-face')('Once upon a time'))"
mlx-lm, Mac    mlx_lm.generate --model hugging-face --prompt "Once upon a time"
llama.cpp      llama-completion -m {q8} -no-cnv -p "Once upon a time"
Ollama         ollama create {name} && ollama run {name} "Once upon a time"
LM Studio      lms import {q8}
"""


# ============================================================= 10. Checks: read it back
# A file is only right once somebody has read it and got the same model.


@torch.no_grad()
def difference(model, config, weights, idx):  # (1, T) -> largest difference of logits
    """Build the GPT that a file describes; let it and `model` read the same tokens."""
    if not model.config.bias:  # then the biases in the file must be zeros
        names = [name for name in weights if name.endswith("bias")]
        if any(weights.pop(name).any() for name in names):
            return math.inf
    twin = gpt.GPT(gpt.GPTConfig(**config, bias=model.config.bias)).eval()
    twin.load_state_dict(weights)
    return (twin(idx)[0] - model(idx)[0]).abs().max().item()


def read_back(path, model, tokenizer, idx):  # (1, T) -> largest difference of logits
    """Raise SystemExit unless the file holds this model and this tokenizer."""
    if path.is_dir():
        config = json.loads((path / "config.json").read_text("utf-8"))
        config["block_size"] = config["n_positions"]
        stored = containers.read_safetensors((path / "model.safetensors").read_bytes())
        weights = turned({name: unpacked(*stored[name]) for name in stored})
        again = bpe.Tokenizer.load(path / "tokenizer.json")
        same = again.to_json() == tokenizer.to_json()
    else:
        facts, stored = containers.read_gguf(path.read_bytes())
        ours = {gguf_name(name): name for name in tensors(model)}
        weights = {ours[name]: unpacked(*stored[name]) for name in stored}
        again = [facts[f"tokenizer.ggml.{name}"] for name in ("tokens", "merges")]
        same = tuple(again) == tokens_and_merges(tokenizer)
        config = {ours: facts[f"gpt2.{theirs}"] for ours, theirs in GGUF_FACTS.items()}
        config["vocab_size"] = len(again[0])
    names = "vocab_size", "block_size", "n_layer", "n_head", "n_embd"
    largest = difference(model, {name: config[name] for name in names}, weights, idx)
    if not same or not largest < 1e-4:  # so written, `nan` is refused as well
        why = f"Read back, logits differ by {largest:g}; same tokenizer: {same}."
        raise bpe.stop(f"{bpe.shown(path)} is not the model.", why, f"python {ME}")
    return largest


def check_inputs():  # -> GPT, Tokenizer, validation ids
    """Raise SystemExit unless all is there and belongs together."""
    for name, value, kind, low, high in [
        ("STORIES", STORIES, int, 1, 10**6), ("TOKENS", TOKENS, int, 1, 10**5),
        ("TEMPERATURE", TEMPERATURE, float, 0.01, 10), ("TOP_P", TOP_P, float, 1e-6, 1),
    ]:  # fmt: skip
        bpe.in_range(ME, name, value, kind, low, high)
    if not re.fullmatch(r"\w[\w.-]*", str(NAME)):
        why = "It names files: letters, digits, and . _ - between them."
        how = f"Edit NAME at the top of {ME}, then: python {ME}"
        raise bpe.stop(f"NAME = {NAME!r} cannot be used.", why, how)
    tokenizer = bpe.Tokenizer.load(bpe.OUT / "tokenizer.json")
    model, content = gpt.GPT.load(MODEL, "04_train.py")
    bpe.check_tokenizer(content.get("tokenizer"), "best.pt", "python 04_train.py")
    if model.alibi is not None:
        print("[note] best.pt was saved while attention had a distance penalty, which")
        print("       other programs lack. Stopped early? Let python 04_train.py finish.")
    writer = "02_prepare.py"
    meta = bpe.read_json(DATA / "meta.json", writer, "02_prepare/2")
    bpe.check_tokenizer(meta["tokenizer"], "valid.bin", f"python {writer}")
    bpe.need(DATA / "valid.bin", writer)
    valid = np.fromfile(DATA / "valid.bin", dtype="<u2")
    if not (valid == bpe.BOS).any() or valid.max() >= len(tokenizer):
        why = "It holds no story, or ids that are not in the vocabulary."
        what = f"{bpe.shown(DATA / 'valid.bin')} is damaged."
        raise bpe.stop(what, why, f"python {writer}")
    return model.eval(), tokenizer, valid


# ============================================================================= 11. Main
def show_weights(model, small):
    """Four weights of token 4, there and back; then the size of all."""
    before, after = model.wte.weight[4, :4].tolist(), small.wte.weight
    if isinstance(after, Int8):
        scale, numbers = after.scales[4, 0].item(), after.numbers[4, 0, :4].tolist()
        print("\nFour weights, as whole numbers, and back:")
        print("  float32", *(f"{weight:9.5f}" for weight in before))
        print("  int8   ", *(f"{number:9}" for number in numbers), f"  x {scale:.7f}")
        print("  back   ", *(f"{number * scale:9.5f}" for number in numbers), "\n")
    else:
        print(f"[note] rows whose length is not a multiple of {GROUP} stay float32")
    count = sum(weight.numel() for weight in model.parameters())
    size = sum(len(packed(w)[2]) for n, w in tensors(small).items() if "weight" in n)
    print(f"[check] size: {count:,} weights, in float32 {4 * count:,} bytes,", end=" ")
    print(f"in int8 {size:,}: {size / 4 / count:.3f} of it")


def tokens_per_second(model):
    """Generate TOKENS tokens greedily, with the KV cache, and measure the time."""
    started = time.perf_counter()
    model.generate(torch.tensor([[bpe.BOS]]), TOKENS, temperature=0)
    return TOKENS / (time.perf_counter() - started)


@torch.no_grad()
def show_speed(model, small):
    """Tokens per second from float32 and from int8."""
    weight = small.wte.weight
    if kernel() is None:
        print(f"[note] no C compiler ({C_COMPILER}): int8 by torch alone, and slower")
    elif isinstance(weight, Int8):
        x = torch.randn(1, weight.shape[1])  # (1, C)
        right = F.linear(x, weight.float())  # (1, V)
        off = (weight.linear(x) - right).abs().max() / right.abs().max()
        print(f"[check] int8 in C and in torch differ by {off:.0e} of the largest sum")
    speeds = {"float32": 0.0, "int8": 0.0}
    for name, its_model in [("float32", model), ("int8", small)] * 3:  # in turns
        speeds[name] = max(speeds[name], tokens_per_second(its_model))
    print("[check] speed:", end=" ")
    print(", ".join(f"{name} {speed:,.0f}" for name, speed in speeds.items()), end=" ")
    print(f"tokens per second: {speeds['int8'] / speeds['float32']:.2f} times as fast")
    if speeds["int8"] < 1.2 * speeds["float32"]:
        print("[note] so small a model waits for Python, not for memory")


def some_stories(valid, count, longest):  # (N,) -> [(T',)], each with <BOS> first
    """`count` stories, evenly spread over valid.bin; of a long one the first tokens."""
    starts = np.flatnonzero(valid == bpe.BOS)
    ends = np.minimum(np.append(starts[1:], len(valid)), starts + longest)
    chosen = np.linspace(0, len(starts), min(count, len(starts)), endpoint=False)
    parts = [valid[starts[i] : ends[i]] for i in chosen.astype(int)]
    return [torch.from_numpy(part.astype(np.int64)) for part in parts if len(part) > 1]


@torch.no_grad()
def bits_per_byte(model, stories, byte_lengths):  # byte_lengths: (V,) -> float
    """The mean cost of a byte of these stories; see 05_eval.py."""
    nats = bytes_in_all = 0
    for story in stories:
        targets = story[1:]  # each token is predicted from those before it
        nats += len(targets) * model(story[None, :-1], targets[None])[1].item()
        bytes_in_all += byte_lengths[targets].sum().item()
    return nats / math.log(2) / bytes_in_all


def show_loss(model, small, tokenizer, valid):
    """Bits per byte of both on the same stories."""
    stories = some_stories(valid, STORIES, model.config.block_size + 1)
    lengths = [0] * 4 + [len(token) for token in tokenizer.token_bytes[4:]]
    bits = [bits_per_byte(m, stories, torch.tensor(lengths)) for m in (model, small)]
    print(f"[check] loss on {len(stories):,} held-out stories:", end=" ")
    print(f"float32 {bits[0]:.5f}, int8 {bits[1]:.5f} bits per byte", end=" ")
    print(f"({bits[1] / bits[0] - 1:+.3%})")


def main():
    model, tokenizer, valid = check_inputs()
    print(f"[read] {bpe.shown(MODEL)} and {DATA.name}/valid.bin")
    print(f"[plan] groups of {GROUP} weights, one scale each; embeddings too")
    small = to_int8(model)
    show_weights(model, small)
    show_speed(model, small)
    show_loss(model, small, tokenizer, valid)
    folder = OUT / "hugging-face"
    f32, q8 = OUT / f"{NAME}-f32.gguf", OUT / f"{NAME}-q8.gguf"
    files = {folder / n: data for n, data in hugging_face(model, tokenizer).items()}
    files |= {f32: gguf(model, tokenizer), q8: gguf(small, tokenizer)}
    files[OUT / "Modelfile"] = MODELFILE.format(file=q8.name, temperature=TEMPERATURE)
    bpe.write_all(files)
    idx = torch.from_numpy(valid[: model.config.block_size].astype(np.int64))[None]
    print("[check] each file, read back and compared with the model it was made from:")
    for path, its_model in [(folder, model), (f32, model), (q8, small)]:
        largest = read_back(path, its_model, tokenizer, idx)  # idx: (1, T)
        size = sum(part.stat().st_size for part in [path, *path.glob("*")])
        print(f"  {path.name}: {size:,} bytes, logits differ by {largest:g}", end=", ")
        print("the tokenizer is the same")
    print(f"[wrote] {bpe.shown(OUT)}/")
    out = shlex.quote(bpe.shown(OUT))
    print(COMMANDS.format(out=out, q8=q8.name, name=NAME))
    print("Next: python lessons/quests/pocket.py, or give the files to a friend")


if __name__ == "__main__":
    bpe.run_stage(main, ME)
