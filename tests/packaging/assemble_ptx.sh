#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# assemble_ptx.sh HRNN-EMIT FOLDER PTXAS: makes the CUDA kernels of every cell and assembles them for two generations of
# GPUs, reporting the registers they take. Exit code 77 without ptxas.
set -eu
emit=$1 folder=$2 ptxas=$3
[ -x "$ptxas" ] || { echo 'skipped: ptxas not found'; exit 77; }

rm -rf "$folder"
mkdir -p "$folder"
"$emit" --name check --cells rnn,rnn_masked,gru,gru_reset_before --dtypes f32,f64 --targets cuda --ptx -o "$folder"
count=0
for ptx in "$folder"/x86-64/*.ptx; do
  for arch in sm_80 sm_90; do
    report=$("$ptxas" -v -arch=$arch "$ptx" -o /dev/null 2>&1) || { echo "$ptx: $arch: $report"; exit 1; }
    case $report in *'0 bytes spill stores'*) ;; *) echo "note: $ptx spills registers on $arch" ;; esac
    count=$((count + 1))
  done
done
[ $count -gt 0 ] || { echo "no PTX was written to $folder"; exit 1; }
echo "$count assembled"
