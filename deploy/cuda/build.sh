#!/bin/sh
# Builds ergodic-worker with CUDA, on a machine that need not have a GPU: CUDA's compiler and libraries come from the
# Python package index, and a stub stands in for the driver's library while linking. Needs python3, cc and cargo, 8 GiB
# of disk and about a quarter of an hour on two cores.
#
#   deploy/cuda/build.sh [TOOLS_DIR]      default: target/cuda-tools
#
# CUDA_COMPUTE_CAP (default 90) is the GPU it is for: 80 A100, 89 L40 and RTX 4090, 90 H100 and H200.
# The program is target/cuda/release/ergodic-worker. Where it runs, the driver must be of CUDA 13 or later, and
# libcudart, libcublas, libcublasLt, libcurand and libnvrtc must be found: TOOLS_DIR's lib folder has them.
set -eu
cd "$(dirname "$0")/../.."
tools=$(mkdir -p "${1:-target/cuda-tools}" && cd "${1:-target/cuda-tools}" && pwd)

# Pinned: crt and nvvm newer than nvcc do not fit it, and PTX must not be newer than the driver.
if [ ! -x "$tools/python/bin/pip" ]; then
    python3 -m venv "$tools/python"
fi
"$tools/python/bin/pip" install --quiet \
    'nvidia-cuda-nvcc==13.0.*' 'nvidia-cuda-crt==13.0.*' 'nvidia-nvvm==13.0.*' 'nvidia-cuda-cccl==13.0.*' \
    'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-nvrtc==13.0.*' 'nvidia-cublas==13.*' nvidia-curand
cuda=$(echo "$tools"/python/lib/python3*/site-packages/nvidia/cu13)

# The linker looks for names without a version.
for name in cublas cublasLt cudart curand nvrtc; do
    for versioned in "$cuda/lib/lib$name.so".*; do
        ln -sf "$(basename "$versioned")" "$cuda/lib/lib$name.so"
    done
done

# The driver's library belongs to the machine with the GPU: one empty function per name is enough to link against.
cargo fetch --locked
find "${CARGO_HOME:-$HOME/.cargo}/registry/src" -path '*/cudarc-0.19*/src/driver/sys/*.rs' -exec \
    grep -hoE 'fn cu[A-Z][A-Za-z0-9_]*' {} + | sort -u | sed 's/fn \(.*\)/void \1(void) {}/' > "$tools/stub.c"
cc -shared -fPIC -Wl,-soname,libcuda.so.1 -o "$cuda/lib/libcuda.so" "$tools/stub.c"

CUDA_HOME=$cuda CUDA_PATH=$cuda PATH=$cuda/bin:$PATH \
    CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90} CUDARC_CUDA_VERSION=13000 \
    LIBRARY_PATH=$cuda/lib LD_LIBRARY_PATH=$cuda/lib \
    cargo build --locked --release --package ergodic-worker --features cuda --target-dir target/cuda
echo "built target/cuda/release/ergodic-worker; its libraries are in $cuda/lib"
