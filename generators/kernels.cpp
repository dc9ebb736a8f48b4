// SPDX-License-Identifier: Apache-2.0
#include "kernels.h"

#include <map>
#include <memory>
#include <numeric>
#include <sstream>
#include <stdexcept>

#include "activations.h"
#include "pack.h"
#include "prefetch.h"

namespace hrnn {
namespace {

using namespace Halide;

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
  GeneratorParam<bool> half{"half", false};

 protected:
  Type type() const { return dtype; }
  int lanes() const { return static_cast<int>(kRowBytes) / type().bytes(); }
  bool on_gpu() const { return row_by_name(target_row).machine.gpu; }

  // The length of a product, where it may be compiled in.
  Expr length(const Expr &extent) const { return inner > 0 ? Expr(static_cast<int>(inner)) : extent; }

  // One matrix product of a sum: of which gate a sum takes it, -1 = of none.
  struct Term {
    Func weights, bias, operand;
    Expr length;
    std::vector<int> gates;
  };

  Product product(Func weights, Func bias, Func operand, const Expr &length, int gates) {
    std::vector<int> each(gates);
    std::iota(each.begin(), each.end(), 0);
    return sum_of({{weights, bias, operand, length, each}});
  }

  // sums(lane, g, panel, row): for each term, of its gates[g], the bias and the product.
  Product sum_of(const std::vector<Term> &terms) {
    Func part("product"), sums_of_chains("sum");
    Var chain("chain"), i("i");
    Expr start = cast(type(), 0);
    for (const Term &t : terms) start = start + of_gate(t, [&](const Expr &g) { return t.bias(lane, g, panel); });
    part(lane, gate, panel, row, chain) = chains == 1 ? start : select(chain == 0, start, cast(type(), 0));
    Product product{part, sums_of_chains, {}, chain, {}};
    const int block = block_elements(row_by_name(target_row).machine, type()), turn = block * chains;
    for (const Term &t : terms) {
      Func of_block("operand");
      of_block(i, row) = t.operand(i, row);
      RDom k(0, block, 0, t.length / turn, "k"), rest = rest_of(t.length, block, turn, chain);
      Expr at = (k.y * static_cast<int>(chains) + chain) * block + k.x;
      part(lane, gate, panel, row, chain) +=
          of_gate(t, [&](const Expr &g) { return t.weights(lane, g, at, panel) * of_block(at, row); });
      if (turn > 1) {
        // Halide asks that no more is there than k, and sees that from the index alone.
        const Expr last = on_gpu() ? min(t.length / turn * turn + chain * block + rest.x, t.length - 1) : Expr(rest.x);
        part(lane, gate, panel, row, on_gpu() ? Expr(chain) : 0) +=
            of_gate(t, [&](const Expr &g) { return t.weights(lane, g, last, panel) * t.operand(last, row); });
      }
      product.terms.push_back({of_block, k.x, k.y, rest.x, turn > 1});
    }
    const bool grouped = has_chain_groups(chains, rows);
    if (grouped) {
      product.groups = Func("group");
      product.groups(lane, gate, panel, row, chain) =
          tree_sum(kChainGroup, [&](int c) { return part(lane, gate, panel, row, chain * kChainGroup + c); });
    }
    const Func &summands = grouped ? product.groups : part;
    sums_of_chains(lane, gate, panel, row) =
        tree_sum(grouped ? chains / kChainGroup : static_cast<int>(chains), [&](int c) { return summands(lane, gate, panel, row, c); });
    return product;
  }

  // Of a power of two.
  template <class Summand>
  static Expr tree_sum(int count, Summand summand) {
    std::vector<Expr> sums;
    for (int i = 0; i < count; i++) sums.push_back(summand(i));
    for (int half = count / 2; half > 0; half /= 2)
      for (int i = 0; i < half; i++) sums[i] += sums[i + half];
    return sums[0];
  }

  // What is left of k after whole turns: the first chain's or, on a GPU, whose chains are threads, shared out as in a turn.
  RDom rest_of(const Expr &length, int block, int turn, const Var &chain) const {
    if (!on_gpu()) return RDom(length / turn * turn, length % turn, "rest");
    RDom rest(0, block, "rest");
    rest.where(chain * block + rest < length % turn);
    return rest;
  }

  // `f` of the term's gate for each gate of the sum, which are unrolled; 0 where it takes none.
  template <class F>
  Expr of_gate(const Term &term, F f) {
    const int count = static_cast<int>(term.gates.size());
    bool each = true;
    for (int g = 0; g < count; g++) each &= term.gates[g] == g;
    if (each) return f(gate);
    Expr of = 0, taken = Internal::const_true();
    for (int g = 0; g < count; g++) {
      if (term.gates[g] < 0)
        taken = taken && gate != g;
      else
        of = select(gate == g, term.gates[g], of);
    }
    return select(taken, f(of), cast(type(), 0));
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

  void schedule(Func output, const Product &product, int gates, bool output_has_gate) {
    if (this->using_autoscheduler()) return;
    const Machine &machine = row_by_name(target_row).machine;
    schedule_product(machine, Tile{panels, rows, gate_by_gate, unroll, chains, 0, half},
                     {output, product, lane, gate, panel, row, lanes(), gates, output_has_gate});
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
    Product sum = product(weights, bias, x, k, gates);
    out(lane, gate, panel, row) = sum.sums(lane, gate, panel, row);
    describe_weights(weights, bias, gates, k);
    x.dim(0).set_min(0).set_stride(1);
    describe_panels(out, gates);
    ProductGenerator::schedule(out, sum, gates, true);
  }
};

// What steps share: a phase of the cell, and its activations, compiled in or chosen at run time.
template <class Self>
class CellGenerator : public ProductGenerator<Self> {
 public:
  GeneratorParam<std::string> cell{"cell", "gru"};
  GeneratorParam<std::string> activations{"activations", ""};  // comma-separated; empty = any, at run time
  GeneratorParam<int> phase{"phase", 0};

 protected:
  const Cell &the_cell() const {
    const std::string &name = cell;
    return cell_by_name(name);
  }

  const hrnn::Phase &the_phase() const { return the_cell().phases[phase]; }
  int phase_gates() const { return static_cast<int>(the_phase().gates.size()); }

  // The last parameters: carried_i (3-D), the activations' inputs, the outputs (3-D).
  void add_last_parameters() {
    for (int i = 0; phase > 0 && i + 1 < the_cell().phases[phase - 1].outputs; i++)
      carried_.push_back(this->template add_input<Buffer<>>("carried_" + std::to_string(i), this->type(), 3));
    add_activation_inputs();
    out_ = this->template add_output<Buffer<>>("out", std::vector<Type>(the_phase().outputs, this->type()), 3);
  }

  // What a phase reads beside its products.
  PhaseInputs inputs_with(const Func &state) {
    PhaseInputs in;
    for (auto *carried : carried_) in.carried.push_back((*carried)(this->lane, this->panel, this->row));
    in.state = state(this->lane, this->panel, this->row);
    in.activation = [this](int i, Expr x) { return activate(i, x); };
    return in;
  }

  const std::vector<GeneratorInput<Buffer<>> *> &carried_buffers() const { return carried_; }

  Func define_output(const std::vector<Expr> &values) {
    if (values.size() == 1)
      (*out_)(this->lane, this->panel, this->row) = values[0];
    else
      (*out_)(this->lane, this->panel, this->row) = Tuple(values);
    for (auto *carried : carried_) this->describe_panels(*carried, 0);
    Func output = *out_;
    for (OutputImageParam &buffer : output.output_buffers()) this->describe_panels(buffer, 0);  // all have out's extents
    return output;
  }

  // What the phase yields, checked: the cell may be a user's.
  std::vector<Expr> compute(const PhaseInputs &in) const {
    const hrnn::Phase &p = the_phase();
    const std::string where = "cell '" + the_cell().name + "', phase " + std::to_string(static_cast<int>(phase));
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

 private:
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

  std::vector<GeneratorInput<Buffer<>> *> carried_;
  std::vector<GeneratorInput<int32_t> *> kinds_;
  std::vector<GeneratorInput<Expr> *> alphas_, betas_;
  GeneratorInput<Expr> *clip_ = nullptr;
  GeneratorOutput<Buffer<>> *out_ = nullptr;
};

class Step : public CellGenerator<Step> {
 public:
  Input<Buffer<>> weights{"weights", 4};
  Input<Buffer<>> bias{"bias", 3};
  Input<Buffer<>> input{"input", 4};
  Input<Buffer<>> operand{"operand", 2};
  Input<Buffer<>> state{"state", 3};

  void configure() {
    for (auto *buffer : {&weights, &bias, &input, &operand, &state}) buffer->set_type(type());
    add_last_parameters();
  }

  void generate() {
    const int gates = the_cell().gates;
    Expr k = length(operand.dim(0).extent());
    Product sum = product(weights, bias, operand, k, phase_gates());

    PhaseInputs in = inputs_with(state);
    for (int g = 0; g < gates; g++) in.input.push_back(input(lane, g, panel, row));
    for (int g = 0; g < phase_gates(); g++) in.product.push_back(sum.sums(lane, g, panel, row));
    Func output = define_output(compute(in));

    describe_weights(weights, bias, phase_gates(), k);
    describe_panels(input, gates);
    operand.dim(0).set_min(0).set_stride(1);
    if (on_gpu()) {  // states lie in whole panels: blocks of them can be loaded at once
      operand.dim(1).set_stride(operand.dim(1).stride() / lanes() * lanes());
      operand.set_host_alignment(kRowBytes);
    }
    describe_panels(state, 0);
    ProductGenerator::schedule(output, sum, phase_gates(), false);
  }
};

// A sum that a phase reads: of the input's product of a gate, of the operand's, or of both; -1 = not of it.
struct PhaseSum {
  int input, product;
};

bool is_variable(const Expr &e, const std::string &name) {
  const auto *variable = e.as<Internal::Variable>();
  return variable != nullptr && variable->name == name;
}

// Replaces a + b, of two variables, by `sum`.
class ReplaceSum : public Internal::IRGraphMutator {
 public:
  ReplaceSum(const std::string &a, const std::string &b, const Expr &sum) : a_(a), b_(b), sum_(sum) {}

 private:
  using IRGraphMutator::visit;
  Expr visit(const Internal::Add *op) override {
    const bool found = (is_variable(op->a, a_) && is_variable(op->b, b_)) || (is_variable(op->a, b_) && is_variable(op->b, a_));
    return found ? sum_ : IRGraphMutator::visit(op);
  }

  const std::string a_, b_;
  const Expr sum_;
};

// A phase with the product with the input in the same kernel, for calls of a single step. Where a gate's products are only
// read as their sum, one sum takes both.
class FusedStep : public CellGenerator<FusedStep> {
 public:
  Input<Buffer<>> x_weights{"x_weights", 4};
  Input<Buffer<>> x_bias{"x_bias", 3};
  Input<Buffer<>> x{"x", 2};
  Input<Buffer<>> weights{"weights", 4};
  Input<Buffer<>> bias{"bias", 3};
  Input<Buffer<>> operand{"operand", 2};
  Input<Buffer<>> state{"state", 3};

  void configure() {
    for (auto *buffer : {&x_weights, &x_bias, &x, &weights, &bias, &operand, &state}) buffer->set_type(type());
    add_last_parameters();
  }

  void generate() {
    Expr x_length = x.dim(0).extent(), k = length(operand.dim(0).extent());
    std::vector<Expr> values = compute(symbolic_inputs());
    const std::vector<PhaseSum> sums = find_sums(&values);
    Term x_term{x_weights, x_bias, x, x_length, {}}, term{weights, bias, operand, k, {}};
    for (const PhaseSum &sum : sums) x_term.gates.push_back(sum.input), term.gates.push_back(sum.product);
    Product sum = sum_of({x_term, term});
    for (size_t i = 0; i < sums.size(); i++)
      for (Expr &value : values)
        value = Internal::graph_substitute(name_of(sums[i]), sum.sums(lane, static_cast<int>(i), panel, row), value);
    Func output = define_output(values);

    describe_weights(x_weights, x_bias, the_cell().gates, x_length);
    describe_weights(weights, bias, phase_gates(), k);
    x.dim(0).set_min(0).set_stride(1);
    operand.dim(0).set_min(0).set_stride(1);
    describe_panels(state, 0);
    // One tile a call: in a small layer, loops over tiles and what addresses them take as long as the products.
    for (auto row_of : {x.dim(1), operand.dim(1)}) row_of.set_bounds(0, 1);
    bound_to_a_tile(state);
    for (auto *carried : carried_buffers()) bound_to_a_tile(*carried);
    bound_to_a_tile(output.output_buffers()[0]);  // the others have its bounds
    output.bound(panel, 0, panels).bound(row, 0, 1);
    ProductGenerator::schedule(output, sum, static_cast<int>(sums.size()), false);
  }

 private:
  template <class P>
  void bound_to_a_tile(P &&parameter) {
    parameter.dim(1).set_bounds(0, panels);
    parameter.dim(2).set_bounds(0, 1);
  }

  static std::string name_of(const PhaseSum &sum) {
    return "sum_of_" + std::to_string(sum.input) + "_and_" + std::to_string(sum.product);
  }
  Expr symbol(const PhaseSum &sum) const { return Internal::Variable::make(type(), name_of(sum)); }

  // The products by name, to see what becomes of them.
  PhaseInputs symbolic_inputs() {
    PhaseInputs in = inputs_with(state);
    for (int g = 0; g < the_cell().gates; g++) in.input.push_back(symbol({g, -1}));
    for (int j = 0; j < phase_gates(); j++) in.product.push_back(symbol({-1, j}));
    return in;
  }

  static bool read(const std::vector<Expr> &values, const PhaseSum &sum) {
    for (const Expr &value : values)
      if (Internal::expr_uses_var(value, name_of(sum))) return true;
    return false;
  }

  // The sums that `values`, of symbolic_inputs(), read, after those of a gate were joined where they are not read apart.
  std::vector<PhaseSum> find_sums(std::vector<Expr> *values) const {
    std::vector<PhaseSum> possible, found;
    for (int j = 0; j < phase_gates(); j++) {
      const PhaseSum input{the_phase().gates[j], -1}, product{-1, j}, both{input.input, j};
      ReplaceSum replace(name_of(input), name_of(product), symbol(both));
      std::vector<Expr> joined;
      for (const Expr &value : *values) joined.push_back(replace.mutate(value));
      if (!read(joined, input) && !read(joined, product)) *values = joined;
      possible.push_back(both);
    }
    for (int g = 0; g < the_cell().gates; g++) possible.push_back({g, -1});
    for (int j = 0; j < phase_gates(); j++) possible.push_back({-1, j});
    for (const PhaseSum &sum : possible)
      if (read(*values, sum)) found.push_back(sum);
    if (found.empty()) found.push_back(possible[0]);  // of a phase that reads none
    return found;
  }
};

const char *generator_name(hrnn_kernel_kind kind) {
  switch (kind) {
    case HRNN_PROJECTION: return "hrnn_projection";
    case HRNN_STEP: return "hrnn_step";
    case HRNN_FUSED_STEP: return "hrnn_fused_step";
  }
  throw std::invalid_argument("no kernels are of kind " + std::to_string(kind));
}

// "p4r2": four panels by two rows; "p1r1c4": with four chains; "p1r1c2half": of half a panel; "p1r8far": of weights from beyond the L2.
std::string tile_name(const Tile &tile) {
  return "p" + std::to_string(tile.panels) + "r" + std::to_string(tile.rows) +
         (tile.chains > 1 ? "c" + std::to_string(tile.chains) : "") + (tile.half ? "half" : "") +
         (tile.cache_level == kBeyondSecondLevel ? "far" : "");
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
  set("half", spec.tile.half ? "true" : "false");
  if (spec.kind == HRNN_PROJECTION) {
    set("gates", std::to_string(spec.gates));
  } else {
    set("cell", spec.cell);
    set("activations", join(spec.activations, ","));
    set("phase", std::to_string(spec.phase));
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
  return name + "_" + tile_name(spec.tile) + "_" + target.name;
}

Target kernel_target(const TargetRow &target) {
  // A GPU's kernel is launched under what Halide takes for assertions: without them a launch that failed would go unnoticed.
  return Target(std::string(target.halide) + "-no_runtime-no_bounds_query" + (target.machine.gpu ? "" : "-no_asserts"));
}

Module build_kernel(const KernelSpec &spec, const TargetRow &target, const std::string &symbol) try {
  auto generator = make_generator(spec, target, GeneratorContext(kernel_target(target)));
  // As build_module(), but without the metadata nobody reads: only the function and its argv form.
  Pipeline pipeline = generator->build_pipeline();
  if (spec.tile.cache_level == kBeyondSecondLevel && spec.tile.rows > 1)  // the loops of schedule_cpu()
    prefetch_weights(pipeline, {"weights", ".po", ".ko", spec.tile.panels, spec.tile.unroll});
  return pipeline.compile_to_module(arguments_of(generator.get()), symbol, kernel_target(target), LinkageType::ExternalPlusArgv);
} catch (const Halide::Error &error) {  // of a user's cell, which is none of std's exceptions
  throw std::runtime_error(symbol + ": " + error.what());
}

Module autoscheduled_step(const KernelSpec &spec, const TargetRow &target, const std::string &symbol, const std::string &autoscheduler,
                          const StepShape &shape) {
  const Target with_runtime(target.halide);  // it may want memory
  const AutoschedulerParams params(autoscheduler, {{"parallelism", "1"}});
  auto generator = make_generator(spec, target, GeneratorContext(with_runtime, params));
  Pipeline pipeline = generator->build_pipeline();
  const Cell &cell = cell_by_name(spec.cell);
  const int lanes = static_cast<int>(lanes_of(spec.dtype)), gates = static_cast<int>(cell.phases[spec.phase].gates.size());
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
  row.lanes = spec.tile.half ? static_cast<uint32_t>(lanes_of(spec.dtype) / 2) : 0;
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
