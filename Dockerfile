# `beam-asr` on one machine, with a GPU or without. docs/docker.md has the commands.

# The base brings Python, CUDA and torch of the lock's release. For a CPU: python:3.12-slim, with
# TORCH=cpu.
ARG BASE_IMAGE=pytorch/pytorch:2.13.0-cuda12.6-cudnn9-runtime
FROM ${BASE_IMAGE}

# `base`: the torch of the base image. Else a backend of `uv pip install --torch-backend`, as cpu.
ARG TORCH=base

RUN python3 -c "import ensurepip" || (apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/*)
RUN python3 -m venv --system-site-packages /opt/venv
ENV PATH=/opt/venv/bin:$PATH UV_NO_CACHE=1 UV_PYTHON=/opt/venv/bin/python

# The lock is complete but for torch, and what belongs to its CUDA.
WORKDIR /opt/beam_asr
COPY requirements.txt requirements-storage.txt ./
RUN python -m pip install --no-cache-dir "uv>=0.7" \
    && grep -vE '^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z]+)==' requirements.txt > without-torch.txt \
    && uv pip install --no-deps -r without-torch.txt -r requirements-storage.txt \
    && if [ "${TORCH}" != base ]; then \
        uv pip install --torch-backend="${TORCH}" "$(grep -oE '^torch==[0-9.]+' requirements.txt)"; \
    fi
COPY pyproject.toml MANIFEST.in README.md LICENSE ./
COPY beam_asr beam_asr
RUN uv pip install --no-deps . && python -c "import torch, beam_asr; print(torch.__version__)"

# Where models are kept; mount a volume here, so that each is downloaded once.
ENV HF_HOME=/models/huggingface NEMO_CACHE_DIR=/models/nemo BEAM_ASR_CACHE=/models/beam_asr
WORKDIR /data
ENTRYPOINT ["beam-asr"]
