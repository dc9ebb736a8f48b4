// SPDX-License-Identifier: Apache-2.0
//
// The ONNX operators this compiler takes. What a row's handler cannot fold or express is reported by it, not here.
#include "onnx_importer.h"

namespace hrnn {
namespace {

constexpr int kFirst = 7;       // the first opset accepted at all
constexpr int kMany = 1 << 30;  // any number of inputs

const OnnxOperator kOperators[] = {
    // type, since, inputs (least, most), outputs, handler
    {"RNN", kFirst, 3, 6, 2, import_recurrent},
    {"GRU", kFirst, 3, 6, 2, import_recurrent},
    {"Loop", kFirst, 2, kMany, kMany, import_loop, false, true},
    {"Scan", 8, 1, kMany, kMany, import_scan, false, true},
    {"If", kFirst, 1, 1, kMany, import_if},
    {"Gemm", kFirst, 2, 3, 1, import_gemm},
    {"MatMul", kFirst, 2, 2, 1, import_matmul},
    {"Transpose", kFirst, 1, 1, 1, import_transpose},
    {"Slice", kFirst, 1, 5, 1, import_slice},
    {"Split", kFirst, 1, 2, kMany, import_split},
    {"ReverseSequence", 10, 2, 2, 1, import_reverse_sequence, true},
    {"Gather", kFirst, 2, 2, 1, import_gather, true},
    {"Squeeze", kFirst, 1, 2, 1, import_squeeze},
    {"Unsqueeze", kFirst, 1, 2, 1, import_unsqueeze},
    {"Reshape", kFirst, 2, 2, 1, import_reshape},
    {"Flatten", kFirst, 1, 1, 1, import_flatten},
    {"Expand", 8, 2, 2, 1, import_expand},
    {"Concat", kFirst, 1, kMany, 1, import_concat},
    {"Identity", kFirst, 1, 1, 1, import_identity, true},
    {"Dropout", kFirst, 1, 3, 2, import_dropout},
    {"Constant", kFirst, 0, 0, 1, import_constant},
    {"ConstantOfShape", 9, 1, 1, 1, import_constant_of_shape},
    {"Shape", kFirst, 1, 1, 1, import_shape},
    {"Size", kFirst, 1, 1, 1, import_size},
    {"Range", 11, 3, 3, 1, import_range},
    {"Cast", kFirst, 1, 1, 1, import_cast, true},
    {"Add", kFirst, 2, 2, 1, import_arithmetic, true},
    {"Sub", kFirst, 2, 2, 1, import_arithmetic, true},
    {"Mul", kFirst, 2, 2, 1, import_arithmetic},
    {"Div", kFirst, 2, 2, 1, import_arithmetic},
    {"Equal", kFirst, 2, 2, 1, import_equal},
    {"Where", 9, 3, 3, 1, import_where},
    {"Relu", kFirst, 1, 1, 1, import_activation},
    {"Tanh", kFirst, 1, 1, 1, import_activation},
    {"Sigmoid", kFirst, 1, 1, 1, import_activation},
    {"LeakyRelu", kFirst, 1, 1, 1, import_activation},
    {"ThresholdedRelu", 10, 1, 1, 1, import_activation},
    {"HardSigmoid", kFirst, 1, 1, 1, import_activation},
    {"Elu", kFirst, 1, 1, 1, import_activation},
    {"Softsign", kFirst, 1, 1, 1, import_activation},
    {"Softplus", kFirst, 1, 1, 1, import_activation},
};

}  // namespace

const OnnxOperator *find_operator(const std::string &type) {
  for (const OnnxOperator &entry : kOperators) {
    if (type == entry.type) return &entry;
  }
  return nullptr;
}

std::string operator_list() {
  std::string list;
  for (const OnnxOperator &entry : kOperators) list += (list.empty() ? "" : ", ") + std::string(entry.type);
  return list;
}

}  // namespace hrnn
