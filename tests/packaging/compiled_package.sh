#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# What `hrnn compile` writes, used as its files say: the example by the command in its first lines, and the CMake package.
#
#   compiled_package.sh HRNN MODEL CMAKE NINJA FOLDER
set -eu
hrnn=$1 model=$2 cmake=$3 ninja=$4 folder=$5
rm -rf "$folder"
"$hrnn" compile "$model" -o "$folder/net" --name net --targets x86,arm

cd "$folder/net"
command=$(sed -n 's/^ \*   \(cc .*\)$/\1/p' example.c)
echo "$command"
sh -c "$command ${LDFLAGS:-}"
./example | tee example.out
grep -q 'bytes)$' example.out

mkdir "$folder/user"
cp example.c "$folder/user"
cat >"$folder/user/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.25)
project(user LANGUAGES C CXX)
find_package(net REQUIRED CONFIG)
add_executable(user example.c)
target_link_libraries(user PRIVATE net::net)
END
configure() { "$cmake" -S "$folder/user" -B "$1" -G Ninja -DCMAKE_MAKE_PROGRAM="$ninja" -Dnet_DIR="$folder/net" >/dev/null; }
configure "$folder/build"
"$cmake" --build "$folder/build"
"$folder/build/user" | cmp - example.out

# Without a prebuilt runtime the package compiles the single source: the same result.
rm x86-64/libhrnn_runtime.a
configure "$folder/build_source"
"$cmake" --build "$folder/build_source"
"$folder/build_source/user" | cmp - example.out
