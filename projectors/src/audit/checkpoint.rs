//! A head of the audit tree, signed: C2SP's tlog-checkpoint in a signed note.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};

use super::{
    export::Filter,
    key::{ORIGIN, Signer, VerifierKey},
    merkle::{Frontier, Hash},
};

/// What begins a signature line of a note.
const SIGNATURE_PREFIX: &str = "\u{2014} ";
/// What begins the extension line that states a part, in whichever version.
const PARTS: &str = "contrail.part.";
/// And what follows on it in the version that is written here.
const PART_VERSION: &str = "v1 ";
/// How many lines every checkpoint has; those that follow are extensions.
const HEAD_LINES: usize = 3;

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

/// What a partial export has to be, which is signed with its checkpoint: nothing else would tell a line that was never exported
/// from one that was taken out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// How many lines it has.
    pub lines: u64,
    /// The root of the tree over the leaves of those lines, in their order and in base64.
    pub root: String,
    /// Which events were asked for.
    pub filter: Filter,
}

impl Part {
    /// The part whose lines have this tree.
    pub(super) fn of(tree: &Frontier, filter: Filter) -> Self {
        Self { lines: tree.size(), root: BASE64.encode(tree.root()), filter }
    }

    /// Whether the lines of this tree are exactly those of the part.
    pub(super) fn is_of(&self, tree: &Frontier) -> bool {
        self.lines == tree.size() && self.root == BASE64.encode(tree.root())
    }

    fn line(&self) -> String {
        let stated = serde_json::to_string(self).expect("a part has string keys, and its times four digits of a year");
        format!("{PARTS}{PART_VERSION}{stated}\n")
    }

    /// What the text of a checkpoint states; none if it states no part.
    fn in_text(text: &str) -> Result<Option<Self>, NoteError> {
        let mut stated = text.split('\n').skip(HEAD_LINES).filter_map(|line| line.strip_prefix(PARTS));
        match (stated.next(), stated.next()) {
            (None, _) => Ok(None),
            (Some(part), None) => {
                let part = part.strip_prefix(PART_VERSION).and_then(|part| serde_json::from_str(part).ok());
                part.map(Some).ok_or(NoteError::Part)
            }
            (Some(_), Some(_)) => Err(NoteError::Part),
        }
    }
}

/// Why a note is no checkpoint that was signed by the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It is not a signed note with a checkpoint in it.
    #[error("the checkpoint is not a signed note of a tree's size and root")]
    Malformed,
    /// It states a part in a way that is not known here.
    #[error("the checkpoint states what part of the trail was exported in a way that is not known here")]
    Part,
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
        sign(&self.text(), signer)
    }

    /// The signed note that lies beside a part, which it states in an extension line.
    pub fn sign_part(&self, part: &Part, signer: &Signer) -> String {
        sign(&(self.text() + &part.line()), signer)
    }

    /// Reads a note that `key` has signed. Signatures of other keys do not matter, as the signed-note specification has it, and
    /// neither do extension lines: the head is what it is, whatever lies beside it.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, NoteError> {
        opened(note, key).map(|(checkpoint, _)| checkpoint)
    }

    /// As [`open`](Self::open), and what part the export is that the note lies beside; none if it has to be whole.
    pub fn open_export(note: &str, key: &VerifierKey) -> Result<(Self, Option<Part>), NoteError> {
        let (checkpoint, text) = opened(note, key)?;
        Ok((checkpoint, Part::in_text(text)?))
    }

    /// What a note says, whoever has signed it.
    pub fn read(note: &str) -> Option<Self> {
        Self::parse(&note[..=note.rfind("\n\n")?])
    }

    fn parse(text: &str) -> Option<Self> {
        // Lines after the third are extensions.
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

fn sign(text: &str, signer: &Signer) -> String {
    let signature = BASE64.encode(signer.sign(text));
    format!("{text}\n{SIGNATURE_PREFIX}{} {signature}\n", signer.verifier_key().name())
}

/// The checkpoint of a note that `key` has signed, and the text that was signed.
fn opened<'n>(note: &'n str, key: &VerifierKey) -> Result<(Checkpoint, &'n str), NoteError> {
    let split = note.rfind("\n\n").ok_or(NoteError::Malformed)?;
    let (text, signatures) = (&note[..=split], &note[split + 2..]);
    let checkpoint = Checkpoint::parse(text).ok_or(NoteError::Malformed)?;
    verify(text, signatures, key)?;
    if checkpoint.origin != key.name() {
        return Err(NoteError::Origin);
    }
    Ok((checkpoint, text))
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

    fn part(filter: Filter) -> Part {
        Part { lines: 3, root: BASE64.encode([2; 32]), filter }
    }

    #[test]
    fn what_part_was_exported_is_signed_in_one_line_after_the_head() {
        let (checkpoint, signer, _) = signed(12);
        let part = part(Filter { actor: Some("a\nb".to_owned()), from_position: Some(2), ..Filter::default() });
        let note = checkpoint.sign_part(&part, &signer);
        let lines: Vec<_> = note.split('\n').collect();
        assert_eq!(lines[..3], ["contrail/EVENTS", "12", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="]);
        let stated =
            r#"{"lines":3,"root":"AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=","filter":{"from_position":2,"actor":"a\nb"}}"#;
        assert_eq!(lines[3], format!("contrail.part.v1 {stated}"));
        let key = signer.verifier_key();
        assert_eq!(Checkpoint::open_export(&note, &key), Ok((checkpoint.clone(), Some(part))));
        assert_eq!((Checkpoint::open(&note, &key), Checkpoint::read(&note)), (Ok(checkpoint.clone()), Some(checkpoint)));
        assert_eq!(Checkpoint::open_export(&note.replacen("3,", "2,", 1), &key), Err(NoteError::Signature));
        let without: String = note.split_inclusive('\n').filter(|line| !line.starts_with("contrail.part")).collect();
        assert_eq!(Checkpoint::open_export(&without, &key), Err(NoteError::Signature));
    }

    #[test]
    fn a_part_that_is_not_understood_is_not_taken_for_something_else() {
        let (checkpoint, signer, _) = signed(12);
        let key = signer.verifier_key();
        let line = part(Filter::default()).line();
        let later = line.replace("v1", "v2");
        let unknown_filter = line.replace(r#""filter":{}"#, r#""filter":{"amount":"1"}"#);
        for extensions in [line.repeat(2), later, unknown_filter, "contrail.part.v1\n".to_owned()] {
            let note = sign(&(checkpoint.text() + &extensions), &signer);
            assert_eq!(Checkpoint::open_export(&note, &key), Err(NoteError::Part), "{extensions}");
            assert_eq!(Checkpoint::open(&note, &key), Ok(checkpoint.clone()), "the head is understood");
        }
        let note = sign(&(checkpoint.text() + "another.extension 1\n"), &signer);
        assert_eq!(Checkpoint::open_export(&note, &key), Ok((checkpoint, None)));
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
