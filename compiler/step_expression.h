// SPDX-License-Identifier: Apache-2.0
//
// What one step of a loop computes, in a normal form: a sum of products of atoms, an atom being something that adding
// and multiplying does not take apart (the state, a step of a sequence, a matrix product, an activation). Exporters
// write the same cell in many ways (gates fused and split, biases inside or outside, z or 1 - z); in the normal form
// they are few, and recurrent_cell.cpp compares them with the equations of RNN and GRU.
//
// Everything here is a row of some width; the batch is in every row alike and never appears.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "graph.h"

namespace hrnn {

// Columns [column, column + width of the expression) of an atom. An atom one column wide is repeated.
struct Factor {
  int atom = 0;
  int64_t column = 0;
  bool operator==(const Factor &other) const { return atom == other.atom && column == other.column; }
  bool operator<(const Factor &other) const { return atom != other.atom ? atom < other.atom : column < other.column; }
};

struct Term {
  double scale = 1;
  std::vector<Factor> factors;  // sorted; their product
  bool operator==(const Term &other) const { return scale == other.scale && factors == other.factors; }
};

struct Expression {
  int64_t width = 1;
  std::vector<Term> terms;  // sorted by factors, each list of factors once, no scale is zero
  bool operator==(const Expression &other) const { return width == other.width && terms == other.terms; }
};

// [rows, width], or [1, width] for a row of constants.
struct Matrix {
  int64_t rows = 0, columns = 0;
  std::vector<double> data;
  double at(int64_t row, int64_t column) const { return data[static_cast<size_t>(row * columns + column)]; }
};

struct Atom {
  enum class Kind {
    State,     // the value a loop carries, before the step; `index` says which
    Sequence,  // the step's row of a sequence; `index` says which
    Constant,  // `matrix`, one row
    Product,   // argument * matrix
    Function,  // function(argument)
    Clip,      // min(max(argument, low), high)
    Concat,    // `parts` side by side
  };
  Kind kind = Kind::State;
  int64_t width = 1;
  int index = 0;
  std::string name;   // of a state or sequence, for messages
  bool mask = false;  // a Sequence of zeros and ones, one column wide
  Expression argument;
  std::shared_ptr<const Matrix> matrix;
  hrnn_activation function{};
  double low = 0, high = 0;
  std::vector<Expression> parts;
  int depth = 0;
};

// An expression that cannot be brought to the normal form, or is none of the cells; says why.
struct NoCell {
  std::string message;
  bool names_node = false;  // the message does already
};

// Makes expressions. Equal atoms are one atom, so that equal expressions compare equal.
class StepAlgebra {
 public:
  const Atom &atom(int index) const { return atoms_[static_cast<size_t>(index)]; }
  const Atom &atom(const Factor &factor) const { return atom(factor.atom); }

  Expression state(int index, int64_t width, const std::string &name);
  Expression sequence(int index, int64_t width, const std::string &name);
  Expression mask(int index, const std::string &name);
  Expression scalar(double value) const;
  Expression row(std::vector<double> values);

  Expression sum(const Expression &a, const Expression &b, double scale_of_b = 1) const;
  Expression scaled(const Expression &a, double factor);
  Expression multiply(const Expression &a, const Expression &b);
  Expression product(const Expression &a, const Matrix &matrix);
  Expression function(hrnn_activation function, const Expression &a);
  Expression clip(const Expression &a, double low, double high);
  Expression concat(const std::vector<Expression> &parts);
  Expression slice(const Expression &a, int64_t begin, int64_t end);

  // A mask, or one minus a mask.
  bool is_mask(const Expression &a) const;
  // The masks that occur in it, and what it is where they all are `value`.
  std::vector<int> masks_in(const Expression &a) const;
  Expression where_masks_are(const Expression &a, double value) const;
  Expression masked(const Expression &a, int mask) const;  // a, and 0 where the mask is

  // "z*h + tanh(x W + b)", shortened where it is long.
  std::string text(const Expression &a) const;

 private:
  int intern(Atom atom);
  Expression of_atom(int atom) const;
  Expression widened(const Expression &a, int64_t width) const;
  Expression normal(int64_t width, std::vector<Term> terms) const;
  std::shared_ptr<const Matrix> shared(Matrix matrix);
  int depth(const Expression &a) const;
  std::string text(const Expression &a, int levels) const;
  std::string text(const Atom &atom, int levels) const;

  std::vector<Atom> atoms_;
  std::vector<std::shared_ptr<const Matrix>> matrices_;
};

}  // namespace hrnn
