"""Muon: an optimizer for matrices. Stage 4 uses it beside AdamW.

A gradient matrix has a few strong directions and many weak ones, and a plain step goes
along the strong ones; rare things (who is called Hugo?) hide in the weak ones. Muon
makes all directions of a step about equally strong: it replaces the matrix by the
nearest one whose rows (or columns) are at right angles and of length 1.

Jordan et al. 2024 ("Muon: an optimizer for hidden layers in neural networks"); Liu et
al., arXiv 2502.16982. torch.optim.Muon does the same in bfloat16, which many CPUs must
emulate; this is float32.
"""
import torch


def orthogonalize(matrix, steps=5):  # (rows, columns) -> (rows, columns)
    """Singular values of the matrix -> about 1; its directions stay (Newton-Schulz).

    Each step applies 3.4445 s - 4.775 s^3 + 2.0315 s^5 to every singular value s, and
    computes none; five bring those that are not tiny to between 0.7 and 1.2.

    >>> orthogonalize(torch.tensor([[3.0, 0.0], [0.0, 0.5]])).diag().round(decimals=1)
    tensor([0.7000, 1.0000])
    """
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Muon(torch.optim.Optimizer):
    """Steps along the orthogonalized mean of the recent gradients (with Nesterov's look
    ahead). Takes matrices only; lr is the length of a step in each direction.
    """

    def __init__(self, params, lr, momentum=0.95):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        """One step of every matrix that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                state, momentum = self.state[weight], group["momentum"]
                if not state:
                    state["mean"] = torch.zeros_like(weight)
                state["mean"].lerp_(weight.grad, 1 - momentum)
                step = orthogonalize(weight.grad.lerp(state["mean"], momentum))
                tall = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
                weight.add_(step, alpha=-group["lr"] * tall)
