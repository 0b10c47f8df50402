"""What this computer has: devices, memory, the GPU's dice. Nothing about models.

Stages 4, 5 and 6 use this file; a first reader may skip it. What is known about Apple
GPUs and torch 2.13, and who found it out, is in lessons/09_mac.md.
"""
import contextlib
import copy
import ctypes
import fcntl
import io
import math
import os
import resource
import sys

import torch

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


def gigabytes():
    """The memory of this machine; on a Mac, processor and GPU share it."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def peak_megabytes():
    """The most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KB here


def lock(path, script):
    """Keep a second run of the script out for as long as this process lives."""
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
    times = {device: seconds(device) for device in names.values()}
    device = min(times, key=times.get)
    told = ", ".join(f"{d} {s:.3f} s" for d, s in times.items())
    why = "the fastest" if len(times) > 1 else "there is no Apple or NVIDIA GPU"
    print(f"[plan] device {device}: {why} ({told} per step)")
    return device, times[device]


def check_limits(device, rows, vocab_size):
    """Raise SystemExit where Apple's GPUs are known to compute garbage in silence: sums
    over 32,767 products and more (pytorch issues 183535 and 195163).
    """
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
    """Write what torch.save can write, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_whole(path, buffer.getvalue())


def load_checkpoint(path, again):
    """A file of torch.save -> what was saved, on the CPU. Raises SystemExit if it is
    cut short or holds more than plain data; `again` is the command that mends it.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for damaged files
        why = f"It is cut short or not ours ({str(error).splitlines()[0][:120]})."
        raise stop(f"{shown(path)} cannot be read.", why, again) from None
