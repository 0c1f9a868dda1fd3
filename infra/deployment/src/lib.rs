//! Nothing but tests, in `tests/it`, of what Contrail is deployed with: `infra/docker`, `infra/compose`, `infra/k8s`, `infra/nats` and
//! `infra/postgres`.
//!
//! Those that need no more than a machine that tests the rest anyway hold the rules that no reader would notice the breach of: a container that
//! may do more than it needs, a probe that restarts what waits, an image of no certain version, two tables of rights. Those that render and
//! validate with others' tools begin with `interop_` and run when they are asked for:
//!
//! `cargo xtask test -- -p deployment --run-ignored only -E 'test(interop)'`
