// SPDX-License-Identifier: Apache-2.0
//
// Sessions end to end over plain kernels: what comes out is compared with double-precision code written from the
// definitions of the operations.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "hrnn/hrnn.h"
#include "hrnn/hrnn.hpp"
#include "layer_reference.h"
#include "plain_kernels.h"
#include "program_builder.h"
#include "session.h"

#if defined(__SANITIZE_ADDRESS__) || !defined(__GLIBC__)
#define HRNN_COUNTS_ALLOCATIONS 0
#else
// The C library's allocation functions, counted: every way to get memory ends here.
#define HRNN_COUNTS_ALLOCATIONS 1
static std::atomic<long> allocation_count{0};
extern "C" {
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *malloc(size_t size) {
  ++allocation_count;
  return __libc_malloc(size);
}
void *calloc(size_t count, size_t size) {
  ++allocation_count;
  return __libc_calloc(count, size);
}
void *realloc(void *memory, size_t size) {
  ++allocation_count;
  return __libc_realloc(memory, size);
}
}
#endif

namespace {

using hrnn_test::AlignedBytes;
using hrnn_test::dtype_of;
using hrnn_test::kNone;
using hrnn_test::OpKind;
using hrnn_test::ProgramBuilder;

// ---- Tools ----------------------------------------------------------------------------------------------------------

class HasText {
 public:
  explicit HasText(hrnn_error *error) : message_(error->message) {}
  bool operator()(const std::string &part) const { return message_.find(part) != std::string::npos; }
  const std::string &message() const { return message_; }

 private:
  std::string message_;
};
#define EXPECT_MESSAGE(error, part) EXPECT_TRUE(HasText(&(error))(part)) << (error).message

// A program with its weights, as `hrnn compile` would have embedded it.
struct TestModel {
  explicit TestModel(const ProgramBuilder &builder) : program(builder.program()) {
    weights.assign(builder.weights());
    model.abi_version = HRNN_ABI_VERSION;
    model.name = "test";
    model.program = program.data();
    model.program_bytes = program.size();
    model.weights = weights.data();
    model.weights_bytes = weights.size();
    model.kernels = plain_kernels();
  }
  TestModel(const TestModel &) = delete;

  std::vector<char> program;
  AlignedBytes weights;
  hrnn_model model = {};
};

struct DestroySession {
  void operator()(hrnn_session *session) const { hrnn_session_destroy(session); }
};
using SessionPointer = std::unique_ptr<hrnn_session, DestroySession>;

SessionPointer create(const TestModel &model) {
  hrnn_session *session = nullptr;
  hrnn_error error = {};
  EXPECT_EQ(hrnn_session_create(&model.model, nullptr, &session, &error), HRNN_OK) << error.message;
  return SessionPointer(session);
}

hrnn_tensor make_tensor(hrnn_dtype dtype, const std::vector<int64_t> &dims, void *data, size_t bytes) {
  hrnn_tensor tensor = {};
  tensor.dtype = dtype;
  tensor.rank = static_cast<int32_t>(dims.size());
  std::copy(dims.begin(), dims.end(), tensor.dims);
  tensor.data = data;
  tensor.bytes = bytes;
  return tensor;
}
template <typename T>
hrnn_tensor make_tensor(const std::vector<int64_t> &dims, std::vector<T> &values) {
  return make_tensor(dtype_of<T>(), dims, values.data(), values.size() * sizeof(T));
}
template <typename T>
hrnn_tensor make_output(std::vector<T> &values) {
  return make_tensor(HRNN_F32, {}, values.data(), values.size() * sizeof(T));
}

std::vector<int64_t> dims_of(const hrnn_tensor &tensor) { return {tensor.dims, tensor.dims + tensor.rank}; }

hrnn_status reserve(hrnn_session *session, std::vector<hrnn_tensor> inputs, hrnn_error *error) {
  return hrnn_session_reserve(session, inputs.data(), inputs.size(), nullptr, 0, error);
}
hrnn_status run(hrnn_session *session, const std::vector<hrnn_tensor> &inputs, std::vector<hrnn_tensor> *outputs,
                hrnn_error *error) {
  return hrnn_session_run(session, inputs.data(), inputs.size(), outputs->data(), outputs->size(), error);
}

template <typename T>
std::vector<T> random_values(int64_t count, std::mt19937 *random, double scale = 1) {
  std::uniform_real_distribution<double> distribution(-scale, scale);
  std::vector<T> values(static_cast<size_t>(count));
  for (T &value : values) value = static_cast<T>(distribution(*random));
  return values;
}
std::vector<double> as_double(const std::vector<float> &values) { return {values.begin(), values.end()}; }
std::vector<double> as_double(const std::vector<double> &values) { return values; }

template <typename T>
constexpr double tolerance() {
  return sizeof(T) == 8 ? 1e-12 : 2e-5;
}

template <typename T>
void expect_near(const std::vector<T> &actual, const std::vector<double> &expected, double tolerance,
                 const std::string &what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(static_cast<double>(actual[i]), expected[i], tolerance) << what << " at " << i;
  }
}

int64_t product(const std::vector<int64_t> &dims) {
  return std::accumulate(dims.begin(), dims.end(), int64_t{1}, std::multiplies<int64_t>());
}

// A layer with random weights, which are exact in T.
template <typename T>
reference::Layer random_layer(const std::string &cell, int64_t input, int64_t hidden, hrnn_direction direction,
                              bool with_bias, std::mt19937 *random) {
  reference::Layer layer;
  layer.cell = cell;
  layer.input = input;
  layer.hidden = hidden;
  layer.direction = direction;
  for (auto &activations : layer.activations) {
    activations[0] = {cell == "rnn" ? HRNN_TANH : HRNN_SIGMOID, 0, 0};
    activations[1] = {HRNN_TANH, 0, 0};
  }
  const int64_t D = layer.directions(), units = layer.gates() * hidden;
  layer.w = as_double(random_values<T>(D * units * input, random, 0.7));
  layer.r = as_double(random_values<T>(D * units * hidden, random, 0.7));
  if (with_bias) layer.b = as_double(random_values<T>(D * 2 * units, random, 0.5));
  return layer;
}

// From [T, N, rest] to [N, T, rest] and back: swaps the first two axes.
template <typename T>
std::vector<T> swap_axes(const std::vector<T> &values, int64_t first, int64_t second) {
  const int64_t rest = first * second == 0 ? 0 : static_cast<int64_t>(values.size()) / (first * second);
  std::vector<T> swapped(values.size());
  for (int64_t i = 0; i < first; ++i) {
    for (int64_t j = 0; j < second; ++j) {
      for (int64_t k = 0; k < rest; ++k) {
        swapped[static_cast<size_t>((j * first + i) * rest + k)] =
            values[static_cast<size_t>((i * second + j) * rest + k)];
      }
    }
  }
  return swapped;
}

// ---- One layer, every way ONNX can ask for it --------------------------------------------------------------------------

struct LayerCase {
  std::string cell;
  hrnn_direction direction;
  int64_t layout;
  bool lengths, initial_h, bias, weights_at_run_time;
  int64_t time, batch;
};

void PrintTo(const LayerCase &c, std::ostream *out) {
  *out << c.cell << " direction " << c.direction << " layout " << c.layout << (c.lengths ? " lengths" : "")
       << (c.initial_h ? " initial_h" : "") << (c.bias ? " bias" : "") << (c.weights_at_run_time ? " W,R inputs" : "")
       << " T " << c.time << " N " << c.batch;
}

template <typename T>
void check_layer(const LayerCase &c) {
  SCOPED_TRACE(testing::PrintToString(c) + (sizeof(T) == 8 ? " double" : " float"));
  std::mt19937 random(7);
  const int64_t I = 3, H = 5;
  const reference::Layer layer = random_layer<T>(c.cell, I, H, c.direction, c.bias, &random);
  const int64_t D = layer.directions(), units = layer.gates() * H;
  const bool batch_major = c.layout == 1;

  ProgramBuilder builder;
  const int64_t time = builder.symbol("time"), batch = builder.symbol("batch");
  ProgramBuilder::LayerTensors t;
  const std::vector<int64_t> x_dims =
      batch_major ? std::vector<int64_t>{batch, time, I} : std::vector<int64_t>{time, batch, I};
  const std::vector<int64_t> h_dims =
      batch_major ? std::vector<int64_t>{batch, D, H} : std::vector<int64_t>{D, batch, H};
  t.x = builder.input("X", dtype_of<T>(), x_dims);
  if (c.weights_at_run_time) {
    t.w = builder.input("W", dtype_of<T>(), {D, units, I});
    t.r = builder.input("R", dtype_of<T>(), {D, units, H});
    if (c.bias) t.b = builder.input("B", dtype_of<T>(), {D, 2 * units});
  }
  if (c.lengths) t.lengths = builder.input("lengths", HRNN_I32, {batch});
  if (c.initial_h) t.h0 = builder.input("h0", dtype_of<T>(), h_dims);
  t.y = builder.intermediate();
  t.h = builder.intermediate();
  builder.layer<T>("layer", layer, c.layout, t);
  builder.output(t.y, "Y", dtype_of<T>(),
                 batch_major ? std::vector<int64_t>{batch, time, D, H} : std::vector<int64_t>{time, D, batch, H});
  builder.output(t.h, "Y_h", dtype_of<T>(), h_dims);
  TestModel model(builder);
  SessionPointer session = create(model);
  ASSERT_NE(session, nullptr);

  const auto x = random_values<T>(c.time * c.batch * I, &random);
  const auto h0 = random_values<T>(D * c.batch * H, &random);
  std::vector<int32_t> lengths;
  for (int64_t n = 0; n < c.batch; ++n) lengths.push_back(static_cast<int32_t>((n * 3 + 1) % (c.time + 1)));

  std::vector<T> x_in = batch_major ? swap_axes(x, c.time, c.batch) : x;
  std::vector<T> h0_in = batch_major ? swap_axes(h0, D, c.batch) : h0;
  std::vector<T> w(layer.w.begin(), layer.w.end()), r(layer.r.begin(), layer.r.end()), b(layer.b.begin(), layer.b.end());
  std::vector<hrnn_tensor> inputs;
  inputs.push_back(make_tensor(batch_major ? std::vector<int64_t>{c.batch, c.time, I}
                                           : std::vector<int64_t>{c.time, c.batch, I}, x_in));
  if (c.weights_at_run_time) {
    inputs.push_back(make_tensor({D, units, I}, w));
    inputs.push_back(make_tensor({D, units, H}, r));
    if (c.bias) inputs.push_back(make_tensor({D, 2 * units}, b));
  }
  if (c.lengths) inputs.push_back(make_tensor({c.batch}, lengths));
  if (c.initial_h) {
    inputs.push_back(make_tensor(batch_major ? std::vector<int64_t>{c.batch, D, H}
                                             : std::vector<int64_t>{D, c.batch, H}, h0_in));
  }
  hrnn_error error = {};
  ASSERT_EQ(reserve(session.get(), inputs, &error), HRNN_OK) << error.message;

  const reference::Sequence expected =
      reference::run(layer, c.time, c.batch, as_double(x), c.lengths ? lengths : std::vector<int32_t>(),
                     c.initial_h ? as_double(h0) : std::vector<double>());
  // Y [T, D, N, H] to [N, T, D, H].
  std::vector<double> expected_y(expected.y.size());
  for (int64_t s = 0; s < c.time; ++s) {
    for (int64_t d = 0; d < D; ++d) {
      for (int64_t n = 0; n < c.batch; ++n) {
        for (int64_t j = 0; j < H; ++j) {
          const int64_t from = ((s * D + d) * c.batch + n) * H + j;
          expected_y[static_cast<size_t>(batch_major ? ((n * c.time + s) * D + d) * H + j : from)] =
              expected.y[static_cast<size_t>(from)];
        }
      }
    }
  }
  const std::vector<double> expected_h = batch_major ? swap_axes(expected.h, D, c.batch) : expected.h;

  // Every choice of outputs; garbage beforehand, so that what is not written shows.
  for (int wanted = 0; wanted < 4; ++wanted) {
    std::vector<T> y(expected.y.size(), T(77)), h(expected.h.size(), T(77));
    std::vector<hrnn_tensor> outputs = {make_output(y), make_output(h)};
    if ((wanted & 1) == 0) outputs[0].data = nullptr;
    if ((wanted & 2) == 0) outputs[1].data = nullptr;
    ASSERT_EQ(run(session.get(), inputs, &outputs, &error), HRNN_OK) << error.message;
    EXPECT_EQ(dims_of(outputs[0]), (batch_major ? std::vector<int64_t>{c.batch, c.time, D, H}
                                                : std::vector<int64_t>{c.time, D, c.batch, H}));
    EXPECT_EQ(dims_of(outputs[1]),
              (batch_major ? std::vector<int64_t>{c.batch, D, H} : std::vector<int64_t>{D, c.batch, H}));
    EXPECT_EQ(outputs[0].dtype, dtype_of<T>());
    if (wanted & 1) expect_near(y, expected_y, tolerance<T>(), "Y");
    if (wanted & 2) expect_near(h, expected_h, tolerance<T>(), "Y_h");
  }
}

TEST(SessionLayer, EveryFormOfEveryCell) {
  for (const char *cell : {"rnn", "gru", "gru_reset_before"}) {
    for (hrnn_direction direction : {HRNN_FORWARD, HRNN_REVERSE, HRNN_BIDIRECTIONAL}) {
      for (int options = 0; options < 32; ++options) {
        const LayerCase c = {cell,
                             direction,
                             options & 1,
                             (options & 2) != 0,
                             (options & 4) != 0,
                             (options & 8) != 0,
                             (options & 16) != 0,
                             4,
                             3};
        check_layer<double>(c);
        if (options % 5 == 0) check_layer<float>(c);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

TEST(SessionLayer, NoStepsAndNoSequences) {
  for (int64_t layout : {0, 1}) {
    for (bool initial_h : {false, true}) {
      for (hrnn_direction direction : {HRNN_FORWARD, HRNN_BIDIRECTIONAL}) {
        check_layer<double>({"gru", direction, layout, false, initial_h, true, false, 0, 3});
        check_layer<double>({"gru", direction, layout, false, initial_h, true, true, 4, 0});
        check_layer<double>({"gru", direction, layout, true, initial_h, true, false, 4, 0});
        check_layer<double>({"rnn", direction, layout, false, initial_h, true, false, 0, 0});
      }
    }
  }
}

TEST(SessionLayer, ClipAndActivationsOfEachDirection) {
  std::mt19937 random(11);
  reference::Layer layer = random_layer<double>("gru", 2, 3, HRNN_BIDIRECTIONAL, true, &random);
  layer.clip = 0.4;
  layer.activations[0][0] = {HRNN_HARD_SIGMOID, 0.3, 0.45};
  layer.activations[0][1] = {HRNN_SCALED_TANH, 1.5, 0.7};
  layer.activations[1][0] = {HRNN_SIGMOID, 0, 0};
  layer.activations[1][1] = {HRNN_ELU, 0.8, 0};
  ProgramBuilder builder;
  ProgramBuilder::LayerTensors t;
  t.x = builder.input("x", HRNN_F64, {6, 2, 2});
  t.y = builder.intermediate();
  builder.layer<double>("layer", layer, 0, t);
  builder.output(t.y, "y", HRNN_F64, {6, 2, 2, 3});
  TestModel model(builder);
  SessionPointer session = create(model);
  auto x = random_values<double>(24, &random, 2);
  std::vector<double> y(72);
  std::vector<hrnn_tensor> outputs = {make_output(y)};
  hrnn_error error = {};
  // A model of fixed shapes needs no reserve.
  ASSERT_EQ(run(session.get(), {make_tensor({6, 2, 2}, x)}, &outputs, &error), HRNN_OK) << error.message;
  expect_near(y, reference::run(layer, 6, 2, x, {}, {}).y, 1e-12, "y");
}

// ---- Views: never a copy where strides can say it ----------------------------------------------------------------------

// x [N, T, I] -> Transpose -> GRU -> Squeeze, Transpose -> y [N, T, H]; and its last step -> dense.
TEST(SessionViews, ATransposeAroundALayerCostsNothing) {
  std::mt19937 random(3);
  const reference::Layer layer = random_layer<float>("gru", 4, 6, HRNN_FORWARD, true, &random);
  ProgramBuilder builder;
  const int64_t batch = builder.symbol("batch"), time = builder.symbol("time");
  const uint32_t x = builder.input("x", HRNN_F32, {batch, time, 4});
  ProgramBuilder::LayerTensors t;
  t.x = builder.unary(OpKind::Transpose, "to_time_major", x, {1, 0, 2});
  t.y = builder.intermediate();
  builder.layer<float>("gru", layer, 0, t);
  const uint32_t squeezed = builder.unary(OpKind::Squeeze, "squeeze", t.y, {1});
  const uint32_t y = builder.unary(OpKind::Transpose, "to_batch_major", squeezed, {1, 0, 2});
  builder.output(y, "y", HRNN_F32, {batch, time, 6});
  TestModel model(builder);
  SessionPointer session = create(model);

  const int64_t N = 3, T = 5;
  std::vector<float> values = random_values<float>(N * T * 4, &random), result(N * T * 6);
  std::vector<hrnn_tensor> outputs = {make_output(result)};
  hrnn_error error = {};
  ASSERT_EQ(reserve(session.get(), {make_tensor({N, T, 4}, values)}, &error), HRNN_OK) << error.message;
  ASSERT_EQ(run(session.get(), {make_tensor({N, T, 4}, values)}, &outputs, &error), HRNN_OK) << error.message;
  EXPECT_EQ(session->instruction_count, 1u);  // the layer, and nothing else
  EXPECT_EQ(session->arena.size(), 0u);
  const auto expected = reference::run(layer, T, N, as_double(swap_axes(values, N, T)), {}, {});
  expect_near(result, swap_axes(expected.y, T, N), tolerance<float>(), "y");
}

TEST(SessionViews, StackedDirectionsAreJoinedWithoutACopy) {
  // As PyTorch exports a bidirectional layer: Y [T, 2, N, H] -> Transpose -> Reshape [T, N, 2 H] -> the next layer.
  std::mt19937 random(4);
  const reference::Layer first = random_layer<double>("gru", 3, 4, HRNN_BIDIRECTIONAL, true, &random);
  const reference::Layer second = random_layer<double>("gru", 8, 5, HRNN_FORWARD, true, &random);
  ProgramBuilder builder;
  const int64_t time = builder.symbol("time"), batch = builder.symbol("batch");
  ProgramBuilder::LayerTensors a, b;
  a.x = builder.input("x", HRNN_F64, {time, batch, 3});
  a.y = builder.intermediate();
  a.h = builder.intermediate();
  builder.layer<double>("first", first, 0, a);
  const uint32_t swapped = builder.unary(OpKind::Transpose, "swap", a.y, {0, 2, 1, 3});
  b.x = builder.unary(OpKind::Reshape, "join", swapped, {3, 0, 0, -1});
  b.h = builder.intermediate();
  builder.layer<double>("second", second, 0, b);
  const uint32_t states = builder.concat("states", {a.h, b.h}, 0);  // never mind that H differs: see below
  (void)states;
  builder.ops().pop_back();
  builder.output(b.h, "h", HRNN_F64, {1, batch, 5});
  builder.output(a.h, "h_first", HRNN_F64, {2, batch, 4});
  TestModel model(builder);
  SessionPointer session = create(model);
  const int64_t T = 4, N = 2;
  std::vector<double> x = random_values<double>(T * N * 3, &random), h(N * 5), h_first(2 * N * 4);
  std::vector<hrnn_tensor> inputs = {make_tensor({T, N, 3}, x)}, outputs = {make_output(h), make_output(h_first)};
  hrnn_error error = {};
  ASSERT_EQ(reserve(session.get(), inputs, &error), HRNN_OK) << error.message;
  ASSERT_EQ(run(session.get(), inputs, &outputs, &error), HRNN_OK) << error.message;
  const auto y1 = reference::run(first, T, N, x, {}, {});
  std::vector<double> joined;
  for (int64_t s = 0; s < T * 2 * N * 4; ++s) {
    const int64_t j = s % 4, d = s / 4 % 2, n = s / 8 % N, step = s / (8 * N);
    joined.push_back(y1.y[static_cast<size_t>(((step * 2 + d) * N + n) * 4 + j)]);
  }
  expect_near(h, reference::run(second, T, N, joined, {}, {}).h, 1e-12, "h");
  expect_near(h_first, y1.h, 1e-12, "h_first");
}

TEST(SessionViews, FinalStatesOfStackedLayersAreWrittenIntoTheirConcat) {
  std::mt19937 random(5);
  const reference::Layer first = random_layer<double>("rnn", 3, 4, HRNN_FORWARD, true, &random);
  const reference::Layer second = random_layer<double>("rnn", 4, 4, HRNN_FORWARD, true, &random);
  ProgramBuilder builder;
  ProgramBuilder::LayerTensors a, b;
  a.x = builder.input("x", HRNN_F64, {5, 2, 3});
  a.y = builder.intermediate();
  a.h = builder.intermediate();
  builder.layer<double>("first", first, 0, a);
  b.x = builder.unary(OpKind::Squeeze, "squeeze", a.y, {1});
  b.h = builder.intermediate();
  builder.layer<double>("second", second, 0, b);
  builder.output(builder.concat("states", {a.h, b.h}, 0), "h", HRNN_F64, {2, 2, 4});
  TestModel model(builder);
  SessionPointer session = create(model);
  std::vector<double> x = random_values<double>(30, &random), h(16);
  std::vector<hrnn_tensor> outputs = {make_output(h)};
  hrnn_error error = {};
  ASSERT_EQ(run(session.get(), {make_tensor({5, 2, 3}, x)}, &outputs, &error), HRNN_OK) << error.message;
  EXPECT_EQ(session->instruction_count, 2u);  // the two layers
  const auto one = reference::run(first, 5, 2, x, {}, {});
  const auto two = reference::run(second, 5, 2, one.y, {}, {});
  std::vector<double> expected(one.h);
  expected.insert(expected.end(), two.h.begin(), two.h.end());
  expect_near(h, expected, 1e-12, "h");
}

// ---- Random programs ---------------------------------------------------------------------------------------------------

// A dense value, and the operations on it straight from their definitions, index by index.
struct Value {
  std::vector<int64_t> dims;
  std::vector<double> data;

  static Value zeros(const std::vector<int64_t> &dims) {
    return {dims, std::vector<double>(static_cast<size_t>(product(dims)))};
  }
  double &at(const std::vector<int64_t> &index) {
    int64_t offset = 0;
    for (size_t i = 0; i < dims.size(); ++i) offset = offset * dims[i] + index[i];
    return data[static_cast<size_t>(offset)];
  }
};

// result[index] = f(index) for every index.
Value tabulate(const std::vector<int64_t> &dims, const std::function<double(const std::vector<int64_t> &)> &f) {
  Value result = Value::zeros(dims);
  std::vector<int64_t> index(dims.size(), 0);
  for (double &value : result.data) {
    value = f(index);
    for (size_t axis = dims.size(); axis-- > 0;) {
      if (++index[axis] < dims[axis]) break;
      index[axis] = 0;
    }
  }
  return result;
}

template <typename T>
class RandomProgram {
 public:
  explicit RandomProgram(uint32_t seed) : random_(seed) {}

  void make() {
    const int inputs = pick(1, 3);
    for (int i = 0; i < inputs; ++i) {
      std::vector<int64_t> dims;
      const int rank = pick(0, 9) < 6 ? 3 : pick(0, 4);
      for (int d = 0; d < rank; ++d) dims.push_back(pick(0, 19) == 0 ? 0 : pick(1, 4));
      Value value = random_value(dims);
      add(builder_.input("in" + std::to_string(i), dtype_of<T>(), dims), value);
      input_values_.push_back(value);
    }
    if (pick(0, 2) == 0) {
      const Value value = random_value({pick(1, 3), pick(1, 3), pick(1, 4)});
      add(builder_.constant<T>(value.dims, std::vector<T>(value.data.begin(), value.data.end())), value);
    }
    const int ops = pick(1, 12);
    for (int i = 0; i < ops; ++i) add_operation("op" + std::to_string(i));
    const int outputs = pick(1, 4);
    for (int o = 0; o < outputs; ++o) {
      const size_t chosen = pick(0, 1) == 0 ? values_.size() - 1 : static_cast<size_t>(pick(0, int(values_.size()) - 1));
      const Value &value = values_[chosen];
      const bool is_input = chosen < input_values_.size();
      // An input that is also an output keeps its name; anything may be listed twice.
      builder_.output(ids_[chosen], is_input ? "in" + std::to_string(chosen) : "out" + std::to_string(o),
                      dtype_of<T>(), value.dims);
      output_values_.push_back(value);
    }
  }

  void check() {
    TestModel model(builder_);
    SessionPointer session = create(model);
    ASSERT_NE(session, nullptr);
    std::vector<std::vector<T>> in;
    std::vector<hrnn_tensor> inputs;
    for (const Value &value : input_values_) in.emplace_back(value.data.begin(), value.data.end());
    for (size_t i = 0; i < in.size(); ++i) inputs.push_back(make_tensor(input_values_[i].dims, in[i]));
    hrnn_error error = {};
    ASSERT_EQ(reserve(session.get(), inputs, &error), HRNN_OK) << error.message;
    // All outputs, then each choice of them, in an order that alternates between bindings.
    const unsigned choices = 1u << output_values_.size();
    for (unsigned i = 0; i < choices; ++i) {
      const unsigned wanted = (choices - 1) ^ (i * 5 % choices);
      std::vector<std::vector<T>> out;
      std::vector<hrnn_tensor> outputs;
      for (const Value &value : output_values_) out.emplace_back(value.data.size(), T(1e30));
      for (size_t o = 0; o < out.size(); ++o) {
        outputs.push_back(make_output(out[o]));
        if ((wanted >> o & 1u) == 0) outputs[o].data = nullptr;
      }
      ASSERT_EQ(run(session.get(), inputs, &outputs, &error), HRNN_OK) << error.message;
      for (size_t o = 0; o < out.size(); ++o) {
        EXPECT_EQ(dims_of(outputs[o]), output_values_[o].dims);
        if ((wanted >> o & 1u) != 0) {
          expect_near(out[o], output_values_[o].data, sizeof(T) == 8 ? 1e-10 : 1e-3,
                      "output " + std::to_string(o) + ", wanted " + std::to_string(wanted));
        }
      }
      for (size_t k = 0; k < in.size(); ++k) {
        expect_near(in[k], input_values_[k].data, 0, "input " + std::to_string(k) + " afterwards");
      }
      if (testing::Test::HasFailure()) return;
    }
  }

 private:
  int pick(int least, int most) { return std::uniform_int_distribution<int>(least, most)(random_); }

  Value random_value(const std::vector<int64_t> &dims) {
    Value value = Value::zeros(dims);
    for (double &x : value.data) x = static_cast<T>(std::uniform_real_distribution<double>(-1, 1)(random_));
    return value;
  }

  void add(uint32_t id, Value value) {
    ids_.push_back(id);
    values_.push_back(std::move(value));
  }

  void add_operation(const std::string &name) {
    const size_t chosen = pick(0, 2) > 0 ? values_.size() - 1 : static_cast<size_t>(pick(0, int(values_.size()) - 1));
    const uint32_t in = ids_[chosen];
    Value x = values_[chosen];
    const int rank = static_cast<int>(x.dims.size());
    const int axis = rank > 0 ? pick(0, rank - 1) : 0;
    const size_t a = static_cast<size_t>(axis);
    switch (pick(0, 12)) {
      case 0: {
        std::vector<int64_t> permutation(static_cast<size_t>(rank)), dims(permutation.size());
        std::iota(permutation.begin(), permutation.end(), 0);
        std::shuffle(permutation.begin(), permutation.end(), random_);
        for (size_t i = 0; i < dims.size(); ++i) dims[i] = x.dims[static_cast<size_t>(permutation[i])];
        const uint32_t out = builder_.unary(OpKind::Transpose, name, in, {});
        std::copy(permutation.begin(), permutation.end(), builder_.ops().back().ints);
        return add(out, tabulate(dims, [&](const std::vector<int64_t> &index) {
                     std::vector<int64_t> from(index.size());
                     for (size_t i = 0; i < index.size(); ++i) from[static_cast<size_t>(permutation[i])] = index[i];
                     return x.at(from);
                   }));
      }
      case 1: {
        if (rank == 0) return;
        // Python's slices say the same as ONNX's when no position is beyond the end in the direction of the walk.
        const int64_t dim = x.dims[a], step = pick(0, 1) == 0 ? 1 : pick(0, 2) == 0 ? pick(2, 3) : -pick(1, 2);
        std::vector<int64_t> taken;
        int64_t start, stop;
        if (step > 0) {
          start = pick(0, 1) == 0 ? 0 : pick(0, int(dim));
          stop = pick(0, 1) == 0 ? std::numeric_limits<int64_t>::max() : pick(0, int(dim) + 2);
          for (int64_t i = start; i < std::min(stop, dim); i += step) taken.push_back(i);
        } else {
          start = pick(0, 1) == 0 ? -1 : pick(0, int(dim) + 1);
          const int64_t last = pick(0, 1) == 0 ? -1 : pick(-1, int(dim));
          stop = last < 0 ? std::numeric_limits<int64_t>::min() : last;
          for (int64_t i = start == -1 ? dim - 1 : std::min(start, dim - 1); i > last; i += step) taken.push_back(i);
        }
        std::vector<int64_t> dims = x.dims;
        dims[a] = static_cast<int64_t>(taken.size());
        const uint32_t out = builder_.unary(OpKind::Slice, name, in, {axis, start, stop, step});
        return add(out, tabulate(dims, [&](std::vector<int64_t> index) {
                     index[a] = taken[static_cast<size_t>(index[a])];
                     return x.at(index);
                   }));
      }
      case 2: {
        if (rank == 0 || x.dims[a] == 0) return;
        const int64_t index_taken = pick(0, int(x.dims[a]) - 1);
        const int64_t spoken = pick(0, 1) == 0 ? index_taken : index_taken - x.dims[a];
        std::vector<int64_t> dims = x.dims;
        dims.erase(dims.begin() + axis);
        const uint32_t out = builder_.unary(OpKind::Select, name, in, {axis, spoken});
        return add(out, tabulate(dims, [&](std::vector<int64_t> index) {
                     index.insert(index.begin() + axis, index_taken);
                     return x.at(index);
                   }));
      }
      case 3: {
        if (rank >= 6) return;
        const int where = pick(0, rank);
        const uint32_t out = builder_.unary(OpKind::Unsqueeze, name, in, {where});
        x.dims.insert(x.dims.begin() + where, 1);
        return add(out, x);
      }
      case 4: {
        if (rank == 0 || x.dims[a] != 1) return;
        const uint32_t out = builder_.unary(OpKind::Squeeze, name, in, {axis});
        x.dims.erase(x.dims.begin() + axis);
        return add(out, x);
      }
      case 5:
      case 6: return add_reshape(name, in, x);
      case 7: {
        // Dimensions of 1 are repeated, and new ones come in front.
        std::vector<int64_t> target = x.dims;
        for (int64_t &dim : target) {
          if (dim == 1 && pick(0, 1) == 0) dim = pick(1, 3);
        }
        if (rank < 5 && pick(0, 1) == 0) target.insert(target.begin(), pick(1, 2));
        if (product(target) > 600 || product(target) == 0) return;
        const size_t added = target.size() - x.dims.size();
        const uint32_t out = builder_.unary(OpKind::Expand, name, in, {static_cast<int64_t>(target.size())});
        for (size_t i = 0; i < target.size(); ++i) {
          const bool same = i >= added && x.dims[i - added] == target[i];
          builder_.ops().back().ints[1 + i] = same && pick(0, 1) == 0 ? 1 : target[i];
        }
        return add(out, tabulate(target, [&](const std::vector<int64_t> &index) {
                     std::vector<int64_t> from(index.begin() + static_cast<int64_t>(added), index.end());
                     for (size_t i = 0; i < from.size(); ++i) from[i] = x.dims[i] == 1 ? 0 : from[i];
                     return x.at(from);
                   }));
      }
      case 8: {
        const hrnn_activation f = {static_cast<hrnn_activation_kind>(pick(0, HRNN_ACTIVATION_COUNT - 1)), 0.5, 0.75};
        const uint32_t out = builder_.unary(OpKind::Activation, name, in, {f.kind}, {f.alpha, f.beta});
        for (double &value : x.data) value = reference::activate(f, value);
        return add(out, x);
      }
      case 9: return add_concat(name, chosen, a);
      case 10: return add_dense(name, in, x);
      default: return add_layer(name, in, x);
    }
  }

  void add_reshape(const std::string &name, uint32_t in, Value x) {
    // A random factorisation of the element count, one factor perhaps left to be inferred.
    int64_t left = product(x.dims);
    if (left == 0) return;
    std::vector<int64_t> dims;
    while (left > 1 && dims.size() < 4) {
      std::vector<int64_t> divisors;
      for (int64_t d = 1; d <= left; ++d) {
        if (left % d == 0) divisors.push_back(d);
      }
      dims.push_back(divisors[static_cast<size_t>(pick(0, int(divisors.size()) - 1))]);
      left /= dims.back();
    }
    dims.push_back(left);
    const uint32_t out = builder_.unary(OpKind::Reshape, name, in, {static_cast<int64_t>(dims.size())});
    std::copy(dims.begin(), dims.end(), builder_.ops().back().ints + 1);
    const size_t at = static_cast<size_t>(pick(0, int(dims.size()) - 1));
    if (pick(0, 1) == 0) builder_.ops().back().ints[1 + at] = -1;
    if (dims[0] == (x.dims.empty() ? -1 : x.dims[0]) && pick(0, 1) == 0) builder_.ops().back().ints[1] = 0;
    x.dims = dims;
    add(out, x);
  }

  void add_concat(const std::string &name, size_t chosen, size_t axis) {
    if (values_[chosen].dims.empty()) return;
    // Whatever fits, and the same value twice when nothing else does.
    std::vector<size_t> parts = {chosen};
    for (size_t i = 0; i < values_.size() && parts.size() < 3; ++i) {
      std::vector<int64_t> a = values_[i].dims, b = values_[chosen].dims;
      if (a.size() != b.size()) continue;
      a[axis] = b[axis] = 0;
      if (a == b && pick(0, 1) == 0) parts.insert(parts.begin() + pick(0, int(parts.size())), i);
    }
    std::vector<uint32_t> ids;
    std::vector<int64_t> dims = values_[chosen].dims;
    dims[axis] = 0;
    for (size_t part : parts) {
      ids.push_back(ids_[part]);
      dims[axis] += values_[part].dims[axis];
    }
    if (product(dims) > 600) return;
    const uint32_t out = builder_.concat(name, ids, static_cast<int64_t>(axis));
    add(out, tabulate(dims, [&](std::vector<int64_t> index) {
          size_t part = 0;
          while (index[axis] >= values_[parts[part]].dims[axis]) index[axis] -= values_[parts[part++]].dims[axis];
          return values_[parts[part]].at(index);
        }));
  }

  void add_dense(const std::string &name, uint32_t in, Value x) {
    if (x.dims.empty() || x.dims.back() == 0) return;
    const int64_t inner = x.dims.back(), outer = pick(1, 4);
    const Value w = random_value({outer, inner}), b = random_value({outer});
    uint32_t w_id = kNone, b_id = kNone;
    const bool transposed = pick(0, 1) == 0;
    if (pick(0, 1) == 0) {
      Value stored = w;
      if (transposed) stored = {{inner, outer}, swap_axes(w.data, outer, inner)};
      w_id = builder_.template constant<T>(stored.dims, std::vector<T>(stored.data.begin(), stored.data.end()));
      b_id = builder_.template constant<T>(b.dims, std::vector<T>(b.data.begin(), b.data.end()));
    }
    const uint32_t out = builder_.template dense<T>(name, in, inner, outer, w.data, b.data, w_id, b_id, transposed);
    std::vector<int64_t> dims = x.dims;
    dims.back() = outer;
    add(out, tabulate(dims, [&](std::vector<int64_t> index) {
          const int64_t n = index.back();
          double sum = b.data[static_cast<size_t>(n)];
          for (int64_t k = 0; k < inner; ++k) {
            index.back() = k;
            sum += x.at(index) * w.data[static_cast<size_t>(n * inner + k)];
          }
          return sum;
        }));
  }

  void add_layer(const std::string &name, uint32_t in, const Value &x) {
    if (x.dims.size() != 3 || x.dims[2] == 0) return;
    const char *cells[] = {"rnn", "gru", "gru_reset_before"};
    const reference::Layer layer = random_layer<T>(cells[pick(0, 2)], x.dims[2], pick(1, 4),
                                                   static_cast<hrnn_direction>(pick(0, 2)), pick(0, 1) == 0, &random_);
    const int64_t layout = pick(0, 1), D = layer.directions(), H = layer.hidden;
    const int64_t time = x.dims[static_cast<size_t>(layout)], batch = x.dims[static_cast<size_t>(1 - layout)];
    ProgramBuilder::LayerTensors t;
    t.x = in;
    // An initial state from a value at hand, where one fits.
    const std::vector<int64_t> h_dims = layout == 1 ? std::vector<int64_t>{batch, D, H} : std::vector<int64_t>{D, batch, H};
    std::vector<double> h0;
    for (size_t i = 0; i < values_.size() && t.h0 == kNone; ++i) {
      if (values_[i].dims != h_dims) continue;
      t.h0 = ids_[i];
      h0 = layout == 1 ? swap_axes(values_[i].data, batch, D) : values_[i].data;
    }
    std::vector<int32_t> lengths;
    if (pick(0, 2) == 0) {
      for (int64_t n = 0; n < batch; ++n) lengths.push_back(pick(0, int(time)));
      t.lengths = builder_.constant<int32_t>({batch}, lengths);
    }
    t.y = builder_.intermediate();
    t.h = builder_.intermediate();
    builder_.template layer<T>(name, layer, layout, t);
    const auto result =
        reference::run(layer, time, batch, layout == 1 ? swap_axes(x.data, batch, time) : x.data, lengths, h0);
    Value y = {{time, D, batch, H}, result.y}, h = {{D, batch, H}, result.h};
    if (layout == 1) {
      Value by_time = y;
      y = tabulate({batch, time, D, H}, [&](const std::vector<int64_t> &i) {
        return by_time.at({i[1], i[2], i[0], i[3]});
      });
      h = {{batch, D, H}, swap_axes(result.h, D, batch)};
    }
    add(t.h, h);
    add(t.y, y);
  }

  std::mt19937 random_;
  ProgramBuilder builder_;
  std::vector<uint32_t> ids_;
  std::vector<Value> values_;  // of every tensor so far: inputs first
  std::vector<Value> input_values_, output_values_;
};

TEST(SessionPrograms, RandomOnesInDouble) {
  for (uint32_t seed = 0; seed < 4000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RandomProgram<double> program(seed);
    program.make();
    program.check();
    if (HasFailure()) return;
  }
}

TEST(SessionPrograms, RandomOnesInFloat) {
  for (uint32_t seed = 0; seed < 500; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RandomProgram<float> program(seed);
    program.make();
    program.check();
    if (HasFailure()) return;
  }
}

}  // namespace
