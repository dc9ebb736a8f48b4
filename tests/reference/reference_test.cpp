// SPDX-License-Identifier: Apache-2.0
//
// The reference against numbers computed apart from it, and against what sequences of lengths and directions mean.
#include "reference.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace reference {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// Two inputs, two units, two steps; the expected values were computed with NumPy.
Layer small_layer(const std::string &cell) {
  Layer layer;
  layer.cell = cell;
  layer.input_size = layer.hidden_size = 2;
  layer.activations = {{"Sigmoid"}, {"Tanh"}};
  layer.w = {.5, -.25, .75, .125, -.5, .25, .375, -.625, .25, 1, -.75, .5};
  layer.r = {.25, .5, -.5, .125, 1, -.25, .5, .5, -.125, .75, .625, -1};
  layer.b = {.1, -.2, .3, -.4, .5, -.6, .6, -.5, .4, -.3, .2, -.1};
  if (cell == "rnn") {
    layer.activations = {{"Tanh"}};
    layer.w.resize(4);
    layer.r.resize(4);
    layer.b.resize(4);
  }
  return layer;
}

const Sequences kSmall = {2, 1, {1, -.5, .25, .75}, {}, {.5, -1}};

void expect_near(const std::vector<double> &actual, const std::vector<double> &expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); i++) EXPECT_NEAR(actual[i], expected[i], 1e-15) << i;
}

TEST(Reference, GruResetBeforeTheProduct) {
  const Outputs<double> out = run<double>(small_layer("gru_reset_before"), kSmall);
  expect_near(out.y, {0.38295446586724574, -0.8695555063689381, 0.5907785665571897, -0.3773347667605603});
  expect_near(out.y_h, {0.5907785665571897, -0.3773347667605603});
}

TEST(Reference, GruResetAfterTheProduct) {
  const Outputs<double> out = run<double>(small_layer("gru"), kSmall);
  expect_near(out.y, {0.3120098336591587, -0.8752279684154323, 0.49114367536396597, -0.43347524289908546});
}

TEST(Reference, Rnn) {
  const Outputs<double> out = run<double>(small_layer("rnn"), kSmall);
  expect_near(out.y, {0.5716699660851171, -0.27983219347546834, 0.3279249457682547, -0.5646026172690174});
}

// h' = x + h / 2, so that a result tells which steps made it.
Layer counting_layer(const std::string &direction) {
  Layer layer;
  layer.cell = "rnn";
  layer.direction = direction;
  layer.w = {1, 1};
  layer.r = {.5, .5};
  layer.w.resize(size_t(layer.directions()));
  layer.r.resize(size_t(layer.directions()));
  layer.activations.assign(size_t(layer.directions()), {"Affine", 1, 0});
  return layer;
}

TEST(Reference, Directions) {
  const Sequences sequences = {3, 1, {1, 10, 100}, {}, {}};
  expect_near(run<double>(counting_layer("forward"), sequences).y, {1, 10.5, 105.25});
  expect_near(run<double>(counting_layer("reverse"), sequences).y, {31, 60, 100});
  expect_near(run<double>(counting_layer("reverse"), sequences).y_h, {31});
  expect_near(run<double>(counting_layer("bidirectional"), sequences).y, {1, 31, 10.5, 60, 105.25, 100});
  expect_near(run<double>(counting_layer("bidirectional"), sequences).y_h, {105.25, 31});
}

TEST(Reference, Lengths) {
  // x[t, n]; sequence 0 has two steps, 1 none, 2 all three.
  const Sequences sequences = {3, 3, {1, 2, 3, 10, 20, 30, 100, 200, 300}, {2, 0, 3}, {4, 4, 4}};
  const Outputs<double> forward = run<double>(counting_layer("forward"), sequences);
  expect_near(forward.y, {3, 0, 5, 11.5, 0, 32.5, 0, 0, 316.25});
  expect_near(forward.y_h, {11.5, 0, 316.25});
  const Outputs<double> reverse = run<double>(counting_layer("reverse"), sequences);
  expect_near(reverse.y, {7, 0, 93.5, 12, 0, 181, 0, 0, 302});
  expect_near(reverse.y_h, {7, 0, 93.5});
}

TEST(Reference, NoSteps) {
  expect_near(run<double>(counting_layer("forward"), {0, 1, {}, {}, {4}}).y_h, {4});
  expect_near(run<double>(counting_layer("forward"), {0, 1, {}, {0}, {4}}).y_h, {0});
}

TEST(Reference, ClipBoundsWhatGoesIntoActivations) {
  Layer layer = counting_layer("forward");
  layer.clip = 2;
  layer.activations = {{"Affine", 3, 0}};
  expect_near(run<double>(layer, {2, 1, {1.5, -9}, {}, {}}).y, {4.5, -6});
}

TEST(Reference, Activations) {
  struct Case {
    Activation f;
    double x, y;
  };
  for (const Case &c : std::vector<Case>{{{"Relu"}, -2, 0},
                                         {{"Relu"}, 2, 2},
                                         {{"Tanh"}, 0.5, 0.46211715726000975},
                                         {{"Sigmoid"}, -1.5, 0.18242552380635635},
                                         {{"Sigmoid"}, -kInf, 0},
                                         {{"Affine", 3, -1}, 2, 5},
                                         {{"LeakyRelu", 0.25}, -2, -0.5},
                                         {{"LeakyRelu", 0.25}, 2, 2},
                                         {{"ThresholdedRelu", 1.5}, 1.5, 0},
                                         {{"ThresholdedRelu", 1.5}, 1.75, 1.75},
                                         {{"ScaledTanh", 2, 0.25}, 2, 0.92423431452001951},
                                         {{"HardSigmoid", 0.5, 0.25}, 1, 0.75},
                                         {{"HardSigmoid", 0.5, 0.25}, 2, 1},
                                         {{"HardSigmoid", 0.5, 0.25}, -1, 0},
                                         {{"Elu", 2}, -1, -1.2642411176571153},
                                         {{"Elu", 2}, 3, 3},
                                         {{"Softsign"}, -3, -0.75},
                                         {{"Softsign"}, -kInf, -1},
                                         {{"Softplus"}, 1, 1.3132616875182228},
                                         {{"Softplus"}, -1, 0.31326168751822286},
                                         {{"Softplus"}, 1e4, 1e4}})
    EXPECT_NEAR(activate(c.f, c.x), c.y, 2e-16 * std::max(1.0, std::abs(c.y))) << c.f.name << "(" << c.x << ")";
  EXPECT_THROW(activate(Activation{"tanh"}, 0.0), std::invalid_argument);
}

TEST(Reference, KeepsNan) {
  for (const char *name : {"Relu", "HardSigmoid", "ThresholdedRelu", "Softplus", "LeakyRelu"})
    EXPECT_TRUE(std::isnan(activate(Activation{name, 1, 1}, std::nan("")))) << name;
  Layer layer = counting_layer("forward");
  layer.clip = 2;
  EXPECT_TRUE(std::isnan(run<double>(layer, {1, 1, {std::nan("")}, {}, {}}).y[0]));
}

TEST(Reference, TellsHowNearAJumpIs) {
  Layer layer = counting_layer("forward");
  layer.activations = {{"ThresholdedRelu", 1.25, 0}};
  EXPECT_DOUBLE_EQ(run<double>(layer, {2, 1, {9, -3}, {}, {}}).jump_distance, 0.25);
}

}  // namespace
}  // namespace reference
