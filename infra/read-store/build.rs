//! Tells cargo that the migrations, which `sqlx::migrate!` embeds, are part of this crate's source.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
