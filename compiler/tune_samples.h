// SPDX-License-Identifier: Apache-2.0
//
// Every measurement of the tuner, in an SQLite database, so that a run that was cut off goes on where it stopped.
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <string>

struct sqlite3;

namespace hrnn {

// Microseconds a step of a candidate and of today's kernels, measured one right after the other.
struct Sample {
  double candidate, today;
};

// What was measured: kernels by their identity, on a problem. stage: "race" or "confirm".
struct SampleKey {
  std::string stage, problem, candidate, today;
};

class SampleStore {
 public:
  // Samples of `machine` alone are seen. Throws std::runtime_error that names the file where it cannot be used.
  SampleStore(const std::string &file, const std::string &machine);

  std::optional<Sample> find(const SampleKey &key, int round) const;
  void add(const SampleKey &key, int round, const Sample &sample);

 private:
  void execute(const char *sql) const;
  [[noreturn]] void fail() const;

  struct Close {
    void operator()(sqlite3 *database) const;
  };
  std::string file_, machine_;
  std::unique_ptr<sqlite3, Close> database_;
};

}  // namespace hrnn
