//! `docs/commands.md`: every command, option and setting, as the programs themselves describe them.

use std::{
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use local_stack::workspace_root;

const PROGRAMS: [&str; 5] = ["command-api", "query-api", "projectors", "reactors", "payment-simulator"];
const PREFACE: &str = "# Commands and settings

What each program says when it is asked with `--help`. An option that has a setting can be given by that environment variable instead; if both are, the option counts. Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 not
found, 4 conflict, 5 data is not what it was, 75 try again later, 130 interrupted. `RUST_LOG` and `LOG_FILTER_FILE` say how much each of them logs.

Written by a test: `UPDATE_COMMANDS=1 cargo nextest run --workspace -E 'test(commands_are_those_of_the_document)'`.
";

/// The folder where the programs are that were built together with this test.
fn programs() -> PathBuf {
    env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned()
}

fn help(program: &Path, words: &[&str]) -> String {
    let output = Command::new(program).args(words).arg("-h").env_clear().output().unwrap();
    assert!(output.status.success(), "{} {}", program.display(), words.join(" "));
    String::from_utf8(output.stdout).unwrap()
}

/// The lines below a heading, each with what goes on in the lines that follow it.
fn section<'a>(help: &'a str, heading: &str) -> Vec<(&'a str, String)> {
    let mut items: Vec<(&str, String)> = Vec::new();
    let lines = help.lines().skip_while(|line| *line != heading).skip(1);
    for line in lines.take_while(|line| !line.is_empty()) {
        let begins = line.starts_with("  ") && !line.starts_with("       ");
        let text = line.trim();
        if begins {
            let (name, about) = text.split_once("  ").unwrap_or((text, ""));
            items.push((name, about.trim().to_owned()));
        } else {
            items.last_mut().unwrap().1.push_str(text);
        }
    }
    items
}

/// Takes `[name: value]` out of `about`.
fn taken(about: &mut String, name: &str) -> String {
    let Some(begin) = about.find(&format!("[{name}: ")) else { return String::new() };
    let end = begin + about[begin..].find(']').unwrap();
    let value = about[begin + name.len() + "[: ".len()..end].trim_end_matches('=').to_owned();
    about.replace_range(begin..=end, "");
    value
}

fn in_code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

fn write_command(page: &mut String, program: &str, words: &[&str]) {
    let help = help(&programs().join(program), words);
    let name = [&[program], words].concat().join(" ");
    let usage = help.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap();
    writeln!(page, "\n## {name}\n\n{}\n\n`{usage}`", help.lines().next().unwrap()).unwrap();
    let headings = help.lines().filter(|line| line.ends_with(':') && !line.starts_with(' ') && *line != "Commands:");
    let items = headings.flat_map(|heading| section(&help, heading));
    let items: Vec<_> = items.filter(|(option, _)| !["-h, --help", "-V, --version"].contains(option)).collect();
    if !items.is_empty() {
        page.push_str("\n| option | setting | default | |\n| --- | --- | --- | --- |\n");
    }
    for (option, mut about) in items {
        let (setting, default) = (taken(&mut about, "env"), taken(&mut about, "default"));
        let about = about.trim().replace('|', "\\|").replace('<', "&lt;");
        writeln!(page, "| {} | {} | {} | {about} |", in_code(option), in_code(&setting), in_code(&default)).unwrap();
    }
    for (subcommand, _) in section(&help, "Commands:").into_iter().filter(|(subcommand, _)| *subcommand != "help") {
        write_command(page, program, &[words, &[subcommand]].concat());
    }
}

#[test]
fn commands_are_those_of_the_document() {
    let mut page = PREFACE.to_owned();
    for program in PROGRAMS {
        write_command(&mut page, program, &[]);
    }
    let file = workspace_root().join("docs/commands.md");
    if env::var_os("UPDATE_COMMANDS").is_some() {
        fs::write(&file, &page).unwrap();
    }
    assert!(
        fs::read_to_string(&file).unwrap_or_default() == page,
        "docs/commands.md is not what the programs say; it tells how to write it anew"
    );
}
