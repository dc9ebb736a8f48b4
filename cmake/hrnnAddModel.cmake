# SPDX-License-Identifier: Apache-2.0
#
# Kernels and models made while a project is built. The same functions inside this project and after find_package(hrnn).
#
#   hrnn_add_model(app_model MODEL net.onnx [TARGETS x86 arm cuda] [OPTIONS ...] [DEPENDS ...] [ARCHIVES_ONLY])
#
#     runs `hrnn compile`; app_model is a library: link it, include "app_model.h". Its symbols begin with its name
#     (app_model_model is the hrnn_model). OPTIONS go to `hrnn compile` as they are; DEPENDS names files besides MODEL
#     that a change of makes it again (external data).
#
#   hrnn_add_kernels(my_kernels CELLS gru rnn [HIDDEN 64 128] [DTYPES f32] [TARGETS x86 cuda] [ARCHIVES_ONLY])
#
#     kernels for layers whose weights come at run time; include "my_kernels.h". my_kernels_kernels is the table for the
#     CPU, my_kernels_cuda_kernels the one for CUDA. HIDDEN: sizes that get kernels of their own beside those for any.
#     CELLS: rnn, rnn_masked, gru, gru_reset_before, and your own (hrnn_add_cell in hrnnAddCell.cmake).
#
# TARGETS are families (x86, arm, cuda, opencl) or rows of them (avx2, ...), see `hrnn kernels`. Archives are made for
# every architecture that is named, none needs a cross compiler; the library links those for CMAKE_SYSTEM_PROCESSOR. The
# folder with all of them is the library's property HRNN_OUTPUT. With ARCHIVES_ONLY there is no library, only a target
# NAME_archives (with that property) that makes them.

include_guard(GLOBAL)
include("${CMAKE_CURRENT_LIST_DIR}/hrnnAddCell.cmake")

# The name hrnn gives to the architecture that is compiled for.
function(_hrnn_architecture out)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    set(${out} x86-64 PARENT_SCOPE)
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
    set(${out} arm-64 PARENT_SCOPE)
  else()
    message(FATAL_ERROR "hrnn has no kernels for CMAKE_SYSTEM_PROCESSOR '${CMAKE_SYSTEM_PROCESSOR}'")
  endif()
endfunction()

# The archives a list of targets makes, as architecture/suffix: suffix empty for the CPU's, _<backend> for a GPU's.
function(_hrnn_archives targets out)
  get_property(rows GLOBAL PROPERTY HRNN_TARGET_ROWS)
  set(archives)
  foreach(target IN LISTS targets)
    set(found FALSE)
    foreach(row IN LISTS rows)
      string(REPLACE ":" ";" row "${row}:")
      list(GET row 0 1 names)
      if(target IN_LIST names)
        set(found TRUE)
        list(GET row 2 architecture)
        list(GET row 3 backend)
        list(APPEND archives ${architecture}/${backend})
      endif()
    endforeach()
    if(NOT found)
      message(FATAL_ERROR "no target is called '${target}'; known (target:family:architecture:backend): ${rows}")
    endif()
  endforeach()
  list(REMOVE_DUPLICATES archives)
  list(TRANSFORM archives REPLACE "/(.+)$" "/_\\1")
  set(${out} "${archives}" PARENT_SCOPE)
endfunction()

# The library NAME from what `command` (a list) writes into `directory`; it runs when one of `depends` has changed.
function(_hrnn_add_archives name directory targets archives_only command depends comment)
  if(NOT name MATCHES "^[A-Za-z_][A-Za-z0-9_]*$")
    message(FATAL_ERROR "'${name}' cannot name a library: it must be a C identifier, as its symbols begin with it")
  endif()
  _hrnn_archives("${targets}" made)
  list(TRANSFORM made REPLACE "^(.*)/(.*)$" "${directory}/\\1/lib${name}\\2.a" OUTPUT_VARIABLE outputs)
  add_custom_command(
    OUTPUT ${outputs} "${directory}/${name}.h"
    COMMAND ${command}
    DEPENDS ${depends}
    COMMENT "${comment}"
    VERBATIM)
  add_custom_target(${name}_archives DEPENDS ${outputs} "${directory}/${name}.h")
  set_target_properties(${name}_archives PROPERTIES HRNN_OUTPUT "${directory}")
  if(archives_only)
    return()
  endif()

  add_library(${name} INTERFACE)
  add_dependencies(${name} ${name}_archives)
  target_include_directories(${name} INTERFACE "${directory}")
  _hrnn_architecture(architecture)
  set(linked)
  set(tables)
  foreach(output suffix IN ZIP_LISTS outputs made)
    if(NOT suffix MATCHES "^${architecture}/(_(.*))?$")
      continue()
    endif()
    list(APPEND linked "${output}")
    list(APPEND tables "${name}${CMAKE_MATCH_1}_kernels")
    target_link_libraries(${name} INTERFACE "${output}")
    if(CMAKE_MATCH_2)
      target_link_libraries(${name} INTERFACE hrnn::${CMAKE_MATCH_2})
    endif()
  endforeach()
  if(NOT linked)
    message(FATAL_ERROR
      "${name}: none of the TARGETS (${targets}) is for the ${architecture} that this project is compiled for")
  endif()
  target_link_libraries(${name} INTERFACE hrnn::runtime)
  set_target_properties(${name} PROPERTIES HRNN_OUTPUT "${directory}" HRNN_ARCHIVES "${linked}" HRNN_TABLES "${tables}")
endfunction()

function(hrnn_add_model name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "ARCHIVES_ONLY" "MODEL" "TARGETS;OPTIONS;DEPENDS")
  if(NOT arg_MODEL OR arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "hrnn_add_model(${name}): expected NAME MODEL file [TARGETS ...] [OPTIONS ...] [DEPENDS ...]"
      "; not understood: '${arg_UNPARSED_ARGUMENTS}'")
  endif()
  if(NOT arg_TARGETS)
    set(arg_TARGETS x86)
  endif()
  cmake_path(ABSOLUTE_PATH arg_MODEL NORMALIZE)
  set(directory "${CMAKE_CURRENT_BINARY_DIR}/${name}")
  list(JOIN arg_TARGETS "," targets)
  _hrnn_add_archives(${name} "${directory}" "${arg_TARGETS}" ${arg_ARCHIVES_ONLY}
    "hrnn::hrnn;compile;${arg_MODEL};-o;${directory};--name;${name};--targets;${targets};${arg_OPTIONS}"
    "${arg_MODEL};hrnn::hrnn;${arg_DEPENDS}" "Compiling ${arg_MODEL} for ${targets}")
endfunction()

function(hrnn_add_kernels name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "ARCHIVES_ONLY" "" "CELLS;HIDDEN;DTYPES;TARGETS")
  if(NOT arg_CELLS OR arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "hrnn_add_kernels(${name}): expected NAME CELLS ... [HIDDEN ...] [DTYPES ...] [TARGETS ...]"
      "; not understood: '${arg_UNPARSED_ARGUMENTS}'")
  endif()
  if(NOT arg_TARGETS)
    set(arg_TARGETS x86)
  endif()
  set(directory "${CMAKE_CURRENT_BINARY_DIR}/${name}")
  set(emitter hrnn::hrnn-emit)
  set(depends hrnn::hrnn-emit)
  _hrnn_cell_sources("${arg_CELLS}" cell_sources)
  if(cell_sources)
    _hrnn_add_emitter(${name}_emitter "${cell_sources}" emitter depends)
  endif()
  set(command "${emitter};--name;${name};-o;${directory}")
  foreach(option IN ITEMS CELLS HIDDEN DTYPES TARGETS)
    if(arg_${option})
      list(JOIN arg_${option} "," value)
      string(TOLOWER ${option} flag)
      list(APPEND command --${flag} ${value})
    endif()
  endforeach()
  list(JOIN arg_TARGETS "," targets)
  _hrnn_add_archives(${name} "${directory}" "${arg_TARGETS}" ${arg_ARCHIVES_ONLY} "${command}"
    "${depends}" "Generating kernels of ${name} for ${targets}")
endfunction()
