// Work shared among the cores that a device has.

#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "arrays.h"

namespace earthformer {

// How many threads to use for `count` pieces of work, and at most `threads`.
inline int64_t shares(int64_t count, int64_t threads) {
  return std::max<int64_t>(1, std::min(count, threads));
}

// The cores of a device, on threads that JAX keeps for all of its operations.
struct Cores {
  ffi::ThreadPool pool;
  int64_t count;
};

// Shares of work that threads take until none is left, and how many are done.
class Shares {
 public:
  explicit Shares(int64_t count) : count_(count) {}

  // Does what is left, with do_share(n).
  template <typename DoShare>
  void take(DoShare& do_share) {
    for (int64_t n = next_++; n < count_; n = next_++) {
      do_share(n);
      const std::lock_guard<std::mutex> lock(mutex_);
      if (++done_ == count_) all_done_.notify_one();
    }
  }

  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    all_done_.wait(lock, [&] { return done_ == count_; });
  }

 private:
  const int64_t count_;
  std::atomic<int64_t> next_{0};
  int64_t done_ = 0;
  std::mutex mutex_;
  std::condition_variable all_done_;
};

// Calls work(first, last, share) for equal shares of `count` pieces, side by side.
template <typename Work>
void in_shares(int64_t count, Cores cores, Work work) {
  const int64_t parts = shares(count, cores.count);
  const auto do_share = [&](int64_t n) {
    work(count * n / parts, count * (n + 1) / parts, n);
  };
  if (parts == 1) return do_share(0);
  // Threads may be busy, or wait as this one does. So it waits only for shares that
  // others have taken: a thread that comes late finds none, and touches no `do_share`.
  const auto left = std::make_shared<Shares>(parts);
  for (int64_t n = 1; n < parts; n++)
    cores.pool.Schedule([left, &do_share] { left->take(do_share); });
  left->take(do_share);
  left->wait();
}

// Gradients of weights that all shares add to: each has its own, but for the first,
// which adds to the result.
class Sums {
 public:
  Sums(float* result, int64_t size, int64_t shares)
      : result_(result), size_(size), own_((shares - 1) * size, 0.0f) {
    std::fill(result, result + size, 0.0f);
  }

  float* of(int64_t share) {
    return share ? own_.data() + (share - 1) * size_ : result_;
  }

  void add_up() {
    for (size_t n = 0; n < own_.size(); n++) result_[n % size_] += own_[n];
  }

 private:
  float* const result_;
  const int64_t size_;
  std::vector<float> own_;
};

}  // namespace earthformer
