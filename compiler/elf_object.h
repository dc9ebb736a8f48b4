// SPDX-License-Identifier: Apache-2.0
//
// A relocatable ELF object that holds only data: what lets `hrnn compile` embed weights and tables for any architecture
// without its compiler.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace hrnn {

class ElfDataObject {
 public:
  explicit ElfDataObject(int elf_machine) : machine_(elf_machine) {}

  // A place in the object: read-only bytes, or bytes that hold addresses (relocated, then read-only).
  struct Place {
    bool relocated;
    uint64_t offset;
  };

  Place add_bytes(const void *bytes, size_t size, size_t alignment);
  Place add_string(const std::string &text);
  // Bytes that will hold addresses: see point_to.
  Place add_relocated(const void *bytes, size_t size, size_t alignment);

  // The eight bytes at `place` + `offset` shall hold the address of `target`, or of the external symbol.
  void point_to(const Place &place, size_t offset, const Place &target);
  void point_to(const Place &place, size_t offset, const std::string &symbol);

  void define(const std::string &symbol, const Place &place, size_t size);

  // Throws std::runtime_error naming the file and the reason.
  void write(const std::string &path) const;

 private:
  struct Symbol {
    std::string name;
    bool defined;
    Place place;
    size_t size;
  };
  struct Relocation {
    uint64_t offset;
    int symbol;  // index into symbols_, or -1: the section of `place`
    Place place;
  };
  int external(const std::string &symbol);

  int machine_;
  std::vector<uint8_t> rodata_, relro_;
  std::vector<Symbol> symbols_;
  std::vector<Relocation> relocations_;
};

}  // namespace hrnn
