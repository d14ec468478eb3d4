"""YAML whose every fault is a YAMLError that names a line: PyYAML lets through what its converters raise."""

from __future__ import annotations

from typing import Any

import yaml


class Loader(yaml.SafeLoader):
    """SafeLoader for values that are none of their type, such as the date 2024-02-30 or `!!int x`."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """See yaml.SafeLoader."""
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception:  # ValueError, KeyError, IndexError, AttributeError, ...
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(
                None, None, f"a value that cannot be read as {kind}", node.start_mark
            ) from None


def documents_of(text: str, loader: type[Loader] = Loader) -> list[Any]:
    """All documents of a text. Raises yaml.YAMLError; RecursionError on one that is nested too deep."""
    try:
        return list(yaml.load_all(text, Loader=loader))
    except (yaml.YAMLError, RecursionError):
        raise
    except Exception:  # an escape beyond Unicode
        raise yaml.YAMLError("a character that cannot be read") from None


def document_of(text: str) -> Any:
    """The one document of a text, None if it is empty. Raises as `documents_of` does."""
    found = documents_of(text)
    if len(found) > 1:
        raise yaml.YAMLError(f"{len(found)} documents: one is needed")
    return found[0] if found else None
