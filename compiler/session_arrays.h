// SPDX-License-Identifier: Apache-2.0
//
// Arrays as a session takes and gives them.
#pragma once
#include <string>
#include <vector>

#include "constant.h"
#include "hrnn/hrnn.h"
#include "npz.h"

namespace hrnn {

hrnn_tensor tensor_of(Constant &array);  // points into it
DataType data_type_of(int32_t dtype);    // of an hrnn_dtype

// The session's inputs, by their names; throws ModelError where one is missing, left over or does not fit. `path`: of
// the file that the arrays come from, for messages.
std::vector<hrnn_tensor> bind_inputs(const hrnn_session *session, std::vector<NamedArray> &arrays,
                                     const std::string &path);
// Zeros for the session's outputs, whose shapes hrnn_session_reserve gave.
std::vector<NamedArray> allocate_outputs(const hrnn_session *session, const std::vector<hrnn_tensor> &tensors);

}  // namespace hrnn
