// ../rule.py on vectors, in the same symbols.

#pragma once

#include <cmath>

#include "pack.h"
#include "vectors.h"

namespace {

// The scalars of a step in the precision of its arithmetic, Real.
template <typename Real>
struct Rule {
  using V = Vector<Real>;

  V sign, shrink, decay, beta1_complement, beta2, residual_weight, eps, step_size, root_scale, max_quotient;
  bool coupled, adaptive, bounded;
  bool stays;      // even where m is infinite
  bool remembers;  // an infinite s times 0 would be NaN

  explicit Rule(const Scalars& scalars)
      : sign(fill(Real(scalars.sign))),
        shrink(fill(Real(scalars.shrink))),
        decay(fill(Real(scalars.decay))),
        beta1_complement(fill(Real(scalars.beta1_complement))),
        beta2(fill(Real(scalars.beta2))),
        residual_weight(fill(Real(scalars.residual_weight))),
        eps(fill(Real(scalars.eps))),
        step_size(fill(-Real(scalars.step_size))),
        root_scale(fill(Real(scalars.root_scale))),
        max_quotient(fill(Real(scalars.max_quotient))),
        coupled(scalars.decay != 0),
        adaptive(scalars.root_scale >= 0),
        bounded(std::isfinite(scalars.max_quotient)),
        stays(scalars.step_size == 0),
        remembers(scalars.beta2 != 0) {}

  // The gradient that is used: to ascend or to descend, with weight decay if it is coupled.
  V use(V grad, V theta) const {
    const V g = grad * sign;
    return coupled ? multiply_add(decay, theta, g) : g;
  }

  // s_decayed: beta2 s.
  V find_variance(V residual, V s_decayed) const {
    return multiply_add(residual_weight * residual, residual, s_decayed) + eps;
  }

  // The weight after the step. s: the largest so far, with amsgrad.
  V move(V theta, V m, V s) const {
    const V denominator = adaptive ? multiply_add(find_root(s), root_scale, eps) : fill(Real(1));
    V quotient = m / denominator;
    if (bounded) {
      quotient = quotient > max_quotient ? max_quotient : quotient;  // a NaN stays one
      quotient = quotient < -max_quotient ? -max_quotient : quotient;
    }
    const V shrunk = theta * shrink;
    return stays ? shrunk : multiply_add(step_size, quotient, shrunk);
  }
};

}  // namespace
