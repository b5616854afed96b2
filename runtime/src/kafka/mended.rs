//! Whether the client library is mended in this program: see `mended.c`.

/// Whether the linker put our correction of librdkafka's issue 5280 in place. A program of yours that links Ergate gets it with a line in its
/// `build.rs`, on Linux: `println!("cargo::rustc-link-arg=-Wl,--wrap=rd_kafkap_leader_discovery_set_topic");`. Without it the client library can
/// crash the process while a broker restarts.
#[expect(unsafe_code, reason = "a function of C without arguments that compares two constants")]
pub fn is_mended() -> bool {
    unsafe extern "C" {
        safe fn ergate_is_mended() -> std::ffi::c_int;
    }
    ergate_is_mended() != 0
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_os = "linux")]
    fn the_client_library_is_mended_here() {
        assert!(super::is_mended());
    }
}
