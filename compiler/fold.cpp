// SPDX-License-Identifier: Apache-2.0
#include "fold.h"

#include <memory>

#include "program_writer.h"

namespace hrnn {
namespace {

struct Destroy {
  void operator()(hrnn_session *session) const { hrnn_session_destroy(session); }
};

void check(hrnn_status status, const hrnn_error &error) {
  if (status != HRNN_OK) throw ModelError(error.message);
}

Graph graph_of(const Op &op, const std::vector<const Tensor *> &inputs, DataType type,
               const std::vector<int64_t> &dims) {
  Graph graph;
  Node node{op, "", "", {}, {}};
  for (const Tensor *input : inputs) node.inputs.push_back(graph.add_tensor(*input));
  node.outputs = {graph.add_tensor({"y", type, Dims(dims.begin(), dims.end()), nullptr})};
  graph.outputs = node.outputs;
  graph.nodes.push_back(std::move(node));
  return graph;
}

}  // namespace

bool can_evaluate(const Op &op) {
  if (const auto *range = std::get_if<op::Range>(&op)) return range->first.literal().has_value();
  return std::holds_alternative<op::Elementwise>(op) || std::holds_alternative<op::Reduce>(op) ||
         std::holds_alternative<op::MatMul>(op) || std::holds_alternative<op::Gather>(op) ||
         std::holds_alternative<op::Pad>(op) || std::holds_alternative<op::GatherElements>(op) ||
         std::holds_alternative<op::GatherND>(op) || std::holds_alternative<op::ScatterElements>(op) ||
         std::holds_alternative<op::ScatterND>(op) || std::holds_alternative<op::TopK>(op);
}

Constant evaluate(const Op &op, const std::vector<const Tensor *> &inputs, DataType type,
                  const std::vector<int64_t> &dims) {
  const CompiledModel model = write_program(graph_of(op, inputs, type, dims), "fold");
  const hrnn_model view = model.view();
  hrnn_machine machine{};  // no kernels are chosen
  machine.struct_size = sizeof machine;
  hrnn_options options{};
  options.struct_size = sizeof options;
  options.machine = &machine;
  hrnn_error error{};
  hrnn_session *created = nullptr;
  check(hrnn_session_create(&view, &options, &created, &error), error);
  const std::unique_ptr<hrnn_session, Destroy> session(created);
  Constant result = make_constant(type, dims);
  hrnn_tensor output{};
  check(hrnn_session_reserve(created, nullptr, 0, &output, 1, &error), error);
  if (result.bytes.empty()) return result;
  output.data = result.bytes.data();
  output.bytes = result.bytes.size();
  check(hrnn_session_run(created, nullptr, 0, &output, 1, &error), error);
  return result;
}

}  // namespace hrnn
