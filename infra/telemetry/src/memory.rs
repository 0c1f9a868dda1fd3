//! How a service uses memory.

/// Lets this process have pages of ordinary size only.
///
/// The allocator asks for huge ones, and a huge page is there as a whole once a byte of it is used. After 250,000 orders half of what the
/// reactors had in memory was such filling: 640 MiB with huge pages, 335 MiB without.
///
/// To be called right after the logs are set up, before there is much in memory; does nothing where the system knows no such setting.
pub fn use_small_pages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_thp_disable(true) {
        tracing::warn!("huge pages stay on: {error}");
    }
}
