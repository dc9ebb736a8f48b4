// SPDX-License-Identifier: Apache-2.0
#include "elf_object.h"

#include <fcntl.h>
#include <gelf.h>
#include <libelf.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace hrnn {
namespace {

uint64_t append(std::vector<uint8_t> *section, const void *bytes, size_t size, size_t alignment) {
  section->resize((section->size() + alignment - 1) / alignment * alignment);
  const uint64_t offset = section->size();
  const uint8_t *begin = static_cast<const uint8_t *>(bytes);
  section->insert(section->end(), begin, begin + size);
  return offset;
}

struct StringTable {
  std::string bytes = std::string(1, '\0');
  uint32_t add(const std::string &text) {
    const uint32_t offset = static_cast<uint32_t>(bytes.size());
    bytes += text;
    bytes += '\0';
    return offset;
  }
};

void check(bool ok, const std::string &path) {
  if (!ok) throw std::runtime_error("cannot write " + path + ": " + elf_errmsg(-1));
}

// Section numbers in the order they are made.
enum Section { kRodata = 1, kRelro, kRela, kSymtab, kStrtab, kNoStack, kShstrtab };

}  // namespace

ElfDataObject::Place ElfDataObject::add_bytes(const void *bytes, size_t size, size_t alignment) {
  return {false, append(&rodata_, bytes, size, alignment)};
}
ElfDataObject::Place ElfDataObject::add_string(const std::string &text) {
  return add_bytes(text.c_str(), text.size() + 1, 1);
}
ElfDataObject::Place ElfDataObject::add_relocated(const void *bytes, size_t size, size_t alignment) {
  return {true, append(&relro_, bytes, size, alignment)};
}

void ElfDataObject::point_to(const Place &place, size_t offset, const Place &target) {
  relocations_.push_back({place.offset + offset, -1, target});
}
void ElfDataObject::point_to(const Place &place, size_t offset, const std::string &symbol) {
  relocations_.push_back({place.offset + offset, external(symbol), {}});
}
void ElfDataObject::define(const std::string &symbol, const Place &place, size_t size) {
  symbols_.push_back({symbol, true, place, size});
}

int ElfDataObject::external(const std::string &symbol) {
  for (size_t i = 0; i < symbols_.size(); i++)
    if (symbols_[i].name == symbol) return static_cast<int>(i);
  symbols_.push_back({symbol, false, {}, 0});
  return static_cast<int>(symbols_.size()) - 1;
}

void ElfDataObject::write(const std::string &path) const {
  elf_version(EV_CURRENT);
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) throw std::runtime_error("cannot write " + path + ": " + strerror(errno));
  Elf *elf = elf_begin(file, ELF_C_WRITE, nullptr);
  check(elf != nullptr && gelf_newehdr(elf, ELFCLASS64) != nullptr, path);
  GElf_Ehdr header = {};
  gelf_getehdr(elf, &header);
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_type = ET_REL;
  header.e_machine = static_cast<GElf_Half>(machine_);
  header.e_version = EV_CURRENT;
  header.e_shstrndx = kShstrtab;
  check(gelf_update_ehdr(elf, &header) != 0, path);

  // Symbols: null, one for each section that addresses point into, then the global ones.
  StringTable names, sections;
  std::vector<Elf64_Sym> symbols(3);
  symbols[1].st_info = symbols[2].st_info = ELF64_ST_INFO(STB_LOCAL, STT_SECTION);
  symbols[1].st_shndx = kRodata;
  symbols[2].st_shndx = kRelro;
  for (const Symbol &symbol : symbols_) {
    Elf64_Sym s = {};
    s.st_name = names.add(symbol.name);
    s.st_info = ELF64_ST_INFO(STB_GLOBAL, symbol.defined ? STT_OBJECT : STT_NOTYPE);
    if (symbol.defined) {
      s.st_shndx = symbol.place.relocated ? kRelro : kRodata;
      s.st_value = symbol.place.offset;
      s.st_size = symbol.size;
    }
    symbols.push_back(s);
  }
  const uint32_t type = machine_ == EM_AARCH64 ? R_AARCH64_ABS64 : R_X86_64_64;
  std::vector<Elf64_Rela> relocations;
  for (const Relocation &r : relocations_) {
    const uint64_t symbol = r.symbol >= 0 ? 3 + r.symbol : r.place.relocated ? 2 : 1;
    relocations.push_back({r.offset, ELF64_R_INFO(symbol, type), r.symbol >= 0 ? 0 : int64_t(r.place.offset)});
  }

  auto add = [&](const char *name, uint32_t kind, uint64_t flags, const void *bytes, size_t size, size_t alignment,
                 Elf_Type elf_type, uint64_t entry, uint32_t link, uint32_t info) {
    Elf_Scn *section = elf_newscn(elf);
    Elf_Data *data = section ? elf_newdata(section) : nullptr;
    check(data != nullptr, path);
    data->d_buf = const_cast<void *>(bytes);
    data->d_size = size;
    data->d_align = alignment;
    data->d_type = elf_type;
    data->d_version = EV_CURRENT;
    GElf_Shdr shdr = {};
    gelf_getshdr(section, &shdr);
    shdr.sh_name = sections.add(name);
    shdr.sh_type = kind;
    shdr.sh_flags = flags;
    shdr.sh_entsize = entry;
    shdr.sh_link = link;
    shdr.sh_info = info;
    check(gelf_update_shdr(section, &shdr) != 0, path);
    return data;
  };
  add(".rodata", SHT_PROGBITS, SHF_ALLOC, rodata_.data(), rodata_.size(), 64, ELF_T_BYTE, 0, 0, 0);
  add(".data.rel.ro", SHT_PROGBITS, SHF_ALLOC | SHF_WRITE, relro_.data(), relro_.size(), 16, ELF_T_BYTE, 0, 0, 0);
  add(".rela.data.rel.ro", SHT_RELA, SHF_INFO_LINK, relocations.data(), relocations.size() * sizeof(Elf64_Rela), 8,
      ELF_T_RELA, sizeof(Elf64_Rela), kSymtab, kRelro);
  add(".symtab", SHT_SYMTAB, 0, symbols.data(), symbols.size() * sizeof(Elf64_Sym), 8, ELF_T_SYM, sizeof(Elf64_Sym),
      kStrtab, 3);
  add(".strtab", SHT_STRTAB, 0, names.bytes.data(), names.bytes.size(), 1, ELF_T_BYTE, 0, 0, 0);
  add(".note.GNU-stack", SHT_PROGBITS, 0, "", 0, 1, ELF_T_BYTE, 0, 0, 0);  // the stack need not be executable
  Elf_Data *last = add(".shstrtab", SHT_STRTAB, 0, "", 0, 1, ELF_T_BYTE, 0, 0, 0);
  last->d_buf = sections.bytes.data();
  last->d_size = sections.bytes.size();
  const bool written = elf_update(elf, ELF_C_WRITE) >= 0;
  const std::string reason = written ? "" : elf_errmsg(-1);
  elf_end(elf);
  close(file);
  if (!written) throw std::runtime_error("cannot write " + path + ": " + reason);
}

}  // namespace hrnn
