//! `cargo xtask catalogue`: brings `docs/events/` up to date with the types.

pub(crate) fn run() -> anyhow::Result<()> {
    println!("docs/events: {} files", ::catalogue::write()?);
    Ok(())
}
