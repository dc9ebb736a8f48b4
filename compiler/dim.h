// SPDX-License-Identifier: Apache-2.0
//
// A tensor dimension as the compiler knows it: an integer polynomial over symbols. Exporters compute shapes inside the
// graph (Shape, Gather, Mul, Concat, Reshape); with polynomials that arithmetic folds away even when batch and time
// are only known at run time.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace hrnn {

// A dynamic dimension. `from_input`: it is some input's dimension by itself, so a session can read its value there;
// others stand for a value the compiler could not express (their names say which).
struct Symbol {
  std::string name;
  bool from_input = false;
};

class Dim {
 public:
  Dim() = default;  // zero
  Dim(int64_t literal);
  static Dim symbol(int id);

  std::optional<int64_t> literal() const;
  std::optional<int> symbol() const;  // set when the polynomial is one symbol, nothing else
  bool is(int64_t value) const { return literal() == value; }
  // The symbol and the number of a polynomial that is the sum of one of each: T - 1.
  struct Offset {
    int symbol;
    int64_t number;
  };
  std::optional<Offset> offset() const;

  // Throw ModelError on overflow or when a polynomial grows absurdly.
  Dim operator+(const Dim &other) const;
  Dim operator-(const Dim &other) const;
  Dim operator*(const Dim &other) const;
  // this / divisor where that is exact for every value of the symbols (other than a zero divisor).
  std::optional<Dim> quotient(const Dim &divisor) const;

  // With these values for the symbols; nothing where it depends on one without a value.
  std::optional<int64_t> value(const std::vector<std::optional<int64_t>> &symbols) const;

  bool operator==(const Dim &other) const { return terms_ == other.terms_; }
  bool operator!=(const Dim &other) const { return terms_ != other.terms_; }
  // Both are literals, and they differ: wrong whatever the symbols turn out to be.
  bool conflicts(const Dim &other) const;

  std::string text(const std::vector<Symbol> &symbols) const;

 private:
  using Monomial = std::vector<int>;  // sorted symbol ids, one entry a power; empty = the constant term
  void add(const Monomial &monomial, int64_t coefficient);
  std::map<Monomial, int64_t> terms_;  // no zero coefficients
};

using Dims = std::vector<Dim>;

std::string text(const Dims &dims, const std::vector<Symbol> &symbols);  // "[batch, 8]"
// The number of elements, or nothing where a dimension is not a literal. Throws where the literal ones are absurd.
std::optional<int64_t> literal_product(const Dims &dims);
std::optional<std::vector<int64_t>> literals(const Dims &dims);
Dim product(const Dims &dims);

}  // namespace hrnn
