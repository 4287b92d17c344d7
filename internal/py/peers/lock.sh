#!/bin/sh
# Writes requirements.txt and torch.txt from the .in files, with the hash of every wheel. Needs uv.
set -eu
cd "$(dirname "$0")"
unset UV_FIND_LINKS PIP_FIND_LINKS
compile="uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command ./lock.sh"

# accelerate and torchvision pull in torch, and torch pulls in gigabytes of CUDA: all that is left out here.
skip=""
for name in torch triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc \
	nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse \
	nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx; do
	skip="$skip --no-emit-package $name"
done
# shellcheck disable=SC2086 # the words are options
$compile $skip requirements.in -o requirements.txt >/dev/null
# shellcheck disable=SC2086
$compile --no-deps torch.in -o torch.txt >/dev/null
