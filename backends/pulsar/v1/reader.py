"""Pulsar's configuration between its records and its text; what is not documented is refused."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import StrEnum
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from tcc.backends.pulsar.v1.enumerations import (
    DataType,
)
from tcc.backends.pulsar.v1.schema import (
    Affine,
    BorderTensor,
    Modification,
    Normalization,
    PulsarConfig,
)
from tcc.backends.pulsar.v1.text_format import ConfigError, Field, Message, TextPlace, Word, parse
from tcc.backends.pulsar.v1.text_format import write as written

TYPES = {str: "a quoted string", int: "a whole number", float: "a number", bool: "true or false"}


def encode(config: PulsarConfig) -> bytes:
    """Return the text of a configuration, in UTF-8."""
    return written(_message(config)).encode()


def decode(data: bytes) -> PulsarConfig:
    """Return the configuration of a text.

    Raises:
        ConfigError: It is no text of this form, or has a field, a word or a nesting that is not
            documented, or says what does not hold together.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ConfigError(TextPlace(1, 1), "the text is not UTF-8") from None
    found: PulsarConfig = _record(PulsarConfig, parse(text))
    for problem in problems(found):
        raise ConfigError(TextPlace(1, 1), problem)
    return found


def problems(config: PulsarConfig) -> Iterator[str]:
    """Yield what in a configuration contradicts itself, or means another thing than it seems to."""
    # The manual says these in prose: no type or word of the text is wrong.
    groups = {
        name: getattr(config, name)
        for name in ("src_input_tensors", "dst_input_tensors", "src_output_tensors",
                     "dst_output_tensors")
    }  # fmt: skip
    for name, tensors in groups.items():
        yield from _tensors(name, tensors)
    theirs = {each.tensor_name: each.color_space for each in config.src_input_tensors}
    for each in config.dst_input_tensors:
        if theirs.get(each.tensor_name, each.color_space) != each.color_space:
            yield f"{each.tensor_name}: source and destination have different colours"
    if config.neuwizard_conf and config.neuwizard_conf.operator_conf:
        for item in config.neuwizard_conf.operator_conf.input_conf_items:
            for step in item.attributes.input_modifications if item.attributes else ():
                yield from _step(step)


def _tensors(name: str, tensors: tuple[BorderTensor, ...]) -> Iterator[str]:
    names = [each.tensor_name for each in tensors]
    if len(names) > 1 and None in names:
        yield f"{name}: one without a name overrides the others"
    if len(set(names)) < len(names):
        yield f"{name}: one tensor stands there twice"
    for each in tensors:
        if each.quantization_value is not None and each.data_type is not DataType.INT16:
            yield f"{name}: quantization_value goes with INT16"


def _step(step: Modification) -> Iterator[str]:
    made = (step.affine_preprocess, step.input_normalization)
    if made.count(None) != 1:
        yield "input_modifications: each is one step"
    for one in made:
        yield from _lengths(one) if one else ()


def _lengths(step: Affine | Normalization) -> Iterator[str]:
    values = [getattr(step, each.name) for each in fields(step)]
    if len({len(each) for each in values if each} - {1}) > 1:
        yield f"{type(step).__name__}: lists have one number, or one a channel"
    if isinstance(step, Normalization) and not all(step.std):
        yield "std is 0"


def _message(record: Any) -> Message:
    found: Message = []
    for each in fields(record):
        value = getattr(record, each.name)
        numbers = isinstance(value, tuple) and value and isinstance(value[0], int | float)
        if numbers:
            found.append(Field(each.name, value if len(value) > 1 else value[0]))
            continue
        items = value if isinstance(value, tuple) else () if value is None else (value,)
        found += [Field(each.name, _plain(item)) for item in items]
    return found


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return _message(value)
    if isinstance(value, bool):
        return Word(str(value).lower())
    return Word(value.value) if isinstance(value, StrEnum) else value


def _record(kind: type, message: Message) -> Any:
    hints = get_type_hints(kind)
    found: dict[str, Any] = {}
    for field in message:
        if field.name not in hints:
            known = ", ".join(hints)
            raise ConfigError(field.at, f"`{field.name}` is no field here; there are {known}")
        hint = hints[field.name]
        repeated = get_origin(hint) is tuple
        inner = next(each for each in get_args(hint) if each not in (NoneType, Ellipsis))
        values = field.value if isinstance(field.value, tuple) else (field.value,)
        if not repeated and (field.name in found or isinstance(field.value, tuple)):
            raise ConfigError(field.at, f"`{field.name}` stands here once")
        made = tuple(_value(inner, value, field) for value in values)
        found[field.name] = found.get(field.name, ()) + made if repeated else made[0]
    return kind(**found)


def _value(kind: type, value: Any, field: Field) -> Any:
    if is_dataclass(kind):
        if not isinstance(value, list):
            raise ConfigError(field.at, f"`{field.name}` takes fields in braces")
        return _record(kind, value)
    if issubclass(kind, StrEnum):
        if not isinstance(value, Word) or value.text not in set(kind):
            raise ConfigError(field.at, f"`{field.name}` is one of {', '.join(kind)}")
        return kind(value.text)
    if kind is bool and isinstance(value, Word) and value.text in ("true", "false"):
        return value.text == "true"
    fits = isinstance(value, int | float) if kind is float else type(value) is kind
    if kind is bool or not fits:
        raise ConfigError(field.at, f"`{field.name}` is {TYPES[kind]}")
    return float(value) if kind is float else value
