# SPDX-License-Identifier: Apache-2.0
#
# A project of a user's for arm-64 Linux, compiled on another machine with Debian's cross compiler:
#   cmake -DCMAKE_TOOLCHAIN_FILE=.../aarch64-linux-gnu.cmake ...
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)  # so that it runs on qemu without that architecture's libraries
