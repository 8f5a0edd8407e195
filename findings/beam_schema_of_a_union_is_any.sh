#!/bin/sh
# Apache Beam 2.77.0: in the schema of rows, `Optional[str]` is a nullable text and `str | None` is a pickled Python object.
# Good guess: the two are the same type, as Python's typing says of them since 3.10.
# Seen: no error and no warning. Such a field is a logical type of Python alone, so SQL and other
# cross-language steps cannot read it.
# Output seen:
#   Optional[str]: atomic_type STRING, nullable
#   str | None: logical_type beam:logical:pythonsdk_any:v1, nullable
# Exits 0 while this is so.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT; cd "$T"
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install apache-beam==2.77.0
"$T/v/bin/python" - 2>"$T/stderr" <<'PY'
import sys
from typing import Optional

from apache_beam.typehints.schemas import typing_to_runner_api
from apache_beam.portability.api import schema_pb2

seen = []
for name, kind in (("Optional[str]", Optional[str]), ("str | None", str | None)):
    field = typing_to_runner_api(kind)
    which = field.WhichOneof("type_info")
    value = getattr(field, which)
    value = schema_pb2.AtomicType.Name(value) if which == "atomic_type" else value.urn
    seen.append((value, field.nullable))
    print(f"{name}: {which} {value}{', nullable' if field.nullable else ''}")
sys.exit(seen != [("STRING", True), ("beam:logical:pythonsdk_any:v1", True)])
PY
