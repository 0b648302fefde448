//! What goes wrong, the load that goes on meanwhile, and what must be true of it all the same.
//!
//! [`Ground`] is three nodes on some kind of Redis, [`Fault`] what is done to them, [`World`] the
//! clients, and [`Row`] what one kind of fault did to them. [`Growth`] is what nodes must not keep
//! of a load that is over.

mod fault;
mod ground;
mod growth;
mod guest;
mod heal;
mod row;
mod run;
mod told;
mod world;

pub use fault::Fault;
pub use ground::Ground;
pub use growth::Growth;
pub use guest::Guest;
pub use row::{Row, table};
pub use run::measure;
pub use told::Told;
pub use world::World;

/// Raises a flag when it is dropped: also by a panic, for which threads would wait for ever.
struct Raised<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}
