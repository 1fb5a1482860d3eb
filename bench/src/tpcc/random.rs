//! The specification's random choices (clauses 2.1.6, 4.3.2 and 5.2.4).

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// The constants C of NURand. Those for the last name differ between load and run by a distance that clause 2.1.6.1
/// allows: 65 to 119, but neither 96 nor 112.
pub const C_LAST_LOAD: u32 = 157;
const C_LAST_RUN: u32 = 223;
const C_CUSTOMER: u32 = 259;
const C_ITEM: u32 = 7911;

const SYLLABLES: [&str; 10] = ["BAR", "OUGHT", "ABLE", "PRI", "PRES", "ESE", "ANTI", "CALLY", "ATION", "EING"];
const ALPHANUMERIC: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Which C a last name is drawn with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// While the database is loaded.
    Load,
    /// While transactions run.
    Run,
}

/// A seeded source of choices; small and fast, for it runs inside of the measured time.
#[derive(Debug)]
pub struct Random(SmallRng);

impl Random {
    /// The same seed gives the same choices.
    pub fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// Uniform in `0..n`.
    pub fn below(&mut self, n: u32) -> u32 {
        self.0.random_range(0..n)
    }

    /// Uniform in `low..=high`.
    pub fn within(&mut self, low: u32, high: u32) -> u32 {
        self.0.random_range(low..=high)
    }

    /// Uniform in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        self.0.random()
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, chance: u32) -> bool {
        self.below(100) < chance
    }

    /// Clause 2.1.6: non-uniform in `low..=high`.
    fn nurand(&mut self, a: u32, c: u32, low: u32, high: u32) -> u32 {
        let mixed = self.within(0, a) | self.within(low, high);
        (mixed + c) % (high - low + 1) + low
    }

    /// A customer of `1..=customers`.
    pub fn customer(&mut self, customers: u32) -> u32 {
        self.nurand(1023, C_CUSTOMER, 1, customers)
    }

    /// An item of `1..=items`.
    pub fn item(&mut self, items: u32) -> u32 {
        self.nurand(8191, C_ITEM, 1, items)
    }

    /// A last name that some customer of the district bears.
    pub fn last_name(&mut self, phase: Phase, customers: u32) -> String {
        let c = if phase == Phase::Load { C_LAST_LOAD } else { C_LAST_RUN };
        last_name(self.nurand(255, c, 0, customers.min(1000) - 1))
    }

    /// Between `low` and `high` letters and digits.
    pub fn letters(&mut self, low: u32, high: u32) -> String {
        let length = self.within(low, high);
        (0..length).map(|_| char::from(ALPHANUMERIC[self.below(62) as usize])).collect()
    }

    /// Between `low` and `high` digits.
    pub fn digits(&mut self, low: u32, high: u32) -> String {
        let length = self.within(low, high);
        (0..length).map(|_| char::from(b'0' + self.below(10) as u8)).collect()
    }

    /// A zip code: four digits and 11111.
    pub fn zip(&mut self) -> String {
        self.digits(4, 4) + "11111"
    }

    /// Data of an item or of stock: 26 to 50 letters, one in ten with ORIGINAL somewhere in it.
    pub fn data(&mut self) -> String {
        let mut text = self.letters(26, 50);
        if self.percent(10) {
            let at = self.below(text.len() as u32 - 8) as usize;
            text.replace_range(at..at + 8, "ORIGINAL");
        }
        text
    }

    /// Shuffles.
    pub fn shuffle<T>(&mut self, cards: &mut [T]) {
        for last in (1..cards.len()).rev() {
            cards.swap(last, self.below(last as u32 + 1) as usize);
        }
    }
}

/// Clause 4.3.2.3: the name of a number below 1000.
pub fn last_name(number: u32) -> String {
    [number / 100 % 10, number / 10 % 10, number % 10].map(|digit| SYLLABLES[digit as usize]).concat()
}

/// A profile of the mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Enters an order.
    NewOrder,
    /// Takes a payment.
    Payment,
    /// Asks for a customer's last order.
    OrderStatus,
    /// Delivers the oldest order of every district.
    Delivery,
    /// Counts items that run low.
    StockLevel,
}

/// Clause 5.2.4.2: the mix as a deck of cards, dealt to its end and shuffled again, so that the shares are exact.
#[derive(Debug)]
pub struct Deck {
    cards: Vec<Profile>,
    next: usize,
}

impl Deck {
    /// 45 New-Order, 43 Payment, 4 each of the others.
    pub fn new(random: &mut Random) -> Self {
        let share = |profile, cards| std::iter::repeat_n(profile, cards);
        let cards = share(Profile::NewOrder, 45)
            .chain(share(Profile::Payment, 43))
            .chain(share(Profile::OrderStatus, 4))
            .chain(share(Profile::Delivery, 4))
            .chain(share(Profile::StockLevel, 4));
        let mut deck = Self { cards: cards.collect(), next: 0 };
        random.shuffle(&mut deck.cards);
        deck
    }

    /// The next card.
    pub fn deal(&mut self, random: &mut Random) -> Profile {
        if self.next == self.cards.len() {
            random.shuffle(&mut self.cards);
            self.next = 0;
        }
        self.next += 1;
        self.cards[self.next - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nurand_stays_in_range_reaches_both_ends_and_is_not_uniform() {
        let mut random = Random::new(1);
        let mut counts = vec![0u32; 3001];
        for _ in 0..300_000 {
            let customer = random.customer(3000);
            assert!((1..=3000).contains(&customer));
            assert!((1..=100_000).contains(&random.item(100_000)));
            counts[customer as usize] += 1;
        }
        let counts = &mut counts[1..];
        assert!(counts[0] > 0 && counts[2999] > 0);
        counts.sort_unstable();
        assert!(counts[2999] > 4 * counts[0].max(1), "{} and {}", counts[2999], counts[0]);
    }

    #[test]
    fn names_are_made_of_syllables() {
        assert_eq!(last_name(371), "PRICALLYOUGHT");
        assert_eq!(last_name(0), "BARBARBAR");
        assert_eq!(last_name(999), "EINGEINGEING");
    }

    #[test]
    fn the_constants_for_last_names_keep_the_required_distance() {
        let distance = C_LAST_LOAD.abs_diff(C_LAST_RUN);
        assert!((65..=119).contains(&distance) && distance != 96 && distance != 112);
    }

    #[test]
    fn every_hundred_cards_hold_the_exact_mix() {
        let mut random = Random::new(3);
        let mut deck = Deck::new(&mut random);
        for _ in 0..3 {
            let hand: Vec<Profile> = (0..100).map(|_| deck.deal(&mut random)).collect();
            let count = |profile| hand.iter().filter(|&&card| card == profile).count();
            assert_eq!((count(Profile::NewOrder), count(Profile::Payment)), (45, 43));
            assert_eq!([Profile::OrderStatus, Profile::Delivery, Profile::StockLevel].map(count), [4, 4, 4]);
        }
    }

    #[test]
    fn data_is_original_in_one_case_of_ten() {
        let mut random = Random::new(5);
        let original = (0..10_000).filter(|_| random.data().contains("ORIGINAL")).count();
        assert!((800..1200).contains(&original), "{original}");
    }
}
