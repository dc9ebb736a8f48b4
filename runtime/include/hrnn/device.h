/* SPDX-License-Identifier: Apache-2.0
 *
 * A GPU backend, as the runtime sees it. Kernel libraries for a GPU bring one (hrnn_cuda, hrnn_opencl); the runtime for
 * CPUs contains no GPU code and links none. Every int returns 0 on success, else an error code of the driver's.
 */
#ifndef HRNN_DEVICE_H
#define HRNN_DEVICE_H

#include "hrnn/hrnn.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct hrnn_device_memory hrnn_device_memory;

typedef struct hrnn_device {
  uint32_t abi_version; /* HRNN_ABI_VERSION */
  uint32_t feature;     /* hrnn_feature that a usable device gives: HRNN_FEATURE_CUDA or HRNN_FEATURE_OPENCL */
  const char *name;     /* "cuda", "opencl" */
  /* 1 when a driver and a device are there; else 0 with the reason as text. */
  int (*probe)(char *reason, size_t reason_bytes);
  /* The device interface that buffers passed to kernels carry. */
  const void *(*buffer_interface)(void);
  int (*allocate)(uint64_t bytes, hrnn_device_memory **memory);
  void (*release)(hrnn_device_memory *memory);
  /* The device handle of the memory `offset` bytes in, for a kernel's buffer. Free with release_view. */
  int (*view)(hrnn_device_memory *memory, uint64_t offset, uint64_t *handle);
  void (*release_view)(hrnn_device_memory *memory, uint64_t handle);
  /* Copies, done when they return: `from` may then be written to, and `to` read. */
  int (*upload)(hrnn_device_memory *memory, uint64_t offset, const void *from, uint64_t bytes);
  int (*download)(hrnn_device_memory *memory, uint64_t offset, void *to, uint64_t bytes);
  /* As `count` calls of download(), of `bytes` each: from `apart` bytes further in the memory each time, to `to_apart` bytes further. */
  int (*download_pieces)(hrnn_device_memory *memory, uint64_t offset, uint64_t apart, void *to, uint64_t to_apart, uint64_t bytes,
                         uint64_t count);
  /* Memory of the host's that copies shall be fast from and to, until unpin. An error where that cannot be, which is none:
     copies are slower then. */
  int (*pin)(void *memory, uint64_t bytes);
  void (*unpin)(void *memory);
  /* 1 where that was done to all of it, by pin or by the program itself through the driver. */
  int (*is_pinned)(const void *memory, uint64_t bytes);
  /* What was wrong with the last call, or kernel, that failed in this thread: text for messages. */
  const char *(*failure)(void);
} hrnn_device;

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* HRNN_DEVICE_H */
