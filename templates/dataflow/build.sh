#!/usr/bin/env bash
# Builds the image, by Cloud Build, and the Flex Template that names it.
#
#   IMAGE=us-central1-docker.pkg.dev/PROJECT/REPOSITORY/beam-asr:1 \
#   TEMPLATE=gs://BUCKET/templates/beam-asr.json \
#   [MODEL=nvidia/parakeet-tdt-0.6b-v3] [PROJECT=...] [DRY_RUN=1] templates/dataflow/build.sh
#
# MODEL is put into the image, so that workers need not download it. DRY_RUN only shows the commands.
# With Docker here, instead of Cloud Build:
#
#   docker build --file templates/dataflow/Dockerfile --build-arg IMAGE="$IMAGE" --tag "$IMAGE" .
#   docker push "$IMAGE"
set -euo pipefail
cd "$(dirname "$0")/../.."

: "${IMAGE:?give the name of the image, as us-central1-docker.pkg.dev/PROJECT/REPOSITORY/beam-asr:1}"
: "${TEMPLATE:?give the file of the template, as gs://BUCKET/templates/beam-asr.json}"

run() {
  printf '%q ' "$@"
  echo
  if [[ -z ${DRY_RUN:-} ]]; then
    "$@"
  fi
}

run gcloud builds submit . ${PROJECT:+"--project=$PROJECT"} \
  --config=templates/dataflow/cloudbuild.yaml \
  "--substitutions=_IMAGE=$IMAGE,_MODEL=${MODEL:-}"
run gcloud dataflow flex-template build "$TEMPLATE" ${PROJECT:+"--project=$PROJECT"} \
  "--image=$IMAGE" \
  --sdk-language=PYTHON \
  --metadata-file=templates/dataflow/metadata.json
