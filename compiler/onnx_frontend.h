// SPDX-License-Identifier: Apache-2.0
//
// Reads ONNX models (opsets 7 and later, domain ai.onnx). What is not understood is an error that names the node, the
// operator and the attribute; operators that are not supported are listed all at once.
#pragma once
#include <string>

#include "graph.h"

namespace onnx {
class ModelProto;
}

namespace hrnn {

constexpr int kMinOpset = 7, kMaxOpset = 28;  // 28: the operators of onnx 1.23 were compared with those of 22

Graph load_onnx(const std::string &path);

// The same for a model in memory. `folder`: where its external data lies; `model` is taken apart (its data is moved).
Graph import_onnx(onnx::ModelProto &model, const std::string &folder);

}  // namespace hrnn
