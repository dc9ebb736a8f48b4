# SPDX-License-Identifier: Apache-2.0
#
# The consumer projects of examples/ against the installed tree. STEP:
#   install   installs to one place and moves the tree to another
#   native    builds and runs them, and their tests
#   arm64     builds them for arm-64 with a cross compiler, runs them with qemu
cmake_minimum_required(VERSION 3.28)

set(tree "${WORK}/moved to")  # with a space, as people have

# Builds examples/`name`, runs `program` with the arguments that follow, then the project's tests.
function(build_and_run name program targets)
  set(build "${WORK}/${STEP}/${name}")
  file(REMOVE_RECURSE "${build}")
  execute_process(
    COMMAND "${CMAKE_COMMAND}" -S "${SOURCE}/examples/${name}" -B "${build}" -G "${GENERATOR}"
      "-DCMAKE_MAKE_PROGRAM=${MAKE_PROGRAM}" -DCMAKE_BUILD_TYPE=Release "-Dhrnn_DIR=${tree}/lib/cmake/hrnn"
      "-DTARGETS=${targets}" ${consumer_arguments}
    COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND "${CMAKE_COMMAND}" --build "${build}" COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND ${emulator} "${build}/${program}" ${ARGN} COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND "${CTEST_COMMAND}" --test-dir "${build}" --verbose COMMAND_ERROR_IS_FATAL ANY)
endfunction()

if(STEP STREQUAL "install")
  file(REMOVE_RECURSE "${WORK}")
  file(MAKE_DIRECTORY "${WORK}")
  execute_process(COMMAND "${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${WORK}/installed"
    OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
  file(RENAME "${WORK}/installed" "${tree}")
  # Nothing in it may point back, and its commands must come up.
  file(GLOB_RECURSE texts "${tree}/lib/*.cmake" "${tree}/lib/*.pc" "${tree}/include/*" "${tree}/share/*")
  foreach(file IN LISTS texts)
    file(READ "${file}" text)
    foreach(place IN ITEMS "${WORK}" "${BUILD}" "${SOURCE}")
      string(FIND "${text}" "${place}" found)
      if(NOT found EQUAL -1)
        message(FATAL_ERROR "${file} names ${place}")
      endif()
    endforeach()
  endforeach()
  execute_process(COMMAND ldd "${tree}/bin/hrnn" OUTPUT_VARIABLE libraries COMMAND_ERROR_IS_FATAL ANY)
  if(NOT libraries MATCHES "libHalide\\.so => [^\n]*/moved to/")
    message(FATAL_ERROR "bin/hrnn does not find the libHalide.so of its own tree")
  endif()
  execute_process(COMMAND "${tree}/bin/hrnn" kernels OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
  # Tuning compiles kernels in process, with the Halide of the tree.
  execute_process(COMMAND "${tree}/bin/hrnn" tune gru:lbr:i16h16:b1:t20:fwd:f32 --budget 1
      --database "${WORK}/tune.db" --output "${WORK}/tuned"
    OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
  return()
endif()

if(STEP STREQUAL "arm64")
  find_program(compiler aarch64-linux-gnu-g++)
  find_program(emulator NAMES qemu-aarch64 qemu-aarch64-static)
  if(NOT compiler OR NOT emulator)
    message("skipped: aarch64-linux-gnu-g++ or qemu-aarch64 not found")
    cmake_language(EXIT ${SKIP_CODE})
  endif()
  set(targets x86 arm)
  set(cell_targets arm)
  set(consumer_arguments "-DCMAKE_TOOLCHAIN_FILE=${SOURCE}/cmake/toolchains/aarch64-linux-gnu.cmake"
    "-DCMAKE_CROSSCOMPILING_EMULATOR=${emulator}")
  if(HOST_CXX)
    list(APPEND consumer_arguments "-DHRNN_HOST_CXX=${HOST_CXX}")
  endif()
else()
  set(targets x86 arm cuda)
  set(cell_targets x86)
endif()
build_and_run(consume_model classify "${targets}")
build_and_run(consume_kernels layer "${targets}")
build_and_run(cells cells "${cell_targets}")

if(STEP STREQUAL "native")
  build_and_run(consume_compiler run_model "" "${SOURCE}/examples/digits/digits_gru.onnx")
  # The C program was linked by the C compiler, without C++'s library.
  execute_process(COMMAND readelf -d "${WORK}/native/consume_model/classify" OUTPUT_VARIABLE libraries COMMAND_ERROR_IS_FATAL ANY)
  if(libraries MATCHES "libstdc\\+\\+")
    message(FATAL_ERROR "the C program needs libstdc++:\n${libraries}")
  endif()
endif()
