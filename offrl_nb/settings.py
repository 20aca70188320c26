"""Settings that are checked when they are made, in Python and on the command line alike.

For: a method's `Config`, a frozen dataclass whose `__post_init__` calls `validate`. Not for: data.
"""

import dataclasses
import typing
from numbers import Real

# Ranges of settings that mean the same in every chapter, as intervals.
COMMON = {
    "discount": "[0, 1]",
    "target_rate": "(0, 1]",
    "learning_rate": "(0, inf)",
    "policy_learning_rate": "(0, inf)",
    "expectile": "[0.5, 1)",
    "entropy_coef": "(0, inf)",
    "weight_cap": "(0, inf]",
    "reward_scale": "(0, inf)",
    "real_share": "[0, 1]",
}


def validate(config, **ranges: str) -> None:
    """Check every field of a Config: its type, and that its value lies in its range.

    ranges: intervals by field, such as expectile="[0.5, 1)"; a closed end "inf]" allows infinity.
    Fields without one take the range of `COMMON`; else whole numbers are at least 1, other numbers finite.
    Raises ValueError with one sentence that names the field, its value and what it may be.
    """
    hints = typing.get_type_hints(type(config))
    for name in (field.name for field in dataclasses.fields(config)):
        usual = "[1, inf)" if hints[name] is int else COMMON.get(name, "(-inf, inf)")
        wanted = _wanted(getattr(config, name), hints[name], ranges.get(name, usual))
        if wanted:
            raise ValueError(f"{name} is {getattr(config, name)!r}; it must be {wanted}.")


def _wanted(value, hint, interval: str) -> str:
    """What a value should be, in words; empty where it is that."""
    if typing.get_origin(hint) is typing.Literal:
        choices = typing.get_args(hint)
        return "" if value in choices else f"one of {', '.join(map(str, choices))}"
    if typing.get_origin(hint) is tuple:  # widths of layers
        fits = isinstance(value, tuple) and not any(_wanted(x, int, "[1, inf)") for x in value)
        return "" if fits else "a tuple of whole numbers, at least 1 each, such as (64, 64)"
    if hint is bool or isinstance(value, bool):
        return "" if hint is type(value) else "True or False" if hint is bool else "a number"
    fits = isinstance(value, int if hint is int else Real) and _inside(value, interval)
    return "" if fits else f"a {'whole ' * (hint is int)}number in {interval}"


def _inside(value: float, interval: str) -> bool:
    low, high = map(float, interval[1:-1].split(","))
    ends = (interval[0] == "[" and value == low) or (interval[-1] == "]" and value == high)
    return low < value < high or ends
