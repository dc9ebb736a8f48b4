// SPDX-License-Identifier: Apache-2.0
#include "step_expression.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>

namespace hrnn {
namespace {

// No cell comes near these; they keep a hostile file from costing time.
constexpr size_t kMaxTerms = 64, kMaxFactors = 6, kMaxAtoms = 4096;
constexpr int kMaxDepth = 24;

bool by_factors(const Term &a, const Term &b) { return a.factors < b.factors; }

}  // namespace

int StepAlgebra::depth(const Expression &a) const {
  int depth = 0;
  for (const Term &term : a.terms) {
    for (const Factor &factor : term.factors) depth = std::max(depth, atom(factor).depth);
  }
  return depth;
}

std::shared_ptr<const Matrix> StepAlgebra::shared(Matrix matrix) {
  for (const auto &known : matrices_) {
    if (known->rows == matrix.rows && known->columns == matrix.columns && known->data == matrix.data) return known;
  }
  matrices_.push_back(std::make_shared<const Matrix>(std::move(matrix)));
  return matrices_.back();
}

int StepAlgebra::intern(Atom atom) {
  int inner = depth(atom.argument);
  for (const Expression &part : atom.parts) inner = std::max(inner, depth(part));
  atom.depth = inner + 1;
  if (atom.depth > kMaxDepth) throw NoCell{"operations are nested deeper than in any cell"};
  for (size_t i = 0; i < atoms_.size(); ++i) {
    const Atom &known = atoms_[i];
    const bool same = known.kind == atom.kind && known.width == atom.width && known.index == atom.index &&
                      known.matrix == atom.matrix && known.function.kind == atom.function.kind &&
                      known.function.alpha == atom.function.alpha && known.function.beta == atom.function.beta &&
                      known.mask == atom.mask && known.low == atom.low && known.high == atom.high &&
                      known.argument == atom.argument && known.parts == atom.parts;
    if (same) return static_cast<int>(i);
  }
  if (atoms_.size() >= kMaxAtoms) throw NoCell{"it computes more than any cell does"};
  atoms_.push_back(std::move(atom));
  return static_cast<int>(atoms_.size()) - 1;
}

Expression StepAlgebra::of_atom(int index) const { return {atom(index).width, {{1, {{index, 0}}}}}; }

Expression StepAlgebra::state(int index, int64_t width, const std::string &name) {
  Atom atom;
  atom.kind = Atom::Kind::State;
  atom.width = width;
  atom.index = index;
  atom.name = name;
  return of_atom(intern(std::move(atom)));
}

Expression StepAlgebra::sequence(int index, int64_t width, const std::string &name) {
  Atom atom;
  atom.kind = Atom::Kind::Sequence;
  atom.width = width;
  atom.index = index;
  atom.name = name;
  return of_atom(intern(std::move(atom)));
}

Expression StepAlgebra::mask(int index, const std::string &name) {
  Atom atom;
  atom.kind = Atom::Kind::Sequence;
  atom.index = index;
  atom.name = name;
  atom.mask = true;
  return of_atom(intern(std::move(atom)));
}

bool StepAlgebra::is_mask(const Expression &a) const {
  if (a.width != 1 || masks_in(a).size() != 1) return false;
  const Expression mask = of_atom(masks_in(a)[0]);
  return a == mask || a == sum(scalar(1), mask, -1);
}

std::vector<int> StepAlgebra::masks_in(const Expression &a) const {
  std::vector<int> found;
  for (const Term &term : a.terms) {
    for (const Factor &factor : term.factors) {
      if (atom(factor).mask && !std::count(found.begin(), found.end(), factor.atom)) found.push_back(factor.atom);
    }
  }
  return found;
}

Expression StepAlgebra::where_masks_are(const Expression &a, double value) const {
  std::vector<Term> terms;
  for (Term term : a.terms) {
    const auto is_mask = [&](const Factor &factor) { return atom(factor).mask; };
    const auto rest = std::remove_if(term.factors.begin(), term.factors.end(), is_mask);
    if (rest != term.factors.end()) term.scale *= value;
    term.factors.erase(rest, term.factors.end());
    terms.push_back(std::move(term));
  }
  return normal(a.width, std::move(terms));
}

Expression StepAlgebra::masked(const Expression &a, int mask) const {
  Expression result = where_masks_are(a, 1);
  for (Term &term : result.terms) term.factors.push_back({mask, 0});
  return normal(result.width, std::move(result.terms));
}

Expression StepAlgebra::scalar(double value) const {
  if (value == 0) return {1, {}};
  return {1, {{value, {}}}};
}

Expression StepAlgebra::row(std::vector<double> values) {
  const bool uniform = std::all_of(values.begin(), values.end(), [&](double value) { return value == values[0]; });
  const int64_t width = static_cast<int64_t>(values.size());
  if (uniform) return widened(scalar(values[0]), width);
  Atom atom;
  atom.kind = Atom::Kind::Constant;
  atom.width = width;
  atom.matrix = shared({1, width, std::move(values)});
  return of_atom(intern(std::move(atom)));
}

Expression StepAlgebra::normal(int64_t width, std::vector<Term> terms) const {
  for (Term &term : terms) {
    std::sort(term.factors.begin(), term.factors.end());
    const auto repeats = [&](const Factor &one, const Factor &other) { return one == other && atom(one).mask; };
    term.factors.erase(std::unique(term.factors.begin(), term.factors.end(), repeats), term.factors.end());
  }
  std::sort(terms.begin(), terms.end(), by_factors);
  Expression result{width, {}};
  for (Term &term : terms) {
    if (!result.terms.empty() && result.terms.back().factors == term.factors) {
      result.terms.back().scale += term.scale;
    } else {
      result.terms.push_back(std::move(term));
    }
  }
  const auto zero = [](const Term &term) { return term.scale == 0; };
  result.terms.erase(std::remove_if(result.terms.begin(), result.terms.end(), zero), result.terms.end());
  if (result.terms.size() > kMaxTerms) throw NoCell{"its step is a sum of more terms than any cell has"};
  return result;
}

// A row of one column, repeated. Only what is one column wide by itself can be repeated without naming the column.
Expression StepAlgebra::widened(const Expression &a, int64_t width) const {
  if (a.width == width) return a;
  if (a.width != 1) throw NoCell{fmt::format("it combines rows of {} and {} columns", a.width, width)};
  for (const Term &term : a.terms) {
    for (const Factor &factor : term.factors) {
      if (atom(factor).width != 1) throw NoCell{fmt::format("it repeats one column of '{}'", text(a))};
    }
  }
  return {width, a.terms};
}

Expression StepAlgebra::sum(const Expression &a, const Expression &b, double scale_of_b) const {
  const int64_t width = std::max(a.width, b.width);
  std::vector<Term> terms = widened(a, width).terms;
  for (Term term : widened(b, width).terms) {
    term.scale *= scale_of_b;
    terms.push_back(std::move(term));
  }
  return normal(width, std::move(terms));
}

Expression StepAlgebra::scaled(const Expression &a, double factor) { return multiply(a, scalar(factor)); }

Expression StepAlgebra::multiply(const Expression &a, const Expression &b) {
  const int64_t width = std::max(a.width, b.width);
  const Expression left = widened(a, width), right = widened(b, width);
  std::vector<Term> terms;
  for (const Term &x : left.terms) {
    for (const Term &y : right.terms) {
      Term term{x.scale * y.scale, x.factors};
      term.factors.insert(term.factors.end(), y.factors.begin(), y.factors.end());
      if (term.factors.size() > kMaxFactors) throw NoCell{"its step multiplies more values than any cell does"};
      terms.push_back(std::move(term));
    }
  }
  Expression result = normal(width, std::move(terms));
  // clip(a, 0, c) / c is HardSigmoid: what is left of Keras' relu6(x + 3) / 6.
  if (result.terms.size() == 1 && result.terms[0].factors.size() == 1) {
    const Atom &only = atom(result.terms[0].factors[0]);
    const double scale = result.terms[0].scale;
    const bool unit = only.kind == Atom::Kind::Clip && only.low == 0 && std::abs(scale * only.high - 1) < 1e-6;
    if (unit) return function({HRNN_HARD_SIGMOID, scale, 0}, Expression(only.argument));
  }
  return result;
}

Expression StepAlgebra::product(const Expression &a, const Matrix &matrix) {
  if (a.width != matrix.rows) {
    throw NoCell{fmt::format("it multiplies a row of {} columns by a matrix of {} rows", a.width, matrix.rows)};
  }
  const bool side_by_side = a.terms.size() == 1 && a.terms[0].factors.size() == 1 &&
                            a.terms[0].factors[0].column == 0 && atom(a.terms[0].factors[0]).kind == Atom::Kind::Concat;
  if (side_by_side) {  // [x, h] M = x M[:I] + h M[I:]
    const double scale = a.terms[0].scale;
    const std::vector<Expression> parts = atom(a.terms[0].factors[0]).parts;
    Expression result{matrix.columns, {}};
    int64_t row = 0;
    for (const Expression &part : parts) {
      Matrix rows{part.width, matrix.columns, {}};
      const auto first = matrix.data.begin() + row * matrix.columns;
      rows.data.assign(first, first + part.width * matrix.columns);
      result = sum(result, product(part, rows), scale);
      row += part.width;
    }
    return result;
  }
  Atom atom;
  atom.kind = Atom::Kind::Product;
  atom.width = matrix.columns;
  atom.argument = a;
  atom.matrix = shared(matrix);
  return of_atom(intern(std::move(atom)));
}

Expression StepAlgebra::function(hrnn_activation function, const Expression &a) {
  Atom atom;
  atom.kind = Atom::Kind::Function;
  atom.width = a.width;
  atom.argument = a;
  atom.function = function;
  return of_atom(intern(std::move(atom)));
}

Expression StepAlgebra::clip(const Expression &a, double low, double high) {
  if (a.terms.size() == 1 && a.terms[0].scale == 1 && a.terms[0].factors.size() == 1) {  // max(min(a, high), low)
    const Atom inner = atom(a.terms[0].factors[0]);
    const bool relu = inner.kind == Atom::Kind::Function && inner.function.kind == HRNN_RELU;
    const double inner_low = relu ? 0 : inner.low, inner_high = relu ? INFINITY : inner.high;
    const bool overlap = std::max(low, inner_low) <= std::min(high, inner_high);
    if ((relu || inner.kind == Atom::Kind::Clip) && overlap && (low != inner_low || high != inner_high)) {
      return clip(inner.argument, std::max(low, inner_low), std::min(high, inner_high));
    }
  }
  if (low == 0 && high == 1) return function({HRNN_HARD_SIGMOID, 1, 0}, a);
  if (low == 0 && std::isinf(high)) return function({HRNN_RELU, 0, 0}, a);
  Atom atom;
  atom.kind = Atom::Kind::Clip;
  atom.width = a.width;
  atom.argument = a;
  atom.low = low;
  atom.high = high;
  return of_atom(intern(std::move(atom)));
}

Expression StepAlgebra::concat(const std::vector<Expression> &parts) {
  Atom atom;
  atom.kind = Atom::Kind::Concat;
  atom.width = 0;
  for (const Expression &part : parts) atom.width += part.width;
  atom.parts = parts;
  return of_atom(intern(std::move(atom)));
}

Expression StepAlgebra::slice(const Expression &a, int64_t begin, int64_t end) {
  if (begin == 0 && end == a.width) return a;
  Expression result{end - begin, {}};
  for (const Term &term : a.terms) {
    Expression picked = widened(scalar(term.scale), end - begin);
    for (const Factor &factor : term.factors) {
      const Atom whole = atom(factor);
      const int64_t first = factor.column + begin, last = factor.column + end;
      Expression part{end - begin, {{1, {{factor.atom, first}}}}};
      if (whole.width == 1) {
        part.terms[0].factors[0].column = 0;
      } else if (whole.kind == Atom::Kind::Function) {
        part = function(whole.function, slice(whole.argument, first, last));
      } else if (whole.kind == Atom::Kind::Clip) {
        part = clip(slice(whole.argument, first, last), whole.low, whole.high);
      } else if (whole.kind == Atom::Kind::Constant) {
        const auto data = whole.matrix->data.begin();
        part = row({data + first, data + last});
      } else if (whole.kind == Atom::Kind::Concat) {
        int64_t start = 0;
        for (const Expression &inner : whole.parts) {
          if (first >= start && last <= start + inner.width) part = slice(inner, first - start, last - start);
          start += inner.width;
        }
      }
      picked = multiply(picked, part);
    }
    result = sum(result, picked);
  }
  return result;
}

// ---- Messages ----

std::string StepAlgebra::text(const Atom &atom, int levels) const {
  switch (atom.kind) {
    case Atom::Kind::State:
    case Atom::Kind::Sequence:
      return atom.name;
    case Atom::Kind::Constant:
      return "b";
    case Atom::Kind::Product:
      if (levels == 0) return "(...) M";
      if (atom.argument.terms.size() == 1 && atom.argument.terms[0].factors.size() == 1) {
        return text(atom.argument, levels - 1) + " M";
      }
      return "(" + text(atom.argument, levels - 1) + ") M";
    case Atom::Kind::Function: {
      std::string name = activation_name(atom.function.kind);
      std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
      return name + "(" + (levels == 0 ? "..." : text(atom.argument, levels - 1)) + ")";
    }
    case Atom::Kind::Clip:
      return fmt::format("clip({}, {:g}, {:g})", levels == 0 ? "..." : text(atom.argument, levels - 1), atom.low,
                         atom.high);
    case Atom::Kind::Concat:
      return "[...]";
  }
  return "?";
}

std::string StepAlgebra::text(const Expression &a, int levels) const {
  if (a.terms.empty()) return "0";
  std::string result;
  for (const Term &term : a.terms) {
    if (result.size() > 160) return result + " + ...";
    const bool negative = term.scale < 0;
    if (result.empty()) {
      result += negative ? "-" : "";
    } else {
      result += negative ? " - " : " + ";
    }
    std::vector<std::string> factors;
    if (std::abs(term.scale) != 1 || term.factors.empty()) factors.push_back(fmt::format("{:g}", std::abs(term.scale)));
    for (const Factor &factor : term.factors) factors.push_back(text(atom(factor), levels));
    result += fmt::format("{}", fmt::join(factors, "*"));
  }
  return result;
}

std::string StepAlgebra::text(const Expression &a) const { return text(a, 2); }

}  // namespace hrnn
