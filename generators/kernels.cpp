// SPDX-License-Identifier: Apache-2.0
#include "kernels.h"

#include <map>
#include <memory>
#include <sstream>
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
  GeneratorParam<int> unroll{"unroll", 1};
  GeneratorParam<int> chains{"chains", 1};
  GeneratorParam<int> inner{"inner", 0};

 protected:
  Type type() const { return dtype; }
  int lanes() const { return kRowBytes / type().bytes(); }

  // The length of a product, where it may be compiled in.
  Expr length(const Expr &extent) const { return inner > 0 ? Expr(static_cast<int>(inner)) : extent; }

  Product product(Func weights, Func bias, Func operand, const Expr &length) {
    const int block = block_elements(row_by_name(target_row).machine, type()), turn = block * chains;
    Func part("product"), of_block("operand"), value("sum");
    Var chain("chain"), i("i");
    RDom k(0, block, 0, length / turn, "k"), rest(length / turn * turn, length % turn, "rest");
    Expr at = (k.y * static_cast<int>(chains) + chain) * block + k.x, none = cast(type(), 0);
    of_block(i, row) = operand(i, row);
    part(lane, gate, panel, row, chain) = chains == 1 ? bias(lane, gate, panel) : select(chain == 0, bias(lane, gate, panel), none);
    part(lane, gate, panel, row, chain) += weights(lane, gate, at, panel) * of_block(at, row);
    if (turn > 1) part(lane, gate, panel, row, 0) += weights(lane, gate, rest, panel) * operand(rest, row);
    std::vector<Expr> sums;
    for (int c = 0; c < chains; c++) sums.push_back(part(lane, gate, panel, row, c));
    for (int half = chains / 2; half > 0; half /= 2)
      for (int c = 0; c < half; c++) sums[c] += sums[c + half];
    value(lane, gate, panel, row) = sums[0];
    return {part, value, of_block, k.x, k.y, rest.x, chain};
  }

  // The packed layout is dense and starts on a 64-byte boundary; only the number of panels and k may vary.
  template <class W, class B>
  void describe_weights(W &weights, B &bias, int gates, const Expr &k) {
    const int n = lanes();
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

  void schedule(Func output, const std::vector<Product> &products, int gates, bool output_has_gate) {
    if (this->using_autoscheduler()) return;
    const Machine &machine = row_by_name(target_row).machine;
    schedule_product(machine, Tile{panels, rows, gate_by_gate, unroll, chains, 0},
                     {output, products, lane, gate, panel, row, lanes(), gates, output_has_gate});
  }

  Var lane{"lane"}, gate{"gate"}, panel{"panel"}, row{"row"};
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
    Expr k = length(x.dim(0).extent());
    Product sum = product(weights, bias, x, k);
    out(lane, gate, panel, row) = sum.sums(lane, gate, panel, row);
    describe_weights(weights, bias, gates, k);
    x.dim(0).set_min(0).set_stride(1);
    describe_panels(out, gates);
    ProductGenerator::schedule(out, {sum}, gates, true);
  }
};

// What steps share: the cell, and its activations, compiled in or chosen at run time.
template <class Self>
class CellGenerator : public ProductGenerator<Self> {
 public:
  GeneratorParam<std::string> cell{"cell", "gru"};
  GeneratorParam<std::string> activations{"activations", ""};  // comma-separated; empty = any, at run time

 protected:
  const Cell &the_cell() const {
    const std::string &name = cell;
    return cell_by_name(name);
  }

  // What a phase yields, checked: the cell may be a user's.
  std::vector<Expr> compute(int phase, const PhaseInputs &in) const {
    const hrnn::Phase &p = the_cell().phases[phase];
    const std::string where = "cell '" + the_cell().name + "', phase " + std::to_string(phase);
    std::vector<Expr> values = p.compute(in);
    if (values.size() != static_cast<size_t>(p.outputs))
      throw std::invalid_argument(where + ": compute() yields " + std::to_string(values.size()) +
                                  " values; the phase says it has " + std::to_string(p.outputs) + " outputs");
    for (size_t i = 0; i < values.size(); i++) {
      const Type made = values[i].defined() ? values[i].type() : Type();
      if (made == this->type()) continue;
      std::ostringstream types;
      types << made << "; it must be " << this->type() << " (numbers that are not whole: in.constant(0.5))";
      throw std::invalid_argument(where + ": output " + std::to_string(i) + " is of type " + types.str());
    }
    return values;
  }

  // For activations chosen at run time, per activation kind (int32), alpha, beta, and at last clip (infinity = off).
  void add_activation_inputs() {
    // A cell without activations has nothing to choose and nothing to clip.
    if (!static_cast<const std::string &>(activations).empty() || the_cell().default_activations.empty()) return;
    const Type type = this->type();
    for (size_t i = 0; i < the_cell().default_activations.size(); i++) {
      const std::string n = std::to_string(i);
      kinds_.push_back(this->template add_input<int32_t>("kind_" + n));
      alphas_.push_back(this->template add_input<Expr>("alpha_" + n, type));
      betas_.push_back(this->template add_input<Expr>("beta_" + n, type));
    }
    clip_ = this->template add_input<Expr>("clip", type);
  }

  Expr activate(int i, const Expr &x) {
    const int count = static_cast<int>(the_cell().default_activations.size());
    if (i < 0 || i >= count)
      throw std::invalid_argument("cell '" + the_cell().name + "' uses activation " + std::to_string(i) + "; it has " +
                                  std::to_string(count));
    std::vector<std::string> names = split(activations, ',');
    const Type type = this->type();
    Expr one = cast(type, 1), zero = cast(type, 0);
    if (!names.empty()) return activation(activation_by_name(names.at(i)), x, one, zero);
    return any_activation(*kinds_.at(i), x, *clip_, *alphas_.at(i), *betas_.at(i));
  }

 private:
  std::vector<GeneratorInput<int32_t> *> kinds_;
  std::vector<GeneratorInput<Expr> *> alphas_, betas_;
  GeneratorInput<Expr> *clip_ = nullptr;
};

class Step : public CellGenerator<Step> {
 public:
  GeneratorParam<int> phase{"phase", 0};

  Input<Buffer<>> weights{"weights", 4};
  Input<Buffer<>> bias{"bias", 3};
  Input<Buffer<>> input{"input", 4};
  Input<Buffer<>> operand{"operand", 2};
  Input<Buffer<>> state{"state", 3};

  // Then, in this order: carried_i (3-D), the activations' inputs, the outputs (3-D).
  void configure() {
    for (auto *buffer : {&weights, &bias, &input, &operand, &state}) buffer->set_type(type());
    const Cell &c = the_cell();
    for (int i = 0; phase > 0 && i + 1 < c.phases[phase - 1].outputs; i++)
      carried_.push_back(add_input<Buffer<>>("carried_" + std::to_string(i), type(), 3));
    add_activation_inputs();
    out_ = add_output<Buffer<>>("out", std::vector<Type>(c.phases[phase].outputs, type()), 3);
  }

  void generate() {
    const Cell &c = the_cell();
    const hrnn::Phase &p = c.phases[phase];
    const int phase_gates = static_cast<int>(p.gates.size());
    Expr k = length(operand.dim(0).extent());
    Product sum = product(weights, bias, operand, k);

    PhaseInputs in;
    for (int g = 0; g < c.gates; g++) in.input.push_back(input(lane, g, panel, row));
    for (int g = 0; g < phase_gates; g++) in.product.push_back(sum.sums(lane, g, panel, row));
    for (auto *carried : carried_) in.carried.push_back((*carried)(lane, panel, row));
    in.state = state(lane, panel, row);
    in.activation = [this](int i, Expr x) { return activate(i, x); };

    std::vector<Expr> values = compute(phase, in);
    if (values.size() == 1)
      (*out_)(lane, panel, row) = values[0];
    else
      (*out_)(lane, panel, row) = Tuple(values);

    describe_weights(weights, bias, phase_gates, k);
    describe_panels(input, c.gates);
    operand.dim(0).set_min(0).set_stride(1);
    describe_panels(state, 0);
    for (auto *carried : carried_) describe_panels(*carried, 0);
    Func output = *out_;
    for (OutputImageParam &buffer : output.output_buffers()) describe_panels(buffer, 0);  // all have out's extents
    ProductGenerator::schedule(output, {sum}, phase_gates, false);
  }

 private:
  std::vector<Input<Buffer<>> *> carried_;
  Output<Buffer<>> *out_ = nullptr;
};

// A whole time step of a cell with one phase: the product with the input in the same kernel, for calls of a single step.
class FusedStep : public CellGenerator<FusedStep> {
 public:
  Input<Buffer<>> x_weights{"x_weights", 4};
  Input<Buffer<>> x_bias{"x_bias", 3};
  Input<Buffer<>> x{"x", 2};
  Input<Buffer<>> weights{"weights", 4};
  Input<Buffer<>> bias{"bias", 3};
  Input<Buffer<>> operand{"operand", 2};
  Input<Buffer<>> state{"state", 3};

  // Then the activations' inputs, and the output (3-D).
  void configure() {
    for (auto *buffer : {&x_weights, &x_bias, &x, &weights, &bias, &operand, &state}) buffer->set_type(type());
    add_activation_inputs();
    out_ = add_output<Buffer<>>("out", type(), 3);
  }

  void generate() {
    const Cell &c = the_cell();
    Expr x_length = x.dim(0).extent(), k = length(operand.dim(0).extent());
    Product x_sum = product(x_weights, x_bias, x, x_length), sum = product(weights, bias, operand, k);

    PhaseInputs in;
    for (int g = 0; g < c.gates; g++) in.input.push_back(x_sum.sums(lane, g, panel, row));
    for (int g = 0; g < c.gates; g++) in.product.push_back(sum.sums(lane, g, panel, row));
    in.state = state(lane, panel, row);
    in.activation = [this](int i, Expr e) { return activate(i, e); };
    (*out_)(lane, panel, row) = compute(0, in)[0];

    describe_weights(x_weights, x_bias, c.gates, x_length);
    describe_weights(weights, bias, c.gates, k);
    x.dim(0).set_min(0).set_stride(1);
    operand.dim(0).set_min(0).set_stride(1);
    describe_panels(state, 0);
    describe_panels(*out_, 0);
    // A short kernel is a fifth faster without a loop over its one row; of a long one LLVM addresses the weights worse then.
    if (chains > 1) {
      for (auto row_of : {x.dim(1), operand.dim(1), state.dim(2), out_->dim(2)}) row_of.set_bounds(0, 1);
      Func(*out_).bound(row, 0, 1);
    }
    ProductGenerator::schedule(*out_, {x_sum, sum}, c.gates, false);
  }

 private:
  Output<Buffer<>> *out_ = nullptr;
};

const char *generator_name(hrnn_kernel_kind kind) {
  switch (kind) {
    case HRNN_PROJECTION: return "hrnn_projection";
    case HRNN_STEP: return "hrnn_step";
    case HRNN_FUSED_STEP: return "hrnn_fused_step";
  }
  throw std::invalid_argument("no kernels are of kind " + std::to_string(kind));
}

// "p4r2": four panels by two rows; "p1r1c4": with four chains.
std::string tile_name(const Tile &tile) {
  return "p" + std::to_string(tile.panels) + "r" + std::to_string(tile.rows) + (tile.chains > 1 ? "c" + std::to_string(tile.chains) : "");
}

std::unique_ptr<Internal::AbstractGenerator> make_generator(const KernelSpec &spec, const TargetRow &target,
                                                            const GeneratorContext &context) {
  auto generator = Internal::GeneratorRegistry::create(generator_name(spec.kind), context);
  auto set = [&](const char *name, const std::string &value) { generator->set_generatorparam_value(name, value); };
  set("target_row", target.name);
  set("dtype", spec.dtype == HRNN_F64 ? "float64" : "float32");
  set("panels", std::to_string(spec.tile.panels));
  set("rows", std::to_string(spec.tile.rows));
  set("gate_by_gate", spec.tile.gate_by_gate ? "true" : "false");
  set("unroll", std::to_string(spec.tile.unroll));
  set("chains", std::to_string(spec.tile.chains));
  set("inner", std::to_string(spec.inner));
  if (spec.kind == HRNN_PROJECTION) {
    set("gates", std::to_string(spec.gates));
  } else {
    set("cell", spec.cell);
    set("activations", join(spec.activations, ","));
    if (spec.kind == HRNN_STEP) set("phase", std::to_string(spec.phase));
  }
  return generator;
}

std::vector<Argument> arguments_of(Internal::AbstractGenerator *generator) {
  std::vector<Argument> arguments;
  for (const auto &info : generator->arginfos()) {
    if (info.dir != Internal::ArgInfoDirection::Input) continue;
    for (const Parameter &p : generator->input_parameter(info.name)) {
      Argument::Kind kind = p.is_buffer() ? Argument::InputBuffer : Argument::InputScalar;
      arguments.emplace_back(p.name(), kind, p.type(), p.dimensions(), p.get_argument_estimates());
    }
  }
  return arguments;
}

}  // namespace

std::string kernel_symbol(const std::string &prefix, const KernelSpec &spec, const TargetRow &target) {
  std::string name = prefix;
  if (spec.kind == HRNN_PROJECTION) {
    name += "_projection_g" + std::to_string(spec.gates);
  } else {
    name += (spec.kind == HRNN_FUSED_STEP ? "_fused_" : "_step_") + spec.cell;
    if (cell_by_name(spec.cell).phases.size() > 1) name += "_phase" + std::to_string(spec.phase);
    const bool any = spec.activations.empty() && !cell_by_name(spec.cell).default_activations.empty();
    if (any || !spec.activations.empty()) name += "_" + (any ? "any" : join(spec.activations, "_"));
  }
  name += spec.dtype == HRNN_F64 ? "_f64" : "_f32";
  if (spec.inner > 0) name += "_k" + std::to_string(spec.inner);
  if (!target.machine.gpu) name += "_" + tile_name(spec.tile);
  return name + "_" + target.name;
}

Target kernel_target(const TargetRow &target) {
  return Target(std::string(target.halide) + "-no_runtime-no_asserts-no_bounds_query");
}

Module build_kernel(const KernelSpec &spec, const TargetRow &target, const std::string &symbol) {
  auto generator = make_generator(spec, target, GeneratorContext(kernel_target(target)));
  // As build_module(), but without the metadata nobody reads: only the function and its argv form.
  Pipeline pipeline = generator->build_pipeline();
  return pipeline.compile_to_module(arguments_of(generator.get()), symbol, kernel_target(target), LinkageType::ExternalPlusArgv);
}

Module autoscheduled_step(const KernelSpec &spec, const TargetRow &target, const std::string &symbol, const std::string &autoscheduler,
                          const StepShape &shape) {
  const Target with_runtime(target.halide);  // it may want memory
  const AutoschedulerParams params(autoscheduler, {{"parallelism", "1"}});
  auto generator = make_generator(spec, target, GeneratorContext(with_runtime, params));
  Pipeline pipeline = generator->build_pipeline();
  const Cell &cell = cell_by_name(spec.cell);
  const int lanes = kRowBytes / (spec.dtype == HRNN_F64 ? 8 : 4), gates = static_cast<int>(cell.phases[spec.phase].gates.size());
  const std::map<std::string, std::vector<int>> extents = {{"weights", {lanes, gates, shape.inner, shape.panels}},
                                                           {"bias", {lanes, gates, shape.panels}},
                                                           {"input", {lanes, cell.gates, shape.panels, shape.rows}},
                                                           {"operand", {shape.inner, shape.rows}},
                                                           {"state", {lanes, shape.panels, shape.rows}}};
  for (const auto &[name, extent] : extents) {
    for (Parameter &p : std::vector<Parameter>(generator->input_parameter(name))) {
      for (int d = 0; d < p.dimensions(); d++) {
        p.set_min_constraint_estimate(d, 0);
        p.set_extent_constraint_estimate(d, extent[d]);
      }
    }
  }
  for (Func &output : pipeline.outputs()) {
    const std::vector<Var> vars = output.args();
    const std::vector<int> &extent = extents.at("state");
    for (size_t d = 0; d < vars.size(); d++) output.set_estimate(vars[d], 0, extent[d]);
  }
  pipeline.apply_autoscheduler(with_runtime, params);
  return pipeline.compile_to_module(arguments_of(generator.get()), symbol, with_runtime, LinkageType::ExternalPlusArgv);
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
  for (uint32_t i = 0; i < row.activation_count; i++) row.defaults[i] = activation_by_name(cell.default_activations[i]);
  return row;
}

}  // namespace hrnn

// The registrations live at global scope: Halide's macro opens its own namespace.
HALIDE_REGISTER_GENERATOR(hrnn::Projection, hrnn_projection)
HALIDE_REGISTER_GENERATOR(hrnn::Step, hrnn_step)
HALIDE_REGISTER_GENERATOR(hrnn::FusedStep, hrnn_fused_step)
