# SPDX-License-Identifier: Apache-2.0
"""Frozen value objects that cost nothing to import.

Rules of this file:
1. It imports nothing: `import dataclasses` alone takes longer than a whole one-shot login may.
2. A type checker sees a frozen dataclass; at run time `@record` gives the same behaviour.
3. `__post_init__` of a record validates; what cannot be constructed cannot be sent or believed.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    from typing_extensions import dataclass_transform

    T = TypeVar("T")
else:

    def dataclass_transform(**_kwargs):
        return lambda decorator: decorator


def _init(self: Any, *args: Any, **kwargs: Any) -> None:
    cls = type(self)
    fields, values = cls.__fields__, self.__dict__
    if not kwargs and len(args) == len(fields):
        values.update(zip(fields, args))
    else:
        values.update(cls.__defaults__)
        values.update(zip(fields, args))
        values.update(kwargs)
        # their number alone would let one unknown name make up for one that is missing
        certain = not args and kwargs.keys() <= cls.__names__ if kwargs else len(args) <= len(fields)
        if not certain or len(values) != len(fields):
            _check_names(cls, args, kwargs)
    if cls.__validates__:
        cls.__post_init__(self)


def _check_names(cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise `TypeError` if the arguments are not one for each field."""
    fields = cls.__fields__
    if len(args) > len(fields):
        raise TypeError(f"{cls.__name__} takes {len(fields)} fields, got {len(args)}")
    for name in kwargs:
        if name not in fields or name in fields[: len(args)]:
            raise TypeError(f"{cls.__name__} has no free field {name!r}")
    missing = [name for name in fields[len(args) :] if name not in kwargs and name not in cls.__defaults__]
    if missing:
        raise TypeError(f"{cls.__name__} lacks {', '.join(missing)}")


def _frozen(self: Any, name: str, *_value: Any) -> None:
    raise AttributeError(f"{type(self).__name__}.{name} is read-only")


def _values(self: Any) -> tuple[Any, ...]:
    return tuple(self.__dict__[name] for name in type(self).__fields__)


def _eq(self: Any, other: Any) -> Any:
    return _values(self) == _values(other) if type(self) is type(other) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values(self))


def _repr(self: Any) -> str:
    fields = ", ".join(f"{name}={self.__dict__[name]!r}" for name in type(self).__fields__)
    return f"{type(self).__name__}({fields})"


@dataclass_transform(frozen_default=True)
def record(cls: type[T]) -> type[T]:
    """Make `cls` a frozen value object from its annotated fields, in their order."""
    # Python 3.9 has no __annotations__ on a class without any; 3.14 makes them only when asked for by attribute.
    fields = tuple(getattr(cls, "__annotations__", ()))
    members: dict[str, Any] = {
        "__fields__": fields,
        "__validates__": "__post_init__" in cls.__dict__,
        "__names__": frozenset(fields),
        "__defaults__": {name: cls.__dict__[name] for name in fields if name in cls.__dict__},
        "__init__": _init,
        "__setattr__": _frozen,
        "__delattr__": _frozen,
        "__eq__": _eq,
        "__hash__": _hash,
        "__repr__": _repr,
    }
    for name, member in members.items():
        setattr(cls, name, member)
    return cls


def replace(value: T, /, **changes: Any) -> T:
    """The same record with some fields changed; it is validated anew."""
    return type(value)(**{**value.__dict__, **changes})
