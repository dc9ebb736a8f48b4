# SPDX-License-Identifier: Apache-2.0
#
# What every directory of the build shares: options, compiler flags, and where the dependencies are.

# ---- The targets, as targets/targets.cpp has them ----------------------------------------------------------------------

# Read from the table itself, so that adding a target stays one row: name:family:architecture:backend ("" for a CPU).
set(table "${PROJECT_SOURCE_DIR}/targets/targets.cpp")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${table}")
file(READ "${table}" text)
string(REGEX MATCHALL "{\"[a-z0-9_]+\", *\"[a-z0-9_]+\",[^\"]*\"[a-z0-9]+-[0-9]+-linux[^\"]*\",[ \n]*{(true|false)" rows "${text}")
if(CMAKE_SYSTEM_PROCESSOR STREQUAL "aarch64")
  set(hrnn_host_architecture arm-64)
else()
  set(hrnn_host_architecture x86-64)
endif()
set(hrnn_target_rows)
set(hrnn_host_targets)
set(hrnn_gpu_targets)
foreach(row IN LISTS rows)
  string(REGEX MATCH "{\"([a-z0-9_]+)\", *\"([a-z0-9_]+)\",[^\"]*\"([a-z0-9]+-[0-9]+)-linux.*{(true|false)" _ "${row}")
  set(backend "${CMAKE_MATCH_4}")
  string(REPLACE "true" "${CMAKE_MATCH_1}" backend "${backend}")
  string(REPLACE "false" "" backend "${backend}")
  list(APPEND hrnn_target_rows "${CMAKE_MATCH_1}:${CMAKE_MATCH_2}:${CMAKE_MATCH_3}:${backend}")
  if(backend STREQUAL "" AND CMAKE_MATCH_3 STREQUAL hrnn_host_architecture)
    list(APPEND hrnn_host_targets "${CMAKE_MATCH_1}")
  elseif(NOT backend STREQUAL "")
    list(APPEND hrnn_gpu_targets "${CMAKE_MATCH_1}")
  endif()
endforeach()
if(NOT hrnn_host_targets)
  message(FATAL_ERROR "cannot read the target table in ${table}")
endif()
set_property(GLOBAL PROPERTY HRNN_TARGET_ROWS "${hrnn_target_rows}")

# ---- Options ---------------------------------------------------------------------------------------------------------

option(HRNN_BUILD_TESTS "Build the tests" ${PROJECT_IS_TOP_LEVEL})
option(HRNN_BUILD_BENCH "Build the benchmarks" ${PROJECT_IS_TOP_LEVEL})
set(HRNN_TARGETS "${hrnn_host_targets}" CACHE STRING "Targets of the prebuilt kernel library; with cuda, hrnn has kernels for GPUs as well")
list(GET HRNN_TARGETS 0 first)
if(first IN_LIST hrnn_gpu_targets)
  message(FATAL_ERROR
    "HRNN_TARGETS is '${HRNN_TARGETS}': its first target must be one of a CPU (${hrnn_host_targets}), since what is around "
    "recurrent layers, and layers too small for a GPU, run there")
endif()
set(HRNN_SANITIZE "" CACHE STRING "Sanitizers for everything but generated kernels, for example address,undefined")
set(HRNN_VENV "${PROJECT_SOURCE_DIR}/build/venv" CACHE PATH "Python environment with cmake/requirements.txt in it")

# ---- How everything is compiled ----------------------------------------------------------------------------------------

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

if(HRNN_SANITIZE)
  add_compile_options(-fsanitize=${HRNN_SANITIZE} -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  if(HRNN_SANITIZE MATCHES "fuzzer")
    # The check of dynamic types remembers addresses of tables; where those lie would be counted as coverage, and no two
    # runs of a fuzz target would be the same.
    add_compile_options(-fno-sanitize=vptr)
  endif()
  add_link_options(-fsanitize=${HRNN_SANITIZE})
endif()

# Warnings of the project's own code: target_link_libraries(x PRIVATE hrnn_warnings). Errors with the preset `ci`
# (CMAKE_COMPILE_WARNING_AS_ERROR).
add_library(hrnn_warnings INTERFACE)
target_compile_options(hrnn_warnings INTERFACE -Wall -Wextra -Wpedantic
  # GCC 12 reports these where there is nothing, inside inlined parts of its library.
  "$<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-array-bounds;-Wno-stringop-overflow>")

# ---- Where things go -----------------------------------------------------------------------------------------------------

# Always lib, also on Debian under /usr: the commands find their files relative to themselves, in any prefix.
set(CMAKE_INSTALL_LIBDIR lib CACHE STRING "Folder of libraries")
include(GNUInstallDirs)

# The build folder is laid out as an installation, so that `hrnn compile` finds in it what it copies into packages:
# bin/, include/hrnn/, lib/, share/hrnn/.
set(hrnn_bin_dir "${PROJECT_BINARY_DIR}/bin")
set(hrnn_include_dir "${PROJECT_BINARY_DIR}/include")
set(hrnn_lib_dir "${PROJECT_BINARY_DIR}/lib")
set(hrnn_share_dir "${PROJECT_BINARY_DIR}/share/hrnn")

# ---- Dependencies ------------------------------------------------------------------------------------------------------

# The interpreter with onnx and numpy, for tests and scripts.
find_program(HRNN_PYTHON python3 HINTS "${HRNN_VENV}/bin" NO_DEFAULT_PATH DOC "Python with cmake/requirements.txt")
if(NOT HRNN_PYTHON)
  message(FATAL_ERROR
    "There is no Python environment in ${HRNN_VENV}. Run cmake/setup.sh (or make, which does), "
    "or set HRNN_VENV to an environment with cmake/requirements.txt installed.")
endif()
execute_process(
  COMMAND "${HRNN_PYTHON}" -c "import sysconfig; print(sysconfig.get_path('platlib'))"
  OUTPUT_VARIABLE hrnn_site_packages OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)

# The wheel's own package file, not the trampoline in the environment's share/cmake: that one asks for Python's headers.
# What it would look for besides Halide itself (Python bindings, image libraries) is not wanted.
set(Halide_DIR "${hrnn_site_packages}/halide/lib64/cmake/Halide" CACHE PATH "Where HalideConfig.cmake is")
set(CMAKE_DISABLE_FIND_PACKAGE_Halide_Python ON)
find_package(Halide 21 REQUIRED COMPONENTS Halide shared)

# onnx.proto, the definition of the file format.
set(HRNN_ONNX_PROTO_DIR "${hrnn_site_packages}/onnx" CACHE PATH "Folder of onnx.proto")
if(NOT EXISTS "${HRNN_ONNX_PROTO_DIR}/onnx.proto")
  message(FATAL_ERROR "There is no onnx.proto in HRNN_ONNX_PROTO_DIR (${HRNN_ONNX_PROTO_DIR})")
endif()

# Assembles CUDA kernels in tests and the demo, where it is there.
find_program(HRNN_PTXAS ptxas HINTS "${HRNN_VENV}/bin" /usr/local/cuda/bin DOC "Assembler of CUDA's PTX; optional")

# From Debian's packages. libzip by pkg-config: its CMake package wants tools that Debian ships apart.
find_package(Protobuf REQUIRED)
find_package(CLI11 CONFIG REQUIRED)
find_package(fmt CONFIG REQUIRED)
find_package(nlohmann_json CONFIG REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(libelf REQUIRED IMPORTED_TARGET libelf)
pkg_check_modules(libzip REQUIRED IMPORTED_TARGET libzip)
pkg_check_modules(sqlite3 REQUIRED IMPORTED_TARGET sqlite3)
