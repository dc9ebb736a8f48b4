/* SPDX-License-Identifier: Apache-2.0
 *
 * The prebuilt kernel library (hrnn::kernels): all cells of the library, f32 and f64, any size. Give both values to
 * hrnn_options. A program that needs fewer kernels makes its own with hrnn_add_kernels in CMake.
 */
#ifndef HRNN_PREBUILT_H
#define HRNN_PREBUILT_H

#include "hrnn/hrnn.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const hrnn_kernel_table *const hrnn_prebuilt_tables[];
extern const size_t hrnn_prebuilt_table_count;

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* HRNN_PREBUILT_H */
