//! Server-sent events (HTML Living Standard §9.2), as far as `/v1/log` has them.

/// An event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its name; empty where it has none.
    pub(crate) name: String,
    /// Where it lies in the log.
    pub(crate) id: Option<u64>,
    /// What it says.
    pub(crate) data: String,
}

/// Takes a stream apart as it comes.
#[derive(Default)]
pub(crate) struct Events {
    /// The beginning of a line of which the rest has not come.
    rest: Vec<u8>,
    event: Event,
}

impl Events {
    /// Takes a piece of the stream and gives the events that end in it.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut ended = Vec::new();
        self.rest.extend_from_slice(bytes);
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let rest = self.rest.split_off(whole);
        let lines = std::mem::replace(&mut self.rest, rest);
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(line);
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                ended.push(std::mem::take(&mut self.event));
            } else {
                self.field(line);
            }
        }
        ended.retain(|event| !event.data.is_empty());
        ended
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => self.event.id = value.parse().ok(),
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // Comments have no name.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_however_they_are_cut() {
        let text = ": following\n\nid: 7\nevent: requested\ndata: {\"a\":1}\n\n: alive\n\nid: 8\nevent: started\ndata: x\ndata: y\n\nid: 9\nda";
        let event = |id, name: &str, data: &str| Event { name: name.to_owned(), id: Some(id), data: data.to_owned() };
        let expected = [event(7, "requested", "{\"a\":1}"), event(8, "started", "x\ny")];
        for size in [1, 2, 3, 7, 1_000] {
            let mut events = Events::default();
            let found: Vec<_> = text.as_bytes().chunks(size).flat_map(|piece| events.take(piece)).collect();
            assert_eq!(found, expected, "{size}");
        }
    }
}
