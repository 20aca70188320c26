"""Every method on a device that is not the CPU, without having one: marks on tensors, numbers on the CPU.

The pretend device refuses what CUDA refuses: to mix its tensors with those of the CPU, and to become NumPy.
Not seen: what happens inside a single function of PyTorch, in the gradient engine, in an optimiser.
"""

import copy
import dataclasses
import functools

import numpy as np
import pytest
import torch
from test_contract import every_case, module_of, short
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from offrl_nb import Dataset, Streams, evaluator, load
from offrl_nb.fast import Adam
from offrl_nb.methods.data import weighted_batches

DEVICE = torch.device("xla")  # PyTorch knows the name, and raises where the pretence has a hole


class Marked(Tensor):
    """A tensor on the pretend device."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # the mode below does it all

    def __deepcopy__(self, memo):
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        copied._is_param = getattr(self, "_is_param", False)  # what makes it an nn.Parameter
        return memo.setdefault(id(self), copied)


def tensors(x) -> list[Tensor]:
    """All tensors in nested arguments."""
    parts = x.values() if isinstance(x, dict) else x if isinstance(x, list | tuple) else []
    return [x] if isinstance(x, Tensor) else [t for part in parts for t in tensors(part)]


def mark(x, given=()):
    """A result on the pretend device; what was changed in place stays the object that it is."""
    if isinstance(x, list | tuple):
        parts = [mark(part, given) for part in x]
        return parts if type(x) is list else type(x)(parts)
    return x.as_subclass(Marked) if type(x) is Tensor and all(x is not t for t in given) else x


class Pretend(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        args, kwargs, name = list(args), dict(kwargs or {}), func.__name__
        given = tensors([args, kwargs])
        there = [isinstance(t, Marked) for t in given]
        if func == Tensor.device.__get__:
            return DEVICE if there[0] else func(*args)
        if name in ("numpy", "__array__") and there[0]:
            raise TypeError("can't convert a tensor of the pretend device to NumPy; .cpu() first")
        device = kwargs.pop("device", None)
        if name == "to" and len(given) == 2:  # like another tensor
            device, args[1] = DEVICE if there[1] else "cpu", args[1].dtype
        elif name in ("to", "cpu"):
            named = [x for x in args[1:] if isinstance(x, torch.device | str)]
            device = "cpu" if name == "cpu" else named[0] if named else device
            args = [x for x in args if not isinstance(x, torch.device | str)]
        if device is None:  # where its arguments are, which must be one place
            self.check(name, args, given, there)
            out = func(*args, **kwargs)
            return mark(out, given) if any(there) else out
        goes = torch.device(device) == DEVICE
        out = func(*args, **kwargs) if name != "to" or args[1:] or kwargs else args[0]
        if given and goes != there[0]:
            out = out.clone()  # moved
        return mark(out, given) if goes else out.as_subclass(Tensor)

    def check(self, name, args, given, there):
        if name == "copy_" or (name == "__getitem__" and there[0]):
            return  # copies from one device to another; indices may come from the CPU
        if name == "__setitem__" and not tensors(args[1]):
            return  # a copy into a slice
        alone = 0 if name in ("stack", "cat") else 1  # else a single number goes anywhere
        strange = any(not t and x.dim() >= alone for t, x in zip(there, given, strict=True))
        if any(there) and strange:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device")


@pytest.fixture
def pretend(monkeypatch):
    """The pretend device, on, except in optimisers."""
    for kind in (torch.optim.Adam, torch.optim.AdamW, Adam):
        for method in ("__init__", "step"):
            plain = getattr(kind, method)

            def outside(*args, _plain=plain, **kwargs):
                with torch._C.DisableTorchFunction():
                    return _plain(*args, **kwargs)

            monkeypatch.setattr(kind, method, outside)
    with Pretend():
        yield


@functools.cache
def small(dataset_id) -> Dataset:
    """A few episodes of a shipped log, to be evaluated on a few steps."""
    dataset = load(dataset_id).select(range(12))
    env = copy.deepcopy(dataset.env)
    env.max_episode_steps = 3
    return dataclasses.replace(dataset, env=env)


@every_case
def test_trains_and_evaluates_on_another_device(slug, dataset_id, settings, pretend):
    module, dataset = module_of(slug), small(dataset_id).to(DEVICE)
    config, evaluate = short(module, settings, 2), evaluator(dataset, 1)
    nets, table = module.train(dataset, config, [0, 1], evaluate, evaluations=1)
    assert all(value.device == DEVICE for value in nets.state_dict().values())
    assert table["return"].notna().sum() == 2


def test_weighted_batches_come_from_another_device(pretend):
    dataset = small("pendulum/narrow-v0").to(DEVICE)
    batches = weighted_batches(dataset, np.ones(len(dataset)), 4, Streams(2, DEVICE))
    assert all(x.device == DEVICE for x in tensors(next(batches)))


# What the pretence is worth


def made_here(batch):
    return batch._replace(reward=torch.zeros(batch.reward.shape))


def to_numpy(batch):
    return batch._replace(reward=torch.as_tensor(np.sqrt(batch.reward**2)).to(DEVICE))


@pytest.mark.parametrize("plant", [made_here, to_numpy])
@pytest.mark.parametrize("slug", ["iql", "td3bc", "cql"])
def test_a_mix_up_in_an_update_is_caught(slug, plant, pretend, monkeypatch):
    module, dataset, draw = module_of(slug), small("pendulum/narrow-v0").to(DEVICE), Dataset.rows
    monkeypatch.setattr(Dataset, "rows", lambda *given: plant(draw(*given)))
    with pytest.raises((RuntimeError, TypeError), match=r"same device|\.cpu\(\) first"):
        module.train(dataset, short(module, {}, 2), [0])


X = torch.ones(3, 2)
CASES = {  # what CUDA does with a, there, and b, here
    "adds": (lambda a, b: a + b, False),
    "adds a number": (lambda a, b: a + b[0, 0], True),
    "stacks a number": (lambda a, b: torch.stack([a[0, 0], b[0, 0]]), False),
    "adds in place": (lambda a, b: b.add_(a), False),
    "indexes what is there": (lambda a, b: a[b[:, 0].long()], True),
    "indexes what is here": (lambda a, b: b[a[:, 0].long()], False),
    "fills a slice": (lambda a, b: a.__setitem__(slice(2), b[:2]), True),
    "fills rows": (lambda a, b: a.__setitem__(a[:, 0].long(), b), False),
    "moves": (lambda a, b: a + b.to(a) + b.to(a.device) + torch.ones(3, 2, device=a.device), True),
    "moves back": (lambda a, b: b + a.cpu() + a.to(b) + a.to("cpu", torch.float64), True),
    "becomes NumPy": (lambda a, b: a.sum(0).numpy(), False),
    "becomes NumPy by itself": (lambda a, b: np.asarray(a), False),
}


@pytest.mark.parametrize("case", CASES)
def test_the_pretend_device_does_what_cuda_does(case, pretend):
    act, allowed = CASES[case]
    there = X.to(DEVICE)
    if allowed:
        act(there, X.clone())
    else:
        with pytest.raises((RuntimeError, TypeError), match=r"same device|\.cpu\(\) first"):
            act(there, X.clone())


def test_marks_go_with_views_parameters_copies_and_gradients(pretend):
    weight = nn.Parameter(X.to(DEVICE))
    (slope,) = torch.autograd.grad((weight**2).sum(), weight, create_graph=True)
    (weight**2).sum().backward()
    frozen = copy.deepcopy(nn.ParameterList([weight]))[0]
    values = weight, weight.T.detach(), weight.mul(2).chunk(2)[1], slope, weight.grad, frozen
    assert [value.device for value in values] == [DEVICE] * 6
    assert isinstance(frozen, nn.Parameter) and weight.cpu().device.type == "cpu"
    assert X.device.type == "cpu" and torch.zeros(2).device.type == "cpu"
