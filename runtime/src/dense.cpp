// SPDX-License-Identifier: Apache-2.0
//
// Dense layers: a projection with one gate.
#include <climits>
#include <cstring>

#include "plan_internal.h"
#include "status.h"

namespace hrnn {

// Rows computed at once, into scratch with whole panels.
constexpr int64_t kDenseChunkRows = 64;

struct DensePlan {
  KernelSet kernels;
  PackedProduct layout;
  const uint8_t *packed;
  int32_t dtype;
  int64_t in, out, lanes, panels, element;
};

hrnn_status dense_plan_create(int32_t dtype, int64_t in_features, int64_t out_features, const void *packed,
                              const hrnn_options *options, DensePlan **out, hrnn_error *error) {
  *out = nullptr;
  if ((dtype != HRNN_F32 && dtype != HRNN_F64) || in_features < 1 || out_features < 1)
    return fail(error, HRNN_INVALID_ARGUMENT, "a dense layer of type %d with %lld inputs and %lld outputs cannot be planned",
                dtype, static_cast<long long>(in_features), static_cast<long long>(out_features));
  if (double(panels_of(dtype, out_features) * lanes_of(dtype)) * double(in_features) >= double(INT_MAX))
    return fail(error, HRNN_UNSUPPORTED, "a dense layer of %lld inputs and %lld outputs has more than %d weights",
                static_cast<long long>(in_features), static_cast<long long>(out_features), INT_MAX);
  ResolvedOptions r;
  hrnn_status status = resolve_options(options, &r, error);
  if (status != HRNN_OK) return status;
  DensePlan *plan = create_object<DensePlan>();
  if (plan == nullptr) return fail(error, HRNN_OUT_OF_MEMORY, "no memory for a plan");
  *plan = {{}, packed_product(dtype, 1, out_features, in_features), static_cast<const uint8_t *>(packed), dtype,
           in_features, out_features, lanes_of(dtype), panels_of(dtype, out_features), dtype_bytes(dtype)};
  status = select_dense(dtype, in_features, out_features, r.machine, r.source, r.force, &plan->kernels, error);
  if (status != HRNN_OK) {
    dense_plan_destroy(plan);
    return status;
  }
  *out = plan;
  return HRNN_OK;
}

void dense_plan_destroy(DensePlan *plan) { destroy_object(plan); }

size_t dense_scratch_bytes(const DensePlan *plan) {
  return size_t(kDenseChunkRows * plan->panels * kRowBytes);
}

hrnn_status dense_run(const DensePlan *plan, void *scratch, int64_t rows, const void *x, int64_t x_row_stride, void *y,
                      int64_t y_row_stride, hrnn_error *error) {
  ProjectionCall call;
  call.init(plan->kernels, plan->dtype, 1, plan->panels, plan->in, plan->packed, plan->layout, 0, plan->panels);
  const int64_t padded = plan->panels * plan->lanes;
  const uint8_t *from = static_cast<const uint8_t *>(x);
  uint8_t *to = static_cast<uint8_t *>(y);
  for (int64_t begin = 0; begin < rows;) {
    const int64_t n = rows - begin < kDenseChunkRows ? rows - begin : kDenseChunkRows;
    const int code = call.run(n, from + begin * x_row_stride * plan->element, x_row_stride, scratch, padded);
    if (code != 0) return fail(error, HRNN_DEVICE_ERROR, "a dense kernel returned error %d", code);
    for (int64_t i = 0; i < n; i++)
      memcpy(to + (begin + i) * y_row_stride * plan->element, static_cast<uint8_t *>(scratch) + i * padded * plan->element,
             size_t(plan->out * plan->element));
    begin += n;
  }
  return HRNN_OK;
}

}  // namespace hrnn
