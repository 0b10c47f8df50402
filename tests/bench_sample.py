"""How fast is stage 6? Beside nanoGPT's generate, without a cache, and transformers.

    python tests/bench_sample.py                      10M model, batch 1 and 16
    python tests/bench_sample.py --batches 1 --tokens 100 --rounds 5 --threads 1

Run by hand, never by pytest. The weights are random, because speed does not depend on
what they are. All generate greedily from the same prompt and must produce the same
tokens. They take turns, round by round. What counts is the median over the rounds of
the ratio to nanoGPT in the same round, because the speed of a shared machine drifts.
transformers is left out where it is not installed (tests/requirements-peers.txt).
"""

import argparse
import importlib
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
gpt = importlib.import_module("03_model")
sample = importlib.import_module("06_sample")

VOCABULARY = 8192
PROMPT = [2, 400, 401, 402, 403]  # <BOS> and four words


def make_model(size):
    """A model of that SIZE with weights large enough that no two tokens are tied."""
    n_layer, n_head, n_embd, block_size = gpt.SIZES[size]
    torch.manual_seed(1)
    config = gpt.GPTConfig(VOCABULARY, block_size, n_layer, n_head, n_embd)
    model = gpt.GPT(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(3)
    return model.eval()


def ours(model, batch, tokens):
    """Stage 6's generate, with the KV cache."""
    greedy, rngs = {"temperature": 0}, sample.make_rngs(batch, 1)
    columns = sample.generate(model, [PROMPT] * batch, tokens, greedy, rngs, None)
    return [list(row) for row in zip(*columns)]


def plain(model, batch, tokens):
    """Stage 3's model.generate, with the KV cache."""
    idx = model.generate(torch.tensor([PROMPT] * batch), tokens, temperature=0)
    return idx[:, len(PROMPT) :].tolist()


@torch.no_grad()
def nano(model, batch, tokens):
    """As nanoGPT's model.generate: the whole text through the model for each token, the
    output layer for the last position only; top_k = 1, softmax, multinomial, cat.
    """
    ids = torch.tensor([PROMPT] * batch)
    for _ in range(tokens):
        seen = ids[:, -model.config.block_size :]
        logits = model.output(model.hidden(seen)[:, [-1]])[:, -1]
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
        vocab_size=c.vocab_size, n_positions=c.block_size, n_layer=c.n_layer,
        n_head=c.n_head, n_embd=c.n_embd, bos_token_id=2, eos_token_id=None,
        pad_token_id=0,
    )  # fmt: skip
    peer = GPT2LMHeadModel(config).eval()
    weights = {name: torch.zeros_like(w) for name, w in peer.state_dict().items()}
    for name, weight in model.state_dict().items():
        # GPT-2's own code multiplies x @ W where torch's Linear takes x @ W.T.
        transposed = name.startswith("h.") and weight.dim() == 2
        weights["transformer." + name] = weight.T if transposed else weight
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
    size = model.config.n_params
    peer = in_transformers(model)
    print(f"{wanted.size}: {size:,} parameters; {wanted.tokens} new tokens, float32")
    generators = {"nanoGPT": (nano, model), "ours": (ours, model)}
    generators["stage 3"] = (plain, model)
    if peer is not None:
        generators["transformers"] = (theirs, peer)
    for batch in wanted.batches:
        speeds = {name: [] for name in generators}
        results = {}
        for generate, its_model in generators.values():
            generate(its_model, batch, 5)  # the first run of anything is slower
        for _ in range(wanted.rounds):
            for name, (generate, its_model) in generators.items():
                started = clock()
                results[name] = generate(its_model, batch, wanted.tokens)
                seconds = clock() - started
                speeds[name].append(batch * wanted.tokens / seconds)
        print(f"\nbatch {batch}: tokens per second (median of {wanted.rounds})")
        for name in generators:
            against = zip(speeds[name], speeds["nanoGPT"])
            ratio = statistics.median(a / b for a, b in against)
            same = "same tokens" if results[name] == results["ours"] else "OTHER TOKENS"
            speed = statistics.median(speeds[name])
            print(f"  {name:14} {speed:10,.0f}   x {ratio:5.2f}   {same}")


if __name__ == "__main__":
    main()
