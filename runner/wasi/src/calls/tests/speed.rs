//! What calls cost. Not part of a usual run, as figures of a debug build or a busy machine mean
//! nothing: `cargo test --release -p faas-wasm-wasi -- --ignored --nocapture speed`.

use std::fs as host_fs;
use std::hint::black_box;
use std::io::Write;

use super::*;

/// Nanoseconds of one run of `work`: the median of some rounds.
fn median(rounds: usize, mut work: impl FnMut()) -> u64 {
    const TIMES: u32 = 200;
    let mut times: Vec<_> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..TIMES {
                work();
            }
            (start.elapsed() / TIMES).as_nanos() as u64
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn report(what: &str, nanoseconds: u64) {
    writeln!(std::io::stderr(), "{what:40} {nanoseconds:7} ns").unwrap();
}

#[test]
#[ignore = "a measurement"]
fn reading_a_small_file_costs_at_most_thrice_what_the_host_needs() {
    let tmp = tempfile::tempdir().unwrap();
    host_fs::create_dir_all(tmp.path().join("some/directory")).unwrap();
    let name = "some/directory/file";
    host_fs::write(tmp.path().join(name), [7; 4096]).unwrap();
    let path = tmp.path().join(name);
    let host = median(51, || {
        let flags = rustix::fs::OFlags::RDONLY;
        let file = rustix::fs::open(&path, flags, rustix::fs::Mode::empty()).unwrap();
        let mut bytes = [0; 4096];
        assert_eq!(rustix::io::read(&file, &mut bytes), Ok(4096));
        black_box(bytes);
    });
    let mut guest = Guest::at(tmp.path());
    let read = |guest: &mut Guest| {
        let file = guest.open(name, 0, READ).unwrap();
        guest.one_buffer(DATA, 4096);
        let count = guest.ask(|call| transfer::fd_read(call, file, LIST, 1, RESULT));
        assert_eq!(count, Ok(4096));
        guest.ask(|call| fd::fd_close(call, file)).unwrap();
    };
    let untouched = median(51, || read(&mut guest));
    guest.open("some/other", CREATE, WRITE).unwrap();
    let touched = median(51, || read(&mut guest));
    report("host: open, read 4 KiB, close", host);
    report("guest: the same", untouched);
    report("guest: the same beside changed files", touched);
    assert!(untouched <= 3 * host, "{untouched} ns against {host} ns");
}

#[test]
#[ignore = "a measurement"]
fn a_first_write_into_a_large_file_costs_a_chunk() {
    let tmp = tempfile::tempdir().unwrap();
    for (name, length) in [("small", 1 << 16), ("large", 1 << 30)] {
        let file = host_fs::File::create(tmp.path().join(name)).unwrap();
        file.set_len(length).unwrap();
    }
    let cost = |name: &str| {
        let mut guest = Guest::at(tmp.path());
        median(21, || {
            let mut fresh = Guest::at(tmp.path());
            std::mem::swap(&mut guest, &mut fresh);
            let file = guest.open(name, 0, WRITE).unwrap();
            guest
                .ask(|call| fd::fd_seek(call, file, 12_345, 0, RESULT))
                .unwrap();
            assert_eq!(guest.write(file, b"x"), Ok(1));
        })
    };
    let (small, large) = (cost("small"), cost("large"));
    report("new instance, first write into 64 KiB", small);
    report("new instance, first write into 1 GiB", large);
    assert!(large <= 2 * small, "{large} ns against {small} ns");
}

#[test]
#[ignore = "a measurement"]
fn contexts_and_small_writes_are_cheap() {
    let tmp = tempfile::tempdir().unwrap();
    let root = Root::open(tmp.path()).unwrap();
    let namespace = Arc::new(Namespace::new(root, Access::CopyOnWrite));
    let arguments: Arc<[Vec<u8>]> = vec![b"guest".to_vec()].into();
    let context = median(51, || {
        let builder = WasiContext::builder(Arc::clone(&namespace));
        black_box(builder.arguments(Arc::clone(&arguments)).build());
    });
    let mut guest = Guest::at(tmp.path());
    let length = guest.put(DATA, b"hello, world\n");
    guest.one_buffer(DATA, length);
    let write = median(51, || {
        guest
            .ask(|call| transfer::fd_write(call, 1, LIST, 1, RESULT))
            .unwrap();
    });
    report("a context", context);
    report("fd_write of a short line", write);
    assert!(context < 2_000 && write < 1_000, "{context} ns, {write} ns");
}
