#!/usr/bin/env bash
# Starts a job from the Flex Template, on workers with one L4 or A100 each.
#
#   TEMPLATE=gs://BUCKET/templates/beam-asr.json REGION=us-central1 \
#   [GPU=l4|a100] [RIGHT_FITTING=1] [WORKERS=4] [PROJECT=...] [DRY_RUN=1] \
#   templates/dataflow/run.sh JOB_NAME [GCLOUD_FLAG...] -- PARAMETER=VALUE...
#
# for example
#
#   ... templates/dataflow/run.sh my-job --temp-location=gs://BUCKET/tmp -- \
#     input=gs://BUCKET/manifest.jsonl output=gs://BUCKET/out \
#     model_name=nvidia/parakeet-tdt-0.6b-v3
#
# GCLOUD_FLAGs are those of `gcloud dataflow flex-template run`, as --service-account-email,
# --subnetwork and --disable-public-ips. PARAMETERs are in metadata.json. By default all workers have
# the GPU; with RIGHT_FITTING those of the model's step have it, and the others are small.
set -euo pipefail

: "${TEMPLATE:?give the file of the template, as gs://BUCKET/templates/beam-asr.json}"
: "${REGION:?give a region that has the GPU, as us-central1}"
job=${1:?give the name of the job}
shift

case ${GPU:-l4} in
  l4) machine=g2-standard-8 type=nvidia-l4 ;;
  a100) machine=a2-highgpu-1g type=nvidia-tesla-a100 ;;
  *)
    echo "GPU is $GPU, but must be l4 or a100" >&2
    exit 2
    ;;
esac
accelerator="type:$type;count:1;install-nvidia-driver"

flags=("--template-file-gcs-location=$TEMPLATE" "--region=$REGION" "--max-workers=${WORKERS:-4}"
  ${PROJECT:+"--project=$PROJECT"})
if [[ -n ${RIGHT_FITTING:-} ]]; then
  flags+=(--worker-machine-type=n1-standard-4)
  parameters=("accelerator=type:$type;count:1;machine_type:$machine;install-nvidia-driver")
else
  flags+=("--worker-machine-type=$machine")
  parameters=("dataflow_service_options=worker_accelerator=$accelerator")
fi
parameters+=(device=cuda disk_size_gb=100)

while (($#)) && [[ $1 != -- ]]; do
  flags+=("$1")
  shift
done
parameters+=("${@:2}")

# Values may hold commas, so the parameters are separated by another character.
joined=$(
  IFS='|'
  echo "${parameters[*]}"
)
command=(gcloud dataflow flex-template run "$job" "${flags[@]}" "--parameters=^|^$joined")
printf '%q ' "${command[@]}"
echo
if [[ -z ${DRY_RUN:-} ]]; then
  exec "${command[@]}"
fi
