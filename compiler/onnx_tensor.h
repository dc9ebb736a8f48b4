// SPDX-License-Identifier: Apache-2.0
//
// Tensors and element types as ONNX files store them.
#pragma once
#include <string>

#include "constant.h"
#include "onnx.pb.h"

namespace hrnn {

// Never throws for unknown numbers: "type 99".
std::string onnx_type_name(int32_t type);
// The type in the compiler's terms. `what` names the tensor in the message of the ModelError for the others.
DataType data_type(int32_t onnx_type, const std::string &what);

// The tensor's data from whichever field or file holds it, every size checked against what is really there before
// anything is allocated. `folder`: the model file's; external data must lie inside.
Constant read_tensor(const onnx::TensorProto &tensor, const std::string &folder, const std::string &what);

}  // namespace hrnn
