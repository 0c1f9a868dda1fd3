use bench::Benchmark;
use serde_json::Value;

use crate::quick;

#[test]
fn the_result_is_one_line_of_json_with_a_row_for_each_case() {
    let report = quick(Benchmark::Append, &["page-cache-1", "page-cache-16", "conflicts-10pct"]);
    let json = report.to_json().unwrap();
    assert!(!json.contains('\n'));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["bench"], "append");
    let rows = json["rows"].as_array().unwrap();
    let named: Vec<_> = rows.iter().map(|row| (row["case"].as_str().unwrap(), row["unit"].as_str().unwrap())).collect();
    assert_eq!(named, [("page-cache-1", "ms"), ("page-cache-16", "events/s"), ("conflicts-10pct", "events/s")]);
    for row in rows {
        let figure = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name} is missing in {row}"));
        assert!(figure("value") > 0.0 && figure("limit") > 0.0, "{row}");
        assert!((figure("ratio") * figure("limit") / figure("value") - 1.0).abs() < 0.001, "{row}");
        assert!(figure("p50_ms") <= figure("p99_ms"), "{row}");
        assert!(row.get("rss_mb").is_none(), "{row}");
    }
}

#[test]
fn a_case_that_there_is_not_is_refused_with_those_that_there_are() {
    let error = Benchmark::Append.check_cases(&["fsync-2".to_owned()]).unwrap_err().to_string();
    assert!(error.contains("fsync-2") && error.contains("fsync-16"), "{error}");
}
