// SPDX-License-Identifier: Apache-2.0
//
// Lowers a Graph to what the runtime executes: the program (runtime/src/program.h) and the weights
// (runtime/src/pack.h).
#pragma once
#include "graph.h"
#include "hrnn/compiler.h"

namespace hrnn {

CompiledModel write_program(const Graph &graph, const std::string &name);

}  // namespace hrnn
