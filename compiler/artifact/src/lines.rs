//! Source lines of compiled code: what turns an address of a backtrace into file and line.
//!
//! ```text
//! files    count, then for each: length of its name, name
//! rows     for each: address, file, line; all as differences to the row before
//! ```
//!
//! Numbers are LEB128, differences of file and line zigzag-encoded. Rows ascend by address; a row
//! holds until the next one. File 0 is no file: code without a place in the source. The table is
//! read from its start, once for a whole backtrace, so that it can be this small.

/// A place in a source file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceLine {
    /// Path of the file as the guest's compiler wrote it.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
}

/// The source lines of `addresses`, `None` where there is none. Damage costs the lines, nothing
/// else: the bytes are outside of the load set.
pub fn source_lines(table: &[u8], addresses: &[u32]) -> Vec<Option<SourceLine>> {
    let mut found = vec![None; addresses.len()];
    // What was found before damage stays.
    let _ = find(table, addresses, &mut found);
    found
}

fn find(table: &[u8], addresses: &[u32], found: &mut [Option<SourceLine>]) -> Option<()> {
    let mut rest = table;
    let mut files = Vec::new();
    for _ in 0..unsigned(&mut rest)? {
        let length = usize::try_from(unsigned(&mut rest)?).ok()?;
        let (name, behind) = rest.split_at_checked(length)?;
        files.push(name);
        rest = behind;
    }
    let mut wanted: Vec<_> = addresses.iter().zip(found).collect();
    wanted.sort_unstable_by_key(|(address, _)| **address);
    let mut wanted = wanted.into_iter().peekable();
    let (mut address, mut file, mut line) = (0_u64, 0_i64, 0_i64);
    while wanted.peek().is_some() {
        let (at_end, before) = (rest.is_empty(), (file, line));
        if at_end {
            address = u64::MAX;
        } else {
            address = address.checked_add(unsigned(&mut rest)?)?;
            file = file.checked_add(signed(&mut rest)?)?;
            line = line.checked_add(signed(&mut rest)?)?;
        }
        while let Some((_, found)) = wanted.next_if(|(wanted, _)| u64::from(**wanted) < address) {
            *found = source_line(&files, before);
        }
    }
    Some(())
}

fn source_line(files: &[&[u8]], (file, line): (i64, i64)) -> Option<SourceLine> {
    let name = files.get(usize::try_from(file).ok()?.checked_sub(1)?)?;
    Some(SourceLine {
        file: String::from_utf8_lossy(name).into_owned(),
        line: u32::try_from(line).ok()?,
    })
}

fn unsigned(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn signed(bytes: &mut &[u8]) -> Option<i64> {
    let number = unsigned(bytes)?;
    Some((number >> 1) as i64 ^ -((number & 1) as i64))
}

/// Collects rows and encodes them.
///
/// A row holds a number for its file, not the path: a DWARF line program of N bytes can make N rows for a file with a
/// path of N bytes.
#[cfg(feature = "build")]
#[derive(Debug, Clone, Default)]
pub struct LineTable {
    files: std::collections::BTreeMap<String, SourceFile>,
    rows: std::collections::BTreeMap<u32, Option<(SourceFile, u32)>>,
}

/// A source file of a [`LineTable`].
#[cfg(feature = "build")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceFile(usize);

#[cfg(feature = "build")]
impl LineTable {
    /// The file with this path.
    pub fn file(&mut self, path: String) -> SourceFile {
        let next = SourceFile(self.files.len());
        *self.files.entry(path).or_insert(next)
    }

    /// The code from this address on is from this file and line, until the next row.
    pub fn insert(&mut self, address: u32, place: Option<(SourceFile, u32)>) {
        // Where two rows are for one address the one that knows something is the better.
        let row = self.rows.entry(address).or_default();
        if place.is_some() {
            *row = place;
        }
    }

    /// Whether no row has a place.
    pub fn is_empty(&self) -> bool {
        self.rows.values().all(Option::is_none)
    }

    /// The table's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut used = vec![false; self.files.len()];
        for (SourceFile(file), _) in self.rows.values().flatten() {
            used[*file] = true;
        }
        // By name, so that the bytes do not depend on the order in which rows came.
        let files = self.files.iter().filter(|(_, file)| used[file.0]);
        let mut numbers = vec![0; self.files.len()];
        for (number, (_, file)) in (1..).zip(files.clone()) {
            numbers[file.0] = number;
        }
        let mut bytes = Vec::new();
        write_unsigned(&mut bytes, files.clone().count() as u64);
        for (name, _) in files {
            write_unsigned(&mut bytes, name.len() as u64);
            bytes.extend_from_slice(name.as_bytes());
        }
        let mut last = (0_u32, (0_i64, 0_i64));
        for (address, place) in &self.rows {
            let place = place.map_or((0, 0), |(file, line)| (numbers[file.0], i64::from(line)));
            if place == last.1 {
                continue;
            }
            write_unsigned(&mut bytes, u64::from(address - last.0));
            write_signed(&mut bytes, place.0 - last.1.0);
            write_signed(&mut bytes, place.1 - last.1.1);
            last = (*address, place);
        }
        bytes
    }
}

#[cfg(feature = "build")]
fn write_unsigned(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

#[cfg(feature = "build")]
fn write_signed(bytes: &mut Vec<u8>, number: i64) {
    write_unsigned(bytes, (number << 1 ^ number >> 63) as u64);
}

#[cfg(all(test, feature = "build"))]
mod tests {
    use super::*;

    fn place(file: &str, line: u32) -> Option<SourceLine> {
        Some(SourceLine {
            file: file.into(),
            line,
        })
    }

    fn table() -> Vec<u8> {
        let mut table = LineTable::default();
        assert!(table.is_empty());
        let (b, a) = (table.file("b.c".into()), table.file("a.c".into()));
        table.file("unused.c".into());
        assert_eq!(table.file("b.c".into()), b);
        table.insert(0x1000, Some((b, 300)));
        table.insert(0x1004, Some((b, 300)));
        table.insert(0x1010, Some((a, 7)));
        table.insert(0x1010, None);
        table.insert(0x1020, None);
        table.insert(0x40_0000, Some((a, 1)));
        assert!(!table.is_empty());
        table.encode()
    }

    #[test]
    fn finds_the_row_that_holds() {
        let addresses = [
            0x1011,
            0,
            0xfff,
            0x1000,
            0x100f,
            0x1020,
            u32::MAX,
            0x3f_ffff,
        ];
        let expected = [
            place("a.c", 7),
            None,
            None,
            place("b.c", 300),
            place("b.c", 300),
            None,
            place("a.c", 1),
            None,
        ];
        assert_eq!(source_lines(&table(), &addresses), expected);
        assert_eq!(source_lines(&[], &[5]), [None]);
    }

    #[test]
    fn damage_costs_lines_only() {
        let table = table();
        let addresses: Vec<u32> = (0..u32::MAX)
            .step_by(1 << 25)
            .chain(0x1000..0x1030)
            .collect();
        for at in 0..table.len() {
            source_lines(&table[..at], &addresses);
            for bits in [1, 0x80, 0xff] {
                let mut damaged = table.clone();
                damaged[at] ^= bits;
                source_lines(&damaged, &addresses);
            }
        }
    }
}
