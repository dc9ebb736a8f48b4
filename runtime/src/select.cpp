// SPDX-License-Identifier: Apache-2.0
#include "select.h"

#include <climits>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <initializer_list>

#include "machine.h"
#include "status.h"

namespace hrnn {
namespace {

// One line of explanation after another, cut where the buffer ends.
struct Lines {
  char *text;
  size_t size, used;
#if defined(__GNUC__)
  __attribute__((format(printf, 2, 3)))
#endif
  void add(const char *format, ...) {
    if (used + 1 >= size) return;
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(text + used, size - used, format, arguments);
    va_end(arguments);
    if (n > 0) used = used + n < size ? used + n : size - 1;
  }
};

const char *type_suffix(int32_t dtype) { return dtype == HRNN_F64 ? "f64" : "f32"; }

bool wants_default_parameters(const hrnn_problem &p, int direction, uint32_t count) {
  if (p.clip_set) return false;
  for (uint32_t i = 0; i < count; i++) {
    switch (p.activations[direction][i].kind) {
      case HRNN_RELU: case HRNN_TANH: case HRNN_SIGMOID: case HRNN_SOFTSIGN: case HRNN_SOFTPLUS: break;
      default: return false;  // takes alpha or beta, which are arguments of the general kernels only
    }
  }
  return true;
}

enum class Fit { No, General, Compiled };

Fit activations_fit(const hrnn_kernel &k, const hrnn_problem &p, int direction) {
  if (k.activation_count > 0 && k.activations[0] < 0) return Fit::General;
  if (!wants_default_parameters(p, direction, k.activation_count)) return Fit::No;
  for (uint32_t i = 0; i < k.activation_count && i < HRNN_MAX_ACTIVATIONS; i++)
    if (k.activations[i] != static_cast<int32_t>(p.activations[direction][i].kind)) return Fit::No;
  return Fit::Compiled;
}

// Kernels for weights that stay in a cache, or do not, are for those that do, or do not.
bool weights_fit(const hrnn_kernel &k, const CacheSizes &caches, int64_t weight_bytes) {
  switch (k.cache_level) {
    case 0: return true;
    case 1: return weight_bytes <= caches.l1;
    case 2: return weight_bytes <= caches.l2;
    default: return weight_bytes > caches.kept_by_l2();
  }
}

// Kernels of part of a panel are for layers that have no other units.
bool units_fit(const hrnn_kernel &k, int64_t hidden) { return k.lanes == 0 || hidden <= k.lanes; }

bool inner_fits(const hrnn_kernel &k, int64_t inner) { return k.inner == 0 || k.inner == inner; }

// Adds a kernel where preference puts it; for one tile, the kernel that leaves out units the layer does not have wins, then
// the one made for this very size, then the one made for the cache that the weights are in.
void insert(KernelSet *set, const hrnn_kernel *kernel) {
  int at = 0;
  for (; at < set->count; at++) {
    const hrnn_kernel *other = set->kernels[at];
    if (other->rows == kernel->rows && other->panels == kernel->panels) {
      const bool better = kernel->lanes != other->lanes   ? kernel->lanes != 0
                          : kernel->inner != other->inner ? kernel->inner != 0
                                                          : kernel->cache_level != 0;
      if (better) set->kernels[at] = kernel;
      return;
    }
    if (kernel->rows != other->rows ? kernel->rows > other->rows : kernel->panels > other->panels) break;
  }
  if (set->count == kMaxTiles) return;
  for (int i = set->count; i > at; i--) set->kernels[i] = set->kernels[i - 1];
  set->kernels[at] = kernel;
  set->count++;
}

bool covers(const KernelSet &set) {
  return set.count > 0 && set.kernels[set.count - 1]->rows == 1 && set.kernels[set.count - 1]->panels == 1;
}

bool usable_table(const hrnn_kernel_table *table) {
  return table != nullptr && table->abi_version == HRNN_ABI_VERSION;
}

// Every table has rows of its own for the targets it serves.
bool same_target(const hrnn_target *a, const hrnn_target *b) { return strcmp(a->name, b->name) == 0; }

// The targets of all tables, each once, by falling rank.
constexpr int kMaxTargets = 32;
struct TargetList {
  const hrnn_target *targets[kMaxTargets];
  int count = 0;

  void insert(const hrnn_target *target) {
    for (int i = 0; i < count; i++)
      if (same_target(targets[i], target)) return;
    if (count == kMaxTargets) return;
    int at = count++;
    for (; at > 0 && targets[at - 1]->rank < target->rank; at--) targets[at] = targets[at - 1];
    targets[at] = target;
  }
};

TargetList targets_of(const KernelSource &source) {
  TargetList list;
  for (size_t t = 0; t < source.table_count; t++)
    for (uint32_t i = 0; usable_table(source.tables[t]) && i < source.tables[t]->count; i++)
      list.insert(source.tables[t]->kernels[i].target);
  return list;
}

template <class Accept>
KernelSet collect(const KernelSource &source, Accept accept) {
  KernelSet set = {};
  for (size_t t = 0; t < source.table_count; t++) {
    const hrnn_kernel_table *table = source.tables[t];
    if (!usable_table(table)) continue;
    for (uint32_t i = 0; i < table->count; i++)
      if (accept(table->kernels[i])) insert(&set, &table->kernels[i]);
  }
  return set;
}

// A product of `gates` gates of [outputs, inner] weights each, as packed.
struct ProductShape {
  int64_t gates, outputs, inner;
  int64_t bytes(int32_t dtype) const { return gates * panels_of(dtype, outputs) * kRowBytes * inner; }
};

KernelSet collect_projection(const KernelSource &source, const hrnn_target *target, int32_t dtype, const ProductShape &shape,
                             const CacheSizes &caches) {
  return collect(source, [&](const hrnn_kernel &k) {
    return k.kind == HRNN_PROJECTION && same_target(k.target, target) && k.dtype == uint32_t(dtype) &&
           k.gates == shape.gates && inner_fits(k, shape.inner) && weights_fit(k, caches, shape.bytes(dtype));
  });
}

// Kernels of steps: `weight_bytes` are those that a step reads.
KernelSet collect_steps(const KernelSource &source, const hrnn_target *target, const hrnn_problem &p, hrnn_kernel_kind kind,
                        uint32_t phase, int direction, Fit wanted, const CacheSizes &caches, int64_t weight_bytes) {
  return collect(source, [&](const hrnn_kernel &k) {
    return k.kind == kind && same_target(k.target, target) && k.dtype == uint32_t(p.dtype) && k.phase == phase &&
           strcmp(k.cell, p.cell) == 0 && inner_fits(k, p.hidden_size) && activations_fit(k, p, direction) == wanted &&
           units_fit(k, p.hidden_size) && weights_fit(k, caches, weight_bytes);
  });
}

// Fused steps, all phases or none.
void choose_fused(const KernelSource &source, const hrnn_target *target, const hrnn_problem &p, const CellShape &cell,
                  int direction, Fit fit, const CacheSizes &caches, LayerKernels *chosen) {
  const ProductShape both = {cell.gates, p.hidden_size, p.input_size + p.hidden_size};
  bool complete = true;
  for (int64_t phase = 0; phase < cell.phases; phase++) {
    chosen->fused[phase] = collect_steps(source, target, p, HRNN_FUSED_STEP, uint32_t(phase), direction, fit, caches,
                                         both.bytes(p.dtype));
    complete = complete && covers(chosen->fused[phase]);
  }
  for (KernelSet &set : chosen->fused)
    if (!complete) set.count = 0;
}

// True when one direction can be computed on `target`; else says in `lines` what is missing.
bool choose_direction(const KernelSource &source, const hrnn_target *target, const hrnn_problem &p, const CellShape &cell,
                      int direction, const CacheSizes &caches, LayerKernels *chosen, Lines *lines) {
  chosen->projection = collect_projection(source, target, p.dtype, {cell.gates, p.hidden_size, p.input_size}, caches);
  if (!covers(chosen->projection)) {
    lines->add("%s refused: no %s projection kernel for %d gates in the kernel tables\n", target->name,
               type_suffix(p.dtype), int(cell.gates));
    return false;
  }
  for (Fit fit : {Fit::Compiled, Fit::General}) {
    bool complete = true;
    for (int64_t phase = 0; phase < cell.phases && complete; phase++) {
      const ProductShape recurrent = {cell.gates_of_phase(phase), p.hidden_size, p.hidden_size};
      chosen->phases[phase] = collect_steps(source, target, p, HRNN_STEP, uint32_t(phase), direction, fit, caches,
                                            recurrent.bytes(p.dtype));
      complete = covers(chosen->phases[phase]);
    }
    if (!complete) continue;
    choose_fused(source, target, p, cell, direction, fit, caches, chosen);
    chosen->any_activation = fit == Fit::General;
    return true;
  }
  lines->add("%s refused: no %s step kernel for cell '%s' with these activations in the kernel tables\n",
             target->name, type_suffix(p.dtype), p.cell);
  return false;
}

const hrnn_device *device_of(const KernelSource &source, const hrnn_target *target) {
  for (size_t t = 0; t < source.table_count; t++) {
    const hrnn_device *device = source.tables[t] == nullptr ? nullptr : source.tables[t]->device;
    if (device != nullptr && ((target->features >> device->feature) & 1)) return device;
  }
  return nullptr;
}

// Where a GPU begins to win, measured on an H100 against one core beside it: in sequences, whose steps cost a launch of 5 us,
// from 2e5 upward; in single steps, whose copies make it 40 us, from about 1e6.
constexpr double kGpuStepMultiplyAdds = 5e5;

double step_multiply_adds(const hrnn_problem &p, const CellShape &cell) {
  double batch = double(p.batch_hint > 0 ? p.batch_hint : 1);
  return batch * double(cell.gates) * double(p.hidden_size) * double(p.hidden_size);
}

bool forced_name_matches(const char *force, const hrnn_target *target, const char *variant) {
  return strcmp(force, target->name) == 0 || strcmp(force, variant) == 0;
}

void list_symbols(const KernelSet &set, char *text, size_t size) {
  Lines lines{text, size, 0};
  text[0] = 0;
  for (int i = 0; i < set.count; i++) lines.add("%s%s", i ? " " : "", set.kernels[i]->symbol);
}

hrnn_status check_activation(const hrnn_problem &p, int direction, uint32_t index, hrnn_error *error) {
  const hrnn_activation &a = p.activations[direction][index];
  if (unsigned(a.kind) < HRNN_ACTIVATION_COUNT) return HRNN_OK;
  return fail(error, HRNN_INVALID_ARGUMENT,
              "problem.activations[%d][%u].kind is %d; kinds are 0 to %d (hrnn_activation_kind)", direction, index,
              int(a.kind), HRNN_ACTIVATION_COUNT - 1);
}

void default_activations(const CellShape &cell, hrnn_problem *p) {
  for (auto &direction : p->activations)
    for (uint32_t i = 0; i < cell.activations; i++) direction[i] = {hrnn_activation_kind(cell.defaults[i]), 1.0, 0.0};
}

bool well_formed_step(const hrnn_kernel &k) {
  return k.kind == HRNN_STEP && k.gates >= 1 && k.gates <= HRNN_MAX_GATES && k.phases >= 1 && k.phases <= HRNN_MAX_PHASES &&
         k.phase < k.phases && k.activation_count <= HRNN_MAX_ACTIVATIONS;
}

}  // namespace

bool find_cell(const char *name, const KernelSource &source, CellShape *cell) {
  if (builtin_cell_shape(name, cell)) return true;
  uint32_t seen = 0;
  *cell = {};
  for (size_t t = 0; t < source.table_count; t++) {
    for (uint32_t i = 0; usable_table(source.tables[t]) && i < source.tables[t]->count; i++) {
      const hrnn_kernel &k = source.tables[t]->kernels[i];
      if (!well_formed_step(k) || strcmp(k.cell, name) != 0) continue;
      cell->gates = k.gates;
      cell->phases = k.phases;
      cell->phase_gates[k.phase] = k.phase_gates & ((1u << k.gates) - 1);
      cell->activations = k.activation_count;
      memcpy(cell->defaults, k.defaults, sizeof k.defaults);
      seen |= 1u << k.phase;
    }
  }
  return cell->phases > 0 && seen == (1u << cell->phases) - 1;
}

hrnn_status check_problem(const hrnn_problem *problem, const KernelSource &source, hrnn_problem *checked,
                          CellShape *cell, hrnn_error *error) {
  if (problem == nullptr) return fail(error, HRNN_INVALID_ARGUMENT, "problem is NULL");
  if (problem->struct_size != sizeof(hrnn_problem))
    return fail(error, HRNN_INVALID_ARGUMENT, "problem.struct_size is %u; this library expects %u", problem->struct_size,
                unsigned(sizeof(hrnn_problem)));
  *checked = *problem;
  hrnn_problem &p = *checked;
  if (p.dtype != HRNN_F32 && p.dtype != HRNN_F64)
    return fail(error, HRNN_INVALID_ARGUMENT, "problem.dtype is %d; it must be HRNN_F32 (%d) or HRNN_F64 (%d)", p.dtype,
                HRNN_F32, HRNN_F64);
  if (p.cell == nullptr) return fail(error, HRNN_INVALID_ARGUMENT, "problem.cell is NULL");
  if (!find_cell(p.cell, source, cell))
    return fail(error, HRNN_INVALID_ARGUMENT,
                "problem.cell is '%.64s'; it must be 'rnn', 'rnn_masked', 'gru', 'gru_reset_before' or a cell with kernels in the "
                "tables given",
                p.cell);
  if (p.direction < HRNN_FORWARD || p.direction > HRNN_BIDIRECTIONAL)
    return fail(error, HRNN_INVALID_ARGUMENT, "problem.direction is %d; it must be 0, 1 or 2 (hrnn_direction)",
                p.direction);
  if (p.input_size < 1)
    return fail(error, HRNN_INVALID_ARGUMENT, "problem.input_size is %lld; it must be at least 1",
                static_cast<long long>(p.input_size));
  if (p.hidden_size < 1)
    return fail(error, HRNN_INVALID_ARGUMENT, "problem.hidden_size is %lld; it must be at least 1",
                static_cast<long long>(p.hidden_size));
  // Kernels index with 32 bits.
  const double inner = double(p.input_size > p.hidden_size ? p.input_size : p.hidden_size);
  const double values = double(cell->gates) * double(panels_of(p.dtype, p.hidden_size) * lanes_of(p.dtype)) * inner;
  if (values >= double(INT_MAX))
    return fail(error, HRNN_UNSUPPORTED,
                "problem.hidden_size %lld with input_size %lld makes a weight matrix of %.0f values; the limit is %d",
                static_cast<long long>(p.hidden_size), static_cast<long long>(p.input_size), values, INT_MAX);
  if (p.clip_set && !(p.clip >= 0))
    return fail(error, HRNN_INVALID_ARGUMENT, "problem.clip is %g; it must be at least 0", p.clip);
  if (!p.activations_set) default_activations(*cell, &p);
  if (cell->activations == 0) p.clip_set = 0;  // nothing whose input it would bound
  const int directions = p.direction == HRNN_BIDIRECTIONAL ? 2 : 1;
  for (int d = 0; d < directions; d++) {
    for (uint32_t i = 0; i < cell->activations; i++) {
      hrnn_status status = check_activation(p, d, i, error);
      if (status != HRNN_OK) return status;
    }
  }
  return HRNN_OK;
}

hrnn_status select_layer(const hrnn_problem &problem, const hrnn_machine &machine, const KernelSource &source,
                         const char *force, LayerChoice *choice, hrnn_selection *selection, hrnn_error *error) {
  hrnn_problem p;
  CellShape cell;
  hrnn_status status = check_problem(&problem, source, &p, &cell, error);
  if (status != HRNN_OK) return status;
  const bool forced = force != nullptr && force[0] != 0;
  const int directions = p.direction == HRNN_BIDIRECTIONAL ? 2 : 1;
  const double work = step_multiply_adds(p, cell);

  *selection = {};
  selection->struct_size = sizeof *selection;
  Lines lines{selection->reason, sizeof selection->reason, 0};
  bool known = false;
  const TargetList list = targets_of(source);
  for (int i = 0; i < list.count; i++) {
    const hrnn_target *target = list.targets[i];
    char variant[sizeof selection->variant], why[512];
    snprintf(variant, sizeof variant, "%.30s.%s.%.20s", p.cell, type_suffix(p.dtype), target->name);
    if (forced && !forced_name_matches(force, target, variant)) continue;
    known = true;
    if (!hrnn_target_usable(target, &machine, why, sizeof why)) {
      lines.add("%s refused: %s\n", target->name, why);
      continue;
    }
    if (target->use == HRNN_USE_FORCED && !forced) {
      lines.add("%s refused: used only when forced\n", target->name);
      continue;
    }
    if (target->use == HRNN_USE_GPU && !forced && work < kGpuStepMultiplyAdds) {
      lines.add("%s refused: a step of %.3g multiply-adds is too small for a launch (needs %.3g)\n", target->name, work,
                kGpuStepMultiplyAdds);
      continue;
    }
    bool complete = true;
    for (int d = 0; d < directions && complete; d++)
      complete = choose_direction(source, target, p, cell, d, cache_sizes(machine), &choice->directions[d], &lines);
    if (!complete) continue;

    choice->target = target;
    choice->device = target->use == HRNN_USE_CPU ? nullptr : device_of(source, target);
    snprintf(selection->target, sizeof selection->target, "%s", target->name);
    snprintf(selection->variant, sizeof selection->variant, "%s", variant);
    list_symbols(choice->directions[0].phases[0], selection->step, sizeof selection->step);
    list_symbols(choice->directions[0].projection, selection->projection, sizeof selection->projection);
    lines.add("%s chosen: %s", variant,
              forced                         ? "forced"
              : target->use == HRNN_USE_GPU  ? "large steps on a GPU"
                                             : "the best target of this machine with kernels for this layer");
    if (choice->directions[0].any_activation) lines.add("; general kernels, activations given at run time");
    return HRNN_OK;
  }
  if (forced && !known) {
    char names[256] = {};
    Lines known_names{names, sizeof names, 0};
    for (int i = 0; i < list.count; i++) known_names.add("%s%s", i ? ", " : "", list.targets[i]->name);
    return fail(error, HRNN_INVALID_ARGUMENT,
                "variant '%.64s' was forced, but it names neither a target of the kernel tables (%s) nor a variant such "
                "as %.30s.%s.TARGET",
                force, names[0] ? names : "which are empty", p.cell, type_suffix(p.dtype));
  }
  return fail(error, HRNN_UNSUPPORTED, "no variant for cell '%.40s' %s%s%.64s%s:\n%s", p.cell, type_suffix(p.dtype),
              forced ? " (forced: " : "", forced ? force : "", forced ? ")" : "",
              selection->reason[0] ? selection->reason : "the kernel tables are empty");
}

hrnn_status select_dense(int32_t dtype, int64_t in_features, int64_t out_features, const hrnn_machine &machine, const KernelSource &source,
                         const char *force, KernelSet *kernels, hrnn_error *error) {
  const KernelSet none = {};
  *kernels = none;
  const bool forced = force != nullptr && force[0] != 0;
  const TargetList list = targets_of(source);
  for (int i = 0; i < list.count; i++) {
    const hrnn_target *target = list.targets[i];
    if (target->use != HRNN_USE_CPU || !hrnn_target_usable(target, &machine, nullptr, 0)) continue;
    KernelSet set = collect_projection(source, target, dtype, {1, out_features, in_features}, cache_sizes(machine));
    if (!covers(set)) continue;
    // A forced CPU target or variant (whose name ends in the target's) holds for dense layers too; a forced GPU leaves
    // them on the CPU.
    const size_t length = forced ? strlen(force) : 0, tail = strlen(target->name);
    const bool named = forced && length >= tail && strcmp(force + length - tail, target->name) == 0;
    if (kernels->count == 0 || named) *kernels = set;
    if (!forced || named) break;
  }
  if (kernels->count > 0) return HRNN_OK;
  return fail(error, HRNN_UNSUPPORTED, "no %s kernels for a dense layer that this machine (%s) can run", type_suffix(dtype),
              machine.cpu);
}

}  // namespace hrnn

extern "C" hrnn_status hrnn_select(const hrnn_problem *problem, const hrnn_machine *machine,
                                   const hrnn_kernel_table *const *tables, size_t table_count, const char *force,
                                   hrnn_selection *selection, hrnn_error *error) {
  using namespace hrnn;
  if (problem == nullptr || machine == nullptr || selection == nullptr)
    return fail(error, HRNN_INVALID_ARGUMENT, "%s is NULL",
                problem == nullptr ? "problem" : machine == nullptr ? "machine" : "selection");
  LayerChoice choice;
  return select_layer(*problem, *machine, {tables, table_count}, force, &choice, selection, error);
}
