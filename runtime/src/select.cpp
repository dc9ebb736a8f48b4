// SPDX-License-Identifier: Apache-2.0
#include "select.h"

#include <climits>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <initializer_list>

#include "status.h"

namespace hrnn {
namespace {

// Candidates in rising order of preference; a CPU and a GPU are weighed by the size of a step instead (gpu_pays).
constexpr uint32_t kCpuIsas[] = {HRNN_X86_AVX512, HRNN_X86_AVX2, HRNN_X86_SSE41, HRNN_ARM64_NEON};
constexpr uint32_t kAllIsas[] = {HRNN_CUDA, HRNN_X86_AVX512, HRNN_X86_AVX2, HRNN_X86_SSE41, HRNN_ARM64_NEON, HRNN_OPENCL};

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

const char *dtype_name(int32_t dtype) { return dtype == HRNN_F64 ? "f64" : "f32"; }

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

bool inner_fits(const hrnn_kernel &k, int64_t inner) { return k.inner == 0 || k.inner == inner; }

// Adds a kernel where preference puts it; for one tile, the kernel made for this very size wins.
void insert(KernelSet *set, const hrnn_kernel *kernel) {
  int at = 0;
  for (; at < set->count; at++) {
    const hrnn_kernel *other = set->kernels[at];
    if (other->rows == kernel->rows && other->panels == kernel->panels) {
      if (kernel->inner != 0) set->kernels[at] = kernel;
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

template <class Accept>
KernelSet collect(const KernelSource &source, Accept accept) {
  KernelSet set = {};
  for (size_t t = 0; t < source.table_count; t++) {
    const hrnn_kernel_table *table = source.tables[t];
    if (table == nullptr || table->abi_version != HRNN_ABI_VERSION) continue;
    for (uint32_t i = 0; i < table->count; i++)
      if (accept(table->kernels[i])) insert(&set, &table->kernels[i]);
  }
  return set;
}

KernelSet collect_projection(const KernelSource &source, uint32_t isa, int32_t dtype, uint32_t gates, int64_t inner) {
  return collect(source, [&](const hrnn_kernel &k) {
    return k.kind == HRNN_PROJECTION && k.isa == isa && k.dtype == uint32_t(dtype) && k.gates == gates &&
           inner_fits(k, inner);
  });
}

KernelSet collect_phase(const KernelSource &source, uint32_t isa, const hrnn_problem &p, uint32_t phase, int direction,
                        Fit wanted) {
  return collect(source, [&](const hrnn_kernel &k) {
    return k.kind == HRNN_STEP && k.isa == isa && k.dtype == uint32_t(p.dtype) && k.phase == phase &&
           strcmp(k.cell, p.cell) == 0 && inner_fits(k, p.hidden_size) && activations_fit(k, p, direction) == wanted;
  });
}

// True when one direction can be computed on `isa`; else says in `lines` what is missing.
bool choose_direction(const KernelSource &source, uint32_t isa, const hrnn_problem &p, const CellShape &cell,
                      int direction, LayerKernels *chosen, Lines *lines) {
  chosen->projection = collect_projection(source, isa, p.dtype, uint32_t(cell.gates), p.input_size);
  if (!covers(chosen->projection)) {
    lines->add("%s refused: no %s projection kernel for %d gates in the kernel tables\n", hrnn_isa_name(isa),
               dtype_name(p.dtype), int(cell.gates));
    return false;
  }
  for (Fit fit : {Fit::Compiled, Fit::General}) {
    bool complete = true;
    for (int64_t phase = 0; phase < cell.phases && complete; phase++) {
      chosen->phases[phase] = collect_phase(source, isa, p, uint32_t(phase), direction, fit);
      complete = covers(chosen->phases[phase]);
    }
    if (!complete) continue;
    chosen->any_activation = fit == Fit::General;
    return true;
  }
  lines->add("%s refused: no %s step kernel for cell '%s' with these activations in the kernel tables\n",
             hrnn_isa_name(isa), dtype_name(p.dtype), p.cell);
  return false;
}

const hrnn_device *device_of(const KernelSource &source, uint32_t isa) {
  for (size_t t = 0; t < source.table_count; t++)
    if (source.tables[t] != nullptr && source.tables[t]->device != nullptr && source.tables[t]->device->isa == isa)
      return source.tables[t]->device;
  return nullptr;
}

bool in_tables(const KernelSource &source, uint32_t isa) {
  KernelSet any = collect(source, [&](const hrnn_kernel &k) { return k.isa == isa; });
  return any.count > 0;
}

bool is_gpu(uint32_t isa) { return isa == HRNN_CUDA || isa == HRNN_OPENCL; }

// A launch costs microseconds where a CPU core does about 1e5 multiply-adds a microsecond: below this a GPU cannot win.
constexpr double kGpuStepMultiplyAdds = 2e6;

double step_multiply_adds(const hrnn_problem &p, const CellShape &cell) {
  double batch = double(p.batch_hint > 0 ? p.batch_hint : 1);
  return batch * double(cell.gates) * double(p.hidden_size) * double(p.hidden_size);
}

bool forced_name_matches(const char *force, uint32_t isa, const char *variant) {
  return strcmp(force, hrnn_isa_name(isa)) == 0 || strcmp(force, variant) == 0;
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

bool cell_from_tables(const char *name, const KernelSource &source, CellShape *cell) {
  *cell = {};
  for (size_t t = 0; t < source.table_count; t++) {
    for (uint32_t i = 0; source.tables[t] != nullptr && i < source.tables[t]->count; i++) {
      const hrnn_kernel &k = source.tables[t]->kernels[i];
      if (k.kind != HRNN_STEP || strcmp(k.cell, name) != 0 || k.phase >= HRNN_MAX_PHASES) continue;
      cell->gates = k.gates;
      cell->phases = k.phases;
      cell->phase_gates[k.phase] = k.phase_gates;
    }
  }
  return cell->gates > 0;
}

uint32_t activation_count(const char *cell, const KernelSource &source) {
  if (strcmp(cell, "rnn") == 0) return 1;
  if (strcmp(cell, "gru") == 0 || strcmp(cell, "gru_reset_before") == 0) return 2;
  KernelSet any = collect(source, [&](const hrnn_kernel &k) { return k.kind == HRNN_STEP && !strcmp(k.cell, cell); });
  return any.count > 0 ? any.kernels[0]->activation_count : 0;
}

void default_activations(hrnn_problem *p) {
  const bool rnn = strcmp(p->cell, "rnn") == 0;
  for (auto &direction : p->activations) {
    direction[0] = {rnn ? HRNN_TANH : HRNN_SIGMOID, 1.0, 0.0};
    direction[1] = {HRNN_TANH, 1.0, 0.0};
    direction[2] = {HRNN_TANH, 1.0, 0.0};
  }
}

}  // namespace

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
  if (!builtin_cell_shape(p.cell, cell) && !cell_from_tables(p.cell, source, cell))
    return fail(error, HRNN_INVALID_ARGUMENT,
                "problem.cell is '%.64s'; it must be 'rnn', 'gru', 'gru_reset_before' or a cell with kernels in the "
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
  if (!p.activations_set) default_activations(&p);
  const int directions = p.direction == HRNN_BIDIRECTIONAL ? 2 : 1;
  for (int d = 0; d < directions; d++) {
    for (uint32_t i = 0; i < activation_count(p.cell, source); i++) {
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
  for (uint32_t isa : kAllIsas) {
    char variant[64];
    snprintf(variant, sizeof variant, "%.40s.%s.%s", p.cell, dtype_name(p.dtype), hrnn_isa_name(isa));
    if (forced && !forced_name_matches(force, isa, variant)) continue;
    known = true;
    if (!in_tables(source, isa)) {
      if (forced) lines.add("%s refused: no kernels for it in the tables\n", hrnn_isa_name(isa));
      continue;
    }
    if (!((machine.isas >> isa) & 1)) {
      const char *why = is_gpu(isa) ? machine.device_refused : machine.isa_refused;
      lines.add("%s refused: this machine does not offer it (%.200s)\n", hrnn_isa_name(isa), why[0] ? why : "another architecture");
      continue;
    }
    if (is_gpu(isa) && !forced && (isa == HRNN_OPENCL || work < kGpuStepMultiplyAdds)) {
      if (isa == HRNN_CUDA)
        lines.add("%s refused: a step of %.3g multiply-adds is too small for a launch (needs %.3g)\n",
                  hrnn_isa_name(isa), work, kGpuStepMultiplyAdds);
      else
        lines.add("%s refused: used only when forced\n", hrnn_isa_name(isa));
      continue;
    }
    bool complete = true;
    for (int d = 0; d < directions && complete; d++)
      complete = choose_direction(source, isa, p, cell, d, &choice->directions[d], &lines);
    if (!complete) continue;

    choice->isa = isa;
    choice->device = is_gpu(isa) ? device_of(source, isa) : nullptr;
    selection->isa = isa;
    snprintf(selection->variant, sizeof selection->variant, "%s", variant);
    list_symbols(choice->directions[0].phases[0], selection->step, sizeof selection->step);
    list_symbols(choice->directions[0].projection, selection->projection, sizeof selection->projection);
    lines.add("%s chosen: %s", variant,
              forced ? "forced" : is_gpu(isa) ? "large steps on a GPU" : "the widest instruction set with kernels for this layer");
    if (choice->directions[0].any_activation) lines.add("; general kernels, activations given at run time");
    return HRNN_OK;
  }
  if (forced && !known)
    return fail(error, HRNN_INVALID_ARGUMENT,
                "variant '%.64s' was forced, but it names neither an instruction set (sse41, avx2, avx512, neon, cuda, "
                "opencl) nor a variant such as %.40s.%s.avx2",
                force, p.cell, dtype_name(p.dtype));
  return fail(error, HRNN_UNSUPPORTED, "no variant for cell '%.40s' %s%s%s%s:\n%s", p.cell, dtype_name(p.dtype),
              forced ? " (forced: " : "", forced ? force : "", forced ? ")" : "",
              selection->reason[0] ? selection->reason : "the kernel tables are empty");
}

hrnn_status select_dense(int32_t dtype, int64_t in_features, const hrnn_machine &machine, const KernelSource &source,
                         const char *force, KernelSet *kernels, hrnn_error *error) {
  const KernelSet none = {};
  *kernels = none;
  for (uint32_t isa : kCpuIsas) {
    if (!((machine.isas >> isa) & 1)) continue;
    KernelSet set = collect_projection(source, isa, dtype, 1, in_features);
    if (!covers(set)) continue;
    // A forced CPU variant holds for dense layers too; a forced GPU leaves them on the CPU.
    const bool forced = force != nullptr && force[0] != 0;
    const char *name = hrnn_isa_name(isa);
    const size_t length = forced ? strlen(force) : 0, tail = strlen(name);
    const bool named = forced && length >= tail && strcmp(force + length - tail, name) == 0;
    if (kernels->count == 0 || named) *kernels = set;
    if (!forced || named) break;
  }
  if (kernels->count > 0) return HRNN_OK;
  return fail(error, HRNN_UNSUPPORTED, "no %s kernels for a dense layer that this machine can run (%.300s)",
              dtype_name(dtype), machine.isa_refused[0] ? machine.isa_refused : "no kernel table has one");
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
