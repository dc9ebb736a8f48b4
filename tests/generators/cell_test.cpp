// SPDX-License-Identifier: Apache-2.0
//
// What a cell must be: faults are found before a kernel is made, with a message that names the cell and both values.
#include "cells.h"

#include <gtest/gtest.h>

#include "hrnn/hrnn.h"
#include "variants.h"

namespace hrnn {
namespace {

Phase phase(std::vector<int> gates, int outputs) {
  return {std::move(gates), outputs, [](const PhaseInputs &in) -> std::vector<Expr> { return {in.activation(0, in.product[0])}; }};
}
Cell good() { return {"good", 2, {"tanh"}, {phase({0}, 2), phase({1}, 1)}}; }

// The fault of a good cell with one thing changed.
template <class Change>
std::string fault_of(Change change) {
  Cell cell = good();
  change(&cell);
  return cell_fault(cell);
}

TEST(Cell, IsChecked) {
  EXPECT_EQ(cell_fault(good()), "");
  EXPECT_EQ(fault_of([](Cell *c) { c->gates = HRNN_MAX_GATES + 1; }), "cell 'good': gates: 5; it must be 1 to 4");
  EXPECT_EQ(fault_of([](Cell *c) { c->gates = -1; }), "cell 'good': gates: 0; it must be 1 to 4");
  EXPECT_EQ(fault_of([](Cell *c) { c->phases.push_back(phase({0}, 1)); }), "cell 'good': phases: 3; it must be 1 to 2");
  EXPECT_EQ(fault_of([](Cell *c) { c->phases.clear(); }), "cell 'good': phases: 0; it must be 1 to 2");
  EXPECT_EQ(fault_of([](Cell *c) { c->phases[0].outputs = 5; }), "cell 'good': outputs of phase 0: 5; it must be 1 to 4");
  EXPECT_EQ(fault_of([](Cell *c) { c->phases[1].outputs = 2; }),
            "cell 'good': outputs of phase 1, which yields the new state and nothing else: 2; it must be 1");
  EXPECT_EQ(fault_of([](Cell *c) { c->phases[1].compute = nullptr; }), "cell 'good': phase 1 has no compute function");
  EXPECT_EQ(fault_of([](Cell *c) { c->phases[1].gates = {2}; }), "cell 'good': phase 1 multiplies gate 2; the cell has gates 0 to 1");
  EXPECT_EQ(fault_of([](Cell *c) { c->phases[0].gates = {1, 0}; }), "cell 'good': phase 0 lists gate 0 after gate 1; they must ascend");
  EXPECT_EQ(fault_of([](Cell *c) { c->phases[0].gates.clear(); }),
            "cell 'good': phase 0 multiplies no gate's R; it must multiply at least one");
  EXPECT_EQ(fault_of([](Cell *c) { c->default_activations.assign(4, "tanh"); }), "cell 'good': activations: 4; it must be 0 to 3");
  EXPECT_EQ(fault_of([](Cell *c) { c->default_activations = {"swish"}; }),
            "cell 'good': no activation is called 'swish'; known: relu, tanh, sigmoid, affine, leakyrelu, thresholdedrelu, "
            "scaledtanh, hardsigmoid, elu, softsign, softplus");
  EXPECT_EQ(fault_of([](Cell *c) { c->name = "my cell"; }), "cell 'my cell': the name must be a C identifier (letters, digits, _)");
  EXPECT_EQ(fault_of([](Cell *c) { c->name = std::string(31, 'a'); }),
            "cell '" + std::string(31, 'a') + "': characters of the name: 31; it must be 1 to 30");
}

// What compute() yields is known only when a kernel is made.
std::string failure_of_kernel(const char *name, std::vector<std::string> activations,
                              std::function<std::vector<Expr>(const PhaseInputs &)> compute) {
  register_cell({name, 1, std::move(activations), {{{0}, 1, std::move(compute)}}}, __FILE__);
  const TargetRow &target = target_rows()[0];
  const KernelFamily family{HRNN_STEP, name, {}, 0, HRNN_F64, 0};
  try {
    build_kernel(expand(family, target).front(), target, "unused");
  } catch (const std::exception &error) {
    return error.what();
  }
  return "";
}

TEST(Cell, ValuesAreChecked) {
  EXPECT_EQ(failure_of_kernel("two_values", {}, [](const PhaseInputs &in) -> std::vector<Expr> { return {in.state, in.state}; }),
            "cell 'two_values', phase 0: compute() yields 2 values; the phase says it has 1 outputs");
  EXPECT_EQ(failure_of_kernel("half", {}, [](const PhaseInputs &in) -> std::vector<Expr> { return {Halide::cast<float>(in.state)}; }),
            "cell 'half', phase 0: output 0 is of type float32; it must be float64 (numbers that are not whole: in.constant(0.5))");
  EXPECT_EQ(failure_of_kernel("far", {"tanh"}, [](const PhaseInputs &in) -> std::vector<Expr> { return {in.activation(1, in.state)}; }),
            "cell 'far' uses activation 1; it has 1");
  // What Halide refuses is an error like any other.
  EXPECT_NE(failure_of_kernel("undefined", {}, [](const PhaseInputs &in) -> std::vector<Expr> { return {in.state + Expr()}; }).find("undefined Expr"),
            std::string::npos);
  EXPECT_EQ(failure_of_kernel("fine", {}, [](const PhaseInputs &in) -> std::vector<Expr> {
              return {in.constant(0.1) * in.state + in.product[0] - 1};
            }),
            "");
}

TEST(Cell, WithoutActivationsHasOneSetOfKernels) {
  register_cell({"plain", 1, {}, {{{0}, 1, [](const PhaseInputs &in) -> std::vector<Expr> { return {in.product[0]}; }}}}, __FILE__);
  int general = 0, sized = 0;
  for (const KernelFamily &family : library_families({"plain"}, {HRNN_F32}, {64}))
    if (family.kind == HRNN_STEP) (family.inner ? sized : general)++;
  EXPECT_EQ(general, 1);
  EXPECT_EQ(sized, 1);
}

}  // namespace
}  // namespace hrnn
