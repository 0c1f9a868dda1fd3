//! Texts that a caller hands back as they are: node ids and cursors. Base64 of `Kind:value`.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

/// Padding is written, for strict decoders, and not asked for.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One opaque text of a kind, which holds no colon, and a value.
pub(crate) fn encode(kind: &str, value: &str) -> String {
    BASE64.encode(format!("{kind}:{value}"))
}

/// The kind and the value; `None` for a text that [`encode`] never made.
pub(crate) fn decode(text: &str) -> Option<(String, String)> {
    let text = String::from_utf8(BASE64.decode(text).ok()?).ok()?;
    let (kind, value) = text.split_once(':')?;
    Some((kind.to_owned(), value.to_owned()))
}
