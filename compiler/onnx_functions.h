// SPDX-License-Identifier: Apache-2.0
//
// Functions a model defines (ModelProto.functions): calls are replaced by the functions' bodies before anything else
// looks at the graph.
#pragma once
#include <vector>

#include "onnx.pb.h"

namespace hrnn {

// Replaces all calls in the model's graph, and returns for each node that is there now the opset of ai.onnx it is of.
// `opset`: the model's own. Throws ModelError for calls that do not fit their function and for recursion.
std::vector<int> inline_functions(onnx::ModelProto *model, int opset);

}  // namespace hrnn
