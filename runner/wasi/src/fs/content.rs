//! The data of a file in the upper layer: chunks over the lower file.
//!
//! ```text
//! lower file   |-------- origin_length --------|
//! chunks            [####]      [##]      [####]     [#]
//! length       |---------------------------------------------|
//! ```
//! A present chunk hides the lower file in its whole range; a chunk shorter than the range is followed by
//! zeros. Without a chunk, the lower file is read up to `origin_length`, and zeros beyond. Opening
//! therefore copies nothing, a write copies only the chunks that it covers in part, and a hole costs
//! nothing.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use crate::errno::Errno;

/// Size of a chunk's range in bytes.
pub(crate) const CHUNK: usize = 16 * 1024;

/// The minimum charge for a chunk in bytes.
const SMALLEST: usize = 512;

/// The limit of an instance's upper layer in bytes.
#[derive(Debug)]
pub(crate) struct Budget {
    used: u64,
    limit: u64,
    peak: u64,
    refused: bool,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            used: 0,
            limit,
            peak: 0,
            refused: false,
        }
    }

    pub(crate) fn charge(&mut self, bytes: usize) -> Result<(), Errno> {
        let used = self.used.saturating_add(bytes as u64);
        if used > self.limit {
            return Err(self.refuse());
        }
        self.used = used;
        self.peak = self.peak.max(used);
        Ok(())
    }

    pub(crate) fn release(&mut self, bytes: usize) {
        self.used = self.used.saturating_sub(bytes as u64);
    }

    pub(crate) fn left(&self) -> u64 {
        self.limit - self.used
    }

    /// Records that the limit refused a change, and returns the error.
    pub(crate) fn refuse(&mut self) -> Errno {
        self.refused = true;
        Errno::Nospc
    }

    /// The maximum that was ever in use.
    pub(crate) fn peak(&self) -> u64 {
        self.peak
    }

    /// Whether the limit has refused a change.
    pub(crate) fn has_refused(&self) -> bool {
        self.refused
    }
}

/// The data of a regular file.
#[derive(Debug, Default)]
pub(crate) struct Content {
    origin: Option<OwnedFd>,
    origin_length: u64,
    length: u64,
    chunks: BTreeMap<u64, Vec<u8>>,
    /// Bytes of the budget that are reserved for the next writes.
    reserved: usize,
}

impl Content {
    /// Creates the unchanged content of a host file.
    pub(crate) fn over(origin: OwnedFd, length: u64) -> Self {
        Self {
            origin: Some(origin),
            origin_length: length,
            length,
            chunks: BTreeMap::new(),
            reserved: 0,
        }
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Reads at `offset`, up to the end of the file.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let left = self.length.saturating_sub(offset);
        let total = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let mut done = 0;
        while done < total {
            let (number, start) = locate(offset + done as u64);
            let count = (CHUNK - start).min(total - done);
            let part = &mut buffer[done..done + count];
            match self.chunks.get(&number) {
                Some(chunk) => {
                    let present = chunk.get(start..).unwrap_or_default();
                    let copied = present.len().min(count);
                    part[..copied].copy_from_slice(&present[..copied]);
                    part[copied..].fill(0);
                }
                None => self.read_origin(part, offset + done as u64)?,
            }
            done += count;
        }
        Ok(total)
    }

    /// Fills `buffer` with the lower file's data at `offset`, then zeros.
    fn read_origin(&self, buffer: &mut [u8], offset: u64) -> Result<(), Errno> {
        let left = self.origin_length.saturating_sub(offset);
        let count = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let mut done = 0;
        if let Some(origin) = &self.origin {
            while done < count {
                match rustix::io::pread(origin, &mut buffer[done..count], offset + done as u64) {
                    Ok(0) => break,
                    Ok(read) => done += read,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        buffer[done..].fill(0);
        Ok(())
    }

    /// Writes at `offset`. The write is short if the budget ends in the middle.
    pub(crate) fn write_at(
        &mut self,
        bytes: &[u8],
        offset: u64,
        budget: &mut Budget,
    ) -> Result<usize, Errno> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(Errno::Fbig)?;
        if end > i64::MAX as u64 {
            return Err(Errno::Fbig);
        }
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let (number, start) = locate(at);
            let count = (CHUNK - start).min(bytes.len() - done);
            match self.writable(number, start, count, budget) {
                Ok(chunk) => {
                    chunk[start..start + count].copy_from_slice(&bytes[done..done + count])
                }
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
            done += count;
            self.length = self.length.max(at + count as u64);
        }
        Ok(done)
    }

    /// Returns chunk `number`, extended to at least `start + count` bytes. The bytes before `start` and the
    /// file's old bytes after the range are valid.
    fn writable(
        &mut self,
        number: u64,
        start: usize,
        count: usize,
        budget: &mut Budget,
    ) -> Result<&mut Vec<u8>, Errno> {
        let needed = start + count;
        if !self.chunks.contains_key(&number) {
            let base = number * CHUNK as u64;
            let below = self.origin_length.saturating_sub(base).min(CHUNK as u64) as usize;
            let replaced = start == 0 && count >= below;
            let mut chunk = Vec::new();
            let length = needed.max(if replaced { 0 } else { below });
            grow(&mut chunk, length, budget, &mut self.reserved)?;
            if !replaced && let Err(errno) = self.read_origin(&mut chunk[..below], base) {
                budget.release(chunk.capacity());
                return Err(errno);
            }
            self.chunks.insert(number, chunk);
        }
        let chunk = self.chunks.get_mut(&number).ok_or(Errno::Io)?;
        grow(chunk, needed, budget, &mut self.reserved)?;
        Ok(chunk)
    }

    /// Truncates the file and its reservation, or extends it by a hole.
    pub(crate) fn set_length(&mut self, length: u64, budget: &mut Budget) -> Result<(), Errno> {
        if length > i64::MAX as u64 {
            return Err(Errno::Fbig);
        }
        if length < self.length {
            budget.release(std::mem::take(&mut self.reserved));
            let (number, start) = locate(length);
            for (_, chunk) in self.chunks.split_off(&(number + u64::from(start > 0))) {
                budget.release(chunk.capacity());
            }
            if let Some(chunk) = self.chunks.get_mut(&number) {
                chunk.truncate(start);
            }
            self.origin_length = self.origin_length.min(length);
        }
        self.length = length;
        Ok(())
    }

    /// Extends the file to `end` and reserves the budget for writing up to there.
    pub(crate) fn allocate(&mut self, end: u64, budget: &mut Budget) -> Result<(), Errno> {
        if end > i64::MAX as u64 {
            return Err(Errno::Fbig);
        }
        if end <= self.length {
            return Ok(());
        }
        let chunks = |length: u64| length.div_ceil(CHUNK as u64);
        let bytes = (chunks(end) - chunks(self.length)).saturating_mul(CHUNK as u64);
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        budget.charge(bytes)?;
        self.reserved += bytes;
        self.length = end;
        Ok(())
    }

    /// Returns the whole charge to the budget. The content must not be used afterwards.
    pub(crate) fn release(self, budget: &mut Budget) {
        budget.release(self.reserved);
        for chunk in self.chunks.values() {
            budget.release(chunk.capacity());
        }
    }
}

/// The number of the chunk at `offset`, and the position in it.
fn locate(offset: u64) -> (u64, usize) {
    (offset / CHUNK as u64, (offset % CHUNK as u64) as usize)
}

/// Extends `chunk` with zeros, and charges its new capacity first to `reserved`, then to the budget.
fn grow(
    chunk: &mut Vec<u8>,
    length: usize,
    budget: &mut Budget,
    reserved: &mut usize,
) -> Result<(), Errno> {
    if length <= chunk.len() {
        return Ok(());
    }
    if length > chunk.capacity() {
        let before = chunk.capacity();
        let wanted = length.next_power_of_two().clamp(SMALLEST, CHUNK);
        let paid = (*reserved).min(wanted - before);
        budget.charge(wanted - before - paid)?;
        *reserved -= paid;
        if chunk.try_reserve_exact(wanted - chunk.len()).is_err() {
            budget.release(wanted - before);
            return Err(Errno::Nospc);
        }
        // The allocator may round up, and the capacity is what is returned later.
        let _ = budget.charge(chunk.capacity() - wanted);
    }
    chunk.resize(length, 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn over(bytes: &[u8]) -> Content {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Content::over(file.into(), bytes.len() as u64)
    }

    fn all(content: &Content) -> Vec<u8> {
        let mut bytes = vec![0xee; content.length() as usize + 9];
        let count = content.read_at(&mut bytes, 0).unwrap();
        assert_eq!(count as u64, content.length());
        bytes.truncate(count);
        bytes
    }

    #[test]
    fn a_write_copies_the_touched_chunk_only() {
        let mut content = over(&vec![7; 10 * CHUNK]);
        let mut budget = Budget::new(1 << 20);
        content
            .write_at(b"abc", 3 * CHUNK as u64 + 5, &mut budget)
            .unwrap();
        assert_eq!(content.chunks.len(), 1);
        assert_eq!(budget.used, CHUNK as u64);
    }

    #[test]
    fn what_was_cut_off_does_not_come_back() {
        let mut content = over(&[7; 100]);
        let mut budget = Budget::new(1 << 20);
        content.set_length(10, &mut budget).unwrap();
        content.set_length(100, &mut budget).unwrap();
        let mut expected = vec![0; 100];
        expected[..10].fill(7);
        assert_eq!(all(&content), expected);
    }

    #[test]
    fn the_budget_ends_a_write_short_and_is_given_back() {
        let mut content = Content::default();
        let mut budget = Budget::new(CHUNK as u64);
        assert_eq!(
            content.write_at(&vec![1; 3 * CHUNK], 0, &mut budget),
            Ok(CHUNK)
        );
        assert_eq!(
            content.write_at(&[1], CHUNK as u64, &mut budget),
            Err(Errno::Nospc)
        );
        assert_eq!(content.length(), CHUNK as u64);
        content.set_length(0, &mut budget).unwrap();
        assert_eq!(budget.left(), CHUNK as u64);
        content.write_at(&[1; 10], 0, &mut budget).unwrap();
        content.release(&mut budget);
        assert_eq!(budget.left(), CHUNK as u64);
    }

    #[test]
    fn what_is_allocated_is_set_aside() {
        let mut budget = Budget::new(3 * CHUNK as u64);
        let (mut first, mut second) = (Content::default(), Content::default());
        first.allocate(2 * CHUNK as u64, &mut budget).unwrap();
        let refused = second.allocate(2 * CHUNK as u64, &mut budget);
        assert_eq!(refused, Err(Errno::Nospc));
        assert_eq!(second.length(), 0);
        assert_eq!(
            second.write_at(&vec![1; 2 * CHUNK], 0, &mut budget),
            Ok(CHUNK)
        );
        // The first one still has its reservation, and uses no more than that.
        let count = first.write_at(&vec![1; 2 * CHUNK], 0, &mut budget);
        assert_eq!((count, budget.left()), (Ok(2 * CHUNK), 0));
        second.release(&mut budget);
        first.set_length(0, &mut budget).unwrap();
        assert_eq!(budget.left(), 3 * CHUNK as u64);
        for end in [1, 2 * CHUNK as u64, 7] {
            first.allocate(end, &mut budget).unwrap();
        }
        assert_eq!(budget.used, 2 * CHUNK as u64);
        first.release(&mut budget);
        assert_eq!(budget.used, 0);
        assert_eq!(
            Content::default().allocate(i64::MAX as u64, &mut budget),
            Err(Errno::Nospc)
        );
    }

    #[test]
    fn offsets_at_the_end_of_the_range_are_refused() {
        let mut content = Content::default();
        let mut budget = Budget::new(1 << 20);
        for offset in [u64::MAX, i64::MAX as u64] {
            assert_eq!(
                content.write_at(&[1], offset, &mut budget),
                Err(Errno::Fbig)
            );
        }
        assert_eq!(content.set_length(u64::MAX, &mut budget), Err(Errno::Fbig));
        assert_eq!(content.read_at(&mut [0; 4], u64::MAX), Ok(0));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLength(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let offset = 0..3 * CHUNK as u64;
        prop_oneof![
            (
                offset.clone(),
                proptest::collection::vec(any::<u8>(), 0..64)
            )
                .prop_map(|(at, bytes)| Step::Write(at, bytes)),
            (offset.clone(), 1..2 * CHUNK, any::<u8>())
                .prop_map(|(at, count, byte)| Step::Write(at, vec![byte; count])),
            offset.prop_map(Step::SetLength),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn behaves_as_a_vector_of_bytes(
            start in 0..3 * CHUNK,
            steps in proptest::collection::vec(step(), 1..12),
        ) {
            let mut model: Vec<u8> = (0..start).map(|i| (i % 251) as u8 + 1).collect();
            let mut content = over(&model);
            let mut budget = Budget::new(1 << 30);
            for step in steps {
                match step {
                    Step::Write(at, bytes) => {
                        prop_assert_eq!(content.write_at(&bytes, at, &mut budget), Ok(bytes.len()));
                        let end = at as usize + bytes.len();
                        if !bytes.is_empty() {
                            model.resize(model.len().max(end), 0);
                            model[at as usize..end].copy_from_slice(&bytes);
                        }
                    }
                    Step::SetLength(length) => {
                        content.set_length(length, &mut budget).unwrap();
                        model.resize(length as usize, 0);
                    }
                }
                prop_assert!(all(&content) == model);
            }
            content.release(&mut budget);
            prop_assert_eq!(budget.used, 0);
        }
    }
}
