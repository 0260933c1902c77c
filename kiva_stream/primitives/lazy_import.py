"""Modules that are loaded when somebody looks into them."""

from __future__ import annotations

import sys
from importlib.util import LazyLoader, find_spec, module_from_spec
from types import ModuleType


def lazy(name: str) -> ModuleType:
    """Return a module of kiva_stream, which is loaded at the first look at what is in it."""
    path = f"kiva_stream.{name}"
    if path in sys.modules:
        return sys.modules[path]
    spec = find_spec(path)
    assert spec is not None  # noqa: S101  the package is whole
    assert spec.loader is not None  # noqa: S101  a module of it has one
    spec.loader = LazyLoader(spec.loader)
    module = sys.modules[path] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
