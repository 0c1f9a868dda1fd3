//! What a Parquet file's footer may say: readers skip rows, or take the columns for others, by much that the library does not
//! show.
//!
//! Source: the Apache Parquet format's Thrift definition, and Thrift's compact protocol.

use super::COLUMNS;

/// How deep values may lie within each other; those of a footer lie eight deep at most.
const DEPTH_MAX: u32 = 32;

/// Types of the compact protocol.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const INTEGERS: [u8; 3] = [4, 5, 6];
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LISTS: [u8; 2] = [9, 10];
const STRUCT: u8 = 12;

/// What in a footer is not as an export has it.
type Checked<T = ()> = Result<T, String>;

/// Checks that the footer says nothing of the rows beyond where they are, their number, and of the columns in `counted` their
/// least and greatest values. Whether those are true is for whoever reads the rows.
pub(super) fn check(footer: &[u8], counted: &[&str]) -> Checked {
    let mut input = Input { rest: footer, depth: 0 };
    // Version, schema, rows, groups, creator, orders of the columns.
    input.structure("file", &[1, 2, 3, 4, 6, 7], |input, field, kind| match field {
        4 => input.list(kind, |input, kind| group(input, kind, counted)),
        _ => input.skip(kind),
    })?;
    if input.rest.is_empty() { Ok(()) } else { Err("something follows on the footer".to_owned()) }
}

fn group(input: &mut Input<'_>, kind: u8, counted: &[&str]) -> Checked {
    is(kind, STRUCT)?;
    let mut names = COLUMNS.into_iter();
    // Columns, bytes, rows, sorting columns, offset, compressed bytes, number.
    input.structure("group of rows", &[1, 2, 3, 4, 5, 6, 7], |input, field, kind| match field {
        1 => input.list(kind, |input, kind| {
            is(kind, STRUCT)?;
            let name = names.next().ok_or("a group of rows has more columns than the schema")?;
            let is_counted = counted.contains(&name);
            // Offset and metadata: no other file, no indexes, no encryption.
            input.structure(name, &[2, 3], |input, field, kind| match field {
                3 => column(input, kind, name, is_counted),
                _ => input.skip(kind),
            })
        }),
        _ => input.skip(kind),
    })
}

fn column(input: &mut Input<'_>, kind: u8, name: &str, is_counted: bool) -> Checked {
    is(kind, STRUCT)?;
    // Type, encodings, path, codec, values, bytes, compressed bytes, offsets of the data and the dictionary, statistics, counts
    // of encodings: no notes, no bloom filter, no sizes.
    input.structure(name, &[1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 13], |input, field, kind| match field {
        3 => {
            let mut path = Vec::new();
            input.list(kind, |input, kind| {
                is(kind, BINARY)?;
                path.push(input.binary()?);
                Ok(())
            })?;
            if path == [name.as_bytes()] { Ok(()) } else { Err(format!("the column {name} has another name in a group of rows")) }
        }
        12 if !is_counted => Err(format!("it claims something of the values of {name}, as no export does")),
        12 => statistics(input, kind, name),
        _ => input.skip(kind),
    })
}

/// Of a column that has a value in each row.
fn statistics(input: &mut Input<'_>, kind: u8, name: &str) -> Checked {
    is(kind, STRUCT)?;
    let (mut greatest, mut least) = (Vec::new(), Vec::new());
    // Greatest, least, nulls, greatest, least, whether each is exact: the first two as older readers know them.
    input.structure(name, &[1, 2, 3, 5, 6, 7, 8], |input, field, kind| match field {
        1 | 5 => is(kind, BINARY).and_then(|()| input.binary()).map(|value| greatest.push(value)),
        2 | 6 => is(kind, BINARY).and_then(|()| input.binary()).map(|value| least.push(value)),
        3 if input.integer(kind)? != 0 => Err(format!("it claims that values of {name} are missing")),
        3 => Ok(()),
        _ => input.skip(kind),
    })?;
    let agree = |values: &[&[u8]]| values.windows(2).all(|pair| pair[0] == pair[1]);
    if agree(&greatest) && agree(&least) { Ok(()) } else { Err(format!("it claims two least or two greatest values of {name}")) }
}

fn is(kind: u8, expected: u8) -> Checked {
    if kind == expected { Ok(()) } else { Err(malformed()) }
}

fn malformed() -> String {
    "its footer cannot be read".to_owned()
}

/// What is left of a footer.
struct Input<'a> {
    rest: &'a [u8],
    depth: u32,
}

impl<'a> Input<'a> {
    fn byte(&mut self) -> Checked<u8> {
        let (byte, rest) = self.rest.split_first().ok_or_else(malformed)?;
        self.rest = rest;
        Ok(*byte)
    }

    fn varint(&mut self) -> Checked<u64> {
        let mut value = 0_u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(malformed())
    }

    fn integer(&mut self, kind: u8) -> Checked<i64> {
        if !INTEGERS.contains(&kind) {
            return Err(malformed());
        }
        let zigzag = self.varint()?;
        Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    fn binary(&mut self) -> Checked<&'a [u8]> {
        let length = usize::try_from(self.varint()?).map_err(|_| malformed())?;
        let (value, rest) = self.rest.split_at_checked(length).ok_or_else(malformed)?;
        self.rest = rest;
        Ok(value)
    }

    /// The fields of a struct, which have to be `allowed`, each once and in their order. `field` has to take its value.
    fn structure(&mut self, of: &str, allowed: &[i64], mut field: impl FnMut(&mut Self, i64, u8) -> Checked) -> Checked {
        self.each_field(|input, last, id, kind| {
            if id <= last {
                return Err(malformed());
            }
            if !allowed.contains(&id) {
                return Err(format!("its footer says something of {of} that no export says (field {id})"));
            }
            field(input, id, kind)
        })
    }

    fn each_field(&mut self, mut field: impl FnMut(&mut Self, i64, i64, u8) -> Checked) -> Checked {
        self.go_deeper()?;
        let mut last = 0;
        loop {
            let header = self.byte()?;
            if header == 0 {
                break;
            }
            let (delta, kind) = (header >> 4, header & 0x0f);
            let id = if delta == 0 { self.integer(INTEGERS[0])? } else { last + i64::from(delta) };
            field(self, last, id, kind)?;
            last = id;
        }
        self.depth -= 1;
        Ok(())
    }

    /// The elements of a list. `element` has to take each.
    fn list(&mut self, kind: u8, mut element: impl FnMut(&mut Self, u8) -> Checked) -> Checked {
        if !LISTS.contains(&kind) {
            return Err(malformed());
        }
        self.go_deeper()?;
        let header = self.byte()?;
        let (short, kind) = (header >> 4, header & 0x0f);
        let length = if short == 0x0f { self.varint()? } else { short.into() };
        for _ in 0..length {
            // Every element takes a byte, so that this ends with the footer.
            element(self, kind)?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn go_deeper(&mut self) -> Checked {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(malformed()) } else { Ok(()) }
    }

    /// Passes a value of a field.
    fn skip(&mut self, kind: u8) -> Checked {
        match kind {
            // The type is the value.
            TRUE | FALSE => Ok(()),
            BYTE => self.byte().map(drop),
            DOUBLE => (0..8).try_for_each(|_| self.byte().map(drop)),
            BINARY => self.binary().map(drop),
            STRUCT => self.each_field(|input, _, _, kind| input.skip(kind)),
            kind if INTEGERS.contains(&kind) => self.integer(kind).map(drop),
            kind if LISTS.contains(&kind) => self.list(kind, |input, kind| match kind {
                TRUE | FALSE => input.byte().map(drop),
                kind => input.skip(kind),
            }),
            _ => Err(malformed()),
        }
    }
}
