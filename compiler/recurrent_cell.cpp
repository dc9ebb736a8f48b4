// SPDX-License-Identifier: Apache-2.0
#include "recurrent_cell.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

namespace hrnn {
namespace {

class Matcher {
 public:
  Matcher(StepAlgebra *algebra, int state, const Expression &next, const std::vector<LayerBelow> &below)
      : algebra_(*algebra), state_(state), next_(next), below_(below), hidden_(next.width) {}

  RecurrentCell match() {
    if (const auto update = find_update()) return gru(*update);
    return rnn();
  }

 private:
  // h' = z h + (1 - z) n; `flipped` where z and 1 - z are exchanged.
  struct Update {
    int z = 0;
    bool flipped = false;
    Expression candidate;
  };

  [[noreturn]] void fail(const char *what, const char *expected, const Expression &found) const {
    throw NoCell{fmt::format("{} '{}' was expected, found '{}'", what, expected, algebra_.text(found))};
  }

  bool is_state(const Factor &factor) const {
    const Atom &atom = algebra_.atom(factor);
    return atom.kind == Atom::Kind::State && atom.index == state_ && factor.column == 0;
  }
  bool is_state(const Expression &a) const {
    return a.terms.size() == 1 && a.terms[0].scale == 1 && a.terms[0].factors.size() == 1 &&
           is_state(a.terms[0].factors[0]);
  }

  // The part of `a` that `atom` multiplies, without it; or the rest.
  Expression coefficient(const Expression &a, int atom) const {
    Expression result{a.width, {}};
    for (Term term : a.terms) {
      const auto found = std::find(term.factors.begin(), term.factors.end(), Factor{atom, 0});
      if (found == term.factors.end()) continue;
      term.factors.erase(found);
      result = algebra_.sum(result, {a.width, {term}});
    }
    return result;
  }
  Expression without(const Expression &a, int atom) const {
    Expression result{a.width, {}};
    for (const Term &term : a.terms) {
      const bool has = std::count(term.factors.begin(), term.factors.end(), Factor{atom, 0}) > 0;
      if (!has) result.terms.push_back(term);
    }
    return result;
  }

  std::vector<int> functions_in(const Expression &a) const {
    std::vector<int> found;
    for (const Term &term : a.terms) {
      for (const Factor &factor : term.factors) {
        const bool is_function = algebra_.atom(factor).kind == Atom::Kind::Function && factor.column == 0;
        if (is_function && !std::count(found.begin(), found.end(), factor.atom)) found.push_back(factor.atom);
      }
    }
    return found;
  }

  std::optional<Update> find_update() const {
    for (int z : functions_in(next_)) {
      const Expression gated = coefficient(next_, z), rest = without(next_, z);
      if (coefficient(gated, z).terms.size() > 0) continue;  // z * z
      const Expression both = algebra_.sum(gated, rest);
      if (is_state(both) && !is_state(rest)) return Update{z, false, rest};      // z h + n - z n
      if (is_state(rest) && !gated.terms.empty()) return Update{z, true, both};  // h - z h + z n
    }
    return std::nullopt;
  }

  // ---- RNN ----

  RecurrentCell rnn() {
    hrnn_activation activation{};
    const Expression argument = inside(next_, &activation);
    RecurrentCell cell{"rnn", {activation}, {}};
    GateWeights gate = empty_gate();
    try {
      add_affine(argument, &gate);
    } catch (const NoCell &reason) {
      const bool gated =
          std::any_of(next_.terms.begin(), next_.terms.end(), [](const Term &term) { return term.factors.size() > 1; });
      if (gated) fail("the update", "z*h + (1-z)*n", next_);
      throw;
    }
    cell.gates.push_back(std::move(gate));
    return cell;
  }

  // f and a where the expression is f(a); a linear expression is Affine(a).
  Expression inside(const Expression &a, hrnn_activation *function) const {
    *function = {HRNN_AFFINE, 1, 0};
    if (a.terms.size() != 1 || a.terms[0].factors.size() != 1) return a;
    const Atom &atom = algebra_.atom(a.terms[0].factors[0]);
    if (atom.kind != Atom::Kind::Function) return a;
    const double scale = a.terms[0].scale;
    *function = atom.function;
    if (scale != 1 && atom.function.kind == HRNN_TANH) *function = {HRNN_SCALED_TANH, scale, 1};
    if (scale != 1 && atom.function.kind != HRNN_TANH) fail("a cell's function", "f(x W + h R + b)", a);
    return atom.argument;
  }

  // ---- GRU ----

  RecurrentCell gru(const Update &update) {
    RecurrentCell cell;
    cell.gates.assign(3, empty_gate());
    hrnn_activation candidate_function{};
    const Expression candidate = inside(update.candidate, &candidate_function);
    const int r = find_reset(candidate, &cell.cell);
    const Atom z_atom = algebra_.atom(update.z), r_atom = algebra_.atom(r);
    add_affine(z_atom.argument, &cell.gates[0]);
    if (update.flipped) flip(z_atom.function, &cell.gates[0]);
    add_affine(r_atom.argument, &cell.gates[1]);
    add_candidate(candidate, r, &cell.gates[2]);
    const hrnn_activation &f = z_atom.function, &g = r_atom.function;
    if (f.kind != g.kind || f.alpha != g.alpha || f.beta != g.beta) {
      throw NoCell{fmt::format("the update gate's function is {} and the reset gate's {}; a GRU has one for both",
                               describe(f), describe(g))};
    }
    cell.activations = {f, candidate_function};
    return cell;
  }

  // 1 - f(a) = f(-a), for the functions a gate may have.
  void flip(const hrnn_activation &f, GateWeights *gate) const {
    double shift = 0;
    if (f.kind == HRNN_HARD_SIGMOID) {
      shift = (1 - 2 * f.beta) / f.alpha;  // 1 - clamp(alpha a + beta) = clamp(alpha (-a + shift) + beta)
    } else if (f.kind != HRNN_SIGMOID) {
      throw NoCell{
          fmt::format("the update is h' = (1-z)*h + z*n with z = {}(...); that is a GRU only where 1 - z is "
                      "the same function of -x: Sigmoid or HardSigmoid",
                      activation_name(f.kind))};
    }
    for (auto &[sequence, w] : gate->w) {
      for (double &value : w.data) value = -value;
    }
    for (double &value : gate->r.data) value = -value;
    for (double &value : gate->wb) value = shift - value;
    for (double &value : gate->rb) value = -value;
  }

  // The gate r of the candidate: where it multiplies products of h, or h inside of a product.
  int find_reset(const Expression &candidate, std::string *cell) const {
    for (const Term &term : candidate.terms) {
      if (term.factors.size() == 2) {
        for (size_t i : {0, 1}) {
          const Atom &gate = algebra_.atom(term.factors[i]), &other = algebra_.atom(term.factors[1 - i]);
          const bool of_state = other.kind == Atom::Kind::Product && is_state(other.argument);
          if (gate.kind != Atom::Kind::Function || !(of_state || is_state(term.factors[1 - i]))) continue;
          *cell = "gru";
          return term.factors[i].atom;
        }
      }
      if (term.factors.size() != 1) continue;
      const Atom &product = algebra_.atom(term.factors[0]);
      if (product.kind != Atom::Kind::Product || product.argument.terms.size() != 1) continue;
      const std::vector<Factor> &factors = product.argument.terms[0].factors;
      if (factors.size() != 2) continue;
      for (size_t i : {0, 1}) {
        if (!is_state(factors[1 - i]) || algebra_.atom(factors[i]).kind != Atom::Kind::Function) continue;
        *cell = "gru_reset_before";
        return factors[i].atom;
      }
    }
    fail("the candidate", "x W + r*(h R + b) + b or x W + (r*h) R + b", candidate);
  }

  void add_candidate(const Expression &candidate, int r, GateWeights *gate) {
    Expression inputs{candidate.width, {}}, reset{candidate.width, {}};
    bool before = false;
    for (const Term &term : candidate.terms) {
      const Factor *factor = term.factors.size() == 1 ? &term.factors[0] : nullptr;
      const Atom *atom = factor ? &algebra_.atom(*factor) : nullptr;
      if (atom && atom->kind == Atom::Kind::Product && is_reset_state(atom->argument, r)) {
        before = true;
        add_transposed(*atom->matrix, 0, factor->column, term.scale * atom->argument.terms[0].scale, &gate->r);
      } else if (std::count(term.factors.begin(), term.factors.end(), Factor{r, 0})) {
        reset.terms.push_back(term);
      } else {
        inputs.terms.push_back(term);
      }
    }
    GateWeights from_inputs = empty_gate(), from_reset = empty_gate();
    add_affine(inputs, &from_inputs);
    if (has_state(from_inputs) || (before && !reset.terms.empty()))
      fail("the candidate", "x W + r*(h R + b) + b", candidate);
    add_affine(coefficient(reset, r), &from_reset);
    if (!from_reset.w.empty()) fail("the candidate", "x W + r*(h R + b) + b", candidate);
    gate->w = std::move(from_inputs.w);
    gate->wb = std::move(from_inputs.wb);
    for (size_t i = 0; i < gate->r.data.size(); ++i) gate->r.data[i] += from_reset.r.data[i];
    gate->rb = std::move(from_reset.wb);  // r multiplies it, so it belongs to the recurrent side
  }

  bool is_reset_state(const Expression &a, int r) const {
    if (a.terms.size() != 1 || a.terms[0].factors.size() != 2) return false;
    const std::vector<Factor> &factors = a.terms[0].factors;
    for (size_t i : {0, 1}) {
      if (factors[i] == Factor{r, 0} && is_state(factors[1 - i])) return true;
    }
    return false;
  }

  static bool has_state(const GateWeights &gate) {
    return std::any_of(gate.r.data.begin(), gate.r.data.end(), [](double value) { return value != 0; });
  }

  // ---- x W + h R + b ----

  GateWeights empty_gate() const {
    GateWeights gate;
    const size_t hidden = static_cast<size_t>(hidden_);
    gate.r = {hidden_, hidden_, std::vector<double>(hidden * hidden, 0)};
    gate.wb.assign(hidden, 0);
    gate.rb.assign(hidden, 0);
    return gate;
  }

  Matrix &input_weights(int sequence, int64_t width, GateWeights *gate) const {
    Matrix &w = gate->w[sequence];
    if (w.data.empty()) w = {hidden_, width, std::vector<double>(static_cast<size_t>(hidden_ * width), 0)};
    return w;
  }

  // weights[u][first + k] += scale * matrix[k][column + u]
  void add_transposed(const Matrix &matrix, int64_t first, int64_t column, double scale, Matrix *weights) const {
    for (int64_t u = 0; u < hidden_; ++u) {
      for (int64_t k = 0; k < matrix.rows; ++k) {
        weights->data[static_cast<size_t>(u * weights->columns + first + k)] += scale * matrix.at(k, column + u);
      }
    }
  }

  void add_identity(int64_t column, double scale, Matrix *weights) const {
    for (int64_t u = 0; u < hidden_; ++u) {
      weights->data[static_cast<size_t>(u * weights->columns + column + u)] += scale;
    }
  }

  const LayerBelow *layer_below(const Expression &a) const {
    for (const LayerBelow &layer : below_) {
      if (layer.next == a) return &layer;
    }
    return nullptr;
  }

  void add_affine(const Expression &a, GateWeights *gate) const {
    for (const Term &term : a.terms) {
      if (term.factors.empty()) {
        for (double &value : gate->wb) value += term.scale;
        continue;
      }
      const Factor &factor = term.factors[0];
      const Atom &atom = algebra_.atom(factor);
      if (term.factors.size() != 1 || (atom.width == 1 && hidden_ != 1)) no_affine(a);
      switch (atom.kind) {
        case Atom::Kind::Constant:
          for (int64_t u = 0; u < hidden_; ++u) gate->wb[u] += term.scale * atom.matrix->at(0, factor.column + u);
          break;
        case Atom::Kind::Sequence:
          add_identity(factor.column, term.scale, &input_weights(atom.index, atom.width, gate));
          break;
        case Atom::Kind::State:
          if (!is_state(factor)) no_affine(a);
          add_identity(0, term.scale, &gate->r);
          break;
        case Atom::Kind::Product:
          if (!add_product(atom, factor.column, term.scale, gate)) no_affine(a);
          break;
        default:
          no_affine(a);
      }
    }
  }

  [[noreturn]] void no_affine(const Expression &a) const {
    fail("the argument of a gate's function", "x W + h R + b", a);
  }

  // (argument) M, columns from `column` on; the argument is a sum of sequences, the state and constants.
  bool add_product(const Atom &product, int64_t column, double scale, GateWeights *gate) const {
    const Matrix &matrix = *product.matrix;
    if (const LayerBelow *layer = layer_below(product.argument)) {
      add_transposed(matrix, 0, column, scale, &input_weights(layer->sequence, matrix.rows, gate));
      return true;
    }
    for (const Term &term : product.argument.terms) {
      if (term.factors.size() > 1) return false;
      const Factor factor = term.factors.empty() ? Factor{-1, 0} : term.factors[0];
      const Atom *atom = term.factors.empty() ? nullptr : &algebra_.atom(factor);
      const bool constant = !atom || atom->kind == Atom::Kind::Constant;
      if (constant) {
        for (int64_t u = 0; u < hidden_; ++u) {
          for (int64_t k = 0; k < matrix.rows; ++k) {
            const double value = atom ? atom->matrix->at(0, factor.column + k) : 1;
            gate->wb[u] += scale * term.scale * value * matrix.at(k, column + u);
          }
        }
      } else if (atom->width == 1 && matrix.rows != 1) {
        return false;  // one column, repeated
      } else if (atom->kind == Atom::Kind::Sequence) {
        Matrix &w = input_weights(atom->index, atom->width, gate);
        add_transposed(matrix, factor.column, column, scale * term.scale, &w);
      } else if (atom->kind == Atom::Kind::State && atom->index == state_) {
        add_transposed(matrix, factor.column, column, scale * term.scale, &gate->r);
      } else {
        return false;
      }
    }
    return true;
  }

  StepAlgebra &algebra_;
  const int state_;
  const Expression &next_;
  const std::vector<LayerBelow> &below_;
  const int64_t hidden_;
};

}  // namespace

RecurrentCell match_cell(StepAlgebra *algebra, int state, const Expression &next,
                         const std::vector<LayerBelow> &below) {
  return Matcher(algebra, state, next, below).match();
}

}  // namespace hrnn
