/* SPDX-License-Identifier: Apache-2.0
 *
 * hrnn: recurrent networks compiled ahead of time. The C interface of the runtime.
 *
 * Two ways in:
 *   - a whole model, made by `hrnn compile`: hrnn_session_* over an hrnn_model (see the header it writes);
 *   - one recurrent layer with your own weights over a kernel library: hrnn_plan_* and hrnn_state_*.
 *
 * Rules that hold for every function here:
 *   - nothing aborts, nothing is printed, no exception leaves the library;
 *   - every function that can fail returns an hrnn_status and, where an hrnn_error is given, a message in it that
 *     names the field and both values;
 *   - every descriptor starts with `struct_size`: set it to sizeof(the struct) and zero the rest (an initialiser
 *     `{sizeof(x)}` does both). Fields added by later versions read as zero for older callers;
 *   - plans are immutable after creation and may be used from several threads at once, each with its own state.
 *     States and sessions belong to one thread at a time;
 *   - hrnn_plan_run, hrnn_stream and hrnn_session_run neither allocate nor lock nor make a system call on a CPU.
 *
 * Shapes are written [outer, ..., inner]; T = time steps, N = batch, D = directions (1 or 2), I = input size,
 * H = hidden size, G = gates (RNN 1, GRU 3). All strides are in elements.
 */
#ifndef HRNN_H
#define HRNN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define HRNN_API
#else
#define HRNN_API __attribute__((visibility("default")))
#endif

/* Changes whenever a struct below changes incompatibly; embedded objects carry the value they were made with. */
#define HRNN_ABI_VERSION 5u

/* ---- Statuses and messages ---------------------------------------------------------------------------------- */

typedef enum hrnn_status {
  HRNN_OK = 0,
  HRNN_INVALID_ARGUMENT = 1, /* a descriptor or an argument is wrong: the message names the field and both values */
  HRNN_UNSUPPORTED = 2,      /* well formed, but no kernel here can do it: the message lists why each was refused */
  HRNN_OUT_OF_MEMORY = 3,
  HRNN_CAPACITY = 4,         /* an output buffer or a reserved workspace is too small: the message has both sizes */
  HRNN_DEVICE_ERROR = 5,     /* the GPU driver reported an error */
  HRNN_CORRUPT_MODEL = 6     /* an embedded or loaded model blob is damaged or of another ABI version */
} hrnn_status;

/* Filled by the callee when a call fails; the message is always terminated. */
typedef struct hrnn_error {
  hrnn_status status;
  char message[1020];
} hrnn_error;

HRNN_API const char *hrnn_status_name(hrnn_status status);
HRNN_API const char *hrnn_version(void);

/* ---- Numbers ------------------------------------------------------------------------------------------------ */

/* Recurrent layers compute in HRNN_F32 or HRNN_F64. HRNN_F16 (IEEE binary16) and HRNN_BF16 (the upper half of a
 * binary32) are how inputs and outputs of a model may be stored: such a model computes in float32 and rounds what leaves
 * it once, to nearest even. A HRNN_BOOL is one byte, 0 or 1. */
typedef enum hrnn_dtype {
  HRNN_F32 = 1,
  HRNN_F64 = 2,
  HRNN_I32 = 3,
  HRNN_I64 = 4,
  HRNN_F16 = 5,
  HRNN_BF16 = 6,
  HRNN_BOOL = 7
} hrnn_dtype;

/* The ONNX activation functions (operators RNN and GRU). alpha and beta mean what ONNX says for each. */
typedef enum hrnn_activation_kind {
  HRNN_RELU = 0,             /* max(x, 0) */
  HRNN_TANH = 1,             /* tanh(x) */
  HRNN_SIGMOID = 2,          /* 1 / (1 + exp(-x)) */
  HRNN_AFFINE = 3,           /* alpha x + beta */
  HRNN_LEAKY_RELU = 4,       /* x if x >= 0 else alpha x */
  HRNN_THRESHOLDED_RELU = 5, /* x if x > alpha else 0 */
  HRNN_SCALED_TANH = 6,      /* alpha tanh(beta x) */
  HRNN_HARD_SIGMOID = 7,     /* min(max(alpha x + beta, 0), 1) */
  HRNN_ELU = 8,              /* x if x >= 0 else alpha (exp(x) - 1) */
  HRNN_SOFTSIGN = 9,         /* x / (1 + |x|) */
  HRNN_SOFTPLUS = 10,        /* log(1 + exp(x)) */
  HRNN_ACTIVATION_COUNT = 11
} hrnn_activation_kind;

typedef struct hrnn_activation {
  hrnn_activation_kind kind;
  double alpha, beta;
} hrnn_activation;

/* ---- Kernels: one row per variant ----------------------------------------------------------------------------- */

#define HRNN_MAX_GATES 4
#define HRNN_MAX_ACTIVATIONS 3
#define HRNN_MAX_PHASES 2
#define HRNN_MAX_CARRIED 3 /* values per unit that a phase hands to the next one besides its operand */

typedef enum hrnn_kernel_kind {
  HRNN_PROJECTION = 1, /* products + bias of all gates, for rows of input: the GEMM hoisted out of the time loop */
  HRNN_STEP = 2,       /* one phase of one time step of a cell: product with the state, activations, blend */
  HRNN_FUSED_STEP = 3  /* a step of one row with the products of the input included; a call computes one tile */
} hrnn_kernel_kind;

/* What a target needs of a machine, as bit numbers: instruction sets (of the processor, with registers that the operating
 * system saves) and devices. */
typedef enum hrnn_feature {
  HRNN_FEATURE_SSE41 = 0,
  HRNN_FEATURE_AVX = 1,
  HRNN_FEATURE_FMA = 2,
  HRNN_FEATURE_F16C = 3,
  HRNN_FEATURE_AVX2 = 4,
  HRNN_FEATURE_AVX512F = 5,
  HRNN_FEATURE_AVX512DQ = 6,
  HRNN_FEATURE_AVX512CD = 7,
  HRNN_FEATURE_AVX512BW = 8,
  HRNN_FEATURE_AVX512VL = 9,
  HRNN_FEATURE_AVX512VNNI = 10,
  HRNN_FEATURE_AVX512BF16 = 11,
  HRNN_FEATURE_NEON = 32,
  HRNN_FEATURE_OPENCL = 62,
  HRNN_FEATURE_CUDA = 63
} hrnn_feature;

typedef enum hrnn_use {
  HRNN_USE_CPU = 0,   /* whenever the machine has the features */
  HRNN_USE_GPU = 1,   /* when a step is large enough to pay for a launch */
  HRNN_USE_FORCED = 2 /* only when forced */
} hrnn_use;

/* Where a kernel runs; made from one row of targets/targets.cpp. */
typedef struct hrnn_target {
  const char *name;  /* "sse41", "avx2", "avx512", "neon", "opencl", "cuda" */
  uint64_t features; /* bits 1 << hrnn_feature, all needed */
  uint32_t rank;     /* higher is tried first */
  uint32_t use;      /* hrnn_use */
} hrnn_target;

/* A generated function: args is an array of pointers, one per argument (halide_buffer_t * or scalar *). */
typedef int (*hrnn_kernel_entry)(void **args);

/* One row of the variant table. Kernels never handle tails: a kernel computes whole tiles of `panels` panels of hidden
 * units by `rows` batch rows, and the runtime covers a problem with tiles of the variant's kernels. */
typedef struct hrnn_kernel {
  const char *symbol;       /* also the kernel's name in messages */
  const char *cell;         /* as in hrnn_problem; "" for a projection (any cell) */
  const hrnn_target *target;
  hrnn_kernel_entry entry;
  uint32_t kind;            /* hrnn_kernel_kind */
  uint32_t dtype;           /* hrnn_dtype of input, state and weights */
  uint32_t panels;          /* hidden panels computed jointly */
  uint32_t rows;            /* batch rows computed jointly */
  uint32_t gates;           /* projection: gates of the product; step: gates of the cell */
  uint32_t phase;           /* step: 0, or 1 for the second phase of a two-phase cell */
  uint32_t phases;          /* step: phases of the cell */
  uint32_t phase_gates;     /* step: bit g set = this phase computes the recurrent product of gate g */
  uint32_t carried;         /* step: values per unit handed from phase 0 to phase 1 besides its operand */
  uint32_t activation_count;/* step: activations the cell takes */
  int32_t activations[HRNN_MAX_ACTIVATIONS]; /* compiled in (hrnn_activation_kind), or -1: any, given at run time */
  int32_t defaults[HRNN_MAX_ACTIVATIONS];    /* step: the cell's activations where a problem names none */
  uint32_t inner;           /* length of the product compiled in (projection: I; step: H), 0 = any */
  uint32_t cache_level;     /* for weights that stay in the cache of this level, 1 or 2; 3: beyond; 0 = wherever they lie */
  uint32_t lanes;           /* units computed of a panel, for layers that have no more; 0 = all */
} hrnn_kernel;

struct hrnn_device; /* a GPU backend: see hrnn/device.h */

typedef struct hrnn_kernel_table {
  uint32_t abi_version; /* HRNN_ABI_VERSION */
  uint32_t count;
  const hrnn_kernel *kernels;
  const struct hrnn_device *device; /* NULL for CPU kernels */
} hrnn_kernel_table;

/* ---- The machine, and selection as a pure function ------------------------------------------------------------- */

/* What selection knows about a machine. Sets of features are bits 1 << hrnn_feature. */
typedef struct hrnn_machine {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t features;        /* usable */
  uint64_t unsaved;         /* the processor has them, but the operating system does not save their registers */
  uint64_t cache_bytes[3];  /* data caches of a core, by level; 0 = unknown (the smallest in use are assumed) */
  char cpu[64];
  char device_refused[256]; /* why there is no usable GPU, for messages */
} hrnn_machine;

/* Describes the machine this process runs on. Device features come from the devices of `tables`, which may be NULL. */
HRNN_API hrnn_status hrnn_machine_detect(const hrnn_kernel_table *const *tables, size_t table_count,
                                         hrnn_machine *machine);
/* 1 when `machine` has every feature of `target`; else 0, with what is missing as text in `why` (which may be NULL). */
HRNN_API int hrnn_target_usable(const hrnn_target *target, const hrnn_machine *machine, char *why, size_t why_bytes);

typedef enum hrnn_direction { HRNN_FORWARD = 0, HRNN_REVERSE = 1, HRNN_BIDIRECTIONAL = 2 } hrnn_direction;

/* Cell "rnn_masked" is "rnn", but a unit keeps its state at a step where its argument, x W^T + Wb + H R^T + Rb, is
 * HRNN_MASKED or more. That makes a mask one more input, 1 at the steps that are left out, with weights of 2 * HRNN_MASKED. */
#define HRNN_MASKED 1e30

/* A recurrent layer. */
typedef struct hrnn_problem {
  uint32_t struct_size;
  int32_t dtype;       /* hrnn_dtype: HRNN_F32 or HRNN_F64 */
  const char *cell;    /* "rnn", "rnn_masked", "gru" (linear_before_reset = 1), "gru_reset_before" (= 0), a user's */
  int32_t direction;   /* hrnn_direction */
  int32_t clip_set;    /* nonzero: `clip` bounds the input of every activation to [-clip, clip] */
  double clip;
  int64_t input_size;  /* I >= 1 */
  int64_t hidden_size; /* H >= 1 */
  int64_t batch_hint;  /* batch size to select for; 0 = 1 */
  /* Per direction, in ONNX order (RNN: f; GRU: f for z and r, g for the candidate). activations_set = 0 takes the
   * cell's defaults (RNN: Tanh; GRU: Sigmoid, Tanh; a user's cell: those it was written with, alpha = 1, beta = 0). */
  int32_t activations_set;
  int32_t reserved;
  hrnn_activation activations[2][HRNN_MAX_ACTIVATIONS];
} hrnn_problem;

typedef struct hrnn_selection {
  uint32_t struct_size;
  uint32_t reserved;
  char target[32];        /* the one chosen */
  char variant[64];       /* its name, e.g. "gru.f32.avx512" */
  char step[512];         /* the step kernels' symbols by preference, separated by spaces */
  char projection[512];
  char reason[2048];      /* one line a better-ranked variant: why it was refused; then why this one */
} hrnn_selection;

/* Chooses kernels for `problem` on `machine`. `force`: NULL or "" = choose; else a target's name or a
 * variant's: anything else is refused with the reason. Pure: reads nothing but its arguments. */
HRNN_API hrnn_status hrnn_select(const hrnn_problem *problem, const hrnn_machine *machine,
                                 const hrnn_kernel_table *const *tables, size_t table_count, const char *force,
                                 hrnn_selection *selection, hrnn_error *error);

/* ---- Threads --------------------------------------------------------------------------------------------------- */

/* Everything runs on the caller's thread alone, unless it is given a team: whole sequences of layers that are large enough
 * to gain from it are then computed by the team, with the same results. Either the threads divide the hidden units, whose
 * weights stay in their cores' caches, or directions and layers of a model are computed at the same time, a layer some steps
 * behind the one whose output it reads. The caller begins at once and alone: threads that come late find less to do.
 * Streaming calls stay on the caller's thread. A team serves one run at a time; a run that finds it taken goes on alone. */
typedef struct hrnn_team hrnn_team;

typedef struct hrnn_team_options {
  uint32_t struct_size;
  uint32_t threads; /* 1 to 256, the caller's included; more than the machine has cores only slows down */
  /* NULL: the team starts threads of its own, which sleep when there is nothing to run for some 20 us; they are woken where
   * that pays. Else the host's pool, called for runs that pay for waking threads: must call task(argument, i) for every i
   * below `count` (at most `threads`), each on a thread of its own at the same time, since they wait for each other, and
   * return when all have returned. */
  void (*parallel)(void *pool, uint32_t count, void (*task)(void *argument, uint32_t index), void *argument);
  void *pool;
} hrnn_team_options;

HRNN_API hrnn_status hrnn_team_create(const hrnn_team_options *options, hrnn_team **team, hrnn_error *error);
/* After everything that was created with it. */
HRNN_API void hrnn_team_destroy(hrnn_team *team);

/* ---- One recurrent layer: plan, state, run, stream -------------------------------------------------------------- */

typedef struct hrnn_plan hrnn_plan;
typedef struct hrnn_state hrnn_state;

/* Called at plan creation with one line of explanation at a time. May be NULL. */
typedef void (*hrnn_log)(void *user, const char *line);

typedef struct hrnn_options {
  uint32_t struct_size;
  uint32_t table_count;
  const hrnn_kernel_table *const *tables; /* the kernel libraries to choose from */
  const char *force_variant; /* NULL = environment variable HRNN_FORCE_VARIANT if set, else choose */
  const hrnn_machine *machine; /* NULL = this machine */
  hrnn_log log;
  void *log_user;
  hrnn_team *team; /* NULL = the caller's thread alone */
} hrnn_options;

/* Dense weights in ONNX layout and the problem's dtype; copied (packed) at plan creation.
 * W [D, G*H, I], R [D, G*H, H], B [D, 2*G*H] = (Wb, Rb) or NULL for zeros. Gate order: GRU z, r, h. */
typedef struct hrnn_weights {
  uint32_t struct_size;
  uint32_t reserved;
  const void *w, *r, *b;
} hrnn_weights;

HRNN_API hrnn_status hrnn_plan_create(const hrnn_problem *problem, const hrnn_weights *weights,
                                      const hrnn_options *options, hrnn_plan **plan, hrnn_error *error);
HRNN_API void hrnn_plan_destroy(hrnn_plan *plan);
HRNN_API void hrnn_plan_selection(const hrnn_plan *plan, hrnn_selection *selection);
HRNN_API size_t hrnn_plan_bytes(const hrnn_plan *plan); /* packed weights and tables */

/* The mutable part: hidden state of up to `max_batch` sequences and the workspace. Starts at zero. */
HRNN_API hrnn_status hrnn_state_create(const hrnn_plan *plan, int64_t max_batch, hrnn_state **state, hrnn_error *error);
HRNN_API void hrnn_state_destroy(hrnn_state *state);
HRNN_API size_t hrnn_state_bytes(const hrnn_state *state);
HRNN_API void hrnn_state_reset(hrnn_state *state); /* back to zeros */
/* h: [D, batch, H], dense. */
HRNN_API hrnn_status hrnn_state_set(hrnn_state *state, int64_t batch, const void *h, hrnn_error *error);
HRNN_API hrnn_status hrnn_state_get(const hrnn_state *state, int64_t batch, void *h, hrnn_error *error);

/* Where a sequence lies. A stride of 0 means dense: x [T, N, I], y [T, D, N, H]; h0 and h_n are [D, N, H]. All are in the host's
 * memory; a GPU is several times faster where x and y are dense and pinned (hrnn/device.h). */
typedef struct hrnn_run_args {
  uint32_t struct_size;
  uint32_t reserved;
  int64_t time, batch;       /* both >= 0 */
  const void *x;             /* innermost dimension I, stride 1 */
  int64_t x_time_stride, x_batch_stride;
  const int32_t *lengths;    /* [N] valid steps of each sequence, 0..T; NULL = all T. y is zero past a sequence's end */
  const void *h0;            /* NULL = zeros */
  int64_t h0_dir_stride, h0_batch_stride;
  void *y;                   /* every step's state, or NULL; innermost dimension H, stride 1 */
  int64_t y_time_stride, y_dir_stride, y_batch_stride;
  void *h_n;                 /* the last state of each direction, or NULL */
  int64_t h_n_dir_stride, h_n_batch_stride;
} hrnn_run_args;

/* Runs whole sequences from h0. The state is used as workspace and ends holding h_n. */
HRNN_API hrnn_status hrnn_plan_run(const hrnn_plan *plan, hrnn_state *state, const hrnn_run_args *args,
                                   hrnn_error *error);
/* Continues from the state: forward direction only, h0 must be NULL. Use for live input, one or more steps a call. */
HRNN_API hrnn_status hrnn_stream(const hrnn_plan *plan, hrnn_state *state, const hrnn_run_args *args,
                                 hrnn_error *error);

/* ---- A whole model ------------------------------------------------------------------------------------------- */

/* What `hrnn compile` embeds: a program (which layers, how they connect), weights packed once for all CPU variants,
 * and the kernels. */
typedef struct hrnn_model {
  uint32_t abi_version; /* HRNN_ABI_VERSION */
  uint32_t reserved;
  const char *name;
  const void *program; /* see runtime/src/program.h */
  uint64_t program_bytes;
  const void *weights; /* 64-byte aligned */
  uint64_t weights_bytes;
  const hrnn_kernel_table *kernels;
} hrnn_model;

#define HRNN_MAX_RANK 8

/* A tensor of the caller's: dense, innermost dimension last. */
typedef struct hrnn_tensor {
  int32_t dtype; /* hrnn_dtype */
  int32_t rank;
  int64_t dims[HRNN_MAX_RANK];
  void *data;
  size_t bytes; /* size of the memory at data */
} hrnn_tensor;

/* A named input or output of a model. dims < 0 are symbolic: -1 - k for symbol k (hrnn_session_symbol). */
typedef struct hrnn_tensor_info {
  const char *name;
  int32_t dtype;
  int32_t rank;
  int64_t dims[HRNN_MAX_RANK];
} hrnn_tensor_info;

typedef struct hrnn_session hrnn_session;

/* options may be NULL; its tables are offered in addition to the model's own (for instance a CUDA library's). */
HRNN_API hrnn_status hrnn_session_create(const hrnn_model *model, const hrnn_options *options, hrnn_session **session,
                                         hrnn_error *error);
HRNN_API void hrnn_session_destroy(hrnn_session *session);
HRNN_API size_t hrnn_session_input_count(const hrnn_session *session);
HRNN_API size_t hrnn_session_output_count(const hrnn_session *session);
HRNN_API hrnn_status hrnn_session_input(const hrnn_session *session, size_t index, hrnn_tensor_info *info);
HRNN_API hrnn_status hrnn_session_output(const hrnn_session *session, size_t index, hrnn_tensor_info *info);
HRNN_API const char *hrnn_session_symbol(const hrnn_session *session, size_t symbol); /* e.g. "batch"; NULL past end */

/* Allocates everything that runs with inputs of these shapes (or smaller ones) need; only dtype, rank and dims are
 * read. Fills in dims and dtype of the outputs when `outputs` is not NULL. */
HRNN_API hrnn_status hrnn_session_reserve(hrnn_session *session, const hrnn_tensor *inputs, size_t input_count,
                                          hrnn_tensor *outputs, size_t output_count, hrnn_error *error);
/* Runs the model. Inputs and outputs in the model's order; an output with data = NULL is skipped where possible.
 * Fills in dims and dtype of the outputs. Shapes larger than reserved: HRNN_CAPACITY, nothing is run. */
HRNN_API hrnn_status hrnn_session_run(hrnn_session *session, const hrnn_tensor *inputs, size_t input_count,
                                      hrnn_tensor *outputs, size_t output_count, hrnn_error *error);
/* Recurrent layers of the model keep their final state as the initial state of the next run while streaming is on
 * (only for layers that run forward and take no initial state of their own). Turning it on or calling reset zeroes it. */
HRNN_API hrnn_status hrnn_session_stream(hrnn_session *session, int on, hrnn_error *error);
HRNN_API void hrnn_session_reset(hrnn_session *session);
/* What was chosen for recurrent layer `index` and why; HRNN_INVALID_ARGUMENT past the last one. */
HRNN_API hrnn_status hrnn_session_selection(const hrnn_session *session, size_t index, hrnn_selection *selection);
HRNN_API size_t hrnn_session_bytes(const hrnn_session *session); /* memory held, weights embedded in the model apart */

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* HRNN_H */
