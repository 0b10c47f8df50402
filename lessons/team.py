"""Several processes that train one model: what torchrun starts, or one alone.

    torchrun --nproc-per-node 2 04_train.py

runs stage 4 twice, with the same weights and different texts. After each step's passes
the processes average their gradients, so all take the same step; the first one prints
and writes for all. Started without torchrun, every function here does next to nothing.
A first reader may skip it.
"""
import contextlib
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def rank():
    """Which process of the team this is: 0 prints and writes."""
    return int(os.environ.get("RANK", 0))


def size():
    """How many processes there are; torchrun tells by way of the environment."""
    return int(os.environ.get("WORLD_SIZE", 1))


def command(script):
    """What to type to go on."""
    alone, several = "python", f"torchrun --nproc-per-node {size()}"
    return f"{several if size() > 1 else alone} {script}"


@contextlib.contextmanager
def joined():
    """Meet the others (nccl between NVIDIA GPUs, gloo between CPUs); all but the first
    fall silent, also about mistakes, which the first tells of in the same words.
    """
    if size() == 1:
        yield
        return
    with_gpu = torch.cuda.is_available()
    if with_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if with_gpu else "gloo")
    if rank() == 0:
        yield
    else:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            try:
                yield
            except SystemExit:
                raise SystemExit(1) from None
    dist.barrier()  # nobody leaves while the first still measures and writes
    dist.destroy_process_group()


def first_then_others(work):  # -> what work() returns
    """Do something to files in the first process before any other looks at them."""
    if size() == 1:
        return work()
    if rank() > 0:
        dist.barrier()
        return work()
    try:
        return work()
    finally:  # also after a mistake: the others will find it, too
        dist.barrier()


class Whole(nn.Module):
    """What DistributedDataParallel asks for: a module whose forward is the loss."""

    def __init__(self, model):
        super().__init__()
        self.model, self.alone = model, model.loss

    def forward(self, ids, targets):
        return self.alone(ids, targets)


def share_gradients(model):
    """From now on, backward of model.loss averages the gradients of all processes. To
    measure and to speak is the business of the first alone: eval mode asks nobody.
    """
    if size() > 1:
        alone, shared = model.loss, DistributedDataParallel(Whole(model))
        model.loss = lambda x, y: (shared if model.training else alone)(x, y)


def mean(tensor):
    """The mean over all processes of a tensor that each of them has."""
    if size() > 1:
        dist.all_reduce(tensor)
        tensor /= size()
    return tensor


def anyone(*answers):  # -> as many booleans
    """Did any process say yes? So that all save, and all stop, after the same step."""
    if size() > 1:
        votes = torch.tensor([int(bool(answer)) for answer in answers])
        dist.all_reduce(votes, dist.ReduceOp.MAX)
        answers = votes.tolist()
    return [bool(answer) for answer in answers]


def gather(mine):  # -> [that of process 0, that of process 1, ...]
    """What every process has of its own: its dice, its last losses."""
    everyone = [mine] * size()
    if size() > 1:
        dist.all_gather_object(everyone, mine)
    return everyone
