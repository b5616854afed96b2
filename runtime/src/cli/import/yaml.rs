//! YAML and JSON of strangers as trees of bounded size, with the line of every node.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::refusal::Refusal;

/// Deepest nesting: a CloudFormation template with metric math needs 14.
pub(super) const DEPTH_MAX: usize = 64;
/// Most nodes of a file, each alias counted with all that it stands for: what a listing of a large cluster has, and what is read within a second.
pub(super) const NODES_MAX: usize = 250_000;

/// One document of a file.
#[derive(Clone, Debug)]
pub(super) struct Document {
    /// Which one, counted from 1.
    pub(super) number: usize,
    pub(super) root: Node,
}

/// A value with its place. Copies share their contents, which is how an alias costs nothing.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Which line of the file, counted from 1.
    pub(super) line: usize,
    /// A tag other than those of YAML itself, such as `!Ref`, without its mark.
    pub(super) tag: Option<Rc<str>>,
    pub(super) value: Value,
    /// How many nodes it is, itself included.
    size: usize,
    /// How deep it is, itself included.
    height: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Scalar {
        text: Rc<str>,
        /// Without quotes: then it may be a number, a yes or no, or nothing.
        is_plain: bool,
    },
    List(Rc<[Node]>),
    Map(Rc<[Entry]>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: Rc<str>,
    pub(super) value: Node,
}

impl Node {
    fn new(line: usize, tag: Option<Rc<str>>, value: Value) -> Node {
        let (mut size, mut height) = (1, 1);
        let mut contain = |node: &Node| {
            size += node.size;
            height = height.max(node.height + 1);
        };
        match &value {
            Value::Scalar { .. } => {}
            Value::List(list) => list.iter().for_each(&mut contain),
            Value::Map(entries) => entries.iter().for_each(|entry| contain(&entry.value)),
        }
        Node { line, tag, value, size, height }
    }

    /// The same with other contents.
    pub(super) fn with(&self, value: Value) -> Node {
        Node::new(self.line, self.tag.clone(), value)
    }

    /// The same in another line.
    pub(super) fn in_line(&self, line: usize) -> Node {
        Node { line, ..self.clone() }
    }

    /// Whether it says nothing: `null`, `~`, or no text at all.
    pub(super) fn is_nothing(&self) -> bool {
        match &self.value {
            Value::Scalar { text, is_plain } => *is_plain && self.tag.is_none() && is_null(text),
            Value::List(_) | Value::Map(_) => false,
        }
    }

    /// What stands under a key, unless that says nothing.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => {
                entries.iter().find(|entry| *entry.key == *key).map(|entry| &entry.value).filter(|node| !node.is_nothing())
            }
            Value::Scalar { .. } | Value::List(_) => None,
        }
    }

    /// Its text, if it has any and no tag.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } if self.tag.is_none() && !self.is_nothing() => Some(text),
            Value::Scalar { .. } | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// Its elements, if it is a list.
    pub(super) fn list(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(list) => Some(list),
            Value::Scalar { .. } | Value::Map(_) => None,
        }
    }

    /// Its entries, if it is an object.
    pub(super) fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            Value::Scalar { .. } | Value::List(_) => None,
        }
    }

    /// What it is, for an error.
    pub(super) fn kind(&self) -> String {
        if let Some(tag) = &self.tag {
            return format!("{tag} …, which only its own tool knows");
        }
        match &self.value {
            Value::Scalar { .. } if self.is_nothing() => "nothing".to_owned(),
            Value::Scalar { text, .. } => format!("{:?}", text.chars().take(40).collect::<String>()),
            Value::List(list) => format!("a list of {}", list.len()),
            Value::Map(_) => "an object".to_owned(),
        }
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// Reads all documents of a text. Empty ones are counted and left out.
pub(super) fn read(text: &str) -> Result<Vec<Document>, Refusal> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // JSON may have tabs between its values, and YAML may not begin a line with one; in texts of JSON there are none.
    let json = text.trim_start().starts_with(['{', '[']).then(|| text.replace('\t', " "));
    let mut builder =
        Builder { parser: Parser::new_from_str(json.as_deref().unwrap_or(text)), count: 0, anchors: BTreeMap::new() };
    let (mut documents, mut number) = (Vec::new(), 0);
    loop {
        match builder.next()? {
            (Event::DocumentStart(_), _) => {
                number += 1;
                let (event, span) = builder.next().map_err(|refusal| refusal.in_document(number))?;
                let root = builder.node(event, span, 1).map_err(|refusal| refusal.in_document(number))?;
                if !root.is_nothing() {
                    documents.push(Document { number, root });
                }
                // Names of anchors are those of one document.
                builder.anchors.clear();
            }
            (Event::StreamEnd, _) => return Ok(documents),
            (
                Event::Nothing
                | Event::StreamStart
                | Event::DocumentEnd
                | Event::Alias(_)
                | Event::Scalar(..)
                | Event::SequenceStart(..)
                | Event::SequenceEnd
                | Event::MappingStart(..)
                | Event::MappingEnd,
                _,
            ) => {}
        }
    }
}

struct Builder<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    /// Nodes so far.
    count: usize,
    /// Nodes that aliases may stand for, by the number of their anchor.
    anchors: BTreeMap<usize, Node>,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Refusal> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                if error.info().contains("recursion limit") {
                    return Err(too_deep(error.marker().line()));
                }
                let hint = if error.info().contains("document start") { "; put `---` between documents" } else { "" };
                let (line, column) = (error.marker().line(), error.marker().col() + 1);
                Err(Refusal::at(line, format!("it is no YAML: {} in column {column}{hint}", error.info())))
            }
            None => Err(Refusal::at(0, "it is no YAML: it ends too early".to_owned())),
        }
    }

    fn counted(&mut self, nodes: usize, line: usize) -> Result<(), Refusal> {
        self.count = self.count.saturating_add(nodes);
        if self.count > NODES_MAX {
            let reason = format!("it has more than {NODES_MAX} values, each alias counted with all that it stands for; split it");
            return Err(Refusal::at(line, reason));
        }
        Ok(())
    }

    /// The node that begins with an event.
    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Refusal> {
        let line = span.start.line();
        if depth > DEPTH_MAX {
            return Err(too_deep(line));
        }
        let (anchor, node) = match event {
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(Refusal::at(line, "an alias stands inside of what it stands for".to_owned()));
                };
                let node = node.in_line(line);
                self.counted(node.size, line)?;
                if depth + node.height - 1 > DEPTH_MAX {
                    return Err(too_deep(line));
                }
                return Ok(node);
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.counted(1, line)?;
                let (tag, is_text) = tagged(tag.as_deref());
                let is_plain = style == ScalarStyle::Plain && !is_text;
                (anchor, Node::new(line, tag, Value::Scalar { text: text.into(), is_plain }))
            }
            Event::SequenceStart(anchor, tag) => {
                self.counted(1, line)?;
                let mut list = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => list.push(self.node(event, span, depth + 1)?),
                    }
                }
                (anchor, Node::new(line, tagged(tag.as_deref()).0, Value::List(list.into())))
            }
            Event::MappingStart(anchor, tag) => {
                self.counted(1, line)?;
                let entries = self.entries(depth)?;
                (anchor, Node::new(line, tagged(tag.as_deref()).0, Value::Map(entries.into())))
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => return Err(Refusal::at(line, "it is no YAML: a value is missing".to_owned())),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    /// The entries of an object up to its end, with those that `<<` merges into it.
    fn entries(&mut self, depth: usize) -> Result<Vec<Entry>, Refusal> {
        let (mut entries, mut keys, mut merged) = (Vec::new(), BTreeSet::new(), Vec::new());
        loop {
            let (event, span) = match self.next()? {
                (Event::MappingEnd, _) => break,
                next => next,
            };
            let key = self.node(event, span, depth + 1)?;
            let Value::Scalar { text, is_plain } = &key.value else {
                return Err(Refusal::at(key.line, format!("a key is {}, and should be a text", key.kind())));
            };
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            if *is_plain && **text == *"<<" {
                merged.push(value);
            } else if keys.insert(text.clone()) {
                entries.push(Entry { key: text.clone(), value });
            } else {
                return Err(Refusal::at(key.line, format!("the key {:?} is there twice in one object", &**text)));
            }
        }
        for merged in merged {
            let sources = merged.list().unwrap_or(std::slice::from_ref(&merged));
            for source in sources {
                let Some(more) = source.entries() else {
                    return Err(Refusal::at(source.line, format!("`<<` merges {}, and can merge only objects", source.kind())));
                };
                // What an object says itself counts, and then what is merged first.
                let new = more.iter().filter(|entry| keys.insert(entry.key.clone()));
                entries.extend(new.cloned());
            }
        }
        Ok(entries)
    }
}

fn too_deep(line: usize) -> Refusal {
    Refusal::at(line, format!("it is nested deeper than {DEPTH_MAX} levels"))
}

/// A tag of somebody's own, and whether YAML's own tag says that this is a text.
fn tagged(tag: Option<&Tag>) -> (Option<Rc<str>>, bool) {
    match tag {
        Some(tag) if tag.is_yaml_core_schema() => (None, tag.suffix == "str"),
        // A lone `!` says that it is no number.
        Some(tag) if tag.suffix.is_empty() => (None, true),
        Some(tag) => (Some(tag.suffix.as_str().into()), false),
        None => (None, false),
    }
}
