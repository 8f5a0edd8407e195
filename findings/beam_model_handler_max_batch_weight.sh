#!/bin/sh
# Apache Beam 2.77.0: ModelHandler takes max_batch_weight, and a pipeline with such a handler cannot be built.
# Good guess: RunInference batches by weight, since the handler's constructor documents and checks the option.
# Seen: RunInference passes it on to BatchElements, which has no such option. SortAndBatchElements has,
# but RunInference does not use it.
# Output seen:
#   TypeError: BatchElements.__init__() got an unexpected keyword argument 'max_batch_weight'
# Exits 0 while this is so.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT; cd "$T"
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install apache-beam==2.77.0
"$T/v/bin/python" - 2>"$T/stderr" <<'PY'
import sys

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler, RunInference


class Handler(ModelHandler):
    def load_model(self):
        return object()

    def run_inference(self, batch, model, inference_args=None):
        return batch


found = ""
try:
    handler = Handler(max_batch_weight=10, element_size_fn=lambda size: size)
    pipeline = beam.Pipeline(runner="FnApiRunner")
    pipeline | beam.Create([1, 2, 3]) | RunInference(handler)
except TypeError as error:
    found = f"TypeError: {error}"
print(found)
sys.exit("BatchElements" not in found or "max_batch_weight" not in found)
PY
