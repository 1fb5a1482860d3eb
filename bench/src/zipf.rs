//! Keys by a Zipf distribution, the hot ones scattered over the whole table.

/// The distribution over `0..n` (Gray et al., "Quickly generating billion-record synthetic databases").
#[derive(Debug)]
pub struct Zipf {
    n: u32,
    alpha: f64,
    zeta: f64,
    eta: f64,
    half: f64,
    stride: u64,
}

impl Zipf {
    /// Over `n` keys with exponent `theta` below 1.
    pub fn new(n: u32, theta: f64) -> Self {
        let zeta: f64 = (1..=n).map(|rank| f64::from(rank).powf(-theta)).sum();
        let half = 1.0 + 0.5f64.powf(theta);
        let eta = (1.0 - (2.0 / f64::from(n)).powf(1.0 - theta)) / (1.0 - half / zeta);
        let mut stride = u64::from(n) * 5 / 8 + 1;
        while gcd(stride, u64::from(n)) != 1 {
            stride += 1;
        }
        Self { n, alpha: 1.0 / (1.0 - theta), zeta, eta, half, stride }
    }

    /// The key for a uniform number in `0..1`.
    pub fn pick(&self, unit: f64) -> u32 {
        let rank = self.rank(unit);
        (u64::from(rank) * self.stride % u64::from(self.n)) as u32
    }

    fn rank(&self, unit: f64) -> u32 {
        let scaled = unit * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < self.half {
            return 1;
        }
        let rank = f64::from(self.n) * (self.eta * unit - self.eta + 1.0).powf(self.alpha);
        (rank as u32).min(self.n - 1)
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tpcc::random::Random;

    #[test]
    fn a_fifth_of_the_keys_gets_most_of_the_picks() {
        let (zipf, mut random) = (Zipf::new(1000, 0.99), Random::new(7));
        let mut counts = vec![0u32; 1000];
        for _ in 0..100_000 {
            counts[zipf.pick(random.unit()) as usize] += 1;
        }
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let hot: u32 = counts[..200].iter().sum();
        assert!((70_000..85_000).contains(&hot), "{hot}");
        assert!((11_000..16_000).contains(&counts[0]), "{}", counts[0]);
    }

    #[test]
    fn every_rank_has_its_own_key() {
        let zipf = Zipf::new(1000, 0.99);
        let mut keys: Vec<u64> = (0..1000).map(|rank| rank * zipf.stride % 1000).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 1000);
    }
}
