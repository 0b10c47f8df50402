"""How fast does stage 6 write? Beside nanoGPT's way, without a cache, and transformers.

    python tests/bench_sample.py                      10M model, batch 1 and 16
    python tests/bench_sample.py --batches 1 --tokens 100 --rounds 5 --threads 1

Run by hand, never by pytest. The weights are random: speed does not ask for sense. All
write greedily from the same prompt, and must write the same tokens. They take turns,
round by round; what counts is the median over the rounds of the ratio to nanoGPT's way
in the same round, because the speed of a shared machine drifts. transformers is left
out where it is not installed (tests/requirements-peers.txt). int8 is the model of
lessons/quests/take_home.py; its weights are rounded, so its tokens may be others.
"""

import argparse
import copy
import importlib
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "lessons"), str(ROOT / "lessons" / "quests")]
gpt = importlib.import_module("03_model")
sample = importlib.import_module("06_sample")
take_home = importlib.import_module("take_home")

VOCABULARY = 8192
PROMPT = [2, 400, 401, 402, 403]  # <BOS> and four words


def make_model(size):
    """A model of that SIZE with weights large enough that no two tokens are even."""
    n_layer, n_head, n_embd, context = gpt.SIZES[size]
    config = {"vocab_size": VOCABULARY, "context": context}
    torch.manual_seed(1)
    model = gpt.GPT(config | {"n_layer": n_layer, "n_head": n_head, "n_embd": n_embd})
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(3)
    return model.eval()


def ours(model, batch, tokens):
    """Stage 6's generate, with its cache."""
    greedy = sample.settings(temperature=0, repetition_penalty=1.0)
    dice = sample.dice_for(batch, 1)
    columns = sample.generate(model, [PROMPT] * batch, tokens, greedy, dice, None)
    return [list(row) for row in zip(*columns)]


@torch.no_grad()
def nano(model, batch, tokens):
    """As nanoGPT's model.generate: the whole text through the model for each token, the
    last layer for the last place only; top_k = 1, softmax, multinomial, cat.
    """
    ids = torch.tensor([PROMPT] * batch)
    for _ in range(tokens):
        seen = ids[:, -model.config["context"] :]
        logits = F.linear(model.hidden(seen)[:, [-1]], model.wte.weight)[:, -1]
        best, _ = torch.topk(logits, 1)
        logits[logits < best[:, [-1]]] = -float("inf")
        new = torch.multinomial(F.softmax(logits, dim=-1), num_samples=1)
        ids = torch.cat((ids, new), dim=1)
    return ids[:, len(PROMPT) :].tolist()


def in_transformers(model):
    """The same weights as transformers' GPT-2 (biases 0), or None."""
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError:
        return None
    c = model.config
    config = GPT2Config(
        vocab_size=c["vocab_size"], n_positions=c["context"], n_layer=c["n_layer"],
        n_head=c["n_head"], n_embd=c["n_embd"], bos_token_id=2, eos_token_id=None,
        pad_token_id=0,
    )  # fmt: skip
    peer = GPT2LMHeadModel(config).eval()
    weights = {name: torch.zeros_like(w) for name, w in peer.state_dict().items()}
    for name, weight in model.state_dict().items():
        # GPT-2's own code multiplies x @ W where torch's Linear takes x @ W.T.
        turned = name.startswith("h.") and weight.dim() == 2
        weights["transformer." + name] = weight.T if turned else weight
    weights["lm_head.weight"] = model.wte.weight.detach()
    peer.load_state_dict(weights)
    return peer


@torch.no_grad()
def theirs(peer, batch, tokens):
    """transformers' generate, with its own cache."""
    ids = torch.tensor([PROMPT] * batch)
    out = peer.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, use_cache=True,
        max_new_tokens=tokens, min_new_tokens=tokens,
    )  # fmt: skip
    return out[:, len(PROMPT) :].tolist()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="tiny", choices=gpt.SIZES)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--tokens", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cpu-time", action="store_true",
                        help="on a busy machine: count CPU seconds (with --threads 1)")
    wanted = parser.parse_args()
    clock = time.process_time if wanted.cpu_time else time.perf_counter
    torch.set_num_threads(wanted.threads)
    model = make_model(wanted.size)
    size = sum(weight.numel() for weight in model.parameters())
    peer = in_transformers(model)
    print(f"{wanted.size}: {size:,} parameters; {wanted.tokens} new tokens, float32")
    writers = {"nanoGPT's way": (nano, model)}
    writers["ours"] = ours, sample.lay_out(copy.deepcopy(model))
    writers["int8"] = ours, take_home.to_int8(model)
    if peer is not None:
        writers["transformers"] = (theirs, peer)
    for batch in wanted.batches:
        speeds = {name: [] for name in writers}
        texts = {}
        for write, its_model in writers.values():
            write(its_model, batch, 5)  # the first run of anything is slower
        for _ in range(wanted.rounds):
            for name, (write, its_model) in writers.items():
                started = clock()
                texts[name] = write(its_model, batch, wanted.tokens)
                seconds = clock() - started
                speeds[name].append(batch * wanted.tokens / seconds)
        print(f"\nbatch {batch}: tokens per second (median of {wanted.rounds})")
        for name in writers:
            against = zip(speeds[name], speeds["nanoGPT's way"])
            ratio = statistics.median(a / b for a, b in against)
            same = "same tokens" if texts[name] == texts["ours"] else "OTHER TOKENS"
            same = "rounded weights" if name == "int8" else same
            speed = statistics.median(speeds[name])
            print(f"  {name:14} {speed:10,.0f}   x {ratio:5.2f}   {same}")


if __name__ == "__main__":
    main()
