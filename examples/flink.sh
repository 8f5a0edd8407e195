#!/usr/bin/env bash
# Transcribes on a cluster of Flink, with a pool of workers beside each task manager.
#
#   FLINK_MASTER=HOST:8081 MODEL=nvidia/parakeet-tdt-0.6b-v3 \
#   [FLINK_VERSION=2.2] [WORKER_POOL=localhost:50000] [PARALLELISM=4] \
#   examples/flink.sh INPUT OUTPUT [FLAG...]
#
# FLAGs are further ones of `beam-asr transcribe` or of Beam, as --device=cuda or --resume.
set -euo pipefail

: "${FLINK_MASTER:?give the address of the REST port of Flink, as jobmanager:8081}"
: "${MODEL:?give a model, as nvidia/parakeet-tdt-0.6b-v3}"
input=${1:?give the input, as gs://BUCKET/manifest.jsonl}
output=${2:?give the output folder, as gs://BUCKET/out}
shift 2

flags=(
  # A manifest, a glob, a folder of audio, ... The task managers must reach it, and the audio too.
  "--input=$input"
  # A folder that the workers reach as well. A finished one is refused, unless --append or
  # --overwrite is given.
  "--output=$output"
  # The name of a model on a hub, or the path of a .nemo file on the pools' machines or in a bucket.
  "--model_name=$MODEL"

  --runner=FlinkRunner
  # Where Flink runs. Without this flag it would run embedded in the launcher.
  "--flink_master=$FLINK_MASTER"
  # The release of the cluster; it chooses the job server's jar. Beam downloads that one, unless
  # --flink_job_server_jar=PATH is among the FLAGs.
  "--flink_version=${FLINK_VERSION:-2.2}"
  # The parts in which a step runs at a time: worker processes of a task manager x task managers.
  # Flink's own default would be 1. There is one process, and so one model, for each task manager,
  # unless --model_copies or --gpus is among the FLAGs.
  "--parallelism=${PARALLELISM:-4}"

  # Workers are started by a pool, at an address that each task manager sees: one in the same pod
  # or on the same machine. Start it with the image's /opt/apache/beam/boot --worker_pool, or with
  # python -m apache_beam.runners.worker.worker_pool_main --service_port=50000.
  --environment_type=EXTERNAL
  "--environment_config=${WORKER_POOL:-localhost:50000}"
)
exec beam-asr transcribe "${flags[@]}" "$@"
