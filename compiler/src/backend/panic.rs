//! Turns a panic of a backend into an error.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Panic;

/// Runs `work`. If it panics, on this thread or on one that it waits for, the first panic is the
/// result, and nothing is printed.
///
/// The panic hook is the process's, so calls run one after the other and must not nest, and threads
/// that have nothing to do with `work` should not panic.
pub(super) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Panic> {
    static HOOK: Mutex<()> = Mutex::new(());
    let ours = HOOK.lock().unwrap_or_else(PoisonError::into_inner);
    let first = Arc::new(Mutex::new(None));
    let previous = take_hook();
    set_hook(Box::new({
        let first = Arc::clone(&first);
        move |info| {
            let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| describe(info));
        }
    }));
    // Whatever `work` leaves half done is dropped here: it shares nothing with us.
    let result = catch_unwind(AssertUnwindSafe(work));
    drop(take_hook());
    set_hook(previous);
    drop(ours);
    result.map_err(|_| {
        let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
        first.take().unwrap_or_else(|| Panic {
            message: "it stopped without a message".into(),
            location: "unknown place".into(),
        })
    })
}

fn describe(info: &PanicHookInfo<'_>) -> Panic {
    let message = info
        .payload_as_str()
        .unwrap_or("it panicked without a message");
    // The path of the registry on the machine that built us says nothing to the user.
    let location = info.location().map_or("unknown place".into(), |location| {
        let file = location.file();
        let file = file.split_once("/registry/src/").map_or(file, |(_, rest)| {
            rest.split_once('/').map_or(rest, |(_, file)| file)
        });
        format!("{file}:{}", location.line())
    });
    Panic {
        message: message.into(),
        location,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_first_panic_and_its_place() {
        let result = catch(|| {
            let inner = std::thread::spawn(|| panic!("{}", "inside"));
            assert!(inner.join().is_err(), "the thread panicked");
            panic!("outside");
        });
        let panic = result.expect_err("it panicked");
        assert_eq!(panic.message, "inside");
        assert!(panic.location.contains("panic.rs:"), "{}", panic.location);
        assert_eq!(catch(|| 7).expect("no panic"), 7);
    }
}
