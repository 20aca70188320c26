"""The contract of a method module, one test over all methods and variants (CONTRIBUTING.md has it in words)."""

import dataclasses
import importlib
import inspect
import typing

import pytest
import torch
from notebooks import chapters

from offrl_nb import data, evaluator, load

LENGTHS = ("updates", "online_steps")  # the settings that say how long a run is
TAUGHT = [c for c in chapters() if c.about.get("kind") in ("method", "story")]
METHODS = [
    c.slug
    for c in TAUGHT
    if hasattr(importlib.import_module(f"offrl_nb.methods.{c.slug}"), "train")
]
every_method = pytest.mark.parametrize("slug", METHODS)


def module_of(slug):
    return importlib.import_module(f"offrl_nb.methods.{slug}")


def choices(slug) -> list[dict]:
    """No setting changed, and every other choice of every Literal field, one at a time."""
    config = module_of(slug).Config
    hints = typing.get_type_hints(config)
    literal = {
        k: typing.get_args(x) for k, x in hints.items() if typing.get_origin(x) is typing.Literal
    }
    others = [{k: x} for k, values in literal.items() for x in values if x != getattr(config(), k)]
    return [{}, *others]


CASES = [
    pytest.param(c.slug, dataset_id, settings, id=f"{c.slug}-{dataset_id}-{settings}")
    for c in TAUGHT
    for dataset_id in c.about.get("contract", [])
    for settings in choices(c.slug)
]
every_case = pytest.mark.parametrize(("slug", "dataset_id", "settings"), CASES)


# What a module holds


@every_method
def test_a_module_has_what_the_contract_asks_for(slug):
    module, where = module_of(slug), f"offrl_nb.methods.{slug}"
    assert dataclasses.is_dataclass(module.Config), f"{where} needs a dataclass Config."
    frozen = module.Config.__dataclass_params__.frozen
    assert frozen, f"{where}.Config needs @dataclass(frozen=True)."
    for name in ("PAPER", "TASKS"):
        assert hasattr(module, name), f"{where} has no {name}; an empty TASKS = {{}} is one."
    assert isinstance(module.PAPER, module.Config), f"{where}.PAPER is to be a Config."
    assert module.Config() != module.PAPER, f"{where}.PAPER holds no published setting."
    names = list(inspect.signature(module.train).parameters)
    wanted = ["dataset", "config", "seeds", "evaluate", "evaluations"]
    assert names[:5] == wanted, f"{where}.train has {names}; it begins with {wanted}."
    doc = inspect.getdoc(module.train) or ""
    assert "Returns" in doc, f"{where}.train says nothing of what it returns."


@every_method
def test_what_a_task_changes_are_fields_with_values_that_are_allowed(slug):
    module = module_of(slug)
    for task, changes in module.TASKS.items():
        unknown = changes.keys() - {field.name for field in dataclasses.fields(module.Config)}
        assert not unknown, (
            f"TASKS[{task!r}] of {slug} names {unknown}, which Config does not have."
        )
        dataclasses.replace(module.Config(), **changes)


@every_method
def test_every_setting_refuses_nonsense_when_it_is_made(slug):
    config = module_of(slug).Config
    for field in dataclasses.fields(config):
        hint = typing.get_type_hints(config)[field.name]
        bad = {int: [-1, 2.5, "5", None], float: [float("nan"), "x", None], bool: [1, "yes"]}.get(
            hint
        )
        bad = bad or (
            ["misspelt"] if typing.get_origin(hint) is typing.Literal else [(0,), [64], 64]
        )
        for value in bad:
            with pytest.raises(ValueError, match=field.name):
                config(**{field.name: value})


# What it trains


def short(module, settings, updates):
    """A Config with few updates, and as few steps where a method goes online."""
    lengths = {name: updates for name in LENGTHS if hasattr(module.Config(), name)}
    return dataclasses.replace(module.Config(), **lengths, **settings)


def trained(slug, dataset, settings, seeds, updates):
    module = module_of(slug)
    nets, _ = module.train(dataset, short(module, settings, updates), seeds=seeds)
    return {name: value.detach() for name, value in nets.named_parameters()}


@every_case
def test_it_returns_networks_that_act_and_a_table_that_was_evaluated(slug, dataset_id, settings):
    module, dataset = module_of(slug), load(dataset_id)
    config, evaluate = short(module, settings, 5), evaluator(dataset, 1)
    nets, table = module.train(dataset, config, [0, 1], evaluate, 2)
    assert table["return"].notna().sum() == 4, "two seeds, two evaluations"
    assert {"seconds", "updates", "stopped"} <= table.attrs.keys() and table.attrs["stopped"] == ""
    obs = dataset.obs[:3].expand(2, -1, -1)
    if hasattr(nets.policy, "begin"):
        nets.policy.begin(2, 3)
    action = nets.policy.mode(obs)
    shape = (2, 3) if dataset.n_actions else (2, 3, dataset.act_dim)
    assert action.shape == shape, f"{slug}: nets.policy.mode(obs) has shape {action.shape}."
    assert callable(nets.policy.sample), f"{slug}: nets.policy has no sample."
    if "believed" in table:
        assert nets.value(obs, action).shape == (2, 3)


@every_case
def test_ctrl_c_in_any_stage_is_known(slug, dataset_id, settings, monkeypatch):
    """The first Ctrl-C comes in the first update of whatever is trained first."""
    module, dataset = module_of(slug), load(dataset_id)
    steps = []

    def interrupted(self, *arguments):
        steps.append(self)
        raise KeyboardInterrupt

    for optimizer in (torch.optim.Adam, torch.optim.AdamW):
        monkeypatch.setattr(optimizer, "step", interrupted)
    _, table = module.train(dataset, short(module, settings, 20), [0])
    assert table.attrs["stopped"].startswith("stopped by hand"), f"{slug}: pass on `after=`."
    assert len(steps) == 1, f"{slug}: a stage was trained after the one that was stopped."


@every_case
def test_nan_in_one_seed_reaches_no_other_and_a_seed_trains_the_same_alone(
    slug, dataset_id, settings, monkeypatch
):
    torch.set_default_dtype(torch.float64)
    try:
        dataset = load(dataset_id).to(torch.float64)
        clean = trained(slug, dataset, settings, [7, 3, 5], 20)
        alone = trained(slug, dataset, settings, [3], 20)
        draw, drawn = data.Dataset.rows, []

        def poisoned(self, index):
            drawn.append(index.numel())
            batch = draw(self, index)
            for column in batch:
                if column.is_floating_point():
                    column[0] = torch.nan
            return batch

        monkeypatch.setattr(data.Dataset, "rows", poisoned)
        sick = trained(slug, dataset, settings, [7, 3, 5], 20)
    finally:
        torch.set_default_dtype(torch.float32)
    others = torch.tensor([1, 2])
    for name, value in clean.items():
        axis = seed_axis(value, alone[name])
        seed = value.narrow(axis, 1, 1)
        assert torch.allclose(seed, alone[name], atol=1e-9, rtol=1e-7), f"{name} depends on company"
        healthy = [x.index_select(axis, others) for x in (value, sick[name])]
        assert torch.equal(*healthy), f"{name}: one seed's NaN reached another"
    reached = any(value.isnan().any() for value in sick.values())
    # a variant that learns from its own rows alone draws none
    assert reached or not sum(drawn), "the NaN reached nothing: no test"


@every_case
def test_two_equal_runs_are_equal(slug, dataset_id, settings):
    dataset = load(dataset_id)
    once, again = (trained(slug, dataset, settings, [3], 10) for _ in range(2))
    for name in once:
        assert torch.equal(once[name], again[name]), f"{name}: two equal runs differ"


def seed_axis(several, one) -> int:
    return next(i for i, (a, b) in enumerate(zip(several.shape, one.shape, strict=True)) if a != b)


# On another device


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_case
def test_trains_and_evaluates_on_a_gpu(slug, dataset_id, settings):
    module = module_of(slug)
    config, dataset = short(module, settings, 20), load(dataset_id, "cuda")
    nets, table = module.train(dataset, config, [0, 1], evaluator(dataset, 2), evaluations=1)
    assert all(value.is_cuda for value in nets.parameters())
    assert table["return"].notna().sum() == 2
