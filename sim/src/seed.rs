//! One seed, split by name, so that a new machine does not change another's dice.

/// The one number from which all chance of a world is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// The seed that belongs to `name`.
    pub fn split(self, name: &str) -> Self {
        // FNV-1a. The standard hasher may differ between releases, and a failing seed must stay failing.
        let hash =
            name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self(mix(self.0 ^ mix(hash)))
    }

    /// A die that always rolls the same row.
    pub fn dice(self) -> Dice {
        Dice(self.0)
    }
}

/// A row of chances: SplitMix64 (Steele, Lea, Flood 2014), ten lines that no upgrade of a crate changes.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// 64 bits of chance.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number from 0 up to, not including, 1.
    pub fn share(&mut self) -> f64 {
        (self.roll() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_gets_the_same_row_and_another_name_another() {
        let row = |name: &str| {
            let mut dice = Seed(7).split(name).dice();
            [dice.roll(), dice.roll(), dice.roll()]
        };
        assert_eq!(row("edge-1"), row("edge-1"));
        assert_ne!(row("edge-1"), row("edge-2"));
    }
}
