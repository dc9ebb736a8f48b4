#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# The demo behind `make demo`: compiles digits_gru.onnx for every target, runs it wherever this machine can, and says how.
#
#   demo.sh BUILD     BUILD: the build folder; environment: HRNN (the command), PYTHON (with numpy)
set -eu

here=$(cd "$(dirname "$0")" && pwd)
out=$1/demo
rm -rf "$out"
mkdir -p "$out"
failed=0

title() { printf '\n== %s\n' "$*"; }
bytes() { stat -c %s "$1"; }

title "compile examples/digits/digits_gru.onnx (trained with PyTorch)"
"$HRNN" inspect "$here/digits_gru.onnx"
"$HRNN" compile "$here/digits_gru.onnx" -o "$out" --targets x86,arm,cuda,opencl --ptx
"$PYTHON" "$here/pack_data.py" "$out/data.bin"

# Runs `demo VARIANT`; what the machine cannot run is said, not counted as done.
run() { # how, label, command...
  how=$1 label=$2
  shift 2
  if result=$("$@" 2>&1); then
    printf '%-8s %-24s %s\n' "$label" "$how" "$result"
  elif [ $? = 3 ]; then
    printf '%-8s %-24s %s\n' "$label" "not run here:" "$result"
  else
    printf '%-8s %-24s FAILED: %s\n' "$label" "$how" "$result"
    failed=1
  fi
}

title "x86-64, linked into a C program with the C compiler"
cc -std=c99 -O2 -I"$out" "$here/demo.c" "$out/x86-64/libdigits_gru.a" "$out/x86-64/libhrnn_runtime.a" -lm -lpthread -o "$out/demo"
for variant in sse41 avx2 avx512; do run native "$variant" "$out/demo" "$out/data.bin" "$variant"; done

title "arm-64: kernels and weights from the archive, the runtime from its single source"
if command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64 >/dev/null; then
  aarch64-linux-gnu-g++ -std=c++17 -O2 -fno-exceptions -fno-rtti -I"$out" -c "$out/hrnn_runtime.cpp" -o "$out/runtime_arm.o"
  aarch64-linux-gnu-gcc -std=c99 -O2 -static -I"$out" "$here/demo.c" "$out/arm-64/libdigits_gru.a" "$out/runtime_arm.o" \
    -lm -lpthread -o "$out/demo_arm"
  run "emulated (qemu-aarch64)" neon qemu-aarch64 "$out/demo_arm" "$out/data.bin" neon
else
  echo "neon     compiled only: no aarch64 compiler or no qemu-aarch64 here"
fi

title "GPU schedules on OpenCL"
cc -std=c99 -O2 -DDEMO_OPENCL -I"$out" "$here/demo.c" "$out/x86-64/libdigits_gru_opencl.a" "$out/x86-64/libdigits_gru.a" \
  "$out/x86-64/libhrnn_opencl.a" "$out/x86-64/libhrnn_runtime.a" -ldl -lpthread -lm -o "$out/demo_opencl"
run "on the OpenCL device" opencl "$out/demo_opencl" "$out/data.bin" opencl

title "CUDA"
cc -std=c99 -O2 -DDEMO_CUDA -I"$out" "$here/demo.c" "$out/x86-64/libdigits_gru_cuda.a" "$out/x86-64/libdigits_gru.a" \
  "$out/x86-64/libhrnn_cuda.a" "$out/x86-64/libhrnn_runtime.a" -ldl -lpthread -lm -o "$out/demo_cuda"
run "on the CUDA device" cuda "$out/demo_cuda" "$out/data.bin" cuda
if command -v ptxas >/dev/null; then
  for arch in sm_80 sm_90; do
    for ptx in "$out"/x86-64/*.ptx; do ptxas -arch=$arch "$ptx" -o /dev/null || failed=1; done
    echo "cuda     compiled, PTX assembled by ptxas for $arch ($(ls "$out"/x86-64/*.ptx | wc -l) kernels)"
  done
else
  echo "cuda     compiled only: no ptxas here"
fi

title "what was made"
for archive in "$out"/*/libdigits_gru*.a; do printf '%9s bytes  %s\n' "$(bytes "$archive")" "${archive#"$out"/}"; done
printf '%9s bytes  stripped C program with the x86-64 kernels of three levels, weights and runtime\n' \
  "$(strip -o "$out/demo_stripped" "$out/demo" && bytes "$out/demo_stripped")"

title "what the runtime chooses on this machine, and why"
"$out/demo" "$out/data.bin" || failed=1
exit $failed
