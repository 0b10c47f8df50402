"""Before a long run: is all sound, how long will it take, how well is the machine used?

Stage 4 hands over what it has, and the answers become [check] and [plan] lines. A first
reader may skip it, but for check_learning, the oldest test of a training loop.
"""
import copy
import statistics
import time

import torch

import machine
from plumbing import stop


def check_tokens(name, batches, tokens, config):
    """Raise SystemExit unless a file of tokens is whole and suits the model."""
    context, vocabulary = config["context"], config["vocab_size"]
    if len(batches.ids) != tokens:
        why = f"It should hold {tokens:,} ids of 2 bytes, as meta.json says."
        raise stop(f"{name} is damaged.", why, "python 02_prepare.py")
    if not len(batches.starts):
        why = f"No story of it has {context + 1} tokens before the end of the file."
        how = "Take a longer text (01_bpe.py) or a shorter context (03_model.py)."
        raise stop(f"{name} is too short: {tokens:,} tokens.", why, how)
    largest = int(batches.ids.max())
    if largest >= vocabulary:
        why = f"The model's vocabulary ends at {vocabulary - 1:,}: it has no such row."
        raise stop(f"{name} holds the id {largest:,}.", why, "python 02_prepare.py")
    print(f"[read] {name}: {tokens:,} ids up to {largest:,}; vocabulary {vocabulary:,}")


class Trial:
    """A copy of the model, on a device, on which some steps can be tried out.

    make_optimizer and train_step are those of stage 4: what is tried is what will run.
    """

    def __init__(self, model, batches, make_optimizer, train_step, device):
        self.model = copy.deepcopy(model).to(device).train()
        self.batches, self.device, self.train_step = batches, device, train_step
        self.optimizer = make_optimizer(self.model)

    def step(self, number, plan):  # -> loss as a tensor
        return self.train_step(
            self.model, self.optimizer, self.batches, number, plan, self.device
        )[0]

    def seconds(self, plan):
        """The median time of some steps (3, or more if they are short), after one to
        warm up: other programs may slow down one of them.
        """
        times = []
        while len(times) < 4 or (sum(times[1:]) < 0.3 and len(times) < 12):
            started = time.perf_counter()
            self.step(len(times), plan)
            machine.wait_for(self.device)
            times.append(time.perf_counter() - started)
        return statistics.median(times[1:])

    def check_learning(self, steps=30):
        """A few short texts can be learnt by heart, or the loop is broken, however well
        all looks. Raises SystemExit, or prints the first and the last loss.
        """
        self.model.eval()  # without dropout
        self.batches = copy.copy(self.batches)
        self.batches.context = min(32, self.batches.context)
        same = self.batches.batch(0, 4)
        self.batches.batch = lambda n, size: same
        # A wide model needs a smaller rate; this suits all from 32 to 768 wide.
        plan = {"steps": steps, "max_lr": 0.3 / self.model.config["n_embd"]}
        plan |= {"accumulate": 1, "micro_batch": 4}
        losses = [self.step(number, plan) for number in range(steps)]
        first, last = losses[0].item(), losses[-1].item()
        if not last < first / 3:
            what = f"{steps} steps on 4 short texts took the loss from {first:.3f} to"
            why = "A model that cannot learn these by heart learns nothing from many."
            how = "Undo your last edit of 03_model.py or 04_train.py, and run it again."
            raise stop(f"{what} {last:.3f}.", why, how)
        print(f"[check] {steps} steps on 4 short texts: loss {first:.3f} to {last:.3f}")


@machine.faster_products()
def matmul_rate(device, dtype=torch.float32, enough=0.02, largest=8192):
    """Operations per second of a large matrix product: the best this machine can do.

    The matrices double until one product takes `enough` seconds, because a GPU needs
    larger ones than a processor to be busy; the best rate on the way counts.
    """
    best, side, seconds = 0.0, 256, 0.0
    while seconds < enough and side <= largest:
        square = torch.randn(side, side, device=device).to(dtype)
        square @ square  # the first of anything is slower
        machine.wait_for(device)
        started = time.perf_counter()
        square @ square
        machine.wait_for(device)
        seconds = time.perf_counter() - started
        best = max(best, 2 * side**3 / seconds)
        side *= 2
    return best


def duration(seconds):
    """Time as people say it, with two or three digits.

    >>> [duration(s) for s in (2.5, 260, 6000, 90_000, 1e6)]
    ['2 s', '4.3 min', '1.7 h', '25.0 h', '12 days']
    """
    for unit, size, most in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48)):
        if seconds < most * size:
            return f"{seconds / size:.{0 if unit == 's' else 1}f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def tell(steps, seconds, speed, best, memory, device):
    """Print what the rest of a run will take, from a few steps that were timed.

    speed: operations per second of the steps; best: those of a matrix product; memory:
    MB held before the steps, and the most during them.
    """
    whole = steps * seconds
    end = time.strftime("%a %H:%M", time.localtime(time.time() + whole))
    now, most = memory
    print(f"[plan] {steps:,} steps of {seconds:.3f} s: {duration(whole)}, until {end}")
    print(f"[plan] {now:,.0f} MB of memory now, at most about {most:,.0f} MB")
    if most > 1024 * machine.gigabytes(device):
        print("[note] more than there is! Halve MICRO_BATCH and double ACCUMULATE.")
    ours, product = speed / 1e9, best / 1e9
    print(f"[plan] {ours:,.0f} GFLOP/s (thousand million operations per second),")
    print(f"       {ours / product:.0%} of a large matrix product's {product:,.0f}")


def tell_others(gpt, config, speed, preset):
    """Print how long the other sizes would take, each with the tokens of its preset."""
    times = []
    for name, numbers in gpt.SIZES.items():
        names = ("n_layer", "n_head", "n_embd", "context")
        other = config | dict(zip(names, numbers))
        if other != config:
            tokens = preset(sum(gpt.count_parameters(other).values()))[0]
            work = 3 * gpt.flops_per_token(other) * tokens
            times.append(f"{name} {duration(work / speed)}")
    print(f"[plan] other sizes, if as fast (an estimate): {', '.join(times)}")
