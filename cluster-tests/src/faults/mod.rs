//! What goes wrong, the load that goes on meanwhile, and what must be true of it all the same.
//!
//! [`Testbed`] is three nodes on some kind of Redis, [`Fault`] what is done to them, [`Workload`] the
//! clients, and [`Report`] what one kind of fault did to them. [`LeakCheck`] is what nodes must not keep
//! of a load that is over.

mod delivery_check;
mod fault;
mod keyspace_check;
mod leak_check;
mod recovery;
mod report;
mod run;
mod testbed;
mod user;
mod workload;

pub use delivery_check::DeliveryCheck;
pub use fault::Fault;
pub use keyspace_check::Keyspace;
pub use leak_check::LeakCheck;
pub use report::{Report, table};
pub use run::measure;
pub use testbed::Testbed;
pub use user::User;
pub use workload::Workload;

/// Raises a flag when it is dropped: also by a panic, for which threads would wait for ever.
struct Raised<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}
