//! `cargo xtask demo`: a stack of its own, a load of orders, a verdict.

use crate::{arguments, own_stack};

pub(crate) fn run(arguments: &arguments::Demo) -> anyhow::Result<()> {
    let load = e2e::demo::Options { orders: arguments.orders, rate: arguments.rate, json: arguments.json };
    own_stack::run("demo", |_| {}, move |stack| e2e::demo::run(stack, load).map(drop))
}
