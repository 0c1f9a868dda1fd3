//! The Cargo graph states the architecture: what a package cannot link, it cannot do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::{Context as _, bail};

use crate::cargo;

/// A package must not reach any of `forbidden`, directly or through others. A name that ends in `*` stands for all names that start
/// so.
struct Rule {
    package: &'static str,
    forbidden: &'static [&'static str],
    reason: &'static str,
}

const SQL: &[&str] = &["sqlx*", "postgres-es", "tokio-postgres", "read-store"];

const RULES: [Rule; 6] = [
    Rule {
        package: "domain",
        forbidden: &["async-nats", "sqlx*", "reqwest", "hyper*", "axum*", "mio"],
        reason: "decisions are pure: no IO of any kind",
    },
    Rule {
        package: "catalogue",
        forbidden: &["async-nats", "event-store", "sqlx*", "reqwest", "hyper*", "axum*", "mio"],
        reason: "what the events are, the types say alone: whoever asks builds no service",
    },
    Rule {
        package: "query-api",
        forbidden: &["async-nats", "event-store"],
        reason: "queries are answered from the read models, and nothing that only reads can append",
    },
    Rule {
        package: "command-api",
        forbidden: SQL,
        reason: "a command decides on the log, never on a read model that may be behind",
    },
    Rule {
        package: "projectors",
        forbidden: &["reqwest", "lettre", "hyper-rustls", "hyper-tls"],
        reason: "what is replayed cannot charge a card or send a mail",
    },
    Rule { package: "reactors", forbidden: SQL, reason: "a reactor decides on the log, never on a read model that may be behind" },
];

/// Holds every rule against the normal dependencies that a package is built with on its own, with just the features that it asks for.
pub(super) fn check() -> anyhow::Result<()> {
    let mut broken = Vec::new();
    for rule in &RULES {
        let mut command = cargo::command();
        command.args(["tree", "--package", rule.package, "--edges", "normal", "--prefix", "depth", "--format", " {p}"]);
        let graph = Graph::from_tree(&cargo::read(&mut command)?)?;
        broken.extend(graph.path_to(rule.package, rule.forbidden).map(|path| rule.broken_by(&path)));
    }
    if !broken.is_empty() {
        bail!("{}", broken.join("\n"));
    }
    Ok(())
}

impl Rule {
    fn broken_by(&self, path: &[String]) -> String {
        format!(
            "{} must not depend on {} ({}), but it does: {}. Remove that dependency, or its feature that brings it in, or move the code \
             to where it belongs (DESIGN: layout)",
            self.package,
            path.last().map_or("itself", String::as_str),
            self.reason,
            path.join(" → ")
        )
    }
}

/// Which package depends on which, by name.
#[derive(Debug, Default)]
struct Graph {
    dependencies: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// From what `cargo tree --prefix depth --format " {p}"` prints: lines such as `2 mio v1.2.3 (*)`, a dependency one deeper than
    /// who needs it.
    fn from_tree(tree: &str) -> anyhow::Result<Self> {
        let mut graph = Self::default();
        let mut ancestors: Vec<&str> = Vec::new();
        for line in tree.lines().filter(|line| !line.is_empty()) {
            let (depth, package) = line.split_once(' ').with_context(|| format!("no depth in {line:?}"))?;
            let depth: usize = depth.parse().with_context(|| format!("no depth in {line:?}"))?;
            let name = package.split(' ').next().unwrap_or(package);
            ancestors.truncate(depth);
            if let Some(parent) = ancestors.last() {
                graph.dependencies.entry((*parent).to_owned()).or_default().insert(name.to_owned());
            }
            ancestors.push(name);
        }
        Ok(graph)
    }

    /// The shortest path from `package` to one of `forbidden`, both ends included.
    fn path_to(&self, package: &str, forbidden: &[&str]) -> Option<Vec<String>> {
        let mut seen = BTreeSet::from([package.to_owned()]);
        let mut paths = VecDeque::from([vec![package.to_owned()]]);
        while let Some(path) = paths.pop_front() {
            let last = path.last().expect("a path starts with the package");
            if path.len() > 1 && forbidden.iter().any(|pattern| matches(pattern, last)) {
                return Some(path);
            }
            for next in self.dependencies.get(last).into_iter().flatten() {
                if seen.insert(next.clone()) {
                    paths.push_back(path.iter().cloned().chain([next.clone()]).collect());
                }
            }
        }
        None
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "\
0 shop v0.1.0 (/somewhere/shop)
1 ledger v0.1.0 (/somewhere/ledger)
2 sqlx-core v0.8.6
3 tokio v1.0.0
4 mio v1.0.0
1 web v1.0.0
2 tokio v1.0.0 (*)
";

    fn path(forbidden: &[&str]) -> Option<String> {
        Graph::from_tree(TREE).unwrap().path_to("shop", forbidden).map(|path| path.join(" → "))
    }

    #[test]
    fn a_forbidden_package_is_found_by_the_shortest_path() {
        assert_eq!(path(&["mio"]).as_deref(), Some("shop → web → tokio → mio"));
        assert_eq!(path(&["sqlx*"]).as_deref(), Some("shop → ledger → sqlx-core"));
    }

    #[test]
    fn what_is_not_reached_is_no_reason_to_complain() {
        assert_eq!(path(&["async-nats", "sqlx", "shop"]), None);
    }

    #[test]
    fn only_what_a_package_depends_on_counts_not_who_depends_on_it() {
        let graph = Graph::from_tree(TREE).unwrap();
        assert_eq!(graph.path_to("web", &["ledger"]), None);
    }

    #[test]
    fn a_complaint_names_the_path_and_the_reason() {
        let rule = Rule { package: "shop", forbidden: &["mio"], reason: "shops are offline" };
        let complaint = rule.broken_by(&["shop".to_owned(), "mio".to_owned()]);
        assert!(complaint.starts_with("shop must not depend on mio (shops are offline), but it does: shop → mio."), "{complaint}");
    }
}
