//! A head of the audit tree, signed: C2SP's tlog-checkpoint in a signed note.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use super::{
    key::{ORIGIN, Signer, VerifierKey},
    merkle::{Frontier, Hash},
};

/// What begins a signature line of a note.
const SIGNATURE_PREFIX: &str = "\u{2014} ";

/// The first `size` events of the log have this `root`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// How many events.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Hash,
}

/// Why a note is no checkpoint that was signed by the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It is not a signed note with a checkpoint in it.
    #[error("the checkpoint is not a signed note of a tree's size and root")]
    Malformed,
    /// It is another log's.
    #[error("the checkpoint is about another log than the key")]
    Origin,
    /// The key did not sign it.
    #[error("the checkpoint is not signed by the key")]
    Unsigned,
    /// It claims to be signed by the key and is not.
    #[error("the checkpoint's signature is wrong")]
    Signature,
}

impl Checkpoint {
    /// The head of our log's tree.
    pub fn of(tree: &Frontier) -> Self {
        Self { origin: ORIGIN.to_owned(), size: tree.size(), root: tree.root() }
    }

    /// As it is written in a note.
    pub fn root_in_base64(&self) -> String {
        BASE64.encode(self.root)
    }

    /// The note's text, which is what is signed.
    fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, self.root_in_base64())
    }

    /// The signed note. The same head and key always give the same note.
    pub fn sign(&self, signer: &Signer) -> String {
        let text = self.text();
        let signature = BASE64.encode(signer.sign(&text));
        format!("{text}\n{SIGNATURE_PREFIX}{} {signature}\n", signer.verifier_key().name())
    }

    /// Reads a note that `key` has signed. Signatures of other keys do not matter, as the signed-note specification has it.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, NoteError> {
        let split = note.rfind("\n\n").ok_or(NoteError::Malformed)?;
        let (text, signatures) = (&note[..=split], &note[split + 2..]);
        let checkpoint = Self::parse(text).ok_or(NoteError::Malformed)?;
        verify(text, signatures, key)?;
        if checkpoint.origin != key.name() {
            return Err(NoteError::Origin);
        }
        Ok(checkpoint)
    }

    /// What a note says, whoever has signed it.
    pub fn read(note: &str) -> Option<Self> {
        Self::parse(&note[..=note.rfind("\n\n")?])
    }

    fn parse(text: &str) -> Option<Self> {
        // Lines after the third are extensions, which are signed but mean nothing to us.
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let is_decimal = size.bytes().all(|byte| byte.is_ascii_digit()) && (size == "0" || !size.starts_with('0'));
        if origin.is_empty() || !is_decimal {
            return None;
        }
        let root = BASE64.decode(root).ok()?.try_into().ok()?;
        Some(Self { origin: origin.to_owned(), size: size.parse().ok()?, root })
    }
}

fn verify(text: &str, signatures: &str, key: &VerifierKey) -> Result<(), NoteError> {
    let lines = signatures.strip_suffix('\n').ok_or(NoteError::Malformed)?;
    let mut is_signed = false;
    for line in lines.split('\n') {
        let (name, signature) =
            line.strip_prefix(SIGNATURE_PREFIX).and_then(|line| line.split_once(' ')).ok_or(NoteError::Malformed)?;
        let signature = BASE64.decode(signature).map_err(|_| NoteError::Malformed)?;
        let (id, signature) = signature.split_first_chunk::<4>().ok_or(NoteError::Malformed)?;
        if name != key.name() || *id != key.id() {
            continue;
        }
        let signature = signature.try_into().map_err(|_| NoteError::Signature)?;
        if !key.verifies(text, signature) {
            return Err(NoteError::Signature);
        }
        is_signed = true;
    }
    if is_signed { Ok(()) } else { Err(NoteError::Unsigned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(size: u64) -> (Checkpoint, Signer, String) {
        let signer = Signer::from_seed(&[7; 32]);
        let checkpoint = Checkpoint { origin: ORIGIN.to_owned(), size, root: [1; 32] };
        let note = checkpoint.sign(&signer);
        (checkpoint, signer, note)
    }

    #[test]
    fn a_note_has_the_lines_that_the_specification_asks_for() {
        let (_, signer, note) = signed(12);
        let lines: Vec<_> = note.split('\n').collect();
        assert_eq!(lines[..4], ["contrail/EVENTS", "12", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", ""]);
        assert!(lines[4].starts_with("— contrail/EVENTS "));
        assert_eq!(lines[5..], [""]);
        assert!(signer.verifier_key().to_string().starts_with("contrail/EVENTS+"));
    }

    #[test]
    fn a_note_opens_with_the_key_that_signed_it_only() {
        let (checkpoint, signer, note) = signed(12);
        assert_eq!(Checkpoint::open(&note, &signer.verifier_key()), Ok(checkpoint));
        let other = Signer::from_seed(&[8; 32]);
        assert_eq!(Checkpoint::open(&note, &other.verifier_key()), Err(NoteError::Unsigned));
    }

    #[test]
    fn a_changed_note_does_not_open() {
        let (_, signer, note) = signed(12);
        let key = signer.verifier_key();
        assert_eq!(Checkpoint::open(&note.replacen("12", "11", 1), &key), Err(NoteError::Signature));
        for at in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            if let Ok(changed) = String::from_utf8(bytes) {
                assert!(Checkpoint::open(&changed, &key).is_err(), "byte {at}: {changed:?}");
            }
        }
        for end in 0..note.len() {
            if let Some(cut) = note.get(..end) {
                assert!(Checkpoint::open(cut, &key).is_err(), "cut at {end}");
            }
        }
    }

    #[test]
    fn a_witness_may_add_its_signature() {
        let (checkpoint, signer, note) = signed(12);
        let witnessed = format!("{note}— witness.example/w1 AAAAAAEC\n");
        assert_eq!(Checkpoint::open(&witnessed, &signer.verifier_key()), Ok(checkpoint));
    }

    /// The signed tree head of golang.org/x/mod/sumdb/note's documentation, signed by another implementation.
    #[test]
    fn the_signature_of_the_reference_implementation_verifies() {
        let key: VerifierKey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".parse().unwrap();
        let text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
        let signatures =
            "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        assert_eq!(verify(text, signatures, &key), Ok(()));
        assert_eq!(verify(&text.replace("answer", "problem"), signatures, &key), Err(NoteError::Signature));
    }
}
