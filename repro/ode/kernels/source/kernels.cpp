// What the package calls: steps of each kind of field, in both precisions.

#include <new>

#include "convolution.hpp"
#include "perceptron.hpp"

// Whether there was no memory: an exception must not leave for a caller that is not C++.
template <class Act>
static int tried(Act act) noexcept {
  try {
    act();
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

extern "C" {
int vector_bytes() { return VECTOR_BYTES; }

#ifdef _OPENMP
constexpr int OPENMP = 1;
#else
constexpr int OPENMP = 0;
#endif
int with_openmp() { return OPENMP; }

// Call a function of those below for each part of the rows, in the threads that OpenMP has waiting; give what they give.
int on_parts(int (*function)(const void*, const void*, int64_t, int64_t, void*, void*, void*, void*, void*, void*, void*),
              int64_t parts, const void* const* problems, const void* step, const int64_t* bounds, void* const* p) {
  int failed = 0;
#pragma omp parallel for num_threads(parts) schedule(static, 1) reduction(| : failed)
  for (int64_t i = 0; i < parts; ++i)
    failed |= function(problems[i], step, bounds[i], bounds[i + 1], p[0], p[1], p[2], p[3], p[4], p[5], p[6]);
  return failed;
}

#define EXPORT(KIND, T, NAME)                                                                                       \
  int64_t KIND##_kept_##NAME(const KIND::Problem<T>* problem) { return KIND::kept_numbers(*problem); }              \
  int KIND##_forward_##NAME(const KIND::Problem<T>* problem, const Step<T>* step, int64_t begin, int64_t end,       \
                            const T* y, const T* f, T* y_end, T* f_end, T* y_mid, T* error, T* const* kept) {       \
    return tried(                                                                                                   \
        [=] { forward<KIND::Field<T>>(*problem, *step, begin, end, y, f, y_end, f_end, y_mid, error, kept); });     \
  }                                                                                                                 \
  int KIND##_backward_##NAME(const KIND::Problem<T>* problem, const Step<T>* step, int64_t begin, int64_t end,      \
                             const T* y, const T* g_end, const T* g_mid, const T* g_first, const T* g_last, T* gy,  \
                             T* const* kept) {                                                                      \
    return tried([=] {                                                                                              \
      backward<KIND::Field<T>>(*problem, *step, begin, end, y, g_end, g_mid, g_first, g_last, gy, kept);            \
    });                                                                                                             \
  }                                                                                                                 \
  int KIND##_adjoint_##NAME(const KIND::Problem<T>* problem, const Step<T>* step, int64_t begin, int64_t end,       \
                            const T* state, const T* f, T* s_end, T* s_last, T* s_mid, T* error, T* const*) {       \
    return tried(                                                                                                   \
        [=] { adjoint<KIND::Field<T>>(*problem, *step, begin, end, state, f, s_end, s_last, s_mid, error); });      \
  }
EXPORT(convolution, float, float32)
EXPORT(convolution, double, float64)
EXPORT(perceptron, float, float32)
EXPORT(perceptron, double, float64)
}
