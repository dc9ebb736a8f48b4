/* SPDX-License-Identifier: Apache-2.0
 *
 * Classifies one handwritten digit with the model compiled into this program.
 */
#include <stdio.h>

#include "digits.h"

enum { kRows = 8, kColumns = 8, kDigits = 10 };

/* A zero, in pixels of 0..1. */
static const float image[kRows][kColumns] = {
    {0.0f, 0.0f, 0.3f, 0.8f, 0.6f, 0.1f, 0.0f, 0.0f}, {0.0f, 0.0f, 0.8f, 0.9f, 0.6f, 0.9f, 0.3f, 0.0f},
    {0.0f, 0.2f, 0.9f, 0.1f, 0.0f, 0.7f, 0.5f, 0.0f}, {0.0f, 0.3f, 0.8f, 0.0f, 0.0f, 0.5f, 0.5f, 0.0f},
    {0.0f, 0.3f, 0.5f, 0.0f, 0.0f, 0.6f, 0.5f, 0.0f}, {0.0f, 0.2f, 0.7f, 0.0f, 0.1f, 0.8f, 0.4f, 0.0f},
    {0.0f, 0.1f, 0.9f, 0.3f, 0.6f, 0.8f, 0.0f, 0.0f}, {0.0f, 0.0f, 0.4f, 0.8f, 0.6f, 0.0f, 0.0f, 0.0f},
};

int main(void) {
  hrnn_error error;
  hrnn_session *session;
  if (hrnn_session_create(&digits_model, NULL, &session, &error) != HRNN_OK) {
    fprintf(stderr, "%s\n", error.message);
    return 1;
  }
  /* All allocation happens here: for one image of eight rows. */
  const hrnn_tensor shape = {HRNN_F32, 3, {1, kRows, kColumns}, NULL, 0};
  float scores[kDigits];
  if (hrnn_session_reserve(session, &shape, 1, NULL, 0, &error) != HRNN_OK ||
      digits_run(session, 1, kRows, &image[0][0], scores, sizeof scores, &error) != HRNN_OK) {
    fprintf(stderr, "%s\n", error.message);
    hrnn_session_destroy(session);
    return 1;
  }

  int best = 0;
  for (int digit = 0; digit < kDigits; digit++) {
    printf("%d: %7.3f\n", digit, scores[digit]);
    if (scores[digit] > scores[best]) best = digit;
  }
  hrnn_selection selection = {sizeof selection, 0, "", "", "", ""};
  if (hrnn_session_selection(session, 0, &selection) == HRNN_OK) printf("kernels: %s\n", selection.variant);
  printf("it is a %d\n", best);
  hrnn_session_destroy(session);
  return 0;
}
