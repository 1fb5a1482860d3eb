//! A driver like TPC-C's: its tables, its sizes, its five transactions in its mix, its consistency conditions. It is
//! not an audited TPC-C: terminals neither think nor type, and money is in integer cents, so that sums are exact.

mod check;
mod load;
mod new_order;
mod payment;
mod queries;
pub mod random;
mod schema;
mod statements;
mod terminal;

pub use check::check;
pub use load::load;
pub use terminal::{LABELS, Terminal};

/// Districts of a warehouse.
pub const DISTRICTS: u32 = 10;

/// What an item takes in the file, about.
const ITEM_BYTES: u64 = 80;

/// What an item's stock takes.
const STOCK_BYTES: u64 = 330;

/// What a customer takes, with his order and its lines.
const CUSTOMER_BYTES: u64 = 1500;

/// How much data there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Warehouses.
    pub warehouses: u32,
    /// Items, and stock rows per warehouse.
    pub items: u32,
    /// Customers of a district, and its orders at the start.
    pub customers: u32,
}

impl Scale {
    /// The specification's sizes for so many warehouses, divided by `divisor`.
    pub fn new(warehouses: u16, divisor: u16) -> Self {
        let divisor = u32::from(divisor.max(1));
        Self { warehouses: u32::from(warehouses), items: 100_000 / divisor, customers: 3000 / divisor }
    }

    /// About how large the loaded database is.
    pub fn bytes(self) -> u64 {
        let [warehouses, items, customers] = [self.warehouses, self.items, self.customers].map(u64::from);
        items * ITEM_BYTES + warehouses * (items * STOCK_BYTES + customers * u64::from(DISTRICTS) * CUSTOMER_BYTES)
    }

    /// The first order that is not delivered at the start: the last 30 % are not.
    pub fn first_new_order(self) -> u32 {
        self.customers - self.customers * 3 / 10 + 1
    }
}
