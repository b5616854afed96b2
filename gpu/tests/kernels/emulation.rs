//! The emulation finds what it is there to find: what would pass with it by mistake would pass here too.

use std::process::Command;

use ergate_gpu::{Arg, Backend, Dtype, GpuError, Launch, Program, Scalar, Slice, Stream, Workspace};

use crate::emulated::Emulated;
use crate::emulated::compile::compiler;
use crate::upload;

/// Runs a kernel of this body on 64 words; what they hold then.
fn run(body: &str, words: &[u32]) -> Result<Vec<u32>, GpuError> {
    let mut emulated = Emulated::new(7);
    let source = format!("extern \"C\" __global__ void k(unsigned* words, unsigned count) {{ {body} }}");
    let program = Program { name: "k.cu".into(), source, options: vec![] };
    let module = emulated.load(&program)?;
    let kernel = emulated.kernel(module, "k")?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let slice: Slice = upload(&mut emulated, &bytes);
    let launch = Launch { grid: [1, 1, 1], block: [64, 1, 1], shared_bytes: 256 };
    let args = [Arg::Slice(slice), Arg::Scalar(Scalar::U32(words.len() as u32))];
    emulated.launch(Stream::Compute, kernel, &launch, &args)?;
    let read = Workspace::default().read(&mut emulated, slice)?;
    Ok(read.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)).collect())
}

#[test]
fn threads_meet_at_barriers_and_lanes_exchange_values() {
    if compiler().is_none() {
        return;
    }
    let words: Vec<u32> = (0..64).map(|i| i * i).collect();
    let reversed = run(
        "__shared__ unsigned all[64]; unsigned i = threadIdx.x; all[i] = words[i]; __syncthreads(); words[i] = all[63 - i];",
        &words,
    );
    assert_eq!(reversed.unwrap(), words.iter().rev().copied().collect::<Vec<_>>());
    let swapped = run("unsigned i = threadIdx.x; words[i] = __shfl_xor_sync(0xffffffffu, words[i], 1);", &words).unwrap();
    assert_eq!(swapped, (0..64).map(|i: u32| (i ^ 1) * (i ^ 1)).collect::<Vec<_>>());
    let votes = run("words[threadIdx.x] = __ballot_sync(0xffffffffu, threadIdx.x % 3 == 0);", &words).unwrap();
    assert_eq!((votes[0], votes[63]), (0x4924_9249, 0x9249_2492));
}

#[test]
fn a_missing_barrier_shows() {
    if compiler().is_none() {
        return;
    }
    let words: Vec<u32> = (0..64).collect();
    let body = "__shared__ unsigned all[64]; unsigned i = threadIdx.x; all[i] = words[i]; words[i] = all[63 - i];";
    assert_ne!(run(body, &words).unwrap(), words.iter().rev().copied().collect::<Vec<_>>());
}

#[test]
fn wrong_arguments_are_refused() {
    if compiler().is_none() {
        return;
    }
    let mut emulated = Emulated::new(1);
    let program = Program { name: "k.cu".into(), source: "extern \"C\" __global__ void k(int a) {}".into(), options: vec![] };
    let module = emulated.load(&program).unwrap();
    let kernel = emulated.kernel(module, "k").unwrap();
    let launch = Launch { grid: [1, 1, 1], block: [32, 1, 1], shared_bytes: 0 };
    assert!(emulated.launch(Stream::Compute, kernel, &launch, &[]).is_err());
    assert!(emulated.kernel(module, "another").is_err());
    assert_eq!(Dtype::I32.size(), 4);
}

/// What ends the process, in a process of its own: this test binary again, with the name of the case.
#[test]
fn wrong_accesses_and_meetings_end_the_process() {
    if compiler().is_none() {
        return;
    }
    let cases = [
        ("a read past the end", "words[threadIdx.x] = words[threadIdx.x + 4096];", ""),
        ("a write past the end", "if (threadIdx.x == 0) words[64] = 1;", ""),
        ("a write before the start", "if (threadIdx.x == 0) words[-1] = 1;", "wrote outside"),
        (
            "a barrier that some miss",
            "if (threadIdx.x < 40) __syncthreads(); else if (threadIdx.x < 50) __shfl_sync(~0u, 1, 0);",
            "wait",
        ),
        (
            "lanes in different operations",
            "if (threadIdx.x & 1) __shfl_sync(~0u, 1, 0); else __ballot_sync(~0u, 1);",
            "different",
        ),
        ("a shuffle of some lanes", "__shfl_sync(0xffu, 1, 0);", "less than all"),
        ("an odd address", "atomicAdd((unsigned long long*)(words + 1), 1ull);", "aligned"),
        ("too much shared memory", "DYNAMIC_SHARED(unsigned, s); s[64] = words[0];", "past its dynamic"),
        ("signed overflow", "int a = 0x7fffffff - (int)words[0]; words[1] = (unsigned)(a + (int)count);", ""),
    ];
    if let Ok(case) = std::env::var("ERGATE_EMULATED_CASE") {
        let body = cases[case.parse::<usize>().unwrap()].1;
        let outcome = run(body, &[0; 64]);
        assert!(outcome.is_err(), "it ran: {outcome:?}");
        return;
    }
    for (index, (name, _, says)) in cases.iter().enumerate() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "emulation::wrong_accesses_and_meetings_end_the_process", "--nocapture"])
            .env("ERGATE_EMULATED_CASE", index.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(says) && !text.contains("it ran"), "{name}: {}\n{text}", output.status);
    }
}
