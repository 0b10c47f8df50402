"""By hand: four functions that the six scripts take from torch, written out.

The workbook (lessons/workbook.py) blanks them, as it does functions of the scripts. No
script imports this file: torch's versions are faster, and tests/test_workbook.py says
that they compute the same.
"""
import torch

def layer_norm(x, weight, eps=1e-5):  # (..., C), (C,) -> (..., C)
    """Give each vector mean 0 and variance 1, then scale its channels by `weight`.
    eps is added to the variance, so that nothing is ever divided by 0. This is
    nn.LayerNorm without bias (Ba et al., arXiv 1607.06450).

    >>> layer_norm(torch.tensor([[1.0, 3.0], [10.0, 30.0]]), torch.ones(2)).round()
    tensor([[-1.,  1.],
            [-1.,  1.]])
    """
    centered = x - x.mean(dim=-1, keepdim=True)  # (..., C) - (..., 1) -> (..., C)
    variance = (centered * centered).mean(dim=-1, keepdim=True)  # (..., 1)
    return centered / torch.sqrt(variance + eps) * weight

def cross_entropy(logits, targets, ignore=-1):  # (N, V), (N,) -> ()
    """The loss: the mean of -ln(probability of the right next token). Targets equal to
    `ignore` do not count. This is F.cross_entropy(..., ignore_index=ignore).

    >>> logits = torch.tensor([[1.0, 1.0], [0.0, 100.0]])  # unsure; sure of token 1
    >>> [cross_entropy(logits, torch.tensor(t)).item() for t in ([0, -1], [-1, 1])]
    [0.6931471824645996, 0.0]
    """
    logits, targets = logits[targets != ignore], targets[targets != ignore]
    right = logits.gather(1, targets[:, None])[:, 0]  # (N, V), (N, 1) -> (N,)
    # -ln(exp(right) / sum of all exp(logit)) is the logarithm of that sum minus right;
    # logsumexp subtracts the largest logit first, so that exp() cannot overflow.
    return (logits.logsumexp(dim=1) - right).mean()

def clip_gradients(gradients, limit):  # list of tensors -> (), their norm before
    """Shorten the gradient, in place, to length `limit` if it is longer. All tensors
    together are one long vector. This is torch.nn.utils.clip_grad_norm_.

    >>> gradients = [torch.tensor([3.0]), torch.tensor([4.0])]  # a vector of length 5
    >>> clip_gradients(gradients, 1.0), gradients
    (tensor(5.), [tensor([0.6000]), tensor([0.8000])])
    """
    norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
    scale = (limit / (norm + 1e-6)).clamp(max=1.0)  # 1e-6: no division by 0
    for gradient in gradients:
        gradient *= scale
    return norm

def adamw_step(weight, gradient, m, v, step, lr, beta1, beta2, weight_decay, eps=1e-8):
    """One step of AdamW (arXiv 1711.05101) for one tensor: changes weight, m and v, all
    of one shape, in place. m and v are running means of the gradient and of its square.
    They begin at 0, so early on they are too small: in step t (1 at first) by the
    factors 1 - beta1**t and 1 - beta2**t. First, and apart from the gradient,
    the weight decays by the factor 1 - lr * weight_decay. This is torch.optim.AdamW.

    >>> weight, m, v = torch.tensor([1.0]), torch.zeros(1), torch.zeros(1)
    >>> adamw_step(weight, torch.tensor([8.0]), m, v, 1, 0.1, 0.9, 0.99, 0.0)
    >>> weight, m, v  # however long the gradient, the first step has the length lr
    (tensor([0.9000]), tensor([0.8000]), tensor([0.6400]))
    """
    weight *= 1 - lr * weight_decay
    m += (1 - beta1) * (gradient - m)
    v += (1 - beta2) * (gradient * gradient - v)
    m_hat = m / (1 - beta1**step)
    v_hat = v / (1 - beta2**step)
    weight -= lr * m_hat / (v_hat.sqrt() + eps)
