//! Strings that the host returns to the guest: names of errors and kernels.
//!
//! The guest receives an address in its own memory, but the host cannot call the guest's allocator. So the host grows
//! the memory by a page and writes the page once. The guest's allocator may later use that page, so the host never
//! writes it again, and compares the bytes before it returns the same address again. If they have changed, it writes a
//! new page.

use std::collections::HashMap;

use crate::code::Code;
use crate::host::GuestHost;
use crate::outcome::{CallResult, fail};

/// Size of a page of WebAssembly memory in bytes.
const PAGE: u64 = 64 << 10;
/// Most pages of strings per instance, so that a guest that overwrites them cannot use up memory.
const MOST_PAGES: u32 = 64;

/// The addresses of strings in guest memory.
#[derive(Debug, Default)]
pub(crate) struct GuestStrings {
    places: HashMap<String, u32>,
    pages: u32,
    /// Whether the names and descriptions of all codes have been written.
    has_codes: bool,
}

impl GuestStrings {
    /// The address of the name or description of a code.
    pub(crate) fn of_code(&mut self, host: &mut dyn GuestHost, text: &str) -> CallResult<u64> {
        if !self.has_codes {
            let all = Code::all().flat_map(|(_, name, text)| [name, text.to_owned()]);
            self.write(host, &all.collect::<Vec<_>>())?;
            self.has_codes = true;
        }
        self.of(host, text)
    }

    /// The address of a string.
    pub(crate) fn of(&mut self, host: &mut dyn GuestHost, text: &str) -> CallResult<u64> {
        if let Some(place) = self.places.get(text).copied() {
            let there = host.bytes(place, text.len() as u32 + 1);
            if there.is_some_and(|there| there.strip_suffix(&[0]) == Some(text.as_bytes())) {
                return Ok(u64::from(place));
            }
        }
        self.write(host, &[text.to_owned()])?;
        match self.places.get(text) {
            Some(place) => Ok(u64::from(*place)),
            None => fail(Code::OUT_OF_MEMORY),
        }
    }

    /// Writes strings to a new page.
    fn write(&mut self, host: &mut dyn GuestHost, texts: &[String]) -> CallResult {
        let length: u64 = texts.iter().map(|text| text.len() as u64 + 1).sum();
        if length > PAGE || self.pages == MOST_PAGES {
            return fail(Code::OUT_OF_MEMORY);
        }
        let Some(page) = host.grow(1) else {
            return fail(Code::OUT_OF_MEMORY);
        };
        self.pages += 1;
        // A memory has at most 2^16 pages, and the last one begins below 2^32.
        let mut at = page << 16;
        for text in texts {
            let Some(bytes) = host.bytes_mut(at, text.len() as u32 + 1) else {
                return fail(Code::OUT_OF_MEMORY);
            };
            bytes[..text.len()].copy_from_slice(text.as_bytes());
            bytes[text.len()] = 0;
            self.places.insert(text.clone(), at);
            at += text.len() as u32 + 1;
        }
        Ok(())
    }
}
