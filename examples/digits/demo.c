/* SPDX-License-Identifier: Apache-2.0
 *
 * Classifies scikit-learn's digits with the embedded GRU and compares with what PyTorch recorded.
 *
 *   demo DATA [VARIANT]     DATA: written by pack_data.py; VARIANT: avx512, avx2, sse41, neon, opencl, cuda
 *
 * Prints one line: accuracy, largest difference, which variant ran, microseconds a time step at batch 1. Without VARIANT
 * the runtime chooses, and its reasons are printed too. Exit code 3: this machine cannot run the variant asked for.
 */
#define _POSIX_C_SOURCE 199309L
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "digits_gru.h"

enum { kSteps = 8, kPixels = 8, kClasses = 10, kTimedRuns = 2000 };

typedef struct {
  int32_t count;
  float *pixels, *logits; /* [count, 8, 8], [count, 10] */
  int32_t *labels;
} Data;

static int read_data(const char *path, Data *data) {
  FILE *file = fopen(path, "rb");
  if (!file) return 0;
  int ok = fread(&data->count, sizeof data->count, 1, file) == 1 && data->count > 0 && data->count < 100000;
  size_t n = ok ? (size_t)data->count : 0;
  data->pixels = malloc(n * kSteps * kPixels * sizeof(float) + 1);
  data->logits = malloc(n * kClasses * sizeof(float) + 1);
  data->labels = malloc(n * sizeof(int32_t) + 1);
  ok = ok && fread(data->pixels, sizeof(float), n * kSteps * kPixels, file) == n * kSteps * kPixels &&
       fread(data->logits, sizeof(float), n * kClasses, file) == n * kClasses &&
       fread(data->labels, sizeof(int32_t), n, file) == n;
  fclose(file);
  return ok;
}

static double microseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e6 + (double)now.tv_nsec * 1e-3;
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Median time of a run over one image, divided by its steps. */
static double time_step(hrnn_session *session, const Data *data) {
  static double samples[kTimedRuns];
  float logits[kClasses];
  hrnn_error error;
  for (int i = 0; i < kTimedRuns; i++) {
    const float *image = data->pixels + (size_t)(i % data->count) * kSteps * kPixels;
    double begin = microseconds();
    digits_gru_run(session, 1, kSteps, image, logits, sizeof logits, &error);
    samples[i] = (microseconds() - begin) / kSteps;
  }
  qsort(samples, kTimedRuns, sizeof samples[0], compare);
  return samples[kTimedRuns / 2];
}

int main(int argc, char **argv) {
  Data data;
  if (argc < 2 || argc > 3 || !read_data(argv[1], &data)) {
    fprintf(stderr, "usage: demo DATA [VARIANT] (DATA is written by pack_data.py)\n");
    return 2;
  }
  const char *variant = argc > 2 ? argv[2] : "";
  const hrnn_kernel_table *tables[] = {
#if defined(DEMO_OPENCL)
      &digits_gru_opencl_kernels,
#endif
#if defined(DEMO_CUDA)
      &digits_gru_cuda_kernels,
#endif
      NULL}; /* C wants at least one */
  hrnn_options options = {sizeof options};
  options.tables = tables;
  options.table_count = sizeof tables / sizeof tables[0] - 1;
  options.force_variant = variant;

  hrnn_session *session;
  hrnn_error error;
  hrnn_status status = hrnn_session_create(&digits_gru_model, &options, &session, &error);
  if (status != HRNN_OK) {
    fprintf(stderr, "%s\n", error.message);
    return status == HRNN_UNSUPPORTED ? 3 : 1;
  }
  /* Memory for all images at once; single images need less. */
  hrnn_tensor input = {HRNN_F32, 3, {data.count, kSteps, kPixels}, NULL, 0};
  float *logits = malloc((size_t)data.count * kClasses * sizeof(float));
  if (hrnn_session_reserve(session, &input, 1, NULL, 0, &error) != HRNN_OK ||
      digits_gru_run(session, data.count, kSteps, data.pixels, logits, (size_t)data.count * kClasses * sizeof(float),
                     &error) != HRNN_OK) {
    fprintf(stderr, "%s\n", error.message);
    return 1;
  }

  int correct = 0;
  double difference = 0;
  for (int i = 0; i < data.count; i++) {
    int best = 0;
    for (int c = 0; c < kClasses; c++) {
      double d = fabs((double)logits[i * kClasses + c] - (double)data.logits[i * kClasses + c]);
      if (!(d <= difference)) difference = d; /* a NaN counts */
      if (logits[i * kClasses + c] > logits[i * kClasses + best]) best = c;
    }
    correct += best == data.labels[i];
  }
  hrnn_selection selection = {sizeof selection};
  hrnn_session_selection(session, 0, &selection);
  printf("accuracy %.2f %% (%d of %d), largest difference from PyTorch %.1e, %s, %.2f us a step\n",
         100.0 * correct / data.count, correct, data.count, difference, selection.variant, time_step(session, &data));
  if (argc == 2) printf("%s\n", selection.reason);
  hrnn_session_destroy(session);
  free(logits);
  free(data.pixels);
  free(data.logits);
  free(data.labels);
  return difference < 1e-4 ? 0 : 1;
}
