// Convolutions of planes with zeros around them, and the gradients of plane and kernel.
//
// A row of results is a sum of products, one for each row of the kernel: the windows of
// a row overlap in memory, so that the row itself serves as the matrix of its windows.
//
// The arguments are described in convolution.py.

#include "arrays.h"
#include "layer.h"
#include "threads.h"

namespace earthformer {
namespace {

constexpr int64_t kPositions = 128;  // about so many results are computed at once
constexpr int64_t kDepth = 96;       // about so many rows of weights stay in the cache

struct Options {
  int64_t top, left;  // rows and columns of zeros before the plane
  int64_t threads;
};

// Some rows and columns of one plane.
struct Part {
  int64_t plane, top, left, height, width;
};

struct Shape {
  int64_t planes, height, width, channels;

  explicit Shape(const F32& planes)
      : Shape(planes.dimensions()[0], planes.dimensions()[1], planes.dimensions()[2],
              planes.dimensions()[3]) {}
  Shape(int64_t planes, int64_t height, int64_t width, int64_t channels)
      : planes(planes), height(height), width(width), channels(channels) {}

  int64_t offset(int64_t plane, int64_t row, int64_t column) const {
    return ((plane * height + row) * width + column) * channels;
  }
  // Of a row of a part.
  int64_t offset(const Part& part, int64_t row) const {
    return offset(part.plane, part.top + row, part.left);
  }
};

// Height and width of kernels.
struct Sides {
  int64_t height, width;
};

// The parts that planes of results are computed in.
class Parts {
 public:
  explicit Parts(const Shape& shape)
      : shape_(shape),
        across_(divided(shape.width, kPositions)),
        width_(divided(shape.width, across_)),
        down_(divided(shape.height, std::max<int64_t>(1, kPositions / width_))),
        height_(divided(shape.height, down_)) {}

  int64_t count() const { return shape_.planes * down_ * across_; }
  int64_t most_rows() const { return height_; }
  int64_t most_columns() const { return width_; }
  int64_t most_positions() const { return height_ * width_; }

  Part operator()(int64_t n) const {
    const int64_t left = n % across_ * width_, top = n / across_ % down_ * height_;
    return {n / across_ / down_, top, left,
            std::max<int64_t>(0, std::min(height_, shape_.height - top)),
            std::max<int64_t>(0, std::min(width_, shape_.width - left))};
  }

 private:
  static int64_t divided(int64_t n, int64_t by) { return (n + by - 1) / by; }

  const Shape shape_;
  const int64_t across_, width_, down_, height_;
};

// What the windows of a part of the results read, with zeros outside the plane.
class Surroundings {
 public:
  // apart: floats between the channels of one position and those of the next.
  Surroundings(const float* planes, const Shape& shape, const Options& options,
               Sides kernel, const Parts& parts, int64_t apart, Scratch& scratch)
      : planes_(planes),
        shape_(shape),
        options_(options),
        kernel_(kernel),
        step_(shape.channels + apart),
        copy_(scratch.take(floats(shape, kernel, parts, apart))) {}

  static int64_t floats(const Shape& shape, Sides kernel, const Parts& parts,
                        int64_t apart) {
    return (parts.most_rows() + kernel.height - 1) *
           (parts.most_columns() + kernel.width - 1) * (shape.channels + apart);
  }

  // Floats from a position to the next.
  int64_t step() const { return step_; }

  // Where the window of the part's first result begins, and floats from a row to the
  // next. Nothing is copied where all windows lie inside the plane.
  Rows of(const Part& part) const {
    const int64_t top = part.top - options_.top, left = part.left - options_.left;
    const int64_t rows = part.height + kernel_.height - 1;
    const int64_t columns = part.width + kernel_.width - 1;
    const bool inside = top >= 0 && left >= 0 && top + rows <= shape_.height &&
                        left + columns <= shape_.width;
    if (inside && step_ == shape_.channels)
      return {const_cast<float*>(at(part.plane, top, left)),
              shape_.width * shape_.channels};
    const Rows copied{copy_, columns * step_};
    for (int64_t row = 0; row < rows; row++)
      copy_row(part.plane, top + row, left, columns, copied.row(row));
    return copied;
  }

 private:
  const float* at(int64_t plane, int64_t row, int64_t column) const {
    return planes_ + shape_.offset(plane, row, column);
  }

  void copy_row(int64_t plane, int64_t row, int64_t left, int64_t columns,
                float* to) const {
    const bool there = row >= 0 && row < shape_.height;
    const int64_t begin = there ? std::clamp<int64_t>(-left, 0, columns) : columns;
    const int64_t end =
        there ? std::clamp<int64_t>(shape_.width - left, begin, columns) : columns;
    std::fill(to, to + begin * step_, 0.0f);
    if (step_ == shape_.channels && begin < end)
      std::memcpy(to + begin * step_, at(plane, row, left + begin),
                  sizeof(float) * (end - begin) * step_);
    else
      for (int64_t column = begin; column < end; column++)
        std::memcpy(to + column * step_, at(plane, row, left + column),
                    sizeof(float) * shape_.channels);
    std::fill(to + end * step_, to + columns * step_, 0.0f);
  }

  const float* const planes_;
  const Shape shape_;
  const Options options_;
  const Sides kernel_;
  const int64_t step_;
  float* const copy_;
};

// A kernel `[height, width, channels, results]` in panels of results, filled up with
// zeros to whole vectors.
class Kernel {
 public:
  // kernel: `[height, width, channels, results]`; turned: that of the gradient, which
  //   takes results back to channels, in `[height, width, results, channels]`.
  Kernel(const float* kernel, Sides sides, int64_t channels, int64_t results,
         bool turned, Scratch& scratch)
      : sides(sides),
        depth_(sides.width * channels),
        columns_(whole_vectors(results)),
        data_(scratch.take(floats(sides, channels, results))) {
    const int64_t taps = sides.height * sides.width;
    for (int64_t tap = 0; tap < taps; tap++)
      for (int64_t channel = 0; channel < channels; channel++)
        for (int64_t result = 0; result < results; result++) {
          const int64_t first = result / kPanel * kPanel;
          const Rows to = panel(tap / sides.width, first);
          const int64_t row = tap % sides.width * channels + channel;
          to.row(row)[result - first] =
              turned
                  ? kernel[((taps - 1 - tap) * results + result) * channels + channel]
                  : kernel[(tap * channels + channel) * results + result];
        }
  }

  static int64_t floats(Sides sides, int64_t channels, int64_t results) {
    return sides.height * sides.width * channels * whole_vectors(results);
  }

  const Sides sides;

  // Adds up the products of all rows of the kernel, for one panel of results.
  // windows: as of `Surroundings`; `step` floats lie between positions.
  void multiply_by(Rows windows, int64_t step, const Part& part, int64_t first,
                   Rows out) const {
    for (int64_t i = 0; i < sides.height; i++) {
      const Rows own = panel(i, first);
      for (int64_t begin = 0; begin < depth_; begin += kDepth) {
        const int64_t depth = std::min(kDepth, depth_ - begin);
        for (int64_t row = 0; row < part.height; row++) {
          const Matrix left{windows.row(row + i) + begin, step, 1};
          multiply(left, part.width, depth, own.from_row(begin), own.step,
                   out.from_row(row * part.width), i || begin);
        }
      }
    }
  }

 private:
  Rows panel(int64_t row, int64_t first) const {
    return {data_ + row * depth_ * columns_ + first * depth_,
            std::min(kPanel, columns_ - first)};
  }

  const int64_t depth_, columns_;
  float* const data_;
};

// results = planes convolved with the kernel.
void convolve(const float* planes, const Shape& shape, const Kernel& kernel,
              const Options& options, float* results, const Shape& found) {
  const Parts parts(found);
  in_shares(parts.count(), options.threads, [&](int64_t begin, int64_t end, int64_t) {
    Scratch scratch(Surroundings::floats(shape, kernel.sides, parts, 0) +
                    parts.most_positions() * kPanel);
    const Surroundings surroundings(planes, shape, options, kernel.sides, parts, 0,
                                    scratch);
    const Rows block{scratch.take(parts.most_positions() * kPanel), kPanel};
    for (int64_t n = begin; n < end; n++) {
      const Part part = parts(n);
      const Rows windows = surroundings.of(part);
      for (int64_t first = 0; first < found.channels; first += kPanel) {
        kernel.multiply_by(windows, surroundings.step(), part, first, block);
        const int64_t columns = std::min(kPanel, found.channels - first);
        for (int64_t row = 0; row < part.height; row++)
          copy(block.from_row(row * part.width), part.width, columns,
               {results + found.offset(part, row) + first, found.channels});
      }
    }
  });
}

// Adds the kernel's gradient of some parts of the results to what is there.
class SharedGradient {
 public:
  SharedGradient(const float* planes, const Shape& shape, const float* dresults,
                 const Shape& found, Sides sides, const Options& options,
                 const Parts& parts, float* sum)
      : found_(found),
        sides_(sides),
        channels_(shape.channels),
        parts_(parts),
        dresults_(dresults),
        sum_(sum),
        scratch_(Surroundings::floats(shape, sides, parts, kApart) +
                 parts.most_positions() * kPanel),
        surroundings_(planes, shape, options, sides, parts, kApart, scratch_),
        block_{scratch_.take(parts.most_positions() * kPanel), kPanel} {}

  void add(int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; n++) {
      const Part part = parts_(n);
      const Rows windows = surroundings_.of(part);
      for (int64_t first = 0; first < found_.channels; first += kPanel) {
        const int64_t columns = std::min(kPanel, found_.channels - first);
        copy_block(part, first, columns);
        for (int64_t tap = 0; tap < sides_.height * sides_.width; tap++)
          add_tap(part, windows, tap, first, columns);
      }
    }
  }

 private:
  void copy_block(const Part& part, int64_t first, int64_t columns) {
    for (int64_t row = 0; row < part.height; row++) {
      const float* const from = dresults_ + found_.offset(part, row) + first;
      copy({const_cast<float*>(from), found_.channels}, part.width, columns,
           block_.from_row(row * part.width));
    }
  }

  void add_tap(const Part& part, Rows windows, int64_t tap, int64_t first,
               int64_t columns) {
    const int64_t step = surroundings_.step();
    const Rows to{sum_ + tap * channels_ * found_.channels + first, found_.channels};
    const float* const from =
        windows.row(tap / sides_.width) + tap % sides_.width * step;
    multiply({from, 1, step}, channels_, {part.width, part.height, windows.step},
             block_, columns, to, true);
  }

  const Shape found_;
  const Sides sides_;
  const int64_t channels_;
  const Parts& parts_;
  const float* const dresults_;
  float* const sum_;
  Scratch scratch_;
  const Surroundings surroundings_;
  const Rows block_;
};

Sides sides_of(const F32& kernel) {
  return {kernel.dimensions()[0], kernel.dimensions()[1]};
}

ffi::Error call_convolution(F32 x, F32 kernel, Out y, Options options) {
  const Sides sides = sides_of(kernel);
  const Shape shape(x), found(*y);
  Scratch weights(Kernel::floats(sides, shape.channels, found.channels));
  const Kernel own(kernel.typed_data(), sides, shape.channels, found.channels, false,
                   weights);
  convolve(x.typed_data(), shape, own, options, y->typed_data(), found);
  return ffi::Error::Success();
}

ffi::Error call_plane_gradient(F32 dy, F32 kernel, Out dx, Options options) {
  const Sides sides = sides_of(kernel);
  const Shape shape(dy), found(*dx);
  Scratch weights(Kernel::floats(sides, shape.channels, found.channels));
  const Kernel turned(kernel.typed_data(), sides, shape.channels, found.channels, true,
                      weights);
  const Options around{sides.height - 1 - options.top, sides.width - 1 - options.left,
                       options.threads};
  convolve(dy.typed_data(), shape, turned, around, dx->typed_data(), found);
  return ffi::Error::Success();
}

ffi::Error call_kernel_gradient(F32 x, F32 dy, Out dkernel, Options options) {
  const Sides sides = sides_of(*dkernel);
  const Shape shape(x), found(dy);
  const Parts parts(found);
  const int64_t count = shares(parts.count(), options.threads);
  Sums sums(dkernel->typed_data(), dkernel->element_count(), count);
  in_shares(parts.count(), count, [&](int64_t begin, int64_t end, int64_t share) {
    SharedGradient(x.typed_data(), shape, dy.typed_data(), found, sides, options, parts,
                   sums.of(share))
        .add(begin, end);
  });
  sums.add_up();
  return ffi::Error::Success();
}

}  // namespace
}  // namespace earthformer

XLA_FFI_REGISTER_STRUCT_ATTR_DECODING(earthformer::Options,
                                      ffi::StructMember<int64_t>("top"),
                                      ffi::StructMember<int64_t>("left"),
                                      ffi::StructMember<int64_t>("threads"));

#define HANDLER(name, function)  \
  XLA_FFI_DEFINE_HANDLER_SYMBOL( \
      name, function,            \
      ffi::Ffi::Bind().Arg<F32>().Arg<F32>().Ret<F32>().Attrs<Options>())
namespace earthformer {
HANDLER(convolution, call_convolution);
HANDLER(convolution_plane_gradient, call_plane_gradient);
HANDLER(convolution_kernel_gradient, call_kernel_gradient);
}  // namespace earthformer
