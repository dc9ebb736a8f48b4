// SPDX-License-Identifier: Apache-2.0
//
// Timing on machines that are not quiet: short bursts that the caller repeats, in turns with whatever is compared, so
// that what slows one slows all. Shared with the programs that measure other engines (bench/peers): it needs nothing.
#pragma once
#include <algorithm>
#include <ctime>
#include <vector>

namespace hrnn {

constexpr double kBurstSeconds = 0.003;   // at least one run
constexpr double kLookSeconds = 0.00005;  // between two looks at the clock, which take part of a microsecond

// Work of one thread is timed by what the thread has run: another process on its core does not count. Work of several
// threads, which wait for each other, by what the clock on the wall says.
enum class Clock { kThread, kWall };

inline double now(Clock clock) {
  timespec time;
  clock_gettime(clock == Clock::kThread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return double(time.tv_sec) + double(time.tv_nsec) * 1e-9;
}

// The value that `share` of the values lie below.
inline double quantile(std::vector<double> values, double share) {
  const auto at = values.begin() + std::ptrdiff_t(double(values.size() - 1) * share + 0.5);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

inline double median(std::vector<double> values) { return quantile(std::move(values), 0.5); }

// Microseconds of one run: the median of some runs.
template <class Run>
double burst(Clock clock, Run &&run) {
  const double begin = now(clock);
  run();  // warm again after whatever ran before, unless a run is so long that it does not matter
  double last = now(clock);
  if (last - begin > 4 * kBurstSeconds) return (last - begin) * 1e6;
  const int runs = 1 + int(kLookSeconds / (last - begin));
  std::vector<double> times;
  for (const double end = last + kBurstSeconds; last < end;) {
    for (int i = 0; i < runs; i++) run();
    const double at = now(clock);
    times.push_back((at - last) / runs * 1e6);
    last = at;
  }
  return median(std::move(times));
}

}  // namespace hrnn
