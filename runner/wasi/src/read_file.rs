//! Reads a whole file of the guest's tree for the embedder, as the guest sees it.

use crate::context::WasiContext;
use crate::errno::Errno;
use crate::fs::{Dir, OpenOptions, Opened};

/// Number of bytes to read at a time.
const PIECE: usize = 256 << 10;

impl WasiContext {
    /// Reads a file of at most `limit` bytes. A relative path starts at the guest's `/`.
    ///
    /// # Errors
    ///
    /// The error of opening or reading it. [`Errno::Fbig`] if it is longer than the limit.
    pub fn read_file(&mut self, path: &[u8], limit: u64) -> Result<Vec<u8>, Errno> {
        let start = path
            .iter()
            .position(|byte| *byte != b'/')
            .unwrap_or(path.len());
        let options = OpenOptions {
            follow: true,
            read: true,
            ..OpenOptions::default()
        };
        let file = match self.fs.open(&Dir::ROOT, &path[start..], options)? {
            Opened::File(file) => file,
            Opened::Directory(dir) => {
                self.fs.close_directory(dir);
                return Err(Errno::Isdir);
            }
            Opened::Device(_) => return Err(Errno::Inval),
        };
        let mut contents = Vec::new();
        let result = loop {
            let length = contents.len();
            if length as u64 > limit {
                break Err(Errno::Fbig);
            }
            contents.resize(length + PIECE, 0);
            match self
                .fs
                .read_at(&file, &mut contents[length..], length as u64)
            {
                Ok(0) => {
                    contents.truncate(length);
                    break Ok(());
                }
                Ok(read) => contents.truncate(length + read),
                Err(errno) => break Err(errno),
            }
        };
        self.fs.close(file);
        result.map(|()| contents)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Access, Namespace, Root};

    #[test]
    fn files_are_read_as_the_guest_sees_them() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("d")).unwrap();
        std::fs::write(directory.path().join("d/kernel.ptx"), vec![7; PIECE + 1]).unwrap();
        std::os::unix::fs::symlink("../../../etc/passwd", directory.path().join("out")).unwrap();
        let root = Root::open(directory.path()).unwrap();
        let mut context =
            WasiContext::builder(Arc::new(Namespace::new(root, Access::CopyOnWrite))).build();
        for path in ["d/kernel.ptx", "/d/kernel.ptx", "//d/../d/kernel.ptx"] {
            let read = context.read_file(path.as_bytes(), 1 << 20);
            assert_eq!(read.map(|contents| contents.len()), Ok(PIECE + 1), "{path}");
        }
        assert_eq!(
            context.read_file(b"d/kernel.ptx", PIECE as u64),
            Err(Errno::Fbig)
        );
        assert_eq!(context.read_file(b"d", 10), Err(Errno::Isdir));
        assert_eq!(context.read_file(b"missing", 10), Err(Errno::Noent));
        // As in the guest's calls, nothing leads above its root: a path that does is refused, and a
        // symlink stops at the root.
        assert_eq!(
            context.read_file(b"../d/kernel.ptx", 1 << 20),
            Err(Errno::Perm)
        );
        assert_eq!(context.read_file(b"out", 1 << 20), Err(Errno::Noent));
    }
}
