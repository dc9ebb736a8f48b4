// SPDX-License-Identifier: Apache-2.0
#include "kernels.h"

#include <stdexcept>

#include "activations.h"

namespace hrnn {
namespace {

using namespace Halide;

constexpr int kRowBytes = 64;  // one packed row: runtime/src/pack.h

const TargetRow &row_by_name(const std::string &name) {
  for (const TargetRow &row : target_rows())
    if (name == row.name) return row;
  throw std::invalid_argument("no target is called '" + name + "'");
}

std::vector<std::string> split(const std::string &text, char separator) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = std::min(text.find(separator, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

std::string join(const std::vector<std::string> &parts, const char *separator) {
  std::string text;
  for (const std::string &part : parts) text += (text.empty() ? "" : separator) + part;
  return text;
}

// What both generators share: the product and the parameters of its schedule.
template <class Self>
class ProductGenerator : public Generator<Self> {
 public:
  GeneratorParam<std::string> target_row{"target_row", "avx2"};
  GeneratorParam<Type> dtype{"dtype", Float(32)};
  GeneratorParam<int> panels{"panels", 1};
  GeneratorParam<int> rows{"rows", 1};
  GeneratorParam<bool> gate_by_gate{"gate_by_gate", false};
  GeneratorParam<int> inner{"inner", 0};

 protected:
  Type type() const { return dtype; }
  int lanes() const { return kRowBytes / type().bytes(); }

  Func product(Func weights, Func bias, Func operand, const Expr &extent) {
    Func sum("product");
    k_ = RDom(0, inner > 0 ? Expr(static_cast<int>(inner)) : extent, "k");
    sum(lane, gate, panel, row) = bias(lane, gate, panel);
    sum(lane, gate, panel, row) += weights(lane, gate, k_, panel) * operand(k_, row);
    return sum;
  }

  // The packed layout is dense and starts on a 64-byte boundary; only the number of panels and k may vary.
  template <class W, class B>
  void describe_weights(W &weights, B &bias, int gates, const Expr &extent) {
    const int n = lanes();
    Expr k = inner > 0 ? Expr(static_cast<int>(inner)) : extent;
    weights.dim(0).set_bounds(0, n).set_stride(1);
    weights.dim(1).set_bounds(0, gates).set_stride(n);
    weights.dim(2).set_min(0).set_stride(n * gates);
    weights.dim(3).set_min(0).set_stride(n * gates * k);
    weights.set_host_alignment(kRowBytes);
    bias.dim(0).set_bounds(0, n).set_stride(1);
    bias.dim(1).set_bounds(0, gates).set_stride(n);
    bias.dim(2).set_min(0).set_stride(n * gates);
    bias.set_host_alignment(kRowBytes);
  }

  // (lane, gate, panel, row) or, without gates, (lane, panel, row); rows may be apart.
  template <class P>
  void describe_panels(P &parameter, int gates) {
    const int n = lanes();
    parameter.dim(0).set_stride(1);
    if (gates > 0) parameter.dim(1).set_bounds(0, gates).set_stride(n);
    parameter.dim(gates > 0 ? 2 : 1).set_stride(gates > 0 ? n * gates : n);
    parameter.set_host_alignment(kRowBytes);
  }

  void schedule(Func output, Func sum, int gates, bool output_has_gate) {
    const Machine &machine = row_by_name(target_row).machine;
    schedule_product(machine, Tile{panels, rows, gate_by_gate, 0},
                     {output, sum, lane, gate, panel, row, k_.x, lanes(), gates, output_has_gate});
  }

  Var lane{"lane"}, gate{"gate"}, panel{"panel"}, row{"row"};
  RDom k_;
};

class Projection : public ProductGenerator<Projection> {
 public:
  GeneratorParam<int> gates{"gates", 1};

  Input<Buffer<>> weights{"weights", 4};
  Input<Buffer<>> bias{"bias", 3};
  Input<Buffer<>> x{"x", 2};
  Output<Buffer<>> out{"out", 4};

  void configure() {
    weights.set_type(type());
    bias.set_type(type());
    x.set_type(type());
    out.set_type(type());
  }

  void generate() {
    Func sum = product(weights, bias, x, x.dim(0).extent());
    out(lane, gate, panel, row) = sum(lane, gate, panel, row);
    describe_weights(weights, bias, gates, x.dim(0).extent());
    x.dim(0).set_min(0).set_stride(1);
    describe_panels(out, gates);
    ProductGenerator::schedule(out, sum, gates, true);
  }
};

class Step : public ProductGenerator<Step> {
 public:
  GeneratorParam<std::string> cell{"cell", "gru"};
  GeneratorParam<int> phase{"phase", 0};
  GeneratorParam<std::string> activations{"activations", ""};  // comma-separated; empty = any, at run time

  Input<Buffer<>> weights{"weights", 4};
  Input<Buffer<>> bias{"bias", 3};
  Input<Buffer<>> input{"input", 4};
  Input<Buffer<>> operand{"operand", 2};
  Input<Buffer<>> state{"state", 3};

  // Then, in this order: carried_i (3-D), and for activations chosen at run time, per activation kind (int32), alpha,
  // beta, and at last clip (infinity = off); then the outputs (3-D).
  void configure() {
    for (auto *buffer : {&weights, &bias, &input, &operand, &state}) buffer->set_type(type());
    const Cell &c = cell_by_name(cell);
    for (int i = 0; phase > 0 && i + 1 < c.phases[phase - 1].outputs; i++)
      carried_.push_back(add_input<Buffer<>>("carried_" + std::to_string(i), type(), 3));
    if (static_cast<std::string>(activations).empty()) {
      for (size_t i = 0; i < c.default_activations.size(); i++) {
        const std::string n = std::to_string(i);
        kinds_.push_back(add_input<int32_t>("kind_" + n));
        alphas_.push_back(add_input<Expr>("alpha_" + n, type()));
        betas_.push_back(add_input<Expr>("beta_" + n, type()));
      }
      clip_ = add_input<Expr>("clip", type());
    }
    out_ = add_output<Buffer<>>("out", std::vector<Type>(c.phases[phase].outputs, type()), 3);
  }

  void generate() {
    const Cell &c = cell_by_name(cell);
    const hrnn::Phase &p = c.phases[phase];
    const int phase_gates = static_cast<int>(p.gates.size());
    Expr extent = operand.dim(0).extent();
    Func sum = product(weights, bias, operand, extent);

    PhaseInputs in;
    for (int g = 0; g < c.gates; g++) in.input.push_back(input(lane, g, panel, row));
    for (int g = 0; g < phase_gates; g++) in.product.push_back(sum(lane, g, panel, row));
    for (auto *carried : carried_) in.carried.push_back((*carried)(lane, panel, row));
    in.state = state(lane, panel, row);
    in.activation = [this](int i, Expr x) { return activate(i, x); };

    std::vector<Expr> values = p.compute(in);
    if (values.size() == 1)
      (*out_)(lane, panel, row) = values[0];
    else
      (*out_)(lane, panel, row) = Tuple(values);

    describe_weights(weights, bias, phase_gates, extent);
    describe_panels(input, c.gates);
    operand.dim(0).set_min(0).set_stride(1);
    describe_panels(state, 0);
    for (auto *carried : carried_) describe_panels(*carried, 0);
    Func output = *out_;
    for (OutputImageParam &buffer : output.output_buffers()) describe_panels(buffer, 0);  // all have out's extents
    ProductGenerator::schedule(output, sum, phase_gates, false);
  }

 private:
  Expr activate(int i, const Expr &x) {
    std::vector<std::string> names = split(activations, ',');
    Expr one = cast(type(), 1), zero = cast(type(), 0);
    if (!names.empty()) return activation(activation_by_name(names.at(i)), x, one, zero);
    return any_activation(*kinds_.at(i), x, *clip_, *alphas_.at(i), *betas_.at(i));
  }

  std::vector<Input<Buffer<>> *> carried_;
  std::vector<Input<int32_t> *> kinds_;
  std::vector<Input<Expr> *> alphas_, betas_;
  Input<Expr> *clip_ = nullptr;
  Output<Buffer<>> *out_ = nullptr;
};

}  // namespace

std::string kernel_symbol(const std::string &prefix, const KernelSpec &spec, const TargetRow &target) {
  std::string name = prefix;
  if (spec.kind == HRNN_PROJECTION) {
    name += "_projection_g" + std::to_string(spec.gates);
  } else {
    name += "_step_" + spec.cell;
    if (cell_by_name(spec.cell).phases.size() > 1) name += "_phase" + std::to_string(spec.phase);
    name += "_" + (spec.activations.empty() ? std::string("any") : join(spec.activations, "_"));
  }
  name += spec.dtype == HRNN_F64 ? "_f64" : "_f32";
  if (spec.inner > 0) name += "_k" + std::to_string(spec.inner);
  if (!target.machine.gpu) name += "_p" + std::to_string(spec.tile.panels) + "r" + std::to_string(spec.tile.rows);
  return name + "_" + target.name;
}

Target kernel_target(const TargetRow &target) {
  return Target(std::string(target.halide) + "-no_runtime-no_asserts-no_bounds_query");
}

Module build_kernel(const KernelSpec &spec, const TargetRow &target, const std::string &symbol) {
  const bool step = spec.kind == HRNN_STEP;
  GeneratorContext context(kernel_target(target));
  auto generator = Internal::GeneratorRegistry::create(step ? "hrnn_step" : "hrnn_projection", context);
  auto set = [&](const char *name, const std::string &value) { generator->set_generatorparam_value(name, value); };
  set("target_row", target.name);
  set("dtype", spec.dtype == HRNN_F64 ? "float64" : "float32");
  set("panels", std::to_string(spec.tile.panels));
  set("rows", std::to_string(spec.tile.rows));
  set("gate_by_gate", spec.tile.gate_by_gate ? "true" : "false");
  set("inner", std::to_string(spec.inner));
  if (step) {
    set("cell", spec.cell);
    set("phase", std::to_string(spec.phase));
    set("activations", join(spec.activations, ","));
  } else {
    set("gates", std::to_string(spec.gates));
  }

  // As build_module(), but without the metadata nobody reads: only the function and its argv form.
  Pipeline pipeline = generator->build_pipeline();
  std::vector<Argument> arguments;
  for (const auto &info : generator->arginfos()) {
    if (info.dir != Internal::ArgInfoDirection::Input) continue;
    for (const Parameter &p : generator->input_parameter(info.name)) {
      Argument::Kind kind = p.is_buffer() ? Argument::InputBuffer : Argument::InputScalar;
      arguments.emplace_back(p.name(), kind, p.type(), p.dimensions(), p.get_argument_estimates());
    }
  }
  return pipeline.compile_to_module(arguments, symbol, kernel_target(target), LinkageType::ExternalPlusArgv);
}

hrnn_kernel kernel_row(const KernelSpec &spec) {
  hrnn_kernel row = {};
  row.kind = spec.kind;
  row.dtype = spec.dtype;
  row.panels = spec.tile.panels;
  row.rows = spec.tile.rows;
  row.inner = spec.inner;
  row.cache_level = spec.tile.cache_level;
  if (spec.kind == HRNN_PROJECTION) {
    row.gates = spec.gates;
    return row;
  }
  const Cell &cell = cell_by_name(spec.cell);
  row.gates = cell.gates;
  row.phase = spec.phase;
  row.phases = static_cast<uint32_t>(cell.phases.size());
  for (int gate : cell.phases[spec.phase].gates) row.phase_gates |= 1u << gate;
  row.carried = cell.phases[0].outputs - 1;
  row.activation_count = static_cast<uint32_t>(cell.default_activations.size());
  for (uint32_t i = 0; i < HRNN_MAX_ACTIVATIONS; i++)
    row.activations[i] = i < spec.activations.size() ? activation_by_name(spec.activations[i]) : -1;
  return row;
}

}  // namespace hrnn

// The registrations live at global scope: Halide's macro opens its own namespace.
HALIDE_REGISTER_GENERATOR(hrnn::Projection, hrnn_projection)
HALIDE_REGISTER_GENERATOR(hrnn::Step, hrnn_step)
