//! `cargo xtask down`: the end of `up`.

use local_stack::stack;

use crate::arguments;

pub(crate) fn run(arguments: &arguments::Down) -> anyhow::Result<()> {
    let directory = local_stack::data_directory();
    let ended = stack::take_down(&directory)?;
    if ended.is_empty() {
        println!("nothing is running");
    }
    for (name, by_itself) in &ended {
        println!("{name} {}", if *by_itself { "stopped" } else { "did not stop in time and was killed" });
    }
    if arguments.purge {
        stack::remove_data(&directory)?;
        println!("its data is removed");
    }
    Ok(())
}
