# SPDX-License-Identifier: Apache-2.0
#
# Tests of arm-64 code on another machine: compiled by a cross compiler together with the runtime's one source file, linked
# statically, run by qemu. Where a tool is missing, the test is skipped and says which.

find_program(HRNN_ARM64_CXX aarch64-linux-gnu-g++ DOC "Cross compiler for tests of arm-64 kernels")
find_program(HRNN_ARM64_EMULATOR NAMES qemu-aarch64 qemu-aarch64-static DOC "Runs the tests of arm-64 kernels")
# Debian's libgtest-dev is for this architecture; its sources are there as well.
find_path(HRNN_GTEST_SOURCE src/gtest-all.cc PATHS /usr/src/googletest/googletest NO_CMAKE_FIND_ROOT_PATH
  DOC "GoogleTest's sources")

set(hrnn_arm64_missing)
foreach(tool IN ITEMS "HRNN_ARM64_CXX:aarch64-linux-gnu-g++" "HRNN_ARM64_EMULATOR:qemu-aarch64"
                      "HRNN_GTEST_SOURCE:GoogleTest's sources")
  string(REGEX MATCH "^(.*):(.*)$" _ "${tool}")
  if(NOT ${CMAKE_MATCH_1})
    list(APPEND hrnn_arm64_missing "${CMAKE_MATCH_2}")
  endif()
endforeach()
list(JOIN hrnn_arm64_missing ", " hrnn_arm64_missing)

# Compiles `source` to an object of its own; appends it to the list `objects` of the caller.
function(_hrnn_arm64_object name source options depends)
  cmake_path(GET source FILENAME file)
  set(object "${CMAKE_CURRENT_BINARY_DIR}/arm64/${name}/${file}.o")
  cmake_path(ABSOLUTE_PATH source)
  add_custom_command(
    OUTPUT "${object}"
    COMMAND "${HRNN_ARM64_CXX}" -std=c++17 -O1 ${options} -MD -MF "${object}.d" -c "${source}" -o "${object}"
    DEPENDS "${source}" ${depends}
    DEPFILE "${object}.d"
    COMMENT "Compiling ${file} for arm-64"
    VERBATIM)
  list(APPEND objects "${object}")
  set(objects "${objects}" PARENT_SCOPE)
endfunction()

# hrnn_test_arm64(name SOURCES a.cpp ... KERNELS my_kernels ... [INCLUDES ...] [DEFINITIONS ...] [LABELS ...]): the CTest
# test arm64.<name>. SOURCES: GoogleTest cases and what they need; the runtime is linked. KERNELS: of
# hrnn_add_kernels(my_kernels ... TARGETS arm).
function(hrnn_test_arm64 name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;KERNELS;INCLUDES;DEFINITIONS;LABELS")
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
    return()  # the native tests do it
  endif()
  if(hrnn_arm64_missing)
    add_test(NAME arm64.${name} COMMAND sh -c "echo 'skipped: not found here: ${hrnn_arm64_missing}'; exit ${HRNN_SKIP_CODE}")
    set_tests_properties(arm64.${name} PROPERTIES SKIP_RETURN_CODE ${HRNN_SKIP_CODE} LABELS "${arg_LABELS}")
    return()
  endif()

  set(archives)
  set(folders ${arg_INCLUDES})
  foreach(kernels IN LISTS arg_KERNELS)
    get_target_property(output ${kernels}_archives HRNN_OUTPUT)
    list(APPEND archives "${output}/arm-64/lib${kernels}.a")
    list(APPEND folders "${output}")
  endforeach()
  list(APPEND folders "${CMAKE_CURRENT_SOURCE_DIR}" "${PROJECT_SOURCE_DIR}/runtime/include" "${PROJECT_SOURCE_DIR}/cmake/kernels"
    "${HRNN_GTEST_SOURCE}/include")
  list(TRANSFORM folders PREPEND "-I")
  list(TRANSFORM arg_DEFINITIONS PREPEND "-D")
  list(TRANSFORM arg_KERNELS APPEND "_archives" OUTPUT_VARIABLE made)

  set(objects)
  foreach(source IN LISTS arg_SOURCES)
    # Kernels' headers are there before what includes them is compiled.
    _hrnn_arm64_object(${name} "${source}" "${folders};${arg_DEFINITIONS}" "${made}")
  endforeach()
  _hrnn_arm64_object(${name} "${hrnn_share_dir}/hrnn_runtime.cpp" "-O2;-fno-exceptions;-fno-rtti;${folders}" "hrnn_amalgamation")
  foreach(source IN ITEMS gtest-all.cc gtest_main.cc)
    _hrnn_arm64_object(${name} "${HRNN_GTEST_SOURCE}/src/${source}" "${folders};-I${HRNN_GTEST_SOURCE}" "")
  endforeach()
  set(program "${CMAKE_CURRENT_BINARY_DIR}/arm64/test_${name}")
  add_custom_command(
    OUTPUT "${program}"
    COMMAND "${HRNN_ARM64_CXX}" -static ${objects} ${archives} -pthread -o "${program}"
    DEPENDS ${objects} ${made} ${archives}
    COMMENT "Linking test_${name}_arm64"
    VERBATIM)
  add_custom_target(test_${name}_arm64 ALL DEPENDS "${program}")
  add_test(NAME arm64.${name} COMMAND "${HRNN_ARM64_EMULATOR}" "${program}")
  set_tests_properties(arm64.${name} PROPERTIES LABELS "${arg_LABELS}")
endfunction()
