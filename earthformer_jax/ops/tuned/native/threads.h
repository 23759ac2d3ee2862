// Work shared among the cores that a device has.

#pragma once

#include <algorithm>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace earthformer {

// How many threads to use for `count` pieces of work, and at most `threads`.
inline int64_t shares(int64_t count, int64_t threads) {
  return std::max<int64_t>(1, std::min(count, threads));
}

// Calls work(first, last, share) for equal shares of `count` pieces, side by side; one
// after the other where the system has no more threads.
template <typename Work>
void in_shares(int64_t count, int64_t threads, Work work) {
  const int64_t parts = shares(count, threads);
  std::vector<std::thread> others;
  for (int64_t n = parts - 1; n >= 0; n--) {
    const int64_t first = count * n / parts, last = count * (n + 1) / parts;
    try {
      if (n) others.emplace_back(work, first, last, n);
    } catch (const std::system_error&) {
      work(first, last, n);
    }
    if (!n) work(first, last, n);
  }
  for (std::thread& other : others) other.join();
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
