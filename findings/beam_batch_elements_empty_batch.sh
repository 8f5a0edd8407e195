#!/bin/sh
# Apache Beam 2.77.0: BatchElements with an element_size_fn emits an empty batch before an element above its target.
# Good guess: each batch has at least min_batch_size elements but for the last of a bundle, and never none.
# Seen: the batch before the large element is emitted although it has no elements. Then the element has
# a batch of its own. Code that takes the first of a batch, or stacks it, fails on valid input.
# Output seen:
#   sizes 3, 50, 4, 5 in batches of up to 10: [[], [3], [50], [4, 5]]
# Exits 0 while this is so.
set -e
T="$(mktemp -d)"; trap 'rm -rf "$T"' EXIT; cd "$T"
python3 -m venv "$T/v"; "$T/v/bin/pip" -q install apache-beam==2.77.0
"$T/v/bin/python" - 2>"$T/stderr" <<'PY'
import sys

import apache_beam as beam

with beam.Pipeline(runner="FnApiRunner") as pipeline:
    sizes = pipeline | beam.Create([3, 50, 4, 5], reshuffle=False)
    batches = sizes | beam.BatchElements(1, 10, element_size_fn=lambda size: size)
    batches | beam.Map(repr) | beam.io.WriteToText("batches", num_shards=1)
with open("batches-00000-of-00001") as file:
    seen = file.read().split("\n")[:-1]
print(f"sizes 3, 50, 4, 5 in batches of up to 10: [{', '.join(seen)}]")
sys.exit(sorted(seen) != ["[3]", "[4, 5]", "[50]", "[]"])
PY
