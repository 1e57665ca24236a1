//! Sixteen floats at a time, with the same bits on every instruction set.
//!
//! All kernels are written once over [`Simd16`]. Lanes never mix, every multiply-accumulate is fused and rounds once, and
//! nothing here sums across a block, so that the width of the machine's registers cannot show in a result.

use std::fmt;

/// Floats in a block. Channel counts are padded to a multiple of it.
pub(crate) const BLOCK: usize = 16;

/// `n` rounded up to whole blocks.
pub(crate) fn round_up_to_block(n: usize) -> usize {
    n.next_multiple_of(BLOCK)
}

/// A computation written over any [`Simd16`].
pub(crate) trait Kernel {
    /// Runs the computation. The method and all that it calls must be `#[inline(always)]`, to be compiled for the instruction
    /// set of `s`.
    fn run_with<S: Simd16>(self, s: S);
}

/// Arithmetic on blocks of sixteen floats.
pub(crate) trait Simd16: Copy + Send + Sync {
    /// Sixteen floats, in registers if the compiler can.
    type Block: Copy;
    /// Whether a block is one of 32 registers, so that kernels work on larger tiles.
    const WIDE: bool;
    /// Runs a kernel compiled for this instruction set.
    fn dispatch(self, kernel: impl Kernel);
    /// Sets all lanes to `x`.
    fn splat(self, x: f32) -> Self::Block;
    /// Reads a block.
    fn load(self, from: &[f32; BLOCK]) -> Self::Block;
    /// Writes a block.
    fn store(self, x: Self::Block, to: &mut [f32; BLOCK]);
    /// `a·b + c`, rounded once.
    fn fma(self, a: Self::Block, b: Self::Block, c: Self::Block) -> Self::Block;
    /// `a + b`
    fn add(self, a: Self::Block, b: Self::Block) -> Self::Block;
    /// `a − b`
    fn sub(self, a: Self::Block, b: Self::Block) -> Self::Block;
    /// `a·b`
    fn mul(self, a: Self::Block, b: Self::Block) -> Self::Block;
    /// `a / b`
    fn div(self, a: Self::Block, b: Self::Block) -> Self::Block;
    /// `√a`, correctly rounded as in IEEE 754.
    fn sqrt(self, a: Self::Block) -> Self::Block;
    /// `|a|`
    fn abs(self, a: Self::Block) -> Self::Block;
    /// `if y < 0 { 0 } else { y }`: NaN stays NaN, so that divergence is noticed.
    fn relu(self, y: Self::Block) -> Self::Block;
    /// `if y > 0 { g } else { 0 }`
    fn relu_backward(self, y: Self::Block, g: Self::Block) -> Self::Block;
    /// `if a > b { x } else { y }`
    fn select_greater(
        self,
        a: Self::Block,
        b: Self::Block,
        x: Self::Block,
        y: Self::Block,
    ) -> Self::Block;
}

/// The block of `data` that starts at `at`.
#[inline(always)]
pub(crate) fn block_at(data: &[f32], at: usize) -> &[f32; BLOCK] {
    data[at..at + BLOCK]
        .first_chunk()
        .expect("the slice has a block's length")
}

/// The block of `data` that starts at `at`, to be written.
#[inline(always)]
pub(crate) fn block_at_mut(data: &mut [f32], at: usize) -> &mut [f32; BLOCK] {
    data[at..at + BLOCK]
        .first_chunk_mut()
        .expect("the slice has a block's length")
}

/// The instruction set of the build. Correct everywhere, and slow if the target has no fused
/// multiply-add.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

/// Applies `f` lane by lane.
#[inline(always)]
fn map_lanes(f: impl Fn(usize) -> f32) -> [f32; BLOCK] {
    std::array::from_fn(f)
}

impl Simd16 for Portable {
    type Block = [f32; BLOCK];
    const WIDE: bool = false;

    fn dispatch(self, kernel: impl Kernel) {
        kernel.run_with(self);
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::Block {
        [x; BLOCK]
    }

    #[inline(always)]
    fn load(self, from: &[f32; BLOCK]) -> Self::Block {
        *from
    }

    #[inline(always)]
    fn store(self, x: Self::Block, to: &mut [f32; BLOCK]) {
        *to = x;
    }

    #[inline(always)]
    fn fma(self, a: Self::Block, b: Self::Block, c: Self::Block) -> Self::Block {
        map_lanes(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    fn add(self, a: Self::Block, b: Self::Block) -> Self::Block {
        map_lanes(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: Self::Block, b: Self::Block) -> Self::Block {
        map_lanes(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: Self::Block, b: Self::Block) -> Self::Block {
        map_lanes(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: Self::Block, b: Self::Block) -> Self::Block {
        map_lanes(|i| a[i] / b[i])
    }

    #[inline(always)]
    fn sqrt(self, a: Self::Block) -> Self::Block {
        map_lanes(|i| a[i].sqrt())
    }

    #[inline(always)]
    fn abs(self, a: Self::Block) -> Self::Block {
        map_lanes(|i| a[i].abs())
    }

    #[inline(always)]
    fn relu(self, y: Self::Block) -> Self::Block {
        map_lanes(|i| if y[i] < 0.0 { 0.0 } else { y[i] })
    }

    #[inline(always)]
    fn relu_backward(self, y: Self::Block, g: Self::Block) -> Self::Block {
        map_lanes(|i| if y[i] > 0.0 { g[i] } else { 0.0 })
    }

    #[inline(always)]
    fn select_greater(
        self,
        a: Self::Block,
        b: Self::Block,
        x: Self::Block,
        y: Self::Block,
    ) -> Self::Block {
        map_lanes(|i| if a[i] > b[i] { x[i] } else { y[i] })
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use pulp::x86::V4;
    use pulp::{Simd, f32x16};

    use super::{BLOCK, Kernel, Simd16};

    /// AVX-512: a block is one register.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Avx512(pub(crate) V4);

    struct Avx512Kernel<K>(Avx512, K);

    impl<K: Kernel> pulp::NullaryFnOnce for Avx512Kernel<K> {
        type Output = ();
        #[inline(always)]
        fn call(self) {
            self.1.run_with(self.0);
        }
    }

    impl Simd16 for Avx512 {
        type Block = f32x16;
        const WIDE: bool = true;

        fn dispatch(self, kernel: impl Kernel) {
            self.0.vectorize(Avx512Kernel(self, kernel));
        }

        #[inline(always)]
        fn splat(self, x: f32) -> Self::Block {
            self.0.splat_f32x16(x)
        }

        #[inline(always)]
        fn load(self, from: &[f32; BLOCK]) -> Self::Block {
            pulp::cast(*from)
        }

        #[inline(always)]
        fn store(self, x: Self::Block, to: &mut [f32; BLOCK]) {
            *to = pulp::cast(x);
        }

        #[inline(always)]
        fn fma(self, a: Self::Block, b: Self::Block, c: Self::Block) -> Self::Block {
            self.0.mul_add_f32x16(a, b, c)
        }

        #[inline(always)]
        fn add(self, a: Self::Block, b: Self::Block) -> Self::Block {
            self.0.add_f32s(a, b)
        }

        #[inline(always)]
        fn sub(self, a: Self::Block, b: Self::Block) -> Self::Block {
            self.0.sub_f32s(a, b)
        }

        #[inline(always)]
        fn mul(self, a: Self::Block, b: Self::Block) -> Self::Block {
            self.0.mul_f32s(a, b)
        }

        #[inline(always)]
        fn div(self, a: Self::Block, b: Self::Block) -> Self::Block {
            self.0.div_f32s(a, b)
        }

        #[inline(always)]
        fn sqrt(self, a: Self::Block) -> Self::Block {
            self.0.sqrt_f32x16(a)
        }

        #[inline(always)]
        fn abs(self, a: Self::Block) -> Self::Block {
            self.0.abs_f32s(a)
        }

        #[inline(always)]
        fn relu(self, y: Self::Block) -> Self::Block {
            let zero = self.splat(0.0);
            self.0.select_f32x16(self.0.cmp_lt_f32x16(y, zero), zero, y)
        }

        #[inline(always)]
        fn relu_backward(self, y: Self::Block, g: Self::Block) -> Self::Block {
            let zero = self.splat(0.0);
            self.0.select_f32x16(self.0.cmp_gt_f32x16(y, zero), g, zero)
        }

        #[inline(always)]
        fn select_greater(
            self,
            a: Self::Block,
            b: Self::Block,
            x: Self::Block,
            y: Self::Block,
        ) -> Self::Block {
            self.0.select_f32x16(self.0.cmp_gt_f32x16(a, b), x, y)
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use pulp::x86::V3;
    use pulp::{Simd, f32x8};

    use super::{BLOCK, Kernel, Simd16};

    /// AVX2 with FMA: a block is two registers.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct Avx2(pub(crate) V3);

    struct Avx2Kernel<K>(Avx2, K);

    impl<K: Kernel> pulp::NullaryFnOnce for Avx2Kernel<K> {
        type Output = ();
        #[inline(always)]
        fn call(self) {
            self.1.run_with(self.0);
        }
    }

    impl Simd16 for Avx2 {
        type Block = [f32x8; 2];
        const WIDE: bool = false;

        fn dispatch(self, kernel: impl Kernel) {
            self.0.vectorize(Avx2Kernel(self, kernel));
        }

        #[inline(always)]
        fn splat(self, x: f32) -> Self::Block {
            [self.0.splat_f32x8(x); 2]
        }

        #[inline(always)]
        fn load(self, from: &[f32; BLOCK]) -> Self::Block {
            pulp::cast(*from)
        }

        #[inline(always)]
        fn store(self, x: Self::Block, to: &mut [f32; BLOCK]) {
            *to = pulp::cast(x);
        }

        #[inline(always)]
        fn fma(self, a: Self::Block, b: Self::Block, c: Self::Block) -> Self::Block {
            [
                self.0.mul_add_f32x8(a[0], b[0], c[0]),
                self.0.mul_add_f32x8(a[1], b[1], c[1]),
            ]
        }

        #[inline(always)]
        fn add(self, a: Self::Block, b: Self::Block) -> Self::Block {
            [self.0.add_f32x8(a[0], b[0]), self.0.add_f32x8(a[1], b[1])]
        }

        #[inline(always)]
        fn sub(self, a: Self::Block, b: Self::Block) -> Self::Block {
            [self.0.sub_f32x8(a[0], b[0]), self.0.sub_f32x8(a[1], b[1])]
        }

        #[inline(always)]
        fn mul(self, a: Self::Block, b: Self::Block) -> Self::Block {
            [self.0.mul_f32x8(a[0], b[0]), self.0.mul_f32x8(a[1], b[1])]
        }

        #[inline(always)]
        fn div(self, a: Self::Block, b: Self::Block) -> Self::Block {
            [self.0.div_f32s(a[0], b[0]), self.0.div_f32s(a[1], b[1])]
        }

        #[inline(always)]
        fn sqrt(self, a: Self::Block) -> Self::Block {
            [self.0.sqrt_f32x8(a[0]), self.0.sqrt_f32x8(a[1])]
        }

        #[inline(always)]
        fn abs(self, a: Self::Block) -> Self::Block {
            [self.0.abs_f32s(a[0]), self.0.abs_f32s(a[1])]
        }

        #[inline(always)]
        fn relu(self, y: Self::Block) -> Self::Block {
            let zero = self.0.splat_f32x8(0.0);
            [
                self.0
                    .select_f32x8(self.0.cmp_lt_f32x8(y[0], zero), zero, y[0]),
                self.0
                    .select_f32x8(self.0.cmp_lt_f32x8(y[1], zero), zero, y[1]),
            ]
        }

        #[inline(always)]
        fn relu_backward(self, y: Self::Block, g: Self::Block) -> Self::Block {
            let zero = self.0.splat_f32x8(0.0);
            [
                self.0
                    .select_f32x8(self.0.cmp_gt_f32x8(y[0], zero), g[0], zero),
                self.0
                    .select_f32x8(self.0.cmp_gt_f32x8(y[1], zero), g[1], zero),
            ]
        }

        #[inline(always)]
        fn select_greater(
            self,
            a: Self::Block,
            b: Self::Block,
            x: Self::Block,
            y: Self::Block,
        ) -> Self::Block {
            [
                self.0
                    .select_f32x8(self.0.cmp_gt_f32x8(a[0], b[0]), x[0], y[0]),
                self.0
                    .select_f32x8(self.0.cmp_gt_f32x8(a[1], b[1]), x[1], y[1]),
            ]
        }
    }
}

/// An instruction set that kernels are compiled for. It decides speed, never a bit of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// 512-bit vectors: x86-64 servers from 2017 on.
    Avx512,
    /// 256-bit vectors with fused multiply-add: x86-64 from 2013 on.
    Avx2,
    /// Plain Rust, as the compiler translates it.
    Portable,
}

/// An unknown instruction set, or one that this machine does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IsaError(String);

impl Isa {
    /// All instruction sets, the fastest first.
    pub const ALL: [Self; 3] = [Self::Avx512, Self::Avx2, Self::Portable];

    /// The fastest instruction set that this machine has.
    pub fn detect_fastest() -> Self {
        Self::ALL
            .into_iter()
            .find(|isa| isa.is_available())
            .unwrap_or(Self::Portable)
    }

    /// The instruction set of this name; `auto` is the fastest.
    ///
    /// # Errors
    /// An unknown name, or one that this machine does not have.
    pub fn from_name(name: &str) -> Result<Self, IsaError> {
        if name == "auto" {
            return Ok(Self::detect_fastest());
        }

        let Some(isa) = Self::ALL.into_iter().find(|isa| isa.name() == name) else {
            return Err(IsaError(format!(
                "unknown instruction set '{name}'; known are auto, avx512, avx2, portable"
            )));
        };
        if !isa.is_available() {
            return Err(IsaError(format!(
                "this machine has no {name}; use auto or portable"
            )));
        }

        Ok(isa)
    }

    /// The name, as [`Self::from_name`] takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }

    /// Whether this machine has the instruction set.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => pulp::x86::V4::try_new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => pulp::x86::V3::try_new().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx2 => false,
            Self::Portable => true,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
