//! A command that a document shows works when it is copied.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::CommandFactory as _;

use crate::arguments::Arguments;

/// Folders without documents of ours.
const SKIPPED: [&str; 3] = ["target", ".git", ".contrail"];
const COMMAND: &str = "cargo xtask ";

/// Every `cargo xtask …` in a Markdown file names a subcommand, and options, that exist.
pub(super) fn check() -> anyhow::Result<()> {
    let root = local_stack::workspace_root();
    let mut wrong = Vec::new();
    for file in markdown_files(root)? {
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let shown = file.strip_prefix(root).unwrap_or(&file).display();
        wrong.extend(mistakes(&text, &Arguments::command()).into_iter().map(|mistake| format!("{shown}:{mistake}")));
    }
    if !wrong.is_empty() {
        bail!("correct these documents (`cargo xtask --help` lists what there is):\n  {}", wrong.join("\n  "));
    }
    Ok(())
}

/// Line numbers with what is wrong there.
fn mistakes(text: &str, command: &clap::Command) -> Vec<String> {
    let mut mistakes = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for rest in line.split(COMMAND).skip(1) {
            // Up to the end of the code: a backtick, a comment, another command. What follows ` -- ` is for somebody else.
            let end = rest.find(['`', '#', '|', ';', '&', '>']).unwrap_or(rest.len());
            let rest = rest[..end].split(" -- ").next().unwrap_or_default();
            if let Some(mistake) = mistake(rest, command) {
                mistakes.push(format!("{}: {mistake}", index + 1));
            }
        }
    }
    mistakes
}

fn mistake(rest: &str, command: &clap::Command) -> Option<String> {
    let mut words = rest.split_whitespace();
    let name = words.next().filter(|name| name.starts_with(|first: char| first.is_ascii_lowercase()))?;
    let Some(subcommand) = command.find_subcommand(name) else {
        return Some(format!("there is no `cargo xtask {name}`"));
    };
    let options = words.filter_map(|word| word.trim_matches(['[', ']', ',', '.']).strip_prefix("--"));
    for option in options.map(|option| option.split('=').next().unwrap_or(option)) {
        let exists = subcommand.get_arguments().any(|argument| argument.get_long() == Some(option));
        if !exists && option != "help" && !option.is_empty() {
            return Some(format!("`cargo xtask {name}` has no --{option}"));
        }
    }
    None
}

fn markdown_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry.with_context(|| format!("list {}", folder.display()))?;
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if !SKIPPED.iter().any(|skipped| entry.file_name() == *skipped) {
                found.extend(markdown_files(&path)?);
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes_in(text: &str) -> Vec<String> {
        mistakes(text, &Arguments::command())
    }

    #[test]
    fn commands_that_exist_are_fine() {
        let text = "Run `cargo xtask up --detach`, then `cargo xtask down`.\n\
                    cargo xtask demo [--orders N] [--rate R] [--json]  # 1,000 orders\n\
                    cargo xtask test -- -p domain --no-capture\n";
        assert_eq!(mistakes_in(text), Vec::<String>::new());
    }

    #[test]
    fn a_subcommand_or_an_option_that_does_not_exist_is_found() {
        let text = "first\n`cargo xtask launch`\n`cargo xtask up --daemon`\n";
        assert_eq!(mistakes_in(text), ["2: there is no `cargo xtask launch`", "3: `cargo xtask up` has no --daemon"]);
    }
}
