"""Settings that people write: one YAML reader for all of them, and what is written as the type that a setting has.

YAML 1.1 guesses the type of what has no quotes, and so reads 12:30:00 as the number 45000, `no` as false, 010 as 8. Here
the setting's own type decides: what is written without quotes stays text until `convert` reads it as that type.
"""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml


class Plain(str):
    """What was written without quotes: text, or what that text says of a number or a truth value."""

    def __repr__(self) -> str:  # in messages: as it was written
        return str(self)


_MAP, _NULL, _MERGE, _STR = (f"tag:yaml.org,2002:{name}" for name in ("map", "null", "merge", "str"))
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class _Loader(yaml.SafeLoader):
    """SafeLoader that takes only null for something else than text, and refuses a key that is written twice."""

    def scalar(self, node: yaml.ScalarNode) -> str:
        return node.value if node.style else Plain(node.value)

    def mapping(self, node: yaml.MappingNode) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value} is written twice", key.start_mark)
                seen.add(key.value)
        self.flatten_mapping(node)
        return self.construct_mapping(node, deep=True)


_Loader.yaml_implicit_resolvers = {}  # SafeLoader's own guesses
_Loader.add_implicit_resolver(_NULL, re.compile("(~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_MERGE, re.compile("<<$"), ["<"])
_Loader.add_constructor(_STR, _Loader.scalar)
_Loader.add_constructor(_MAP, _Loader.mapping)


def read(path: Path) -> Any:
    """The content of a YAML file; every value without quotes is a `Plain` text, but null, which is None.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not YAML, a key twice, or not text; the message names the file, and the line where there is one.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"{path} is not readable as YAML: {line}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not readable as YAML: {str(error).splitlines()[0]}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file") from error
    except (RecursionError, ValueError) as error:  # nested a thousand deep; a tag such as !!int before what is none
        raise ValueError(f"{path} is not readable as YAML: {str(error)[:200]}") from error


def convert(value: Any, kind: Any) -> Any:
    """`value`, as `read` gave it, as a setting of type `kind`.

    Args:
        kind: bool, int, float, str, a Literal of texts, list[str], dict (whose values stay as they were read), or one
            of them or None.

    Raises:
        TypeError: it is not written as one. (Nobody else's ValueError.)
    """
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        (kind,) = (option for option in get_args(kind) if option is not types.NoneType)
    if get_origin(kind) is Literal:
        if isinstance(value, str) and value in get_args(kind):
            return str(value)
    elif kind is bool:
        if isinstance(value, Plain) and value.lower() in _TRUTH:
            return _TRUTH[value.lower()]
    elif kind is int:
        if isinstance(value, Plain) and re.fullmatch(r"[-+]?(0|[1-9][0-9]*)", value):
            return int(value)
    elif kind is float:
        if isinstance(value, str) and re.fullmatch(r"[-+]?(\.inf|\.nan)", value, re.IGNORECASE):
            return float(value.replace(".", ""))
        if isinstance(value, str):
            try:
                return float(value)
            except ValueError:
                pass
    elif kind is str:
        if isinstance(value, str):
            return str(value)
    elif get_origin(kind) is list:
        if isinstance(value, list):
            return [convert(one, get_args(kind)[0]) for one in value]
    elif get_origin(kind) is dict and isinstance(value, dict):
        return {convert(key, str): one for key, one in value.items()}
    raise TypeError(f"{value!r} is not of kind {kind}")
