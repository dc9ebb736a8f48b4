# SPDX-License-Identifier: Apache-2.0
#
# The installed tree: relocatable, with a libHalide of its own.
#
#   bin/hrnn, bin/hrnn-emit        the commands; they look for lib/hrnn/libHalide.so beside themselves
#   include/hrnn/                  headers; halide/: Halide's, for cells of a user's own
#   lib/libhrnn_runtime.a          the runtime;  libhrnn_cuda.a, libhrnn_opencl.a: GPU backends
#   lib/libhrnn_kernels.a          the prebuilt kernels' list; the kernels are in lib/hrnn/
#   lib/libhrnn_compiler.so        the compiler as a library;  lib/hrnn/libhrnn_emit.so: what makes kernels
#   lib/cmake/hrnn/                find_package(hrnn); lib/pkgconfig/hrnn.pc, hrnn-kernels.pc
#   share/hrnn/                    the runtime as one source file and one header; emitter/: main() of an emitter with cells
#                                  of a user's own; checks/: what compares such a cell with its reference
include(CMakePackageConfigHelpers)

set(hrnn_commands hrnn hrnn-emit)
add_dependencies(hrnn hrnn_redistributables)
cmake_path(SET to_lib NORMALIZE "${CMAKE_INSTALL_LIBDIR}/hrnn")
file(RELATIVE_PATH to_lib "/${CMAKE_INSTALL_BINDIR}" "/${to_lib}")
set_target_properties(${hrnn_commands} PROPERTIES
  RUNTIME_OUTPUT_DIRECTORY "${hrnn_bin_dir}" INSTALL_RPATH "$ORIGIN/${to_lib}")

# `make install` builds this.
add_custom_target(installable)
add_dependencies(installable ${hrnn_commands} hrnn_redistributables hrnn_prebuilt hrnn_compiler_shared)

# Commands run on any machine of this kind; libraries are for one architecture: two files, so that a project that
# compiles for another one takes the first only (hrnnConfig.cmake).
install(TARGETS ${hrnn_commands} EXPORT hrnnCommands RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS hrnn_emit EXPORT hrnnCommands LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/hrnn)
install(IMPORTED_RUNTIME_ARTIFACTS Halide::Halide LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/hrnn)
# What `hrnn tune` compares with, found beside libHalide.
install(FILES "${hrnn_site_packages}/halide/lib64/libautoschedule_adams2019.so" DESTINATION ${CMAKE_INSTALL_LIBDIR}/hrnn)
install(DIRECTORY "${hrnn_site_packages}/halide/include/" DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/hrnn/halide
  FILES_MATCHING PATTERN Halide.h PATTERN HalideRuntime.h)
file(GLOB halide_license "${hrnn_site_packages}/halide-*.dist-info/licenses/LICENSE*"
  "${hrnn_site_packages}/halide-*.dist-info/LICENSE*")
foreach(file IN LISTS halide_license)
  install(FILES "${file}" DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME LICENSE.Halide)
endforeach()
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

install(TARGETS hrnn_headers hrnn_runtime hrnn_cuda hrnn_opencl hrnn_prebuilt hrnn_compiler_shared EXPORT hrnnLibraries
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
get_property(archives GLOBAL PROPERTY hrnn_prebuilt_archives)
install(FILES ${archives} DESTINATION ${CMAKE_INSTALL_LIBDIR}/hrnn)
install(DIRECTORY runtime/include/hrnn cmake/kernels/hrnn generators/include/hrnn checks/include/hrnn compiler/include/hrnn
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES compiler/emit_main.cpp DESTINATION share/hrnn/emitter)
install(DIRECTORY checks/ DESTINATION share/hrnn/checks FILES_MATCHING PATTERN *.cpp PATTERN *.h PATTERN include EXCLUDE)
install(FILES "${hrnn_share_dir}/hrnn_runtime.cpp" DESTINATION share/hrnn)
install(FILES "${hrnn_share_dir}/hrnn/hrnn.h" DESTINATION share/hrnn/hrnn)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/hrnn)
install(EXPORT hrnnCommands NAMESPACE hrnn:: DESTINATION ${package_dir})
install(EXPORT hrnnLibraries NAMESPACE hrnn:: DESTINATION ${package_dir})
get_target_property(halide_file Halide::Halide LOCATION)
cmake_path(GET halide_file FILENAME hrnn_halide_file)
get_target_property(hrnn_halide_definitions Halide::Halide INTERFACE_COMPILE_DEFINITIONS)
configure_package_config_file(cmake/hrnnConfig.cmake.in "${PROJECT_BINARY_DIR}/hrnnConfig.cmake"
  INSTALL_DESTINATION ${package_dir} NO_SET_AND_CHECK_MACRO)
# Independent of the architecture, because the commands serve projects for any.
write_basic_package_version_file("${PROJECT_BINARY_DIR}/hrnnConfigVersion.cmake"
  COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES "${PROJECT_BINARY_DIR}/hrnnConfig.cmake" "${PROJECT_BINARY_DIR}/hrnnConfigVersion.cmake"
  cmake/hrnnAddModel.cmake cmake/hrnnAddCell.cmake DESTINATION ${package_dir})

set(pc_kernels)
foreach(archive IN LISTS archives)
  cmake_path(GET archive STEM library)
  string(REGEX REPLACE "^lib" " -l" library "${library}")
  string(APPEND pc_kernels "${library}")
endforeach()
get_property(backends GLOBAL PROPERTY hrnn_prebuilt_backends)
foreach(backend IN LISTS backends)
  string(APPEND pc_kernels " -l${backend} -ldl")
endforeach()
foreach(name IN ITEMS hrnn hrnn-kernels)
  configure_file(cmake/${name}.pc.in "${PROJECT_BINARY_DIR}/${name}.pc" @ONLY)
  install(FILES "${PROJECT_BINARY_DIR}/${name}.pc" DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()
