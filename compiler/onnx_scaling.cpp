// SPDX-License-Identifier: Apache-2.0
//
// y = factor x + shift, a number a channel, before products, which is what most normalisations come to at inference:
// W y + b = (W factor) x + (W shift + b). Behind a product it became part of it when it was imported (fuse_scaling).
#include <algorithm>
#include <cmath>

#include "onnx_importer.h"

namespace hrnn {
namespace {

// The axis of the result of Reshape that holds the elements of the channels `from` `axis`: one after another, each with all
// that lies behind it. Nothing where there is none.
std::optional<int64_t> axis_after_reshape(const Dims &from, const Dims &to, int64_t axis) {
  const Dims channels(from.begin() + axis, from.end());
  const bool kept = to.size() >= channels.size() && std::equal(channels.rbegin(), channels.rend(), to.rbegin());
  if (kept) return static_cast<int64_t>(to.size() - channels.size());
  const auto elements = literal_product(channels);
  const bool joined = elements && !to.empty() && to.back().is(*elements);
  return joined ? std::optional(static_cast<int64_t>(to.size()) - 1) : std::nullopt;
}

std::optional<int64_t> axis_without(int64_t dropped, int64_t axis) {
  if (axis == dropped) return std::nullopt;
  return axis < dropped ? axis : axis - 1;
}

// The axis of a view's output where `axis` of its input, that of the channels, has come to. Nothing where the operation does
// more than to move and pick elements, or picks channels.
std::optional<int64_t> axis_after(const Graph &graph, const Node &node, int64_t axis) {
  const Op &op = node.op;
  const auto unless = [&](int64_t touched) { return touched == axis ? std::nullopt : std::optional(axis); };
  if (const auto *transpose = std::get_if<op::Transpose>(&op)) {
    const auto &order = transpose->permutation;
    return std::find(order.begin(), order.end(), axis) - order.begin();
  }
  if (const auto *unsqueeze = std::get_if<op::Unsqueeze>(&op)) return axis < unsqueeze->axis ? axis : axis + 1;
  if (const auto *squeeze = std::get_if<op::Squeeze>(&op)) return axis_without(squeeze->axis, axis);
  if (const auto *select = std::get_if<op::Select>(&op)) return axis_without(select->axis, axis);
  if (const auto *slice = std::get_if<op::Slice>(&op)) return unless(slice->axis);
  if (const auto *window = std::get_if<op::Window>(&op)) return unless(window->axis);
  if (const auto *gather = std::get_if<op::GatherND>(&op)) {
    const int64_t behind = axis - gather->batch - gather->size;
    if (behind < 0) return std::nullopt;
    return static_cast<int64_t>(graph.tensor(node.inputs[1]).dims.size()) - 1 + behind;
  }
  if (std::holds_alternative<op::Reshape>(op))
    return axis_after_reshape(graph.tensor(node.inputs[0]).dims, graph.tensor(node.outputs[0]).dims, axis);
  return std::nullopt;
}

class ScalingFolder {
 public:
  explicit ScalingFolder(Importer *importer) : importer_(*importer), graph_(importer->graph()), readers_(graph_.tensors.size()) {
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      for (TensorId id : graph_.nodes[i].inputs) {
        if (id != kNoTensor) readers_[static_cast<size_t>(id)].push_back(i);
      }
    }
  }

  // From the last: what a scaling becomes part of may follow another one.
  void run() {
    for (size_t i = graph_.nodes.size(); i-- > 0;) fold(i);
    graph_.remove_dead_nodes();
  }

 private:
  struct Scaling {
    int64_t axis = 0;
    const Constant *factor = nullptr, *shift = nullptr;  // [channels, 1, ...]

    int64_t channels() const { return factor->dims[0]; }
  };

  struct Weights {
    Tensor w, b;
  };

  std::optional<Scaling> scaling(const Node &node) const {
    const auto *function = std::get_if<op::Elementwise>(&node.op);
    if (!function || function->function != Function::MulAdd || graph_.is_constant(node.inputs[0])) return std::nullopt;
    if (!graph_.is_constant(node.inputs[1]) || !graph_.is_constant(node.inputs[2])) return std::nullopt;
    const Dims &x = graph_.tensor(node.inputs[0]).dims;
    const Scaling found{0, graph_.tensor(node.inputs[1]).constant.get(), graph_.tensor(node.inputs[2]).constant.get()};
    const std::vector<int64_t> &dims = found.factor->dims;
    if (dims.empty() || dims != found.shift->dims || dims.size() > x.size()) return std::nullopt;
    const size_t axis = x.size() - dims.size();
    if (found.factor->elements() != dims[0] || !x[axis].is(dims[0]) || dims[0] < 1) return std::nullopt;
    return Scaling{static_cast<int64_t>(axis), found.factor, found.shift};
  }

  void fold(size_t index) {
    const auto scaling = this->scaling(graph_.nodes[index]);
    if (!scaling) return;
    std::vector<size_t> products;
    if (!find_products(graph_.nodes[index].outputs[0], *scaling, &products) || products.empty()) return;
    std::vector<Weights> weights;
    for (size_t product : products) {
      auto scaled = scaled_weights(graph_.nodes[product], *scaling);
      if (!scaled) return;
      weights.push_back(std::move(*scaled));
    }
    for (size_t i = 0; i < products.size(); ++i) {
      Node &product = graph_.nodes[products[i]];
      product.inputs[1] = graph_.add_tensor(std::move(weights[i].w));
      product.inputs[bias_of(product)] = graph_.add_tensor(std::move(weights[i].b));
      graph_.notes.push_back(fmt::format("node '{}' ({}): its factor and shift a channel are part of the weights of node '{}' ({})",
                                         graph_.nodes[index].name, graph_.nodes[index].source, product.name, product.source));
    }
    bypass(index);
  }

  // What a node makes of x becomes x. find_products has seen that it is the first input of all who read it.
  void bypass(size_t index) {
    const TensorId x = graph_.nodes[index].inputs[0];
    std::vector<size_t> &now = readers_[static_cast<size_t>(x)];
    now.erase(std::find(now.begin(), now.end(), index));
    for (size_t reader : readers_[static_cast<size_t>(graph_.nodes[index].outputs[0])]) {
      graph_.nodes[reader].inputs[0] = x;
      now.push_back(reader);
    }
  }

  static bool is_layer(const Node &node) { return std::holds_alternative<op::Recurrent>(node.op); }
  static size_t bias_of(const Node &node) { return is_layer(node) ? 3 : 2; }

  // The products that what is made of `y` goes to, through views. False where it goes to anything else as well.
  bool find_products(TensorId y, const Scaling &scaling, std::vector<size_t> *products) const {
    std::vector<std::pair<TensorId, int64_t>> open = {{y, scaling.axis}};
    while (!open.empty()) {
      const auto [tensor, axis] = open.back();
      open.pop_back();
      if (std::count(graph_.outputs.begin(), graph_.outputs.end(), tensor)) return false;
      for (size_t reader : readers_[static_cast<size_t>(tensor)]) {
        const Node &node = graph_.nodes[reader];
        if (node.inputs[0] != tensor || std::count(node.inputs.begin(), node.inputs.end(), tensor) != 1) return false;
        if (takes(node, axis, scaling.channels())) {
          products->push_back(reader);
        } else if (const auto after = axis_after(graph_, node, axis)) {
          open.emplace_back(node.outputs[0], *after);
        } else {
          return false;
        }
      }
    }
    return true;
  }

  // Whether a node multiplies the channels along `axis` by weights that are known.
  bool takes(const Node &node, int64_t axis, int64_t channels) const {
    const auto known = [&](size_t input) { return node.inputs[input] == kNoTensor || graph_.is_constant(node.inputs[input]); };
    const auto *dense = std::get_if<op::Dense>(&node.op);
    if (!(dense || is_layer(node)) || !known(1) || !known(bias_of(node))) return false;
    return axis + 1 == static_cast<int64_t>(graph_.tensor(node.inputs[0]).dims.size()) && columns(node) % channels == 0;
  }

  static int64_t columns(const Node &node) {
    const auto *layer = std::get_if<op::Recurrent>(&node.op);
    return layer ? layer->input_size : std::get<op::Dense>(node.op).in_features;
  }

  // W factor and W shift + b; nothing where a number got too large.
  std::optional<Weights> scaled_weights(const Node &node, const Scaling &scaling) const {
    const auto *layer = std::get_if<op::Recurrent>(&node.op);
    const bool transposed = !layer && std::get<op::Dense>(node.op).transposed;
    Weights made{graph_.tensor(node.inputs[1]), {}};
    Constant w = *made.w.constant;
    const int64_t columns = this->columns(node), rows = w.elements() / columns, each = columns / scaling.channels();
    const int64_t block = layer ? rows / layer->directions() : rows;  // a direction's; its Wb is followed by its Rb
    const int64_t stride = layer ? 2 * block : block;
    const TensorId given = node.inputs[bias_of(node)];
    Constant b = given != kNoTensor ? *graph_.tensor(given).constant
                                    : make_constant(w.type, layer ? std::vector<int64_t>{layer->directions(), stride}
                                                                  : std::vector<int64_t>{rows});
    importer_.charge(static_cast<int64_t>(w.bytes.size() + b.bytes.size()));
    bool finite = true;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t at = r / block * stride + r % block;
      double sum = b.real(at);
      for (int64_t k = 0; k < columns; ++k) {
        const int64_t i = transposed ? k * rows + r : r * columns + k;
        const double weight = w.real(i);
        sum += weight * scaling.shift->real(k / each);
        w.set(i, weight * scaling.factor->real(k / each));
        finite = finite && std::isfinite(w.real(i));
      }
      b.set(at, sum);
      finite = finite && std::isfinite(b.real(at));
    }
    if (!finite) return std::nullopt;
    const Dims bias_dims(b.dims.begin(), b.dims.end());
    made.b = {made.w.name + ".shifted", b.type, bias_dims, std::make_shared<const Constant>(std::move(b))};
    made.w.constant = std::make_shared<const Constant>(std::move(w));
    return made;
  }

  Importer &importer_;
  Graph &graph_;
  std::vector<std::vector<size_t>> readers_;  // of each tensor there was at first
};

}  // namespace

void fold_scalings(Importer &importer) { ScalingFolder(&importer).run(); }

}  // namespace hrnn
