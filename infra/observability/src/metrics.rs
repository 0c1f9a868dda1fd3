//! The list of metrics: one line for each metric of each service.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

/// What the list begins with.
const HEADING: &str = "\
# Every metric of every service, as the Prometheus text format names it: service, name, type, labels, help; separated by tabs.
# Written by a test; src/lib.rs says how.
";

/// One metric of one service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Metric {
    /// Whose.
    pub service: String,
    /// Its name in the text format; a counter's ends with `_total`, a histogram's is without `_bucket`.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// The names of its labels, without `le`.
    pub labels: BTreeSet<String>,
    /// What it says.
    pub help: String,
}

impl Metric {
    /// The names of its series.
    pub fn series(&self) -> Vec<String> {
        match self.kind.as_str() {
            "histogram" => ["_bucket", "_sum", "_count"].map(|suffix| format!("{}{suffix}", self.name)).to_vec(),
            _ => vec![self.name.clone()],
        }
    }
}

/// The metrics of a service, out of what it answers in the Prometheus text format.
///
/// # Errors
///
/// If that is not in the format, or a sample belongs to no metric that was announced.
pub fn read_exposition(service: &str, text: &str) -> Result<Vec<Metric>, String> {
    let mut metrics = Vec::<Metric>::new();
    let mut help = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, text) = rest.split_once(' ').ok_or_else(|| format!("no help: {line}"))?;
            help = Some((name, text.to_owned()));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or_else(|| format!("no type: {line}"))?;
            let help = help.take().filter(|(helped, _)| *helped == name).ok_or_else(|| format!("{name} has no help"))?.1;
            let (service, name, kind) = (service.to_owned(), name.to_owned(), kind.to_owned());
            metrics.push(Metric { service, name, kind, labels: BTreeSet::new(), help });
        } else if !line.is_empty() {
            let name_end = line.find(['{', ' ']).ok_or_else(|| format!("no sample: {line}"))?;
            let (name, rest) = line.split_at(name_end);
            let metric = metrics.last_mut().filter(|metric| metric.series().iter().any(|series| series == name));
            let metric = metric.ok_or_else(|| format!("{name} belongs to no metric before it"))?;
            metric.labels.extend(labels(rest)?);
            metric.labels.remove("le");
        }
    }
    Ok(metrics)
}

/// The names in `{a="x",b="y"} 1`.
fn labels(sample: &str) -> Result<Vec<String>, String> {
    let Some(mut rest) = sample.strip_prefix('{') else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    while !rest.starts_with('}') {
        let (name, value) = rest.split_once("=\"").ok_or_else(|| format!("no label: {sample}"))?;
        names.push(name.to_owned());
        let mut escaped = false;
        let end = value.find(|char| {
            let is_end = char == '"' && !escaped;
            escaped = char == '\\' && !escaped;
            is_end
        });
        rest = &value[end.ok_or_else(|| format!("a label without end: {sample}"))? + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    Ok(names)
}

/// The list, as it is committed.
pub fn write_list(metrics: &[Metric]) -> String {
    let mut sorted: Vec<_> = metrics.iter().collect();
    sorted.sort();
    let mut list = HEADING.to_owned();
    for Metric { service, name, kind, labels, help } in sorted {
        let labels = labels.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        writeln!(list, "{service}\t{name}\t{kind}\t{labels}\t{help}").expect("writing to a string never fails");
    }
    list
}

/// The metrics in such a list.
///
/// # Errors
///
/// If a line has not five fields.
pub fn read_list(list: &str) -> Result<Vec<Metric>, String> {
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let metrics = lines.map(|line| {
        let fields: Vec<_> = line.split('\t').collect();
        let [service, name, kind, labels, help] = fields[..] else { return Err(format!("five fields were expected: {line}")) };
        let labels = labels.split(',').filter(|label| !label.is_empty()).map(str::to_owned).collect();
        let [service, name, kind, help] = [service, name, kind, help].map(str::to_owned);
        Ok(Metric { service, name, kind, labels, help })
    });
    metrics.collect()
}

/// The labels that each series of the list has, whatever its service.
pub fn labels_by_series(metrics: &[Metric]) -> BTreeMap<String, BTreeSet<String>> {
    let mut series = BTreeMap::<String, BTreeSet<String>>::new();
    for metric in metrics {
        for name in metric.series() {
            let labels = series.entry(name.clone()).or_default();
            labels.extend(metric.labels.iter().cloned());
            labels.extend(name.ends_with("_bucket").then(|| "le".to_owned()));
        }
    }
    series
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPOSITION: &str = "\
# HELP requests_total Requests, by route.
# TYPE requests_total counter
requests_total{route=\"/a,b=\\\"c\\\"}\",status=\"200\"} 1
# HELP wait_seconds Waits.
# TYPE wait_seconds histogram
wait_seconds_sum 0.05
wait_seconds_count 1
wait_seconds_bucket{le=\"0.1\"} 1
wait_seconds_bucket{le=\"+Inf\"} 1
";

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let metrics = read_exposition("test", EXPOSITION).unwrap();
        let list = write_list(&metrics);
        let lines: Vec<_> = list.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines,
            ["test\trequests_total\tcounter\troute,status\tRequests, by route.", "test\twait_seconds\thistogram\t\tWaits."]
        );
        assert_eq!(read_list(&list).unwrap(), metrics);
        let series = labels_by_series(&metrics);
        assert_eq!(
            series.keys().collect::<Vec<_>>(),
            ["requests_total", "wait_seconds_bucket", "wait_seconds_count", "wait_seconds_sum"]
        );
        assert!(series["wait_seconds_bucket"].contains("le") && series["wait_seconds_sum"].is_empty());
    }

    #[test]
    fn what_is_not_in_the_format_is_refused() {
        for wrong in [
            "requests_total 1\n",
            "# TYPE a counter\n",
            "# HELP a A\n# TYPE b counter\n",
            "# HELP a A\n# TYPE a counter\na{b=\"} 1\n",
        ] {
            assert!(read_exposition("test", wrong).is_err(), "{wrong}");
        }
        assert!(read_list("a\tb\tc\n").is_err());
    }
}
