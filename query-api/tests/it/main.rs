//! The query API over a real Postgres with the real schema of the read models.

mod api;
mod rows;

mod as_of;
mod audit;
mod filters;
mod nodes;
mod operations;
mod orders;
mod paging;
mod stock;

mod callers;
mod errors;
mod limits;
mod live;
mod min_position;
mod projections;
mod socket;
mod sorting;

mod http;
mod page;
mod process;
mod schema;
