//! Which media type the answer has (RFC 9110, section 12.5.1).

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

/// The two media types of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    /// `application/graphql-response+json`
    GraphqlResponse,
    /// `application/json`
    Json,
}

impl Media {
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::GraphqlResponse => "application/graphql-response+json; charset=utf-8",
            Self::Json => "application/json; charset=utf-8",
        }
    }

    const fn subtype(self) -> &'static str {
        match self {
            Self::GraphqlResponse => "graphql-response+json",
            Self::Json => "json",
        }
    }
}

/// How much a media type is wanted: quality first, then how exactly it is named.
type Preference = (f32, u8);

/// The media type that `Accept` prefers; `None` if it allows neither. Callers that do not care get `application/json`.
pub(super) fn negotiate(headers: &HeaderMap) -> Option<Media> {
    if !headers.contains_key(ACCEPT) {
        return Some(Media::Json);
    }
    let graphql_response = preference(headers, Media::GraphqlResponse);
    let json = preference(headers, Media::Json);
    let (media, (quality, _)) = match graphql_response {
        // Named just as exactly as application/json: the newer type, which is what the specification recommends.
        (_, exactness) if graphql_response >= json && exactness == EXACT => (Media::GraphqlResponse, graphql_response),
        _ if graphql_response > json => (Media::GraphqlResponse, graphql_response),
        _ => (Media::Json, json),
    };
    (quality > 0.0).then_some(media)
}

/// Whether `Accept` asks for server-sent events. Nobody gets them who does not name them.
pub(super) fn is_for_events(headers: &HeaderMap) -> bool {
    let ranges = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    ranges.filter_map(|range| range.split(';').next()).any(|range| range.trim().eq_ignore_ascii_case("text/event-stream"))
}

const EXACT: u8 = 3;

/// The range that names the media type most exactly decides, even if it excludes it.
fn preference(headers: &HeaderMap, media: Media) -> Preference {
    let ranges = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let mut preference = (0.0, 0);
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let Some((main_type, subtype)) = parts.next().and_then(|range| range.split_once('/')) else { continue };
        let exactness = match () {
            () if main_type == "*" && subtype == "*" => 1,
            () if !main_type.eq_ignore_ascii_case("application") => continue,
            () if subtype == "*" => 2,
            () if subtype.eq_ignore_ascii_case(media.subtype()) => EXACT,
            () => continue,
        };
        let mut quality = 1.0;
        let mut is_utf8 = true;
        for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
            if name.eq_ignore_ascii_case("q") {
                quality = value.parse().unwrap_or(0.0);
            } else if name.eq_ignore_ascii_case("charset") {
                is_utf8 = value.trim_matches('"').eq_ignore_ascii_case("utf-8");
            }
        }
        if is_utf8 && exactness > preference.1 {
            preference = (quality, exactness);
        }
    }
    preference
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepting(value: &str) -> Option<Media> {
        negotiate(&HeaderMap::from_iter([(ACCEPT, value.parse().expect("a header value"))]))
    }

    #[test]
    fn those_who_do_not_care_get_json() {
        assert_eq!(negotiate(&HeaderMap::new()), Some(Media::Json));
        for value in ["*/*", "application/*", "application/json", "application/json; charset=utf-8", "text/html, */*;q=0.8"] {
            assert_eq!(accepting(value), Some(Media::Json), "{value}");
        }
    }

    #[test]
    fn those_who_ask_for_the_newer_type_get_it() {
        for value in [
            "application/graphql-response+json",
            "application/graphql-response+json; charset=utf-8, application/json; charset=utf-8",
            "application/json, application/graphql-response+json",
            "application/graphql-response+json, */*",
            "application/json;q=0.9, application/graphql-response+json",
        ] {
            assert_eq!(accepting(value), Some(Media::GraphqlResponse), "{value}");
        }
    }

    #[test]
    fn quality_decides_and_the_most_exact_range_wins() {
        assert_eq!(accepting("application/graphql-response+json;q=0.5, application/json"), Some(Media::Json));
        assert_eq!(accepting("application/json;q=0, */*"), Some(Media::GraphqlResponse));
        assert_eq!(accepting("application/json, */*"), Some(Media::Json));
    }

    #[test]
    fn what_cannot_be_served_is_refused() {
        for value in ["text/html", "application/xml", "*/*;q=0", "application/json;charset=utf-16", "nonsense"] {
            assert_eq!(accepting(value), None, "{value}");
        }
    }
}
