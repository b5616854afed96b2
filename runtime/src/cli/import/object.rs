//! Objects of Kubernetes in documents, one by one.

use super::fields::Fields;
use super::plan::Note;
use super::refusal::Refusal;
use super::yaml::{Document, Node};

/// What every object has and nothing here depends on.
const COMMON: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];

/// An object.
#[derive(Debug)]
pub(super) struct Object<'a> {
    /// Which document it is in, counted from 1.
    pub(super) document: usize,
    pub(super) kind: &'a str,
    pub(super) name: &'a str,
    pub(super) namespace: String,
    pub(super) fields: Fields<'a>,
    /// Annotations, by name.
    annotations: Option<Fields<'a>>,
}

impl<'a> Object<'a> {
    fn read(node: &'a Node, document: usize) -> Result<Object<'a>, Refusal> {
        let fields = Fields::of(node, "", false)?;
        let kind = fields.need("kind", fields.text("kind")?)?;
        let metadata = fields.object("metadata")?;
        let text = |key| metadata.as_ref().map_or(Ok(None), |metadata: &Fields<'a>| metadata.text(key));
        // An object that gets its name from the server has only the beginning of one.
        let name = text("name")?.or(text("generateName")?).unwrap_or("without-a-name");
        let namespace = text("namespace")?.unwrap_or_default().to_owned();
        let annotations = metadata.as_ref().map_or(Ok(None), |metadata| metadata.object("annotations"))?;
        Ok(Object { document, kind, name, namespace, fields, annotations })
    }

    /// What a person calls it.
    pub(super) fn title(&self) -> String {
        let namespace = if self.namespace.is_empty() { String::new() } else { format!("{}/", self.namespace) };
        format!("{} {namespace}{}", self.kind, self.name)
    }

    /// The text of an annotation, and its line.
    pub(super) fn annotation(&self, name: &str) -> Result<Option<(&'a str, usize)>, Refusal> {
        let Some(annotations) = &self.annotations else { return Ok(None) };
        let line = annotations.get(name).map_or(0, |node| node.line);
        Ok(annotations.text(name)?.map(|text| (text, line)))
    }

    /// Notes about fields of the object itself that nobody has read.
    pub(super) fn unread(&self) -> Vec<Note> {
        self.fields.pass_over(&COMMON);
        Note::unread(&self.fields)
    }
}

/// All objects of documents: those in lists one by one.
pub(super) fn all(documents: &[Document]) -> Result<Vec<Object<'_>>, Refusal> {
    let mut objects = Vec::new();
    for document in documents {
        collect(&document.root, document.number, &mut objects).map_err(|refusal| refusal.in_document(document.number))?;
    }
    Ok(objects)
}

/// A list may hold lists; how deep is bounded when they are read.
fn collect<'a>(node: &'a Node, document: usize, objects: &mut Vec<Object<'a>>) -> Result<(), Refusal> {
    // A document that is a list of objects is none for Kubernetes, and what people make with other tools.
    if let Some(list) = node.list() {
        return list.iter().try_for_each(|item| collect(item, document, objects));
    }
    let is_list = node.get("kind").and_then(Node::text).is_some_and(|kind| kind.ends_with("List"));
    match node.get("items").filter(|_| is_list) {
        Some(items) => {
            let Some(items) = items.list() else {
                return Err(Refusal::of(items.line, "items", format!("is {}, and should be a list", items.kind())));
            };
            items.iter().try_for_each(|item| collect(item, document, objects))
        }
        None => {
            objects.push(Object::read(node, document)?);
            Ok(())
        }
    }
}
