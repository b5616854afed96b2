//! Links a correction of the client library in: see `src/kafka/mended.c`.

/// What is corrected.
const MENDED: &str = "rd_kafkap_leader_discovery_set_topic";

fn main() {
    println!("cargo::rerun-if-changed=runtime/src/kafka/mended.c");
    println!("cargo::rerun-if-changed=runtime/build.rs");
    let has_kafka = std::env::var_os("CARGO_FEATURE_KAFKA").is_some();
    // Other linkers have no --wrap; there the library is as it comes.
    let is_elf = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux");
    if !has_kafka {
        return;
    }
    cc::Build::new().file("runtime/src/kafka/mended.c").warnings(true).cargo_metadata(false).compile("ergate_mended");
    let out = std::env::var("OUT_DIR").unwrap_or_default();
    println!("cargo::rustc-link-search=native={out}");
    // Whole: nothing names it before the linker comes to the client library, which is too late for some linkers.
    println!("cargo::rustc-link-lib=static:+whole-archive=ergate_mended");
    if is_elf {
        println!("cargo::rustc-link-arg=-Wl,--wrap={MENDED}");
        // Programs of this package that use the client library without ours must find it, too.
        println!("cargo::rustc-link-arg={out}/libergate_mended.a");
    }
}
