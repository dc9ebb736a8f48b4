// SPDX-License-Identifier: Apache-2.0
#include "layer_run.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <memory>

namespace hrnn_test {
namespace {

// Where nothing may be written.
constexpr double kCanary = -12345.0;

// How far a kernel's roundings may exceed those of the reference computed in the same type, the most of kSamples, and what
// its approximations of activations may add in units of the last place of the largest value; the largest difference seen,
// over several seeds, is half of both. Data that allow more than kMostUnits, or with values above kLargest, are not used.
constexpr int kSamples = 4;
constexpr double kRoundings = 5, kUnits = 8, kMostUnits = 40, kLargest = 8;

struct Strides {
  int64_t time, direction, batch;
};

// Room for rows of `width` values, [T, D, N] or, with gaps, [N, T, D].
Strides strides_of(bool batch_major, int64_t time, int64_t directions, int64_t batch, int64_t width) {
  if (!batch_major) return {directions * batch * width, batch * width, width};
  const int64_t row = width + 3;
  return {directions * row, row, time * directions * row + 5};
}

// An array in the run's type.
class Array {
 public:
  Array(hrnn_dtype dtype, size_t size, double fill) : f64_(dtype == HRNN_F64) {
    if (f64_)
      doubles_.assign(size, fill);
    else
      floats_.assign(size, float(fill));
  }
  Array(hrnn_dtype dtype, const std::vector<double> &values) : Array(dtype, values.size(), 0) {
    for (size_t i = 0; i < values.size(); i++) set(i, values[i]);
  }
  void set(size_t i, double value) { f64_ ? doubles_[i] = value : floats_[i] = float(value); }
  double get(size_t i) const { return f64_ ? doubles_[i] : double(floats_[i]); }
  size_t size() const { return f64_ ? doubles_.size() : floats_.size(); }
  void *data() { return f64_ ? static_cast<void *>(doubles_.data()) : floats_.data(); }
  void *at(size_t i) { return f64_ ? static_cast<void *>(&doubles_[i]) : &floats_[i]; }

 private:
  bool f64_;
  std::vector<float> floats_;
  std::vector<double> doubles_;
};

hrnn_activation to_c(const reference::Activation &f) {
  const auto &names = reference::activation_names();
  const auto kind = std::find(names.begin(), names.end(), f.name) - names.begin();
  return {hrnn_activation_kind(kind), f.alpha, f.beta};
}

hrnn_problem to_c(const LayerRun &run) {
  const reference::Layer &layer = run.layer;
  hrnn_problem problem = {};
  problem.struct_size = sizeof problem;
  problem.dtype = run.dtype;
  problem.cell = run.layer.cell.c_str();
  problem.direction = layer.direction == "forward"   ? HRNN_FORWARD
                      : layer.direction == "reverse" ? HRNN_REVERSE
                                                     : HRNN_BIDIRECTIONAL;
  problem.clip_set = std::isfinite(layer.clip);
  problem.clip = problem.clip_set ? layer.clip : 0;
  problem.input_size = layer.input_size;
  problem.hidden_size = layer.hidden_size;
  problem.batch_hint = run.sequences.batch;
  problem.activations_set = !run.default_activations;
  for (size_t i = 0; i < layer.activations.size() && !run.default_activations; i++) {
    const size_t per_direction = layer.activations_per_direction();
    problem.activations[i / per_direction][i % per_direction] = to_c(layer.activations[i]);
  }
  return problem;
}

// Asked once for each set of tables: devices take their time.
hrnn_machine this_machine(const std::vector<const hrnn_kernel_table *> &tables) {
  static std::map<std::vector<const hrnn_kernel_table *>, hrnn_machine> known;
  hrnn_machine &machine = known[tables];
  if (machine.struct_size == 0) {
    machine.struct_size = sizeof machine;
    hrnn_machine_detect(tables.data(), tables.size(), &machine);
  }
  return machine;
}

// A plan with a state; the message of what failed otherwise.
class Planned {
 public:
  Planned(const LayerRun &run, const KernelChoice &kernels) {
    const hrnn_problem problem = to_c(run);
    Array w(run.dtype, run.layer.w), r(run.dtype, run.layer.r), b(run.dtype, run.layer.b);
    hrnn_weights weights = {};
    weights.struct_size = sizeof weights;
    weights.w = w.data();
    weights.r = r.data();
    weights.b = run.layer.b.empty() ? nullptr : b.data();
    hrnn_options options = {};
    options.struct_size = sizeof options;
    options.tables = kernels.tables.data();
    options.table_count = uint32_t(kernels.tables.size());
    options.force_variant = kernels.target.c_str();
    hrnn_machine machine = this_machine(kernels.tables);
    machine.cache_bytes[0] = uint64_t(run.l1);
    machine.cache_bytes[1] = uint64_t(run.l2);
    options.machine = &machine;
    options.team = kernels.team;
    hrnn_plan *made_plan = nullptr;
    hrnn_state *made_state = nullptr;
    hrnn_error error = {};
    if (hrnn_plan_create(&problem, &weights, &options, &made_plan, &error) != HRNN_OK) {
      message = std::string("hrnn_plan_create: ") + error.message;
      return;
    }
    plan.reset(made_plan);
    const int64_t max_batch = std::max(1, run.sequences.batch) + run.spare_batch;
    if (hrnn_state_create(plan.get(), max_batch, &made_state, &error) != HRNN_OK) {
      message = std::string("hrnn_state_create: ") + error.message;
      return;
    }
    state.reset(made_state);
  }

  struct Destroy {
    void operator()(hrnn_plan *p) const { hrnn_plan_destroy(p); }
    void operator()(hrnn_state *s) const { hrnn_state_destroy(s); }
  };
  std::unique_ptr<hrnn_plan, Destroy> plan;
  std::unique_ptr<hrnn_state, Destroy> state;
  std::string message;
};

// The arrays of a run as the caller asked for them.
struct Buffers {
  Array x, initial_h, y, y_h;
  Strides x_strides, y_strides;
  std::vector<int32_t> lengths;

  explicit Buffers(const LayerRun &run)
      : x(run.dtype, 0, 0),
        initial_h(run.dtype, run.sequences.initial_h),
        y(run.dtype, 0, 0),
        y_h(run.dtype, size_t(run.layer.directions()) * run.sequences.batch * run.layer.hidden_size, kCanary),
        lengths(run.sequences.lengths.begin(), run.sequences.lengths.end()) {
    const int64_t time = run.sequences.time, batch = run.sequences.batch, directions = run.layer.directions();
    const int64_t inputs = run.layer.input_size, hidden = run.layer.hidden_size;
    x_strides = strides_of(run.batch_major, time, 1, batch, inputs);
    y_strides = strides_of(run.batch_major, time, directions, batch, hidden);
    // Gaps of x hold NaN: nothing may read them.
    x = Array(run.dtype, size_t(std::max(x_strides.time * time, x_strides.batch * batch)) + 1, NAN);
    y = Array(run.dtype, size_t(std::max(y_strides.time * time, y_strides.batch * batch)) + 1, kCanary);
    for (int64_t t = 0, from = 0; t < time; t++)
      for (int64_t n = 0; n < batch; n++)
        for (int64_t i = 0; i < inputs; i++, from++)
          x.set(size_t(t * x_strides.time + n * x_strides.batch + i), run.sequences.x[size_t(from)]);
  }

  hrnn_run_args args(const LayerRun &run) {
    hrnn_run_args args = {};
    args.struct_size = sizeof args;
    args.time = run.sequences.time;
    args.batch = run.sequences.batch;
    args.x = x.data();
    args.lengths = lengths.empty() ? nullptr : lengths.data();
    args.h0 = initial_h.size() == 0 ? nullptr : initial_h.data();
    args.y = run.want_y ? y.data() : nullptr;
    args.h_n = run.want_y_h ? y_h.data() : nullptr;
    if (run.batch_major) {
      args.x_time_stride = x_strides.time;
      args.x_batch_stride = x_strides.batch;
      args.y_time_stride = y_strides.time;
      args.y_dir_stride = y_strides.direction;
      args.y_batch_stride = y_strides.batch;
    }
    return args;
  }

  // Dense results; an error when something was written between the rows.
  void read(const LayerRun &run, LayerResult *result) const {
    const int64_t time = run.sequences.time, batch = run.sequences.batch, directions = run.layer.directions();
    const int64_t hidden = run.layer.hidden_size;
    std::vector<bool> written(y.size(), false);
    for (int64_t t = 0; t < time && run.want_y; t++)
      for (int64_t d = 0; d < directions; d++)
        for (int64_t n = 0; n < batch; n++)
          for (int64_t j = 0; j < hidden; j++) {
            const size_t at = size_t(t * y_strides.time + d * y_strides.direction + n * y_strides.batch + j);
            written[at] = true;
            result->y.push_back(y.get(at));
          }
    for (size_t i = 0; i < y.size(); i++)
      if (!written[i] && y.get(i) != kCanary) result->error = "y was written at element " + std::to_string(i) + ", outside its rows";
    for (size_t i = 0; i < y_h.size() && run.want_y_h; i++) result->y_h.push_back(y_h.get(i));
  }
};

// Leaves large numbers everywhere in the state's workspace, so that a value that is not written shows.
hrnn_status spoil(const LayerRun &run, const Planned &planned, hrnn_error *error) {
  LayerRun other = run;
  other.sequences.batch += run.spare_batch;
  other.sequences.time = std::max(2, run.sequences.time);
  other.sequences.lengths.clear();
  other.sequences.x.assign(size_t(other.sequences.time) * other.sequences.batch * run.layer.input_size, 1000.0);
  other.sequences.initial_h.assign(size_t(run.layer.directions()) * other.sequences.batch * run.layer.hidden_size, 77.0);
  Buffers buffers(other);
  const hrnn_run_args args = buffers.args(other);
  return hrnn_plan_run(planned.plan.get(), planned.state.get(), &args, error);
}

// The state ends holding h_n, which it yields where h_n was not asked for.
void check_state(const LayerRun &run, const Planned &planned, Buffers *buffers, LayerResult *result) {
  Array left(run.dtype, buffers->y_h.size(), 0);
  hrnn_state_get(planned.state.get(), run.sequences.batch, left.data(), nullptr);
  const size_t bytes = left.size() * (run.dtype == HRNN_F64 ? 8 : 4);
  const bool same = bytes == 0 || memcmp(left.data(), buffers->y_h.data(), bytes) == 0;
  if (run.want_y_h && !same) result->error = "the state does not end holding h_n";
  result->y_h.clear();
  for (size_t i = 0; i < left.size(); i++) result->y_h.push_back(left.get(i));
}

template <typename T>
std::string join(const std::vector<T> &values) {
  std::string text;
  for (const T &value : values) text += (text.empty() ? "" : ",") + std::to_string(value);
  return text;
}

template <typename Real>
double largest_difference(const std::vector<Real> &a, const std::vector<long double> &b) {
  long double largest = 0;
  for (size_t i = 0; i < a.size(); i++)
    if (std::isfinite(b[i]) && std::isfinite(a[i])) largest = std::max(largest, std::abs(a[i] - b[i]));
  return double(largest);
}

// Every number moved to a neighbour in Real, or left, at random.
template <typename Real>
void move_a_rounding(std::vector<double> *values, std::mt19937 *random) {
  for (double &value : *values) {
    const unsigned direction = (*random)() >> 30;
    const Real infinity = std::numeric_limits<Real>::infinity();
    if (direction < 2 && std::isfinite(value)) value = double(std::nextafter(Real(value), direction == 0 ? -infinity : infinity));
  }
}

// What the reference loses when it is computed in Real, from data that are a rounding off: the most of several samples, as
// in one sample roundings may happen to cancel.
template <typename Real>
double lost_in(const LayerRun &run, const reference::Outputs<long double> &expected) {
  std::mt19937 random(1);
  double lost = 0;
  for (int sample = 0; sample < kSamples; sample++) {
    reference::Layer layer = run.layer;
    reference::Sequences sequences = run.sequences;
    if (sample > 0) {  // the first is of the data themselves
      for (auto *values : {&layer.w, &layer.r, &layer.b, &sequences.x, &sequences.initial_h}) move_a_rounding<Real>(values, &random);
    }
    const reference::Outputs<Real> rounded = reference::run<Real>(layer, sequences);
    lost = std::max({lost, largest_difference(rounded.y, expected.y), largest_difference(rounded.y_h, expected.y_h)});
  }
  return lost;
}

// The reference in a type with many more digits than the run's.
reference::Outputs<long double> exact(const LayerRun &run) {
  if (run.dtype == HRNN_F64) return reference::run<long double>(run.layer, run.sequences);
  const reference::Outputs<double> in_double = reference::run<double>(run.layer, run.sequences);
  return {{in_double.y.begin(), in_double.y.end()}, {in_double.y_h.begin(), in_double.y_h.end()}, in_double.jump_distance};
}

}  // namespace

std::string LayerRun::describe() const {
  std::string text = layer.cell + (dtype == HRNN_F64 ? " f64" : " f32") + " " + layer.direction;
  for (const auto &f : layer.activations) text += " " + f.name;
  text += " I=" + std::to_string(layer.input_size) + " H=" + std::to_string(layer.hidden_size) +
          " T=" + std::to_string(sequences.time) + " N=" + std::to_string(sequences.batch);
  if (std::isfinite(layer.clip)) text += " clip=" + std::to_string(layer.clip);
  if (!sequences.lengths.empty()) text += " lengths=" + join(sequences.lengths);
  text += layer.b.empty() ? " no-bias" : "";
  text += sequences.initial_h.empty() ? " no-h0" : "";
  text += want_y ? "" : " no-y";
  text += want_y_h ? "" : " no-h_n";
  return text + (batch_major ? " batch-major" : "");
}

reference::Activation with_parameters(const std::string &name) {
  if (name == "Affine") return {name, 0.625, -0.1875};
  if (name == "LeakyRelu") return {name, 0.15625, 0};
  if (name == "ThresholdedRelu") return {name, 0.21875, 0};
  if (name == "ScaledTanh") return {name, 0.875, 1.375};
  if (name == "HardSigmoid") return {name, 0.28125, 0.4375};
  if (name == "Elu") return {name, 0.6875, 0};
  return {name, 0, 0};
}

void randomize(LayerRun *run, const Shape &shape, const RandomParts &parts, double gain, std::mt19937 *random) {
  // The distributions of <random> differ between libraries; this one does not.
  auto uniform = [&](double low, double high) {
    const double unit = double((*random)() >> 5) / double(1 << 27) + double((*random)() >> 5) / double(1ull << 54);
    const double value = low + (high - low) * unit;
    return run->dtype == HRNN_F32 ? double(float(value)) : value;
  };
  auto fill = [&](std::vector<double> *values, size_t size, double bound) {
    values->resize(size);
    for (double &value : *values) value = uniform(-bound, bound);
  };
  reference::Layer &layer = run->layer;
  layer.input_size = shape.input;
  layer.hidden_size = shape.hidden;
  const size_t rows = size_t(layer.directions()) * layer.gates() * layer.hidden_size;
  fill(&layer.w, rows * shape.input, 1.7 * gain / std::sqrt(double(shape.input)));
  fill(&layer.r, rows * shape.hidden, 1.7 * gain / std::sqrt(double(shape.hidden)));
  fill(&layer.b, parts.bias ? 2 * rows : 0, 0.5);

  reference::Sequences &s = run->sequences;
  s.time = shape.time;
  s.batch = shape.batch;
  fill(&s.x, size_t(shape.time) * shape.batch * shape.input, 1);
  fill(&s.initial_h, parts.initial_h ? size_t(layer.directions()) * shape.batch * shape.hidden : 0, 1);
  if (parts.masks && layer.cell == "rnn_masked") {  // the last input
    const size_t inputs = size_t(shape.input);
    for (size_t last = inputs - 1; last < layer.w.size(); last += inputs) layer.w[last] = double(float(2 * HRNN_MASKED));
    for (size_t last = inputs - 1; last < s.x.size(); last += inputs) s.x[last] = (*random)() % 3 == 0;
  }
  s.lengths.clear();
  for (int n = 0; n < shape.batch && parts.lengths; n++) s.lengths.push_back(int((*random)() % (shape.time + 1)));
  if (parts.lengths && shape.batch > 1) {
    const size_t zero = (*random)() % shape.batch;
    s.lengths[zero] = 0;
    s.lengths[(zero + 1) % shape.batch] = shape.time;
  }
}

LayerResult run_layer(const LayerRun &run, const KernelChoice &kernels) {
  LayerResult result;
  hrnn_error error = {};
  Planned planned(run, kernels);
  if (!planned.message.empty()) {
    result.error = planned.message;
    return result;
  }
  hrnn_selection selection = {};
  hrnn_plan_selection(planned.plan.get(), &selection);
  result.variant = selection.variant;
  if (selection.target != kernels.target) {
    result.error = "forced " + kernels.target + ", got " + selection.variant;
    return result;
  }
  Buffers buffers(run);
  const hrnn_run_args args = buffers.args(run);
  hrnn_status status = spoil(run, planned, &error);
  if (status == HRNN_OK) status = hrnn_plan_run(planned.plan.get(), planned.state.get(), &args, &error);
  if (status != HRNN_OK) {
    result.error = std::string("hrnn_plan_run: ") + error.message;
    return result;
  }
  buffers.read(run, &result);
  check_state(run, planned, &buffers, &result);
  return result;
}

LayerResult stream_layer(const LayerRun &run, const KernelChoice &kernels, const std::vector<int> &calls) {
  LayerResult result;
  hrnn_error error = {};
  Planned planned(run, kernels);
  Buffers buffers(run);
  hrnn_status status = HRNN_OK;
  if (!planned.message.empty()) {
    result.error = planned.message;
    return result;
  }
  status = spoil(run, planned, &error);
  hrnn_state_reset(planned.state.get());
  // The state holds more sequences than take part.
  const size_t hidden = size_t(run.layer.hidden_size), own = buffers.y_h.size(), all = own + size_t(run.spare_batch) * hidden;
  Array before(run.dtype, all, kCanary), after(run.dtype, all, 0);
  for (size_t i = 0; i < own; i++) before.set(i, run.sequences.initial_h.empty() ? 0 : run.sequences.initial_h[i]);
  if (status == HRNN_OK)
    status = hrnn_state_set(planned.state.get(), run.sequences.batch + run.spare_batch, before.data(), &error);
  int64_t done = 0;
  for (int steps : calls) {
    // A sequence's part of this call.
    std::vector<int32_t> lengths;
    for (int length : run.sequences.lengths) lengths.push_back(int32_t(std::min<int64_t>(std::max<int64_t>(length - done, 0), steps)));
    hrnn_run_args args = buffers.args(run);
    args.time = steps;
    args.h0 = nullptr;
    args.lengths = lengths.empty() ? nullptr : lengths.data();
    args.x = buffers.x.at(size_t(done * buffers.x_strides.time));
    if (run.want_y) args.y = buffers.y.at(size_t(done * buffers.y_strides.time));
    if (status == HRNN_OK) status = hrnn_stream(planned.plan.get(), planned.state.get(), &args, &error);
    done += steps;
  }
  if (status != HRNN_OK) {
    result.error = std::string("hrnn_stream: ") + error.message;
    return result;
  }
  buffers.read(run, &result);
  check_state(run, planned, &buffers, &result);
  // A sequence that never had a step keeps its state here; a run, which starts anew, yields zeros.
  hrnn_state_get(planned.state.get(), run.sequences.batch + run.spare_batch, after.data(), nullptr);
  for (size_t i = 0; i < all; i++) {
    const size_t n = i / hidden;
    if (n < run.sequences.lengths.size() ? run.sequences.lengths[n] > 0 : i < own) continue;
    if (after.get(i) != before.get(i)) result.error = "sequence " + std::to_string(n) + " has lost its state";
    if (i < own) result.y_h[i] = 0;
  }
  return result;
}

Judge::Judge(const LayerRun &run, double largest)
    : expected_(exact(run)), largest_(largest) {
  const bool f64 = run.dtype == HRNN_F64;
  for (long double value : expected_.y)
    if (std::isfinite(value)) largest_ = std::max(largest_, double(std::abs(value)));
  unit_ = (f64 ? std::numeric_limits<double>::epsilon() : std::numeric_limits<float>::epsilon()) * largest_;
  tolerance_ = kRoundings * (f64 ? lost_in<double>(run, expected_) : lost_in<float>(run, expected_)) + kUnits * unit_;
}

bool Judge::ill_conditioned() const {
  return expected_.jump_distance < 16 * tolerance_ || tolerance_ > kMostUnits * unit_ || largest_ > kLargest;
}

std::string Judge::compare(const LayerRun &run, const LayerResult &result) {
  if (!result.error.empty()) return result.error;
  std::string difference;
  if (run.want_y) difference = compare("y", expected_.y, result.y);
  if (difference.empty()) difference = compare("h_n", expected_.y_h, result.y_h);
  return difference;
}

std::string Judge::compare(const char *what, const std::vector<long double> &expected, const std::vector<double> &actual) {
  if (expected.size() != actual.size()) return std::string(what) + " has another size";
  double largest = 0;
  size_t at = 0;
  for (size_t i = 0; i < expected.size(); i++) {
    double difference = std::abs(double(actual[i] - expected[i]));
    if (!std::isfinite(expected[i]) || !std::isfinite(actual[i])) {
      const bool same = std::isnan(expected[i]) ? std::isnan(actual[i]) : actual[i] == double(expected[i]);
      difference = same ? 0 : HUGE_VAL;
    }
    if (difference > largest) largest = difference, at = i;
  }
  worst_ = std::max(worst_, largest / tolerance_);
  difference_ = std::max(difference_, largest);
  if (largest <= tolerance_) return "";
  char text[200];
  snprintf(text, sizeof text, "%s[%zu] is %.17g, expected %.17g: they differ by %.3g, allowed is %.3g", what, at, actual[at],
           double(expected[at]), largest, tolerance_);
  return text;
}

}  // namespace hrnn_test
