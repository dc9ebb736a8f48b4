// SPDX-License-Identifier: Apache-2.0
#include "layer.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <random>

#include "graph.h"
#include "hrnn/prebuilt.h"

namespace hrnn {
namespace {

template <class Struct>
Struct descriptor() {
  Struct s{};
  s.struct_size = sizeof s;
  return s;
}

void fill(std::mt19937 *random, std::vector<float> *values, size_t count, float range) {
  std::uniform_real_distribution<float> uniform(-range, range);
  for (size_t i = 0; i < count; i++) values->push_back(uniform(*random));
}

// Layers one over the other, as a frontend would read them from a model.
class StackGraph {
 public:
  explicit StackGraph(const Problem &problem) : p_(problem) { graph_.name = graph_.path = problem.text; }

  Graph build(const float *w, const float *r, const float *b) {
    TensorId x = add("x", {p_.time, p_.batch, p_.input});
    graph_.inputs = {x};
    for (int layer = 0; layer < p_.layers; layer++) {
      if (layer > 0) x = joined(x);
      const int64_t d = p_.directions(), rows = p_.gates * p_.hidden;
      const TensorId weights = constant(&w, {d, rows, p_.layer_input(layer)});
      const TensorId recurrent = constant(&r, {d, rows, p_.hidden}), bias = constant(&b, {d, 2 * rows});
      const TensorId y = add("y", {p_.time, d, p_.batch, p_.hidden});
      op::Recurrent op;
      op.cell = p_.cell;
      op.direction = p_.direction;
      op.input_size = p_.layer_input(layer);
      op.hidden_size = p_.hidden;
      std::vector<hrnn_activation> activations;
      if (p_.gates == 3) activations.push_back({HRNN_SIGMOID, 1, 0});
      activations.push_back({HRNN_TANH, 1, 0});
      op.activations.assign(size_t(d), activations);
      graph_.nodes.push_back({op, "layer", "", {x, weights, recurrent, bias, kNoTensor, kNoTensor}, {y, kNoTensor}});
      x = y;
    }
    graph_.outputs = {x};
    return std::move(graph_);
  }

 private:
  TensorId add(const char *name, std::vector<int64_t> dims) {
    return graph_.add_tensor({name, DataType::Float32, Dims(dims.begin(), dims.end()), nullptr});
  }

  TensorId constant(const float **values, std::vector<int64_t> dims) {
    auto data = std::make_shared<Constant>(make_constant(DataType::Float32, dims));
    std::memcpy(data->bytes.data(), *values, data->bytes.size());
    *values += data->bytes.size() / sizeof(float);
    return graph_.add_tensor({"weights", DataType::Float32, Dims(dims.begin(), dims.end()), data});
  }

  // [time, directions, batch, hidden] as the next layer's input [time, batch, directions * hidden].
  TensorId joined(TensorId y) {
    const int64_t d = p_.directions();
    if (d == 1) return append(op::Squeeze{1}, y, add("joined", {p_.time, p_.batch, p_.hidden}));
    y = append(op::Transpose{{0, 2, 1, 3}}, y, add("turned", {p_.time, p_.batch, d, p_.hidden}));
    return append(op::Reshape{}, y, add("joined", {p_.time, p_.batch, d * p_.hidden}));
  }

  TensorId append(Op op, TensorId in, TensorId out) {
    graph_.nodes.push_back({std::move(op), "between", "", {in}, {out}});
    return out;
  }

  const Problem &p_;
  Graph graph_;
};

hrnn_tensor tensor(const std::vector<float> &values, std::vector<int64_t> dims) {
  hrnn_tensor t{};
  t.dtype = HRNN_F32;
  t.rank = int32_t(dims.size());
  std::copy(dims.begin(), dims.end(), t.dims);
  t.data = const_cast<float *>(values.data());  // the library writes to outputs only
  t.bytes = values.size() * sizeof(float);
  return t;
}

}  // namespace

LayerArrays::LayerArrays(const Problem &problem) {
  std::mt19937 random(1);
  const float range = 1.0f / std::sqrt(float(problem.hidden));
  fill(&random, &w, problem.w_values(), range);
  fill(&random, &r, problem.r_values(), range);
  fill(&random, &b, problem.b_values(), range);
  fill(&random, &x, problem.x_values(), 1.0f);
  for (int row = 0; row < problem.batch && problem.ragged; row++) lengths.push_back(problem.length(row));
}

Layer::Layer(const Problem &problem, const std::string &variant, uint32_t threads)
    : Layer(problem, std::make_shared<LayerArrays>(problem),
            {hrnn_prebuilt_tables, hrnn_prebuilt_tables + hrnn_prebuilt_table_count}, variant, threads) {}

Layer::Layer(const Problem &problem, std::shared_ptr<const LayerArrays> arrays, const std::vector<const hrnn_kernel_table *> &tables,
             const std::string &variant, uint32_t threads)
    : problem_(problem), arrays_(std::move(arrays)), y_(problem.y_values()) {
  steps_ = problem.steps();
  for (int layer = 0; layer < problem.layers; layer++) {
    const LayerSize size{problem.gates, problem.layer_input(layer), problem.hidden, problem.batch, problem.directions(),
                         steps_,        problem.streaming()};
    costs_.push_back(layer_cost(size, threads));
  }

  auto options = descriptor<hrnn_options>();
  options.tables = tables.data();
  options.table_count = uint32_t(tables.size());
  if (!variant.empty()) options.force_variant = variant.c_str();
  if (threads > 1) {
    auto team_options = descriptor<hrnn_team_options>();
    team_options.threads = threads;
    hrnn_team *team = nullptr;
    check(hrnn_team_create(&team_options, &team, &error_));
    team_.reset(team);
    options.team = team;
  }
  runs(problem.layers == 1 ? make_plan(options) : make_session(options), tables, threads);
  pinned_x_ = std::make_unique<PinnedMemory>(device_, arrays_->x);
  pinned_y_ = std::make_unique<PinnedMemory>(device_, y_);
}

PinnedMemory::PinnedMemory(const hrnn_device *device, const std::vector<float> &values)
    : memory_(const_cast<float *>(values.data())) {
  if (device != nullptr && device->pin(memory_, values.size() * sizeof(float)) == 0) device_ = device;
}

PinnedMemory::~PinnedMemory() {
  if (device_ != nullptr) device_->unpin(memory_);
}

hrnn_selection Layer::make_plan(const hrnn_options &options) {
  auto p = descriptor<hrnn_problem>();
  p.dtype = HRNN_F32;
  p.cell = problem_.cell;
  p.direction = problem_.direction;
  p.input_size = problem_.input;
  p.hidden_size = problem_.hidden;
  p.batch_hint = problem_.batch;
  auto weights = descriptor<hrnn_weights>();
  weights.w = arrays_->w.data(), weights.r = arrays_->r.data(), weights.b = arrays_->b.data();
  hrnn_plan *plan = nullptr;
  hrnn_state *state = nullptr;
  check(hrnn_plan_create(&p, &weights, &options, &plan, &error_));
  plan_.reset(plan);
  check(hrnn_state_create(plan, problem_.batch, &state, &error_));
  state_.reset(state);
  args_ = descriptor<hrnn_run_args>();
  args_.time = problem_.time;
  args_.batch = problem_.batch;
  args_.x = arrays_->x.data();
  args_.y = y_.data();
  if (problem_.ragged) args_.lengths = arrays_->lengths.data();
  auto selection = descriptor<hrnn_selection>();
  hrnn_plan_selection(plan, &selection);
  return selection;
}

hrnn_selection Layer::make_session(const hrnn_options &options) {
  model_ = lower(StackGraph(problem_).build(arrays_->w.data(), arrays_->r.data(), arrays_->b.data()));
  const hrnn_model view = model_.view();
  hrnn_session *session = nullptr;
  check(hrnn_session_create(&view, &options, &session, &error_));
  session_.reset(session);
  if (problem_.streaming()) check(hrnn_session_stream(session, 1, &error_));
  input_ = tensor(arrays_->x, {problem_.time, problem_.batch, problem_.input});
  output_ = tensor(y_, {problem_.time, problem_.directions(), problem_.batch, problem_.hidden});
  check(hrnn_session_reserve(session, &input_, 1, nullptr, 0, &error_));
  auto selection = descriptor<hrnn_selection>();
  check(hrnn_session_selection(session, 0, &selection));
  return selection;
}

void Layer::run() {
  if (session_)
    check(hrnn_session_run(session_.get(), &input_, 1, &output_, 1, &error_));
  else if (problem_.streaming())
    check(hrnn_stream(plan_.get(), state_.get(), &args_, &error_));
  else
    check(hrnn_plan_run(plan_.get(), state_.get(), &args_, &error_));
}

void Layer::reset() {
  if (session_)
    hrnn_session_reset(session_.get());
  else
    hrnn_state_reset(state_.get());
}

void Layer::write(const std::string &directory) const {
  auto write = [&](const char *name, const std::vector<float> &values) {
    std::ofstream file(directory + "/" + name, std::ios::binary);
    file.write(reinterpret_cast<const char *>(values.data()), std::streamsize(values.size() * sizeof(float)));
    if (!file.flush()) throw std::runtime_error("cannot write " + directory + "/" + name);
  };
  write("w", arrays_->w), write("r", arrays_->r), write("b", arrays_->b), write("x", arrays_->x), write("y", y_);
}

void Layer::check(hrnn_status status) const {
  if (status != HRNN_OK) throw std::runtime_error(problem_.text + ": " + error_.message);
}

double measure_call_ns() {
  Layer layer(parse_problem("gru:lbr:i16h16:b1:t1:fwd:f32"), "", 1);
  layer.set_time(0);
  std::vector<double> times;
  for (int i = 0; i < 15; i++) times.push_back(burst(Clock::kThread, [&] { layer.run(); }) * 1e3);
  return median(times);
}

}  // namespace hrnn
