//! JSON lines with the fields of each object in the order of their names, as a tree of `serde_json` values prints them, without the tree.
//!
//! Every field is written where it comes; at the end of its object the fields are put in order by copying them once, or stay where they
//! are if they came in order. Both buffers are used again for the next line.

use std::cmp::Ordering;

use serde::Serialize;
use serde::ser::{self, Error as _, Serializer};
use serde_json::Error;

/// One line, used again and again.
#[derive(Debug, Default)]
pub struct Line {
    out: Vec<u8>,
    /// Fields of the objects that are not closed yet, those of the innermost last.
    fields: Vec<Field>,
    sorted: Vec<u8>,
}

/// Where a field stands in the output: `,"name":value`.
#[derive(Clone, Copy, Debug)]
struct Field {
    /// The first bytes of the name as a number, which tells most names apart without looking at them again.
    prefix: u64,
    begin: usize,
    name_end: usize,
    end: usize,
}

impl Field {
    fn new(out: &[u8], begin: usize, name_end: usize) -> Field {
        let mut prefix = [0; 8];
        // Behind the comma and the quote. A name is compared with its closing quote, which sorts before whatever a name is made of.
        let name = &out[begin + 2..name_end];
        let len = name.len().min(8);
        prefix[..len].copy_from_slice(&name[..len]);
        Field { prefix: u64::from_be_bytes(prefix), begin, name_end, end: out.len() }
    }

    fn order(&self, other: &Field, out: &[u8]) -> Ordering {
        let name = |field: &Field| &out[field.begin..field.name_end];
        self.prefix.cmp(&other.prefix).then_with(|| name(self).cmp(name(other)))
    }
}

impl Line {
    /// Writes a value as one line in place of the one before, its end included. Of two fields with one name the later counts.
    ///
    /// # Errors
    /// When the value itself refuses, or the name of a field is not a text.
    pub fn write(&mut self, value: &impl Serialize) -> Result<&[u8], Error> {
        self.out.clear();
        self.fields.clear();
        value.serialize(&mut *self)?;
        self.out.push(b'\n');
        Ok(&self.out)
    }

    /// Writes what is neither a list nor an object.
    fn plain(&mut self) -> serde_json::Serializer<&mut Vec<u8>> {
        serde_json::Serializer::new(&mut self.out)
    }

    /// Opens the object that stands for a variant with a value.
    fn variant(&mut self, name: &str) -> Result<(), Error> {
        self.out.push(b'{');
        self.plain().serialize_str(name)?;
        self.out.push(b':');
        Ok(())
    }

    fn list(&mut self, close: &'static [u8]) -> List<'_> {
        self.out.push(b'[');
        List { line: self, is_empty: true, close }
    }

    fn object(&mut self, close: &'static [u8]) -> Object<'_> {
        let (begin, first) = (self.out.len(), self.fields.len());
        Object { line: self, begin, first, name: (0, 0), close }
    }
}

/// A list that is being written.
#[derive(Debug)]
pub struct List<'a> {
    line: &'a mut Line,
    is_empty: bool,
    close: &'static [u8],
}

impl List<'_> {
    fn element(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        if !std::mem::take(&mut self.is_empty) {
            self.line.out.push(b',');
        }
        value.serialize(&mut *self.line)
    }

    fn close(self) {
        self.line.out.extend_from_slice(self.close);
    }
}

/// An object that is being written.
#[derive(Debug)]
pub struct Object<'a> {
    line: &'a mut Line,
    begin: usize,
    first: usize,
    /// Begin and end of the name whose value comes next.
    name: (usize, usize),
    close: &'static [u8],
}

impl Object<'_> {
    fn name(&mut self, name: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        let begin = self.line.out.len();
        self.line.out.push(b',');
        name.serialize(&mut *self.line)?;
        if self.line.out.get(begin + 1) != Some(&b'"') {
            return Err(Error::custom("the name of a field is not a text"));
        }
        self.name = (begin, self.line.out.len());
        self.line.out.push(b':');
        Ok(())
    }

    fn value(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        value.serialize(&mut *self.line)?;
        let (begin, name_end) = self.name;
        self.line.fields.push(Field::new(&self.line.out, begin, name_end));
        Ok(())
    }

    fn field(&mut self, name: &str, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        self.name(name)?;
        self.value(value)
    }

    /// Puts the fields in order.
    fn close(self) {
        let Line { out, fields, sorted } = self.line;
        let own = &mut fields[self.first..];
        if !own.is_sorted_by(|one, next| one.order(next, out) == Ordering::Less) {
            own.sort_by(|one, other| one.order(other, out));
            sorted.clear();
            for (index, field) in own.iter().enumerate() {
                if own.get(index + 1).is_none_or(|next| field.order(next, out) == Ordering::Less) {
                    sorted.extend_from_slice(&out[field.begin..field.end]);
                }
            }
            out.truncate(self.begin);
            out.extend_from_slice(sorted);
        }
        fields.truncate(self.first);
        // The first field's comma gives its place to the brace.
        match out.get_mut(self.begin) {
            Some(comma) => *comma = b'{',
            None => out.push(b'{'),
        }
        out.extend_from_slice(self.close);
    }
}

/// Appends a text with its quotes, as `serde_json` writes it.
pub(super) fn text(text: &str, out: &mut Vec<u8>) -> Result<(), Error> {
    if !is_plain(text.as_bytes()) {
        return serde_json::Serializer::new(out).serialize_str(text);
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
    Ok(())
}

/// Whether a text needs no escapes. Looks at whole pieces, which the compiler turns into vector instructions.
fn is_plain(text: &[u8]) -> bool {
    let is_odd = |byte: &u8| (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\');
    text.chunks(32).all(|piece| !piece.iter().fold(false, |odd, byte| odd | is_odd(byte)))
}

/// Scalars are written as `serde_json` writes them.
macro_rules! plain {
    ($($method:ident($type:ty)),* $(,)?) => { $(fn $method(self, value: $type) -> Result<(), Error> {
        self.plain().$method(value)
    })* };
}

impl<'a> Serializer for &'a mut Line {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = List<'a>;
    type SerializeTuple = List<'a>;
    type SerializeTupleStruct = List<'a>;
    type SerializeTupleVariant = List<'a>;
    type SerializeMap = Object<'a>;
    type SerializeStruct = Object<'a>;
    type SerializeStructVariant = Object<'a>;

    plain! {
        serialize_bool(bool), serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64), serialize_u8(u8),
        serialize_u16(u16), serialize_u32(u32), serialize_u64(u64), serialize_f32(f32), serialize_f64(f64), serialize_char(char),
        serialize_bytes(&[u8]), serialize_unit_struct(&'static str),
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        text(value, &mut self.out)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.plain().serialize_unit()
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.plain().serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn collect_str<T: std::fmt::Display + ?Sized>(self, value: &T) -> Result<(), Error> {
        self.plain().collect_str(value)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Result<(), Error> {
        self.serialize_str(name)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.variant(name)?;
        value.serialize(&mut *self)?;
        self.out.push(b'}');
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List<'a>, Error> {
        Ok(self.list(b"]"))
    }

    fn serialize_tuple(self, _: usize) -> Result<List<'a>, Error> {
        Ok(self.list(b"]"))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<List<'a>, Error> {
        Ok(self.list(b"]"))
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, name: &'static str, _: usize) -> Result<List<'a>, Error> {
        self.variant(name)?;
        Ok(self.list(b"]}"))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Object<'a>, Error> {
        Ok(self.object(b"}"))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Object<'a>, Error> {
        Ok(self.object(b"}"))
    }

    fn serialize_struct_variant(self, _: &'static str, _: u32, name: &'static str, _: usize) -> Result<Object<'a>, Error> {
        self.variant(name)?;
        Ok(self.object(b"}}"))
    }
}

/// The four kinds of list differ in name only.
macro_rules! list {
    ($($kind:ident::$method:ident),* $(,)?) => { $(impl ser::$kind for List<'_> {
        type Ok = ();
        type Error = Error;
        fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
            self.element(value)
        }
        fn end(self) -> Result<(), Error> {
            self.close();
            Ok(())
        }
    })* };
}

list!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
);

/// So do the two kinds of struct.
macro_rules! object {
    ($($kind:ident),*) => { $(impl ser::$kind for Object<'_> {
        type Ok = ();
        type Error = Error;
        fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
            self.field(name, value)
        }
        fn end(self) -> Result<(), Error> {
            self.close();
            Ok(())
        }
    })* };
}

object!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Object<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, name: &T) -> Result<(), Error> {
        self.name(name)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.value(value)
    }

    fn end(self) -> Result<(), Error> {
        self.close();
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Serialize)]
    enum Variant {
        Unit,
        Newtype(u8),
        Tuple(u8, Option<&'static str>),
        Struct { z: u8, a: Inner },
    }

    #[derive(Serialize)]
    struct Inner {
        task_type: bool,
        task: f64,
        empty: BTreeMap<String, u8>,
        none: [u8; 0],
    }

    #[derive(Serialize)]
    struct Outer {
        b: Vec<Variant>,
        #[serde(flatten)]
        inner: Inner,
        pair: ((), char),
        /// Written twice.
        task: i64,
    }

    fn outer() -> Outer {
        let inner = || Inner { task_type: true, task: 0.5, empty: BTreeMap::new(), none: [] };
        let b = vec![Variant::Unit, Variant::Newtype(1), Variant::Tuple(2, None), Variant::Struct { z: 3, a: inner() }];
        Outer { b, inner: inner(), pair: ((), '"'), task: -1 }
    }

    #[test]
    fn every_text_is_written_as_serde_json_writes_it() {
        let mut line = Line::default();
        for length in [0, 1, 31, 32, 33, 70] {
            for at in 0..=length {
                for odd in ["", "\"", "\\", "\n", "\u{1f}", " ", "\u{7f}", "é", "\u{2028}"] {
                    let text = ["x".repeat(at), odd.to_owned(), "y".repeat(length - at)].concat();
                    let expected = serde_json::to_string(&text).unwrap() + "\n";
                    assert_eq!(str::from_utf8(line.write(&text).unwrap()).unwrap(), expected);
                }
            }
        }
    }

    #[test]
    fn a_line_is_what_a_tree_of_values_prints() {
        let mut line = Line::default();
        for _ in 0..2 {
            let expected = serde_json::to_value(outer()).unwrap().to_string() + "\n";
            assert_eq!(str::from_utf8(line.write(&outer()).unwrap()).unwrap(), expected);
        }
        assert!(line.write(&BTreeMap::from([(1, 2)])).is_err(), "a number is no name here");
    }
}
