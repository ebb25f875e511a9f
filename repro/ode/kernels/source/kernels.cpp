// What the package calls: steps of each kind of field, in both precisions.

#include "convolution.hpp"
#include "perceptron.hpp"

extern "C" {
int vector_bytes() { return VECTOR_BYTES; }

#ifdef _OPENMP
constexpr int OPENMP = 1;
#else
constexpr int OPENMP = 0;
#endif
int with_openmp() { return OPENMP; }

// Call a function of those below for each part of the rows, in the threads that OpenMP has waiting.
void on_parts(void (*function)(const void*, const void*, int64_t, int64_t, void*, void*, void*, void*, void*, void*, void*),
              int64_t parts, const void* const* problems, const void* step, const int64_t* bounds, void* const* p) {
#pragma omp parallel for num_threads(parts) schedule(static, 1)
  for (int64_t i = 0; i < parts; ++i)
    function(problems[i], step, bounds[i], bounds[i + 1], p[0], p[1], p[2], p[3], p[4], p[5], p[6]);
}

#define EXPORT(KIND, T, NAME)                                                                                         \
  int64_t KIND##_kept_##NAME(const KIND::Problem<T>* problem) { return KIND::kept_numbers(*problem); }                \
  void KIND##_forward_##NAME(const KIND::Problem<T>* problem, const Step<T>* step, int64_t begin, int64_t end,        \
                             const T* y, const T* f, T* y_end, T* f_end, T* y_mid, T* error, T* const* kept) {        \
    forward<KIND::Field<T>>(*problem, *step, begin, end, y, f, y_end, f_end, y_mid, error, kept);                     \
  }                                                                                                                   \
  void KIND##_backward_##NAME(const KIND::Problem<T>* problem, const Step<T>* step, int64_t begin, int64_t end,       \
                              const T* y, const T* g_end, const T* g_mid, const T* g_first, const T* g_last, T* gy,   \
                              T* const* kept) {                                                                       \
    backward<KIND::Field<T>>(*problem, *step, begin, end, y, g_end, g_mid, g_first, g_last, gy, kept);                \
  }                                                                                                                   \
  void KIND##_adjoint_##NAME(const KIND::Problem<T>* problem, const Step<T>* step, int64_t begin, int64_t end,        \
                             const T* state, const T* f, T* s_end, T* s_last, T* s_mid, T* error, T* const*) {        \
    adjoint<KIND::Field<T>>(*problem, *step, begin, end, state, f, s_end, s_last, s_mid, error);                      \
  }
EXPORT(convolution, float, float32)
EXPORT(convolution, double, float64)
EXPORT(perceptron, float, float32)
EXPORT(perceptron, double, float64)
}
