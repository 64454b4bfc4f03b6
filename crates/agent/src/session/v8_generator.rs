//! V8's generator of random numbers (`base::RandomNumberGenerator`, src/base/utils/random-number-generator.h),
//! found in memory: every `Math.random` of a renderer's pages follows from one of these.

/// The seed and the two integers of state, which is xorshift128+ begun with the seed's MurmurHash3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generator {
    seed: u64,
    state: [u64; 2],
}

/// Numbers that may have been drawn of one that is found. A renderer without a page has drawn 1 or 8
/// (Chromium 156), one with a page some thousand.
const MOST_DRAWN: usize = 16;

impl Generator {
    /// Its size in memory.
    pub const INTEGERS: usize = 3;

    /// Of which nothing was drawn.
    pub fn of_seed(seed: u64) -> Self {
        let first = hashed(seed);
        Self { seed, state: [first, hashed(!first)] }
    }

    /// As it is in memory.
    pub fn integers(self) -> [u64; Self::INTEGERS] {
        [self.seed, self.state[0], self.state[1]]
    }

    /// At which of these integers there is one, and how many numbers were drawn of it.
    pub fn find(integers: &[u64]) -> impl Iterator<Item = (usize, usize)> {
        let places = integers.windows(Self::INTEGERS).enumerate();
        places.filter_map(|(place, integers)| {
            Some((place, Self::drawn_of(integers.try_into().ok()?)?))
        })
    }

    /// `None` of other integers: that these look like one has a probability of 2^-122.
    fn drawn_of(integers: [u64; Self::INTEGERS]) -> Option<usize> {
        if !integers.into_iter().all(looks_random) {
            return None;
        }
        let [seed, state @ ..] = integers;
        let mut one = Self::of_seed(seed);
        (0..=MOST_DRAWN).find(|_| {
            let is_it = one.state == state;
            one.draw();
            is_it
        })
    }

    fn draw(&mut self) {
        let [mut first, second] = self.state;
        first ^= first << 23;
        first ^= first >> 17;
        first ^= second;
        first ^= second >> 26;
        self.state = [second, first];
    }
}

/// Little of what is in memory does: zeros, small numbers and addresses do not. Of random integers one in 2^15
/// does not either.
fn looks_random(integer: u64) -> bool {
    !matches!(integer >> 48, 0 | 0xffff)
}

/// The end of MurmurHash3 (`MurmurHash3` of the same file).
fn hashed(mut integer: u64) -> u64 {
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53_u64] {
        integer ^= integer >> 33;
        integer = integer.wrapping_mul(factor);
    }
    integer ^ integer >> 33
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drawn(seed: u64, times: usize) -> Generator {
        let mut one = Generator::of_seed(seed);
        (0..times).for_each(|_| one.draw());
        one
    }

    /// As Chromium 156 had it in memory.
    #[test]
    fn one_of_a_real_renderer_is_found() {
        let integers = [0xe544_e3bd_1349_24ce, 0xc3db_8aac_62e8_e8f6, 0xb21b_3029_439f_1dbc];
        assert_eq!(Generator::find(&integers).collect::<Vec<_>>(), [(0, 8)]);
    }

    proptest! {
        #[test]
        fn each_is_found_where_it_is(
            before in prop::collection::vec(any::<u64>(), 0..20),
            seed in 1_u64 << 48..0xffff << 48,
            times in 0..=MOST_DRAWN,
        ) {
            let one = drawn(seed, times);
            prop_assume!(one.integers().into_iter().all(looks_random));
            let integers = [&before[..], &one.integers(), &[0, 1]].concat();
            prop_assert_eq!(Generator::find(&integers).collect::<Vec<_>>(), [(before.len(), times)]);
        }

        #[test]
        fn of_another_seed_is_none(seed: u64, other: u64, times in 0..=MOST_DRAWN) {
            prop_assume!(seed != other);
            let integers = Generator { seed: other, ..drawn(seed, times) }.integers();
            prop_assert_eq!(Generator::find(&integers).count(), 0);
        }

        #[test]
        fn much_drawn_is_none(seed: u64, times in MOST_DRAWN + 1..200) {
            prop_assert_eq!(Generator::find(&drawn(seed, times).integers()).count(), 0);
        }
    }
}
