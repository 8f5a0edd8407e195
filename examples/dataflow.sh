#!/usr/bin/env bash
# Transcribes on Dataflow, on workers with one L4 each. Not run on Google Cloud yet.
#
#   PROJECT=my-project BUCKET=my-bucket IMAGE=us-central1-docker.pkg.dev/PROJECT/images/beam-asr:1 \
#   MODEL=nvidia/parakeet-tdt-0.6b-v3 [REGION=us-central1] [WORKERS=8] \
#   examples/dataflow.sh INPUT OUTPUT [FLAG...]
#
# FLAGs are further ones of `beam-asr transcribe` or of Beam, as --dry_run, --resume or
# --no_use_public_ips. docs/dataflow.md has the image, the accounts and the quotas.
set -euo pipefail

: "${PROJECT:?give the project, as my-project}"
: "${BUCKET:?give a bucket for temporary files, as my-bucket}"
: "${IMAGE:?give the image, as us-central1-docker.pkg.dev/PROJECT/images/beam-asr:1}"
: "${MODEL:?give a model, as nvidia/parakeet-tdt-0.6b-v3}"
input=${1:?give the input, as gs://BUCKET/manifest.jsonl}
output=${2:?give the output folder, as gs://BUCKET/out}
shift 2

flags=(
  # A manifest, a glob, a folder of audio, ... in a bucket: paths of this machine are refused.
  "--input=$input"
  # A folder in a bucket. A finished one is refused, unless --append or --overwrite is given.
  "--output=$output"
  # The name of a model on a hub, a .nemo file in a bucket, or a path in the image.
  "--model_name=$MODEL"
  # Without a GPU the job fails at once. The default, auto, would go on with the CPU.
  --device=cuda

  --runner=DataflowRunner
  # Where the job runs and is billed. Keep the bucket, the image and the model in this region.
  "--project=$PROJECT"
  "--region=${REGION:-us-central1}"
  # Where Beam puts what it uploads for the workers.
  "--temp_location=gs://$BUCKET/temp"
  # Ends this command when the job is there. Without it the command waits, and has the exit status
  # of the job. `beam-asr status OUTPUT` shows how far it is.
  --no_wait_until_finish

  # The workers' Python, packages and this package. Launch with the same Python minor.
  "--sdk_container_image=$IMAGE"
  # Eight vCPUs, 32 GB and one L4.
  --machine_type=g2-standard-8
  # For the image, the model and long files. The default of 25 GB is too little.
  --disk_size_gb=100
  # The most workers that Dataflow may start; the quota of GPUs must allow them.
  "--max_num_workers=${WORKERS:-8}"
  # The GPU of each worker, and its driver.
  "--dataflow_service_options=worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver"
)
exec beam-asr transcribe "${flags[@]}" "$@"
