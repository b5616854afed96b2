//! TLS and SASL for a broker: a certificate of its own, and two users.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A user whom a broker with an authorizer lets do everything, where the test names it in `super.users`.
pub(crate) const USER: &str = "alice";
/// Another user.
pub(crate) const STRANGER: &str = "mallory";
/// The password of both.
pub(crate) const PASSWORD: &str = "not.for-production";

/// A key and its self-signed certificate for the loopback interface.
pub(crate) struct Certificate {
    certificate: PathBuf,
    both: PathBuf,
}

impl Certificate {
    /// Makes a new one in a directory.
    ///
    /// # Panics
    /// Where openssl is missing.
    pub(crate) fn make(dir: &Path) -> Certificate {
        let (key, certificate, both) = (dir.join("key.pem"), dir.join("certificate.pem"), dir.join("both.pem"));
        let ran = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("openssl cannot be run ({error}); on Debian: apt-get install openssl"));
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let read = |path| std::fs::read_to_string(path).expect("openssl has written it");
        std::fs::write(&both, read(&key) + &read(&certificate)).expect("the directory can be written to");
        Certificate { certificate, both }
    }

    /// What clients must trust.
    pub(crate) fn path(&self) -> &Path {
        &self.certificate
    }

    /// What a broker must know to listen with it.
    pub(crate) fn properties(&self) -> Vec<(&'static str, String)> {
        let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required";
        let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
        let users = [USER, STRANGER].map(|user| format!("user_{user}=\"{PASSWORD}\"")).join(" ");
        vec![
            ("listener.name.secure.ssl.keystore.type", "PEM".to_owned()),
            ("listener.name.secure.ssl.keystore.location", self.both.display().to_string()),
            ("listener.name.secure.sasl.enabled.mechanisms", "SCRAM-SHA-256,PLAIN".to_owned()),
            ("listener.name.secure.scram-sha-256.sasl.jaas.config", scram.to_owned()),
            ("listener.name.secure.plain.sasl.jaas.config", format!("{plain} {users};")),
        ]
    }
}

/// The users as the storage tool takes them.
pub(crate) fn scram() -> Vec<String> {
    [USER, STRANGER].map(|user| format!("SCRAM-SHA-256=[name={user},password={PASSWORD}]")).to_vec()
}
