// SPDX-License-Identifier: Apache-2.0
//
// Owning memory for a library without exceptions and without the C++ runtime: everything that can fail says so in its
// return value.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

namespace hrnn {

// A growable array of plain values. New elements are zero.
template <typename T>
class Array {
  static_assert(std::is_trivially_copyable<T>::value && std::is_trivially_destructible<T>::value,
                "elements are moved with memcpy");

 public:
  Array() = default;
  Array(const Array &) = delete;
  Array &operator=(const Array &) = delete;
  Array(Array &&other) noexcept : data_(other.data_), size_(other.size_), capacity_(other.capacity_) {
    other.data_ = nullptr;
    other.size_ = other.capacity_ = 0;
  }
  Array &operator=(Array &&other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    return *this;
  }
  ~Array() { free(data_); }

  // False when there is no memory: the array is then as it was.
  [[nodiscard]] bool reserve(size_t capacity) {
    if (capacity <= capacity_) return true;
    if (capacity > SIZE_MAX / sizeof(T)) return false;
    void *grown = realloc(data_, capacity * sizeof(T));
    if (grown == nullptr) return false;
    data_ = static_cast<T *>(grown);
    capacity_ = capacity;
    return true;
  }
  [[nodiscard]] bool resize(size_t size) {
    if (!reserve(size)) return false;
    if (size > size_) memset(static_cast<void *>(data_ + size_), 0, (size - size_) * sizeof(T));
    size_ = size;
    return true;
  }
  [[nodiscard]] bool push_back(const T &value) {
    const T copy = value;  // the value may lie in this array
    if (size_ == capacity_ && !reserve(capacity_ == 0 ? 8 : capacity_ * 2)) return false;
    data_[size_++] = copy;
    return true;
  }
  void clear() { size_ = 0; }

  T *data() { return data_; }
  const T *data() const { return data_; }
  size_t size() const { return size_; }
  size_t capacity() const { return capacity_; }
  bool empty() const { return size_ == 0; }
  T &operator[](size_t index) { return data_[index]; }
  const T &operator[](size_t index) const { return data_[index]; }
  T &back() { return data_[size_ - 1]; }
  T *begin() { return data_; }
  T *end() { return data_ + size_; }
  const T *begin() const { return data_; }
  const T *end() const { return data_ + size_; }
  size_t bytes() const { return capacity_ * sizeof(T); }

 private:
  T *data_ = nullptr;
  size_t size_ = 0, capacity_ = 0;
};

// Bytes aligned as packed weights and vector loads like them. Contents are undefined after allocate.
class AlignedBuffer {
 public:
  static constexpr size_t kAlignment = 64;

  AlignedBuffer() = default;
  AlignedBuffer(const AlignedBuffer &) = delete;
  AlignedBuffer &operator=(const AlignedBuffer &) = delete;
  AlignedBuffer(AlignedBuffer &&other) noexcept : block_(other.block_), data_(other.data_), size_(other.size_) {
    other.block_ = nullptr;
    other.data_ = nullptr;
    other.size_ = 0;
  }
  AlignedBuffer &operator=(AlignedBuffer &&other) noexcept {
    std::swap(block_, other.block_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~AlignedBuffer() { free(block_); }

  // Replaces the memory by `size` bytes, rounded up to whole rows of 64. False when there is no memory: the buffer is
  // then as it was. (malloc and rounding instead of aligned_alloc: every C library has it.)
  [[nodiscard]] bool allocate(size_t size) {
    if (size > SIZE_MAX / 2) return false;
    const size_t rounded = (size + kAlignment - 1) / kAlignment * kAlignment;
    void *block = nullptr;
    char *data = nullptr;
    if (rounded > 0) {
      block = malloc(rounded + kAlignment);
      if (block == nullptr) return false;
      const uintptr_t address = reinterpret_cast<uintptr_t>(block);
      data = static_cast<char *>(block) + (kAlignment - address % kAlignment) % kAlignment;
    }
    free(block_);
    block_ = block;
    data_ = data;
    size_ = rounded;
    return true;
  }

  char *data() { return data_; }
  const char *data() const { return data_; }
  size_t size() const { return size_; }

 private:
  void *block_ = nullptr;
  char *data_ = nullptr;
  size_t size_ = 0;
};

// An object with a constructor, without operator new (which lives in the C++ runtime library). Null: no memory.
template <typename T>
T *create_object() {
  static_assert(alignof(T) <= alignof(std::max_align_t), "malloc aligns no further");
  void *memory = malloc(sizeof(T));
  return memory == nullptr ? nullptr : ::new (memory) T();
}
template <typename T>
void destroy_object(T *object) {
  if (object == nullptr) return;
  object->~T();
  free(object);
}

}  // namespace hrnn
