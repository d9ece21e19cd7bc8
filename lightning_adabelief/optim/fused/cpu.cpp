// The rule of ../rule.py in one pass over memory, for the CPU.
//
// Compiled by build.py with whatever C++ compiler the machine has, once for each kind of tensors, and called by cpu.py
// through ctypes: no header of PyTorch's, and of OpenMP only what needs no runtime. Threads come from the OpenMP
// runtime that torch itself uses, whose entry point GOMP_parallel is handed in, so that there is never a
// second one.
//
// The kind is defined by the compiler's options: PARAM, GRAD and AVERAGE, the dtypes of weights, gradients and averages
// (uint8_t if they are packed), and KEPT, the bits of the weights' corrections.

#include <cstdint>
#include <type_traits>

#include "pack.h"
#include "packed_step.h"
#include "plain_step.h"

extern "C" {

// Take one step on a pack, of which a thread updates `chunk` elements at a time.
void take_step(const Pack* pack, const Scalars* scalars, Parallel parallel, unsigned threads, int64_t chunk) {
  constexpr bool is_packed = std::is_same_v<AVERAGE, uint8_t>;
  using Step = std::conditional_t<is_packed, PackedStep<PARAM, GRAD, KEPT>, PlainStep<PARAM, GRAD, AVERAGE, KEPT>>;
  if (is_packed) chunk /= PACKED_BLOCK;
  Step step{*pack, *scalars, PieceSums(*pack, chunk)};
  deal(step, *pack, parallel, threads, chunk);
  step.sums.add_up();
}

// Add 1 to each step count and tell what it is now.
void advance(int64_t n, float* const* steps, float* now) {
  for (int64_t i = 0; i < n; ++i) now[i] = *steps[i] += 1;
}

}  // extern "C"
