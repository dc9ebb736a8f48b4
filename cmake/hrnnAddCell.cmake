# SPDX-License-Identifier: Apache-2.0
#
# Cells of a user's own (docs/adding-a-cell.md).
#
#   hrnn_add_cell(mgu SOURCES mgu.cpp [REFERENCE mgu_reference.cpp] [TARGETS x86 cuda])
#
#     SOURCES register the cell (hrnn/cell.h) under the name given here; hrnn_add_kernels(... CELLS mgu ...) then makes its
#     kernels. With REFERENCE, the cell as plain C++ (hrnn/cell_reference.h), there is a program and a CTest test mgu_check
#     that runs every kernel of the cell that this machine can run and compares it with the reference; TARGETS says for what
#     the program has kernels (default: the processor compiled for, and CUDA where that is there).
#
# Kernels are made by an emitter: hrnn-emit once more, linked with the cells' sources. It runs where the project is built:
# in a project that is cross-compiled, HRNN_HOST_CXX compiles it.

include_guard(GLOBAL)

# What a project is compiled with runs on this machine.
function(_hrnn_native out)
  if(CMAKE_HOST_SYSTEM_PROCESSOR STREQUAL CMAKE_SYSTEM_PROCESSOR AND NOT CMAKE_CROSSCOMPILING)
    set(${out} TRUE PARENT_SCOPE)
  else()
    set(${out} FALSE PARENT_SCOPE)
  endif()
endfunction()

# The sources of those of `cells` that are a user's own.
function(_hrnn_cell_sources cells out)
  set(all)
  foreach(cell IN LISTS cells)
    get_property(sources GLOBAL PROPERTY HRNN_CELL_${cell})
    list(APPEND all ${sources})
  endforeach()
  list(REMOVE_DUPLICATES all)
  set(${out} "${all}" PARENT_SCOPE)
endfunction()

# An emitter with the cells of `sources`, called `name`. `out` gets the command, `depends` what to make before it is run.
function(_hrnn_add_emitter name sources out depends)
  get_property(main GLOBAL PROPERTY HRNN_EMIT_MAIN)
  _hrnn_native(native)
  if(native)
    if(NOT CMAKE_CXX_COMPILER_LOADED)
      message(FATAL_ERROR "hrnn: a cell of your own is C++: the project needs LANGUAGES CXX")
    endif()
    add_executable(${name} "${main}" ${sources})
    target_link_libraries(${name} PRIVATE hrnn::emit)
    set(${out} ${name} PARENT_SCOPE)
    set(${depends} ${name} PARENT_SCOPE)
    return()
  endif()
  find_program(HRNN_HOST_CXX NAMES c++ g++ clang++ NO_CMAKE_FIND_ROOT_PATH
    DOC "C++ compiler for programs that run where this project is built")
  if(NOT HRNN_HOST_CXX)
    message(FATAL_ERROR "hrnn: cells of your own need a C++ compiler for this machine; set HRNN_HOST_CXX")
  endif()
  get_target_property(definitions hrnn::Halide INTERFACE_COMPILE_DEFINITIONS)
  get_target_property(halide_include hrnn::Halide INTERFACE_INCLUDE_DIRECTORIES)
  get_property(include GLOBAL PROPERTY HRNN_INCLUDE)
  list(TRANSFORM definitions PREPEND "-D")
  set(emitter "${CMAKE_CURRENT_BINARY_DIR}/${name}")
  add_custom_command(
    OUTPUT "${emitter}"
    COMMAND "${HRNN_HOST_CXX}" -std=c++17 -O1 ${definitions} "-I${include}" "-I${halide_include}" "${main}" ${sources}
      -o "${emitter}" "$<TARGET_FILE:hrnn::emit>" "$<TARGET_FILE:hrnn::Halide>"
      "-Wl,-rpath,$<TARGET_FILE_DIR:hrnn::emit>" -Wl,--allow-shlib-undefined
    DEPENDS "${main}" ${sources}
    COMMENT "Compiling ${name} for this machine"
    VERBATIM)
  set(${out} "${emitter}" PARENT_SCOPE)
  set(${depends} "${emitter}" PARENT_SCOPE)
endfunction()

function(hrnn_add_cell name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "REFERENCE" "SOURCES;TARGETS")
  if(NOT arg_SOURCES OR arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "hrnn_add_cell(${name}): expected NAME SOURCES file... [REFERENCE file] [TARGETS ...]"
      "; not understood: '${arg_UNPARSED_ARGUMENTS}'")
  endif()
  get_property(known GLOBAL PROPERTY HRNN_CELL_${name})
  if(known)
    message(FATAL_ERROR "hrnn_add_cell(${name}): there is a cell of this name already, of ${known}; now ${arg_SOURCES}")
  endif()
  set(sources)
  foreach(source IN LISTS arg_SOURCES)
    cmake_path(ABSOLUTE_PATH source NORMALIZE)
    list(APPEND sources "${source}")
  endforeach()
  set_property(GLOBAL PROPERTY HRNN_CELL_${name} "${sources}")
  if(arg_REFERENCE)
    _hrnn_add_check(${name} "${arg_REFERENCE}" "${arg_TARGETS}")
  endif()
endfunction()

# The library of the checks, compiled with the project, once.
function(_hrnn_check_library)
  if(TARGET hrnn_checks)
    return()
  endif()
  get_property(checks GLOBAL PROPERTY HRNN_CHECKS)
  get_target_property(halide_include hrnn::Halide INTERFACE_INCLUDE_DIRECTORIES)
  file(GLOB sources "${checks}/*.cpp")
  add_library(hrnn_checks STATIC EXCLUDE_FROM_ALL ${sources})
  target_compile_features(hrnn_checks PUBLIC cxx_std_17)
  target_compile_options(hrnn_checks PRIVATE -O2)  # also in a build without a type: there is much to compute
  target_include_directories(hrnn_checks PUBLIC "${checks}" PRIVATE "${halide_include}")
  target_link_libraries(hrnn_checks PUBLIC hrnn::runtime)
endfunction()

# NAME_check: the cell's kernels against its reference.
function(_hrnn_add_check name reference targets)
  _hrnn_check_library()
  if(NOT targets)
    _hrnn_architecture(architecture)
    if(architecture STREQUAL "x86-64")
      set(targets x86 cuda)
    else()
      set(targets arm)
    endif()
  endif()
  set(kernels ${name}_check_kernels)
  # One size compiled in, with panels for the largest tile and one that it does not fill.
  hrnn_add_kernels(${kernels} CELLS ${name} HIDDEN 130 DTYPES f32 f64 TARGETS ${targets})
  get_target_property(tables ${kernels} HRNN_TABLES)
  list(TRANSFORM tables PREPEND "&")
  list(JOIN tables ", " tables)
  set(main "${CMAKE_CURRENT_BINARY_DIR}/${name}_check.cpp")
  file(CONFIGURE OUTPUT "${main}" @ONLY CONTENT [[
#include "@kernels@.h"
#include "check_main.h"

int main(int argc, char **argv) { return hrnn_test::check_main("@name@", {@tables@}, argc, argv); }
]])
  add_executable(${name}_check "${main}" "${reference}")
  target_link_libraries(${name}_check PRIVATE hrnn_checks ${kernels})
  _hrnn_native(native)
  if(native)
    add_test(NAME ${name}_check COMMAND ${name}_check)
  else()
    add_test(NAME ${name}_check COMMAND ${name}_check --quick)  # by CMAKE_CROSSCOMPILING_EMULATOR
  endif()
endfunction()
