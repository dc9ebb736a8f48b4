// SPDX-License-Identifier: Apache-2.0
//
// Loop and Scan whose body is an RNN or GRU cell, which is how TensorFlow, Keras and JAX write recurrent layers. The
// body is read as an expression (step_expression.h), compared with the cells' equations (recurrent_cell.h), and a
// Recurrent node takes the loop's place. Anything else is an error that says which part did not fit.
#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "onnx_importer.h"
#include "onnx_tensor.h"
#include "recurrent_cell.h"

namespace hrnn {
namespace {

using onnx::GraphProto;
using onnx::NodeProto;

constexpr int64_t kOpenEnd = std::numeric_limits<int32_t>::max();  // exporters write INT32_MAX or INT64_MAX

// slope * iteration + offset: a counter, an index, a length.
struct Count {
  int64_t slope = 0;
  Dim offset;
};

// What is known of a value inside the body that depends on the state, the step's inputs or the iteration.
struct Step {
  enum class Kind {
    Unusable,   // `problem` says why
    Count,      // an integer (or its conversion to float)
    Condition,  // a bool that says whether another iteration is due
    Tensor,     // a row for every sequence of the batch
  };
  Kind kind = Kind::Unusable;
  std::string problem;
  Count count;
  bool known = false;  // Condition: it is true up to step number `limit`, or always where there is none
  std::optional<Dim> limit;
  Expression row;
};

// A sequence the loop walks along.
struct Source {
  Value value;
  int64_t axis = 0;
  bool reverse = false;
  std::string name;
  bool keeps = false;  // made of a mask: 1 where that is 0
};

struct State {
  std::string input, output;  // in the body
  Value initial;
  bool invariant = false;
  int64_t hidden = 0;  // where it is a row
  bool is_row() const { return hidden > 0; }
};

// What Loop and Scan have in common.
struct LoopForm {
  const GraphProto *body = nullptr;
  Dim steps;
  bool counted = true;  // false where only the condition says how many steps there are
  std::vector<State> states;
  std::vector<Source> scanned;  // Scan's inputs
  std::vector<std::string> scanned_names;
  std::vector<std::string> sequences;  // names in the body of what is stacked
  std::vector<bool> prepended;         // by output: stacked from the last step to the first
  std::vector<int64_t> output_axes;
  std::string iteration, condition_in, condition_out;  // Loop's; empty in Scan
};

// ---- The body ----

class Body {
 public:
  Body(OnnxNode *node, LoopForm *form) : node_(*node), importer_(node->importer()), form_(*form) {}
  ~Body() {
    for (const std::string &name : made_) importer_.values.erase(name);
  }
  Body(const Body &) = delete;
  Body &operator=(const Body &) = delete;

  StepAlgebra algebra;
  std::vector<Source> sources;
  std::set<int> selecting;  // the masks that choose (Where); others only multiply, and 0 times NaN is NaN

  void evaluate() {
    for (const onnx::TensorProto &tensor : form_.body->initializer()) {
      Constant data =
          read_tensor(tensor, importer_.folder(), fmt::format("{}: initializer '{}'", node_.where(), tensor.name()));
      importer_.grant(static_cast<int64_t>(data.bytes.size()));
      bind(tensor.name(), importer_.constant(std::move(data)));
    }
    bind_inputs();
    for (const NodeProto &proto : form_.body->node()) evaluate(proto);
  }

  const Step *step(const std::string &name) const {
    const auto found = steps_.find(name);
    return found == steps_.end() ? nullptr : &found->second;
  }

  // A float value of the body as a row, or why it is none.
  Expression row(const std::string &name) {
    if (const Step *made = step(name)) {
      if (made->kind == Step::Kind::Tensor) return made->row;
      if (made->kind == Step::Kind::Unusable) throw NoCell{made->problem, true};
      throw NoCell{fmt::format("'{}' is a counter where a row is needed", name)};
    }
    return constant_row(name, value(name));
  }

  // An integer that is known up to the iteration and the dimensions, or nothing.
  std::optional<Count> count(const std::string &name, int levels = 16) const {
    if (const Step *made = step(name)) {
      if (made->kind == Step::Kind::Count) return made->count;
      return std::nullopt;
    }
    const auto found = importer_.values.find(name);
    if (found == importer_.values.end()) return std::nullopt;
    if (const auto known = known_count(found->second)) return known;
    // Conversions to float and the like are folded for nobody else.
    const NodeProto *proto = importer_.proto(name);
    const bool passes_on = proto && (proto->op_type() == "Cast" || proto->op_type() == "Identity" ||
                                     proto->op_type() == "Squeeze" || proto->op_type() == "Unsqueeze");
    if (!passes_on || proto->input_size() == 0 || levels == 0) return std::nullopt;
    return count(proto->input(0), levels - 1);
  }

  // Whether a condition before the loop is true whenever there is a step to make.
  bool holds_before(const std::string &name, int levels = 16) const {
    const auto found = importer_.values.find(name);
    if (found != importer_.values.end() && found->second.is_constant()) {
      return found->second.type == DataType::Bool && !found->second.constant->all_zero();
    }
    const NodeProto *proto = importer_.proto(name);
    if (!proto || levels == 0) return false;
    if (proto->op_type() == "Identity" && proto->input_size() == 1) return holds_before(proto->input(0), levels - 1);
    if (proto->input_size() != 2) return false;
    if (proto->op_type() == "And") {
      return holds_before(proto->input(0), levels - 1) && holds_before(proto->input(1), levels - 1);
    }
    if (proto->op_type() != "Less") return false;
    const auto a = count(proto->input(0)), b = count(proto->input(1));
    if (!a || !b || a->slope != 0 || b->slope != 0) return false;
    const auto margin = (b->offset - a->offset - form_.steps).literal();  // a < b where there is a step to make
    return margin && *margin >= 0;
  }

  // How many steps a condition of the body allows; nothing where it is unknown. `always`: it never stops the loop.
  std::optional<Dim> allowed_steps(const std::string &name, bool *always) const {
    const Step *made = step(name);
    *always = made ? made->kind == Step::Kind::Condition && made->known && !made->limit : holds_before(name);
    if (!made || made->kind != Step::Kind::Condition || !made->known) return std::nullopt;
    return made->limit;
  }

 private:
  void bind(const std::string &name, Value value) {
    if (name.empty()) node_.fail("a value of its body has no name; the file is damaged");
    if (importer_.values.count(name)) {
      node_.fail("its body makes '{}', which exists outside of it already; every name must be made once", name);
    }
    made_.push_back(name);
    importer_.values[name] = std::move(value);
  }
  void bind(const std::string &name, Step step) {
    if (name.empty()) return;
    if (!steps_.emplace(name, std::move(step)).second || importer_.values.count(name)) {
      node_.fail("its body makes '{}', which exists already; every name must be made once", name);
    }
  }

  static Step tensor(Expression row) {
    Step step;
    step.kind = Step::Kind::Tensor;
    step.row = std::move(row);
    return step;
  }
  static Step number(Count count) {
    Step step;
    step.kind = Step::Kind::Count;
    step.count = std::move(count);
    return step;
  }
  static Step condition(bool known, std::optional<Dim> limit) {
    Step step;
    step.kind = Step::Kind::Condition;
    step.known = known;
    step.limit = std::move(limit);
    return step;
  }
  static Step unusable(std::string problem) {
    Step step;
    step.problem = std::move(problem);
    return step;
  }

  void bind_inputs() {
    if (!form_.iteration.empty()) bind(form_.iteration, number({1, Dim(0)}));
    if (!form_.condition_in.empty()) bind(form_.condition_in, condition(true, std::nullopt));
    for (size_t i = 0; i < form_.states.size(); ++i) {
      State &state = form_.states[i];
      const auto start = known_count(state.initial);
      if (state.invariant) {
        bind(state.input, state.initial);
      } else if (state.is_row()) {
        bind(state.input, tensor(algebra.state(static_cast<int>(i), state.hidden, state_name(i))));
      } else if (start && !is_float(state.initial.type)) {
        bind(state.input, number({1, start->offset}));  // a counter; checked when its next value is known
      } else {
        bind(state.input,
             unusable(fmt::format("state '{}' is {} {}, neither a row for every sequence nor a counter", state.input,
                                  type_name(state.initial.type), importer_.dims_text(state.initial.dims))));
      }
    }
    for (size_t i = 0; i < form_.scanned.size(); ++i) {
      bind(form_.scanned_names[i], step_of(form_.scanned[i]));
    }
  }

  std::string state_name(size_t index) const {
    int rows = 0;
    for (const State &state : form_.states) rows += state.is_row();
    return rows == 1 ? "h" : fmt::format("h{}", index);
  }

  // The step's row of a sequence.
  Step step_of(const Source &source) {
    const Value &value = source.value;
    if (value.type == DataType::Bool && value.rank() == 3 && source.axis == 0 && value.dims[2].is(1)) {
      return tensor(algebra.mask(source_index(source), "mask"));
    }
    if (!is_float(value.type) || value.rank() != 3 || (source.axis != 0 && source.axis != 1)) {
      return unusable(
          fmt::format("it reads a step of '{}', which is {} {}; only [time, batch, features] of floats is "
                      "supported",
                      source.name, type_name(value.type), importer_.dims_text(value.dims)));
    }
    const auto width = value.dims[2].literal();
    if (!width || *width < 1 || *width > kMaxLayerSize) {
      return unusable(fmt::format("it reads a step of '{}', whose last dimension is {}; it must be a fixed number",
                                  source.name, value.dims[2].text(importer_.graph().symbols)));
    }
    const int index = source_index(source);
    return tensor(algebra.sequence(index, *width, sources.size() == 1 ? "x" : source.name));
  }

  int source_index(const Source &source) {
    size_t index = 0;
    while (index < sources.size() &&
           !(sources[index].name == source.name && sources[index].reverse == source.reverse)) {
      ++index;
    }
    if (index == sources.size()) sources.push_back(source);
    return static_cast<int>(index);
  }

  const Value &value(const std::string &name) const {
    const auto found = importer_.values.find(name);
    if (found == importer_.values.end()) {
      node_.fail("its body uses '{}', which no node before makes", name);
    }
    return found->second;
  }

  Expression constant_row(const std::string &name, const Value &value) {
    if (value.kind == Value::Kind::Unusable) {
      throw NoCell{fmt::format("'{}' comes from a node that cannot be compiled", name)};
    }
    const bool known = value.is_constant() || value.kind == Value::Kind::Fill;
    if (!known || !is_float(value.type)) {
      throw NoCell{fmt::format("'{}' is {} {} and is computed when the model runs; only constants take part in a step",
                               name, type_name(value.type), importer_.dims_text(value.dims))};
    }
    const Constant &data = *value.constant;
    if (data.elements() == 1) return algebra.scalar(data.real(0));
    const bool one_row = value.is_constant() && data.elements() > 0 && data.elements() == data.dims.back();
    if (!one_row) {
      throw NoCell{fmt::format("constant '{}' has shape {}; a step takes a row or a matrix to multiply with", name,
                               importer_.dims_text(value.dims))};
    }
    std::vector<double> row;
    for (int64_t i = 0; i < data.elements(); ++i) row.push_back(data.real(i));
    return algebra.row(std::move(row));
  }

  // The size that a tensor holds which was made from a shape (Importer::counted), and converted perhaps.
  std::optional<Dim> counted_size(TensorId tensor) const {
    const Node *maker = importer_.producer(tensor);
    if (!maker) return std::nullopt;
    const auto *range = std::get_if<op::Range>(&maker->op);
    const auto *function = std::get_if<op::Elementwise>(&maker->op);
    if (range) return importer_.graph().tensor(tensor).dims[0].is(1) ? std::optional(range->first) : std::nullopt;
    const bool same = std::holds_alternative<op::Reshape>(maker->op) || (function && function->function == Function::Cast);
    return same ? counted_size(maker->inputs[0]) : std::nullopt;
  }

  std::optional<Count> known_count(const Value &value) const {
    if (value.is_runtime()) {
      const auto size = counted_size(value.tensor);
      return size ? std::optional(Count{0, *size}) : std::nullopt;
    }
    if (is_float(value.type) && value.is_constant() && value.constant->elements() == 1) {
      const double number = value.constant->real(0);
      const int64_t whole = value.constant->integer(0);
      if (static_cast<double>(whole) == number) return Count{0, Dim(whole)};
    }
    const auto known = known_integers(value);
    if (!known || known->size() != 1) return std::nullopt;
    return Count{0, known->front()};
  }

  // ---- Nodes ----

  void evaluate(const NodeProto &proto) {
    bool known = true;
    for (const std::string &input : proto.input()) {
      if (!input.empty() && !step(input)) value(input);  // fails where nobody makes it
      known = known && !step(input);
    }
    std::string problem;
    if (known && import_known(proto, &problem)) return;
    for (int i = 0; i < proto.output_size(); ++i) {
      Step made;
      try {
        made = apply(proto, i);
      } catch (const NoCell &reason) {
        const OnnxNode inner(proto, &importer_);
        const std::string &what = problem.empty() ? reason.message : problem;
        const bool named = !problem.empty() || reason.names_node;
        made = unusable(named ? what : inner.where() + ": " + what);
      }
      bind(proto.output(i), std::move(made));
    }
  }

  // A node that does not depend on the step is imported as if it stood before the loop.
  bool import_known(const NodeProto &proto, std::string *problem) {
    for (const std::string &output : proto.output()) {
      if (importer_.values.count(output)) {
        node_.fail("its body makes '{}', which exists outside of it already; every name must be made once", output);
      }
    }
    const auto found = import_node(importer_, proto);
    bool complete = !found;
    for (const std::string &output : proto.output()) {
      if (complete) complete = output.empty() || importer_.values.count(output) > 0;
    }
    for (const std::string &output : proto.output()) {
      if (complete && !output.empty()) made_.push_back(output);
      if (!complete) importer_.values.erase(output);
    }
    if (found) *problem = *found;
    return complete;
  }

  // The index-th output of a node that depends on the step.
  Step apply(const NodeProto &proto, int index) {
    const std::string &type = proto.op_type();
    OnnxNode node(proto, &importer_);
    if (!proto.domain().empty() && proto.domain() != "ai.onnx") {
      throw NoCell{fmt::format("operators of domain '{}' are not supported", proto.domain())};
    }
    Step result = apply(node, type, index);
    node.finish_attributes();
    return result;
  }

  Step apply(OnnxNode &node, const std::string &type, int index) {
    const auto in = [&](size_t i) -> const std::string & {
      if (!node.has_input(i)) throw NoCell{fmt::format("input {} is missing", i)};
      return node.input_name(i);
    };
    if (type == "Gather") return gather(node);
    if (type == "And" || type == "Less") return compare(node);
    if (type == "Identity") return copy(in(0));
    if (type == "Cast") return cast(node);
    if (type == "Squeeze" || type == "Unsqueeze") return count_only(node);
    if (const auto counted = counted_sum(node)) return number(*counted);
    if (type == "Add") return tensor(algebra.sum(row(in(0)), row(in(1))));
    if (type == "Sub") return tensor(algebra.sum(row(in(0)), row(in(1)), -1));
    if (type == "Neg") return tensor(algebra.scaled(row(in(0)), -1));
    if (type == "Mul") return tensor(algebra.multiply(row(in(0)), row(in(1))));
    if (type == "Div") return divide(row(in(0)), row(in(1)));
    if (type == "Not") return tensor(algebra.sum(algebra.scalar(1), mask(in(0)), -1));
    if (type == "Where") return where(in(0), in(1), in(2));
    if (type == "ReduceMin" || type == "ReduceMax") return reduce(node);
    if (type == "MatMul") return tensor(algebra.product(row(in(0)), matrix(in(1))));
    if (type == "Gemm") return gemm(node);
    if (type == "Concat") return concat(node);
    if (type == "Slice") return slice(node);
    if (type == "Split") return split(node, index);
    if (type == "Clip") return clip(node);
    if (type == "Max" || type == "Min") return clip_one_side(node, type == "Max");
    const auto function = find_activation(type);
    if (function && find_operator(type)) return tensor(algebra.function(read_activation(node), row(in(0))));
    throw NoCell{"this operator has no place in a step of an RNN or GRU"};
  }

  Step copy(const std::string &name) {
    if (const Step *made = step(name)) {
      if (made->kind == Step::Kind::Unusable) throw NoCell{made->problem, true};
      return *made;
    }
    throw NoCell{fmt::format("'{}' is no value of the step", name)};
  }

  // To its own type or the one it is computed in, or a counter's to any number.
  Step cast(OnnxNode &node) {
    const std::string &name = node.input_name(0);
    const auto to = node.integer("to");
    if (node.opset() >= 19) node.integer("saturate");
    if (const auto counted = count(name)) return number(*counted);
    const Step made = copy(name);
    const DataType type = float_type();
    const bool same =
        made.kind == Step::Kind::Tensor && to && (*to == onnx_type(type) || *to == onnx_type(computed_type(type)));
    const bool is_mask = made.kind == Step::Kind::Tensor && algebra.is_mask(made.row);  // 0 and 1 in any type
    if (made.kind == Step::Kind::Condition || same || is_mask) return made;
    throw NoCell{"it converts a row to another type"};
  }

  DataType float_type() const {
    for (const State &state : form_.states) {
      if (state.is_row()) return state.initial.type;
    }
    return DataType::Float32;
  }

  static int onnx_type(DataType type) {
    switch (type) {
      case DataType::Float64: return onnx::TensorProto::DOUBLE;
      case DataType::Float16: return onnx::TensorProto::FLOAT16;
      case DataType::BFloat16: return onnx::TensorProto::BFLOAT16;
      default: return onnx::TensorProto::FLOAT;
    }
  }

  Expression mask(const std::string &name) {
    const Expression a = row(name);
    if (!algebra.is_mask(a)) throw NoCell{fmt::format("'{}' is no mask of zeros and ones", algebra.text(a))};
    return a;
  }

  Step where(const std::string &condition, const std::string &a, const std::string &b) {
    const Expression taken = mask(condition);
    for (int chosen_by : algebra.masks_in(taken)) selecting.insert(chosen_by);
    const Expression otherwise = algebra.sum(algebra.scalar(1), taken, -1);
    return tensor(algebra.sum(algebra.multiply(taken, row(a)), algebra.multiply(otherwise, row(b))));
  }

  // Of the one column of a mask: Keras on JAX writes it.
  Step reduce(OnnxNode &node) {
    const std::vector<int64_t> axes = integers(node, 1, "axes", node.opset() >= 18);
    if (node.opset() >= 18) node.integer("noop_with_empty_axes", 0);
    const bool last = axes == std::vector<int64_t>{1} || axes == std::vector<int64_t>{-1};
    if (!last || node.integer("keepdims", 1) != 1) throw NoCell{"it reduces a row"};
    return tensor(mask(node.input_name(0)));
  }

  Step count_only(OnnxNode &node) {
    const auto counted = count(node.input_name(0));
    if (!counted) throw NoCell{"it changes the dimensions of a row"};
    if (node.opset() < 13) node.integers("axes");
    return number(*counted);
  }

  std::optional<Count> counted_sum(const OnnxNode &node) const {
    if ((node.type() != "Add" && node.type() != "Sub") || node.input_count() != 2) return std::nullopt;
    const auto a = count(node.input_name(0)), b = count(node.input_name(1));
    if (!a || !b) return std::nullopt;
    const bool subtract = node.type() == "Sub";
    return Count{subtract ? a->slope - b->slope : a->slope + b->slope,
                 subtract ? a->offset - b->offset : a->offset + b->offset};
  }

  Step compare(OnnxNode &node) {
    if (node.input_count() != 2) throw NoCell{"it has not two inputs"};
    if (node.type() == "Less") {  // i + a < b: after step i there is another one, up to step b - a + 1
      const auto a = count(node.input_name(0)), b = count(node.input_name(1));
      if (!a || !b || a->slope != 1 || b->slope != 0) return condition(false, std::nullopt);
      return condition(true, b->offset - a->offset + Dim(1));
    }
    bool always[2];
    const auto left = allowed_steps(node.input_name(0), &always[0]);
    const auto right = allowed_steps(node.input_name(1), &always[1]);
    if (always[0] && always[1]) return condition(true, std::nullopt);
    if (always[0] || always[1]) return condition(left || right, left ? left : right);
    if (!left || !right) return condition(false, std::nullopt);
    const auto margin = (*left - *right).literal();
    return condition(margin.has_value(), margin && *margin > 0 ? right : left);
  }

  Step gather(OnnxNode &node) {
    const std::string &name = node.input_name(0);
    if (step(name)) throw NoCell{"it picks elements of a row"};
    const Value &data = value(name);
    if (data.kind == Value::Kind::Unusable) {
      throw NoCell{fmt::format("'{}' comes from a node that cannot be compiled", name)};
    }
    const auto position = count(node.input_name(1));
    const int64_t axis = node.axis(node.integer("axis", 0), data.rank());
    if (!position) throw NoCell{"it picks a step by an index that is computed from data"};
    const bool forward = position->slope == 1 && position->offset.is(0);
    const bool reverse = position->slope == -1 && (position->offset == form_.steps - Dim(1) || position->offset.is(-1));
    if (!forward && !reverse) {
      throw NoCell{fmt::format("it picks step {}*i + {}; only i and {} - i are supported", position->slope,
                               position->offset.text(importer_.graph().symbols),
                               (form_.steps - Dim(1)).text(importer_.graph().symbols))};
    }
    return step_of({data, axis, reverse, node.input_name(0)});
  }

  Matrix matrix(const std::string &name) {
    if (step(name)) throw NoCell{"it multiplies by a matrix that changes from step to step"};
    return constant_matrix(name, value(name));
  }

  Matrix constant_matrix(const std::string &name, const Value &value) {
    const auto dims = literals(value.dims);
    const bool known = value.is_constant() || value.kind == Value::Kind::Fill;
    if (!known || !is_float(value.type) || !dims || dims->size() != 2 || element_count(*dims) == 0) {
      throw NoCell{fmt::format("it multiplies by '{}', {} {}; only a constant matrix is supported", name,
                               type_name(value.type), importer_.dims_text(value.dims))};
    }
    Matrix matrix{(*dims)[0], (*dims)[1], {}};
    const int64_t elements = element_count(*dims);
    importer_.charge(elements * 8);
    matrix.data.reserve(static_cast<size_t>(elements));
    for (int64_t i = 0; i < elements; ++i) matrix.data.push_back(value.constant->real(value.is_constant() ? i : 0));
    return matrix;
  }

  Step divide(const Expression &a, const Expression &b) {
    const bool constant = b.terms.size() == 1 && b.terms[0].factors.empty();
    if (!constant) throw NoCell{"it divides by something that is no constant number"};
    return tensor(algebra.scaled(a, 1 / b.terms[0].scale));
  }

  Step gemm(OnnxNode &node) {
    const float alpha = node.real("alpha", 1), beta = node.real("beta", 1);
    const bool trans_a = node.integer("transA", 0) != 0, trans_b = node.integer("transB", 0) != 0;
    if (trans_a) throw NoCell{"attribute 'transA' is 1; only 0 is supported"};
    Matrix w = matrix(node.input_name(1));
    if (trans_b) {
      Matrix turned{w.columns, w.rows, std::vector<double>(w.data.size())};
      for (int64_t i = 0; i < turned.rows; ++i) {
        for (int64_t k = 0; k < turned.columns; ++k) {
          turned.data[static_cast<size_t>(i * turned.columns + k)] = w.at(k, i);
        }
      }
      w = std::move(turned);
    }
    Expression result = algebra.scaled(algebra.product(row(node.input_name(0)), w), static_cast<double>(alpha));
    if (node.has_input(2)) result = algebra.sum(result, row(node.input_name(2)), static_cast<double>(beta));
    return tensor(std::move(result));
  }

  void check_last_axis(const OnnxNode &node, int64_t axis) const {
    if (axis != 1 && axis != -1)
      throw NoCell{fmt::format("{} works along axis {}, not along the features", node.type(), axis)};
  }

  Step concat(OnnxNode &node) {
    check_last_axis(node, node.integer("axis", 0));
    std::vector<Expression> parts;
    for (size_t i = 0; i < node.input_count(); ++i) parts.push_back(row(node.input_name(i)));
    return tensor(algebra.concat(parts));
  }

  std::vector<int64_t> integers(OnnxNode &node, size_t input, const char *attribute, bool is_input) {
    if (is_input) return node.has_input(input) ? node.ints_input(input, attribute) : std::vector<int64_t>{};
    return node.integers(attribute).value_or(std::vector<int64_t>{});
  }

  Step slice(OnnxNode &node) {
    Expression a = row(node.input_name(0));
    const bool inputs = node.opset() >= 10;
    const auto starts = integers(node, 1, "starts", inputs), ends = integers(node, 2, "ends", inputs);
    std::vector<int64_t> axes = integers(node, 3, "axes", inputs);
    const auto steps = inputs ? integers(node, 4, "steps", true) : std::vector<int64_t>{};
    if (axes.empty()) {
      for (size_t i = 0; i < starts.size(); ++i) axes.push_back(static_cast<int64_t>(i));
    }
    const bool listed = ends.size() == starts.size() && axes.size() == starts.size() &&
                        (steps.empty() || steps.size() == starts.size());
    if (!listed) throw NoCell{"starts, ends, axes and steps differ in length"};
    for (size_t i = 0; i < starts.size(); ++i) {
      if (!steps.empty() && steps[i] != 1) throw NoCell{"it picks columns with a step"};
      const bool rows = axes[i] == 0 || axes[i] == -2;
      if (rows && starts[i] == 0 && ends[i] >= kOpenEnd) continue;  // every sequence of the batch
      check_last_axis(node, axes[i]);
      const auto clamp = [&](int64_t at) { return std::clamp<int64_t>(at < 0 ? at + a.width : at, 0, a.width); };
      const int64_t begin = clamp(starts[i]), end = clamp(ends[i]);
      if (begin >= end) throw NoCell{"it picks no columns"};
      a = algebra.slice(a, begin, end);
    }
    return tensor(std::move(a));
  }

  Step split(OnnxNode &node, int index) {
    const Expression a = row(node.input_name(0));
    check_last_axis(node, node.integer("axis", 0));
    if (node.opset() >= 18) node.integer("num_outputs");
    const int64_t outputs = static_cast<int64_t>(node.output_count());
    std::vector<int64_t> sizes = integers(node, 1, "split", node.opset() >= 13);
    if (sizes.empty()) {
      const int64_t size = (a.width + outputs - 1) / outputs;
      for (int64_t i = 0; i < outputs; ++i) sizes.push_back(std::clamp<int64_t>(a.width - i * size, 0, size));
    }
    int64_t begin = 0, total = 0;
    for (size_t i = 0; i < sizes.size(); ++i) {
      if (sizes[i] < 0 || sizes[i] > a.width) throw NoCell{"its parts do not fit the row"};
      total += sizes[i];
      if (i < static_cast<size_t>(index)) begin += sizes[i];
    }
    if (total != a.width || static_cast<size_t>(index) >= sizes.size()) throw NoCell{"its parts do not fit the row"};
    const int64_t size = sizes[static_cast<size_t>(index)];
    if (size == 0) throw NoCell{fmt::format("its part {} is empty", index)};  // Keras 2 writes one that nobody reads
    return tensor(algebra.slice(a, begin, begin + size));
  }

  double number_input(OnnxNode &node, size_t input, double otherwise) {
    if (!node.has_input(input)) return otherwise;
    const Expression bound = row(node.input_name(input));
    if (bound.terms.empty()) return 0;
    if (bound.terms.size() != 1 || !bound.terms[0].factors.empty()) throw NoCell{"its bounds are no constant numbers"};
    return bound.terms[0].scale;
  }

  Step clip(OnnxNode &node) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    double low = -kInfinity, high = kInfinity;
    if (node.opset() < 11) {
      low = static_cast<double>(node.real("min", -std::numeric_limits<float>::infinity()));
      high = static_cast<double>(node.real("max", std::numeric_limits<float>::infinity()));
    } else {
      low = number_input(node, 1, low);
      high = number_input(node, 2, high);
    }
    return tensor(algebra.clip(row(node.input_name(0)), low, high));
  }

  // One side of relu, or of the clip that hard_sigmoid and relu6 are made of.
  Step clip_one_side(OnnxNode &node, bool is_max) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    if (node.input_count() != 2) throw NoCell{"it has not two inputs"};
    const size_t bound = step(node.input_name(0)) ? 1 : 0;
    const double limit = number_input(node, bound, 0);
    const Expression a = row(node.input_name(1 - bound));
    if (is_max) return tensor(algebra.clip(a, limit, kInfinity));
    return tensor(algebra.clip(a, -kInfinity, limit));
  }

  OnnxNode &node_;
  Importer &importer_;
  LoopForm &form_;
  std::map<std::string, Step> steps_;
  std::vector<std::string> made_;  // in importer_.values
};

// ---- States ----

// Follows Identity and same-type Cast backwards, from a body's output to what it passes on.
std::string origin(const GraphProto &body, std::string name) {
  std::map<std::string, const NodeProto *> makers;
  for (const NodeProto &node : body.node()) {
    for (const std::string &output : node.output()) makers.emplace(output, &node);
  }
  for (int i = 0; i < body.node_size(); ++i) {
    const auto maker = makers.find(name);
    if (maker == makers.end() || maker->second->op_type() != "Identity" || maker->second->input_size() != 1) break;
    name = maker->second->input(0);
  }
  return name;
}

void classify_states(LoopForm *form) {
  for (State &state : form->states) {
    state.invariant = origin(*form->body, state.output) == state.input;
    const Dims &dims = state.initial.dims;
    const bool row = !state.invariant && is_float(state.initial.type) && dims.size() == 2 && dims[1].literal() &&
                     state.initial.kind != Value::Kind::Unusable;
    if (row && *dims[1].literal() >= 1 && *dims[1].literal() <= kMaxLayerSize) state.hidden = *dims[1].literal();
  }
}

// ---- Emission ----

class Emitter {
 public:
  Emitter(OnnxNode *node, const LoopForm &form, Body *body)
      : node_(*node), importer_(node->importer()), form_(form), body_(*body) {}

  // Values of every output of the loop.
  void run() {
    recognise();
    for (size_t i = 0; i < form_.states.size(); ++i) node_.set_output(i, final_value(i));
    for (size_t k = 0; k < form_.sequences.size(); ++k) {
      if (node_.has_output(form_.states.size() + k)) node_.set_output(form_.states.size() + k, stacked(k));
    }
  }

 private:
  struct Layer {
    Value y, last;  // [time, batch, hidden] from the first step made to the last, [batch, hidden]
    bool reverse = false;
    Expression next;
  };

  void recognise() {
    std::vector<LayerBelow> below;
    std::set<size_t> open;
    for (size_t i = 0; i < form_.states.size(); ++i) {
      if (form_.states[i].is_row()) open.insert(i);
    }
    if (open.empty()) {
      node_.unsupported(
          "it carries no state of shape [batch, hidden] from step to step: only loops that are an RNN or "
          "GRU layer are supported; compute such a loop outside of the model");
    }
    std::string problem;
    for (bool progress = true; progress && !open.empty();) {
      progress = false;
      for (auto i = open.begin(); i != open.end();) {
        try {
          add_layer(*i, &below);
          i = open.erase(i);
          progress = true;
        } catch (const NoCell &reason) {
          if (problem.empty() || open.size() == 1) problem = describe_state(*i) + reason.message;
          ++i;
        }
      }
    }
    if (!open.empty()) node_.unsupported("is no RNN or GRU layer: {}", problem);
  }

  std::string describe_state(size_t index) const { return fmt::format("state '{}': ", form_.states[index].input); }

  void add_layer(size_t index, std::vector<LayerBelow> *below) {
    const State &state = form_.states[index];
    const Expression next = body_.row(state.output);
    if (next.width != state.hidden) {
      throw NoCell{fmt::format("has {} columns before the step and {} after it", state.hidden, next.width)};
    }
    const std::vector<int> masks = body_.algebra.masks_in(next);
    if (shows_layer(index, next)) return;
    if (!masks.empty()) check_mask(index, masks, next);
    if (repeats_layer(index, next)) return;
    charge(state.hidden);
    RecurrentCell cell =
        match_cell(&body_.algebra, static_cast<int>(index), body_.algebra.where_masks_are(next, 1), *below);
    if (!masks.empty()) add_mask(masks[0], state.initial.type, &cell);
    const Layer layer = emit(cell, state, next);
    layers_[index] = layer;
    const int sequence = static_cast<int>(body_.sources.size());
    body_.sources.push_back({layer.y, 0, layer.reverse, state.output});
    below->push_back({next, sequence});
  }

  // ---- Masks: where they are 0, the state stays ----

  void check_mask(size_t index, const std::vector<int> &masks, const Expression &next) {
    StepAlgebra &algebra = body_.algebra;
    if (masks.size() > 1) throw NoCell{"it takes two masks"};
    const Expression before = body_.row(form_.states[index].input), stays = algebra.where_masks_are(next, 0);
    if (stays == before) return;
    throw NoCell{fmt::format("where the mask is 0 the state must stay, it becomes '{}'", algebra.text(stays))};
  }

  // TensorFlow carries the last output beside the state, and both are the same when both start from zeros.
  bool repeats_layer(size_t index, const Expression &next) {
    if (!starts_from_zeros(form_.states[index])) return false;
    const std::vector<int> masks = body_.algebra.masks_in(next);
    for (const auto &[other, layer] : layers_) {
      const bool same = !masks.empty() && body_.algebra.masks_in(layer.next) == masks &&
                        body_.algebra.where_masks_are(layer.next, 1) == body_.algebra.where_masks_are(next, 1);
      if (!same || !starts_from_zeros(form_.states[other])) continue;
      Layer repeated = layer;
      repeated.next = next;
      layers_[index] = repeated;
      return true;
    }
    return false;
  }

  // The output of a layer whose masked steps are zeros, carried as a state that nothing reads.
  bool shows_layer(size_t index, const Expression &next) {
    const std::vector<int> masks = body_.algebra.masks_in(next);
    for (const auto &[other, layer] : layers_) {
      if (masks.size() != 1 || !(body_.algebra.masked(layer.next, masks[0]) == next)) continue;
      Layer shown = layer;
      shown.y = masked(layer.y, masks[0]);
      shown.last = importer_.emit(node_, op::Select{0, layer.reverse ? 0 : -1}, {shown.y.tensor}, shown.y.type,
                                  {shown.y.dims[1], shown.y.dims[2]});
      shown.next = next;
      layers_[index] = shown;
      return true;
    }
    return false;
  }

  static bool starts_from_zeros(const State &state) {
    return !state.initial.is_runtime() && state.initial.constant && state.initial.constant->all_zero();
  }

  // A further input, 1 where the mask is 0, whose weights are far above any other argument. They make z of a GRU exactly 1
  // there, and h' = z h + (1 - z) n is then h, but for a rounding; of an RNN the cell is one that keeps the state (hrnn.h).
  void add_mask(int mask, DataType type, RecurrentCell *cell) {
    const hrnn_activation &f = cell->activations[0];
    if (cell->cell == "rnn") {
      cell->cell = "rnn_masked";
    } else if (f.kind != HRNN_SIGMOID && !(f.kind == HRNN_HARD_SIGMOID && f.alpha > 0)) {
      throw NoCell{fmt::format("a mask needs an update gate that can be exactly 1, not one of {}", describe(f))};
    }
    const Source source = source_of(mask);
    const Dims &dims = source.value.dims;
    const TensorId masked =
        importer_
            .emit(node_, op::Elementwise{Function::Not}, {importer_.tensor(node_, source.value)}, DataType::Bool, dims)
            .tensor;
    Source keep = source;
    keep.keeps = true;
    keep.value = importer_.emit(node_, op::Elementwise{Function::Cast}, {masked}, type, dims);
    const int sequence = static_cast<int>(body_.sources.size());
    body_.sources.push_back(keep);
    const int64_t hidden = cell->gates[0].r.rows;
    cell->gates[0].w[sequence] = {hidden, 1, std::vector<double>(static_cast<size_t>(hidden), 2 * HRNN_MASKED)};
  }

  void charge(int64_t hidden) const {
    int64_t inputs = 0;
    for (const Source &source : body_.sources) inputs += source.value.dims[2].literal().value_or(0);
    if (hidden + inputs > kMaxLayerSize)
      node_.unsupported("its layer has more than {} inputs and units", kMaxLayerSize);
    importer_.charge(hidden * (hidden + inputs) * 3 * 8);
  }

  // Where the input product stands before the loop (Keras does that on JAX), it is made part of the layer again.
  struct Input {
    Value x;                      // [time, batch, width]
    const Constant *w = nullptr;  // [in, out] or, where not `transposed`, [out, in]
    const Constant *b = nullptr;
    bool transposed = true;
    Value inner;  // what the product multiplies, time first

    double weight(int64_t in, int64_t out) const {
      return w->real(transposed ? in * w->dims[1] + out : out * w->dims[1] + in);
    }
  };

  const Constant *constant_of(TensorId id) const {
    return id == kNoTensor ? nullptr : importer_.graph().tensor(id).constant.get();
  }

  // Only where no step multiplies the sequence again.
  std::optional<Input> product_before(const Value &sequence, bool time_major) {
    if (!sequence.is_runtime()) return std::nullopt;
    const Node *maker = importer_.producer(sequence.tensor);
    if (!maker) return std::nullopt;
    if (const auto *transpose = std::get_if<op::Transpose>(&maker->op)) {
      if (transpose->permutation != std::vector<int64_t>{1, 0, 2}) return std::nullopt;
      Value inner = sequence;
      inner.tensor = maker->inputs[0];
      std::swap(inner.dims[0], inner.dims[1]);
      return time_major ? product_before(inner, false) : std::nullopt;
    }
    const auto *dense = std::get_if<op::Dense>(&maker->op);
    if (!dense || !constant_of(maker->inputs[1])) return std::nullopt;
    if (maker->inputs[2] != kNoTensor && !constant_of(maker->inputs[2])) return std::nullopt;
    Input input;
    input.w = constant_of(maker->inputs[1]);
    input.b = constant_of(maker->inputs[2]);
    input.transposed = dense->transposed;
    input.inner = sequence;
    input.inner.tensor = maker->inputs[0];
    input.inner.dims[2] = Dim(dense->in_features);
    if (!time_major) input.inner = transposed(input.inner, {1, 0, 2});
    return input;
  }

  Value transposed(const Value &value, const std::vector<int64_t> &permutation) {
    Dims dims;
    for (int64_t axis : permutation) dims.push_back(value.dims[axis]);
    return importer_.emit(node_, op::Transpose{permutation}, {importer_.tensor(node_, value)}, value.type, dims);
  }

  Value time_major(const Source &source) {
    if (source.axis == 0) return source.value;
    return transposed(source.value, {1, 0, 2});
  }

  // Whether every gate takes its columns of the sequence unchanged.
  static bool only_picked(const RecurrentCell &cell, int sequence) {
    for (const GateWeights &gate : cell.gates) {
      const auto w = gate.w.find(sequence);
      if (w == gate.w.end()) continue;
      for (int64_t u = 0; u < w->second.rows; ++u) {
        int64_t others = 0;
        for (int64_t k = 0; k < w->second.columns; ++k) others += w->second.at(u, k) != 0;
        if (others > 1) return false;
      }
    }
    return true;
  }

  Value input(RecurrentCell *cell, int sequence) {
    const Source &source = body_.sources[static_cast<size_t>(sequence)];
    const Value x = time_major(source);
    if (!only_picked(*cell, sequence)) return x;
    const auto product = product_before(x, true);
    if (!product) return x;
    const int64_t in = *product->inner.dims[2].literal(), out = *x.dims[2].literal();
    importer_.charge(3 * cell->gates[0].r.rows * in * 8);
    for (GateWeights &gate : cell->gates) {
      const auto found = gate.w.find(sequence);
      if (found == gate.w.end()) continue;
      Matrix folded{found->second.rows, in, std::vector<double>(static_cast<size_t>(found->second.rows * in), 0)};
      for (int64_t u = 0; u < folded.rows; ++u) {
        for (int64_t c = 0; c < out; ++c) {
          const double scale = found->second.at(u, c);
          if (scale == 0) continue;
          for (int64_t k = 0; k < in; ++k)
            folded.data[static_cast<size_t>(u * in + k)] += scale * product->weight(k, c);
          if (product->b) gate.wb[static_cast<size_t>(u)] += scale * product->b->real(c);
        }
      }
      found->second = std::move(folded);
    }
    importer_.graph().notes.push_back(node_.where() +
                                      ": the product with the input's weights before the loop was made "
                                      "part of the layer");
    return product->inner;
  }

  Layer emit(RecurrentCell &cell, const State &state, const Expression &next) {
    std::vector<int> used;
    for (const GateWeights &gate : cell.gates) {
      for (const auto &[sequence, w] : gate.w) {
        if (!std::count(used.begin(), used.end(), sequence)) used.push_back(sequence);
      }
    }
    if (used.empty()) throw NoCell{"it does not depend on a sequence of inputs"};
    const bool reverse = body_.sources[static_cast<size_t>(used[0])].reverse;
    for (int sequence : used) check_source(body_.sources[static_cast<size_t>(sequence)], state, reverse);

    std::vector<Value> inputs;
    Dim width(0);
    for (int sequence : used) {
      inputs.push_back(unmasked_steps(next, sequence, input(&cell, sequence)));
      width = width + inputs.back().dims[2];
    }
    Value x = inputs[0];
    if (inputs.size() > 1) x = joined(inputs, width);

    op::Recurrent layer;
    layer.cell = cell.cell;
    layer.direction = reverse ? HRNN_REVERSE : HRNN_FORWARD;
    layer.input_size = *width.literal();
    layer.hidden_size = state.hidden;
    layer.activations = {cell.activations};
    const Dims y{x.dims[0], Dim(1), x.dims[1], Dim(state.hidden)}, last{Dim(1), x.dims[1], Dim(state.hidden)};
    const DataType type = state.initial.type, computed = computed_type(type);
    Graph &graph = importer_.graph();
    const TensorId initial = initial_state(state);
    const std::vector<TensorId> ids = {importer_.tensor(node_, x),
                                       input_weights(cell, used, computed),
                                       recurrent_weights(cell, computed),
                                       biases(cell, computed),
                                       kNoTensor,
                                       initial};
    const TensorId y_id = graph.add_tensor({node_.name() + ".Y", computed, y, nullptr});
    const TensorId last_id = graph.add_tensor({node_.name() + ".Y_h", computed, last, nullptr});
    graph.nodes.push_back({layer, node_.name(), node_.type(), ids, {y_id, last_id}});
    graph.notes.push_back(fmt::format("{}: is {} layer", node_.where(), cell.gates.size() == 1 ? "an RNN" : "a GRU"));
    Layer result;
    result.y = importer_.emit(node_, op::Squeeze{1}, {y_id}, type, {y[0], y[2], y[3]});
    result.last = importer_.emit(node_, op::Squeeze{0}, {last_id}, type, {last[1], last[2]});
    result.reverse = reverse;
    result.next = next;
    return result;
  }

  // A sequence with zeros at the steps that are left out: what stands there, be it NaN, is not to reach the state.
  Value unmasked_steps(const Expression &next, int sequence, const Value &x) {
    const std::vector<int> masks = body_.algebra.masks_in(next);
    if (masks.empty() || !body_.selecting.count(masks[0])) return x;
    if (body_.sources[static_cast<size_t>(sequence)].keeps) return x;
    return chosen(time_major(source_of(masks[0])), x);
  }

  const Source &source_of(int mask) const {
    return body_.sources[static_cast<size_t>(body_.algebra.atom(mask).index)];
  }

  Value chosen(const Value &mask, const Value &x) {
    return apply(node_, Function::Where, {mask, x, scalar(node_, x.type, 0)});
  }

  void check_source(const Source &source, const State &state, bool reverse) const {
    if (source.value.type != state.initial.type) {
      throw NoCell{fmt::format("'{}' is {}, the state {}", source.name, type_name(source.value.type),
                               type_name(state.initial.type))};
    }
    if (source.reverse != reverse) throw NoCell{"it walks along some sequences forward and along others backward"};
    const Dim &steps = source.value.dims[source.axis], &batch = source.value.dims[1 - source.axis];
    const auto &symbols = importer_.graph().symbols;
    if (steps != form_.steps) {
      throw NoCell{fmt::format("the loop makes {} steps, sequence '{}' has {}", form_.steps.text(symbols), source.name,
                               steps.text(symbols))};
    }
    if (batch.conflicts(state.initial.dims[0])) {
      throw NoCell{fmt::format("'{}' has {} sequences, the state {}", source.name, batch.text(symbols),
                               state.initial.dims[0].text(symbols))};
    }
  }

  Value joined(const std::vector<Value> &inputs, const Dim &width) {
    constexpr size_t kAtOnce = 8;  // what a program joins at a time
    if (inputs.size() > kAtOnce) throw NoCell{fmt::format("it reads more than {} sequences", kAtOnce)};
    std::vector<TensorId> ids;
    for (const Value &input : inputs) ids.push_back(importer_.tensor(node_, input));
    return importer_.emit(node_, op::Concat{2}, ids, inputs[0].type, {inputs[0].dims[0], inputs[0].dims[1], width});
  }

  TensorId initial_state(const State &state) {
    const Value &value = state.initial;
    if (!value.is_runtime() && value.constant && value.constant->all_zero()) return kNoTensor;
    const TensorId id = importer_.tensor(node_, value);
    return importer_.emit(node_, op::Unsqueeze{0}, {id}, value.type, {Dim(1), value.dims[0], value.dims[1]}).tensor;
  }

  TensorId constant(DataType type, std::vector<int64_t> dims, const std::vector<double> &values, const char *suffix) {
    Constant result = make_constant(type, std::move(dims));
    importer_.charge(static_cast<int64_t>(result.bytes.size()));
    for (size_t i = 0; i < values.size(); ++i) result.set(static_cast<int64_t>(i), values[i]);
    return importer_.tensor(node_.name() + suffix, importer_.constant(std::move(result)));
  }

  TensorId input_weights(const RecurrentCell &cell, const std::vector<int> &used, DataType type) {
    std::map<int, int64_t> widths;
    for (const GateWeights &gate : cell.gates) {
      for (const auto &[sequence, w] : gate.w) widths[sequence] = w.columns;
    }
    const int64_t hidden = cell.gates[0].r.rows;
    int64_t width = 0;
    for (const auto &[sequence, columns] : widths) width += columns;
    std::vector<double> values;
    for (const GateWeights &gate : cell.gates) {
      for (int64_t u = 0; u < hidden; ++u) {
        for (int sequence : used) {
          const auto w = gate.w.find(sequence);
          for (int64_t k = 0; k < widths[sequence]; ++k) values.push_back(w == gate.w.end() ? 0 : w->second.at(u, k));
        }
      }
    }
    return constant(type, {1, static_cast<int64_t>(cell.gates.size()) * hidden, width}, values, ".W");
  }

  TensorId recurrent_weights(const RecurrentCell &cell, DataType type) {
    std::vector<double> values;
    for (const GateWeights &gate : cell.gates) values.insert(values.end(), gate.r.data.begin(), gate.r.data.end());
    const int64_t hidden = cell.gates[0].r.rows;
    return constant(type, {1, static_cast<int64_t>(cell.gates.size()) * hidden, hidden}, values, ".R");
  }

  TensorId biases(const RecurrentCell &cell, DataType type) {
    std::vector<double> values;
    for (const GateWeights &gate : cell.gates) values.insert(values.end(), gate.wb.begin(), gate.wb.end());
    for (const GateWeights &gate : cell.gates) values.insert(values.end(), gate.rb.begin(), gate.rb.end());
    const bool zero = std::all_of(values.begin(), values.end(), [](double value) { return value == 0; });
    return zero ? kNoTensor : constant(type, {1, static_cast<int64_t>(values.size())}, values, ".B");
  }

  // ---- Outputs ----

  Value final_value(size_t index) {
    const State &state = form_.states[index];
    if (state.invariant) return state.initial;
    if (state.is_row()) return layers_.at(index).last;
    const Step *next = body_.step(state.output);
    const Step *now = body_.step(state.input);
    if (next && now && next->kind == Step::Kind::Count && now->kind == Step::Kind::Count) {
      std::vector<int64_t> dims = *literals(state.initial.dims);
      return importer_.integers(state.initial.type, dims, {now->count.offset + form_.steps});
    }
    return Value{};
  }

  Value stacked(size_t k) {
    const Expression row = stacked_row(form_.sequences[k]);
    for (const auto &[index, layer] : layers_) {
      const std::vector<int> masks = body_.algebra.masks_in(layer.next);
      const bool zeros = masks.size() == 1 && row == body_.algebra.masked(layer.next, masks[0]);
      if (!(layer.next == row) && !zeros) continue;
      Value y = layer.y;
      if (zeros) y = masked(y, masks[0]);
      // Y is in the order of the input's time; what a loop stacks is in the order of its steps.
      if (layer.reverse != form_.prepended[k]) {
        constexpr int64_t kLimit = std::numeric_limits<int64_t>::max() / 4;
        y = importer_.emit(node_, op::Slice{0, -1, -kLimit, -1}, {y.tensor}, y.type, y.dims);
      }
      if (form_.output_axes[k] == 1) y = transposed(y, {1, 0, 2});
      if (form_.output_axes[k] == 2) y = transposed(y, {1, 2, 0});
      return y;
    }
    node_.unsupported("its output {} stacks '{}' of every step; only the new state itself is supported",
                      form_.states.size() + k, body_.algebra.text(row));
  }

  // Zeros where the mask is 0 (Keras' zero_output_for_mask).
  Value masked(const Value &y, int mask) {
    const Value &given = source_of(mask).value;
    if (body_.selecting.count(mask)) return chosen(given, y);
    const TensorId in = importer_.tensor(node_, given);
    const Value factor = importer_.emit(node_, op::Elementwise{Function::Cast}, {in}, y.type, given.dims);
    return importer_.emit(node_, op::Elementwise{Function::Mul}, {y.tensor, factor.tensor}, y.type, y.dims);
  }

  Expression stacked_row(const std::string &name) {
    try {
      return body_.row(name);
    } catch (const NoCell &reason) {
      node_.unsupported("its stacked output '{}': {}", name, reason.message);
    }
  }

  OnnxNode &node_;
  Importer &importer_;
  const LoopForm &form_;
  Body &body_;
  std::map<size_t, Layer> layers_;
};

// A counter advances by one a step; one that does not was bound wrongly.
void check_counters(const OnnxNode &node, const LoopForm &form, const Body &body) {
  for (const State &state : form.states) {
    const Step *now = body.step(state.input);
    if (!now || now->kind != Step::Kind::Count) continue;
    const Step *next = body.step(state.output);
    const bool by_one = next && next->kind == Step::Kind::Count && next->count.slope == now->count.slope &&
                        next->count.offset == now->count.offset + Dim(1);
    if (!by_one) node.unsupported("state '{}' is an integer that does not advance by one a step", state.input);
  }
}

// The condition after a step must not end the loop before its last one; where there is no trip count it is the count.
void settle_steps(const OnnxNode &node, LoopForm *form, const Body &body) {
  if (form->condition_out.empty()) return;
  bool always = false;
  const auto allowed = body.allowed_steps(form->condition_out, &always);
  if (!form->counted && !allowed) {
    node.unsupported(
        "has no trip count (input M), and its condition '{}' does not count steps; only loops over sequences are "
        "supported",
        form->condition_out);
  }
  if (!form->counted) form->steps = *allowed;
  const auto margin = allowed ? (*allowed - form->steps).literal() : std::nullopt;
  if (always || (margin && *margin >= 0)) return;
  node.unsupported("it may stop before its last step (condition '{}'); only loops over whole sequences are supported",
                   form->condition_out);
}

void compile(OnnxNode &node, LoopForm &form, const std::string &condition_before) {
  try {
    classify_states(&form);
    if (!form.counted) {
      Body counting(&node, &form);
      counting.evaluate();
      settle_steps(node, &form, counting);
    }
    Body body(&node, &form);
    body.evaluate();
    settle_steps(node, &form, body);
    check_counters(node, form, body);
    if (!condition_before.empty() && !body.holds_before(condition_before)) {
      node.unsupported("whether it starts ('{}') depends on more than the number of steps", condition_before);
    }
    Emitter(&node, form, &body).run();
  } catch (const NoCell &reason) {
    node.unsupported("is no RNN or GRU layer: {}", reason.message);
  }
}

const GraphProto &read_body(OnnxNode &node) {
  const GraphProto *body = node.graph("body");
  if (!body) node.fail("attribute 'body' is missing; {} requires it", node.type());
  return *body;
}

Dim trip_count(const OnnxNode &node) {
  const Value &trips = node.input(0, "M");
  if (trips.kind == Value::Kind::Unusable) {
    node.unsupported("its trip count ('{}') comes from a node that cannot be compiled", node.input_name(0));
  }
  const auto steps = known_integers(trips);
  if (!steps || steps->size() != 1) {
    node.unsupported("its trip count ('{}') is computed from data; it must be a dimension of an input",
                     node.input_name(0));
  }
  return steps->front();
}

std::vector<int64_t> read_list(OnnxNode &node, const char *name, size_t count) {
  std::vector<int64_t> list = node.integers(name).value_or(std::vector<int64_t>(count, 0));
  if (list.size() != count) node.fail("attribute '{}' has {} values; it must have {}", name, list.size(), count);
  return list;
}

}  // namespace

void import_loop(OnnxNode &node) {
  LoopForm form;
  form.body = &read_body(node);
  const GraphProto &body = *form.body;
  const size_t states = node.input_count() - 2;
  if (static_cast<size_t>(body.input_size()) != states + 2 || static_cast<size_t>(body.output_size()) < states + 1) {
    node.fail("has {} states, its body takes {} values and makes {}; it must take {} and make at least {}", states,
              body.input_size(), body.output_size(), states + 2, states + 1);
  }
  form.counted = node.has_input(0);
  if (form.counted) form.steps = trip_count(node);
  form.iteration = body.input(0).name();
  form.condition_in = body.input(1).name();
  form.condition_out = body.output(0).name();
  for (size_t i = 0; i < states; ++i) {
    State state;
    state.input = body.input(static_cast<int>(i) + 2).name();
    state.output = body.output(static_cast<int>(i) + 1).name();
    state.initial = node.input(i + 2, "v_initial");
    form.states.push_back(std::move(state));
  }
  for (int i = static_cast<int>(states) + 1; i < body.output_size(); ++i)
    form.sequences.push_back(body.output(i).name());
  form.prepended.assign(form.sequences.size(), false);
  form.output_axes.assign(form.sequences.size(), 0);
  compile(node, form, node.has_input(1) ? node.input_name(1) : "");
}

void import_scan(OnnxNode &node) {
  if (node.opset() < 9)
    node.unsupported("is Scan of opset 8, which has batches of its own; export to opset 9 or later");
  LoopForm form;
  form.body = &read_body(node);
  const GraphProto &body = *form.body;
  const auto scanned = node.integer("num_scan_inputs");
  const int64_t inputs = static_cast<int64_t>(node.input_count());
  if (!scanned || *scanned < 1 || *scanned > inputs) {
    node.fail("attribute 'num_scan_inputs' is {}; it must be 1 to {}", scanned.value_or(0), inputs);
  }
  const size_t states = static_cast<size_t>(inputs - *scanned);
  if (body.input_size() != inputs || static_cast<size_t>(body.output_size()) < states) {
    node.fail("has {} inputs, {} of them states; its body takes {} values and makes {}", inputs, states,
              body.input_size(), body.output_size());
  }
  const size_t sequences = static_cast<size_t>(body.output_size()) - states;
  const auto input_axes = read_list(node, "scan_input_axes", static_cast<size_t>(*scanned));
  const auto input_directions = read_list(node, "scan_input_directions", static_cast<size_t>(*scanned));
  const auto output_axes = read_list(node, "scan_output_axes", sequences);
  const auto output_directions = read_list(node, "scan_output_directions", sequences);
  for (size_t i = 0; i < states; ++i) {
    State state;
    state.input = body.input(static_cast<int>(i)).name();
    state.output = body.output(static_cast<int>(i)).name();
    state.initial = node.input(i, "initial_state");
    form.states.push_back(std::move(state));
  }
  for (size_t i = 0; i < input_axes.size(); ++i) {
    const Value &value = node.input(states + i, "scan_input");
    if (value.kind == Value::Kind::Unusable) node.unsupported("its scan input {} cannot be compiled", i);
    const int64_t axis = node.axis(input_axes[i], value.rank());
    form.scanned.push_back({value, axis, input_directions[i] != 0, node.input_name(states + i)});
    form.scanned_names.push_back(body.input(static_cast<int>(states + i)).name());
    if (i == 0) form.steps = value.dims[axis];
  }
  for (size_t i = 0; i < sequences; ++i) {
    form.sequences.push_back(body.output(static_cast<int>(states + i)).name());
    form.prepended.push_back(output_directions[i] != 0);
    form.output_axes.push_back(node.axis(output_axes[i], 3));
  }
  compile(node, form, "");
}

void import_if(OnnxNode &node) {
  node.unsupported(
      "chooses between two graphs ('then_branch', 'else_branch') by '{}'; only models that always compute the "
      "same are supported: export the model with the choice made",
      node.has_input(0) ? node.input_name(0) : "");
}

}  // namespace hrnn
