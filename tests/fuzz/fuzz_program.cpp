// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as a program of the runtime: rejected with a message, or it runs. An input is the number of weight bytes (in
// units of 64, one byte), flags (bit 0: magic and length are put right, so that mutations get past them; bit 1: weights are
// zeros, so that indices among them point at something), the program. Under libFuzzer, half of the mutations are of one
// field of a record: one of bytes seldom leaves a program that is read to its end.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>
#include <random>
#include <vector>

#include "program.h"
#include "run_model.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size) __attribute__((weak));

namespace {

constexpr size_t kFront = 2;  // bytes before the program

// One field of one record, as a damaged file or another compiler might have it.
class ProgramMutator {
 public:
  ProgramMutator(uint8_t *program, size_t size, int64_t weights_bytes, unsigned seed)
      : program_(program), size_(size), weights_bytes_(weights_bytes), random_(seed) {}

  // False when the program has no such records.
  bool change_something() {
    if (size_ < sizeof header_) return false;
    memcpy(&header_, program_, sizeof header_);
    const uint64_t tensors = sizeof header_ + (uint64_t{header_.symbol_count} * 4 + 7) / 8 * 8;
    const uint64_t ops = tensors + uint64_t{header_.tensor_count} * sizeof(hrnn::TensorRecord);
    if (ops + uint64_t{header_.op_count} * sizeof(hrnn::OpRecord) > size_) return false;
    return below(2) == 0 ? change<hrnn::TensorRecord>(tensors, header_.tensor_count)
                         : change<hrnn::OpRecord>(ops, header_.op_count);
  }

 private:
  uint64_t below(uint64_t count) { return random_() % count; }
  int64_t number() {
    const int64_t some[] = {0, 1, 2, 3, 4, 7, 8, -1, -2, -3, 60, 64, 4096, INT32_MAX, INT64_MAX, INT64_MIN, int64_t{1} << 32};
    return some[below(std::size(some))];
  }
  double real() {
    const double some[] = {0, 1, -1, 0.5, 1e300, -1e-310, HUGE_VAL, double(NAN)};
    return some[below(std::size(some))];
  }
  // Offsets that lie just inside and just outside of the weights.
  uint64_t offset() { return uint64_t(below(3) == 0 ? number() : weights_bytes_ + int64_t(below(33)) * 8 - 128); }

  template <class Record>
  bool change(uint64_t at, uint32_t count) {
    if (count == 0) return false;
    at += below(count) * sizeof(Record);
    Record record;
    memcpy(&record, program_ + at, sizeof record);
    change(&record);
    memcpy(program_ + at, &record, sizeof record);
    return true;
  }
  void change(hrnn::TensorRecord *tensor) {
    switch (below(tensor->is_constant ? 8 : 4)) {
      case 0: tensor->dtype = int32_t(below(9)); return;
      case 1: tensor->rank = int32_t(below(10)); return;
      case 2: tensor->dims[below(std::size(tensor->dims))] = number(); return;
      case 3: tensor->is_constant ^= 1; return;
      case 4: tensor->data_bytes = offset(); return;
      default: tensor->data_offset = offset(); return;
    }
  }
  void change(hrnn::OpRecord *op) {
    const uint32_t tensor = below(4) == 0 ? hrnn::kNone : uint32_t(below(header_.tensor_count + uint64_t{1}));
    switch (below(8)) {
      case 0: op->kind = uint32_t(below(24)); return;
      case 1: op->inputs[below(std::size(op->inputs))] = tensor; return;
      case 2: op->outputs[below(2)] = tensor; return;
      case 3: op->reals[below(std::size(op->reals))] = real(); return;
      case 4: op->ints[below(std::size(op->ints))] = int64_t(offset()); return;
      default: op->ints[below(std::size(op->ints))] = number(); return;
    }
  }

  uint8_t *program_;
  size_t size_;
  int64_t weights_bytes_;
  hrnn::ProgramHeader header_;
  std::minstd_rand random_;
};

// Exactly the size asked for, aligned as embedded weights are.
struct Free {
  void operator()(void *memory) const { free(memory); }
};
using Memory = std::unique_ptr<void, Free>;

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
  if (seed % 2 == 0 && size > kFront) {
    ProgramMutator mutator(data + kFront, size - kFront, int64_t(data[0]) * 64, seed / 2);
    bool changed = mutator.change_something();
    for (unsigned i = seed / 2 % 3; changed && i > 0; i--) changed = mutator.change_something();
    if (changed) return size;
  }
  return LLVMFuzzerMutate(data, size, max_size);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < kFront || size > 1 << 16) return 0;
  const size_t weights_bytes = size_t(data[0]) * 64;
  const bool repair = data[1] & 1;
  std::vector<uint8_t> program(data + kFront, data + size);
  if (repair && program.size() >= sizeof(hrnn::ProgramHeader)) {
    const uint32_t bytes = uint32_t(program.size());
    memcpy(program.data(), hrnn::kProgramMagic, sizeof hrnn::kProgramMagic);
    memcpy(program.data() + offsetof(hrnn::ProgramHeader, bytes), &bytes, sizeof bytes);
  }
  const Memory weights(aligned_alloc(64, weights_bytes));
  memset(weights.get(), data[1] & 2 ? 0 : 0x3c, weights_bytes);  // 0x3c: small numbers, in float and double
  hrnn_model model = {};
  model.abi_version = HRNN_ABI_VERSION;
  model.name = "fuzz";
  model.program = program.data();
  model.program_bytes = program.size();
  model.weights = weights.get();
  model.weights_bytes = weights_bytes;
  hrnn_fuzz::run_model(model);
  return 0;
}
