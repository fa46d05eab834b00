"""What a person writes: changes laid over a set-up, and typed options, where the first thing wrong becomes one line."""

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from replications.errors import UserError, nearest


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `change` over it.

    Mappings are merged key by key at any depth. A null takes out what `base` has under its key, so that the default
    holds; where there is nothing to take out it stays a null. Anything else, lists too, replaces what was there.
    """
    result = dict(base)
    for name, value in change.items():
        if value is None and result.get(name) is not None:
            del result[name]
        elif isinstance(value, Mapping):
            old = result.get(name)
            result[name] = merged(old if isinstance(old, Mapping) else {}, value)
        else:
            result[name] = value
    return result


def parse(model: type[BaseModel], value: Any, where: str) -> Any:
    """Validate `value` as `model`; the first thing wrong becomes one line that starts with `where`."""
    try:
        return model.model_validate(value)
    except UnicodeEncodeError:
        raise UserError(f"{where}: there is a character in it that is not text") from None
    except ValidationError as error:
        errors = error.errors()  # of a misspelt key there are two: it is unknown, and the right one is missing
        first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
        location = ".".join(str(part) for part in first["loc"])
        hint = ""
        if first["type"] == "extra_forbidden":
            hint = nearest(str(first["loc"][-1]), _model_at(model, first["loc"][:-1]).model_fields)
        message = "unknown key" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
        raise UserError(f"{where}: {location + ': ' if location else ''}{message}{hint}") from None


def _model_at(model: type[BaseModel], location: Iterable[str | int]) -> type[BaseModel]:
    """Follow fields from `model`; keys of dictionaries and indices, which are no fields, are passed over."""

    def inner(annotation: Any) -> type[BaseModel] | None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return annotation
        return next(filter(None, map(inner, get_args(annotation))), None)

    for part in location:
        if part in model.model_fields:
            model = inner(model.model_fields[part].annotation) or model
    return model
