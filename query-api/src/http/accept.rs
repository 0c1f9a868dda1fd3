//! Which form and media type the answer has (RFC 9110, section 12.5.1).

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

/// The two media types of an answer in one piece.
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

    /// Type and subtype.
    const fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::GraphqlResponse => ("application", "graphql-response+json"),
            Self::Json => ("application", "json"),
        }
    }
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In one piece, of this type.
    Whole(Media),
    /// `text/event-stream`: server-sent events.
    Events,
}

const EVENTS: (&str, &str) = ("text", "event-stream");

/// How much a media type is wanted: quality first, then how exactly it is named.
type Preference = (f32, u8);

/// The form that `Accept` prefers; `None` if it allows none. Callers that do not care get `application/json`; nobody gets events
/// who does not name them and want them more than either type of an answer in one piece.
pub(super) fn negotiate(headers: &HeaderMap) -> Option<Form> {
    if !headers.contains_key(ACCEPT) {
        return Some(Form::Whole(Media::Json));
    }
    let (media, quality) = preferred_media(headers);
    match preference(headers, EVENTS) {
        (of_events, EXACT) if of_events > quality => Some(Form::Events),
        _ => (quality > 0.0).then_some(Form::Whole(media)),
    }
}

/// The media type of an answer in one piece that `Accept` prefers, and the quality that it gives it.
fn preferred_media(headers: &HeaderMap) -> (Media, f32) {
    let graphql_response = preference(headers, Media::GraphqlResponse.name());
    let json = preference(headers, Media::Json.name());
    let (media, (quality, _)) = match graphql_response {
        // Named just as exactly as application/json: the newer type, which is what the specification recommends.
        (_, exactness) if graphql_response >= json && exactness == EXACT => (Media::GraphqlResponse, graphql_response),
        _ if graphql_response > json => (Media::GraphqlResponse, graphql_response),
        _ => (Media::Json, json),
    };
    (media, quality)
}

const EXACT: u8 = 3;

/// The range that names the media type most exactly decides, even if it excludes it.
fn preference(headers: &HeaderMap, (wanted_type, wanted_subtype): (&str, &str)) -> Preference {
    let ranges = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let mut preference = (0.0, 0);
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let Some((main_type, subtype)) = parts.next().and_then(|range| range.split_once('/')) else { continue };
        let exactness = match () {
            () if main_type == "*" && subtype == "*" => 1,
            () if !main_type.eq_ignore_ascii_case(wanted_type) => continue,
            () if subtype == "*" => 2,
            () if subtype.eq_ignore_ascii_case(wanted_subtype) => EXACT,
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

    fn form(value: &str) -> Option<Form> {
        negotiate(&HeaderMap::from_iter([(ACCEPT, value.parse().expect("a header value"))]))
    }

    fn accepting(value: &str) -> Option<Media> {
        form(value).map(|form| match form {
            Form::Whole(media) => media,
            Form::Events => panic!("{value}: events"),
        })
    }

    #[test]
    fn those_who_do_not_care_get_json() {
        assert_eq!(negotiate(&HeaderMap::new()), Some(Form::Whole(Media::Json)));
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
    fn those_who_want_events_more_than_anything_else_get_them() {
        for value in [
            "text/event-stream",
            "Text/Event-Stream; q=0.5",
            "text/event-stream, multipart/mixed",
            "text/event-stream, application/json;q=0.9, */*;q=0.1",
            "text/event-stream;q=0.2, */*;q=0",
        ] {
            assert_eq!(form(value), Some(Form::Events), "{value}");
        }
    }

    #[test]
    fn those_who_want_events_less_or_just_as_much_get_an_answer_in_one_piece() {
        let urql =
            "application/graphql-response+json, application/graphql+json, application/json, text/event-stream, multipart/mixed";
        assert_eq!(accepting(urql), Some(Media::GraphqlResponse));
        for value in [
            "application/json, text/event-stream;q=0",
            "text/event-stream, application/json",
            "application/json;q=0.5, text/event-stream;q=0.4",
            "text/event-stream;q=0, */*",
            "text/*, */*;q=0.5",
        ] {
            assert_eq!(accepting(value), Some(Media::Json), "{value}");
        }
    }

    #[test]
    fn what_cannot_be_served_is_refused() {
        for value in [
            "text/html",
            "text/*",
            "text/event-stream;q=0",
            "application/xml",
            "*/*;q=0",
            "application/json;charset=utf-16",
            "nonsense",
        ] {
            assert_eq!(accepting(value), None, "{value}");
        }
    }
}
