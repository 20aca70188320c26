"""The same numbers sooner: an MLP as one step of autograd, and Adam without its bookkeeping.

For: `nets` and `loop`, which say what is computed. Not for: anything of its own; whoever reads for what the
networks do may skip it, and with the plain way in its place the book is only slower. Tests hold both equal:
the MLP to 1e-12 in float64, with first and second derivatives, and Adam to the bit.
"""

import torch


class Layers(torch.autograd.Function):
    """Several MLPs with ReLU as one step of autograd: x, W1, b1, W2, b2, ... -> [*lead, B, n_out].

    The same sums as layer by layer, sooner. ReLU overwrites its input: its slope can be told from its result.
    The last layer is computed turned round, y^T = W^T h^T: libraries are slow where the result has few columns.
    Gradients of weights are left out where `backward` was not asked for them: to a policy that climbs Q, the
    critic's weights are constants. A second derivative goes layer by layer.
    """

    @staticmethod
    def forward(ctx, x, *params):
        lead = params[0].shape[:-2]  # [S] or [K, S]; below, N networks stand on one axis
        *flat, w, b = (p.flatten(0, -3) for p in params)
        kept, turned = [stacked(x, lead)], w.mT.contiguous()
        for weight, bias in zip(flat[::2], flat[1::2], strict=True):
            kept.append(torch.baddbmm(bias, kept[-1], weight).relu_())
        ctx.save_for_backward(*kept, *flat[::2], turned)
        ctx.inputs = x, *params
        return torch.baddbmm(b.mT, turned, kept[-1].mT).mT.unflatten(0, lead)

    @staticmethod
    def backward(ctx, grad):
        if torch.is_grad_enabled():  # create_graph: a second derivative may follow
            return _as_autograd_would(ctx.needs_input_grad, grad, *ctx.inputs)
        lead, count, of_x = grad.shape[:-2], len(ctx.saved_tensors) // 2, ctx.needs_input_grad[0]
        kept, weights = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        learn, grad = any(map(_wanted, ctx.next_functions[1:])), grad.flatten(0, -3)
        found = [grad.sum(1, keepdim=True), grad.mT.contiguous() @ kept[-1]] if learn else []
        grad = grad * weights[-1] if grad.shape[-1] == 1 else grad @ weights[-1]
        for i in reversed(range(count - 1)):
            torch.ops.aten.threshold_backward.grad_input(grad, kept[i + 1], 0, grad_input=grad)
            found += [grad.sum(1, keepdim=True), kept[i].mT @ grad] if learn else []
            grad = grad @ weights[i].mT if i or of_x else None
        if learn:
            found[1] = found[1].mT.contiguous()
        found = [g.unflatten(0, lead) for g in reversed(found)] or [None] * 2 * count
        return grad.unflatten(0, lead).sum_to_size(ctx.inputs[0].shape) if of_x else None, *found


def _wanted(edge) -> bool:
    """Does the running backward pass ask for the gradient behind this edge of the graph?"""
    try:
        return edge[0] is not None and torch._C._will_engine_execute_node(edge[0])
    except (AttributeError, RuntimeError):  # it does not say
        return True


def _as_autograd_would(needed, grad, *inputs):
    """Gradients of all inputs that need one, made of operations that have derivatives themselves."""
    y, *params = inputs
    for w, b in zip(params[::2], params[1::2], strict=True):
        y = (y if w is params[0] else y.relu()) @ w + b
    of = [i for i, need in zip(inputs, needed, strict=True) if need]
    found = iter(torch.autograd.grad(y, of, grad, create_graph=True))
    return tuple(next(found) if need else None for need in needed)


def stacked(x, lead):
    """Inputs of N networks on one axis, [N, B, n_in], whether x has the axes `lead` of them or not."""
    return x.expand(*lead, *x.shape[-2:]).flatten(0, -3)


class Adam(torch.optim.Adam):
    """PyTorch's Adam to the bit, with its fused kernel called at once: its own step looks all up anew."""

    @torch.no_grad()
    def step(self):
        (group,) = self.param_groups
        grads, states = zip(*((p.grad, self.state[p]) for p in group["params"]), strict=True)
        if not all(states) or any(g is None for g in grads):
            return super().step()  # the first step makes the states
        m, v, t = ([s[key] for s in states] for key in ("exp_avg", "exp_avg_sq", "step"))
        torch._foreach_add_(t, 1)
        kept = {key: group[key] for key in ("lr", "eps", "weight_decay", "amsgrad", "maximize")}
        kept["beta1"], kept["beta2"] = group["betas"]
        torch._fused_adam_(group["params"], grads, m, v, [], t, **kept)

    step.hooked = True  # else PyTorch wraps it for its profiler, at the price of the kernel
