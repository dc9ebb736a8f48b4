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

// `extract`: where nodes cannot be compiled, takes the recurrent part alone. That are the nodes that can be compiled and
// lead to a recurrent layer or from one, as long as no node on the way from a recurrent layer is left out. What a node
// left out before them makes is an input, what they make for a node left out or for the model's outputs is an output;
// both keep their names. What is left out is in Graph::warnings.
Graph load_onnx(const std::string &path, bool extract = false);

// The same for a model in memory. `folder`: where its external data lies; `model` is taken apart (its data is moved).
Graph import_onnx(onnx::ModelProto &model, const std::string &folder, bool extract = false);

}  // namespace hrnn
