// SPDX-License-Identifier: Apache-2.0
#include "dim.h"

#include <fmt/format.h>

#include <algorithm>

#include "constant.h"
#include "hrnn/compiler.h"

namespace hrnn {
namespace {

// A shape computation of a sane model has a handful of terms; the bounds stop a hostile one from squaring its way up.
constexpr size_t kMaxTerms = 64, kMaxDegree = 8;

[[noreturn]] void overflow() {
  throw ModelError("a dimension of this model does not fit 64 bits: its shapes are absurd or the file is damaged");
}

int64_t checked_multiply(int64_t a, int64_t b) {
  int64_t result;
  if (__builtin_mul_overflow(a, b, &result)) overflow();
  return result;
}

}  // namespace

Dim::Dim(int64_t literal) {
  if (literal != 0) terms_[{}] = literal;
}

Dim Dim::symbol(int id) {
  Dim dim;
  dim.terms_[{id}] = 1;
  return dim;
}

std::optional<int64_t> Dim::literal() const {
  if (terms_.empty()) return 0;
  if (terms_.size() == 1 && terms_.begin()->first.empty()) return terms_.begin()->second;
  return std::nullopt;
}

std::optional<int> Dim::symbol() const {
  if (terms_.size() != 1) return std::nullopt;
  const auto &[monomial, coefficient] = *terms_.begin();
  if (monomial.size() != 1 || coefficient != 1) return std::nullopt;
  return monomial[0];
}

void Dim::add(const Monomial &monomial, int64_t coefficient) {
  if (monomial.size() > kMaxDegree)
    throw ModelError("a shape computation of this model multiplies too many dimensions");
  int64_t &value = terms_[monomial];
  if (__builtin_add_overflow(value, coefficient, &value)) overflow();
  if (value == 0) terms_.erase(monomial);
  if (terms_.size() > kMaxTerms) throw ModelError("a shape computation of this model has too many terms");
}

std::optional<Dim::Offset> Dim::offset() const {
  const auto constant = terms_.find({});
  const int64_t number = constant == terms_.end() ? 0 : constant->second;
  const std::optional<int> id = (*this - Dim(number)).symbol();
  if (!id) return std::nullopt;
  return Offset{*id, number};
}

Dim Dim::operator+(const Dim &other) const {
  Dim sum = *this;
  for (const auto &[monomial, coefficient] : other.terms_) sum.add(monomial, coefficient);
  return sum;
}

Dim Dim::operator-(const Dim &other) const { return *this + other * Dim(-1); }

Dim Dim::operator*(const Dim &other) const {
  Dim result;
  for (const auto &[a, a_coefficient] : terms_) {
    for (const auto &[b, b_coefficient] : other.terms_) {
      Monomial monomial(a);
      monomial.insert(monomial.end(), b.begin(), b.end());
      std::sort(monomial.begin(), monomial.end());
      result.add(monomial, checked_multiply(a_coefficient, b_coefficient));
    }
  }
  return result;
}

std::optional<Dim> Dim::quotient(const Dim &divisor) const {
  if (divisor.terms_.empty()) return std::nullopt;
  if (*this == divisor) return Dim(1);
  if (divisor.terms_.size() != 1) return std::nullopt;
  const auto &[by, by_coefficient] = *divisor.terms_.begin();
  Dim result;
  for (const auto &[monomial, coefficient] : terms_) {
    if (by_coefficient == -1 && coefficient == INT64_MIN) overflow();
    if (coefficient % by_coefficient != 0) return std::nullopt;
    if (!std::includes(monomial.begin(), monomial.end(), by.begin(), by.end())) return std::nullopt;
    Monomial rest;
    std::set_difference(monomial.begin(), monomial.end(), by.begin(), by.end(), std::back_inserter(rest));
    result.add(rest, coefficient / by_coefficient);
  }
  return result;
}

std::optional<int64_t> Dim::value(const std::vector<std::optional<int64_t>> &symbols) const {
  Dim sum;
  for (const auto &[monomial, coefficient] : terms_) {
    Dim term(coefficient);
    for (int symbol : monomial) {
      const std::optional<int64_t> &factor = symbols.at(static_cast<size_t>(symbol));
      if (!factor) return std::nullopt;
      term = term * Dim(*factor);
    }
    sum = sum + term;
  }
  return sum.literal();
}

bool Dim::conflicts(const Dim &other) const { return literal() && other.literal() && *literal() != *other.literal(); }

std::string Dim::text(const std::vector<Symbol> &symbols) const {
  if (terms_.empty()) return "0";
  std::string result;
  // Backwards: "time*batch - 1" rather than "-1 + time*batch".
  for (auto term = terms_.rbegin(); term != terms_.rend(); ++term) {
    const auto &[monomial, coefficient] = *term;
    std::string product;
    for (int id : monomial) product += (product.empty() ? "" : "*") + symbols.at(id).name;
    const bool negative = coefficient < 0;
    const uint64_t magnitude = negative ? 0 - static_cast<uint64_t>(coefficient) : static_cast<uint64_t>(coefficient);
    if (monomial.empty()) {
      product = fmt::format("{}", magnitude);
    } else if (magnitude != 1) {
      product = fmt::format("{}*{}", magnitude, product);
    }
    result += result.empty() ? (negative ? "-" : "") : (negative ? " - " : " + ");
    result += product;
  }
  return result;
}

std::string text(const Dims &dims, const std::vector<Symbol> &symbols) {
  std::string result = "[";
  for (size_t i = 0; i < dims.size(); ++i) result += (i ? ", " : "") + dims[i].text(symbols);
  return result + "]";
}

std::optional<int64_t> literal_product(const Dims &dims) {
  std::vector<int64_t> numbers;
  for (const Dim &dim : dims) {
    if (dim.literal()) numbers.push_back(*dim.literal());
  }
  const int64_t count = element_count(numbers);
  if (numbers.size() < dims.size()) return std::nullopt;
  return count;
}

std::optional<std::vector<int64_t>> literals(const Dims &dims) {
  std::vector<int64_t> result;
  for (const Dim &dim : dims) {
    if (!dim.literal()) return std::nullopt;
    result.push_back(*dim.literal());
  }
  return result;
}

Dim product(const Dims &dims) {
  Dim result(1);
  for (const Dim &dim : dims) result = result * dim;
  return result;
}

}  // namespace hrnn
