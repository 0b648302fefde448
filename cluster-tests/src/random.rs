//! Choices that can be repeated.

/// A small generator of random numbers (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Begins with `$SEED`, or with a new seed, and prints it.
    ///
    /// # Panics
    /// If `$SEED` is no number.
    pub fn seeded() -> Self {
        let seed = std::env::var("SEED").map_or_else(
            |_| {
                std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .map_or(0, |time| time.as_micros() as u64)
            },
            |seed| seed.parse().expect("SEED is a number"),
        );
        println!("SEED={seed}");
        Self(seed)
    }

    /// A generator of its own for a part of the test: what others choose does not change it.
    #[must_use]
    pub fn part(&mut self) -> Self {
        Self(self.number())
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// One of `0..count`.
    pub fn below(&mut self, count: usize) -> usize {
        (self.number() % count.max(1) as u64) as usize
    }

    /// One of these, each as often as its weight says.
    ///
    /// # Panics
    /// If there is none.
    pub fn weighted<T: Copy>(&mut self, choices: &[(usize, T)]) -> T {
        let mut at = self.below(choices.iter().map(|(weight, _)| weight).sum());
        for &(weight, choice) in choices {
            if at < weight {
                return choice;
            }
            at -= weight;
        }
        panic!("nothing to choose from")
    }
}
