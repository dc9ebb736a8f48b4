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
    {"Loop", kFirst, 2, kMany, kMany, import_loop, 0, true},
    {"Scan", 8, 1, kMany, kMany, import_scan, 0, true},
    {"If", kFirst, 1, 1, kMany, import_if},
    {"Gemm", kFirst, 2, 3, 1, import_gemm},
    {"MatMul", kFirst, 2, 2, 1, import_matmul},
    {"Transpose", kFirst, 1, 1, 1, import_transpose},
    {"Slice", kFirst, 1, 5, 1, import_slice},
    {"Split", kFirst, 1, 2, kMany, import_split},
    {"ReverseSequence", 10, 2, 2, 1, import_reverse_sequence, 0b10},
    {"Gather", kFirst, 2, 2, 1, import_gather, 0b10},
    {"GatherElements", 11, 2, 2, 1, import_gather_elements, 0b10},
    {"GatherND", 11, 2, 2, 1, import_gather_nd, 0b10},
    {"Scatter", 9, 3, 3, 1, import_scatter_elements, 0b10},
    {"ScatterElements", 11, 3, 3, 1, import_scatter_elements, 0b10},
    {"ScatterND", 11, 3, 3, 1, import_scatter_nd, 0b10},
    {"TopK", kFirst, 1, 2, 2, import_top_k},
    {"Squeeze", kFirst, 1, 2, 1, import_squeeze},
    {"Unsqueeze", kFirst, 1, 2, 1, import_unsqueeze},
    {"Reshape", kFirst, 2, 2, 1, import_reshape},
    {"Flatten", kFirst, 1, 1, 1, import_flatten},
    {"Expand", 8, 2, 2, 1, import_expand},
    {"Concat", kFirst, 1, kMany, 1, import_concat},
    {"Identity", kFirst, 1, 1, 1, import_identity, 0b1},
    {"Dropout", kFirst, 1, 3, 2, import_dropout},
    {"Constant", kFirst, 0, 0, 1, import_constant},
    {"ConstantOfShape", 9, 1, 1, 1, import_constant_of_shape},
    {"Shape", kFirst, 1, 1, 1, import_shape},
    {"Size", kFirst, 1, 1, 1, import_size},
    {"Range", 11, 3, 3, 1, import_range},
    {"Cast", kFirst, 1, 1, 1, import_cast, 0b1},
    {"CastLike", 15, 2, 2, 1, import_cast_like},
    {"Tile", kFirst, 2, 2, 1, import_tile},
    {"Pad", kFirst, 1, 4, 1, import_pad},
    {"Add", kFirst, 2, 2, 1, import_elementwise, 0b11},
    {"Sub", kFirst, 2, 2, 1, import_elementwise, 0b11},
    {"Mul", kFirst, 2, 2, 1, import_elementwise},
    {"Div", kFirst, 2, 2, 1, import_elementwise},
    {"And", kFirst, 2, 2, 1, import_elementwise},
    {"Or", kFirst, 2, 2, 1, import_elementwise},
    {"Xor", kFirst, 2, 2, 1, import_elementwise},
    {"Equal", kFirst, 2, 2, 1, import_elementwise},
    {"Less", kFirst, 2, 2, 1, import_elementwise},
    {"Greater", kFirst, 2, 2, 1, import_elementwise},
    {"LessOrEqual", 12, 2, 2, 1, import_elementwise},
    {"GreaterOrEqual", 12, 2, 2, 1, import_elementwise},
    {"Mod", 10, 2, 2, 1, import_elementwise},
    {"Pow", kFirst, 2, 2, 1, import_pow},
    {"PRelu", kFirst, 2, 2, 1, import_prelu},
    {"Where", 9, 3, 3, 1, import_where},
    {"Clip", kFirst, 1, 3, 1, import_clip},
    {"Min", kFirst, 1, kMany, 1, import_variadic},
    {"Max", kFirst, 1, kMany, 1, import_variadic},
    {"Sum", kFirst, 1, kMany, 1, import_variadic},
    {"Mean", kFirst, 1, kMany, 1, import_variadic},
    {"Neg", kFirst, 1, 1, 1, import_elementwise},
    {"Abs", kFirst, 1, 1, 1, import_elementwise},
    {"Sqrt", kFirst, 1, 1, 1, import_elementwise},
    {"Reciprocal", kFirst, 1, 1, 1, import_elementwise},
    {"Exp", kFirst, 1, 1, 1, import_elementwise},
    {"Log", kFirst, 1, 1, 1, import_elementwise},
    {"Floor", kFirst, 1, 1, 1, import_elementwise},
    {"Ceil", kFirst, 1, 1, 1, import_elementwise},
    {"Not", kFirst, 1, 1, 1, import_elementwise},
    {"Sin", kFirst, 1, 1, 1, import_elementwise},
    {"Cos", kFirst, 1, 1, 1, import_elementwise},
    {"Tan", kFirst, 1, 1, 1, import_elementwise},
    {"Asin", kFirst, 1, 1, 1, import_elementwise},
    {"Acos", kFirst, 1, 1, 1, import_elementwise},
    {"Atan", kFirst, 1, 1, 1, import_elementwise},
    {"Erf", 9, 1, 1, 1, import_elementwise},
    {"Sign", 9, 1, 1, 1, import_elementwise},
    {"IsNaN", 9, 1, 1, 1, import_elementwise},
    {"Sinh", 9, 1, 1, 1, import_elementwise},
    {"Cosh", 9, 1, 1, 1, import_elementwise},
    {"Asinh", 9, 1, 1, 1, import_elementwise},
    {"Acosh", 9, 1, 1, 1, import_elementwise},
    {"Atanh", 9, 1, 1, 1, import_elementwise},
    {"Shrink", 9, 1, 1, 1, import_elementwise},
    {"IsInf", 10, 1, 1, 1, import_elementwise},
    {"Round", 11, 1, 1, 1, import_elementwise},
    {"Relu", kFirst, 1, 1, 1, import_elementwise},
    {"Tanh", kFirst, 1, 1, 1, import_elementwise},
    {"Sigmoid", kFirst, 1, 1, 1, import_elementwise},
    {"LeakyRelu", kFirst, 1, 1, 1, import_elementwise},
    {"HardSigmoid", kFirst, 1, 1, 1, import_elementwise},
    {"Elu", kFirst, 1, 1, 1, import_elementwise},
    {"Softsign", kFirst, 1, 1, 1, import_elementwise},
    {"Softplus", kFirst, 1, 1, 1, import_elementwise},
    {"Selu", kFirst, 1, 1, 1, import_elementwise},
    {"ThresholdedRelu", 10, 1, 1, 1, import_elementwise},
    {"Celu", 12, 1, 1, 1, import_elementwise},
    {"HardSwish", 14, 1, 1, 1, import_elementwise},
    {"Mish", 18, 1, 1, 1, import_elementwise},
    {"Gelu", 20, 1, 1, 1, import_elementwise},
    {"Swish", 24, 1, 1, 1, import_elementwise},
    {"ReduceSum", kFirst, 1, 2, 1, import_reduce},
    {"ReduceMean", kFirst, 1, 2, 1, import_reduce},
    {"ReduceMax", kFirst, 1, 2, 1, import_reduce},
    {"ReduceMin", kFirst, 1, 2, 1, import_reduce},
    {"ReduceProd", kFirst, 1, 2, 1, import_reduce},
    {"ReduceSumSquare", kFirst, 1, 2, 1, import_reduce},
    {"ReduceL1", kFirst, 1, 2, 1, import_reduce},
    {"ReduceL2", kFirst, 1, 2, 1, import_reduce},
    {"ReduceLogSum", kFirst, 1, 2, 1, import_reduce},
    {"ReduceLogSumExp", kFirst, 1, 2, 1, import_reduce},
    {"ArgMax", kFirst, 1, 1, 1, import_arg_extreme},
    {"ArgMin", kFirst, 1, 1, 1, import_arg_extreme},
    {"Softmax", kFirst, 1, 1, 1, import_softmax},
    {"LogSoftmax", kFirst, 1, 1, 1, import_softmax},
    {"LayerNormalization", 17, 2, 3, 3, import_layer_normalization},
    {"RMSNormalization", 23, 2, 2, 1, import_rms_normalization},
    {"BatchNormalization", kFirst, 5, 5, 5, import_batch_normalization},
    {"InstanceNormalization", kFirst, 3, 3, 1, import_instance_normalization},
    {"GroupNormalization", 18, 3, 3, 1, import_group_normalization},
    {"LpNormalization", kFirst, 1, 1, 1, import_lp_normalization},
    {"Conv", kFirst, 2, 3, 1, import_conv},
    {"MaxPool", kFirst, 1, 1, 2, import_pool},
    {"AveragePool", kFirst, 1, 1, 1, import_pool},
    {"GlobalAveragePool", kFirst, 1, 1, 1, import_global_pool},
    {"GlobalMaxPool", kFirst, 1, 1, 1, import_global_pool},
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
