use serde_json::{Value, json};

use crate::api::Api;

#[test]
fn the_committed_schema_is_the_one_that_is_served() {
    let committed = include_str!("../../schema.graphql");
    assert!(
        committed == query_api::schema::sdl(),
        "query-api/schema.graphql is out of date: cargo run -p query-api -- schema > query-api/schema.graphql"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_in_the_schema_is_described() {
    let api = Api::start().await;
    let query = "{ __schema { types { name description
        fields { name description args { name description } } inputFields { name description } enumValues { name description }
    } } }";
    let data = api.data(query, json!({})).await;
    let none = Vec::new();
    let items = |value: &Value| value.as_array().unwrap_or(&none).clone();
    let mut undescribed = Vec::new();
    let mut check = |path: String, item: &Value| {
        if item["description"].as_str().is_none_or(|text| text.trim().is_empty()) {
            undescribed.push(path);
        }
    };
    for named in items(&data["__schema"]["types"]) {
        let name = named["name"].as_str().expect("a name").to_owned();
        if name.starts_with("__") {
            continue;
        }
        check(name.clone(), &named);
        for members in ["fields", "inputFields", "enumValues"] {
            for member in items(&named[members]) {
                let path = format!("{name}.{}", member["name"].as_str().expect("a name"));
                check(path.clone(), &member);
                for argument in items(&member["args"]) {
                    check(format!("{path}({})", argument["name"].as_str().expect("a name")), &argument);
                }
            }
        }
    }
    assert_eq!(undescribed, Vec::<String>::new());
}
