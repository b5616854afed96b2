//! `[kafka]`: options with their dots, secrets that nobody sees, settings that cannot be together.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use ergate_config::{Config, OptionValue};
use support::{read, refuses};

#[test]
fn options_are_named_with_their_dots_in_every_way_that_toml_has() {
    let text =
        "[kafka.options]\n\"linger.ms\" = 5\nssl.ca.location = \"/ca.pem\"\nlog_level = 7\n\"socket.keepalive.enable\" = true\n";
    let config = read(text, &[("ERGATE_KAFKA__OPTIONS__CLIENT__ID", "me")]).unwrap();
    let plain = |name: &str| config.kafka.options[name].resolve(name).unwrap();
    let names = ["linger.ms", "ssl.ca.location", "log_level", "socket.keepalive.enable", "client.id"];
    assert_eq!(names.map(plain), ["5", "/ca.pem", "7", "true", "me"]);
    assert_eq!(config.kafka.options.len(), names.len());
    refuses("[kafka.options]\n\"linger.ms\" = [5]\n", &[], &["my.toml:2", "kafka.options.linger.ms", "a text, a number"]);
    refuses("[kafka.options]\n\"Linger\" = 5\n", &[], &["no key `kafka.options.Linger`"]);
}

#[test]
fn secrets_are_references_and_shown_nowhere() {
    let text = "[kafka.options]\n\"sasl.password\" = { file = \"/run/secrets/kafka\" }\nssl.key.password = { env = \"KEY\" }\n";
    let config = read(text, &[("ERGATE_KAFKA__OPTIONS__SSL__KEYSTORE__PASSWORD", "hunter2")]).unwrap();
    assert_eq!(config.kafka.options["sasl.password"], OptionValue::File("/run/secrets/kafka".into()));
    assert_eq!(config.kafka.options["ssl.key.password"], OptionValue::Env("KEY".to_owned()));
    assert_eq!(config.kafka.options["ssl.keystore.password"].resolve("ssl.keystore.password").unwrap(), "hunter2");
    let shown = format!("{config:?} {:?}", config.settings());
    assert!(!shown.contains("hunter2") && shown.contains("(hidden)"), "{shown}");
    assert!(shown.contains("{ file = \\\"/run/secrets/kafka\\\" }"), "{shown}");
    refuses("[kafka.options]\n\"sasl.password\" = \"hunter2\"\n", &[], &["my.toml:2", "{ file = \"PATH\" }", "a text"]);
    refuses(
        "[kafka.options]\nsasl.password = { plain = \"hunter2\" }\n",
        &[],
        &["my.toml:2", "kafka.options.sasl.password.plain"],
    );
    refuses("[kafka]\npassword = \"hunter2\"\n", &[], &["no key `kafka.password`"]);
}

#[test]
fn values_have_bounds_and_must_go_together() {
    refuses("[kafka]\nbatch_time = \"2s\"\n", &[], &["`kafka.batch_time` takes a duration from"]);
    refuses("[kafka]\nbatch_size = \"8MiB\"\n", &[], &["from \"1KiB\" to \"4MiB\""]);
    refuses("[kafka]\nformat = \"avro\"\n", &[], &["\"json\" or \"block\""]);
    refuses("[kafka]\nstandby = \"yes\"\n", &[], &["true or false"]);
    refuses("[kafka]\nheartbeat_interval = \"3s\"\n", &[], &["my.toml:2", "at most a third of `kafka.session_timeout`"]);
    refuses("[kafka]\ntransaction_timeout = \"1s\"\nbatch_time = \"1s\"\n", &[], &["my.toml:3", "at most a tenth"]);
    refuses("", &[("ERGATE_KAFKA__STANDBY", "maybe")], &["ERGATE_KAFKA__STANDBY", "true or false"]);
    assert!(!read("[kafka]\nstandby = true\n", &[("ERGATE_KAFKA__STANDBY", "false")]).unwrap().kafka.standby);
    assert_eq!(read("[kafka]\n[kafka.options]\n", &[]).unwrap().kafka, Config::default().kafka);
}
