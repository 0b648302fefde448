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
