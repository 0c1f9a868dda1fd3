//! The Ed25519 keys that sign and verify the audit tree's heads.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    str::FromStr,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use ed25519_dalek::{
    Signature, Signer as _, SigningKey, VerifyingKey,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes, spki::der::pem::LineEnding},
};
use sha2::{Digest, Sha256};

/// The name of our key, and the origin of our checkpoints: the log that they are about.
pub const ORIGIN: &str = "contrail/EVENTS";

/// C2SP signed-note's number of plain Ed25519.
const ALGORITHM_ED25519: u8 = 0x01;
/// Who may read a private key: its owner.
const KEY_FILE_MODE: u32 = 0o600;

/// Signs checkpoints.
#[derive(Clone)]
pub struct Signer {
    key: SigningKey,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("verifier_key", &self.verifier_key().to_string()).finish_non_exhaustive()
    }
}

/// Why a file holds no key that can sign.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read.
    #[error("read the key file")]
    Read(#[source] io::Error),
    /// It is something else.
    #[error("the file does not hold an Ed25519 key in PKCS#8 PEM")]
    Format,
}

impl Signer {
    /// The signer of a private key's 32 bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self { key: SigningKey::from_bytes(seed) }
    }

    /// Reads `AUDIT_KEY_FILE`: PKCS#8 in PEM, as `projectors audit keygen` or `openssl genpkey -algorithm ed25519` write it.
    pub fn from_file(path: &Path) -> Result<Self, KeyFileError> {
        let pem = fs::read_to_string(path).map_err(KeyFileError::Read)?;
        let key = SigningKey::from_pkcs8_pem(pem.trim()).map_err(|_| KeyFileError::Format)?;
        Ok(Self { key })
    }

    /// Makes a new key and writes it to `path`, readable by its owner only. An existing file is refused with
    /// [`io::ErrorKind::AlreadyExists`]: what a lost key has signed cannot be signed again.
    pub fn generate(path: &Path) -> io::Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
        // Without the public key the file is PKCS#8 version 1, the only one that OpenSSL reads.
        let pem = KeypairBytes { secret_key: seed, public_key: None }
            .to_pkcs8_pem(LineEnding::LF)
            .expect("32 bytes always fit a PKCS#8 document");
        let mut file = OpenOptions::new().write(true).create_new(true).mode(KEY_FILE_MODE).open(path)?;
        file.write_all(pem.as_bytes())?;
        file.sync_all()?;
        Ok(Self::from_seed(&seed))
    }

    /// What others need to verify what this signs.
    pub fn verifier_key(&self) -> VerifierKey {
        VerifierKey { name: ORIGIN.to_owned(), key: self.key.verifying_key() }
    }

    /// The signature of `text` and the id of the key, as a signature line of a signed note holds them.
    pub(super) fn sign(&self, text: &str) -> Vec<u8> {
        let mut signature = self.verifier_key().id().to_vec();
        signature.extend(self.key.sign(text.as_bytes()).to_bytes());
        signature
    }
}

/// A C2SP signed-note verifier key: `name+id+base64(0x01 ‖ public key)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key: VerifyingKey,
}

impl VerifierKey {
    /// Whose key it is; on our checkpoints the same as their origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first four bytes of `SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key)`.
    pub(super) fn id(&self) -> [u8; 4] {
        let hash = Sha256::new_with_prefix(self.name.as_bytes())
            .chain_update([b'\n', ALGORITHM_ED25519])
            .chain_update(self.key.as_bytes())
            .finalize();
        [hash[0], hash[1], hash[2], hash[3]]
    }

    /// Whether `signature` is this key's of `text`.
    pub(super) fn verifies(&self, text: &str, signature: &[u8; 64]) -> bool {
        self.key.verify_strict(text.as_bytes(), &Signature::from_bytes(signature)).is_ok()
    }

    /// The key of `--key`: the key itself, or the path of a file that holds one.
    pub fn from_argument(argument: &str) -> Result<Self, VerifierKeyError> {
        let parsed = argument.trim().parse();
        if parsed.is_ok() {
            return parsed;
        }
        match fs::read_to_string(argument) {
            Ok(text) => text.trim().parse(),
            // More likely a mistyped key than a path.
            Err(_) if argument.contains('+') => parsed,
            Err(error) => Err(VerifierKeyError::File(error)),
        }
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ALGORITHM_ED25519];
        key.extend(self.key.as_bytes());
        let id = u32::from_be_bytes(self.id());
        write!(f, "{}+{id:08x}+{}", self.name, BASE64.encode(key))
    }
}

/// Why a text is no verifier key.
#[derive(Debug, thiserror::Error)]
pub enum VerifierKeyError {
    /// It has another shape.
    #[error("not a verifier key of the form name+id+key")]
    Shape,
    /// It is a key of an algorithm other than Ed25519, or not a point of the curve.
    #[error("not an Ed25519 verifier key")]
    Algorithm,
    /// Its parts do not belong together.
    #[error("the verifier key's id does not fit its name and key: it was copied wrongly")]
    Id,
    /// It is neither a key nor the path of a file that can be read.
    #[error("neither a verifier key nor a file that can be read")]
    File(#[source] io::Error),
}

impl FromStr for VerifierKey {
    type Err = VerifierKeyError;

    fn from_str(text: &str) -> Result<Self, VerifierKeyError> {
        // Base64 may hold a plus, a name may not.
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(VerifierKeyError::Shape);
        };
        if name.is_empty() || name.contains(char::is_whitespace) || id.len() != 8 {
            return Err(VerifierKeyError::Shape);
        }
        let id = u32::from_str_radix(id, 16).map_err(|_| VerifierKeyError::Shape)?;
        let key = BASE64.decode(key).map_err(|_| VerifierKeyError::Shape)?;
        let key = match key.split_first() {
            Some((&ALGORITHM_ED25519, key)) => key.try_into().map_err(|_| VerifierKeyError::Algorithm)?,
            _ => return Err(VerifierKeyError::Algorithm),
        };
        let key = VerifyingKey::from_bytes(key).map_err(|_| VerifierKeyError::Algorithm)?;
        let verifier_key = Self { name: name.to_owned(), key };
        if verifier_key.id() != id.to_be_bytes() {
            return Err(VerifierKeyError::Id);
        }
        Ok(verifier_key)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_generated_key_is_private_and_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.pem");
        let signer = Signer::generate(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, KEY_FILE_MODE);
        assert_eq!(Signer::from_file(&path).unwrap().verifier_key(), signer.verifier_key());
        assert_eq!(Signer::generate(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    /// RFC 8410, section 10.3: version 1, without the public key.
    #[test]
    fn a_key_of_openssl_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.pem");
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        fs::write(&path, pem).unwrap();
        let key = Signer::from_file(&path).unwrap().verifier_key().key;
        assert_eq!(BASE64.encode(key.as_bytes()), "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=");
    }

    /// The example key of the C2SP signed-note specification's reference implementation (golang.org/x/mod/sumdb/note).
    #[test]
    fn a_verifier_key_of_the_reference_implementation_is_read() {
        let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let key: VerifierKey = text.parse().unwrap();
        assert_eq!(key.to_string(), text);
        assert!(matches!(text.replace("c74f20a3", "c74f20a4").parse::<VerifierKey>(), Err(VerifierKeyError::Id)));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "a", "a+b", "a+00000000+", "a b+00000000+AQ==", "+00000000+AQ==", "a+zzzzzzzz+AQ=="] {
            assert!(text.parse::<VerifierKey>().is_err(), "{text:?}");
        }
    }
}
