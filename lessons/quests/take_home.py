# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.13.0", "numpy", "regex", "tqdm"]
# ///
"""Side quest: make your model four times smaller, and let other programs run it.

READS   artifacts/04_train/best.pt, artifacts/01_bpe/tokenizer.json,
        artifacts/02_prepare/valid.bin, lessons/int8.c
WRITES  artifacts/take_home/hugging-face/   for transformers and mlx-lm
        artifacts/take_home/story-f32.gguf  for llama.cpp, LM Studio, Ollama
        artifacts/take_home/story-q8.gguf   the same in 8 bits instead of 32
        artifacts/take_home/Modelfile       what Ollama wants to know of it
RUN     python lessons/quests/take_home.py
LESSON  lessons/quests/take_home.md

No library writes these files: each is a header, names and numbers, and you can see
every byte of them here and in lessons/containers.py.
"""

# ======================================================================= 2. IMPORTS
import contextlib
import copy
import ctypes
import functools
import importlib
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path += [str(ROOT), str(ROOT / "lessons")]
import containers  # noqa: E402  lessons/containers.py: safetensors and GGUF
import plumbing  # noqa: E402  lessons/plumbing.py: messages, safe writing
from plumbing import shown, stop  # noqa: E402

bpe = importlib.import_module("01_bpe")  # as in 04_train.py: see the comment there
gpt = importlib.import_module("03_model")
ev = importlib.import_module("05_eval")  # how good is it?
sample = importlib.import_module("06_sample")  # how fast is it?

# ===================================================================== 3. CONSTANTS
NAME = "story"  # of the model, and of the .gguf files
STORIES = 200  # validation stories on which 8 bits are compared with 32
TOKENS = 200  # to write when the speed is measured
C_COMPILER = "cc"  # None: do without; slower, same numbers
# -- what the files propose to whoever writes with them
TEMPERATURE = 0.8
TOP_P = 0.95

ME = "lessons/quests/take_home.py"
DATA = ROOT / "artifacts" / "02_prepare"
OUT = ROOT / "artifacts" / "take_home"
GROUP = 32  # weights that share a scale: Q8_0 of llama.cpp wants 32

# ========================================================================= 4. WORDS
# N, K   rows and columns of a matrix of weights     G   groups in a row, K / 32
# scale  of a group: what the whole number 1 stands for there
# int8   a whole number from -128 to 127: one byte    float32   four bytes
# Q8_0   llama.cpp's name: 32 int8 and one scale of two bytes, 34 bytes instead of 128


# ====================================================================== 5. THE IDEA
# Weights need no seven digits. Let the largest of a group of 32 be 127, and count the
# others in steps of a 127th of it. An outlier then spoils 31 neighbours and no more,
# which is why the groups are small.


def quantise_by_hand(group):  # -> (whole numbers, scale)
    """The weights of a group as whole numbers times one scale (absmax).

    >>> quantise_by_hand([0.5, -2.54, 0.333, 0.001])  # steps of 2.54 / 127
    ([25, -127, 17, 0], 0.02)
    >>> [round(0.02 * number, 3) for number in (25, -127, 17, 0)]  # what comes back
    [0.5, -2.54, 0.34, 0.0]
    """
    scale = max(abs(weight) for weight in group) / 127
    return [round(weight / scale) for weight in group], scale


# ======================================================================== 6. PIECES
# ---- a matrix in int8


class Int8:
    """A matrix of weights as int8, standing where the float matrix stood.

    numbers: int8, (N, G, 32); scales: float32, (N, G, 1). Whoever hands it to torch's
    linear or embedding need not know: torch asks any object that is no tensor for its
    __torch_function__. So GPT runs from int8 without a line of it being changed, and
    the token embedding serves as the last layer still (tied).
    """

    def __init__(self, numbers, scales):
        self.numbers, self.scales, self.device = numbers, scales, numbers.device
        self.shape = numbers.shape[0], numbers.shape[1] * GROUP  # (N, K)

    @classmethod
    def of(cls, weight):  # (N, K) -> Int8
        """Quantise by hand, all groups at once; scales as fine as two bytes can say."""
        groups = weight.detach().float().unflatten(1, (-1, GROUP))  # (N, K) -> (N,G,32)
        scales = (groups.abs().amax(dim=2, keepdim=True) / 127).half().float()
        # clamp: a group of zeros has the scale 0, by which nothing may be divided.
        numbers = (groups / scales.clamp(min=1e-12)).round().clamp(-127, 127)
        return cls(numbers.to(torch.int8), scales)

    def float(self):  # -> (N, K)
        """The weights as they now are."""
        return (self.numbers * self.scales).flatten(1)  # (N, G, 32) -> (N, K)

    def linear(self, x):  # (..., K) -> (..., N)
        """x @ weights.T, in C straight from int8 if x has only a few rows."""
        in_c, rows = kernel(), x.numel() // x.shape[-1]
        if in_c is None or rows > 32 or x.dtype != torch.float32:
            # For many rows a float copy, soon forgotten, costs little.
            return F.linear(x, self.float())
        N, K = self.shape
        x, y = x.contiguous(), x.new_empty(*x.shape[:-1], N)
        weights = self.numbers.data_ptr(), self.scales.data_ptr()
        in_c(*weights, x.data_ptr(), y.data_ptr(), rows, N, K // GROUP)
        return y

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is F.linear:  # (x, weight, bias): we have no biases
            return args[1].linear(args[0])
        if function is F.embedding:  # (ids, weight, ...)
            ids, rows = args[:2]
            return (rows.numbers[ids] * rows.scales[ids]).flatten(-2)  # (...,K)
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


# ---- the same in C. Each token needs every weight once. In a large model the time goes
# into fetching them from memory, and bytes come four times as fast as floats, if nobody
# makes floats of them on the way. torch has no function for this; lessons/int8.c is the
# matmul of llama2.c (Karpathy 2023), except that x stays float.

# Sums may be taken in any order: only so can eight products be added at once. (gcc's
# -ffast-math would say so, too, but can change the arithmetic of the whole process.)
ORDER = "-fassociative-math -fno-signed-zeros -fno-trapping-math -fno-math-errno"


@functools.cache
def kernel():
    """The function of int8.c, compiled; None if there is no C compiler."""
    source, cc = ROOT / "lessons" / "int8.c", str(C_COMPILER)
    for flags in ("-march=native -fopenmp", "-march=native", ""):  # who knows which?
        with tempfile.TemporaryDirectory() as folder:
            made, library = f"{folder}/int8.o", f"{folder}/int8.so"
            compiling = [cc, "-O3", *flags.split(), *ORDER.split(), "-fPIC", "-c"]
            # Linked apart, so that it comes without threads (OpenMP) of its own: it
            # finds torch's, and two sets of them would fight for the cores.
            linking = [cc, "-shared", made, "-o", library]
            with contextlib.suppress(OSError, subprocess.CalledProcessError):
                for command in ([*compiling, str(source), "-o", made], linking):
                    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
                found = ctypes.CDLL(library).linear
                found.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_long] * 3
                return found


# ---- numbers as bytes


def packed(weight):  # float tensor or Int8 -> (shape, kind, bytes)
    """As containers.write_gguf wants it; a group of Q8_0: its scale, then 32 int8."""
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


# ---- Hugging Face: a folder of JSON and one file of numbers. GPT-2's code multiplies
# x @ W, torch's Linear x @ W.T: hence the transposes. It also has biases; ours are 0.


def tensors(model):  # GPT -> {name: weight or bias}
    """All weights, by GPT-2's names; beside all but the embeddings a bias of zeros."""
    found = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is not None:
            found[f"{name}.weight"] = weight
            if not name.startswith("w"):
                found[f"{name}.bias"] = torch.zeros(weight.shape[0])
    return found


def turned(weights):  # {name: tensor} -> {name: tensor}
    """Matrices inside the blocks the other way round."""
    inside = {n for n, w in weights.items() if n.startswith("h.") and w.dim() == 2}
    return {n: w.T if n in inside else w for n, w in weights.items()}


def hugging_face(model, tokenizer):  # -> {file name: bytes or text}
    """The folder that transformers and mlx-lm open."""
    c = model.config
    config = {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2",
        "activation_function": "gelu_new",  # GELU with tanh; "gelu" would be a bit off
        "vocab_size": c["vocab_size"], "n_positions": c["context"],
        "n_ctx": c["context"], "n_embd": c["n_embd"], "n_layer": c["n_layer"],
        "n_head": c["n_head"], "n_inner": None, "layer_norm_epsilon": 1e-5,
        "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0,
        "bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0,
        "tie_word_embeddings": True, "dtype": "float32",
    }  # fmt: skip
    # The text itself never holds special tokens, whatever it says; but each story
    # begins with <BOS>: without it, the model reads what it has never seen the like of.
    content = json.loads(tokenizer.to_json())
    bos = {"SpecialToken": {"id": "<BOS>", "type_id": 0}}
    first, second = ({"Sequence": {"id": i, "type_id": 0}} for i in "AB")
    known = {"<BOS>": {"id": "<BOS>", "ids": [2], "tokens": ["<BOS>"]}}
    content["post_processor"] = {
        "type": "TemplateProcessing", "single": [bos, first],
        "pair": [bos, first, second], "special_tokens": known,
    }  # fmt: skip
    roles = ["pad_token", "unk_token", "bos_token", "eos_token"]
    roles = dict(zip(roles, bpe.SPECIAL_TOKENS))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", **roles}
    about |= {"model_max_length": c["context"], "split_special_tokens": True}
    about |= {"clean_up_tokenization_spaces": False}
    writing = {"do_sample": True, "temperature": TEMPERATURE, "top_p": TOP_P}
    writing |= {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    # SUBTLE: .T only looks at a matrix from the side; packed() makes a real copy.
    weights = turned(tensors(model)).items()
    numbers = {name: (list(w.shape), "F32", packed(w)[2]) for name, w in weights}
    files = {
        "config.json": config, "tokenizer.json": content,
        "tokenizer_config.json": about, "generation_config.json": writing,
    }  # fmt: skip
    files = {n: json.dumps(f, ensure_ascii=False, indent=1) for n, f in files.items()}
    return files | {"model.safetensors": containers.write_safetensors(numbers)}


# ---- GGUF: one file that holds everything, the tokenizer too. Its names differ.

GGUF_NAMES = {
    "wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "h.": "blk.",
    "ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip
GGUF_FACTS = {
    "context": "context_length", "n_embd": "embedding_length", "n_layer": "block_count",
    "n_head": "attention.head_count",
}  # fmt: skip


def gguf_name(name):
    """Our name of a weight -> llama.cpp's.

    >>> gguf_name("h.3.mlp.c_fc.weight")
    'blk.3.ffn_up.weight'
    """
    for ours, theirs in GGUF_NAMES.items():
        name = name.replace(ours, theirs)
    return name


def gguf(model, tokenizer):  # -> bytes
    """What llama.cpp opens: facts about the model, its tokenizer, its weights."""
    c, hf = model.config, json.loads(tokenizer.to_json())["model"]
    facts = {
        "general.architecture": "gpt2", "general.name": NAME,
        "general.file_type": 7 if isinstance(model.wte.weight, Int8) else 0,
        "general.quantization_version": 2,  # of the layout of Q8_0
        **{f"gpt2.{theirs}": c[ours] for ours, theirs in GGUF_FACTS.items()},
        "gpt2.feed_forward_length": 4 * c["n_embd"],
        "gpt2.attention.layer_norm_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": sorted(hf["vocab"], key=hf["vocab"].get),
        "tokenizer.ggml.token_type": [3] * 4 + [1] * (len(tokenizer) - 4),  # 3: special
        "tokenizer.ggml.merges": [" ".join(pair) for pair in hf["merges"]],
        "tokenizer.ggml.bos_token_id": 2, "tokenizer.ggml.eos_token_id": 3,
        "tokenizer.ggml.padding_token_id": 0, "tokenizer.ggml.add_bos_token": True,
    }  # fmt: skip
    numbers = {gguf_name(name): packed(w) for name, w in tensors(model).items()}
    return containers.write_gguf(facts, numbers)


# What Ollama would otherwise guess: a chat. Ours goes on from a beginning.
MODELFILE = """FROM ./{file}
TEMPLATE "{{{{ .Prompt }}}}"
PARAMETER temperature {warmth}
PARAMETER stop "<EOS>"
"""
COMMANDS = """
Install one of these tools, and let it go on from a beginning:

transformers   python -c "from transformers import pipeline; print(pipeline(
               'text-generation', '{folder}')('Once upon a time'))"
mlx-lm, Mac    mlx_lm.generate --model {folder} --prompt "Once upon a time"
llama.cpp      llama-completion -m {q8} -no-cnv -p "Once upon a time"
Ollama         cd {out} && ollama create {name} && ollama run {name} "Once upon a time"
LM Studio      lms import {q8}
"""


# ---- reading back. What was written is not what was meant until somebody has read it.


@torch.no_grad()
def difference(model, config, weights, ids):  # -> largest difference of the logits
    """Build the GPT that a file describes; let it and `model` read the same text."""
    twin = gpt.GPT(config).eval()
    biases = [weights.pop(name) for name in list(weights) if name.endswith("bias")]
    twin.load_state_dict(weights)
    most = (twin(ids) - model(ids)).abs().max().item()
    return most if not any(bias.any() for bias in biases) else math.inf


def read_back(path, model, tokenizer, ids):  # -> largest difference of the logits
    """Raise SystemExit unless the file says what the model and the tokenizer say."""
    if path.is_dir():
        c = json.loads((path / "config.json").read_text("utf-8"))
        c = {"context": c["n_positions"]} | {n: c[n] for n in model.config if n in c}
        found = containers.read_safetensors((path / "model.safetensors").read_bytes())
        weights = turned({name: unpacked(*found[name]) for name in found})
        again = bpe.Tokenizer.load(path / "tokenizer.json").to_json()
    else:
        facts, found = containers.read_gguf(path.read_bytes())
        ours = {gguf_name(name): name for name in tensors(model)}
        weights = {ours[name]: unpacked(*found[name]) for name in found}
        tokens, pairs = (facts[f"tokenizer.ggml.{n}"] for n in ("tokens", "merges"))
        again = [pair.split(" ") for pair in pairs]
        again = plumbing.hugging_face_json(tokens, again, tokens[:4])
        c = {ours: facts[f"gpt2.{theirs}"] for ours, theirs in GGUF_FACTS.items()}
        c["vocab_size"] = len(tokens)
    same, most = again == tokenizer.to_json(), difference(model, c, weights, ids)
    if not same or not most < 1e-4:  # so written, `nan` is refused as well
        why = f"Read back, it differs: logits by {most:g}, same tokenizer: {same}."
        raise stop(f"{shown(path)} is not the model.", why, f"python {ME}")
    return most


# ======================================================================== 7. CHECKS
def check_inputs():  # -> GPT, Tokenizer, validation ids
    """Raise SystemExit unless all is there and belongs together."""
    for name, kind, low, high in [
        ("STORIES", int, 1, 10**6), ("TOKENS", int, 1, 10**5),
        ("TEMPERATURE", float, 0.01, 10), ("TOP_P", float, 1e-6, 1.0),
    ]:  # fmt: skip
        plumbing.in_range(ME, name, globals()[name], kind, low, high)
    model, tokenizer = sample.check_inputs()
    writer = "02_prepare.py"
    theirs = plumbing.read_json(DATA / "meta.json", writer, "02_prepare/2")["tokenizer"]
    plumbing.same_tokenizer(bpe.OUT, theirs, "valid.bin", f"python {writer}")
    plumbing.need(DATA / "valid.bin", writer)
    return model, tokenizer, np.fromfile(DATA / "valid.bin", dtype="<u2")


# ========================================================================== 8. MAIN
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
        print(f"[note] rows that are no whole groups of {GROUP} stay float32")
    count = sum(weight.numel() for weight in model.parameters())
    size = sum(len(packed(w)[2]) for n, w in tensors(small).items() if "weight" in n)
    print(f"[check] size: {count:,} weights, in float32 {4 * count:,} bytes,", end=" ")
    print(f"in int8 {size:,}: {size / 4 / count:.3f} of it")


@torch.inference_mode()
def show_speed(model, small):
    """Tokens per second from float32 and from int8, with the cache of stage 6."""
    weight = small.wte.weight
    if kernel() and isinstance(weight, Int8):
        x = torch.randn(1, weight.shape[1])  # (1, C)
        right = F.linear(x, weight.float())  # (1, V)
        off = (weight.linear(x) - right).abs().max() / right.abs().max()
        print(f"[check] int8 in C and in torch differ by {off:.0e} of the largest sum")
    else:
        print(f"[note] no C compiler ({C_COMPILER}): int8 by torch alone, and slower")
    speeds = {"float32": 0.0, "int8": 0.0}
    for name, its_model in [("float32", model), ("int8", small)] * 3:  # in turns
        speed, _ = sample.tokens_per_second(its_model, [2], TOKENS, True)
        speeds[name] = max(speeds[name], speed)
    print("[check] speed:", end=" ")
    print(", ".join(f"{name} {speed:,.0f}" for name, speed in speeds.items()), end=" ")
    print(f"tokens per second: {speeds['int8'] / speeds['float32']:.2f} times as fast")
    if speeds["int8"] < 1.2 * speeds["float32"]:
        print("[note] so small a model waits for Python, not for memory")


def show_loss(model, small, tokenizer, valid):
    """Bits per byte of both on the same stories."""
    stories = ev.some_stories(valid, STORIES)  # ids, and where each begins
    lengths = np.array([0] * 4 + [len(token) for token in tokenizer.token_bytes[4:]])
    cut = ev.story_windows(*stories, model.config["context"])
    bits, cpu = [], torch.device("cpu")
    for its_model, what in [(model, "float32"), (small, "int8")]:
        nats = ev.score(its_model, stories[0], cut, cpu, what)
        bits.append(ev.summary(nats, *stories, lengths)["bits_per_byte"])
    print(f"[check] loss on {len(stories[1]):,} stories not learnt from:", end=" ")
    print(f"float32 {bits[0]:.5f}, int8 {bits[1]:.5f} bits per byte", end=" ")
    print(f"({bits[1] / bits[0] - 1:+.3%})")


def main():
    model, tokenizer, valid = check_inputs()
    print(f"[read] {shown(sample.MODEL)} and {DATA.name}/valid.bin")
    print(f"[plan] groups of {GROUP} weights, one scale each; embeddings too")
    small = to_int8(model)
    show_weights(model, small)
    show_speed(model, small)
    show_loss(model, small, tokenizer, valid)
    folder = OUT / "hugging-face"
    f32, q8 = OUT / f"{NAME}-f32.gguf", OUT / f"{NAME}-q8.gguf"
    files = {folder / n: data for n, data in hugging_face(model, tokenizer).items()}
    files |= {f32: gguf(model, tokenizer), q8: gguf(small, tokenizer)}
    files[OUT / "Modelfile"] = MODELFILE.format(file=q8.name, warmth=TEMPERATURE)
    plumbing.write_all(files)
    T = model.config["context"]
    ids = torch.from_numpy(valid[:T].astype(np.int64))[None]  # (1, T)
    print("[check] each file, read back and compared with the model it was made from:")
    for path, its_model in [(folder, model), (f32, model), (q8, small)]:
        most = read_back(path, its_model, tokenizer, ids)
        size = sum(part.stat().st_size for part in [path, *path.glob("*")])
        print(f"  {path.name}: {size:,} bytes, logits differ by {most:g}", end=", ")
        print("the tokenizer is the same")
    print(f"[wrote] {shown(OUT)}/")
    folder, q8, out = map(shown, (folder, q8, OUT))
    print(COMMANDS.format(folder=folder, q8=q8, out=out, name=NAME))
    print("Next: python lessons/quests/playground.py, or give the files to a friend")


# ========================================================================= 9. GUARD
if __name__ == "__main__":
    plumbing.run_stage(main, ME)
