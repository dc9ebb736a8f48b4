// SPDX-License-Identifier: Apache-2.0
//
// Sessions end to end: what comes out is compared with double-precision code written from the definitions of the
// operations.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "hrnn/hrnn.h"
#include "hrnn/hrnn.hpp"
#include "layer.h"
#include "program_builder.h"
#include "session.h"
#include "session_kernels.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define HRNN_COUNTS_ALLOCATIONS 0
#else
// The C library's allocation functions, counted: every way to get memory ends here. One of them may be made to fail.
#define HRNN_COUNTS_ALLOCATIONS 1
static std::atomic<long> allocation_count{0};
static std::atomic<long> failing_allocation{-1};
static bool allocation_fails() { return allocation_count++ == failing_allocation; }
extern "C" {
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *malloc(size_t size) { return allocation_fails() ? nullptr : __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return allocation_fails() ? nullptr : __libc_calloc(count, size); }
void *realloc(void *memory, size_t size) { return allocation_fails() ? nullptr : __libc_realloc(memory, size); }
}
#endif

namespace {

using hrnn_test::activate;
using hrnn_test::AlignedBytes;
using hrnn_test::dtype_of;
using hrnn_test::expected_sequence;
using hrnn_test::kNone;
using hrnn_test::Layer;
using hrnn_test::OpKind;
using hrnn_test::OpRecord;
using hrnn_test::ProgramBuilder;
using hrnn_test::Sequence;

// ---- Tools ----------------------------------------------------------------------------------------------------------

class HasText {
 public:
  explicit HasText(hrnn_error *error) : message_(error->message) {}
  bool operator()(const std::string &part) const { return message_.find(part) != std::string::npos; }
  const std::string &message() const { return message_; }

 private:
  std::string message_;
};
#define EXPECT_MESSAGE(error, part) EXPECT_TRUE(HasText (&(error))(part)) << (error).message

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
    model.kernels = session_kernels();
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

SessionPointer create(const TestModel &model, hrnn_team *team = nullptr) {
  hrnn_session *session = nullptr;
  hrnn_error error = {};
  hrnn_options options = {};
  options.struct_size = sizeof(options);
  options.team = team;
  EXPECT_EQ(hrnn_session_create(&model.model, &options, &session, &error), HRNN_OK) << error.message;
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
Layer random_layer(const std::string &cell, int64_t input, int64_t hidden, hrnn_direction direction, bool with_bias,
                   std::mt19937 *random) {
  Layer layer;
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

// ---- One layer, every way ONNX can ask for it
// --------------------------------------------------------------------------

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
  const Layer layer = random_layer<T>(c.cell, I, H, c.direction, c.bias, &random);
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
  std::vector<T> w(layer.w.begin(), layer.w.end()), r(layer.r.begin(), layer.r.end()),
      b(layer.b.begin(), layer.b.end());
  std::vector<hrnn_tensor> inputs;
  inputs.push_back(make_tensor(
      batch_major ? std::vector<int64_t>{c.batch, c.time, I} : std::vector<int64_t>{c.time, c.batch, I}, x_in));
  if (c.weights_at_run_time) {
    inputs.push_back(make_tensor({D, units, I}, w));
    inputs.push_back(make_tensor({D, units, H}, r));
    if (c.bias) inputs.push_back(make_tensor({D, 2 * units}, b));
  }
  if (c.lengths) inputs.push_back(make_tensor({c.batch}, lengths));
  if (c.initial_h) {
    inputs.push_back(
        make_tensor(batch_major ? std::vector<int64_t>{c.batch, D, H} : std::vector<int64_t>{D, c.batch, H}, h0_in));
  }
  hrnn_error error = {};
  ASSERT_EQ(reserve(session.get(), inputs, &error), HRNN_OK) << error.message;

  const Sequence expected =
      expected_sequence(layer, c.time, c.batch, as_double(x), c.lengths ? lengths : std::vector<int32_t>(),
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
  Layer layer = random_layer<double>("gru", 2, 3, HRNN_BIDIRECTIONAL, true, &random);
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
  expect_near(y, expected_sequence(layer, 6, 2, x).y, 1e-12, "y");
}

// ---- Views: never a copy where strides can say it
// ----------------------------------------------------------------------

// x [N, T, I] -> Transpose -> GRU -> Squeeze, Transpose -> y [N, T, H]; and its last step -> dense.
TEST(SessionViews, ATransposeAroundALayerCostsNothing) {
  std::mt19937 random(3);
  const Layer layer = random_layer<float>("gru", 4, 6, HRNN_FORWARD, true, &random);
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
  const auto expected = expected_sequence(layer, T, N, as_double(swap_axes(values, N, T)));
  expect_near(result, swap_axes(expected.y, T, N), tolerance<float>(), "y");
}

TEST(SessionViews, StackedDirectionsAreJoinedWithoutACopy) {
  // As PyTorch exports a bidirectional layer: Y [T, 2, N, H] -> Transpose -> Reshape [T, N, 2 H] -> the next layer.
  std::mt19937 random(4);
  const Layer first = random_layer<double>("gru", 3, 4, HRNN_BIDIRECTIONAL, true, &random);
  const Layer second = random_layer<double>("gru", 8, 5, HRNN_FORWARD, true, &random);
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
  const auto y1 = expected_sequence(first, T, N, x);
  std::vector<double> joined;
  for (int64_t s = 0; s < T * 2 * N * 4; ++s) {
    const int64_t j = s % 4, d = s / 4 % 2, n = s / 8 % N, step = s / (8 * N);
    joined.push_back(y1.y[static_cast<size_t>(((step * 2 + d) * N + n) * 4 + j)]);
  }
  expect_near(h, expected_sequence(second, T, N, joined).h, 1e-12, "h");
  expect_near(h_first, y1.h, 1e-12, "h_first");
}

TEST(SessionViews, FinalStatesOfStackedLayersAreWrittenIntoTheirConcat) {
  std::mt19937 random(5);
  const Layer first = random_layer<double>("rnn", 3, 4, HRNN_FORWARD, true, &random);
  const Layer second = random_layer<double>("rnn", 4, 4, HRNN_FORWARD, true, &random);
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
  const auto one = expected_sequence(first, 5, 2, x);
  const auto two = expected_sequence(second, 5, 2, one.y);
  std::vector<double> expected(one.h);
  expected.insert(expected.end(), two.h.begin(), two.h.end());
  expect_near(h, expected, 1e-12, "h");
}

TEST(SessionViews, ADenseLayerTakesTheLongestRunOfRows) {
  std::mt19937 random(6);
  const auto w = random_values<double>(6, &random), b = random_values<double>(2, &random);
  ProgramBuilder builder;
  const uint32_t x = builder.input("x", HRNN_F64, {2, 40, 3});
  const uint32_t swapped = builder.unary(OpKind::Transpose, "swap", x, {1, 0, 2});
  builder.output(builder.dense<double>("dense", swapped, 3, 2, w, b), "y", HRNN_F64, {40, 2, 2});
  TestModel model(builder);
  SessionPointer session = create(model);
  std::vector<double> values = random_values<double>(240, &random), y(160), expected;
  std::vector<hrnn_tensor> outputs = {make_output(y)};
  hrnn_error error = {};
  ASSERT_EQ(run(session.get(), {make_tensor({2, 40, 3}, values)}, &outputs, &error), HRNN_OK) << error.message;
  ASSERT_EQ(session->instruction_count, 1u);
  const hrnn::StridedLoop &loop = session->instructions[0].loop;
  EXPECT_EQ(loop.dims[loop.rank - 1], 40);  // two calls of 40 rows, not 40 calls of 2
  for (size_t t = 0; t < 40; ++t) {
    for (size_t n = 0; n < 2; ++n) {
      for (size_t j = 0; j < 2; ++j) {
        expected.push_back(b[j]);
        for (size_t k = 0; k < 3; ++k) expected.back() += values[(n * 40 + t) * 3 + k] * w[j * 3 + k];
      }
    }
  }
  expect_near(y, expected, 1e-12, "y");
}

// ---- Random programs
// ---------------------------------------------------------------------------------------------------

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
    const int outputs = pick(0, 3) > 0 ? pick(1, 3) : pick(4, 6);
    for (int o = 0; o < outputs; ++o) {
      const size_t chosen =
          pick(0, 1) == 0 ? values_.size() - 1 : static_cast<size_t>(pick(0, int(values_.size()) - 1));
      const Value &value = values_[chosen];
      const bool is_input = chosen < input_values_.size();
      // An input that is also an output keeps its name; anything may be listed twice.
      builder_.output(ids_[chosen], is_input ? "in" + std::to_string(chosen) : "out" + std::to_string(o), dtype_of<T>(),
                      value.dims);
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
    switch (pick(0, 16)) {
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
        const uint32_t out = builder_.unary(OpKind::Elementwise, name, in, {f.kind, 0, pick(0, 1)}, {f.alpha, f.beta});
        for (double &value : x.data) value = activate(f, value);
        return add(out, x);
      }
      case 9: return add_concat(name, chosen, a);
      case 10: return add_dense(name, in, x);
      case 11: return add_gather_elements(name, in, x, axis);
      case 12: return add_gather_tuples(name, in, x);
      case 13: return add_scatter_elements(name, in, x, axis);
      case 14: return add_scatter_tuples(name, in, x);
      case 15: return add_top_k(name, in, x, axis);
      default: return add_layer(name, in, x);
    }
  }

  // An index into a dimension, half of them counted from the end.
  int64_t random_index(int64_t dim) { return pick(0, int(dim) - 1) - (pick(0, 1) == 0 ? dim : 0); }
  static int64_t resolved(int64_t index, int64_t dim) { return index < 0 ? index + dim : index; }

  // In either type; some of them through a Transpose, so that the indices of a tuple lie apart.
  uint32_t index_constant(std::vector<int64_t> dims, std::vector<int64_t> indices) {
    if (dims.size() >= 2 && pick(0, 2) == 0) {
      const size_t last = dims.size() - 1;
      Value given = {dims, {indices.begin(), indices.end()}};
      std::swap(dims[last - 1], dims[last]);
      const Value stored = tabulate(dims, [&](std::vector<int64_t> index) {
        std::swap(index[last - 1], index[last]);
        return given.at(index);
      });
      const uint32_t swapped = builder_.unary(OpKind::Transpose, "swapped indices",
                                              builder_.template constant<int64_t>(dims, {stored.data.begin(), stored.data.end()}), {});
      std::vector<int64_t> permutation(dims.size());
      std::iota(permutation.begin(), permutation.end(), 0);
      std::swap(permutation[last - 1], permutation[last]);
      std::copy(permutation.begin(), permutation.end(), builder_.ops().back().ints);
      return swapped;
    }
    if (pick(0, 1) == 0) return builder_.template constant<int64_t>(dims, indices);
    return builder_.template constant<int32_t>(dims, std::vector<int32_t>(indices.begin(), indices.end()));
  }

  // Dimensions of indices that go along with x but for an axis.
  std::vector<int64_t> index_dims(const Value &x, int axis) {
    std::vector<int64_t> dims;
    for (int64_t dim : x.dims) dims.push_back(dim == 0 ? 0 : pick(1, int(dim)));
    dims[static_cast<size_t>(axis)] = pick(0, 4);
    return dims;
  }

  void add_gather_elements(const std::string &name, uint32_t in, Value x, int axis) {
    if (x.dims.empty() || x.dims[static_cast<size_t>(axis)] == 0) return;
    const int64_t dim = x.dims[static_cast<size_t>(axis)];
    Value indices = Value::zeros(index_dims(x, axis));
    for (double &index : indices.data) index = static_cast<double>(random_index(dim));
    const uint32_t out = builder_.intermediate();
    const uint32_t at = index_constant(indices.dims, {indices.data.begin(), indices.data.end()});
    builder_.op(OpKind::GatherElements, name, {in, at}, {out}).ints[0] = axis;
    add(out, tabulate(indices.dims, [&](std::vector<int64_t> index) {
          index[static_cast<size_t>(axis)] = resolved(static_cast<int64_t>(indices.at(index)), dim);
          return x.at(index);
        }));
  }

  struct Tuples {
    std::vector<int64_t> outer;  // how many, in which shape
    size_t batch, size;
    std::vector<std::vector<int64_t>> picked;  // each tuple, counted from the front
    uint32_t id;
  };

  // Tuples of indices into the dimensions of x after the first `batch`; distinct, or nothing when that is not possible.
  bool make_tuples(const Value &x, size_t batch, bool distinct, Tuples *tuples) {
    if (x.dims.size() <= batch || product(x.dims) == 0) return false;
    tuples->batch = batch;
    tuples->size = static_cast<size_t>(pick(1, int(x.dims.size() - batch)));
    tuples->outer.assign(x.dims.begin(), x.dims.begin() + static_cast<int64_t>(batch));
    for (int more = pick(0, 2); more > 0; --more) tuples->outer.push_back(pick(1, 3));
    std::vector<int64_t> given;
    for (int64_t i = 0; i < product(tuples->outer); ++i) {
      std::vector<int64_t> tuple;
      for (size_t e = 0; e < tuples->size; ++e) {
        given.push_back(random_index(x.dims[batch + e]));
        tuple.push_back(resolved(given.back(), x.dims[batch + e]));
      }
      const auto &seen = tuples->picked;
      if (distinct && std::find(seen.begin(), seen.end(), tuple) != seen.end()) return false;
      tuples->picked.push_back(tuple);
    }
    std::vector<int64_t> dims = tuples->outer;
    dims.push_back(static_cast<int64_t>(tuples->size));
    tuples->id = index_constant(dims, given);
    return true;
  }

  // Where the element `index` of what the tuples pick comes from.
  static std::vector<int64_t> source_of(const Tuples &tuples, const std::vector<int64_t> &index) {
    size_t number = 0;
    for (size_t i = 0; i < tuples.outer.size(); ++i) number = number * tuples.outer[i] + index[i];
    std::vector<int64_t> from(index.begin(), index.begin() + static_cast<int64_t>(tuples.batch));
    from.insert(from.end(), tuples.picked[number].begin(), tuples.picked[number].end());
    from.insert(from.end(), index.begin() + static_cast<int64_t>(tuples.outer.size()), index.end());
    return from;
  }

  static std::vector<int64_t> picked_dims(const Tuples &tuples, const Value &x) {
    std::vector<int64_t> dims = tuples.outer;
    dims.insert(dims.end(), x.dims.begin() + static_cast<int64_t>(tuples.batch + tuples.size), x.dims.end());
    return dims;
  }

  void add_gather_tuples(const std::string &name, uint32_t in, Value x) {
    Tuples tuples;
    if (!make_tuples(x, static_cast<size_t>(pick(0, 1)), false, &tuples)) return;
    const std::vector<int64_t> dims = picked_dims(tuples, x);
    if (dims.size() > 6 || product(dims) > 600) return;
    const uint32_t out = builder_.intermediate();
    OpRecord &op = builder_.op(OpKind::GatherND, name, {in, tuples.id}, {out});
    op.ints[hrnn::kTupleSize] = static_cast<int64_t>(tuples.size);
    op.ints[hrnn::kTupleBatch] = static_cast<int64_t>(tuples.batch);
    add(out, tabulate(dims, [&](const std::vector<int64_t> &index) { return x.at(source_of(tuples, index)); }));
  }

  static double met(hrnn::Function function, double there, double update) {
    switch (function) {
      case hrnn::Function::Add: return there + update;
      case hrnn::Function::Mul: return there * update;
      case hrnn::Function::Min: return std::fmin(there, update);
      default: return std::fmax(there, update);
    }
  }
  // 0: an update replaces what is there.
  int64_t random_reduction() {
    const hrnn::Function functions[] = {hrnn::Function::Add, hrnn::Function::Mul, hrnn::Function::Min, hrnn::Function::Max};
    return pick(0, 1) == 0 ? 0 : static_cast<int64_t>(functions[pick(0, 3)]);
  }

  // x with every element of the updates where `target` says.
  void add_scattered(uint32_t out, int64_t reduction, Value x, Value updates,
                     const std::function<std::vector<int64_t>(const std::vector<int64_t> &)> &target) {
    tabulate(updates.dims, [&](const std::vector<int64_t> &index) {
      double &there = x.at(target(index));
      const double update = updates.at(index);
      return there = reduction == 0 ? update : met(static_cast<hrnn::Function>(reduction), there, update);
    });
    add(out, x);
  }

  uint32_t constant_of(const Value &value) {
    return builder_.template constant<T>(value.dims, std::vector<T>(value.data.begin(), value.data.end()));
  }

  void add_scatter_elements(const std::string &name, uint32_t in, Value x, int axis) {
    if (x.dims.empty() || product(x.dims) == 0) return;
    const size_t a = static_cast<size_t>(axis);
    const int64_t reduction = random_reduction();
    Value indices = Value::zeros(index_dims(x, axis));
    if (reduction == 0) indices.dims[a] = pick(0, int(x.dims[a]));  // each place once, or the order would matter
    const int64_t shift = pick(0, int(x.dims[a]) - 1);
    indices = tabulate(indices.dims, [&](const std::vector<int64_t> &index) {
      return static_cast<double>(reduction != 0 ? random_index(x.dims[a]) : (index[a] + shift) % x.dims[a]);
    });
    const Value updates = random_value(indices.dims);
    const uint32_t at = index_constant(indices.dims, {indices.data.begin(), indices.data.end()});
    const uint32_t out = builder_.intermediate(), from = constant_of(updates);
    OpRecord &op = builder_.op(OpKind::ScatterElements, name, {in, at, from}, {out});
    op.ints[0] = axis;
    op.ints[hrnn::kScatterReduction] = reduction;
    add_scattered(out, reduction, x, updates, [&](std::vector<int64_t> index) {
      index[a] = resolved(static_cast<int64_t>(indices.at(index)), x.dims[a]);
      return index;
    });
  }

  void add_scatter_tuples(const std::string &name, uint32_t in, Value x) {
    Tuples tuples;
    const int64_t reduction = random_reduction();
    if (!make_tuples(x, 0, reduction == 0, &tuples)) return;
    const std::vector<int64_t> dims = picked_dims(tuples, x);
    if (dims.size() > 6 || product(dims) > 600) return;
    const Value updates = random_value(dims);
    const uint32_t out = builder_.intermediate(), from = constant_of(updates);
    OpRecord &op = builder_.op(OpKind::ScatterND, name, {in, tuples.id, from}, {out});
    op.ints[hrnn::kTupleSize] = static_cast<int64_t>(tuples.size);
    op.ints[hrnn::kScatterReduction] = reduction;
    add_scattered(out, reduction, x, updates, [&](const std::vector<int64_t> &index) { return source_of(tuples, index); });
  }

  // The k largest or smallest along an axis: their indices, and what those pick.
  void add_top_k(const std::string &name, uint32_t in, Value x, int axis) {
    if (x.dims.empty()) return;
    const size_t a = static_cast<size_t>(axis);
    const bool largest = pick(0, 1) == 0;
    std::vector<int64_t> dims = x.dims;
    dims[a] = pick(0, int(x.dims[a]));
    const uint32_t indices = builder_.intermediate(), out = builder_.intermediate();
    OpRecord &op = builder_.op(OpKind::TopK, name, {in}, {indices});
    op.ints[hrnn::kTopKAxis] = axis;
    op.ints[hrnn::kTopKCount] = dims[a];
    op.ints[hrnn::kTopKLargest] = largest;
    builder_.op(OpKind::GatherElements, name + " picked", {in, indices}, {out}).ints[0] = axis;
    add(out, tabulate(dims, [&](std::vector<int64_t> index) {
          const size_t rank = static_cast<size_t>(index[a]);
          std::vector<double> line;
          for (index[a] = 0; index[a] < x.dims[a]; ++index[a]) line.push_back(x.at(index));
          std::sort(line.begin(), line.end());
          return line[largest ? line.size() - 1 - rank : rank];
        }));
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
    const Layer layer = random_layer<T>(cells[pick(0, 2)], x.dims[2], pick(1, 4),
                                        static_cast<hrnn_direction>(pick(0, 2)), pick(0, 1) == 0, &random_);
    const int64_t layout = pick(0, 1), D = layer.directions(), H = layer.hidden;
    const int64_t time = x.dims[static_cast<size_t>(layout)], batch = x.dims[static_cast<size_t>(1 - layout)];
    ProgramBuilder::LayerTensors t;
    t.x = in;
    // An initial state from a value at hand, where one fits.
    const std::vector<int64_t> h_dims =
        layout == 1 ? std::vector<int64_t>{batch, D, H} : std::vector<int64_t>{D, batch, H};
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
        expected_sequence(layer, time, batch, layout == 1 ? swap_axes(x.data, batch, time) : x.data, lengths, h0);
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

// ---- Elements chosen by numbers -------------------------------------------------------------------------------------

template <typename T>
std::vector<int64_t> top_indices(const std::vector<T> &values, int64_t k, bool largest) {
  ProgramBuilder builder;
  const int64_t n = static_cast<int64_t>(values.size());
  const uint32_t x = builder.input("x", dtype_of<T>(), {n});
  builder.output(builder.unary(OpKind::TopK, "top", x, {0, k, largest}), "y", HRNN_I64, {k});
  TestModel model(builder);
  SessionPointer session = create(model);
  std::vector<T> in = values;
  std::vector<int64_t> y(static_cast<size_t>(k));
  std::vector<hrnn_tensor> outputs = {make_output(y)};
  hrnn_error error = {};
  EXPECT_EQ(run(session.get(), {make_tensor({n}, in)}, &outputs, &error), HRNN_OK) << error.message;
  return y;
}

TEST(SessionTopK, TheFirstOfEqualOnesComesFirstAndNaNIsLargest) {
  EXPECT_EQ(top_indices<int64_t>({5, 7, 5, 7, 5, 1}, 5, true), (std::vector<int64_t>{1, 3, 0, 2, 4}));
  EXPECT_EQ(top_indices<int32_t>({5, 7, 5, 7, 5, 1}, 6, false), (std::vector<int64_t>{5, 0, 2, 4, 1, 3}));
  const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(top_indices<double>({1, nan, infinity, nan, -1}, 4, true), (std::vector<int64_t>{1, 3, 2, 0}));
  EXPECT_EQ(top_indices<double>({1, nan, infinity, nan, -1}, 5, false), (std::vector<int64_t>{4, 0, 2, 1, 3}));
}

TEST(SessionTopK, EveryCountOfManyEqualValues) {
  std::mt19937 random(5);
  std::vector<float> values(41);
  for (float &value : values) value = static_cast<float>(std::uniform_int_distribution<int>(0, 9)(random));
  for (const bool largest : {false, true}) {
    std::vector<int64_t> order(values.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      const float x = values[static_cast<size_t>(a)], y = values[static_cast<size_t>(b)];
      return largest ? x > y : x < y;
    });
    for (int64_t k = 0; k <= 41; ++k) {
      EXPECT_EQ(top_indices(values, k, largest), std::vector<int64_t>(order.begin(), order.begin() + k));
    }
  }
}

TEST(SessionRange, CountsFromADimension) {
  ProgramBuilder builder;
  const int64_t time = builder.symbol("time");
  builder.input("x", HRNN_F32, {time});
  const uint32_t wide = builder.intermediate(), narrow = builder.intermediate();
  OpRecord &down = builder.op(OpKind::Range, "down", {}, {wide});
  const int64_t target = ProgramBuilder::target(time);
  const int64_t backwards[] = {target, -1, -1, HRNN_I64, target};  // time - 1, time - 2, ...
  std::copy(std::begin(backwards), std::end(backwards), down.ints);
  OpRecord &up = builder.op(OpKind::Range, "up", {}, {narrow});
  const int64_t forwards[] = {3, 5, 2, HRNN_I32, 0};
  std::copy(std::begin(forwards), std::end(forwards), up.ints);
  builder.output(wide, "down", HRNN_I64, {time});
  builder.output(narrow, "up", HRNN_I32, {3});
  TestModel model(builder);
  SessionPointer session = create(model);
  for (int64_t steps : {1, 4, 0, 2}) {
    std::vector<float> x(static_cast<size_t>(steps));
    std::vector<int64_t> y(static_cast<size_t>(steps), 99), expected;
    std::vector<int32_t> z(3, 99);
    for (int64_t i = steps; i-- > 0;) expected.push_back(i);
    std::vector<hrnn_tensor> outputs = {make_output(y), make_output(z)};
    hrnn_error error = {};
    ASSERT_EQ(run(session.get(), {make_tensor({steps}, x)}, &outputs, &error), HRNN_OK) << error.message;
    EXPECT_EQ(y, expected);
    EXPECT_EQ(z, (std::vector<int32_t>{5, 7, 9}));
  }
}

// Runs op(data [3, time], indices, updates) whose shapes do not fit, or whose indices are out of range.
std::string indexing_error(OpKind kind, std::initializer_list<int64_t> ints, const std::vector<int64_t> &index_dims,
                           std::vector<int64_t> indices, const std::vector<int64_t> &update_dims = {}) {
  ProgramBuilder builder;
  const int64_t time = builder.symbol("time");
  const uint32_t x = builder.input("x", HRNN_F32, {3, time}), out = builder.intermediate();
  std::vector<int64_t> free_dims, free_updates;
  for (size_t i = 0; i < index_dims.size(); ++i) free_dims.push_back(builder.symbol("i" + std::to_string(i)));
  for (size_t i = 0; i < update_dims.size(); ++i) free_updates.push_back(builder.symbol("u" + std::to_string(i)));
  const uint32_t at = builder.input("at", HRNN_I64, free_dims);
  const bool scatters = kind == OpKind::ScatterElements || kind == OpKind::ScatterND;
  const uint32_t updates = scatters ? builder.input("updates", HRNN_F32, free_updates) : kNone;
  std::copy(ints.begin(), ints.end(), builder.op(kind, "pick", {x, at, updates}, {out}).ints);
  builder.output_of_rank(out, "y", HRNN_F32, 2);
  TestModel model(builder);
  SessionPointer session = create(model);
  std::vector<float> values(12), given(static_cast<size_t>(product(update_dims))), y(100);
  std::vector<hrnn_tensor> inputs = {make_tensor({3, 4}, values), make_tensor(index_dims, indices)};
  if (scatters) inputs.push_back(make_tensor(update_dims, given));
  std::vector<hrnn_tensor> outputs = {make_output(y)};
  hrnn_error error = {};
  const hrnn_status reserved = reserve(session.get(), inputs, &error);
  const hrnn_status status = reserved == HRNN_OK ? run(session.get(), inputs, &outputs, &error) : reserved;
  EXPECT_EQ(status, HRNN_INVALID_ARGUMENT);
  return error.message;
}

TEST(SessionIndexing, IndicesThatPointNowhereAndShapesThatDoNotFit) {
  using testing::HasSubstr;
  const OpKind gather = OpKind::GatherElements, tuples = OpKind::GatherND, scatter = OpKind::ScatterElements;
  EXPECT_THAT(indexing_error(gather, {1}, {1, 2}, {0, 4}),
              HasSubstr("GatherElements 'pick': index 4 is out of range for dimension 1, which is 4"));
  EXPECT_THAT(indexing_error(gather, {0}, {1, 1}, {-4}), HasSubstr("index -4 is out of range for dimension 0, which is 3"));
  EXPECT_THAT(indexing_error(gather, {1}, {4, 1}, {0, 0, 0, 0}),
              HasSubstr("dimension 0 of the indices is 4, of the data 3"));
  EXPECT_THAT(indexing_error(tuples, {2, 0, 0}, {1, 1, 2}, {2, 9}), HasSubstr("index 9 is out of range for dimension 1, which is 4"));
  EXPECT_THAT(indexing_error(tuples, {1, 0, 1}, {3, 2, 1}, {0, 1, 2, 3, 4, 0}),
              HasSubstr("index 4 is out of range for dimension 1, which is 4"));
  EXPECT_THAT(indexing_error(tuples, {2, 0, 0}, {1, 1, 3}, {0, 0, 0}),
              HasSubstr("dimension 2 of the indices is 3, it must be 2"));
  EXPECT_THAT(indexing_error(tuples, {1, 0, 1}, {2, 2, 1}, {0, 0, 0, 0}),
              HasSubstr("dimension 0 of the indices is 2, it must be 3"));
  EXPECT_THAT(indexing_error(scatter, {1, 0}, {1, 2}, {0, -5}, {1, 2}),
              HasSubstr("ScatterElements 'pick': index -5 is out of range for dimension 1, which is 4"));
  EXPECT_THAT(indexing_error(scatter, {1, 0}, {1, 2}, {0, 0}, {1, 3}),
              HasSubstr("dimension 1 of the updates is 3, it must be 2"));
  EXPECT_THAT(indexing_error(OpKind::ScatterND, {1, 0}, {2, 1}, {0, 3}, {2, 4}),
              HasSubstr("ScatterND 'pick': index 3 is out of range for dimension 0, which is 3"));
  EXPECT_THAT(indexing_error(OpKind::ScatterND, {1, 0}, {2, 1}, {0, 1}, {2, 3}),
              HasSubstr("dimension 1 of the updates is 3, it must be 4"));
}

TEST(SessionIndexing, MoreThanThereAre) {
  ProgramBuilder builder;
  const uint32_t x = builder.input("x", HRNN_F32, {builder.symbol("n")});
  builder.output(builder.unary(OpKind::TopK, "top", x, {0, 3, 1}), "y", HRNN_I64, {3});
  TestModel model(builder);
  SessionPointer session = create(model);
  std::vector<float> values(2);
  hrnn_error error = {};
  EXPECT_EQ(reserve(session.get(), {make_tensor({2}, values)}, &error), HRNN_INVALID_ARGUMENT);
  EXPECT_MESSAGE(error, "TopK 'top': k is 3, dimension 0 has 2 elements");
}

// ---- Every dtype and every activation
// -----------------------------------------------------------------------------------

template <typename T>
class SessionTypes : public testing::Test {};
using AllTypes = testing::Types<float, double, int32_t, int64_t>;
TYPED_TEST_SUITE(SessionTypes, AllTypes, );

TYPED_TEST(SessionTypes, AreMovedBitByBit) {
  using T = TypeParam;
  ProgramBuilder builder;
  const uint32_t x = builder.input("x", dtype_of<T>(), {2, 3, 4});
  const uint32_t swapped = builder.unary(OpKind::Transpose, "swap", x, {2, 1, 0});
  const uint32_t backwards = builder.unary(OpKind::Slice, "backwards", swapped, {0, -1, INT64_MIN, -1});
  const uint32_t flat = builder.unary(OpKind::Reshape, "flat", backwards, {1, -1});
  builder.output(flat, "y", dtype_of<T>(), {24});
  TestModel model(builder);
  SessionPointer session = create(model);
  std::vector<T> values(24), y(24);
  for (size_t i = 0; i < values.size(); ++i) {
    // Patterns that would not survive a detour through another type.
    const uint64_t bits = 0x7fe1234500000001ull + 0x0000100100000101ull * i;
    memcpy(&values[i], &bits, sizeof(T));
    if (sizeof(T) == 4) {
      const uint32_t half = 0x7f812345u + 0x10001u * static_cast<uint32_t>(i);
      memcpy(&values[i], &half, sizeof(T));
    }
  }
  std::vector<hrnn_tensor> outputs = {make_output(y)};
  hrnn_error error = {};
  ASSERT_EQ(run(session.get(), {make_tensor({2, 3, 4}, values)}, &outputs, &error), HRNN_OK) << error.message;
  for (size_t i = 0; i < 2; ++i) {
    for (size_t j = 0; j < 3; ++j) {
      for (size_t k = 0; k < 4; ++k) {
        EXPECT_EQ(memcmp(&y[(3 - k) * 6 + j * 2 + i], &values[i * 12 + j * 4 + k], sizeof(T)), 0);
      }
    }
  }
}

template <typename T>
void check_activation(const hrnn_activation &f, double relative) {
  SCOPED_TRACE("activation " + std::to_string(f.kind) + (sizeof(T) == 8 ? " double" : " float"));
  ProgramBuilder builder;
  const int64_t n = builder.symbol("n");
  const uint32_t x = builder.input("x", dtype_of<T>(), {n, 2});
  const uint32_t swapped = builder.unary(OpKind::Transpose, "swap", x, {1, 0});  // once strided, once not
  builder.output(builder.unary(OpKind::Elementwise, "f", x, {f.kind}, {f.alpha, f.beta}), "y", dtype_of<T>(), {n, 2});
  builder.output(builder.unary(OpKind::Elementwise, "g", swapped, {f.kind}, {f.alpha, f.beta}), "z", dtype_of<T>(),
                 {2, n});
  TestModel model(builder);
  SessionPointer session = create(model);
  std::vector<T> values;
  for (double v : {0.0, 1e-6, 0.1, 0.5, 1.0, 1.7, 3.0, 9.0, 20.0, 60.0, 87.0, 95.0, 600.0, 1000.0}) {
    values.push_back(static_cast<T>(v));
    values.push_back(static_cast<T>(-v));
  }
  const int64_t rows = static_cast<int64_t>(values.size()) / 2;
  std::vector<T> y(values.size()), z(values.size());
  std::vector<hrnn_tensor> outputs = {make_output(y), make_output(z)};
  hrnn_error error = {};
  const std::vector<hrnn_tensor> inputs = {make_tensor({rows, 2}, values)};
  ASSERT_EQ(reserve(session.get(), inputs, &error), HRNN_OK) << error.message;
  ASSERT_EQ(run(session.get(), inputs, &outputs, &error), HRNN_OK) << error.message;
  // alpha and beta are of the tensor's type, too.
  const hrnn_activation rounded = {f.kind, static_cast<T>(f.alpha), static_cast<T>(f.beta)};
  for (size_t i = 0; i < values.size(); ++i) {
    const double x_i = values[i], expected = activate(rounded, x_i);
    // Where the formula of the definition cancels, expm1 and log1p are its exact reading.
    const double exact = f.kind == HRNN_SOFTPLUS         ? std::fmax(x_i, 0) + std::log1p(std::exp(-std::fabs(x_i)))
                         : f.kind == HRNN_ELU && x_i < 0 ? rounded.alpha * std::expm1(x_i)
                                                         : expected;
    EXPECT_NEAR(exact, expected, 1e-15 + 1e-13 * std::fabs(expected));
    const double least = std::numeric_limits<T>::min();  // no promise about subnormal results
    EXPECT_NEAR(y[i], exact, relative * std::fabs(exact) + least) << "at " << values[i];
    EXPECT_EQ(z[i % 2 * static_cast<size_t>(rows) + i / 2], y[i]);
  }
}

TEST(SessionActivations, AllElevenInBothTypes) {
  for (int kind = 0; kind < HRNN_ACTIVATION_COUNT; ++kind) {
    for (const auto &[alpha, beta] : {std::pair(0.2, 0.5), std::pair(1.3, -0.4)}) {
      const hrnn_activation f = {static_cast<hrnn_activation_kind>(kind), alpha, beta};
      // alpha x + beta may cancel: one rounding of the larger term.
      const bool affine = kind == HRNN_AFFINE || kind == HRNN_HARD_SIGMOID || kind == HRNN_SCALED_TANH;
      check_activation<double>(f, affine ? 1e-14 : 2e-15);
      check_activation<float>(f, affine ? 3e-6 : 4e-7);
    }
  }
}

TEST(SessionActivations, InfinityAndNaN) {
  const double infinity = std::numeric_limits<double>::infinity();
  const struct {
    hrnn_activation_kind kind;
    double at_minus_infinity, at_infinity;
  } limits[] = {{HRNN_RELU, 0, infinity},
                {HRNN_TANH, -1, 1},
                {HRNN_SIGMOID, 0, 1},
                {HRNN_SOFTSIGN, -1, 1},
                {HRNN_SOFTPLUS, 0, infinity},
                {HRNN_ELU, -0.5, infinity},
                {HRNN_HARD_SIGMOID, 0, 1},
                {HRNN_SCALED_TANH, -0.5, 0.5},
                {HRNN_THRESHOLDED_RELU, 0, infinity},
                {HRNN_LEAKY_RELU, -infinity, infinity},
                {HRNN_AFFINE, -infinity, infinity}};
  EXPECT_EQ(std::size(limits), size_t{HRNN_ACTIVATION_COUNT});
  for (const auto &limit : limits) {
    ProgramBuilder builder;
    const uint32_t x = builder.input("x", HRNN_F32, {4});
    builder.output(builder.unary(OpKind::Elementwise, "f", x, {limit.kind}, {0.5, 0.25}), "y", HRNN_F32, {4});
    TestModel model(builder);
    SessionPointer session = create(model);
    std::vector<float> values = {-INFINITY, INFINITY, NAN, 0}, y(4);
    std::vector<hrnn_tensor> outputs = {make_output(y)};
    hrnn_error error = {};
    ASSERT_EQ(run(session.get(), {make_tensor({4}, values)}, &outputs, &error), HRNN_OK) << error.message;
    EXPECT_EQ(y[0], limit.at_minus_infinity) << limit.kind;
    EXPECT_EQ(y[1], limit.at_infinity) << limit.kind;
    EXPECT_TRUE(std::isnan(y[2])) << limit.kind;
    EXPECT_TRUE(std::isfinite(y[3])) << limit.kind;
  }
}

// ---- ONNX's Slice, where positions lie outside
// ---------------------------------------------------------------------------

TEST(SessionViews, SlicePositionsAreClampedAsOnnxSays) {
  const int64_t most = INT64_MAX, least = INT64_MIN;
  const struct {
    int64_t start, stop, step;
    std::vector<float> expected;
  } cases[] = {
      {0, most, 1, {0, 1, 2, 3, 4}},
      {-2, most, 1, {3, 4}},
      {1, -1, 1, {1, 2, 3}},
      {-100, 2, 1, {0, 1}},
      {3, 100, 1, {3, 4}},
      {5, 9, 1, {}},
      {4, 2, 1, {}},
      {0, 5, 2, {0, 2, 4}},
      {0, 5, most, {0}},
      {-1, least, -1, {4, 3, 2, 1, 0}},
      {100, least, -2, {4, 2, 0}},
      {3, 0, -1, {3, 2, 1}},
      {-2, -4, -1, {3, 2}},
      {4, least, least, {4}},
      {0, 4, -1, {}},
      {least, 2, 1, {0, 1}},
      // Walking down, a start before the first element is the first element: the operator's text says so.
      {-100, least, -1, {0}},
  };
  for (const auto &c : cases) {
    SCOPED_TRACE(testing::Message() << c.start << ":" << c.stop << ":" << c.step);
    ProgramBuilder builder;
    const uint32_t x = builder.input("x", HRNN_F32, {5});
    builder.output(builder.unary(OpKind::Slice, "slice", x, {0, c.start, c.stop, c.step}), "y", HRNN_F32,
                   {static_cast<int64_t>(c.expected.size())});
    TestModel model(builder);
    SessionPointer session = create(model);
    ASSERT_NE(session, nullptr);
    std::vector<float> values = {0, 1, 2, 3, 4}, y(c.expected.size());
    std::vector<hrnn_tensor> outputs = {make_output(y)};
    hrnn_error error = {};
    ASSERT_EQ(run(session.get(), {make_tensor({5}, values)}, &outputs, &error), HRNN_OK) << error.message;
    EXPECT_EQ(y, c.expected);
  }
}

// ---- What is wrong is said
// -----------------------------------------------------------------------------------------------

// x [time, batch, 3] and h0 [1, batch, 4] -> GRU -> y [time, 1, batch, 4], h [1, batch, 4].
struct GruModel {
  explicit GruModel(bool initial_h = true, hrnn_direction direction = HRNN_FORWARD) : random(21) {
    layer = random_layer<float>("gru", 3, 4, direction, true, &random);
    const int64_t time = builder.symbol("time"), batch = builder.symbol("batch"), D = layer.directions();
    t.x = builder.input("x", HRNN_F32, {time, batch, 3});
    if (initial_h) t.h0 = builder.input("h0", HRNN_F32, {D, batch, 4});
    t.y = builder.intermediate();
    t.h = builder.intermediate();
    builder.layer<float>("the gru", layer, 0, t);
    builder.output(t.y, "y", HRNN_F32, {time, D, batch, 4});
    builder.output(t.h, "h", HRNN_F32, {D, batch, 4});
    model = std::make_unique<TestModel>(builder);
  }
  std::mt19937 random;
  ProgramBuilder builder;
  Layer layer;
  ProgramBuilder::LayerTensors t;
  std::unique_ptr<TestModel> model;
};

class SessionErrors : public testing::Test {
 protected:
  void SetUp() override {
    session = create(*gru.model);
    ASSERT_EQ(reserve(session.get(), {shape({5, 2, 3}), shape({1, 2, 4})}, &error), HRNN_OK) << error.message;
  }
  static hrnn_tensor shape(const std::vector<int64_t> &dims) { return make_tensor(HRNN_F32, dims, nullptr, 0); }
  hrnn_status run_with(const hrnn_tensor &first, const hrnn_tensor &second) {
    std::vector<hrnn_tensor> outputs = {make_output(y), make_output(h)};
    return run(session.get(), {first, second}, &outputs, &error);
  }

  GruModel gru;
  SessionPointer session;
  hrnn_error error = {};
  std::vector<float> x = std::vector<float>(30), h0 = std::vector<float>(8), y = std::vector<float>(40),
                     h = std::vector<float>(8);
};

TEST_F(SessionErrors, ASymbolWithTwoValuesNamesBothPlaces) {
  std::vector<float> h3(12);
  EXPECT_EQ(run_with(make_tensor({5, 2, 3}, x), make_tensor({1, 3, 4}, h3)), HRNN_INVALID_ARGUMENT);
  EXPECT_MESSAGE(error, "input 'h0': dimension 1 ('batch') is 3, but dimension 1 of input 'x' says it is 2");
}

TEST_F(SessionErrors, ALiteralDimension) {
  EXPECT_EQ(run_with(make_tensor({5, 2, 2}, x), make_tensor({1, 2, 4}, h0)), HRNN_INVALID_ARGUMENT);
  EXPECT_MESSAGE(error, "input 'x': dimension 2 is 2, the model says 3");
}

TEST_F(SessionErrors, RankAndType) {
  EXPECT_EQ(run_with(make_tensor({10, 3}, x), make_tensor({1, 2, 4}, h0)), HRNN_INVALID_ARGUMENT);
  EXPECT_MESSAGE(error, "input 'x': its rank is 2, the model says 3");
  hrnn_tensor wrong = make_tensor({5, 2, 3}, x);
  wrong.dtype = HRNN_F64;
  EXPECT_EQ(run_with(wrong, make_tensor({1, 2, 4}, h0)), HRNN_INVALID_ARGUMENT);
  EXPECT_MESSAGE(error, "input 'x': its dtype is float64 (2), the model says float32 (1)");
}

TEST_F(SessionErrors, NegativeAndAbsurdDimensions) {
  EXPECT_EQ(run_with(make_tensor({-5, 2, 3}, x), make_tensor({1, 2, 4}, h0)), HRNN_INVALID_ARGUMENT);
  EXPECT_MESSAGE(error, "input 'x': dimension 0 is -5");
  for (int64_t size : {INT64_MAX, INT64_MAX / 2, int64_t{1} << 55}) {
    EXPECT_EQ(run_with(make_tensor({size, 2, 3}, x), make_tensor({1, 2, 4}, h0)), HRNN_INVALID_ARGUMENT);
    EXPECT_MESSAGE(error, "absurd");
    EXPECT_EQ(reserve(session.get(), {shape({size, 2, 3}), shape({1, 2, 4})}, &error), HRNN_INVALID_ARGUMENT);
  }
  // Not more than there is to say, but more than there is memory.
#if HRNN_COUNTS_ALLOCATIONS
  EXPECT_NE(reserve(session.get(), {shape({1, int64_t{1} << 42, 3}), shape({1, int64_t{1} << 42, 4})}, &error),
            HRNN_OK);
#endif
}

TEST_F(SessionErrors, CountsAndNulls) {
  std::vector<hrnn_tensor> inputs = {make_tensor({5, 2, 3}, x), make_tensor({1, 2, 4}, h0)};
  std::vector<hrnn_tensor> outputs = {make_output(y), make_output(h)};
  EXPECT_EQ(hrnn_session_run(session.get(), inputs.data(), 1, outputs.data(), 2, &error), HRNN_INVALID_ARGUMENT);
  EXPECT_MESSAGE(error, "1 inputs were given, the model has 2");
  EXPECT_EQ(hrnn_session_run(session.get(), inputs.data(), 2, outputs.data(), 3, &error), HRNN_INVALID_ARGUMENT);
  EXPECT_MESSAGE(error, "3 outputs were given, the model has 2");
  EXPECT_EQ(hrnn_session_run(session.get(), nullptr, 2, outputs.data(), 2, &error), HRNN_INVALID_ARGUMENT);
  EXPECT_EQ(hrnn_session_run(session.get(), inputs.data(), 2, nullptr, 2, &error), HRNN_INVALID_ARGUMENT);
  EXPECT_EQ(hrnn_session_run(nullptr, inputs.data(), 2, outputs.data(), 2, &error), HRNN_INVALID_ARGUMENT);
  EXPECT_EQ(hrnn_session_run(session.get(), inputs.data(), 2, outputs.data(), 2, nullptr), HRNN_OK);
  EXPECT_EQ(hrnn_session_reserve(session.get(), inputs.data(), 2, nullptr, 0, nullptr), HRNN_OK);
  hrnn_session *none = nullptr;
  EXPECT_EQ(hrnn_session_create(nullptr, nullptr, &none, &error), HRNN_INVALID_ARGUMENT);
  EXPECT_EQ(hrnn_session_create(&gru.model->model, nullptr, nullptr, &error), HRNN_INVALID_ARGUMENT);
  hrnn_session_destroy(nullptr);
}

TEST_F(SessionErrors, MemoryOfInputsAndOutputs) {
  std::vector<float> small(29);
  EXPECT_EQ(run_with(make_tensor({5, 2, 3}, small), make_tensor({1, 2, 4}, h0)), HRNN_INVALID_ARGUMENT);
  EXPECT_MESSAGE(error, "input 'x': it has 116 bytes of memory and needs 120");
  hrnn_tensor null = make_tensor({5, 2, 3}, x);
  null.data = nullptr;
  EXPECT_EQ(run_with(null, make_tensor({1, 2, 4}, h0)), HRNN_INVALID_ARGUMENT);
  EXPECT_MESSAGE(error, "input 'x': data is NULL");
  hrnn_tensor odd = make_tensor({5, 2, 3}, x);
  odd.data = reinterpret_cast<char *>(x.data()) + 2;
  EXPECT_EQ(run_with(odd, make_tensor({1, 2, 4}, h0)), HRNN_INVALID_ARGUMENT);
  EXPECT_MESSAGE(error, "aligned");

  y.resize(39);
  std::vector<hrnn_tensor> outputs = {make_output(y), make_output(h)};
  EXPECT_EQ(run(session.get(), {make_tensor({5, 2, 3}, x), make_tensor({1, 2, 4}, h0)}, &outputs, &error),
            HRNN_CAPACITY);
  EXPECT_MESSAGE(error, "output 'y': it has 156 bytes of memory and needs 160");
  EXPECT_EQ(dims_of(outputs[0]), (std::vector<int64_t>{5, 1, 2, 4}));  // so that the caller knows what to give
}

TEST_F(SessionErrors, MoreThanReserved) {
  std::vector<float> x3(45), h3(12), y3(60), h3_out(12, 7.f);
  std::vector<hrnn_tensor> outputs = {make_output(y3), make_output(h3_out)};
  const std::vector<hrnn_tensor> inputs = {make_tensor({5, 3, 3}, x3), make_tensor({1, 3, 4}, h3)};
  EXPECT_EQ(run(session.get(), inputs, &outputs, &error), HRNN_CAPACITY);
  EXPECT_MESSAGE(error, "recurrent layer 'the gru': the batch is 3, memory is reserved for 2");
  EXPECT_EQ(h3_out, std::vector<float>(12, 7.f));  // nothing is run
  // And then the session is as good as before.
  EXPECT_EQ(run_with(make_tensor({5, 2, 3}, x), make_tensor({1, 2, 4}, h0)), HRNN_OK) << error.message;
  EXPECT_EQ(reserve(session.get(), inputs, &error), HRNN_OK);
  EXPECT_EQ(run(session.get(), inputs, &outputs, &error), HRNN_OK) << error.message;
}

TEST_F(SessionErrors, LengthsOutsideTheSequenceNameTheLayer) {
  ProgramBuilder builder;
  std::mt19937 random(2);
  const Layer layer = random_layer<float>("rnn", 3, 4, HRNN_FORWARD, true, &random);
  ProgramBuilder::LayerTensors t;
  t.x = builder.input("x", HRNN_F32, {5, 2, 3});
  t.lengths = builder.input("lengths", HRNN_I32, {2});
  t.h = builder.intermediate();
  builder.layer<float>("encoder", layer, 0, t);
  builder.output(t.h, "h", HRNN_F32, {1, 2, 4});
  TestModel model(builder);
  SessionPointer other = create(model);
  for (int32_t bad : {-1, 6}) {
    std::vector<int32_t> lengths = {5, bad};
    std::vector<hrnn_tensor> outputs = {make_output(h)};
    EXPECT_EQ(run(other.get(), {make_tensor({5, 2, 3}, x), make_tensor({2}, lengths)}, &outputs, &error),
              HRNN_INVALID_ARGUMENT);
    EXPECT_MESSAGE(error, "recurrent layer 'encoder'");
    EXPECT_MESSAGE(error, std::to_string(bad));
  }
}

TEST_F(SessionErrors, BuffersThatOverlap) {
  // The final state may take the place of the initial one ...
  std::vector<float> state = random_values<float>(8, &gru.random);
  const std::vector<float> before = state;
  x = random_values<float>(30, &gru.random);
  std::vector<hrnn_tensor> outputs = {make_output(y), make_output(state)};
  ASSERT_EQ(run(session.get(), {make_tensor({5, 2, 3}, x), make_tensor({1, 2, 4}, state)}, &outputs, &error), HRNN_OK)
      << error.message;
  expect_near(state, expected_sequence(gru.layer, 5, 2, as_double(x), {}, as_double(before)).h, 2e-5, "h");
  // ... but not lie askew over it, and nothing may be written over x.
  std::vector<float> room(40);
  const std::vector<hrnn_tensor> inputs = {make_tensor({5, 2, 3}, x),
                                           make_tensor(HRNN_F32, {1, 2, 4}, room.data(), 32)};
  outputs = {make_output(y), make_tensor(HRNN_F32, {}, room.data() + 4, 32)};
  EXPECT_EQ(run(session.get(), inputs, &outputs, &error), HRNN_INVALID_ARGUMENT);
  EXPECT_MESSAGE(error, "output 'h' overlaps input 'h0'");
  outputs = {make_output(room), make_output(h)};
  EXPECT_EQ(run(session.get(), {make_tensor(HRNN_F32, {5, 2, 3}, room.data(), 120), make_tensor({1, 2, 4}, h0)},
                &outputs, &error),
            HRNN_INVALID_ARGUMENT);
  EXPECT_MESSAGE(error, "output 'y' overlaps input 'x'");
  outputs = {make_output(y), make_tensor(HRNN_F32, {}, y.data() + 38, 8)};
  outputs[1].bytes = 32;
  outputs[1].data = y.data() + 8;
  EXPECT_EQ(run(session.get(), {make_tensor({5, 2, 3}, x), make_tensor({1, 2, 4}, h0)}, &outputs, &error),
            HRNN_INVALID_ARGUMENT);
  EXPECT_MESSAGE(error, "output 'h' overlaps output 'y'");
}

TEST_F(SessionErrors, ABidirectionalStateInPlace) {
  GruModel two(true, HRNN_BIDIRECTIONAL);
  SessionPointer other = create(*two.model);
  std::vector<float> state = random_values<float>(16, &gru.random), both(80);
  const std::vector<float> before = state;
  x = random_values<float>(30, &gru.random);
  std::vector<hrnn_tensor> outputs = {make_output(both), make_output(state)};
  const std::vector<hrnn_tensor> inputs = {make_tensor({5, 2, 3}, x), make_tensor({2, 2, 4}, state)};
  ASSERT_EQ(reserve(other.get(), inputs, &error), HRNN_OK) << error.message;
  ASSERT_EQ(run(other.get(), inputs, &outputs, &error), HRNN_OK) << error.message;
  const auto expected = expected_sequence(two.layer, 5, 2, as_double(x), {}, as_double(before));
  expect_near(state, expected.h, 2e-5, "h");
  expect_near(both, expected.y, 2e-5, "y");
}

TEST_F(SessionErrors, OperationsThatDoNotFitTheShapes) {
  const struct {
    OpKind kind;
    std::vector<int64_t> ints;
    size_t rank;
    const char *message;
  } cases[] = {
      {OpKind::Select, {0, 3}, 1, "Select 'op': index 3 is outside dimension 0, which is 3"},
      {OpKind::Select, {0, -4}, 1, "Select 'op': index -4 is outside dimension 0, which is 3"},
      {OpKind::Squeeze, {1}, 1, "Squeeze 'op': dimension 1 is 4, it must be 1"},
      {OpKind::Reshape, {2, 5, -1}, 2, "Reshape 'op': 12 elements do not fit the new shape"},
      {OpKind::Reshape, {1, 11}, 1, "Reshape 'op': 12 elements do not fit the new shape"},
      {OpKind::Expand, {2, 2, 4}, 2, "Expand 'op': dimension 0 of 3 cannot be repeated to 2"},
  };
  for (const auto &c : cases) {
    ProgramBuilder builder;
    const int64_t n = builder.symbol("n");
    const uint32_t in = builder.input("in", HRNN_F32, {n, 4});
    const uint32_t out = builder.unary(c.kind, "op", in, {});
    std::copy(c.ints.begin(), c.ints.end(), builder.ops().back().ints);
    builder.output_of_rank(out, "out", HRNN_F32, c.rank);
    TestModel model(builder);
    SessionPointer other = create(model);
    ASSERT_NE(other, nullptr);
    EXPECT_EQ(reserve(other.get(), {shape({3, 4})}, &error), HRNN_INVALID_ARGUMENT);
    EXPECT_MESSAGE(error, c.message);
  }
}

TEST_F(SessionErrors, AModelThatContradictsItselfIsRefusedAtOnce) {
  ProgramBuilder builder;
  const uint32_t in = builder.input("in", HRNN_F32, {3, 4});
  builder.output(builder.unary(OpKind::Transpose, "swap", in, {1, 0}), "out", HRNN_F32, {3, 4});
  TestModel model(builder);
  hrnn_session *none = nullptr;
  EXPECT_EQ(hrnn_session_create(&model.model, nullptr, &none, &error), HRNN_CORRUPT_MODEL);
  EXPECT_MESSAGE(error, "output 'out': dimension 0 is 4 with these inputs, the model says 3");
  EXPECT_EQ(none, nullptr);
}

TEST_F(SessionErrors, UnknownCellsAndMissingKernels) {
  ProgramBuilder builder;
  std::mt19937 random(2);
  Layer layer = random_layer<float>("rnn", 3, 4, HRNN_FORWARD, true, &random);
  ProgramBuilder::LayerTensors t;
  t.x = builder.input("x", HRNN_F32, {5, 2, 3});
  t.h = builder.intermediate();
  builder.layer<float>("encoder", layer, 0, t);
  builder.output(t.h, "h", HRNN_F32, {1, 2, 4});
  TestModel good(builder);
  hrnn_session *none = nullptr;
  good.model.kernels = nullptr;
  EXPECT_EQ(hrnn_session_create(&good.model, nullptr, &none, &error), HRNN_UNSUPPORTED);
  EXPECT_MESSAGE(error, "recurrent layer 'encoder'");
  // Kernels may come with the options instead.
  const hrnn_kernel_table *tables[] = {session_kernels()};
  hrnn_options options = {};
  options.struct_size = sizeof(options);
  options.tables = tables;
  options.table_count = 1;
  EXPECT_EQ(hrnn_session_create(&good.model, &options, &none, &error), HRNN_OK) << error.message;
  hrnn_session_destroy(none);
  options.struct_size = 4;
  EXPECT_EQ(hrnn_session_create(&good.model, &options, &none, &error), HRNN_INVALID_ARGUMENT);
  EXPECT_MESSAGE(error, "options: struct_size is 4");

  hrnn_kernel_table old = *session_kernels();
  old.abi_version = 0;
  good.model.kernels = &old;
  EXPECT_EQ(hrnn_session_create(&good.model, nullptr, &none, &error), HRNN_CORRUPT_MODEL);
  good.model.kernels = session_kernels();
  good.model.abi_version = 99;
  EXPECT_EQ(hrnn_session_create(&good.model, nullptr, &none, &error), HRNN_CORRUPT_MODEL);
  EXPECT_MESSAGE(error, "99");
}

// ---- Damaged programs
// ----------------------------------------------------------------------------------------------------

// Every kind of operation once, weights both packed and arriving at run time.
ProgramBuilder everything() {
  std::mt19937 random(33);
  ProgramBuilder builder;
  const Layer first = random_layer<float>("gru", 3, 4, HRNN_BIDIRECTIONAL, true, &random);
  const Layer second = random_layer<float>("gru_reset_before", 8, 2, HRNN_FORWARD, true, &random);
  const int64_t batch = builder.symbol("batch"), time = builder.symbol("time");
  const uint32_t x = builder.input("x", HRNN_F32, {batch, time, 3});
  const uint32_t lengths = builder.input("lengths", HRNN_I32, {batch});
  ProgramBuilder::LayerTensors a, b;
  a.x = builder.unary(OpKind::Transpose, "transpose", x, {1, 0, 2});
  a.lengths = lengths;
  const uint32_t zero = builder.constant<float>({1, 1, 4}, {0.5f, 0, 0, 0});
  a.h0 = builder.unary(OpKind::Expand, "expand", zero, {3, 2, ProgramBuilder::target(batch), 4});
  a.y = builder.intermediate();
  a.h = builder.intermediate();
  builder.layer<float>("first", first, 0, a);
  const uint32_t swapped = builder.unary(OpKind::Transpose, "swap", a.y, {0, 2, 1, 3});
  b.x = builder.unary(OpKind::Reshape, "join", swapped, {3, 0, 0, -1});
  b.w = builder.input("W", HRNN_F32, {1, 6, 8});
  b.r = builder.input("R", HRNN_F32, {1, 6, 2});
  b.b = builder.input("B", HRNN_F32, {1, 12});
  b.y = builder.intermediate();
  builder.layer<float>("second", second, 0, b);
  const uint32_t squeezed = builder.unary(OpKind::Squeeze, "squeeze", b.y, {1});
  const uint32_t last = builder.unary(OpKind::Select, "last", squeezed, {0, -1});
  const uint32_t slice = builder.unary(OpKind::Slice, "slice", last, {1, -1, INT64_MIN, -1});
  const uint32_t joined = builder.concat("concat", {last, slice}, 1);
  const uint32_t scores = builder.dense<float>("dense", joined, 4, 3, as_double(random_values<float>(12, &random)), {});
  uint32_t activated = builder.unary(OpKind::Elementwise, "activation", scores, {HRNN_SIGMOID, 0, 1});
  // Of [batch, 3]: padded, in windows of two, picked, multiplied, and reduced to as much.
  const uint32_t padded = builder.unary(OpKind::Pad, "pad", activated, {0, 1, 0, 0, 0, 0, 0, 0, 0, 1}, {0.5});
  const uint32_t windows = builder.unary(OpKind::Window, "window", padded, {1, 2, 1, 2});  // [batch, 3, 2]
  const uint32_t picks = builder.constant<int64_t>({2}, {1, -2});
  const uint32_t picked = builder.intermediate(), doubled = builder.intermediate(), summed = builder.intermediate();
  builder.op(OpKind::Gather, "gather", {windows, picks}, {picked}).ints[0] = 2;
  const uint32_t matrix = builder.constant<float>({2, 2}, {1, 0.5f, -1, 2});
  builder.op(OpKind::MatMul, "matmul", {picked, matrix}, {doubled});
  const uint32_t reduced = builder.unary(OpKind::Reduce, "reduce", doubled, {0, 4, 0});
  hrnn::OpRecord &sum = builder.op(OpKind::Elementwise, "sum", {reduced, activated}, {summed});
  sum.ints[hrnn::kFunction] = static_cast<int64_t>(hrnn::Function::Add);
  sum.ints[hrnn::kInPlace] = 1;
  activated = summed;
  // Still [batch, 3]: in another order, each replaced by one of the largest, and put where it was.
  const uint32_t order = builder.unary(OpKind::TopK, "top", activated, {1, 3, 1});
  const uint32_t sorted = builder.intermediate(), rows = builder.intermediate(), deep_rows = builder.intermediate();
  builder.op(OpKind::Range, "rows", {}, {rows});
  const int64_t range[] = {ProgramBuilder::target(batch), 0, 1, HRNN_I64, 0};
  std::copy(std::begin(range), std::end(range), builder.ops().back().ints);
  builder.op(OpKind::GatherElements, "sorted", {activated, order}, {sorted}).ints[0] = 1;
  const uint32_t tuples = builder.unary(OpKind::Reshape, "tuples", rows, {2, 0, 1});
  builder.op(OpKind::GatherND, "rows again", {sorted, tuples}, {deep_rows}).ints[hrnn::kTupleSize] = 1;
  const uint32_t unsorted = builder.intermediate(), again = builder.intermediate();
  builder.op(OpKind::ScatterElements, "unsorted", {activated, order, deep_rows}, {unsorted}).ints[0] = 1;
  builder.op(OpKind::ScatterND, "twice", {unsorted, tuples, activated}, {again}).ints[hrnn::kTupleSize] = 1;
  builder.ops().back().ints[hrnn::kScatterReduction] = static_cast<int64_t>(hrnn::Function::Add);
  activated = again;
  const uint32_t deep = builder.unary(OpKind::Unsqueeze, "unsqueeze", activated, {0});
  builder.output(deep, "scores", HRNN_F32, {1, batch, 3});
  builder.output(a.h, "h", HRNN_F32, {2, batch, 4});
  return builder;
}

// Creates a session over damaged memory and, where that succeeds, does with it what a caller would.
void exercise(const hrnn_model &model) {
  static const hrnn_machine machine = [] {  // asked once: it is slow on virtual machines
    hrnn_machine detected = hrnn::make<hrnn_machine>();
    EXPECT_EQ(hrnn_machine_detect(nullptr, 0, &detected), HRNN_OK);
    return detected;
  }();
  hrnn_options options = hrnn::make<hrnn_options>();
  options.machine = &machine;
  hrnn_session *created = nullptr;
  hrnn_error error = {};
  const hrnn_status status = hrnn_session_create(&model, &options, &created, &error);
  SessionPointer session(created);
  if (status != HRNN_OK) {
    EXPECT_EQ(created, nullptr);
    EXPECT_STRNE(error.message, "");
    return;
  }
  std::vector<hrnn_tensor> inputs;
  std::vector<std::vector<char>> memory;
  for (size_t i = 0; i < hrnn_session_input_count(created); ++i) {
    hrnn_tensor_info info;
    ASSERT_EQ(hrnn_session_input(created, i, &info), HRNN_OK);
    EXPECT_NE(info.name, nullptr);
    std::vector<int64_t> dims;
    int64_t count = 1;
    for (int32_t d = 0; d < info.rank; ++d) {
      dims.push_back(info.dims[d] < 0 ? 2 : info.dims[d]);
      if (dims.back() > 300 || (count *= dims.back()) > 20000) return;  // a size no test should touch
    }
    memory.emplace_back(static_cast<size_t>(count * 8), 0);
    inputs.push_back(
        make_tensor(static_cast<hrnn_dtype>(info.dtype), dims, memory.back().data(), memory.back().size()));
  }
  std::vector<hrnn_tensor> outputs(hrnn_session_output_count(created));
  if (hrnn_session_reserve(created, inputs.data(), inputs.size(), outputs.data(), outputs.size(), &error) != HRNN_OK) {
    return;
  }
  for (hrnn_tensor &output : outputs) {
    int64_t count = 1;
    for (int32_t d = 0; d < output.rank; ++d) count *= output.dims[d];
    ASSERT_LE(count, 1000000);
    memory.emplace_back(static_cast<size_t>(count * 8 + 8), 0);
    output.data = memory.back().data();
    output.bytes = memory.back().size();
  }
  (void)hrnn_session_run(created, inputs.data(), inputs.size(), outputs.data(), outputs.size(), &error);
  (void)hrnn_session_stream(created, 1, &error);
  (void)hrnn_session_run(created, inputs.data(), inputs.size(), outputs.data(), outputs.size(), &error);
}

TEST(SessionDamage, TheIntactModelRuns) {
  TestModel model(everything());
  SessionPointer session = create(model);
  ASSERT_NE(session, nullptr);
  exercise(model.model);
}

TEST(SessionDamage, EveryRuleOfTheReader) {
  // Operations and tensors of everything(), by what they are.
  const auto op = [](ProgramBuilder *p, const char *kind, int which = 0) -> hrnn::OpRecord & {
    for (hrnn::OpRecord &record : p->ops()) {
      if (std::string(hrnn::op_kind_name(record.kind)) == kind && which-- == 0) return record;
    }
    ADD_FAILURE() << "no operation " << kind;
    return p->ops()[0];
  };
  using Edit = std::function<void(ProgramBuilder *)>;
  const uint32_t far = 1000000;
  const struct {
    const char *message;
    Edit edit;
  } rules[] = {
      {"its name is at 1000000", [&](ProgramBuilder *p) { p->tensors()[0].name = far; }},
      {"its name is at 1000000", [&](ProgramBuilder *p) { p->ops()[0].name = far; }},
      {"is_constant is 2", [&](ProgramBuilder *p) { p->tensors()[0].is_constant = 2; }},
      {"rank 9 is not in 0..8", [&](ProgramBuilder *p) { p->tensors()[0].rank = 9; }},
      {"rank -1 is not in 0..8", [&](ProgramBuilder *p) { p->tensors()[0].rank = -1; }},
      {"dtype 0", [&](ProgramBuilder *p) { p->tensors()[0].dtype = 0; }},
      {"neither a size nor one of 2 symbols", [&](ProgramBuilder *p) { p->tensors()[0].dims[0] = -3; }},
      {"nameless", [&](ProgramBuilder *p) { p->tensors()[0].name = kNone; }},
      {"does not know operation kind 99", [&](ProgramBuilder *p) { p->ops()[0].kind = 99; }},
      {"does not know operation kind 0", [&](ProgramBuilder *p) { p->ops()[0].kind = 0; }},
      {"there is no input 0", [&](ProgramBuilder *p) { p->ops()[0].inputs[0] = kNone; }},
      {"it takes no input 1", [&](ProgramBuilder *p) { p->ops()[0].inputs[1] = 0; }},
      {"nothing before it produces", [&](ProgramBuilder *p) { p->ops()[0].inputs[0] = p->ops()[3].outputs[0]; }},
      {"nothing before it produces", [&](ProgramBuilder *p) { p->ops()[0].inputs[0] = far; }},
      {"there is no output 0", [&](ProgramBuilder *p) { p->ops()[0].outputs[0] = kNone; }},
      {"it has no output 2", [&](ProgramBuilder *p) { p->ops()[0].outputs[2] = 0; }},
      {"produced twice", [&](ProgramBuilder *p) { p->ops()[1].outputs[0] = p->ops()[0].outputs[0]; }},
      {"produced twice", [&](ProgramBuilder *p) { p->ops()[0].outputs[0] = 0; }},
      {"produced twice", [&](ProgramBuilder *p) { p->ops()[0].outputs[0] = far; }},
      {"not a permutation", [&](ProgramBuilder *p) { op(p, "Transpose").ints[0] = 0; }},
      {"not a permutation", [&](ProgramBuilder *p) { op(p, "Transpose").ints[0] = 3; }},
      {"there is no axis 2", [&](ProgramBuilder *p) { op(p, "Slice").ints[0] = 2; }},
      {"the step is 0", [&](ProgramBuilder *p) { op(p, "Slice").ints[3] = 0; }},
      {"there is no axis -1", [&](ProgramBuilder *p) { op(p, "Select").ints[0] = -1; }},
      {"there is no axis 4", [&](ProgramBuilder *p) { op(p, "Squeeze").ints[0] = 4; }},
      {"there is no axis 3", [&](ProgramBuilder *p) { op(p, "Unsqueeze").ints[0] = 3; }},
      {"there is no rank 9", [&](ProgramBuilder *p) { op(p, "Reshape").ints[0] = 9; }},
      {"there is no rank -1", [&](ProgramBuilder *p) { op(p, "Reshape").ints[0] = -1; }},
      {"a second inferred dimension", [&](ProgramBuilder *p) { op(p, "Reshape").ints[1] = -1; }},
      {"neither a size nor a symbol", [&](ProgramBuilder *p) { op(p, "Reshape").ints[1] = -4; }},
      {"the input has no dimension 4",
       [&](ProgramBuilder *p) {
         const int64_t ints[] = {5, 1, 1, 1, 1, 0};
         std::copy(std::begin(ints), std::end(ints), op(p, "Reshape").ints);
       }},
      {"neither a size nor a symbol", [&](ProgramBuilder *p) { op(p, "Expand").ints[1] = 0; }},
      {"neither a size nor a symbol", [&](ProgramBuilder *p) { op(p, "Expand").ints[2] = -1; }},
      {"there is no function 31", [&](ProgramBuilder *p) { op(p, "elementwise operation").ints[0] = 31; }},
      {"alpha or beta is not finite", [&](ProgramBuilder *p) { op(p, "elementwise operation").reals[1] = INFINITY; }},
      {"its result cannot replace operand (counted from 1) 2", [&](ProgramBuilder *p) { op(p, "elementwise operation").ints[hrnn::kInPlace] = 2; }},
      {"there is no input 1", [&](ProgramBuilder *p) { op(p, "elementwise operation", 1).inputs[1] = kNone; }},
      {"the function does not take dtype 1",
       [&](ProgramBuilder *p) {
         op(p, "elementwise operation").ints[hrnn::kFunction] = static_cast<int64_t>(hrnn::Function::Not);
       }},
      {"one has dtype",
       [&](ProgramBuilder *p) { op(p, "elementwise operation", 1).inputs[0] = op(p, "Gather").inputs[1]; }},
      {"there is no dtype 8",
       [&](ProgramBuilder *p) {
         op(p, "elementwise operation").ints[hrnn::kFunction] = static_cast<int64_t>(hrnn::Function::Cast);
         op(p, "elementwise operation").ints[hrnn::kResultType] = 8;
       }},
      {"it cannot add elements: -1", [&](ProgramBuilder *p) { op(p, "Pad").ints[1] = -1; }},
      {"stride or dilation of the windows is 0", [&](ProgramBuilder *p) { op(p, "Window").ints[2] = 0; }},
      {"there is no axis 2", [&](ProgramBuilder *p) { op(p, "Window").ints[0] = 2; }},
      {"there is no axis 3", [&](ProgramBuilder *p) { op(p, "Gather").ints[0] = 3; }},
      {"the indices must be integers", [&](ProgramBuilder *p) { op(p, "Gather").inputs[1] = 0; }},
      {"the indices must be integers", [&](ProgramBuilder *p) { op(p, "ScatterND").inputs[1] = 0; }},
      {"data and indices must have the same rank, the indices have 1",
       [&](ProgramBuilder *p) { op(p, "GatherElements").inputs[1] = op(p, "Range").outputs[0]; }},
      {"data and indices must have the same rank, the indices have 1",
       [&](ProgramBuilder *p) { op(p, "ScatterElements").inputs[1] = op(p, "Range").outputs[0]; }},
      {"there is no axis 2", [&](ProgramBuilder *p) { op(p, "GatherElements").ints[0] = 2; }},
      {"there is no axis -1", [&](ProgramBuilder *p) { op(p, "ScatterElements").ints[0] = -1; }},
      {"the data cannot be picked from by tuples of 0", [&](ProgramBuilder *p) { op(p, "GatherND").ints[0] = 0; }},
      {"the data cannot be picked from by tuples of 3", [&](ProgramBuilder *p) { op(p, "ScatterND").ints[0] = 3; }},
      {"the indices have no batch dimensions 2", [&](ProgramBuilder *p) { op(p, "GatherND").ints[hrnn::kTupleBatch] = 2; }},
      {"the data cannot be picked from by tuples of 2",
       [&](ProgramBuilder *p) {
         op(p, "GatherND").ints[hrnn::kTupleSize] = 2;
         op(p, "GatherND").ints[hrnn::kTupleBatch] = 1;
       }},
      {"updates cannot be combined by function 97",
       [&](ProgramBuilder *p) { op(p, "ScatterND").ints[hrnn::kScatterReduction] = 97; }},
      {"input 2 has dtype", [&](ProgramBuilder *p) { op(p, "ScatterND").inputs[2] = op(p, "ScatterND").inputs[1]; }},
      {"input 2 has dtype", [&](ProgramBuilder *p) { op(p, "ScatterElements").inputs[2] = op(p, "TopK").outputs[0]; }},
      {"there is no axis 2", [&](ProgramBuilder *p) { op(p, "TopK").ints[hrnn::kTopKAxis] = 2; }},
      {"neither a size nor a symbol", [&](ProgramBuilder *p) { op(p, "TopK").ints[hrnn::kTopKCount] = -1; }},
      {"largest is neither 0 nor 1 but 2", [&](ProgramBuilder *p) { op(p, "TopK").ints[hrnn::kTopKLargest] = 2; }},
      {"neither a size nor a symbol", [&](ProgramBuilder *p) { op(p, "Range").ints[hrnn::kRangeCount] = -9; }},
      {"neither a size nor a symbol", [&](ProgramBuilder *p) { op(p, "Range").ints[hrnn::kRangeSymbol] = 7; }},
      {"neither a size nor a symbol", [&](ProgramBuilder *p) { op(p, "Range").ints[hrnn::kRangeSymbol] = -9; }},
      {"neither a size nor a symbol", [&](ProgramBuilder *p) { op(p, "Range").ints[hrnn::kRangeSymbol] = INT64_MAX; }},
      {"it cannot count in dtype 1", [&](ProgramBuilder *p) { op(p, "Range").ints[hrnn::kRangeType] = HRNN_F32; }},
      {"its inputs must be equal floats", [&](ProgramBuilder *p) { op(p, "MatMul").inputs[1] = op(p, "Gather").inputs[1]; }},
      {"there is no reduction 14", [&](ProgramBuilder *p) { op(p, "reduction").ints[0] = 14; }},
      {"an axis is out of range in the bits 8", [&](ProgramBuilder *p) { op(p, "reduction").ints[1] = 8; }},
      {"an index is of one axis, not of 2",
       [&](ProgramBuilder *p) {
         op(p, "reduction").ints[0] = static_cast<int64_t>(hrnn::Reduction::ArgMax);
         op(p, "reduction").ints[1] = 3;
       }},
      {"keeping axes is neither 0 nor 1", [&](ProgramBuilder *p) { op(p, "reduction").ints[2] = 2; }},
      {"the input has no dimension 5",
       [&](ProgramBuilder *p) { op(p, "Reshape").ints[1] = hrnn::kInputDim + 5; }},
      {"there is no axis 2", [&](ProgramBuilder *p) { op(p, "Concat").ints[0] = 2; }},
      {"inputs are missing before input 2",
       [&](ProgramBuilder *p) { std::swap(op(p, "Concat").inputs[1], op(p, "Concat").inputs[2]); }},
      {"input 1 has dtype", [&](ProgramBuilder *p) { op(p, "Concat").inputs[1] = 1; }},
      {"the number of input features is 0", [&](ProgramBuilder *p) { op(p, "dense layer").ints[hrnn::kDenseIn] = 0; }},
      {"the number of output features is",
       [&](ProgramBuilder *p) { op(p, "dense layer").ints[hrnn::kDenseOut] = int64_t{1} << 25; }},
      {"do not lie in the",
       [&](ProgramBuilder *p) { op(p, "dense layer").ints[hrnn::kDensePackedOffset] = int64_t{1} << 40; }},
      {"do not lie in the", [&](ProgramBuilder *p) { op(p, "dense layer").ints[hrnn::kDensePackedOffset] += 4; }},
      {"do not lie in the", [&](ProgramBuilder *p) { op(p, "dense layer").ints[hrnn::kDensePackedOffset] = -64; }},
      {"wrong number of bytes", [&](ProgramBuilder *p) { op(p, "dense layer").ints[hrnn::kDensePackedBytes] -= 64; }},
      {"there is no input 1", [&](ProgramBuilder *p) { op(p, "dense layer").ints[hrnn::kDensePackedOffset] = -1; }},
      {"its cell's name is outside", [&](ProgramBuilder *p) { op(p, "recurrent layer").ints[hrnn::kCellName] = far; }},
      {"there is no direction 3", [&](ProgramBuilder *p) { op(p, "recurrent layer").ints[hrnn::kDirection] = 3; }},
      {"there is no layout 2", [&](ProgramBuilder *p) { op(p, "recurrent layer").ints[hrnn::kLayout] = 2; }},
      {"the input size is 0", [&](ProgramBuilder *p) { op(p, "recurrent layer").ints[hrnn::kInputSize] = 0; }},
      {"the hidden size is -4", [&](ProgramBuilder *p) { op(p, "recurrent layer").ints[hrnn::kHiddenSize] = -4; }},
      {"its sizes need", [&](ProgramBuilder *p) { op(p, "recurrent layer").ints[hrnn::kHiddenSize] = 40; }},
      {"its sizes need", [&](ProgramBuilder *p) { op(p, "recurrent layer").ints[hrnn::kPackedBytes] -= 64; }},
      {"do not lie in the",
       [&](ProgramBuilder *p) { op(p, "recurrent layer").ints[hrnn::kPackedBytes] = int64_t{1} << 40; }},
      {"it takes no input 1", [&](ProgramBuilder *p) { op(p, "recurrent layer").inputs[hrnn::kW] = 0; }},
      {"there is no input 2", [&](ProgramBuilder *p) { op(p, "recurrent layer", 1).inputs[hrnn::kR] = kNone; }},
      {"clip_set is neither", [&](ProgramBuilder *p) { op(p, "recurrent layer").ints[hrnn::kClipSet] = 2; }},
      {"clip is negative",
       [&](ProgramBuilder *p) {
         op(p, "recurrent layer").ints[hrnn::kClipSet] = 1;
         op(p, "recurrent layer").reals[0] = NAN;
       }},
      {"there is no activation 11",
       [&](ProgramBuilder *p) { op(p, "recurrent layer").ints[hrnn::kActivationKinds + 4] = 11; }},
      {"activation 1 of direction 1 is missing",
       [&](ProgramBuilder *p) { op(p, "recurrent layer").ints[hrnn::kActivationKinds + 4] = -1; }},
      {"alpha or beta is not finite", [&](ProgramBuilder *p) { op(p, "recurrent layer").reals[2] = NAN; }},
      {"X has no floating-point dtype", [&](ProgramBuilder *p) { p->tensors()[0].dtype = HRNN_I64; }},
      {"input 4 has dtype 4", [&](ProgramBuilder *p) { p->tensors()[1].dtype = HRNN_I64; }},
      {"input 5 has dtype 1 and rank 4",
       [&](ProgramBuilder *p) {
         op(p, "Expand").ints[0] = 4;
         op(p, "Expand").ints[4] = 1;
       }},
      {"is declared with dtype 1 and rank 2",
       [&](ProgramBuilder *p) { p->tensors()[op(p, "Unsqueeze").outputs[0]].rank = 2; }},
      {"is declared with dtype 2", [&](ProgramBuilder *p) { p->tensors()[op(p, "Unsqueeze").outputs[0]].dtype = 2; }},
  };
  for (const auto &rule : rules) {
    ProgramBuilder builder = everything();
    rule.edit(&builder);
    TestModel model(builder);
    hrnn_session *session = nullptr;
    hrnn_error error = {};
    EXPECT_EQ(hrnn_session_create(&model.model, nullptr, &session, &error), HRNN_CORRUPT_MODEL) << rule.message;
    EXPECT_MESSAGE(error, rule.message);
    hrnn_session_destroy(session);
  }
}

TEST(SessionDamage, StringsThatDoNotEnd) {
  ProgramBuilder builder;
  // Five characters, an "x" and their zeros make eight bytes: no padding hides a missing zero.
  const uint32_t x = builder.input("input", HRNN_F32, {1});
  builder.output(x, "y", HRNN_F32, {1});
  TestModel model(builder);
  ASSERT_EQ(model.program.back(), 0);
  model.program.back() = 'z';
  hrnn_session *session = nullptr;
  hrnn_error error = {};
  EXPECT_EQ(hrnn_session_create(&model.model, nullptr, &session, &error), HRNN_CORRUPT_MODEL);
  EXPECT_MESSAGE(error, "do not end in a zero");
}

TEST(SessionDamage, TruncatedAnywhere) {
  TestModel model(everything());
  for (size_t bytes = 0; bytes < model.program.size(); ++bytes) {
    // In memory of its own, so that a read past the end is one past the end for a memory checker, too.
    const std::vector<char> cut(model.program.begin(), model.program.begin() + static_cast<int64_t>(bytes));
    hrnn_model damaged = model.model;
    damaged.program = cut.data();
    damaged.program_bytes = cut.size();
    hrnn_session *session = nullptr;
    hrnn_error error = {};
    EXPECT_EQ(hrnn_session_create(&damaged, nullptr, &session, &error), HRNN_CORRUPT_MODEL) << bytes;
    EXPECT_EQ(session, nullptr);
    EXPECT_STRNE(error.message, "");
    // With a header that agrees with the length.
    if (bytes < sizeof(hrnn::ProgramHeader)) continue;
    std::vector<char> agreeing = cut;
    const uint32_t length = static_cast<uint32_t>(bytes);
    memcpy(agreeing.data() + offsetof(hrnn::ProgramHeader, bytes), &length, sizeof(length));
    damaged.program = agreeing.data();
    const hrnn_status status = hrnn_session_create(&damaged, nullptr, &session, &error);
    EXPECT_TRUE(status == HRNN_CORRUPT_MODEL || (status == HRNN_OK && bytes + 8 > model.program.size())) << bytes;
    hrnn_session_destroy(session);
  }
}

TEST(SessionDamage, WeightsCutOff) {
  TestModel model(everything());
  for (uint64_t bytes = 0; bytes < model.weights.size(); bytes += 64) {
    hrnn_model damaged = model.model;
    damaged.weights_bytes = bytes;
    hrnn_session *session = nullptr;
    hrnn_error error = {};
    EXPECT_EQ(hrnn_session_create(&damaged, nullptr, &session, &error), HRNN_CORRUPT_MODEL) << bytes;
  }
  hrnn_model damaged = model.model;
  damaged.weights = static_cast<const char *>(damaged.weights) + 8;
  hrnn_session *session = nullptr;
  hrnn_error error = {};
  EXPECT_EQ(hrnn_session_create(&damaged, nullptr, &session, &error), HRNN_CORRUPT_MODEL);
  EXPECT_MESSAGE(error, "aligned");
}

TEST(SessionDamage, EveryByteFlipped) {
  TestModel model(everything());
  for (size_t at = 0; at < model.program.size(); ++at) {
    for (int mask : {0x01, 0x10, 0xff}) {
      SCOPED_TRACE(testing::Message() << "byte " << at << " mask " << mask);
      model.program[at] = static_cast<char>(model.program[at] ^ mask);
      exercise(model.model);
      model.program[at] = static_cast<char>(model.program[at] ^ mask);
      if (testing::Test::HasFailure()) return;
    }
  }
}

TEST(SessionDamage, WordsReplaced) {
  TestModel model(everything());
  const uint32_t words[] = {0, 1, 2, 3, 7, 0x7fffffffu, 0x80000000u, 0xfffffffeu, 0xffffffffu, 1000000u};
  for (size_t at = 0; at + 4 <= model.program.size(); at += 4) {
    for (uint32_t word : words) {
      SCOPED_TRACE(testing::Message() << "word at " << at << " := " << word);
      char old[4];
      memcpy(old, &model.program[at], 4);
      memcpy(&model.program[at], &word, 4);
      exercise(model.model);
      memcpy(&model.program[at], old, 4);
      if (testing::Test::HasFailure()) return;
    }
  }
}

// ---- Streaming
// -----------------------------------------------------------------------------------------------------------

// x [time, batch, 3] -> GRU -> RNN -> dense -> y [time, batch, 2]; and the GRU's final state.
struct StreamModel {
  explicit StreamModel(bool zero_initial_h = false) : random(9) {
    first = random_layer<double>("gru", 3, 4, HRNN_FORWARD, true, &random);
    second = random_layer<double>("rnn", 4, 5, HRNN_FORWARD, true, &random);
    w = random_values<double>(10, &random);
    b = random_values<double>(2, &random);
    const int64_t time = builder.symbol("time"), batch = builder.symbol("batch");
    ProgramBuilder::LayerTensors one, two;
    one.x = builder.input("x", HRNN_F64, {time, batch, 3});
    if (zero_initial_h) {
      const uint32_t zero = builder.constant<double>({1, 4}, {0, 0, 0, 0});
      const uint32_t wide = builder.unary(OpKind::Unsqueeze, "wide", zero, {0});
      one.h0 = builder.unary(OpKind::Expand, "expand", wide, {3, 1, ProgramBuilder::target(batch), 4});
    }
    one.y = builder.intermediate();
    one.h = builder.intermediate();
    builder.layer<double>("first", first, 0, one);
    two.x = builder.unary(OpKind::Squeeze, "squeeze", one.y, {1});
    two.y = builder.intermediate();
    builder.layer<double>("second", second, 0, two);
    const uint32_t squeezed = builder.unary(OpKind::Squeeze, "squeeze2", two.y, {1});
    builder.output(builder.dense<double>("dense", squeezed, 5, 2, w, b), "y", HRNN_F64, {time, batch, 2});
    builder.output(one.h, "h", HRNN_F64, {1, batch, 4});
    model = std::make_unique<TestModel>(builder);
  }
  std::vector<double> expected(int64_t time, int64_t batch, const std::vector<double> &x,
                               std::vector<double> *h) const {
    const auto one = expected_sequence(first, time, batch, x);
    const auto two = expected_sequence(second, time, batch, one.y);
    *h = one.h;
    std::vector<double> y;
    for (size_t row = 0; row < static_cast<size_t>(time * batch); ++row) {
      for (size_t n = 0; n < 2; ++n) {
        y.push_back(b[n]);
        for (size_t k = 0; k < 5; ++k) y.back() += two.y[row * 5 + k] * w[n * 5 + k];
      }
    }
    return y;
  }

  std::mt19937 random;
  Layer first, second;
  std::vector<double> w, b;
  ProgramBuilder builder;
  std::unique_ptr<TestModel> model;
};

class SessionStream : public testing::Test {
 protected:
  // Feeds x [T, N, 3] in pieces of `chunk` steps; y is what comes out, skipping those pieces for which `skip` says so.
  std::vector<double> feed(hrnn_session *session, int64_t chunk, const std::vector<double> &x, int64_t batch,
                           std::vector<double> *h) {
    const int64_t time = static_cast<int64_t>(x.size()) / (3 * batch);
    std::vector<double> y;
    for (int64_t t = 0; t < time; t += chunk) {
      const int64_t steps = std::min(chunk, time - t);
      std::vector<double> piece(x.begin() + t * batch * 3, x.begin() + (t + steps) * batch * 3);
      std::vector<double> out(static_cast<size_t>(steps * batch * 2));
      h->assign(static_cast<size_t>(batch * 4), 0);
      std::vector<hrnn_tensor> outputs = {make_output(out), make_output(*h)};
      EXPECT_EQ(run(session, {make_tensor({steps, batch, 3}, piece)}, &outputs, &error), HRNN_OK) << error.message;
      y.insert(y.end(), out.begin(), out.end());
    }
    return y;
  }

  StreamModel stream;
  hrnn_error error = {};
  std::vector<double> x = random_values<double>(7 * 2 * 3, &stream.random), h, expected_h;
};

TEST_F(SessionStream, StepsGiveWhatTheWholeSequenceGives) {
  SessionPointer session = create(*stream.model);
  ASSERT_EQ(reserve(session.get(), {make_tensor({7, 2, 3}, x)}, &error), HRNN_OK);
  const auto expected = stream.expected(7, 2, x, &expected_h);
  ASSERT_EQ(hrnn_session_stream(session.get(), 1, &error), HRNN_OK) << error.message;
  for (int64_t chunk : {1, 2, 3, 7}) {
    SCOPED_TRACE(chunk);
    hrnn_session_reset(session.get());
    expect_near(feed(session.get(), chunk, x, 2, &h), expected, 1e-12, "y");
    expect_near(h, expected_h, 1e-12, "h");
  }
  // Turning it on again starts over as well; off, every run stands alone.
  ASSERT_EQ(hrnn_session_stream(session.get(), 1, &error), HRNN_OK);
  expect_near(feed(session.get(), 1, x, 2, &h), expected, 1e-12, "y again");
  ASSERT_EQ(hrnn_session_stream(session.get(), 0, &error), HRNN_OK);
  for (int i = 0; i < 2; ++i) expect_near(feed(session.get(), 7, x, 2, &h), expected, 1e-12, "y alone");
}

TEST_F(SessionStream, StateGoesOnWhileOutputsAreSkipped) {
  SessionPointer session = create(*stream.model);
  ASSERT_EQ(reserve(session.get(), {make_tensor({7, 2, 3}, x)}, &error), HRNN_OK);
  ASSERT_EQ(hrnn_session_stream(session.get(), 1, &error), HRNN_OK);
  const auto expected = stream.expected(7, 2, x, &expected_h);
  std::vector<double> head(x.begin(), x.begin() + 24), tail(x.begin() + 24, x.end()), y(12);
  std::vector<hrnn_tensor> nothing(2), outputs = {make_output(y), {}};
  ASSERT_EQ(run(session.get(), {make_tensor({4, 2, 3}, head)}, &nothing, &error), HRNN_OK) << error.message;
  ASSERT_EQ(run(session.get(), {make_tensor({3, 2, 3}, tail)}, &outputs, &error), HRNN_OK) << error.message;
  expect_near(y, {expected.begin() + 16, expected.end()}, 1e-12, "y");
}

TEST_F(SessionStream, LayersRunEvenWhenNothingOfTheirsIsWanted) {
  // The first layer's y is an output and the second layer's input: skipped, it has to be kept somewhere else.
  ProgramBuilder builder;
  const Layer first = random_layer<double>("gru", 3, 4, HRNN_FORWARD, true, &stream.random);
  const Layer second = random_layer<double>("gru", 4, 4, HRNN_FORWARD, true, &stream.random);
  ProgramBuilder::LayerTensors one, two;
  one.x = builder.input("x", HRNN_F64, {7, 2, 3});
  one.y = builder.intermediate();
  builder.layer<double>("first", first, 0, one);
  two.x = builder.unary(OpKind::Squeeze, "squeeze", one.y, {1});
  two.h = builder.intermediate();
  builder.layer<double>("second", second, 0, two);
  builder.output(one.y, "y", HRNN_F64, {7, 1, 2, 4});
  TestModel model(builder);
  SessionPointer session = create(model);
  const std::vector<hrnn_tensor> inputs = {make_tensor({7, 2, 3}, x)};
  std::vector<double> y(56);
  std::vector<hrnn_tensor> outputs = {make_output(y)}, nothing(1);
  // The same choice of outputs before and after streaming begins: what is bound differs all the same.
  ASSERT_EQ(run(session.get(), inputs, &nothing, &error), HRNN_OK) << error.message;
  ASSERT_EQ(hrnn_session_stream(session.get(), 1, &error), HRNN_OK) << error.message;
  ASSERT_EQ(run(session.get(), inputs, &nothing, &error), HRNN_OK) << error.message;
  ASSERT_EQ(run(session.get(), inputs, &outputs, &error), HRNN_OK) << error.message;
  std::vector<double> twice(x);
  twice.insert(twice.end(), x.begin(), x.end());
  const auto expected = expected_sequence(first, 14, 2, twice);
  expect_near(y, {expected.y.begin() + 56, expected.y.end()}, 1e-12, "y");
}

TEST_F(SessionStream, GoesOnWhenMemoryGrows) {
  SessionPointer session = create(*stream.model);
  ASSERT_EQ(reserve(session.get(), {make_tensor({1, 2, 3}, x)}, &error), HRNN_OK);
  ASSERT_EQ(hrnn_session_stream(session.get(), 1, &error), HRNN_OK);
  const auto expected = stream.expected(7, 2, x, &expected_h);
  const std::vector<double> head(x.begin(), x.begin() + 24), tail(x.begin() + 24, x.end());
  auto y = feed(session.get(), 1, head, 2, &h);
  std::vector<double> large(9 * 8 * 3);
  ASSERT_EQ(reserve(session.get(), {make_tensor({9, 8, 3}, large)}, &error), HRNN_OK) << error.message;
  const auto rest = feed(session.get(), 3, tail, 2, &h);
  y.insert(y.end(), rest.begin(), rest.end());
  expect_near(y, expected, 1e-12, "y");
}

TEST_F(SessionStream, AnotherBatchNeedsAReset) {
  SessionPointer session = create(*stream.model);
  ASSERT_EQ(reserve(session.get(), {make_tensor({7, 2, 3}, x)}, &error), HRNN_OK);
  ASSERT_EQ(hrnn_session_stream(session.get(), 1, &error), HRNN_OK);
  feed(session.get(), 7, x, 2, &h);
  std::vector<double> one(3), y(2);
  std::vector<hrnn_tensor> outputs = {make_output(y), {}};
  EXPECT_EQ(run(session.get(), {make_tensor({1, 1, 3}, one)}, &outputs, &error), HRNN_INVALID_ARGUMENT);
  EXPECT_MESSAGE(error, "recurrent layer 'first': the stream carries the state of 2 sequences, this run has 1");
  hrnn_session_reset(session.get());
  EXPECT_EQ(run(session.get(), {make_tensor({1, 1, 3}, one)}, &outputs, &error), HRNN_OK) << error.message;
}

TEST_F(SessionStream, AConstantZeroInitialStateIsNone) {
  StreamModel zero(true);
  SessionPointer session = create(*zero.model);
  ASSERT_EQ(reserve(session.get(), {make_tensor({7, 2, 3}, x)}, &error), HRNN_OK);
  ASSERT_EQ(hrnn_session_stream(session.get(), 1, &error), HRNN_OK) << error.message;
  const auto expected = zero.expected(7, 2, x, &expected_h);
  expect_near(feed(session.get(), 2, x, 2, &h), expected, 1e-12, "y");
}

TEST_F(SessionStream, LayersThatCannotAreNamed) {
  GruModel with_state(true), reverse(false, HRNN_REVERSE), both(false, HRNN_BIDIRECTIONAL), good(false);
  SessionPointer session = create(*with_state.model);
  EXPECT_EQ(hrnn_session_stream(session.get(), 1, &error), HRNN_UNSUPPORTED);
  EXPECT_MESSAGE(error, "recurrent layer 'the gru' cannot stream: the model gives it an initial state");
  for (GruModel *model : {&reverse, &both}) {
    session = create(*model->model);
    EXPECT_EQ(hrnn_session_stream(session.get(), 1, &error), HRNN_UNSUPPORTED);
    EXPECT_MESSAGE(error, "recurrent layer 'the gru' cannot stream: it runs backwards");
    EXPECT_EQ(hrnn_session_stream(session.get(), 0, &error), HRNN_OK);
  }
  session = create(*good.model);
  EXPECT_EQ(hrnn_session_stream(session.get(), 1, &error), HRNN_OK);
}

// ---- Memory
// --------------------------------------------------------------------------------------------------------------

TEST(SessionMemory, ANewSessionRunsOneStepWithoutReserve) {
  StreamModel stream;
  SessionPointer session = create(*stream.model);
  std::vector<double> x(3), y(2), h(4);
  std::vector<hrnn_tensor> outputs = {make_output(y), make_output(h)};
  hrnn_error error = {};
  EXPECT_EQ(run(session.get(), {make_tensor({1, 1, 3}, x)}, &outputs, &error), HRNN_OK) << error.message;
}

TEST(SessionMemory, ReserveTellsTheShapesOfOutputs) {
  StreamModel stream;
  SessionPointer session = create(*stream.model);
  const hrnn_tensor input = make_tensor(HRNN_F64, {7, 2, 3}, nullptr, 0);
  std::vector<hrnn_tensor> outputs(2);
  hrnn_error error = {};
  ASSERT_EQ(hrnn_session_reserve(session.get(), &input, 1, outputs.data(), 2, &error), HRNN_OK) << error.message;
  EXPECT_EQ(dims_of(outputs[0]), (std::vector<int64_t>{7, 2, 2}));
  EXPECT_EQ(dims_of(outputs[1]), (std::vector<int64_t>{1, 2, 4}));
  EXPECT_EQ(outputs[0].dtype, HRNN_F64);
  EXPECT_EQ(hrnn_session_reserve(session.get(), &input, 1, outputs.data(), 1, &error), HRNN_INVALID_ARGUMENT);
}

TEST(SessionMemory, AnythingSmallerThanReservedFits) {
  TestModel model(everything());
  SessionPointer session = create(model);
  std::vector<float> x(4 * 5 * 3), w(48), r(12), b(12), scores(12), h(32);
  std::vector<int32_t> lengths(4, 1);
  hrnn_error error = {};
  const auto inputs = [&](int64_t n, int64_t t) {
    return std::vector<hrnn_tensor>{make_tensor({n, t, 3}, x), make_tensor({n}, lengths), make_tensor({1, 6, 8}, w),
                                    make_tensor({1, 6, 2}, r), make_tensor({1, 12}, b)};
  };
  ASSERT_EQ(reserve(session.get(), inputs(4, 5), &error), HRNN_OK) << error.message;
  for (int64_t n = 0; n <= 4; ++n) {
    for (int64_t t = 1; t <= 5; ++t) {
      for (int wanted = 0; wanted < 4; ++wanted) {
        std::vector<hrnn_tensor> outputs = {make_output(scores), make_output(h)};
        for (size_t o = 0; o < 2; ++o) {
          if ((wanted >> o & 1) == 0) outputs[o].data = nullptr;
        }
        ASSERT_EQ(run(session.get(), inputs(n, t), &outputs, &error), HRNN_OK) << n << " " << t << error.message;
      }
    }
  }
  std::vector<hrnn_tensor> outputs = {make_output(scores), make_output(h)};
  x.resize(4 * 6 * 3);
  EXPECT_EQ(run(session.get(), inputs(4, 6), &outputs, &error), HRNN_CAPACITY);
  EXPECT_MESSAGE(error, "are reserved");
  EXPECT_EQ(run(session.get(), inputs(4, 0), &outputs, &error), HRNN_INVALID_ARGUMENT);  // there is no last step
  EXPECT_MESSAGE(error, "Select 'last'");
}

TEST(SessionMemory, ValuesWhoseLivesDoNotOverlapShareASlot) {
  // A chain of ten activations needs two places, not nine.
  ProgramBuilder builder;
  uint32_t id = builder.input("x", HRNN_F32, {1000});
  for (int i = 0; i < 10; ++i) id = builder.unary(OpKind::Elementwise, "f" + std::to_string(i), id, {HRNN_TANH});
  builder.output(id, "y", HRNN_F32, {1000});
  TestModel model(builder);
  SessionPointer session = create(model);
  EXPECT_LE(session->arena.size(), 2u * 4032u);
  EXPECT_GE(hrnn_session_bytes(session.get()), session->arena.size());
}

TEST(SessionMemory, APartOfAConcatIsKeptAsLongAsItIsRead) {
  // a is computed inside the Concat; the Concat is read for the last time before a is.
  ProgramBuilder builder;
  const uint32_t x = builder.input("x", HRNN_F32, {64});
  const uint32_t a = builder.unary(OpKind::Elementwise, "a", x, {HRNN_AFFINE}, {2, 0});
  const uint32_t joined = builder.concat("joined", {a, a}, 0);
  uint32_t id = builder.unary(OpKind::Elementwise, "b", joined, {HRNN_AFFINE}, {3, 0});
  for (int i = 0; i < 3; ++i) {
    id = builder.unary(OpKind::Elementwise, "c" + std::to_string(i), id, {HRNN_AFFINE}, {1, 1});
  }
  builder.output(id, "y", HRNN_F32, {128});
  builder.output(builder.unary(OpKind::Elementwise, "z", a, {HRNN_AFFINE}, {5, 0}), "z", HRNN_F32, {64});
  TestModel model(builder);
  SessionPointer session = create(model);
  std::vector<float> values(64), y(128), z(64);
  std::iota(values.begin(), values.end(), 1.f);
  std::vector<hrnn_tensor> outputs = {make_output(y), make_output(z)};
  hrnn_error error = {};
  ASSERT_EQ(run(session.get(), {make_tensor({64}, values)}, &outputs, &error), HRNN_OK) << error.message;
  for (size_t i = 0; i < 64; ++i) {
    EXPECT_EQ(y[i], 6 * values[i] + 3);
    EXPECT_EQ(y[64 + i], 6 * values[i] + 3);
    EXPECT_EQ(z[i], 10 * values[i]);
  }
}

#if HRNN_COUNTS_ALLOCATIONS
TEST(SessionMemory, RunsAllocateNothing) {
  TestModel model(everything());
  SessionPointer session = create(model);
  std::vector<float> x(4 * 5 * 3), w(48), r(12), b(12), scores(12), h(32);
  std::vector<int32_t> lengths(4, 1);
  hrnn_error error = {};
  const auto inputs = [&](int64_t n, int64_t t) {
    return std::vector<hrnn_tensor>{make_tensor({n, t, 3}, x), make_tensor({n}, lengths), make_tensor({1, 6, 8}, w),
                                    make_tensor({1, 6, 2}, r), make_tensor({1, 12}, b)};
  };
  const std::vector<hrnn_tensor> large = inputs(4, 5), small = inputs(2, 3), wrong = inputs(4, 0);
  std::vector<hrnn_tensor> outputs = {make_output(scores), make_output(h)};
  ASSERT_EQ(reserve(session.get(), large, &error), HRNN_OK) << error.message;
  StreamModel stream;
  SessionPointer streaming = create(*stream.model);
  std::vector<double> step(3), y(2), state(4);
  const std::vector<hrnn_tensor> step_inputs = {make_tensor({1, 1, 3}, step)};
  std::vector<hrnn_tensor> step_outputs = {make_output(y), make_output(state)};
  ASSERT_EQ(hrnn_session_stream(streaming.get(), 1, &error), HRNN_OK);

  const long before = allocation_count;
  hrnn_status statuses[8] = {
      run(session.get(), large, &outputs, &error),
      run(session.get(), large, &outputs, &error),
      run(session.get(), small, &outputs, &error),
      run(session.get(), wrong, &outputs, &error),
      run(session.get(), large, &outputs, &error),
      run(streaming.get(), step_inputs, &step_outputs, &error),
      run(streaming.get(), step_inputs, &step_outputs, &error),
      HRNN_OK,
  };
  hrnn_session_reset(streaming.get());
  statuses[7] = run(streaming.get(), step_inputs, &step_outputs, &error);
  const long after = allocation_count;
  EXPECT_EQ(after - before, 0);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(statuses[i], i == 3 ? HRNN_INVALID_ARGUMENT : HRNN_OK) << i;
  // The counter counts.
  std::vector<int> something(1000);
  EXPECT_GT(allocation_count, after);
}

TEST(SessionMemory, EveryAllocationMayFail) {
  TestModel model(everything());
  std::vector<float> x(4 * 5 * 3), w(48), r(12), b(12);
  std::vector<int32_t> lengths(4, 1);
  const std::vector<hrnn_tensor> inputs = {make_tensor({4, 5, 3}, x), make_tensor({4}, lengths),
                                           make_tensor({1, 6, 8}, w), make_tensor({1, 6, 2}, r),
                                           make_tensor({1, 12}, b)};
  int failures = 0;
  for (long n = 0;; ++n) {
    hrnn_session *session = nullptr;
    hrnn_error error = {};
    const long first = allocation_count;
    failing_allocation = first + n;
    hrnn_status status = hrnn_session_create(&model.model, nullptr, &session, &error);
    if (status == HRNN_OK) {
      status = hrnn_session_reserve(session, inputs.data(), inputs.size(), nullptr, 0, &error);
    }
    const bool reached = allocation_count > failing_allocation;
    failing_allocation = -1;
    if (status != HRNN_OK) {
      ++failures;
      EXPECT_EQ(status, HRNN_OUT_OF_MEMORY) << n << ": " << error.message;
      EXPECT_MESSAGE(error, "no memory");
    }
    if (session != nullptr) {
      // What is left is whole: the same call succeeds now, and the model runs.
      EXPECT_EQ(hrnn_session_reserve(session, inputs.data(), inputs.size(), nullptr, 0, &error), HRNN_OK) << n;
      std::vector<float> scores(12), h(32);
      std::vector<hrnn_tensor> outputs = {make_output(scores), make_output(h)};
      EXPECT_EQ(run(session, inputs, &outputs, &error), HRNN_OK) << n;
    }
    hrnn_session_destroy(session);
    if (!reached) break;
  }
  EXPECT_GT(failures, 20);
}
#endif

// ---- What a session tells about itself
// -----------------------------------------------------------------------------------

TEST(SessionInfo, InputsOutputsSymbolsAndSelection) {
  GruModel gru;
  SessionPointer session = create(*gru.model);
  EXPECT_EQ(hrnn_session_input_count(session.get()), 2u);
  EXPECT_EQ(hrnn_session_output_count(session.get()), 2u);
  hrnn_tensor_info info;
  ASSERT_EQ(hrnn_session_input(session.get(), 1, &info), HRNN_OK);
  EXPECT_STREQ(info.name, "h0");
  EXPECT_EQ(info.dtype, HRNN_F32);
  EXPECT_EQ(info.rank, 3);
  EXPECT_EQ(info.dims[0], 1);
  ASSERT_LT(info.dims[1], 0);
  EXPECT_STREQ(hrnn_session_symbol(session.get(), static_cast<size_t>(-1 - info.dims[1])), "batch");
  EXPECT_EQ(info.dims[2], 4);
  ASSERT_EQ(hrnn_session_output(session.get(), 0, &info), HRNN_OK);
  EXPECT_STREQ(info.name, "y");
  EXPECT_EQ(info.rank, 4);
  EXPECT_EQ(hrnn_session_input(session.get(), 2, &info), HRNN_INVALID_ARGUMENT);
  EXPECT_EQ(hrnn_session_output(session.get(), 2, &info), HRNN_INVALID_ARGUMENT);
  EXPECT_EQ(hrnn_session_symbol(session.get(), 99), nullptr);
  hrnn_selection selection = {};
  selection.struct_size = sizeof(selection);
  ASSERT_EQ(hrnn_session_selection(session.get(), 0, &selection), HRNN_OK);
  EXPECT_NE(std::string(selection.variant).find("gru"), std::string::npos) << selection.variant;
  EXPECT_EQ(hrnn_session_selection(session.get(), 1, &selection), HRNN_INVALID_ARGUMENT);
}

// ---- The C++ layer
// -------------------------------------------------------------------------------------------------------

TEST(SessionCpp, RunsAModel) {
  GruModel gru;
  hrnn::Session session(gru.model->model);
  std::vector<float> x = random_values<float>(30, &gru.random), h0 = random_values<float>(8, &gru.random), y(40);
  const std::vector<float> &constant_x = x;
  const hrnn_tensor inputs[] = {hrnn::tensor(constant_x, {5, 2, 3}), hrnn::tensor(h0, {1, 2, 4})};
  std::vector<hrnn_tensor> outputs = {hrnn::tensor(y), hrnn::skipped()};
  session.reserve(inputs).check();
  session.run(inputs, outputs).check();
  EXPECT_EQ(dims_of(outputs[0]), (std::vector<int64_t>{5, 1, 2, 4}));
  expect_near(y, expected_sequence(gru.layer, 5, 2, as_double(x), {}, as_double(h0)).y, 2e-5, "y");

  EXPECT_EQ(session.input_count(), 2u);
  EXPECT_STREQ(session.input(0).name, "x");
  EXPECT_STREQ(session.output(1).name, "h");
  EXPECT_EQ(session.input(7).name, nullptr);
  EXPECT_STREQ(session.symbol(0), "time");
  EXPECT_TRUE(session.selection(0).has_value());
  EXPECT_FALSE(session.selection(1).has_value());
  EXPECT_GT(session.bytes(), 0u);
  hrnn::Session moved = std::move(session);
  EXPECT_TRUE(moved.run(inputs, outputs).ok());
}

TEST(SessionCpp, SaysWhatWentWrong) {
  GruModel gru;
  hrnn::Session session(gru.model->model);
  const hrnn_tensor inputs[] = {hrnn::shape<float>({5, 2, 9}), hrnn::shape<float>({1, 2, 4})};
  const hrnn::Status status = session.reserve(inputs);
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(status.code(), HRNN_INVALID_ARGUMENT);
  EXPECT_NE(status.message().find("dimension 2 is 9"), std::string::npos) << status.message();
  EXPECT_THROW(status.check(), hrnn::Error);
  EXPECT_FALSE(session.stream().ok());
  hrnn_model damaged = gru.model->model;
  damaged.program_bytes = 8;
  EXPECT_THROW(hrnn::Session{damaged}, hrnn::Error);
  const auto result = hrnn::Session::create(damaged);
  EXPECT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), HRNN_CORRUPT_MODEL);
}

TEST(SessionCpp, PlanAndState) {
  std::mt19937 random(8);
  const Layer layer = random_layer<float>("gru", 3, 4, HRNN_FORWARD, true, &random);
  const std::vector<float> w(layer.w.begin(), layer.w.end()), r(layer.r.begin(), layer.r.end()),
      b(layer.b.begin(), layer.b.end());
  auto problem = hrnn::make<hrnn_problem>();
  problem.dtype = HRNN_F32;
  problem.cell = "gru";
  problem.input_size = 3;
  problem.hidden_size = 4;
  auto weights = hrnn::make<hrnn_weights>();
  weights.w = w.data();
  weights.r = r.data();
  weights.b = b.data();
  const hrnn_kernel_table *tables[] = {session_kernels()};
  auto options = hrnn::make<hrnn_options>();
  options.tables = tables;
  options.table_count = 1;
  hrnn::Plan plan(problem, weights, &options);
  hrnn::State state(plan, 2);
  const std::vector<float> x = random_values<float>(30, &random);
  std::vector<float> y(40), h(8);
  auto args = hrnn::make<hrnn_run_args>();
  args.time = 5;
  args.batch = 2;
  args.x = x.data();
  args.y = y.data();
  state.run(args).check();
  const auto expected = expected_sequence(layer, 5, 2, as_double(x));
  expect_near(y, expected.y, 2e-5, "y");
  state.copy_to(2, h.data()).check();
  expect_near(h, expected.h, 2e-5, "h");
  state.reset();
  state.stream(args).check();
  expect_near(y, expected.y, 2e-5, "y, streamed");
  problem.hidden_size = 0;
  EXPECT_THROW(hrnn::Plan(problem, weights, &options), hrnn::Error);
}

// ---- Layers at the same time ------------------------------------------------------------------------------------------

// The host's pool of the tests: counts, and starts its threads anew.
struct Pool {
  std::atomic<int> calls{0};
  static void parallel(void *pool, uint32_t count, void (*task)(void *, uint32_t), void *argument) {
    static_cast<Pool *>(pool)->calls++;
    std::vector<std::thread> threads;
    for (uint32_t i = 1; i < count; ++i) threads.emplace_back([=] { task(argument, i); });
    task(argument, 0);
    for (std::thread &thread : threads) thread.join();
  }
};

struct DestroyTeam {
  void operator()(hrnn_team *team) const { hrnn_team_destroy(team); }
};
using TeamPointer = std::unique_ptr<hrnn_team, DestroyTeam>;

TeamPointer make_team(uint32_t threads, Pool *pool = nullptr) {
  hrnn_team_options options = {};
  options.struct_size = sizeof(options);
  options.threads = threads;
  if (pool != nullptr) options.parallel = Pool::parallel;
  options.pool = pool;
  hrnn_team *team = nullptr;
  hrnn_error error = {};
  EXPECT_EQ(hrnn_team_create(&options, &team, &error), HRNN_OK) << error.message;
  return TeamPointer(team);
}

// So large that two layers are worth a call of the host's pool.
constexpr int64_t kUnits = 32;

// As random_layer, with states that forget: hundreds of steps of others are not the same in float and in double.
Layer forgetful_layer(const std::string &cell, hrnn_direction direction, std::mt19937 *random) {
  Layer layer = random_layer<float>(cell, kUnits, kUnits, direction, true, random);
  for (double &value : layer.r) value = float(value * 0.2);
  return layer;
}

// Layers one over the other; outputs: Y of the last one, and the final states of all.
struct Stack {
  std::vector<std::string> cells;
  hrnn_direction direction = HRNN_FORWARD;
  int64_t layout = 0;
  bool lengths = false, initial_h = false;
  double clip = HUGE_VAL;
};

void PrintTo(const Stack &c, std::ostream *out) {
  for (const std::string &cell : c.cells) *out << cell << " ";
  *out << "direction " << c.direction << " layout " << c.layout << (c.lengths ? " lengths" : "")
       << (c.initial_h ? " initial_h" : "") << (std::isfinite(c.clip) ? " clip" : "");
}

class StackModel {
 public:
  explicit StackModel(const Stack &stack) : stack_(stack), random_(3) {
    ProgramBuilder builder;
    const int64_t time = builder.symbol("time"), batch = builder.symbol("batch");
    const std::vector<int64_t> rows = dims(time, batch);
    uint32_t x = builder.input("x", HRNN_F32, {rows[0], rows[1], kUnits});
    const uint32_t lengths = stack.lengths ? builder.input("lengths", HRNN_I32, {batch}) : kNone;
    std::vector<uint32_t> states;
    for (size_t i = 0; i < stack.cells.size(); ++i) {
      layers_.push_back(forgetful_layer(stack.cells[i], stack.direction, &random_));
      layers_.back().clip = stack.clip;
      ProgramBuilder::LayerTensors t;
      t.x = x;
      t.lengths = lengths;
      if (stack.initial_h) t.h0 = builder.input("h" + std::to_string(i), HRNN_F32, h_dims(batch));
      t.y = builder.intermediate();
      t.h = builder.intermediate();
      builder.layer<float>("layer " + std::to_string(i), layers_.back(), stack.layout, t);
      states.push_back(t.h);
      x = builder.unary(OpKind::Squeeze, "squeeze", t.y, {stack.layout == 1 ? 2 : 1});
    }
    builder.output(x, "y", HRNN_F32, {rows[0], rows[1], kUnits});
    const uint32_t joined = builder.concat("states", states, stack.layout);
    builder.output_of_rank(joined, "h", HRNN_F32, 3);
    model_ = std::make_unique<TestModel>(builder);
  }

  const TestModel &model() const { return *model_; }
  size_t layers() const { return layers_.size(); }

  struct Result {
    std::vector<float> y, h;
    std::string error;
    long allocations = -1;  // of the run
  };

  void fill(int64_t time, int64_t batch) {
    time_ = time, batch_ = batch;
    x_ = random_values<float>(time * batch * kUnits, &random_);
    h0_.clear();
    lengths_.clear();
    for (size_t i = 0; i < layers(); ++i) h0_.push_back(random_values<float>(batch * kUnits, &random_));
    for (int64_t n = 0; n < batch; ++n) lengths_.push_back(static_cast<int32_t>(time - (n * 7) % (time + 1)));
  }

  Result run(hrnn_team *team) {
    Result result;
    SessionPointer session = create(*model_, team);
    std::vector<hrnn_tensor> inputs = {x()};
    if (stack_.lengths) inputs.push_back(make_tensor({batch_}, lengths_));
    for (size_t i = 0; stack_.initial_h && i < layers(); ++i) inputs.push_back(make_tensor(h_dims(batch_), h0_[i]));
    result.y.assign(x_.size(), 77);
    result.h.assign(layers() * static_cast<size_t>(batch_ * kUnits), 77);
    std::vector<hrnn_tensor> outputs = {make_output(result.y), make_output(result.h)};
    hrnn_error error = {};
    if (reserve(session.get(), inputs, &error) == HRNN_OK) {
#if HRNN_COUNTS_ALLOCATIONS
      const long before = allocation_count;
#endif
      (void)::run(session.get(), inputs, &outputs, &error);
#if HRNN_COUNTS_ALLOCATIONS
      result.allocations = allocation_count - before;
#endif
    }
    result.error = error.message;
    return result;
  }

  hrnn_tensor x() { return make_tensor({dims(time_, batch_)[0], dims(time_, batch_)[1], kUnits}, x_); }

  // By the reference.
  void expect(const Result &result) const {
    std::vector<double> y = stack_.layout == 1 ? swap_axes(as_double(x_), batch_, time_) : as_double(x_), h;
    for (size_t i = 0; i < layers(); ++i) {
      const Sequence expected =
          expected_sequence(layers_[i], time_, batch_, y, stack_.lengths ? lengths_ : std::vector<int32_t>(),
                            stack_.initial_h ? as_double(h0_[i]) : std::vector<double>());
      y = expected.y;
      h.insert(h.end(), expected.h.begin(), expected.h.end());
    }
    if (stack_.layout == 1) {
      y = swap_axes(y, time_, batch_);
      h = swap_axes(h, static_cast<int64_t>(layers()), batch_);
    }
    expect_near(result.y, y, 2e-5, "y");
    expect_near(result.h, h, 2e-5, "h");
  }

 private:
  std::vector<int64_t> dims(int64_t time, int64_t batch) const {
    return stack_.layout == 1 ? std::vector<int64_t>{batch, time} : std::vector<int64_t>{time, batch};
  }
  std::vector<int64_t> h_dims(int64_t batch) const {
    return stack_.layout == 1 ? std::vector<int64_t>{batch, 1, kUnits} : std::vector<int64_t>{1, batch, kUnits};
  }

  Stack stack_;
  std::mt19937 random_;
  std::vector<Layer> layers_;
  std::unique_ptr<TestModel> model_;
  int64_t time_ = 0, batch_ = 0;
  std::vector<float> x_;
  std::vector<std::vector<float>> h0_;
  std::vector<int32_t> lengths_;
};

std::vector<Stack> stacks() {
  std::vector<Stack> all;
  for (hrnn_direction direction : {HRNN_FORWARD, HRNN_REVERSE}) {
    all.push_back({{"gru", "gru"}, direction, 0, false, false});
    all.push_back({{"gru", "gru"}, direction, 1, true, true});
    all.push_back({{"rnn", "gru_reset_before", "gru"}, direction, 0, true, false, 0.5});
    all.push_back({{"gru", "gru_reset_before", "rnn"}, direction, 1, false, true});
  }
  return all;
}

TEST(SessionTeam, LayersThatFollowEachOtherGiveWhatOneThreadGives) {
  Pool pool;
  const TeamPointer hosted[] = {make_team(2, &pool), make_team(3, &pool)};
  const TeamPointer own = make_team(2);
  for (const Stack &stack : stacks()) {
    SCOPED_TRACE(testing::PrintToString(stack));
    StackModel model(stack);
    // Lengths that blocks of steps do not divide; more rows than a block has, fewer steps than blocks.
    for (auto [time, batch] : {std::pair<int64_t, int64_t>{421, 1}, {147, 3}, {9, 60}}) {
      SCOPED_TRACE(testing::Message() << "T " << time << " N " << batch);
      model.fill(time, batch);
      const StackModel::Result alone = model.run(nullptr);
      ASSERT_EQ(alone.error, "");
      model.expect(alone);
      for (const TeamPointer &team : hosted) {
        const int before = pool.calls;
        const StackModel::Result together = model.run(team.get());
        EXPECT_EQ(together.error, "");
        EXPECT_EQ(together.y, alone.y);
        EXPECT_EQ(together.h, alone.h);
        EXPECT_EQ(pool.calls, before + 1) << "all layers should have run at the same time";
      }
      const StackModel::Result together = model.run(own.get());
      EXPECT_EQ(together.y, alone.y);
      EXPECT_EQ(together.h, alone.h);
#if HRNN_COUNTS_ALLOCATIONS
      EXPECT_EQ(together.allocations, 0);
#endif
    }
  }
}

TEST(SessionTeam, FewStepsOrNone) {
  Pool pool;
  const TeamPointer hosted = make_team(2, &pool), own = make_team(2);
  StackModel model({{"gru", "rnn"}, HRNN_FORWARD, 0, true, true});
  for (auto [time, batch] : {std::pair<int64_t, int64_t>{0, 3}, {5, 0}, {1, 1}, {1, 4}, {2, 1}, {3, 5}}) {
    model.fill(time, batch);
    const StackModel::Result alone = model.run(nullptr);
    model.expect(alone);
    for (hrnn_team *team : {hosted.get(), own.get()}) {
      const StackModel::Result together = model.run(team);
      EXPECT_EQ(together.error, "");
      EXPECT_EQ(together.y, alone.y) << "T " << time << " N " << batch;
      EXPECT_EQ(together.h, alone.h) << "T " << time << " N " << batch;
    }
  }
  EXPECT_EQ(pool.calls, 0);
}

// Runs that follow each other find the team awake, others asleep.
TEST(SessionTeam, ManySmallRuns) {
  const TeamPointer own = make_team(2);
  StackModel model({{"rnn", "rnn", "rnn"}});
  model.fill(50, 1);
  const StackModel::Result expected = model.run(nullptr);
  SessionPointer session = create(model.model(), own.get());
  hrnn_error error = {};
  std::vector<hrnn_tensor> inputs = {model.x()};
  ASSERT_EQ(reserve(session.get(), inputs, &error), HRNN_OK) << error.message;
  for (int i = 0; i < 300; ++i) {
    if (i % 100 == 99) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    std::vector<float> y(expected.y.size()), h(expected.h.size());
    std::vector<hrnn_tensor> outputs = {make_output(y), make_output(h)};
    ASSERT_EQ(run(session.get(), inputs, &outputs, &error), HRNN_OK) << error.message;
    ASSERT_EQ(y, expected.y) << i;
    ASSERT_EQ(h, expected.h) << i;
  }
}

TEST(SessionTeam, DirectionsThatAreLayersOfTheirOwnRunAtTheSameTime) {
  // As Keras exports a bidirectional layer.
  std::mt19937 random(4);
  const Layer forward = forgetful_layer("gru", HRNN_FORWARD, &random), reverse = forgetful_layer("gru", HRNN_REVERSE, &random);
  const int64_t T = 421;
  ProgramBuilder builder;
  const uint32_t x = builder.input("x", HRNN_F32, {T, 1, kUnits});
  std::vector<uint32_t> parts;
  for (const Layer *layer : {&forward, &reverse}) {
    ProgramBuilder::LayerTensors t;
    t.x = x;
    t.y = builder.intermediate();
    builder.layer<float>("layer", *layer, 0, t);
    parts.push_back(builder.unary(OpKind::Squeeze, "squeeze", t.y, {1}));
  }
  builder.output(builder.concat("joined", parts, 2), "y", HRNN_F32, {T, 1, 2 * kUnits});
  TestModel model(builder);
  Pool pool;
  const TeamPointer team = make_team(2, &pool);
  SessionPointer session = create(model, team.get());
  std::vector<float> values = random_values<float>(T * kUnits, &random), y(2 * values.size());
  std::vector<hrnn_tensor> outputs = {make_output(y)};
  hrnn_error error = {};
  ASSERT_EQ(run(session.get(), {make_tensor({T, 1, kUnits}, values)}, &outputs, &error), HRNN_OK) << error.message;
  EXPECT_EQ(pool.calls, 1);
  const Sequence one = expected_sequence(forward, T, 1, as_double(values));
  const Sequence two = expected_sequence(reverse, T, 1, as_double(values));
  std::vector<double> expected;
  for (int64_t t = 0; t < T; ++t) {
    for (const Sequence *part : {&one, &two}) {
      expected.insert(expected.end(), part->y.begin() + t * kUnits, part->y.begin() + (t + 1) * kUnits);
    }
  }
  expect_near(y, expected, 2e-5, "y");
}

TEST(SessionTeam, ALayerThatStartsFromAnothersFinalStateWaitsForIt) {
  std::mt19937 random(6);
  const Layer first = forgetful_layer("gru", HRNN_FORWARD, &random), second = forgetful_layer("gru", HRNN_FORWARD, &random);
  const int64_t T = 421;
  ProgramBuilder builder;
  ProgramBuilder::LayerTensors a, b;
  a.x = builder.input("x", HRNN_F32, {T, 1, kUnits});
  a.y = builder.intermediate();
  a.h = builder.intermediate();
  builder.layer<float>("encoder", first, 0, a);
  b.x = builder.unary(OpKind::Squeeze, "squeeze", a.y, {1});
  b.h0 = a.h;
  b.y = builder.intermediate();
  builder.layer<float>("decoder", second, 0, b);
  builder.output(b.y, "y", HRNN_F32, {T, 1, 1, kUnits});
  TestModel model(builder);
  Pool pool;
  const TeamPointer team = make_team(2, &pool);
  SessionPointer session = create(model, team.get());
  std::vector<float> x = random_values<float>(T * kUnits, &random), y(x.size());
  std::vector<hrnn_tensor> outputs = {make_output(y)};
  hrnn_error error = {};
  ASSERT_EQ(run(session.get(), {make_tensor({T, 1, kUnits}, x)}, &outputs, &error), HRNN_OK) << error.message;
  EXPECT_EQ(pool.calls, 0);
  const Sequence one = expected_sequence(first, T, 1, as_double(x));
  expect_near(y, expected_sequence(second, T, 1, one.y, {}, one.h).y, 2e-5, "y");
}

TEST(SessionTeam, AnOutputOverAnInputIsWrittenAfterAllOfItIsRead) {
  // Which is allowed for the second of two layers: it runs when the first has read everything.
  std::mt19937 random(9);
  const Layer first = forgetful_layer("gru", HRNN_FORWARD, &random), second = forgetful_layer("gru", HRNN_FORWARD, &random);
  const int64_t T = 421, kShift = 60;
  ProgramBuilder builder;
  ProgramBuilder::LayerTensors a, b;
  a.x = builder.input("x", HRNN_F32, {T, 1, kUnits});
  a.y = builder.intermediate();
  builder.layer<float>("first", first, 0, a);
  b.x = builder.unary(OpKind::Squeeze, "squeeze", a.y, {1});
  b.y = builder.intermediate();
  builder.layer<float>("second", second, 0, b);
  builder.output(b.y, "y", HRNN_F32, {T, 1, 1, kUnits});
  TestModel model(builder);
  const auto values = random_values<float>(T * kUnits, &random);
  const Sequence one = expected_sequence(first, T, 1, as_double(values));
  const Sequence expected = expected_sequence(second, T, 1, one.y);
  for (bool overlapping : {false, true}) {
    Pool pool;
    const TeamPointer team = make_team(2, &pool);
    SessionPointer session = create(model, team.get());
    std::vector<float> memory(static_cast<size_t>((2 * T + kShift) * kUnits));
    std::copy(values.begin(), values.end(), memory.begin());
    const size_t bytes = values.size() * sizeof(float);
    float *y = memory.data() + (overlapping ? kShift : T) * kUnits;  // over inputs that are read much later
    std::vector<hrnn_tensor> outputs = {make_tensor(HRNN_F32, {}, y, bytes)};
    hrnn_error error = {};
    ASSERT_EQ(run(session.get(), {make_tensor(HRNN_F32, {T, 1, kUnits}, memory.data(), bytes)}, &outputs, &error), HRNN_OK)
        << error.message;
    EXPECT_EQ(pool.calls, overlapping ? 0 : 1);
    expect_near(std::vector<float>(y, y + values.size()), expected.y, 2e-5, "y");
  }
}

TEST(SessionTeam, ValuesBetweenLayersAreKeptAsLongAsLayersRunAtTheSameTime) {
  std::mt19937 random(5);
  ProgramBuilder builder;
  const int64_t T = 421;
  constexpr uint32_t kLayers = 12;
  uint32_t x = builder.input("x", HRNN_F32, {T, 1, kUnits});
  for (uint32_t i = 0; i < kLayers; ++i) {
    ProgramBuilder::LayerTensors t;
    t.x = x;
    t.y = builder.intermediate();
    builder.layer<float>("layer", forgetful_layer("gru", HRNN_FORWARD, &random), 0, t);
    x = builder.unary(OpKind::Squeeze, "squeeze", t.y, {1});
  }
  builder.output(x, "y", HRNN_F32, {T, 1, kUnits});
  TestModel model(builder);
  std::vector<float> values = random_values<float>(T * kUnits, &random), expected(values.size());
  for (uint32_t threads : {1u, 2u, 3u, 4u}) {
    Pool pool;
    const TeamPointer team = make_team(threads, &pool);
    SessionPointer session = create(model, threads > 1 ? team.get() : nullptr);
    std::vector<float> y(values.size());
    std::vector<hrnn_tensor> outputs = {make_output(y)};
    hrnn_error error = {};
    ASSERT_EQ(run(session.get(), {make_tensor({T, 1, kUnits}, values)}, &outputs, &error), HRNN_OK) << error.message;
    if (threads == 1) expected = y;
    EXPECT_EQ(y, expected);
    EXPECT_EQ(session->arena.size(), (threads + 1) * values.size() * sizeof(float));
    EXPECT_LE(pool.calls, int(kLayers / threads));
  }
}

int fails(void **) { return 7; }

TEST(SessionTeam, TheLayerWhoseKernelFailsIsNamed) {
  const hrnn_kernel_table &all = *session_kernels();
  std::vector<hrnn_kernel> kernels(all.kernels, all.kernels + all.count);
  for (hrnn_kernel &kernel : kernels) {
    if (kernel.cell == std::string("rnn")) kernel.entry = fails;
  }
  const hrnn_kernel_table table = {HRNN_ABI_VERSION, all.count, kernels.data(), nullptr};
  Pool pool;
  const TeamPointer team = make_team(2, &pool);
  for (auto [cells, layer] : {std::pair<std::vector<std::string>, int>{{"gru", "gru", "rnn"}, 2}, {{"gru", "rnn", "gru"}, 1}}) {
    StackModel model({cells});
    model.fill(421, 1);
    const_cast<hrnn_model &>(model.model().model).kernels = &table;
    const StackModel::Result result = model.run(team.get());
    EXPECT_NE(result.error.find("'layer " + std::to_string(layer) + "': a kernel of rnn.f32."), std::string::npos) << result.error;
    EXPECT_NE(result.error.find("returned error 7"), std::string::npos) << result.error;
  }
  EXPECT_EQ(pool.calls, 2);
}

}  // namespace
