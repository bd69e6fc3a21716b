//! Strings that the host gives to the guest: names of errors and of kernels.
//!
//! The guest gets an address in its own memory, but has no allocator that the host could call. So the host makes the
//! memory longer by a page and writes it once. A page is never written again, as the guest's allocator may take over
//! whatever is at the end of the memory; for the same reason the bytes are compared before an address is given out
//! again, and a fresh page is made if they have changed.

use std::collections::HashMap;

use crate::code::Code;
use crate::host::GuestHost;
use crate::outcome::{CallResult, fail};

/// Length of a page of WebAssembly memory.
const PAGE: u64 = 64 << 10;
/// Most pages for strings of one instance: a guest that destroys them on purpose gets no more.
const MOST_PAGES: u32 = 64;

/// Where strings have been written.
#[derive(Debug, Default)]
pub(crate) struct GuestStrings {
    places: HashMap<String, u32>,
    pages: u32,
    /// Whether the table of codes has been written.
    has_codes: bool,
}

impl GuestStrings {
    /// The address of one of the codes' strings.
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

    /// Writes strings to a fresh page.
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
