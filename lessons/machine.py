"""What this computer has: devices, memory, the GPU's dice. Nothing about models.

Stages 4, 5 and 6 use this file; a first reader may skip it. What is known about Apple
GPUs and torch 2.13, and who found it out, is in lessons/09_mac.md.
"""
import contextlib
import copy
import ctypes
import fcntl
import functools
import itertools
import math
import os
import resource
import sys
from pathlib import Path

import torch

import team
from plumbing import shown, stop, write_whole


def devices():
    """The devices of this machine, in the order of our preference: mps, cuda, cpu."""
    found = [torch.device("cpu")]
    if torch.cuda.is_available():
        found.insert(0, torch.device("cuda"))
    if torch.backends.mps.is_available():
        found.insert(0, torch.device("mps"))
        # Past this share of its memory a Mac would swap for hours instead of failing.
        torch.mps.set_per_process_memory_fraction(1.0)
    return found


def keep_memory():
    """Tell Linux's C library not to give the memory of each step back to the system and
    ask for it again at the next: a fifth faster here. Elsewhere it does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap, too
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: and stay there


@functools.cache
def may_take_onednn():
    """Is there oneDNN's matrix product, and as exact as MKL's? See faster_products."""
    if torch.cuda.is_available() or not torch.backends.mkldnn.is_available():
        return False
    dice = torch.Generator().manual_seed(0)
    a, b = torch.randn(256, 512, generator=dice), torch.randn(512, 256, generator=dice)
    torch.set_float32_matmul_precision("medium")
    error = (a @ b - a.double() @ b.double()).abs().max().item()
    torch.set_float32_matmul_precision("highest")
    return error < 1e-3  # float32: below 1e-4; bfloat16: 0.2


@contextlib.contextmanager
def faster_products():
    """Torch has two libraries for the matrix products of a CPU, MKL and oneDNN. Within
    this context it takes oneDNN, on an AMD (Zen 4) a seventh faster than MKL.

    Torch does so only with leave to round to bfloat16, of which oneDNN makes use on
    CPUs built for it (Intel's AMX): there, and beside an NVIDIA GPU, for which the same
    leave has another meaning, nothing changes. No race decides, because a run that goes
    on must compute as before. Not for writing: it builds a program for each length.
    """
    if may_take_onednn():
        torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


def wait_for(device):
    """GPUs work behind our back; before a clock is read, they must have finished."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def rng_state(device):
    """The state of all dice, as CPU tensors: what a run needs to go on exactly."""
    states = {"cpu": torch.get_rng_state()}
    if device.type != "cpu":
        states[device.type] = getattr(torch, device.type).get_rng_state()
    return states


def set_rng_state(states, device):
    """Put the dice back as rng_state found them."""
    torch.set_rng_state(states["cpu"])
    if device.type in states and device.type != "cpu":
        getattr(torch, device.type).set_rng_state(states[device.type])


def gigabytes(device=None):
    """The memory of this machine, or of its device; on a Mac, both share it."""
    if device is not None and device.type == "mps":
        return torch.mps.recommended_max_memory() / 2**30
    if device is not None and device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 2**30
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def peak_megabytes():
    """The most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KB here


def most_megabytes(device):
    """The most memory held so far, where the model is: a GPU counts its own."""
    if device.type == "mps":  # keeps what it once took; so that is the most so far
        return torch.mps.driver_allocated_memory() / 2**20
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved() / 2**20
    return peak_megabytes()


@contextlib.contextmanager
def out_of_memory_told(script):
    """Answer a lack of memory in three lines. torch has a class for it on NVIDIA, and a
    plain RuntimeError elsewhere, so we go by the words.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        words = ("out of memory", "can't allocate memory", "not enough memory")
        if isinstance(error, RuntimeError) and not any(w in str(error) for w in words):
            raise
        why = (str(error) or "No room is left.").splitlines()[0][:200]
        how = f"Halve MICRO_BATCH, double ACCUMULATE; then: python {script}"
        raise stop("\nThe memory does not suffice.", why, how) from None


def lock(path, script):
    """Keep a second run of the script out for as long as this process lives."""
    if team.rank() > 0:  # the first of the team holds it for all
        return contextlib.nullcontext()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = open(path, "w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        why = "Two runs would overwrite each other's files."
        how = f"Wait for the other, or stop it with Ctrl-C; then: python {script}"
        raise stop(f"Another {script} is running in this folder.", why, how) from None
    return handle  # the lock ends when this is closed, or the process dies


def choose_device(wanted, seconds):
    """DEVICE -> (torch.device, seconds per step there); prints the choice.

    seconds: function of a device that times a few steps. "auto" is measured and not
    assumed: a small model can be faster on a Mac's processor than on its GPU.
    """
    names = {device.type: device for device in devices()}
    if wanted != "auto":
        print(f"[plan] device {wanted}: as DEVICE says")
        return names[wanted], seconds(names[wanted])
    if team.size() > 1:  # all must choose alike, so there is no race
        device = names.get("cuda", names["cpu"])
        print(f"[plan] {team.size()} processes, each on its {device}: torchrun")
        return device, seconds(device)
    times = {device: seconds(device) for device in names.values()}
    device = min(times, key=times.get)
    told = ", ".join(f"{d} {s:.3f} s" for d, s in times.items())
    why = "the fastest" if len(times) > 1 else "there is no Apple or NVIDIA GPU"
    print(f"[plan] device {device}: {why} ({told} per step)")
    return device, times[device]


def check_limits(device, rows, vocab_size, dropout=0.0, checkpointing=False):
    """Raise SystemExit where Apple's GPUs are known to compute garbage in silence: sums
    over 32,767 products and more (pytorch issues 183535 and 195163), and dropout when
    forward is computed twice: the second time it blanks out others (194478).
    """
    if device.type == "mps" and checkpointing and dropout > 0:
        what = f"CHECKPOINTING with DROPOUT = {dropout} is wrong on an Apple GPU."
        why = "Its dice are not put back, so the gradient is that of another model."
        how = "Set one of them to its default (False, 0.0), then: python 04_train.py"
        raise stop(what, why, how)
    if device.type == "mps" and max(rows, vocab_size) >= 32_767:
        what = f"Too large for an Apple GPU: {rows:,} tokens at once or the vocabulary"
        why = "Sums of 32,767 products and more can come out wrong there, silently."
        how = "Halve MICRO_BATCH, double ACCUMULATE; VOCAB_SIZE must be below 32,767."
        raise stop(f"{what} of {vocab_size:,}.", why, how)


def check_device(model, x, y, device, check_causality):
    """The same batch on the device and on the CPU must give the same loss and gradient,
    and no token may see the future there. GPUs have been wrong without saying so.
    """
    results = []
    for where in (torch.device("cpu"), device):
        twin = copy.deepcopy(model).to(where).eval()
        loss = twin.loss(x.to(where), y.to(where))
        loss.backward()
        slopes = [p.grad for p in twin.parameters() if p.grad is not None]
        squares = [slope.cpu().double().square().sum() for slope in slopes]
        results.append((loss.item(), math.sqrt(sum(squares))))
    (loss, norm), (loss_here, norm_here) = results
    blind = math.log(model.config["vocab_size"])
    print(
        f"[check] first loss {loss_here:.4f}, gradient {norm_here:.4f} on {device};"
        f" {loss:.4f}, {norm:.4f} on cpu; guessing blindly: ln V = {blind:.4f}"
    )
    if not math.isfinite(loss) or not math.isfinite(norm):
        why = "Before any training: its weights are spoilt, or an edit spoils the sum."
        how = "Build it anew: python 03_model.py (or name another START_FROM)"
        raise stop(f"The model's first loss is {loss}, its gradient {norm}.", why, how)
    if abs(loss - loss_here) > 1e-3 * loss or abs(norm - norm_here) > 1e-2 * norm:
        what = f"{device} computes something else than the CPU."
        why = "Its arithmetic cannot be trusted with this model on this system."
        raise stop(what, why, 'Set DEVICE = "cpu", then: python 04_train.py')
    before, after = check_causality(twin, x[:1].to(device))
    if before > 1e-4 * after:
        why = f"A token moved the logits before it by {before:g}: no causal mask?"
        raise stop("The model sees the future.", why, "Mend Attention in 03_model.py.")


def compile_loss(model, x, y, device):
    """Replace model.loss by its compiled form, if that gives the same loss."""
    x, y = x.to(device), y.to(device)
    eager = model.loss(x, y).item()
    model.loss = torch.compile(model.loss)
    compiled = model.loss(x, y).item()
    print(f"[check] loss {eager:.5f} step by step, {compiled:.5f} compiled")
    if abs(eager - compiled) > 1e-3 * eager:
        what = "The compiled model computes another loss."
        why = "torch.compile cannot be trusted with this model on this device."
        raise stop(what, why, "Set COMPILE = False, then: python 04_train.py")


def save_checkpoint(path, content):
    """Write what torch.save can write, whole or not at all; OSError if it cannot."""

    def save(file):
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch's words hide those of the system
            raise error.__context__ or error from None

    write_whole(path, save)


def load_checkpoint(path, again):
    """A file of torch.save -> what was saved, on the CPU. Raises SystemExit if it is
    cut short or holds more than plain data; `again` is the command that mends it.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for damaged files
        why = f"It is cut short or not ours ({str(error).splitlines()[0][:120]})."
        raise stop(f"{shown(path)} cannot be read.", why, again) from None


def resume(folder, identity, script):
    """-> contents of last.pt if it is of this very run, else None.

    A run with other constants, another model or other data is another run: its folder
    is put aside under a number, so that nothing is lost and both can be compared.
    """
    if not (folder / "last.pt").exists():
        return None
    anew = f"rm -r {shown(folder)} && python {script}   # from the beginning"
    last = load_checkpoint(folder / "last.pt", anew)
    before = last.get("identity", {})
    changed = [name for name in identity if identity[name] != before.get(name)]
    if not changed:
        return last
    number = next(n for n in itertools.count(1) if not Path(f"{folder}.{n}").exists())
    os.rename(folder, f"{folder}.{number}")
    print(f"[plan] a new run, because these changed: {', '.join(changed)};")
    print(f"       the old one is kept in {shown(Path(f'{folder}.{number}'))}/")
    return None
