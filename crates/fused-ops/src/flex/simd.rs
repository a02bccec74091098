//! Vectors of whatever width the processor has, chosen when the program runs, and the functions of one vector.
//!
//! Everything here is inlined into functions that pulp compiles once per instruction set; a closure around vector code
//! would be compiled without it.

use std::sync::OnceLock;

use pulp::{Arch, Simd, WithSimd};

use crate::extension::Activation;

/// The processor's instruction set.
pub(super) fn arch() -> Arch {
    static ARCH: OnceLock<Arch> = OnceLock::new();
    *ARCH.get_or_init(Arch::new)
}

struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

/// Numbers in a vector.
pub(super) fn lanes() -> usize {
    static LANES: OnceLock<usize> = OnceLock::new();
    *LANES.get_or_init(|| arch().dispatch(Lanes))
}

/// # Safety
///
/// `S::F32_LANES` numbers from `source` on are readable.
#[inline(always)]
pub(super) unsafe fn load<S: Simd>(_: S, source: *const f32) -> S::f32s {
    // SAFETY: the caller's promise; a vector of numbers has no invalid bits.
    unsafe { source.cast::<S::f32s>().read_unaligned() }
}

/// # Safety
///
/// `S::F32_LANES` numbers from `target` on are writable.
#[inline(always)]
pub(super) unsafe fn store<S: Simd>(_: S, target: *mut f32, value: S::f32s) {
    // SAFETY: the caller's promise.
    unsafe { target.cast::<S::f32s>().write_unaligned(value) }
}

/// `exp(x)` to 2 units in the last place; below -87.3 the smallest normal number, above 88.3 the largest it can give.
///
/// Cephes' reduction and polynomial.
#[inline(always)]
pub(super) fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // The operand that may be NaN comes second: x86's minimum and maximum give their second operand then.
    let x = simd.min_f32s(simd.splat_f32s(88.3), simd.max_f32s(simd.splat_f32s(-87.3), x));
    // Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
    let round = simd.splat_f32s(12_582_912.0);
    let biased = simd.mul_add_e_f32s(x, simd.splat_f32s(std::f32::consts::LOG2_E), round);
    let power = simd.sub_f32s(biased, round);
    let r = simd.mul_add_e_f32s(power, simd.splat_f32s(-0.693_359_4), x);
    let r = simd.mul_add_e_f32s(power, simd.splat_f32s(2.121_944_4e-4), r);
    let mut p = simd.splat_f32s(1.987_569_1e-4);
    p = simd.mul_add_e_f32s(p, r, simd.splat_f32s(1.398_2e-3));
    p = simd.mul_add_e_f32s(p, r, simd.splat_f32s(8.333_452e-3));
    p = simd.mul_add_e_f32s(p, r, simd.splat_f32s(4.166_579_6e-2));
    p = simd.mul_add_e_f32s(p, r, simd.splat_f32s(1.666_666_5e-1));
    p = simd.mul_add_e_f32s(p, r, simd.splat_f32s(0.5));
    let y = simd.add_f32s(simd.mul_add_e_f32s(p, simd.mul_f32s(r, r), r), simd.splat_f32s(1.0));
    // The integer, shifted into the exponent.
    let exponent = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(biased), simd.splat_u32s(23));
    simd.transmute_f32s_u32s(simd.add_u32s(simd.transmute_u32s_f32s(y), exponent))
}

/// `1 / (1 + exp(-x))`.
#[inline(always)]
fn sigmoid<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let one = simd.splat_f32s(1.0);
    simd.div_f32s(one, simd.add_f32s(one, exp(simd, simd.neg_f32s(x))))
}

/// The normal distribution: its integral to `x`, and its density times sqrt(2 pi).
///
/// Abramowitz and Stegun 7.1.26: absolute error of the integral below 1e-7.
#[inline(always)]
fn normal<S: Simd>(simd: S, x: S::f32s) -> (S::f32s, S::f32s) {
    let one = simd.splat_f32s(1.0);
    let z = simd.mul_f32s(simd.abs_f32s(x), simd.splat_f32s(std::f32::consts::FRAC_1_SQRT_2));
    let density = exp(simd, simd.neg_f32s(simd.mul_f32s(z, z)));
    let t = simd.div_f32s(one, simd.mul_add_e_f32s(z, simd.splat_f32s(0.327_591_1), one));
    let mut p = simd.splat_f32s(1.061_405_4);
    p = simd.mul_add_e_f32s(p, t, simd.splat_f32s(-1.453_152));
    p = simd.mul_add_e_f32s(p, t, simd.splat_f32s(1.421_413_8));
    p = simd.mul_add_e_f32s(p, t, simd.splat_f32s(-0.284_496_7));
    p = simd.mul_add_e_f32s(p, t, simd.splat_f32s(0.254_829_6));
    let tail = simd.mul_f32s(simd.mul_f32s(p, t), simd.mul_f32s(density, simd.splat_f32s(0.5)));
    let negative = simd.less_than_f32s(x, simd.splat_f32s(0.0));
    (simd.select_f32s(negative, tail, simd.sub_f32s(one, tail)), density)
}

/// The activation of one vector.
#[inline(always)]
pub(super) fn activate<S: Simd>(simd: S, x: S::f32s, activation: Activation) -> S::f32s {
    match activation {
        Activation::Identity => x,
        Activation::Relu => simd.max_f32s(simd.splat_f32s(0.0), x),
        Activation::QuickGelu => simd.mul_f32s(x, sigmoid(simd, simd.mul_f32s(x, simd.splat_f32s(1.702)))),
        Activation::Gelu => simd.mul_f32s(x, normal(simd, x).0),
        Activation::Silu => simd.mul_f32s(x, sigmoid(simd, x)),
    }
}

/// The slope of the activation at one vector.
#[inline(always)]
pub(super) fn slope<S: Simd>(simd: S, x: S::f32s, activation: Activation) -> S::f32s {
    let one = simd.splat_f32s(1.0);
    match activation {
        Activation::Identity => one,
        Activation::Relu => {
            let zero = simd.splat_f32s(0.0);
            simd.select_f32s(simd.greater_than_f32s(x, zero), one, zero)
        }
        Activation::QuickGelu => {
            let ax = simd.mul_f32s(x, simd.splat_f32s(1.702));
            let s = sigmoid(simd, ax);
            simd.mul_add_e_f32s(simd.mul_f32s(s, ax), simd.sub_f32s(one, s), s)
        }
        Activation::Gelu => {
            let (integral, density) = normal(simd, x);
            // 1 / sqrt(2 pi)
            simd.mul_add_e_f32s(simd.mul_f32s(x, density), simd.splat_f32s(0.398_942_3), integral)
        }
        Activation::Silu => {
            let s = sigmoid(simd, x);
            simd.mul_add_e_f32s(simd.mul_f32s(s, x), simd.sub_f32s(one, s), s)
        }
    }
}
