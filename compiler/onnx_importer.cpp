// SPDX-License-Identifier: Apache-2.0
#include "onnx_importer.h"

#include <algorithm>
#include <limits>

#include "fold.h"
#include "program.h"

namespace hrnn {

using onnx::AttributeProto;

// ---- Importer ----

Dim Importer::input_symbol(const std::string &name) {
  const auto [entry, added] = symbols_.emplace(name, static_cast<int>(graph_->symbols.size()));
  if (added) graph_->symbols.push_back({name, true});
  return Dim::symbol(entry->second);
}

Dim Importer::unknown_dim(const std::string &name) {
  graph_->symbols.push_back({name, false});
  return Dim::symbol(static_cast<int>(graph_->symbols.size()) - 1);
}

void Importer::charge(int64_t bytes) {
  if (bytes > budget_) {
    throw ModelError(
        "computing this model's constants takes far more memory than the file holds: it is damaged or made to");
  }
  budget_ -= bytes;
}

Value Importer::constant(Constant constant) {
  Value value;
  value.kind = Value::Kind::Constant;
  value.type = constant.type;
  value.dims.assign(constant.dims.begin(), constant.dims.end());
  value.constant = std::make_shared<const Constant>(std::move(constant));
  return value;
}

Value Importer::fill(const Constant &element, const Dims &dims) {
  literal_product(dims);  // throws where the size is absurd
  const auto shape = literals(dims);
  if (shape && element_count(*shape) <= kMaxShapeElements) {
    charge(element_count(*shape) * type_bytes(element.type));
    return constant(copy_view(element, {*shape, std::vector<int64_t>(shape->size(), 0), 0}));
  }
  Value value;
  value.kind = Value::Kind::Fill;
  value.type = element.type;
  value.dims = dims;
  Constant scalar = element;
  scalar.dims.clear();
  value.constant = std::make_shared<const Constant>(std::move(scalar));
  return value;
}

Value Importer::integers(DataType type, std::vector<int64_t> dims, std::vector<Dim> elements) {
  if (auto numbers = literals(elements)) {
    Constant result = make_constant(type, std::move(dims));
    for (size_t i = 0; i < numbers->size(); ++i) result.set(static_cast<int64_t>(i), (*numbers)[i]);
    return constant(std::move(result));
  }
  Value value;
  value.kind = Value::Kind::Symbolic;
  value.type = type;
  value.dims.assign(dims.begin(), dims.end());
  value.elements = std::make_shared<const std::vector<Dim>>(std::move(elements));
  return value;
}

Value Importer::progression(DataType type, const Dim &first, const Dim &step, const Dim &count) {
  const auto size = count.literal();
  if (size && *size >= 0 && *size <= kMaxShapeElements) {
    std::vector<Dim> elements;
    for (int64_t i = 0; i < *size; ++i) elements.push_back(first + step * Dim(i));
    return integers(type, {*size}, std::move(elements));
  }
  Value value;
  value.kind = Value::Kind::Progression;
  value.type = type;
  value.dims = {count};
  value.elements = std::make_shared<const std::vector<Dim>>(std::vector<Dim>{first, step});
  return value;
}

Value Importer::view(const Value &value, const Dims &dims, const StridedView &view) {
  if (value.kind == Value::Kind::Fill) return fill(*value.constant, dims);
  charge(element_count(view.dims) * type_bytes(value.type));
  if (value.is_constant()) return constant(copy_view(*value.constant, view));
  std::vector<Dim> elements;
  for_each_element(view, [&](int64_t source) { elements.push_back(value.elements->at(source)); });
  return integers(value.type, view.dims, std::move(elements));
}

Value Importer::with_dims(const Value &value, const Dims &dims) {
  if (value.kind == Value::Kind::Fill) return fill(*value.constant, dims);
  const std::vector<int64_t> shape = *literals(dims);
  if (!value.is_constant()) return integers(value.type, shape, *value.elements);
  charge(static_cast<int64_t>(value.constant->bytes.size()));
  Constant result = *value.constant;
  result.dims = shape;
  return constant(std::move(result));
}

Value Importer::emit(const OnnxNode &node, Op op, const std::vector<TensorId> &inputs, DataType type,
                     const Dims &dims) {
  if (dims.size() > kMaxRank)
    node.unsupported("its result has {} dimensions; at most {} are supported", dims.size(), kMaxRank);
  const auto count = literal_product(dims);  // throws where the size is absurd
  const bool known = count && can_evaluate(op) &&
                     std::all_of(inputs.begin(), inputs.end(), [&](TensorId id) { return graph_->is_constant(id); });
  if (known) return evaluated(node, op, inputs, type, dims);
  Value value;
  value.kind = Value::Kind::Runtime;
  value.type = type;
  value.dims = dims;
  value.tensor = graph_->add_tensor({node.name(), computed_type(type), dims, nullptr});
  graph_->nodes.push_back({std::move(op), node.name(), node.type(), inputs, {value.tensor}});
  return value;
}

Value Importer::evaluated(const OnnxNode &node, const Op &op, const std::vector<TensorId> &inputs, DataType type,
                          const Dims &dims) {
  charge(*literal_product(dims) * type_bytes(computed_type(type)));
  std::vector<const Tensor *> tensors;
  for (TensorId id : inputs) tensors.push_back(&graph_->tensor(id));
  try {
    Constant result = evaluate(op, tensors, computed_type(type), *literals(dims));
    return constant(result.type == type ? std::move(result) : cast(result, type));
  } catch (const ModelError &error) {
    node.fail("{}", error.what());
  }
}

Value Importer::loaded(const OnnxNode &node, TensorId stored) {
  const Tensor tensor = graph_->tensor(stored);
  Value value;
  value.kind = Value::Kind::Runtime;
  value.type = tensor.type;
  value.dims = tensor.dims;
  value.tensor = stored;
  if (computed_type(tensor.type) == tensor.type) return value;
  return emit(node, op::Elementwise{Function::Cast}, {stored}, tensor.type, tensor.dims);
}

TensorId Importer::stored(const OnnxNode &node, const Value &value) {
  const TensorId computed = tensor(node, value);
  if (computed_type(value.type) == value.type) return computed;
  const TensorId id = graph_->add_tensor({node.name(), value.type, value.dims, nullptr});
  graph_->nodes.push_back({op::Elementwise{Function::Cast}, node.name(), node.type(), {computed}, {id}});
  return id;
}

// Integers that depend on dynamic dimensions, as a tensor.
Value Importer::counted(const OnnxNode &node, const Value &value) {
  const auto range = [&](const Dim &first, int64_t step, const Dim &count) {
    if (step == 0 && first.literal() && count.is(1)) {
      Constant number = make_constant(value.type, {1});
      number.set(0, *first.literal());
      Value one = constant(std::move(number));
      one.tensor = tensor(node, one);
      return one;
    }
    if (!first.literal() && !first.offset()) {
      node.unsupported("uses the size {} as data; only one dynamic dimension and a fixed number are supported",
                       first.text(graph_->symbols));
    }
    return emit(node, op::Range{first, step}, {}, value.type, {count});
  };
  const std::vector<Dim> &elements = *value.elements;
  if (value.kind == Value::Kind::Progression) {
    const auto step = elements[1].literal();
    if (!step) node.unsupported("counts in steps of {}, which is not supported", elements[1].text(graph_->symbols));
    return range(elements[0], *step, value.dims[0]);
  }
  if (elements.size() > static_cast<size_t>(kMaxOpInputs)) {
    node.unsupported("uses {} sizes as data; at most {} are supported", elements.size(), kMaxOpInputs);
  }
  std::vector<TensorId> numbers;
  for (const Dim &element : elements) numbers.push_back(range(element, 0, Dim(1)).tensor);
  const Dims list = {Dim(static_cast<int64_t>(elements.size()))};
  const TensorId joined = numbers.size() == 1 ? numbers[0] : emit(node, op::Concat{0}, numbers, value.type, list).tensor;
  return emit(node, op::Reshape{}, {joined}, value.type, value.dims);
}

TensorId Importer::tensor(const OnnxNode &node, const Value &value) {
  if (value.kind == Value::Kind::Symbolic || value.kind == Value::Kind::Progression) {
    return tensor(node, counted(node, value));
  }
  if (value.kind == Value::Kind::Fill) {
    Value element = constant(*value.constant);
    return emit(node, op::Expand{}, {tensor(node, element)}, value.type, value.dims).tensor;
  }
  return tensor(node.name(), value);
}

TensorId Importer::tensor(const std::string &name, const Value &value) {
  if (value.is_runtime()) return value.tensor;
  const auto [entry, added] = constants_.emplace(value.constant.get(), kNoTensor);
  if (added) {
    const DataType type = computed_type(value.type);
    const auto data = type == value.type ? value.constant : std::make_shared<const Constant>(cast(*value.constant, type));
    entry->second = graph_->add_tensor({name, type, value.dims, data});
  }
  return entry->second;
}

const onnx::NodeProto *Importer::proto(const std::string &name) const {
  const auto maker = makers.find(name);
  return maker == makers.end() ? nullptr : maker->second;
}

const Node *Importer::producer(TensorId tensor) const {
  for (auto node = graph_->nodes.rbegin(); node != graph_->nodes.rend(); ++node) {
    if (std::count(node->outputs.begin(), node->outputs.end(), tensor)) return &*node;
  }
  return nullptr;
}

void Importer::remove_producer(TensorId tensor) {
  const Node *node = producer(tensor);
  if (node) graph_->nodes.erase(graph_->nodes.begin() + (node - graph_->nodes.data()));
}

// ---- OnnxNode ----

OnnxNode::OnnxNode(const onnx::NodeProto &proto, Importer *importer) : proto_(proto), importer_(importer) {
  for (const AttributeProto &attribute : proto.attribute()) {
    if (!attributes_.emplace(attribute.name(), &attribute).second) {
      fail("attribute '{}' occurs twice; the file is damaged", attribute.name());
    }
    if (!attribute.ref_attr_name().empty()) {
      fail("attribute '{}' refers to attribute '{}' of a function, but the node is in no function", attribute.name(),
           attribute.ref_attr_name());
    }
  }
}

std::string OnnxNode::name() const {
  if (!proto_.name().empty()) return proto_.name();
  for (const std::string &output : proto_.output()) {
    if (!output.empty()) return output;
  }
  return "";
}

std::string OnnxNode::where() const {
  if (!proto_.name().empty()) return fmt::format("node '{}' ({})", proto_.name(), type());
  return fmt::format("the {} node that makes '{}'", type(), name());
}

bool OnnxNode::has_input(size_t index) const { return index < input_count() && !input_name(index).empty(); }

const Value &OnnxNode::input(size_t index, const char *name) const {
  if (!has_input(index)) fail("input {} ({}) is missing; {} requires it", index, name, type());
  return importer_->values.at(input_name(index));
}

std::vector<Dim> OnnxNode::shape_input(size_t index, const char *name) const {
  const Value &value = input(index, name);
  if (value.type != DataType::Int64 && value.type != DataType::Int32) {
    fail("input {} ('{}') is {}; it must be int64", name, input_name(index), type_name(value.type));
  }
  if (value.rank() > 1) {
    fail("input {} ('{}') has {} dimensions; it must be a list", name, input_name(index), value.rank());
  }
  const auto elements = known_integers(value);
  if (!elements) {
    unsupported("input {} ('{}') is computed when the model runs; it must be known when it is compiled", name,
                input_name(index));
  }
  return *elements;
}

std::vector<int64_t> OnnxNode::ints_input(size_t index, const char *name) const {
  const auto numbers = literals(shape_input(index, name));
  if (!numbers) unsupported("input {} ('{}') depends on dynamic dimensions", name, input_name(index));
  return *numbers;
}

bool OnnxNode::has_output(size_t index) const { return index < output_count() && !output_name(index).empty(); }

// A value passed on under another name is still used by those who use the old one.
void OnnxNode::count_shared_uses(TensorId tensor, const std::string &name) const {
  for (size_t i = 0; i < input_count(); ++i) {
    if (!has_input(i)) continue;
    const Value &value = importer_->values.at(input_name(i));
    if (value.is_runtime() && value.tensor == tensor) importer_->uses[name] += importer_->uses[input_name(i)] - 1;
  }
}

void OnnxNode::set_output(size_t index, Value value) const {
  if (!has_output(index)) return;
  if (value.is_runtime() && value.tensor != kNoTensor) {
    Tensor &tensor = importer_->graph().tensors[static_cast<size_t>(value.tensor)];
    // The last name wins where a value is passed on; inputs keep theirs.
    if (importer_->producer(value.tensor)) tensor.name = output_name(index);
    count_shared_uses(value.tensor, output_name(index));
  }
  importer_->values[output_name(index)] = std::move(value);
}

const AttributeProto *OnnxNode::find(const std::string &name, AttributeProto::AttributeType type) {
  const auto entry = attributes_.find(name);
  if (entry == attributes_.end()) return nullptr;
  read_.insert(name);
  const AttributeProto &attribute = *entry->second;
  // Files of 2017 leave the type out; then the fields say it.
  if (attribute.has_type() && attribute.type() != AttributeProto::UNDEFINED && attribute.type() != type) {
    fail("attribute '{}' has type {}; it must be {}", name, AttributeProto::AttributeType_Name(attribute.type()),
         AttributeProto::AttributeType_Name(type));
  }
  return &attribute;
}

std::optional<int64_t> OnnxNode::integer(const std::string &name) {
  const AttributeProto *attribute = find(name, AttributeProto::INT);
  if (!attribute) return std::nullopt;
  if (!attribute->has_i()) fail("attribute '{}' has no integer value", name);
  return attribute->i();
}

int64_t OnnxNode::integer(const std::string &name, int64_t otherwise) { return integer(name).value_or(otherwise); }

std::optional<float> OnnxNode::real(const std::string &name) {
  const AttributeProto *attribute = find(name, AttributeProto::FLOAT);
  if (!attribute) return std::nullopt;
  if (!attribute->has_f()) fail("attribute '{}' has no float value", name);
  return attribute->f();
}

std::optional<std::string> OnnxNode::string(const std::string &name) {
  const AttributeProto *attribute = find(name, AttributeProto::STRING);
  if (!attribute) return std::nullopt;
  if (!attribute->has_s()) fail("attribute '{}' has no string value", name);
  return attribute->s();
}

std::optional<std::vector<int64_t>> OnnxNode::integers(const std::string &name) {
  const AttributeProto *attribute = find(name, AttributeProto::INTS);
  if (!attribute) return std::nullopt;
  return std::vector<int64_t>(attribute->ints().begin(), attribute->ints().end());
}

std::optional<std::vector<float>> OnnxNode::reals(const std::string &name) {
  const AttributeProto *attribute = find(name, AttributeProto::FLOATS);
  if (!attribute) return std::nullopt;
  return std::vector<float>(attribute->floats().begin(), attribute->floats().end());
}

std::optional<std::vector<std::string>> OnnxNode::strings(const std::string &name) {
  const AttributeProto *attribute = find(name, AttributeProto::STRINGS);
  if (!attribute) return std::nullopt;
  return std::vector<std::string>(attribute->strings().begin(), attribute->strings().end());
}

const onnx::TensorProto *OnnxNode::tensor(const std::string &name) {
  const AttributeProto *attribute = find(name, AttributeProto::TENSOR);
  if (!attribute) return nullptr;
  if (!attribute->has_t()) fail("attribute '{}' has no tensor value", name);
  return &attribute->t();
}

const onnx::GraphProto *OnnxNode::graph(const std::string &name) {
  const AttributeProto *attribute = find(name, AttributeProto::GRAPH);
  if (!attribute) return nullptr;
  if (!attribute->has_g()) fail("attribute '{}' has no graph", name);
  return &attribute->g();
}

int64_t OnnxNode::axis(int64_t axis, size_t rank) const {
  const int64_t signed_rank = static_cast<int64_t>(rank);
  if (axis < -signed_rank || axis >= signed_rank) {
    fail("axis {} is out of range for a tensor of {} dimensions ({} to {})", axis, rank, -signed_rank, signed_rank - 1);
  }
  return axis < 0 ? axis + signed_rank : axis;
}

std::vector<int64_t> OnnxNode::axes(std::vector<int64_t> axes, size_t rank) const {
  for (int64_t &value : axes) value = axis(value, rank);
  std::sort(axes.begin(), axes.end());
  const auto twice = std::adjacent_find(axes.begin(), axes.end());
  if (twice != axes.end()) fail("axis {} is named twice in axes", *twice);
  return axes;
}

int64_t OnnxNode::position(const Dim &value, const Dim &extent) const {
  if (value.literal()) return *value.literal();
  const std::optional<int64_t> from_end = (value - extent).literal();
  if (from_end && *from_end < 0) return *from_end;
  if (from_end && *from_end == 0) return std::numeric_limits<int64_t>::max();
  const auto &symbols = importer_->graph().symbols;
  unsupported("position {} along a dimension of {} depends on dynamic dimensions", value.text(symbols),
              extent.text(symbols));
}

void OnnxNode::finish_attributes() const {
  for (const auto &[name, attribute] : attributes_) {
    if (read_.count(name)) continue;
    fail(
        "attribute '{}' is not one of {} in opset {}, so its meaning is not known; export the model in the opset it "
        "was written for",
        name, type(), opset());
  }
}

void OnnxNode::finish() const {
  finish_attributes();
  for (size_t i = 0; i < output_count(); ++i) {
    if (has_output(i) && !importer_->values.count(output_name(i))) {
      unsupported("output {} ('{}') is not supported", i, output_name(i));
    }
  }
}

// ---- Known values ----

std::optional<std::vector<Dim>> known_integers(const Value &value) {
  if (is_float(value.type)) return std::nullopt;
  if (value.kind == Value::Kind::Symbolic) return *value.elements;
  if (!value.is_constant() || value.constant->elements() > kMaxShapeElements) return std::nullopt;
  std::vector<Dim> result;
  for (int64_t i = 0; i < value.constant->elements(); ++i) result.push_back(value.constant->integer(i));
  return result;
}

}  // namespace hrnn
