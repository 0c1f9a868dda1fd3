//! How much of what was acknowledged survives what.

/// What an acknowledged append or a committed transaction survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Power loss: it is on disk.
    Disk,
    /// The death of the server, but not of the machine: it is in the kernel's page cache. For tests.
    PageCache,
}
