"""What Beam finds out again for each step of a pipeline is remembered, once a process.

Most of a small job's time goes into building its pipeline, and most of that into parsers of options
and signatures of methods that have not changed.
"""

from __future__ import annotations

import inspect
import types
import weakref
from typing import Any

from apache_beam import DoFn
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms import core, userstate
from apache_beam.typehints import decorators

_views: weakref.WeakKeyDictionary[PipelineOptions, dict[type, Any]] = weakref.WeakKeyDictionary()
_signatures: weakref.WeakKeyDictionary[Any, inspect.Signature] = weakref.WeakKeyDictionary()
_specs: weakref.WeakKeyDictionary[DoFn, tuple[set, set]] = weakref.WeakKeyDictionary()
_view_as = PipelineOptions.view_as
_get_signature = decorators.get_signature
_get_dofn_specs = userstate.get_dofn_specs


def install() -> None:
    """Has this process, and those that it forks, remember them."""
    PipelineOptions.view_as = _remembered_view
    decorators.get_signature = core.get_signature = _remembered_signature
    userstate.get_dofn_specs = _remembered_specs


def _remembered_view(options: PipelineOptions, kind: type) -> Any:
    views = _views.setdefault(options, {})
    if kind not in views:
        views[kind] = _view_as(options, kind)
    views[kind]._all_options = options._all_options
    return views[kind]


def _remembered_signature(function: Any) -> inspect.Signature:
    method = getattr(function, "__func__", None)
    if not isinstance(function, types.MethodType) or not isinstance(method, types.FunctionType):
        return _get_signature(function)
    if method not in _signatures:
        _signatures[method] = _get_signature(function)
    return _signatures[method]


def _remembered_specs(dofn: DoFn) -> tuple[set, set]:
    if dofn not in _specs:
        _specs[dofn] = _get_dofn_specs(dofn)
    return _specs[dofn]
