//! Bearer tokens for callers of a stack on this machine, and the key that signs them.
//!
//! In production somebody else issues tokens. Here it is a key in the stack's folder: whoever can read that can be anybody.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};

/// The roles that a caller can have.
pub const ROLES: [&str; 4] = ["customer", "service", "operator", "auditor"];
/// Each role, and who has it where nobody says otherwise.
pub const SUBJECTS: [(&str, &str); 4] =
    [("customer", "c-42"), ("service", "checkout"), ("operator", "back-office"), ("auditor", "audit")];
/// What the tokens name as their audience; the services' default.
pub const AUDIENCE: &str = "contrail";
/// What the tokens name as their issuer.
pub const ISSUER: &str = "contrail-local-stack";

/// Longest subject that services take, in characters.
pub const SUBJECT_CHARS_MAX: usize = 128;

/// The subject, if services take a token with it; else what it must be.
pub fn subject(text: &str) -> Result<String, String> {
    let is_good = (1..=SUBJECT_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_good { Ok(text.to_owned()) } else { Err(format!("must be 1 to {SUBJECT_CHARS_MAX} visible ASCII characters")) }
}

/// Signs tokens.
#[derive(Clone, Debug)]
pub struct TokenIssuer {
    key: SigningKey,
}

/// What a token says.
#[derive(Clone, Copy, Debug)]
pub struct Claims<'a> {
    /// One of [`ROLES`].
    pub role: &'a str,
    /// Who it is; a customer's id.
    pub subject: &'a str,
    /// Whom it is for.
    pub audience: &'a str,
    /// From now on; not at all when it is zero.
    pub lifetime: Duration,
}

impl TokenIssuer {
    /// One that nobody else has.
    pub fn generate() -> anyhow::Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| anyhow::anyhow!("get random numbers: {error}"))?;
        Ok(Self { key: SigningKey::from_bytes(&seed) })
    }

    /// The one in this file (PKCS#8 in PEM).
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let pem = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let Ok(key) = SigningKey::from_pkcs8_pem(pem.trim()) else {
            bail!("{} does not hold an Ed25519 key in PKCS#8 PEM", path.display());
        };
        Ok(Self { key })
    }

    /// The one in this file; a new one if there is no such file yet. Those who make it at the same time get the same one.
    pub fn open_or_generate(path: &Path) -> anyhow::Result<Self> {
        if path.exists() {
            return Self::open(path);
        }
        let issuer = Self::generate()?;
        // Without the public key the file is PKCS#8 version 1, the only one that OpenSSL reads.
        let key = KeypairBytes { secret_key: issuer.key.to_bytes(), public_key: None };
        let Ok(pem) = key.to_pkcs8_pem(LineEnding::LF) else { bail!("the new key cannot be encoded") };
        // There all at once or not at all: somebody else may do the same at this moment, and the first one counts.
        let folder = path.parent().unwrap_or(Path::new("."));
        let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
            file.write_all(pem.as_bytes())?;
            Ok(file)
        });
        match written.with_context(|| format!("write {}", path.display()))?.persist_noclobber(path) {
            Ok(_) => Ok(issuer),
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Self::open(path),
            Err(error) => Err(error.error).with_context(|| format!("write {}", path.display())),
        }
    }

    /// The public key, as services want it in `AUTH_JWKS`.
    pub fn key_set(&self) -> Value {
        let public = BASE64.encode(self.key.verifying_key().as_bytes());
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": self.key_id(), "alg": "EdDSA", "use": "sig", "x": public }] })
    }

    /// A token (RFC 7519) that says so.
    pub fn token(&self, claims: Claims<'_>) -> String {
        let issued_at = now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let header = json!({ "alg": "EdDSA", "typ": "JWT", "kid": self.key_id() });
        let payload = json!({
            "iss": ISSUER, "aud": claims.audience, "sub": claims.subject, "role": claims.role,
            "iat": issued_at, "exp": issued_at + claims.lifetime.as_secs(),
        });
        self.sign(&header, &payload)
    }

    /// A token of any content, for tests of what must be refused.
    pub fn sign(&self, header: &Value, payload: &Value) -> String {
        let part = |value: &Value| BASE64.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(payload));
        let signature = BASE64.encode(self.key.sign(signed.as_bytes()).to_bytes());
        format!("{signed}.{signature}")
    }

    /// The beginning of the public key: short, and another one for another key.
    pub fn key_id(&self) -> String {
        BASE64.encode(&self.key.verifying_key().as_bytes()[..9])
    }
}

#[expect(clippy::disallowed_methods, reason = "a token is issued now")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn those_who_come_at_the_same_time_get_the_same_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth-key.pem");
        let open = || TokenIssuer::open_or_generate(&path).unwrap().key_id();
        let ids: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn the_key_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth-key.pem");
        let first = TokenIssuer::open_or_generate(&path).unwrap();
        let again = TokenIssuer::open_or_generate(&path).unwrap();
        assert_eq!(first.key_set(), again.key_set());
        assert_ne!(first.key_set(), TokenIssuer::generate().unwrap().key_set());
        fs::write(&path, "nothing").unwrap();
        assert!(TokenIssuer::open(&path).unwrap_err().to_string().contains("PKCS#8"));
    }
}
