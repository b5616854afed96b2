//! `[client]`: the service that the commands ask when nobody names another.

use std::path::PathBuf;

use crate::value::Raw;

/// `[client]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Where it is; `None` looks at the data directory.
    pub url: Option<String>,
    /// The file with the token that it asks for.
    pub token_file: Option<PathBuf>,
    /// The certificates to trust instead of those of the machine, in PEM.
    pub ca: Option<PathBuf>,
}

/// The keys of `[client]`, in the order of `default.toml`.
pub(crate) const KEYS: [&str; 3] = ["client.url", "client.token_file", "client.ca"];

const NONE: &str = "none";

impl Client {
    /// Sets a value; the error says what the key takes.
    pub(crate) fn set(&mut self, key: &str, raw: &Raw) -> Result<(), &'static str> {
        let given = raw.text().filter(|text| !text.is_empty());
        let text = |expected| given.map(|text| (text != NONE).then(|| text.to_owned())).ok_or(expected);
        match key {
            "client.url" => self.url = text("a URL such as \"http://127.0.0.1:7420\", or \"none\"")?,
            "client.token_file" => self.token_file = text("the path of a file, or \"none\"")?.map(PathBuf::from),
            "client.ca" => self.ca = text("the path of a file, or \"none\"")?.map(PathBuf::from),
            _ => return Err("nothing"),
        }
        Ok(())
    }

    /// A value as a file would have it, without quotes.
    pub(crate) fn value(&self, key: &str) -> String {
        let file = |path: &Option<PathBuf>| path.as_ref().map_or_else(|| NONE.to_owned(), |path| path.display().to_string());
        match key {
            "client.url" => self.url.clone().unwrap_or_else(|| NONE.to_owned()),
            "client.token_file" => file(&self.token_file),
            "client.ca" => file(&self.ca),
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_and_shown_alike() {
        let mut client = Client::default();
        for (key, text) in KEYS.into_iter().zip(["http://localhost:7420", "/etc/ergate/token", "/etc/ergate/ca.pem"]) {
            assert_eq!(client.value(key), "none");
            assert_eq!(client.set(key, &Raw::Word(text.to_owned())), Ok(()));
            assert_eq!(client.value(key), text);
            assert!(client.set(key, &Raw::Number(1)).is_err() && client.set(key, &Raw::Word(String::new())).is_err());
            assert_eq!((client.set(key, &Raw::Word("none".to_owned())), client.value(key).as_str()), (Ok(()), "none"));
        }
    }
}
