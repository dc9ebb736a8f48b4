// SPDX-License-Identifier: Apache-2.0
//
// The packed layout, element by element from its definition in pack.h.
#include "pack.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace {

using hrnn::CellShape;

template <typename T>
constexpr int32_t dtype_of() {
  return sizeof(T) == 8 ? HRNN_F64 : HRNN_F32;
}

int64_t up(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// A different value for every coordinate.
template <typename T>
std::vector<T> numbered(int64_t count, double first) {
  std::vector<T> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<T>(first + static_cast<double>(i));
  return values;
}

// One product of a packed block against its definition. `weight(gate, unit, k)` and `bias(gate, unit)` give what should
// be there; returns the bytes the product takes.
template <typename T, typename Weight, typename Bias>
int64_t check_product(const char *block, int64_t gates, int64_t hidden, int64_t inner, const Weight &weight,
                      const Bias &bias) {
  const int64_t lanes = 64 / static_cast<int64_t>(sizeof(T)), panels = (hidden + lanes - 1) / lanes;
  const int64_t weights_bytes = up(panels * gates * inner * lanes * static_cast<int64_t>(sizeof(T)));
  const T *weights = reinterpret_cast<const T *>(block);
  const T *biases = reinterpret_cast<const T *>(block + weights_bytes);
  for (int64_t panel = 0; panel < panels; ++panel) {
    for (int64_t gate = 0; gate < gates; ++gate) {
      for (int64_t lane = 0; lane < lanes; ++lane) {
        const int64_t unit = panel * lanes + lane;
        for (int64_t k = 0; k < inner; ++k) {
          const T expected = unit < hidden ? weight(gate, unit, k) : T(0);
          EXPECT_EQ(weights[lane + lanes * (gate + gates * (k + inner * panel))], expected)
              << "lane " << lane << " gate " << gate << " k " << k << " panel " << panel;
        }
        EXPECT_EQ(biases[lane + lanes * (gate + gates * panel)], unit < hidden ? bias(gate, unit) : T(0))
            << "bias, lane " << lane << " gate " << gate << " panel " << panel;
      }
    }
  }
  return weights_bytes + up(panels * gates * lanes * static_cast<int64_t>(sizeof(T)));
}

// Memory of exactly `bytes`, full of garbage, with guards around it.
class Guarded {
 public:
  explicit Guarded(int64_t bytes) : bytes_(static_cast<size_t>(bytes)), memory_(bytes_ + 192, 0x5a) {}
  char *data() { return memory_.data() + 64 + (64 - reinterpret_cast<uintptr_t>(memory_.data()) % 64) % 64; }
  bool intact() {
    for (int i = 1; i <= 64; ++i) {
      if (data()[-i] != 0x5a || data()[static_cast<int64_t>(bytes_) + i - 1] != 0x5a) return false;
    }
    return true;
  }

 private:
  size_t bytes_;
  std::vector<char> memory_;
};

struct Shape {
  const char *cell;
  int64_t gates;
  std::vector<std::vector<int64_t>> phases;  // gates of each
};
const Shape kShapes[] = {{"rnn", 1, {{0}}}, {"rnn_masked", 1, {{0}}}, {"gru", 3, {{0, 1, 2}}}, {"gru_reset_before", 3, {{0, 1}, {2}}}};

template <typename T>
class Pack : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(Pack, Types, );

TYPED_TEST(Pack, EveryElementOfALayer) {
  using T = TypeParam;
  for (const Shape &shape : kShapes) {
    CellShape cell;
    ASSERT_TRUE(hrnn::builtin_cell_shape(shape.cell, &cell));
    // Hidden sizes around one and two panels of either type.
    for (int64_t hidden : {1, 7, 8, 9, 15, 16, 17, 33}) {
      for (int64_t input : {1, 3}) {
        for (int64_t directions : {1, 2}) {
          for (bool with_bias : {false, true}) {
            SCOPED_TRACE(testing::Message() << shape.cell << " H " << hidden << " I " << input << " D " << directions
                                            << " bias " << with_bias);
            const int64_t units = shape.gates * hidden;
            const auto w = numbered<T>(directions * units * input, 1);
            const auto r = numbered<T>(directions * units * hidden, 10000);
            const auto b = numbered<T>(directions * 2 * units, 50000);
            const auto layout = hrnn::packed_layer(dtype_of<T>(), cell, directions, input, hidden);
            Guarded out(layout.bytes);
            hrnn::pack_layer(dtype_of<T>(), cell, directions, input, hidden, w.data(), r.data(),
                             with_bias ? b.data() : nullptr, out.data());
            EXPECT_TRUE(out.intact());
            int64_t offset = 0;
            for (int64_t d = 0; d < directions; ++d) {
              EXPECT_EQ(offset, d * layout.direction_bytes);
              EXPECT_EQ(layout.projection_offset, 0);
              offset += check_product<T>(
                  out.data() + offset, shape.gates, hidden, input,
                  [&](int64_t g, int64_t u, int64_t k) {
                    return w[static_cast<size_t>(((d * shape.gates + g) * hidden + u) * input + k)];
                  },
                  [&](int64_t g, int64_t u) {
                    return with_bias ? b[static_cast<size_t>(d * 2 * units + g * hidden + u)] : T(0);
                  });
              for (size_t phase = 0; phase < shape.phases.size(); ++phase) {
                const std::vector<int64_t> &gates = shape.phases[phase];
                EXPECT_EQ(offset, d * layout.direction_bytes + layout.phase_offsets[phase]);
                offset += check_product<T>(
                    out.data() + offset, static_cast<int64_t>(gates.size()), hidden, hidden,
                    [&](int64_t g, int64_t u, int64_t k) {
                      const int64_t gate = gates[static_cast<size_t>(g)];
                      return r[static_cast<size_t>(((d * shape.gates + gate) * hidden + u) * hidden + k)];
                    },
                    [&](int64_t g, int64_t u) {
                      const int64_t gate = gates[static_cast<size_t>(g)];
                      return with_bias ? b[static_cast<size_t>((d * 2 + 1) * units + gate * hidden + u)] : T(0);
                    });
              }
            }
            EXPECT_EQ(offset, layout.bytes);
            if (testing::Test::HasFailure()) return;
          }
        }
      }
    }
  }
}

TYPED_TEST(Pack, EveryElementOfADenseProduct) {
  using T = TypeParam;
  for (int64_t out_features : {1, 8, 10, 17}) {
    for (int64_t in_features : {1, 5}) {
      for (bool transposed : {false, true}) {
        for (bool with_bias : {false, true}) {
          const auto w = numbered<T>(out_features * in_features, 1), b = numbered<T>(out_features, 1000);
          const auto layout = hrnn::packed_product(dtype_of<T>(), 1, out_features, in_features);
          Guarded out(layout.bytes);
          hrnn::pack_dense(dtype_of<T>(), out_features, in_features, transposed, w.data(),
                           with_bias ? b.data() : nullptr, out.data());
          EXPECT_TRUE(out.intact());
          const int64_t bytes = check_product<T>(
              out.data(), 1, out_features, in_features,
              [&](int64_t, int64_t u, int64_t k) {
                return w[static_cast<size_t>(transposed ? k * out_features + u : u * in_features + k)];
              },
              [&](int64_t, int64_t u) { return with_bias ? b[static_cast<size_t>(u)] : T(0); });
          EXPECT_EQ(bytes, layout.bytes);
        }
      }
    }
  }
}

TEST(PackShapes, ProductsAreRowsOf64Bytes) {
  const auto product = hrnn::packed_product(HRNN_F32, 3, 17, 5);
  EXPECT_EQ(product.weights_offset, 0);
  EXPECT_EQ(product.bias_offset, 2 * 3 * 5 * 64);
  EXPECT_EQ(product.bytes, product.bias_offset + 2 * 3 * 64);
}

TEST(PackShapes, UnknownCellsAreNotBuiltIn) {
  CellShape cell;
  EXPECT_FALSE(hrnn::builtin_cell_shape("lstm", &cell));
  EXPECT_FALSE(hrnn::builtin_cell_shape("", &cell));
  EXPECT_FALSE(hrnn::builtin_cell_shape(nullptr, &cell));
}

}  // namespace
