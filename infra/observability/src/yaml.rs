//! The part of YAML that our files are written in, and nothing else: mappings and lists by indentation, texts that are plain, quoted or
//! blocks (`|`), comments on lines of their own, and the empty list `[]`. What is not of that is refused, so that nobody has to know how YAML
//! would read it. Every scalar is a text.

use serde_json::{Map, Value};

/// What the document says.
///
/// # Errors
///
/// If it is not of this part of YAML; the text names the line.
pub fn read(text: &str) -> Result<Value, String> {
    let lines: Vec<_> = text.lines().enumerate().map(|(index, line)| Line::of(index + 1, line)).collect::<Result<_, _>>()?;
    let mut lines = Lines { lines, next: 0 };
    let Some(first) = lines.peek() else { return Err("line 1: there is nothing".to_owned()) };
    let value = lines.node(first.indent)?;
    match lines.peek() {
        Some(line) => Err(line.wrong("nothing was expected here")),
        None => Ok(value),
    }
}

#[derive(Clone, Copy)]
struct Line<'t> {
    number: usize,
    indent: usize,
    /// Without what it is indented by.
    text: &'t str,
}

impl<'t> Line<'t> {
    fn of(number: usize, line: &'t str) -> Result<Self, String> {
        let text = line.trim_start_matches(' ');
        let line = Self { number, indent: line.len() - text.len(), text };
        if text.contains('\t') || text.ends_with(' ') {
            return Err(line.wrong("a tab, or a space at the end"));
        }
        Ok(line)
    }

    fn is_blank(&self) -> bool {
        self.text.is_empty() || self.text.starts_with('#')
    }

    fn wrong(&self, what: &str) -> String {
        format!("line {}: {what}: {}", self.number, self.text)
    }
}

struct Lines<'t> {
    lines: Vec<Line<'t>>,
    next: usize,
}

impl<'t> Lines<'t> {
    /// The next line that says something.
    fn peek(&mut self) -> Option<Line<'t>> {
        while self.lines.get(self.next).is_some_and(Line::is_blank) {
            self.next += 1;
        }
        self.lines.get(self.next).copied()
    }

    /// A list or a mapping whose lines are indented by `indent`.
    fn node(&mut self, indent: usize) -> Result<Value, String> {
        let is_list = self.peek().is_some_and(|line| line.text.starts_with("- "));
        if is_list { self.list(indent) } else { self.mapping(indent).map(Value::Object) }
    }

    fn list(&mut self, indent: usize) -> Result<Value, String> {
        let mut items = Vec::new();
        while let Some(line) = self.peek().filter(|line| line.indent >= indent) {
            let item = line.text.strip_prefix("- ").filter(|_| line.indent == indent);
            let item = item.ok_or_else(|| line.wrong("an item of the list was expected"))?;
            if key_of(item).is_some() {
                // A mapping that begins right after the dash.
                self.lines[self.next] = Line { indent: indent + 2, text: item, ..line };
                items.push(Value::Object(self.mapping(indent + 2)?));
            } else {
                self.next += 1;
                items.push(scalar(&line, item)?);
            }
        }
        Ok(Value::Array(items))
    }

    fn mapping(&mut self, indent: usize) -> Result<Map<String, Value>, String> {
        let mut fields = Map::new();
        while let Some(line) = self.peek().filter(|line| line.indent >= indent) {
            let field = key_of(line.text).filter(|_| line.indent == indent);
            let (key, rest) = field.ok_or_else(|| line.wrong("a field of the mapping was expected"))?;
            self.next += 1;
            let value = match rest {
                "" => {
                    let inner = self.peek().filter(|inner| inner.indent > indent);
                    let inner = inner.ok_or_else(|| line.wrong("a field without a value"))?;
                    self.node(inner.indent)?
                }
                "|" => Value::String(self.block(indent)),
                "[]" => Value::Array(Vec::new()),
                text => scalar(&line, text)?,
            };
            if fields.insert(key.to_owned(), value).is_some() {
                return Err(line.wrong("a field that is there twice"));
            }
        }
        Ok(fields)
    }

    /// Lines that are taken as they are.
    fn block(&mut self, indent: usize) -> String {
        let mut text = String::new();
        while let Some(line) = self.lines.get(self.next).filter(|line| line.text.is_empty() || line.indent > indent) {
            text.push_str(line.text);
            text.push('\n');
            self.next += 1;
        }
        text.trim_end().to_owned()
    }
}

/// The key and the value of `key: value`, or of `key:`.
fn key_of(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|char: char| !(char.is_ascii_alphanumeric() || matches!(char, '_' | '-')))?;
    let (key, rest) = text.split_at(end);
    let rest = rest.strip_prefix(':').filter(|_| !key.is_empty())?;
    if rest.is_empty() { Some((key, "")) } else { rest.strip_prefix(' ').map(|rest| (key, rest.trim_start())) }
}

fn scalar(line: &Line<'_>, text: &str) -> Result<Value, String> {
    if text.starts_with('"') {
        // Within double quotes JSON and YAML agree on what we use.
        return serde_json::from_str(text).map_err(|error| line.wrong(&error.to_string()));
    }
    if let Some(quoted) = text.strip_prefix('\'') {
        let inner = quoted.strip_suffix('\'').filter(|inner| !inner.contains('\''));
        return inner.map(Into::into).ok_or_else(|| line.wrong("one text within single quotes was expected"));
    }
    let begins_otherwise = text.starts_with(['[', ']', '{', '}', '&', '*', '!', '|', '>', '%', '@', '`', ',', '?']);
    if begins_otherwise || text.contains(": ") || text.contains(" #") || text.ends_with(':') {
        return Err(line.wrong("this text has to be quoted"));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn our_part_of_yaml_is_read() {
        let text = "\
# What this is.

groups:
  - name: a
    rules:
      - alert: \"B: \\\"c\\\"\"
        expr: |
          sum(x)
            > 1

        for: 5m
      - alert: 'd # e'
        none: []
  - name: f
    files:
      - g/*.yaml
      - \"h\"
";
        let expected = json!({"groups": [
            {"name": "a", "rules": [
                {"alert": "B: \"c\"", "expr": "sum(x)\n> 1", "for": "5m"},
                {"alert": "d # e", "none": []},
            ]},
            {"name": "f", "files": ["g/*.yaml", "h"]},
        ]});
        assert_eq!(read(text), Ok(expected));
    }

    #[test]
    fn everything_else_is_refused() {
        for wrong in [
            "",
            "a: b\n  c: d",
            "a:\nb: c",
            "a: b\na: c",
            "a: {b: c}",
            "a: [b]",
            "a: &b c",
            "a: *b",
            "a: >-\n  b",
            "a: b # c",
            "a: b: c",
            "a: \"b",
            "a: 'b' c'",
            "a:\tb",
            "a: b ",
            "a:\n  - b\n c: d",
            "a:\n  - b\n  c: d",
            "a: b\n- c",
            "- a\nb: c",
            "just a text",
        ] {
            assert!(read(wrong).is_err(), "{wrong:?} was read as {:?}", read(wrong));
        }
    }
}
